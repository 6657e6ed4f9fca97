/* api_training.c - trainings: made, paused, resumed, and what can be seen of them while they run and afterwards. */
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/parse.h"
#include "db/datasets.h"
#include "db/training.h"
#include "server/create.h"
#include "server/curves.h"
#include "server/trainer.h"
#include "server/training_files.h"
#include "server/training_memory.h"
#include "server/training_params.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What a parked write leaves for the next step. */
typedef struct call {
    dr_status status;
    dr_error err;
    bool flag, on;
} call;

static call *new_call(srv_req *r) {
    call *c = dr_calloc(1, sizeof *c);
    if (!c) return NULL;
    r->state = c;
    r->state_free = dr_free;
    return c;
}

/* On the store's thread. */
static void on_done(void *arg, dr_status s, const db_job *job, bool flag, const dr_error *err) {
    srv_req *r = arg;
    call *c = r->state;
    c->status = s;
    c->flag = flag;
    if (s && err) c->err = *err;
    (void)job;
    srv_call_back(r);
}

/* --- make --- */

/* "NAME", "NAME/VERSION", "none" or "" (what is served): the version that the job's row names. */
static bool find_parent(const srv_app *app, srv_training_params *p, db_job *j) {
    srv_model_id m;
    db_model row = {0};
    int64_t version = 0;
    char name[96];
    srv_registry_served(app->registry, &m);
    if (!strcmp(p->parent, "none")) {
        snprintf(j->model.name, sizeof j->model.name, "%s", m.name);
        return true;
    }
    if (*p->parent) {
        snprintf(name, sizeof name, "%s", p->parent);
        char *slash = strchr(name, '/');
        if (slash && !dr_parse_i64(slash + 1, 1, INT64_MAX, &version)) return false;
        if (slash) *slash = 0;
        if (strlen(name) >= sizeof m.name || db_model_get(app->db, name, version, &row, NULL)) return false;
        m.version = row.version;
        memcpy(m.name, row.name, sizeof m.name);
        memcpy(m.sha256, row.sha256, sizeof m.sha256);
        db_model_clear(&row);
    }
    snprintf(p->parent, sizeof p->parent, "%s/%lld", m.name, (long long)m.version);
    snprintf(j->model.name, sizeof j->model.name, "%s", m.name);
    snprintf(j->model.sha256, sizeof j->model.sha256, "%s", m.sha256);
    j->model.version = m.version;
    return true;
}

/* SRV_GO: the set is there and may be trained on, or is still being looked at. */
static srv_next check_dataset(srv_req *r, const char *id, db_state *ret) {
    db_dataset set = {0};
    dr_error err = {0};
    dr_status s = db_id_valid("ds_", id) ? db_dataset_get(r->app->db, id, &set, &err) : DR_NOT_FOUND;
    db_ds_state state = set.state;
    db_dataset_clear(&set);
    if (s == DR_NOT_FOUND) return srv_bad_member(r, "invalid_member", "/dataset", "there is no such data set");
    if (s) return srv_reply_failed(r, s, &err);
    if (state == DB_DS_OPEN) return srv_reply_error(r, "dataset_unusable", "the data set is still open: seal it first");
    if (state == DB_DS_REJECTED)
        return srv_reply_error(r, "dataset_unusable", "the data set was rejected: its report says why");
    *ret = state == DB_DS_READY ? DB_QUEUED : DB_VALIDATING;
    return SRV_GO;
}

/* Refused before there is a job where it cannot fit. A set that is still being looked at, or a file that cannot be read
 * now, is judged when the training starts. */
static srv_next check_memory(srv_req *r, const srv_training_params *p, const db_job *j) {
    char init[SRV_PATH];
    bool lone;
    uint64_t need;
    dr_error err = {0};
    dr_train_opts o;
    dr_train_opts_init(&o);
    o.backend = r->app->cfg->backend;
    o.threads = (int)p->threads;
    if (srv_training_parent(r->app, p->parent, j, init, &lone, &err)) return SRV_GO;
    if (*init) o.init = init;
    srv_training_params_apply(p, &o);
    dr_status s = srv_training_size(r->app, p->dataset, &o, &need, &err);
    return s == DR_TOO_LARGE ? srv_reply_failed(r, s, &err) : SRV_GO;
}

srv_next srv_create_training(srv_req *r, json_t *o) {
    srv_app *app = r->app;
    srv_training_params p;
    srv_problem problem;
    db_job j = {.type = "train", .class_ = DB_TRAIN};
    json_t *params = NULL;
    if (!srv_training_params_read(o, &p, &problem)) return srv_reply_problem(r, &problem);
    srv_next next = check_dataset(r, p.dataset, &j.state);
    if (next == SRV_GO && !find_parent(app, &p, &j))
        next = srv_bad_member(r, "invalid_member", "/parent", "there is no such model; none, NAME or NAME/VERSION");
    if (next == SRV_GO) {
        long cores = sysconf(_SC_NPROCESSORS_ONLN);
        bool parent = strcmp(p.parent, "none") != 0;
        srv_training_params_fill(&p, parent, app->cfg->threads ? (int)app->cfg->threads : (int)cores);
        next = check_memory(r, &p, &j);
    }
    if (next == SRV_GO) params = srv_training_params_json(&p);
    srv_training_params_done(&p);
    return next == SRV_GO ? srv_create_job(r, o, &j, params, NULL, 0) : next;
}

