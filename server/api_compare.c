/* api_compare.c - comparisons: made from pictures or a data set, and their report. */
#include "core/base/alloc.h"
#include "db/compare.h"
#include "server/compare_params.h"
#include "server/create.h"
#include <stdio.h>
#include <string.h>

static void id_of(const db_model *m, srv_model_id *ret) {
    *ret = (srv_model_id){.version = m->version};
    memcpy(ret->name, m->name, sizeof ret->name);
    memcpy(ret->sha256, m->sha256, sizeof ret->sha256);
}

/* --- which versions --- */

static srv_next unknown_version(srv_req *r, int i, const struct srv_version_wish *w) {
    char pointer[40], text[160], number[24] = "";
    snprintf(pointer, sizeof pointer, "/versions/%d", i);
    if (w->version) snprintf(number, sizeof number, "/%lld", (long long)w->version);
    snprintf(text, sizeof text, "there is no version %s%s; GET /v1/models lists them", w->name, number);
    return srv_bad_member(r, "invalid_member", pointer, text);
}

/* Those that were named, as they are now. */
static srv_next pin(srv_req *r, const srv_compare_params *p, srv_model_id *ret) {
    dr_error err = {0};
    char pointer[40], text[160];
    for (int i = 0; i < p->n_wishes; i++) {
        db_model m = {0};
        dr_status s = db_model_get(r->app->db, p->wish[i].name, p->wish[i].version, &m, &err);
        if (s == DR_NOT_FOUND) return unknown_version(r, i, &p->wish[i]);
        if (s) return srv_reply_failed(r, s, &err);
        id_of(&m, &ret[i]);
        db_model_clear(&m);
        for (int k = 0; k < i; k++) {
            if (strcmp(ret[k].name, ret[i].name) || ret[k].version != ret[i].version) continue;
            snprintf(pointer, sizeof pointer, "/versions/%d", i);
            snprintf(text, sizeof text, "%s/%lld stands there twice", ret[i].name, (long long)ret[i].version);
            return srv_bad_member(r, "invalid_member", pointer, text);
        }
    }
    return SRV_GO;
}

/* The version that served before the one in use; where none did, the newest other one. */
static dr_status other_version(srv_req *r, const srv_model_id *now, int64_t *ret, dr_error *err) {
    db_model *list;
    size_t n;
    dr_error none = {0};
    dr_status s = db_model_previous(r->app->db, now->name, ret, &none);
    if (!s) return DR_OK;
    s = db_model_list(r->app->db, now->name, 0, &list, &n, err);
    if (s) return s;
    *ret = 0;
    for (size_t i = 0; i < n && !*ret; i++)
        if (list[i].version != now->version) *ret = list[i].version;
    db_model_list_clear(list, n);
    return DR_OK;
}

/* The one in use and the one before it, by rising number. */
static srv_next pin_usual(srv_req *r, srv_compare_params *p, srv_model_id *ret) {
    srv_model_id now;
    int64_t other = 0;
    dr_error err = {0};
    char text[200];
    srv_registry_served(r->app->registry, &now);
    dr_status s = other_version(r, &now, &other, &err);
    if (s) return srv_reply_failed(r, s, &err);
    if (!other) {
        snprintf(text, sizeof text, "model %s has only one version: name those to compare, as in [\"%s/%lld\", ...]",
                 now.name, now.name, (long long)now.version);
        return srv_bad_member(r, "invalid_member", "/versions", text);
    }
    p->n_wishes = 2;
    for (int i = 0; i < 2; i++) snprintf(p->wish[i].name, sizeof p->wish[i].name, "%s", now.name);
    p->wish[0].version = other < now.version ? other : now.version;
    p->wish[1].version = other < now.version ? now.version : other;
    return pin(r, p, ret);
}

/* --- which pictures --- */

