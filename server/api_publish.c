/* api_publish.c - POST /v1/jobs/{id}/checkpoints/{step}/publish: a checkpoint becomes a version of its job's model.
 *
 * The rows are read here: the job names the model and the parent, the checkpoint's row its score. The file is the
 * registry's to read, on its own thread; a training that goes on meanwhile is not asked and may drop the checkpoint,
 * which is then no longer there, like any other step. Asking again is safe: a checkpoint has one version at most, which
 * is found even when the checkpoint is gone. */
#include "core/base/alloc.h"
#include "core/base/parse.h"
#include "db/training.h"
#include "server/api.h"
#include "server/training_files.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REASON_MAX = 500 };

typedef struct publish {
    dr_status status;
    dr_error err;
    srv_change c;
    char model[64];
    int64_t step;
} publish;

/* 404 with the steps that there are. */
static srv_next not_there(srv_req *r, int64_t step) {
    db_checkpoint rows[64];
    size_t n = 0, len = 0;
    char list[400] = "";
    dr_error err = {0};
    dr_status s = db_training_checkpoints(r->app->db, r->param[0], rows, 64, &n, &err);
    if (s) return srv_reply_failed(r, s, &err);
    for (size_t i = n; i-- > 0 && len < sizeof list - 32;)
        len += (size_t)snprintf(list + len, sizeof list - len, "%s%lld", len ? ", " : "", (long long)rows[i].step);
    if (!n)
        return srv_reply_error(r, "checkpoint_not_found",
                               "there is no checkpoint of step %lld; this training has none yet", (long long)step);
    return srv_reply_error(r, "checkpoint_not_found", "there is no checkpoint of step %lld; there %s of step%s %s",
                           (long long)step, n > 1 ? "are those" : "is that", n > 1 ? "s" : "", list);
}

/* {"reason": "..."}, all of it optional. SRV_GO with the reason, owned, or NULL. */
static srv_next read_reason(srv_req *r, char **ret) {
    static const char *const members[] = {"reason", NULL};
    srv_next next = SRV_GO;
    json_t *o = srv_read_object(r, members, &next);
    if (!o) return next;
    const json_t *v = json_object_get(o, "reason");
    if (v && !json_is_null(v) && (!json_is_string(v) || json_string_length(v) > REASON_MAX)) {
        srv_problem p;
        srv_problem_make(&p, "invalid_member", "reason must be a string of at most %d bytes", REASON_MAX);
        srv_problem_point(&p, "/reason");
        next = srv_reply_problem(r, &p);
    } else if (json_is_string(v) && json_string_length(v)) {
        *ret = dr_strdup(json_string_value(v));
        if (!*ret) next = srv_reply_failed(r, DR_NOMEM, NULL);
    }
    json_decref(o);
    return next;
}

/* On the registry's thread. */
static void on_published(void *arg, dr_status s, const srv_change *c, const dr_error *err) {
    srv_req *r = arg;
    publish *p = r->state;
    p->status = s;
    p->err = *err;
    p->c = *c;
    srv_call_back(r);
}

static srv_next published(srv_req *r) {
    publish *p = r->state;
    db_model row = {0};
    dr_error err = {0};
    if (p->status == DR_NOT_FOUND && !strcmp(p->err.what, "checkpoint_not_found")) return not_there(r, p->step);
    if (p->status) return srv_reply_failed(r, p->status, &p->err);
    dr_status s = db_model_get(r->app->db, p->model, p->c.version, &row, &err);
    if (s) return srv_reply_failed(r, s, &err);
    srv_reply_header(r, "Location", "/v1/models/%s/versions/%lld", row.name, (long long)row.version);
    srv_model_etag(r, p->c.revision);
    srv_next next = srv_reply_json(r, p->c.made ? 201 : 200, srv_model_json(r->app, &row));
    db_model_clear(&row);
    return next;
}

