/* api_events.c - GET /v1/jobs/{id}/events: a job's history as a list, or live as server-sent events.
 *
 * A stream is a loop over the store: read the job, then what came after the last number; if there is nothing new, end
 * where the job has ended, else suspend until the job's key is woken or it is time for a ping. The job is read first:
 * whatever was written before it ended is found by the second read. A client that comes back names the last number it
 * saw (Last-Event-ID) and misses nothing; any node that sees the store could serve it. */
#include "core/base/alloc.h"
#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/parse.h"
#include "server/api.h"
#include <stdio.h>
#include <string.h>

#define PING_NS  INT64_C(10000000000)
#define PAGE     200
#define LIST_MAX 1000

typedef struct stream {
    int64_t seq;      /* last one that was sent */
    int64_t spoke_ns; /* when something was last sent */
    bool waited, ended, said_end;
    dr_buf out;
    size_t sent; /* of out */
} stream;

static void stream_free(void *p) {
    stream *s = p;
    dr_buf_done(&s->out);
    dr_free(s);
}

/* --- list --- */

static json_t *event_json(const db_event *e) {
    char when[DR_RFC3339];
    dr_clock_rfc3339(e->at_ms, when);
    json_t *data = json_loads(e->data_json, 0, NULL);
    return json_pack("{s:I, s:s, s:s, s:o}", "seq", (json_int_t)e->seq, "at", when, "type", e->type, "data",
                     data ? data : json_object());
}

static srv_next list(srv_req *r, int64_t after, int limit) {
    db_event_page page = {0};
    dr_error err = {0};
    dr_status s = db_event_list(r->app->db, r->param[0], after, limit, &page, &err);
    if (s) return srv_reply_failed(r, s, &err);
    json_t *items = json_array();
    bool ok = items != NULL;
    for (size_t i = 0; i < page.n && ok; i++) ok = !json_array_append_new(items, event_json(&page.events[i]));
    json_int_t last = page.n ? page.events[page.n - 1].seq : after;
    bool more = page.n == (size_t)limit;
    db_event_page_clear(&page);
    json_t *o = ok ? json_pack("{s:O, s:I, s:b}", "items", items, "last", last, "more", (int)more) : NULL;
    json_decref(items);
    return srv_reply_json(r, 200, o);
}

/* --- stream --- */

/* What is new goes to out. False: the store does not answer. */
static bool collect(srv_req *r, stream *s, bool *ret_final) {
    db_job job = {0};
    db_event_page page = {0};
    if (db_job_get(r->app->db, r->param[0], &job, NULL)) return false; /* erased meanwhile, or worse */
    db_state state = job.state;
    *ret_final = db_state_final(state);
    db_job_clear(&job);
    if (db_event_list(r->app->db, r->param[0], s->seq, PAGE, &page, NULL)) return false;
    for (size_t i = 0; i < page.n; i++) {
        const db_event *e = &page.events[i];
        dr_buf_printf(&s->out, "id: %lld\nevent: %s\ndata: %s\n\n", (long long)e->seq, e->type, e->data_json);
        s->seq = e->seq;
        s->said_end = !strcmp(e->type, "end");
    }
    if (!page.n && *ret_final && !s->said_end) { /* jobs other than trainings have no such row */
        dr_buf_printf(&s->out, "event: end\ndata: {\"state\":\"%s\"}\n\n", db_state_name(state));
        s->said_end = true;
    }
    db_event_page_clear(&page);
    return !s->out.status;
}

static ptrdiff_t pull(srv_req *r, char *buf, size_t max) {
    stream *s = r->state;
    for (;;) {
        if (s->sent < s->out.len) {
            size_t n = s->out.len - s->sent < max ? s->out.len - s->sent : max;
            memcpy(buf, s->out.data + s->sent, n);
            s->sent += n;
            s->spoke_ns = dr_clock_ns();
            return (ptrdiff_t)n;
        }
        dr_buf_clear(&s->out);
        s->sent = 0;
        if (s->ended) return SRV_STREAM_END;
        if (s->waited) {
            srv_wake why = srv_wait_why(r);
            s->waited = false;
            if (why == SRV_WAKE_GONE) return SRV_STREAM_CUT;
            if (why == SRV_WAKE_STOP) return SRV_STREAM_END; /* the client comes back with its Last-Event-ID */
        }
        bool final = false;
        srv_wait_arm(r, r->param[0]); /* before the look, so that nothing is missed */
        bool ok = collect(r, s, &final);
        if (ok && !s->out.len && !final && dr_clock_ns() - s->spoke_ns >= PING_NS) dr_buf_puts(&s->out, ": ping\n\n");
        if (ok && !s->out.len && !final) {
            ptrdiff_t n = srv_stream_wait(r, s->spoke_ns + PING_NS);
            s->waited = n == SRV_STREAM_WAIT;
            return n;
        }
        srv_park_disarm(r->app->watch, &r->park);
        if (!ok) return SRV_STREAM_CUT;
        s->ended = final && (!s->out.len || s->said_end);
    }
}

static srv_next begin_stream(srv_req *r, int64_t after) {
    db_job job = {0};
    dr_error err = {0};
    dr_status st = db_job_get(r->app->db, r->param[0], &job, &err);
    db_job_clear(&job);
    if (st) return srv_reply_failed(r, st, &err);
    stream *s = dr_calloc(1, sizeof *s);
    if (!s) return srv_reply_failed(r, DR_NOMEM, NULL);
    dr_buf_init(&s->out, 4 << 20);
    s->seq = after;
    s->spoke_ns = dr_clock_ns();
    dr_buf_puts(&s->out, ": derain\n\n"); /* the header goes out at once */
    r->state = s;
    r->state_free = stream_free;
    srv_reply_header(r, "X-Accel-Buffering", "no"); /* proxies are to pass it on as it comes */
    return srv_reply_stream(r, "text/event-stream", pull);
}

srv_next srv_jobs_events(srv_req *r) {
    static const char *const types[] = {"application/json", "text/event-stream"};
    srv_query q[] = {{"after", 0}, {"limit", 0}, {0, 0}};
    int64_t after = 0;
    int limit = LIST_MAX;
    if (!srv_query_read(r, q)) return SRV_REPLY;
    const char *last = srv_header(r, "Last-Event-ID");
    if (q[0].value && !dr_parse_i64(q[0].value, 0, INT64_MAX, &after))
        return srv_reply_error(r, "invalid_parameter", "after must be the number of an event");
    if (q[1].value && !dr_parse_int(q[1].value, 1, LIST_MAX, &limit))
        return srv_reply_error(r, "invalid_parameter", "limit must be 1 to %d", LIST_MAX);
    if (!db_id_valid("job_", r->param[0])) return srv_reply_error(r, "job_not_found", "no job ever had this id");
    int best = srv_accept_best(srv_header(r, "Accept"), types, 2);
    if (best < 0) return srv_reply_error(r, "not_acceptable", "events exist as %s and %s", types[0], types[1]);
    srv_reply_header(r, "Vary", "Accept");
    if (best == 0) return list(r, after, limit);
    if (last && !dr_parse_i64(last, 0, INT64_MAX, &after)) after = 0; /* not ours: from the beginning */
    return begin_stream(r, after);
}
