/* api_jobs.c - jobs: list, look (and wait), result, cancel, erase. */
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/parse.h"
#include "server/api.h"
#include "server/comparer.h"
#include "server/trainer.h"
#include <stdio.h>
#include <string.h>

/* What a parked write leaves for the next step. */
typedef struct call {
    dr_status status;
    dr_error err;
    char id[DB_ID];
    bool flag, final;
} call;

static srv_next bad_value(srv_req *r, const char *name, const char *value, const char *allowed) {
    srv_problem p;
    char pointer[64];
    srv_problem_make(&p, "invalid_parameter", "%s must be %s, not '%.40s'", name, allowed, value);
    snprintf(pointer, sizeof pointer, "/query/%s", name);
    srv_problem_point(&p, pointer);
    return srv_reply_problem(r, &p);
}

static srv_next no_job(srv_req *r) {
    return srv_reply_error(r, "job_not_found", "no job ever had this id");
}

static bool id_ok(const srv_req *r) {
    return db_id_valid("job_", r->param[0]);
}

/* --- list --- */

static bool parse_states(const char *text, unsigned *ret) {
    char word[24];
    db_state state;
    while (*text) {
        size_t n = strcspn(text, ",");
        if (!n || n >= sizeof word) return false;
        memcpy(word, text, n);
        word[n] = 0;
        if (!db_state_parse(word, &state)) return false;
        *ret |= 1u << state;
        text += n;
        if (*text == ',' && !*++text) return false;
    }
    return true;
}

/* name=value with what is no letter, digit or -_.~ as %XX. */
static void add_param(dr_buf *b, const char *name, const char *value) {
    dr_buf_printf(b, "%s%s=", b->len && b->data[b->len - 1] != '?' ? "&" : "", name);
    for (const unsigned char *p = (const unsigned char *)value; *p; p++) {
        bool plain =
            (*p >= '0' && *p <= '9') || (*p >= 'A' && *p <= 'Z') || (*p >= 'a' && *p <= 'z') || strchr("-_.~", *p);
        if (plain)
            dr_buf_add(b, p, 1);
        else
            dr_buf_printf(b, "%%%02X", *p);
    }
}

static void link_next(srv_req *r, const srv_query *q, const char *cursor) {
    dr_buf b;
    dr_buf_init(&b, 1500);
    dr_buf_puts(&b, "/v1/jobs?");
    for (; q->name; q++)
        if (q->value && strcmp(q->name, "cursor")) add_param(&b, q->name, q->value);
    add_param(&b, "cursor", cursor);
    if (!b.status) srv_reply_header(r, "Link", "<%s>; rel=\"next\"", b.data);
    dr_buf_done(&b);
}

srv_next srv_jobs_list(srv_req *r) {
    enum { STATE, TYPE, LABEL, MODEL, LIMIT, CURSOR };
    srv_query q[] = {{"state", 0}, {"type", 0}, {"label", 0}, {"model", 0}, {"limit", 0}, {"cursor", 0}, {0, 0}};
    db_job_page page = {0};
    dr_error err = {0};
    if (!srv_query_read(r, q)) return SRV_REPLY;
    db_job_filter f = {
        .type = q[TYPE].value, .label = q[LABEL].value, .model = q[MODEL].value, .cursor = q[CURSOR].value};
    if (q[STATE].value && !parse_states(q[STATE].value, &f.states))
        return bad_value(r, "state", q[STATE].value, "names of states with commas between");
    if (q[LIMIT].value && !dr_parse_int(q[LIMIT].value, 1, DB_LIST_MAX, &f.limit))
        return bad_value(r, "limit", q[LIMIT].value, "1 to 500");
    dr_status s = db_job_list(r->app->db, &f, &page, &err);
    if (s) return srv_reply_failed(r, s, &err);
    json_t *items = json_array();
    bool ok = items != NULL;
    for (size_t i = 0; i < page.n && ok; i++) ok = !json_array_append_new(items, srv_job_json(r->app, &page.jobs[i]));
    json_t *o = ok ? json_pack("{s:O, s:o}", "items", items, "next_cursor",
                               *page.next_cursor ? json_string(page.next_cursor) : json_null())
                   : NULL;
    json_decref(items);
    if (*page.next_cursor) link_next(r, q, page.next_cursor);
    db_job_page_clear(&page);
    return srv_reply_json(r, 200, o);
}

/* --- get --- */

typedef struct getter {
    bool waits, has_state;
    db_state not_state;
    int64_t deadline_ns;
} getter;