/* --- pause and resume --- */

static srv_next moved(srv_req *r) {
    call *c = r->state;
    srv_app *app = r->app;
    db_job job = {0};
    dr_error err = {0};
    if (c->status) return srv_reply_failed(r, c->status, &c->err);
    srv_trainer_pause(app->trainer, r->param[0], c->on);
    if (!c->on) srv_queue_ring(app->queue);
    srv_park_wake_key(app->watch, r->param[0]);
    dr_status s = db_job_get(app->db, r->param[0], &job, &err);
    if (s) return srv_reply_failed(r, s, &err);
    bool later = c->on && !c->flag; /* after the step at hand */
    if (later) srv_job_location(r, &job);
    json_t *o = srv_job_json(app, &job);
    db_job_clear(&job);
    return srv_reply_json(r, later ? 202 : 200, o);
}

static srv_next move(srv_req *r, bool pause) {
    srv_query q[] = {{0, 0}};
    if (!srv_query_read(r, q)) return SRV_REPLY;
    if (!db_id_valid("job_", r->param[0])) return srv_reply_error(r, "job_not_found", "no job ever had this id");
    call *c = new_call(r);
    if (!c) return srv_reply_failed(r, DR_NOMEM, NULL);
    c->on = pause;
    srv_call_arm(r);
    if (pause)
        db_training_pause_async(r->app->db, r->param[0], on_done, r);
    else
        db_training_resume_async(r->app->db, r->param[0], on_done, r);
    return srv_call_park(r, moved);
}

srv_next srv_jobs_pause(srv_req *r) {
    return move(r, true);
}
srv_next srv_jobs_resume(srv_req *r) {
    return move(r, false);
}

/* --- metrics --- */

srv_next srv_is_training(srv_req *r) {
    db_training t;
    dr_error err = {0};
    if (!db_id_valid("job_", r->param[0])) return srv_reply_error(r, "job_not_found", "no job ever had this id");
    dr_status s = db_training_get(r->app->db, r->param[0], &t, &err);
    if (!s) return SRV_GO;
    db_job job = {0};
    bool other = s == DR_NOT_FOUND && !db_job_get(r->app->db, r->param[0], &job, NULL);
    db_job_clear(&job);
    return other ? srv_reply_error(r, "not_found", "this job is no training") : srv_reply_failed(r, s, &err);
}

/* Columns in the order of their first appearance. */
static void write_csv(const db_metric_page *p, dr_buf *out) {
    json_t *names = json_array(), *v;
    const char *key;
    for (size_t i = 0; i < p->n; i++) {
        json_t *o = json_loads(p->rows[i].data_json, 0, NULL);
        json_object_foreach(o, key, v) {
            bool known = false;
            for (size_t k = 0; k < json_array_size(names) && !known; k++)
                known = !strcmp(json_string_value(json_array_get(names, k)), key);
            if (!known) json_array_append_new(names, json_string(key));
        }
        json_decref(o);
    }
    for (size_t k = 0; k < json_array_size(names); k++)
        dr_buf_printf(out, "%s%s", k ? "," : "", json_string_value(json_array_get(names, k)));
    dr_buf_puts(out, "\r\n");
    for (size_t i = 0; i < p->n; i++) {
        json_t *o = json_loads(p->rows[i].data_json, 0, NULL);
        for (size_t k = 0; k < json_array_size(names); k++) {
            v = json_object_get(o, json_string_value(json_array_get(names, k)));
            if (k) dr_buf_puts(out, ",");
            if (json_is_integer(v))
                dr_buf_printf(out, "%lld", (long long)json_integer_value(v));
            else if (json_is_real(v))
                dr_buf_printf(out, "%.9g", json_real_value(v));
        }
        dr_buf_puts(out, "\r\n");
        json_decref(o);
    }
    json_decref(names);
}