static srv_next from_set(srv_req *r, srv_compare_params *p) {
    srv_app *app = r->app;
    db_dataset set = {0};
    db_entry_list entries = {0};
    dr_error err = {0};
    size_t most = SRV_COMPARE_FROM_SET;
    dr_status s = db_id_valid("ds_", p->dataset) ? db_dataset_get(app->db, p->dataset, &set, &err) : DR_NOT_FOUND;
    db_ds_state state = set.state;
    db_dataset_clear(&set);
    if (s == DR_NOT_FOUND) return srv_bad_member(r, "invalid_member", "/dataset", "there is no such data set");
    if (s) return srv_reply_failed(r, s, &err);
    if (state == DB_DS_REJECTED)
        return srv_reply_error(r, "dataset_unusable", "the data set was rejected: its report says why");
    if (state == DB_DS_VALIDATING)
        return srv_reply_error(r, "dataset_unusable",
                               "the data set is still being validated: come back when it is ready");
    s = db_dataset_entries(app->db, p->dataset, true, &entries, &err);
    if ((int64_t)most > app->cfg->compare_pictures_max) most = (size_t)app->cfg->compare_pictures_max;
    if (!s) s = srv_compare_from_set(&entries, most, &p->pictures, &p->n_pictures, &err);
    db_entry_list_clear(&entries);
    if (s) return srv_reply_failed(r, s, &err);
    if (p->n_pictures) return SRV_GO;
    return srv_bad_member(r, "invalid_member", "/dataset", "the data set has neither pairs nor rainy pictures");
}

srv_next srv_create_comparison(srv_req *r, json_t *o) {
    srv_compare_params p;
    srv_problem problem;
    srv_model_id version[DR_COMPARE_MAX] = {{.version = 0}};
    if (!srv_compare_params_read(o, r->app->cfg->compare_pictures_max, &p, &problem))
        return srv_reply_problem(r, &problem);
    srv_next next = p.n_wishes ? pin(r, &p, version) : pin_usual(r, &p, version);
    if (next == SRV_GO && *p.dataset) next = from_set(r, &p);
    if (next == SRV_GO) {
        db_job job = {.type = "compare", .class_ = DB_EVAL};
        memcpy(job.model.name, version[0].name, sizeof job.model.name);
        memcpy(job.model.sha256, version[0].sha256, sizeof job.model.sha256);
        job.model.version = version[0].version;
        next = srv_create_job(r, o, &job, srv_compare_row_json(version, p.n_wishes, p.n_pictures, p.dataset),
                              p.pictures, p.n_pictures);
    }
    srv_compare_params_done(&p);
    return next;
}

/* --- the report --- */

srv_next srv_jobs_report(srv_req *r) {
    srv_query q[] = {{0, 0}};
    db_job job = {0};
    dr_error err = {0};
    srv_problem p;
    char sha[DB_SHA];
    int64_t bytes = 0;
    uint64_t len = 0;
    int fd = -1;
    if (!srv_query_read(r, q)) return SRV_REPLY;
    if (!db_id_valid("job_", r->param[0])) return srv_reply_error(r, "job_not_found", "no job ever had this id");
    dr_status s = db_job_get(r->app->db, r->param[0], &job, &err);
    if (s) return srv_reply_failed(r, s, &err);
    const bool later = !db_state_final(job.state), other = strcmp(job.type, "compare") != 0;
    const db_state state = job.state;
    const int64_t position = job.queue_position;
    db_job_clear(&job);
    if (other) return srv_reply_error(r, "not_found", "this job is no comparison");
    if (state != DB_SUCCEEDED) {
        srv_problem_make(&p, later ? "not_ready" : "no_result", "the job is %s", db_state_name(state));
        snprintf(p.job, sizeof p.job, "%.31s", r->param[0]);
        if (later) p.retry_after_s = srv_queue_retry_after(r->app->queue, position);
        return srv_reply_problem(r, &p);
    }
    s = db_job_report(r->app->db, r->param[0], &bytes, sha, &err);
    if (s) return srv_reply_failed(r, s, &err);
    s = srv_spool_open_report(r->app->spool, r->param[0], &fd, &len, &err);
    if (s == DR_NOT_FOUND) return srv_reply_error(r, "result_gone", "the file of this report is no longer there");
    if (s) return srv_reply_failed(r, s, &err);
    srv_next next = srv_reply_blob(r, "application/json", sha, "private, immutable", fd, len);
    srv_reply_header(r, "Link", "</v1/jobs/%s>; rel=\"describedby\"", r->param[0]);
    return next;
}