static srv_next look(srv_req *r);

static void etag_of(const db_job *job, char ret[48]) {
    snprintf(ret, 48, "W/\"r%lld\"", (long long)job->revision);
}

static srv_next show(srv_req *r, const db_job *job) {
    char etag[48];
    etag_of(job, etag);
    srv_reply_header(r, "ETag", "%s", etag);
    srv_reply_header(r, "Cache-Control", "private, no-cache");
    if (srv_etag_listed(srv_header(r, "If-None-Match"), etag)) return srv_reply_empty(r, 304);
    if (!db_state_final(job->state))
        srv_reply_header(r, "Retry-After", "%d", srv_queue_retry_after(r->app->queue, job->queue_position));
    if (job->state == DB_SUCCEEDED && job->has_result)
        srv_reply_header(r, "Link", "</v1/jobs/%s/result>; rel=\"result\"", job->id);
    return srv_reply_json(r, 200, srv_job_json(r->app, job));
}

/* Is this what the long poll was waiting for? */
static bool arrived(srv_req *r, const getter *g, const db_job *job) {
    char etag[48];
    const char *seen = srv_header(r, "If-None-Match");
    etag_of(job, etag);
    if (db_state_final(job->state)) return true;
    if (g->has_state) return job->state != g->not_state;
    return seen && !srv_etag_listed(seen, etag);
}

static srv_next after_wait(srv_req *r) {
    getter *g = r->state;
    srv_wake why = srv_wait_why(r);
    if (why == SRV_WAKE_GONE) return SRV_CLOSE;
    if (why != SRV_WAKE_EVENT) g->waits = false; /* time is up, or the daemon stops: what is known now */
    return look(r);
}

static srv_next look(srv_req *r) {
    getter *g = r->state;
    db_job job = {0};
    dr_error err = {0};
    if (g->waits) srv_wait_arm(r, r->param[0]);
    dr_status s = db_job_get(r->app->db, r->param[0], &job, &err);
    if (!s && g->waits && !arrived(r, g, &job)) {
        db_job_clear(&job);
        return srv_wait(r, after_wait, g->deadline_ns);
    }
    if (g->waits) srv_park_disarm(r->app->watch, &r->park);
    srv_next next = s ? srv_reply_failed(r, s, &err) : show(r, &job);
    db_job_clear(&job);
    return next;
}

srv_next srv_jobs_get(srv_req *r) {
    srv_query q[] = {{"wait", 0}, {"if_state_not", 0}, {0, 0}};
    int64_t wait_s = 0;
    getter *g = dr_calloc(1, sizeof *g);
    if (!g) return srv_reply_failed(r, DR_NOMEM, NULL);
    r->state = g;
    r->state_free = dr_free;
    if (!srv_query_read(r, q)) return SRV_REPLY;
    if (q[0].value && !dr_parse_i64(q[0].value, 0, 86400, &wait_s))
        return bad_value(r, "wait", q[0].value, "a number of seconds, 0 to 86400");
    g->has_state = q[1].value != NULL;
    if (g->has_state && !db_state_parse(q[1].value, &g->not_state))
        return bad_value(r, "if_state_not", q[1].value, "the name of a state");
    if (!id_ok(r)) return no_job(r);
    if (wait_s > r->app->cfg->sync_wait_max_s) wait_s = r->app->cfg->sync_wait_max_s;
    g->waits = wait_s > 0;
    g->deadline_ns = dr_clock_ns() + wait_s * 1000000000;
    return look(r);
}

/* --- result --- */

srv_next srv_jobs_result(srv_req *r) {
    srv_query q[] = {{0, 0}};
    db_job job = {0};
    dr_error err = {0};
    srv_problem p;
    if (!srv_query_read(r, q)) return SRV_REPLY;
    if (!id_ok(r)) return no_job(r);
    dr_status s = db_job_get(r->app->db, r->param[0], &job, &err);
    if (s) return srv_reply_failed(r, s, &err);
    if (job.state == DB_SUCCEEDED && job.has_result) {
        srv_next next = srv_job_picture(r, &job);
        db_job_clear(&job);
        return next;
    }
    bool later = !db_state_final(job.state);
    srv_problem_make(&p, later ? "not_ready" : "no_result", "the job is %s", db_state_name(job.state));
    snprintf(p.job, sizeof p.job, "%s", job.id);
    if (later) p.retry_after_s = srv_queue_retry_after(r->app->queue, job.queue_position);
    db_job_clear(&job);
    return srv_reply_problem(r, &p);
}