static char *card_of(const db_job *job, const db_training *t, int64_t step, const char *reason) {
    dr_buf b;
    dr_buf_init(&b, 4096);
    dr_buf_printf(&b, "# %s, step %lld of %s\n\nPublished from a checkpoint. Trained on data set %s", job->model.name,
                  (long long)step, job->id, t->dataset);
    if (job->model.version) dr_buf_printf(&b, ", from version %lld", (long long)job->model.version);
    dr_buf_printf(&b, ". No gate has judged it.\n");
    if (reason) dr_buf_printf(&b, "\n%s\n", reason);
    dr_buf_add(&b, "", 1);
    char *text = b.status ? NULL : dr_buf_detach(&b, &(size_t){0});
    dr_buf_done(&b);
    return text;
}

/* row NULL: there is no such checkpoint, but perhaps its version. */
static srv_next start(srv_req *r, publish *p, const db_job *job, const db_training *t, const db_checkpoint *row,
                      const char *reason) {
    char path[SRV_PATH], measures[96];
    int64_t version = 0;
    dr_error err = {0};
    snprintf(p->model, sizeof p->model, "%s", job->model.name);
    if (!row) {
        dr_status s = db_model_of_job(r->app->db, p->model, job->id, p->step, &version, &err);
        if (s == DR_NOT_FOUND) return not_there(r, p->step);
        if (s) return srv_reply_failed(r, s, &err);
    }
    int n = snprintf(measures, sizeof measures, "{\"step\":%lld", (long long)p->step);
    if (row && row->has_score) n += snprintf(measures + n, sizeof measures - (size_t)n, ",\"psnr_y\":%.6f", row->score);
    snprintf(measures + n, sizeof measures - (size_t)n, "}");
    char *card = card_of(job, t, p->step, reason);
    if (!card) return srv_reply_failed(r, DR_NOMEM, NULL);
    srv_training_checkpoint_path(r->app, job->id, p->step, path);
    const srv_version_new in = {.name = p->model,
                                .parent = job->model.version,
                                .dataset = t->dataset,
                                .job = job->id,
                                .step = p->step,
                                .measures_json = measures,
                                .card = card};
    srv_call_arm(r);
    srv_registry_publish_async(r->app->registry, &in, path, on_published, r);
    dr_free(card);
    return srv_call_park(r, published);
}

srv_next srv_jobs_publish(srv_req *r) {
    srv_query q[] = {{0, 0}};
    srv_app *app = r->app;
    db_checkpoint rows[64], *row = NULL;
    db_training t;
    db_job job = {0};
    dr_error err = {0};
    char *reason = NULL;
    size_t n = 0;
    publish *p = dr_calloc(1, sizeof *p);
    if (!p) return srv_reply_failed(r, DR_NOMEM, NULL);
    r->state = p;
    r->state_free = dr_free;
    if (!srv_query_read(r, q)) return SRV_REPLY;
    srv_next next = srv_is_training(r);
    if (next != SRV_GO) return next;
    if (!dr_parse_i64(r->param[1], 1, INT64_MAX, &p->step))
        return srv_reply_error(r, "checkpoint_not_found", "'%.40s' is no step", r->param[1]);
    if (atomic_load(&app->draining)) return srv_reply_error(r, "draining", "the service is shutting down");
    dr_status s = srv_spool_room(app->spool, (uint64_t)app->cfg->free_min_bytes, (int)app->cfg->free_min_percent, &err);
    if (!s) s = db_job_get(app->db, r->param[0], &job, &err);
    if (!s) s = db_training_get(app->db, r->param[0], &t, &err);
    if (!s) s = db_training_checkpoints(app->db, r->param[0], rows, 64, &n, &err);
    for (size_t i = 0; i < n && !row; i++)
        if (rows[i].step == p->step) row = &rows[i];
    next = s ? srv_reply_failed(r, s, &err) : read_reason(r, &reason);
    if (next == SRV_GO) next = start(r, p, &job, &t, row, reason);
    dr_free(reason);
    db_job_clear(&job);
    return next;
}