srv_next srv_jobs_metrics(srv_req *r) {
    static const char *const types[] = {"application/json", "text/csv"};
    srv_query q[] = {{"step_from", 0}, {"limit", 0}, {0, 0}};
    int64_t from = 0;
    int limit = DB_METRICS_MAX;
    db_metric_page page = {0};
    dr_error err = {0};
    if (!srv_query_read(r, q)) return SRV_REPLY;
    if (q[0].value && !dr_parse_i64(q[0].value, 0, INT64_MAX, &from))
        return srv_reply_error(r, "invalid_parameter", "step_from must be a step");
    if (q[1].value && !dr_parse_int(q[1].value, 1, DB_METRICS_MAX, &limit))
        return srv_reply_error(r, "invalid_parameter", "limit must be 1 to %d", DB_METRICS_MAX);
    int best = srv_accept_best(srv_header(r, "Accept"), types, 2);
    if (best < 0) return srv_reply_error(r, "not_acceptable", "metrics exist as %s and %s", types[0], types[1]);
    srv_next next = srv_is_training(r);
    if (next != SRV_GO) return next;
    dr_status s = db_training_metrics(r->app->db, r->param[0], from, limit, &page, &err);
    if (s) return srv_reply_failed(r, s, &err);
    srv_reply_header(r, "Vary", "Accept");
    if (best == 1) {
        dr_buf b;
        dr_buf_init(&b, 64 << 20);
        write_csv(&page, &b);
        db_metric_page_clear(&page);
        return srv_reply_text(r, 200, "text/csv; charset=utf-8", &b);
    }
    json_t *items = json_array();
    bool ok = items != NULL;
    for (size_t i = 0; i < page.n && ok; i++) {
        json_t *o = json_loads(page.rows[i].data_json, 0, NULL);
        ok = o && !json_array_append_new(items, o);
    }
    bool more = page.n == (size_t)limit;
    db_metric_page_clear(&page);
    json_t *o = ok ? json_pack("{s:O, s:b}", "items", items, "more", (int)more) : NULL;
    json_decref(items);
    return srv_reply_json(r, 200, o);
}

srv_next srv_jobs_curves(srv_req *r) {
    srv_query q[] = {{0, 0}};
    db_metric_page page = {0};
    dr_error err = {0};
    dr_buf b;
    if (!srv_query_read(r, q)) return SRV_REPLY;
    srv_next next = srv_is_training(r);
    if (next != SRV_GO) return next;
    dr_status s = db_training_metrics(r->app->db, r->param[0], 0, DB_METRICS_MAX, &page, &err);
    if (s) return srv_reply_failed(r, s, &err);
    dr_buf_init(&b, 4 << 20);
    srv_curves_svg(&page, r->param[0], &b);
    db_metric_page_clear(&page);
    return srv_reply_text(r, 200, "image/svg+xml", &b);
}

/* --- samples and checkpoints --- */

srv_next srv_jobs_sample(srv_req *r) {
    srv_query q[] = {{0, 0}};
    char path[SRV_PATH], step[24];
    int64_t at = 0;
    struct stat st;
    if (!srv_query_read(r, q)) return SRV_REPLY;
    srv_next next = srv_is_training(r);
    if (next != SRV_GO) return next;
    size_t n = strcspn(r->param[1], ".");
    snprintf(step, sizeof step, "%.*s", n < sizeof step ? (int)n : 0, r->param[1]);
    if (strcmp(r->param[1] + n, ".png") || !dr_parse_i64(step, 0, INT64_MAX, &at))
        return srv_reply_error(r, "not_found", "a sample is STEP.png");
    srv_training_sample_path(r->app, r->param[0], at, path);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT) return srv_reply_error(r, "not_found", "there is no sample of this step");
    if (fd < 0 || fstat(fd, &st)) {
        dr_error err = {0};
        dr_status s = dr_fail_errno(&err, errno, "open", path);
        if (fd >= 0) close(fd);
        return srv_reply_failed(r, s, &err);
    }
    srv_reply_header(r, "Cache-Control", "private, no-cache"); /* a training that goes back draws it anew */
    return srv_reply_file(r, 200, "image/png", fd, 0, (uint64_t)st.st_size);
}

srv_next srv_jobs_checkpoints(srv_req *r) {
    srv_query q[] = {{0, 0}};
    db_checkpoint rows[64];
    size_t n = 0;
    db_training t;
    dr_error err = {0};
    char when[DR_RFC3339];
    if (!srv_query_read(r, q)) return SRV_REPLY;
    srv_next next = srv_is_training(r);
    if (next != SRV_GO) return next;
    dr_status s = db_training_get(r->app->db, r->param[0], &t, &err);
    if (!s) s = db_training_checkpoints(r->app->db, r->param[0], rows, 64, &n, &err);
    if (s) return srv_reply_failed(r, s, &err);
    json_t *items = json_array();
    for (size_t i = 0; i < n; i++) {
        dr_clock_rfc3339(rows[i].at_ms, when);
        json_array_append_new(items, json_pack("{s:I, s:s, s:I, s:o, s:b}", "step", (json_int_t)rows[i].step, "at",
                                               when, "bytes", (json_int_t)rows[i].bytes, "psnr_y",
                                               rows[i].has_score ? json_real(rows[i].score) : json_null(), "best",
                                               (int)(rows[i].step == t.best_step)));
    }
    return srv_reply_json(r, 200, json_pack("{s:o}", "items", items));
}
