/* request.c - what handlers ask of a request: headers, query, waiting. See request.h. */
#include "server/request.h"
#include "server/http.h"
#include <string.h>

const char *srv_header(srv_req *r, const char *name) {
    return MHD_lookup_connection_value(r->conn, MHD_HEADER_KIND, name);
}

typedef struct query_walk {
    srv_query *list;
    srv_problem problem;
    bool bad;
} query_walk;

static enum MHD_Result see_param(void *arg, enum MHD_ValueKind kind, const char *key, const char *value) {
    query_walk *w = arg;
    char pointer[64];
    (void)kind;
    snprintf(pointer, sizeof pointer, "/query/%.40s", key);
    for (srv_query *q = w->list; q->name; q++) {
        if (strcmp(q->name, key)) continue;
        if (!q->value) {
            q->value = value ? value : "";
            return MHD_YES;
        }
        srv_problem_make(&w->problem, "invalid_parameter", "the parameter '%s' is there twice", q->name);
        srv_problem_point(&w->problem, pointer);
        w->bad = true;
        return MHD_NO;
    }
    srv_problem_make(&w->problem, "unknown_parameter", "unknown parameter '%.60s'", key);
    srv_problem_point(&w->problem, pointer);
    w->bad = true;
    return MHD_NO;
}

bool srv_query_read(srv_req *r, srv_query *list) {
    query_walk w = {.list = list};
    MHD_get_connection_values(r->conn, MHD_GET_ARGUMENT_KIND, see_param, &w);
    if (w.bad) srv_reply_problem(r, &w.problem);
    return !w.bad;
}

void srv_wait_arm(srv_req *r, const char *key) {
    srv_park_arm(r->app->watch, &r->park, key);
}

srv_next srv_wait(srv_req *r, srv_step step, int64_t deadline_ns) {
    r->step = step;
    srv_http_suspend(r);
    srv_park_wait(r->app->watch, &r->park, r->conn, r->peer->fd, deadline_ns);
    return SRV_PARK;
}

ptrdiff_t srv_stream_wait(srv_req *r, int64_t deadline_ns) {
    if (srv_http_closing(r->app->http)) {
        srv_park_disarm(r->app->watch, &r->park);
        return SRV_STREAM_END;
    }
    srv_park_looks_on(r->app->watch, &r->park);
    srv_http_suspend(r);
    srv_park_wait(r->app->watch, &r->park, r->conn, r->peer->fd, deadline_ns);
    return SRV_STREAM_WAIT;
}

srv_wake srv_wait_why(srv_req *r) {
    return srv_park_why(r->app->watch, &r->park);
}

void srv_call_arm(srv_req *r) {
    srv_park_arm(r->app->watch, &r->park, "");
}

srv_next srv_call_park(srv_req *r, srv_step step) {
    r->step = step;
    srv_http_suspend(r);
    srv_park_wait(r->app->watch, &r->park, r->conn, -1, 0);
    return SRV_PARK;
}

void srv_call_back(srv_req *r) {
    srv_park_wake(r->app->watch, &r->park);
}