/* --- cancel and erase --- */

/* On the store's thread. */
static void on_done(void *arg, dr_status s, const db_job *job, bool flag, const dr_error *err) {
    srv_req *r = arg;
    call *c = r->state;
    c->status = s;
    c->flag = flag;
    c->final = job && db_state_final(job->state);
    if (s && err) c->err = *err;
    srv_call_back(r);
}

static call *start_call(srv_req *r) {
    call *c = dr_calloc(1, sizeof *c);
    if (!c) return NULL;
    memcpy(c->id, r->param[0], sizeof c->id - 1);
    r->state = c;
    r->state_free = dr_free;
    srv_call_arm(r);
    return c;
}

static srv_next cancelled(srv_req *r) {
    call *c = r->state;
    db_job job = {0};
    dr_error err = {0};
    if (c->status) return srv_reply_failed(r, c->status, &c->err);
    if (c->flag && !c->final && !srv_queue_cancel(r->app->queue, c->id) && !srv_trainer_cancel(r->app->trainer, c->id))
        srv_comparer_cancel(r->app->comparer, c->id);
    if (c->flag) srv_batcher_wake(r->app->batcher);
    if (c->flag) srv_park_wake_key(r->app->watch, c->id);
    dr_status s = db_job_get(r->app->db, c->id, &job, &err);
    if (s) return srv_reply_failed(r, s, &err);
    bool later = c->flag && !db_state_final(job.state);
    if (later) srv_job_location(r, &job);
    json_t *o = json_pack("{s:b, s:o}", "cancelled", (int)c->flag, "job", srv_job_json(r->app, &job));
    db_job_clear(&job);
    return srv_reply_json(r, later ? 202 : 200, o);
}

/* The optional body {"reason": "..."}; SRV_GO with the text in ret. */
static srv_next read_reason(srv_req *r, char *ret, size_t cap) {
    const char *key;
    json_t *value;
    srv_problem p;
    json_error_t je;
    *ret = 0;
    if (!r->body.len) return SRV_GO;
    json_t *o = json_loadb(r->body.data, r->body.len, JSON_REJECT_DUPLICATES, &je);
    if (!json_is_object(o)) {
        json_decref(o);
        return srv_reply_error(r, "bad_json", "the body must be a JSON object%s%s", o ? "" : ": ", o ? "" : je.text);
    }
    srv_next next = SRV_GO;
    json_object_foreach(o, key, value) {
        bool known = !strcmp(key, "reason");
        if (known && (json_is_null(value) || (json_is_string(value) && json_string_length(value) < cap))) {
            if (json_is_string(value)) snprintf(ret, cap, "%s", json_string_value(value));
            continue;
        }
        if (known)
            srv_problem_make(&p, "invalid_member", "reason must be a string of less than %zu bytes", cap);
        else
            srv_problem_make(&p, "unknown_member", "unknown member '%.60s'", key);
        char pointer[64];
        snprintf(pointer, sizeof pointer, "/%.60s", key);
        srv_problem_point(&p, pointer);
        next = srv_reply_problem(r, &p);
        break;
    }
    json_decref(o);
    return next;
}

srv_next srv_jobs_cancel(srv_req *r) {
    srv_query q[] = {{0, 0}};
    char reason[200];
    if (!srv_query_read(r, q)) return SRV_REPLY;
    if (!id_ok(r)) return no_job(r);
    srv_next next = read_reason(r, reason, sizeof reason);
    if (next != SRV_GO) return next;
    call *c = start_call(r);
    if (!c) return srv_reply_failed(r, DR_NOMEM, NULL);
    db_job_cancel_async(r->app->db, c->id, *reason ? reason : NULL, on_done, r);
    return srv_call_park(r, cancelled);
}

static srv_next deleted(srv_req *r) {
    call *c = r->state;
    if (c->status) return srv_reply_failed(r, c->status, &c->err);
    srv_spool_erase(r->app->spool, c->id);
    srv_park_wake_key(r->app->watch, c->id);
    return srv_reply_empty(r, 204);
}

srv_next srv_jobs_delete(srv_req *r) {
    srv_query q[] = {{0, 0}};
    if (!srv_query_read(r, q)) return SRV_REPLY;
    if (!id_ok(r)) return no_job(r);
    call *c = start_call(r);
    if (!c) return srv_reply_failed(r, DR_NOMEM, NULL);
    db_job_delete_async(r->app->db, c->id, on_done, r);
    return srv_call_park(r, deleted);
}
