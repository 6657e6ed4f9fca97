/* api_create.c - POST /v1/jobs: see create.h. */
#include "core/base/alloc.h"
#include "core/base/hash.h"
#include "server/create.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a parked write leaves for the next step. */
typedef struct call {
    dr_status status;
    dr_error err;
    char id[DB_ID];
    bool replayed;
} call;

srv_next srv_bad_member(srv_req *r, const char *code, const char *pointer, const char *text) {
    srv_problem p;
    srv_problem_make(&p, code, "%s", text);
    srv_problem_point(&p, pointer);
    return srv_reply_problem(r, &p);
}

static srv_next check_labels(srv_req *r, json_t *labels) {
    const char *key;
    json_t *v;
    if (!labels || json_is_null(labels)) return SRV_GO;
    if (!json_is_object(labels) || json_object_size(labels) > 32)
        return srv_bad_member(r, "invalid_member", "/labels", "labels must be an object of at most 32 strings");
    json_object_foreach(labels, key, v) {
        size_t n = strlen(key);
        if (!n || n > 64 || !json_is_string(v) || json_string_length(v) > 256)
            return srv_bad_member(r, "invalid_member", "/labels",
                                  "a label has a key of 1 to 64 bytes and a string of at most 256");
    }
    return SRV_GO;
}

/* On the store's thread. */
static void on_done(void *arg, dr_status s, const db_job *job, bool flag, const dr_error *err) {
    srv_req *r = arg;
    call *c = r->state;
    c->status = s;
    c->replayed = flag;
    if (s && err) c->err = *err;
    if (!s && job) snprintf(c->id, sizeof c->id, "%s", job->id);
    srv_call_back(r);
}

static srv_next created(srv_req *r) {
    const call *c = r->state;
    srv_app *app = r->app;
    db_job job = {0};
    dr_error err = {0};
    if (c->status) return srv_reply_failed(r, c->status, &c->err);
    srv_count(&app->tele, c->replayed ? SRV_JOBS_REPLAYED : SRV_JOBS_ACCEPTED, 1);
    if (!c->replayed) {
        srv_queue_count_add(app->queue, 1);
        srv_queue_ring(app->queue);
    }
    dr_status s = db_job_get(app->db, c->id, &job, &err);
    if (s) return srv_reply_failed(r, s, &err);
    if (c->replayed) srv_reply_header(r, "Idempotent-Replayed", "true");
    srv_reply_header(r, "Location", "/v1/jobs/%s", job.id);
    json_t *o = srv_job_json(app, &job);
    db_job_clear(&job);
    return srv_reply_json(r, 201, o);
}

static void hash_request(const srv_req *r, char ret[DR_SHA256_HEX]) {
    dr_sha256 h;
    uint8_t sum[32];
    dr_sha256_init(&h);
    dr_sha256_add(&h, "POST /v1/jobs", 14);
    dr_sha256_add(&h, r->body.data, r->body.len);
    dr_sha256_end(&h, sum);
    dr_hex(sum, 32, ret);
}

srv_next srv_create_job(srv_req *r, const json_t *o, db_job *job, json_t *params, const db_picture *pictures,
                        size_t n_pictures) {
    srv_app *app = r->app;
    const json_t *labels = json_object_get(o, "labels");
    char hash[DR_SHA256_HEX];
    call *c = dr_calloc(1, sizeof *c);
    char *params_text = params ? json_dumps(params, JSON_COMPACT) : NULL,
         *labels_text = json_is_object(labels) ? json_dumps(labels, JSON_COMPACT) : strdup("{}");
    json_decref(params);
    r->state = c;
    r->state_free = dr_free;
    if (!c || !params_text || !labels_text) {
        free(params_text);
        free(labels_text);
        return srv_reply_failed(r, DR_NOMEM, NULL);
    }
    job->params_json = params_text;
    job->labels_json = labels_text;
    snprintf(job->request_id, sizeof job->request_id, "%s", r->id);
    snprintf(job->traceparent, sizeof job->traceparent, "%s", r->trace);
    const char *key = srv_header(r, "Idempotency-Key");
    hash_request(r, hash);
    db_job_new in = {.job = job,
                     .queue_max = app->cfg->queue_max,
                     .idem_key = key,
                     .idem_hash = key ? hash : NULL,
                     .pictures = pictures,
                     .n_pictures = n_pictures};
    srv_call_arm(r);
    db_job_create_async(app->db, &in, on_done, r); /* copies everything */
    job->params_json = job->labels_json = NULL;
    free(params_text);
    free(labels_text);
    return srv_call_park(r, created);
}

srv_next srv_jobs_create(srv_req *r) {
    srv_query q[] = {{0, 0}};
    json_error_t je;
    const char *key = srv_header(r, "Idempotency-Key");
    if (!srv_query_read(r, q)) return SRV_REPLY;
    if (key && !srv_idempotency_key_ok(key))
        return srv_reply_error(r, "bad_idempotency_key", "Idempotency-Key must be 1 to 255 printable characters");
    srv_next next = srv_check_intake(r);
    if (next != SRV_GO) return next;
    json_t *o = r->body.len ? json_loadb(r->body.data, r->body.len, JSON_REJECT_DUPLICATES, &je) : NULL;
    if (!json_is_object(o)) {
        json_decref(o);
        return srv_reply_error(r, "bad_json", "the body must be a JSON object");
    }
    const char *type = json_string_value(json_object_get(o, "type"));
    next = check_labels(r, json_object_get(o, "labels"));
    if (next != SRV_GO)
        ;
    else if (type && !strcmp(type, "train"))
        next = srv_create_training(r, o);
    else if (type && !strcmp(type, "compare"))
        next = srv_create_comparison(r, o);
    else
        next = srv_bad_member(r, "invalid_member", "/type",
                              "type must be train or compare; pictures go to POST /v1/derain");
    json_decref(o);
    return next;
}
