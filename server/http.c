/* http.c - see http.h.
 *
 * A request is made when its request line has been read (MHD_OPTION_URI_LOG_CALLBACK, which also gives the raw path)
 * and ends in on_completed(), the only place that cleans up. In between on_request() is called with the header only,
 * for each piece of the body, once more when all is read, and once more after each resume. libmicrohttpd takes an
 * answer only with the header or at the end, so a refusal in the middle of a body is written to the socket by hand and
 * the rest is soaked up for two seconds, so that the client reads the answer before it sees the connection reset. */
#include "server/http.h"
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/hash.h"
#include "core/base/log.h"
#include "server/guard.h"
#include "server/router.h"
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

struct srv_http {
    srv_app *app;
    struct MHD_Daemon *daemon;
    const srv_route *table;
    size_t n_routes;
    pthread_mutex_t mu; /* guards the two counts; cond rings when one falls to 0 */
    pthread_cond_t cond;
    int active, suspended;
    atomic_bool closing; /* nothing may be suspended that is not already */
};

static void count(srv_http *h, int active, int suspended) {
    pthread_mutex_lock(&h->mu);
    h->active += active;
    h->suspended += suspended;
    if (!h->active || !h->suspended) pthread_cond_broadcast(&h->cond);
    pthread_mutex_unlock(&h->mu);
}

void srv_http_suspend(srv_req *r) {
    r->suspended = true;
    count(r->app->http, 0, 1);
    MHD_suspend_connection(r->conn);
}

void srv_http_resumed(srv_req *r) {
    count(r->app->http, 0, -1);
}

bool srv_http_closing(srv_http *h) {
    return atomic_load(&h->closing);
}

void srv_http_resume(void *conn) {
    MHD_resume_connection(conn);
}

/* --- connections and requests come and go --- */

static void on_connection(void *arg, struct MHD_Connection *conn, void **socket_context,
                          enum MHD_ConnectionNotificationCode code) {
    srv_http *h = arg;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info = MHD_get_connection_info(conn, MHD_CONNECTION_INFO_CONNECTION_FD);
        srv_peer *p = dr_calloc(1, sizeof *p);
        *socket_context = p;
        if (!p || !info) return; /* its requests are turned away in on_request() */
        srv_peer_open(h->app->watch, p, info->connect_fd);
        atomic_fetch_add(&h->app->tele.connections, 1);
    } else if (*socket_context) {
        srv_peer_close(h->app->watch, *socket_context);
        atomic_fetch_sub(&h->app->tele.connections, 1);
        dr_free(*socket_context);
        *socket_context = NULL;
    }
}

static void *on_uri(void *arg, const char *uri, struct MHD_Connection *conn) {
    srv_http *h = arg;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(conn, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    srv_req *r = info && info->socket_context ? dr_calloc(1, sizeof *r) : NULL;
    if (!r || !(r->uri = dr_strdup(uri))) {
        dr_free(r);
        return NULL;
    }
    r->app = h->app;
    r->conn = conn;
    r->peer = info->socket_context;
    r->started_ns = dr_clock_ns();
    r->reply.fd = -1;
    dr_buf_init(&r->reply.headers, 16384);
    dr_buf_init(&r->body, SRV_BODY_SMALL);
    if (atomic_load(&r->peer->phase) == SRV_PHASE_IDLE) srv_peer_phase(r->peer, SRV_PHASE_HEADER);
    atomic_fetch_add(&h->app->tele.requests_active, 1);
    count(h, 1, 0);
    return r;
}

static void on_completed(void *arg, struct MHD_Connection *conn, void **con_cls, enum MHD_RequestTerminationCode code) {
    srv_http *h = arg;
    srv_req *r = *con_cls;
    srv_tele *t = &h->app->tele;
    (void)conn;
    if (!r) return;
    *con_cls = NULL;
    double ms = (double)(dr_clock_ns() - r->started_ns) / 1e6;
    bool left = !r->status || (code != MHD_REQUEST_TERMINATED_COMPLETED_OK && r->queued);
    int status = left ? 499 : r->status; /* 499: for log and counters only */
    dr_log(status >= 500 ? DR_LOG_WARN : DR_LOG_INFO, r->id, "%s %s %d %zu bytes in %.1f ms",
           r->method ? r->method : "?", r->path ? r->path : "?", status, r->reply.len, ms);
    srv_count_status(t, status == 499 ? 463 : status);
    srv_hist_add(&t->request, ms / 1e3);
    atomic_fetch_sub(&t->requests_active, 1);
    srv_peer_phase(r->peer, SRV_PHASE_IDLE);
    bool suspended = r->suspended; /* resumed, but libmicrohttpd saw the end of the connection before it called us */
    if (suspended && r->left) r->left(r);
    if (r->state_free) r->state_free(r->state);
    srv_reply_clear(&r->reply);
    dr_buf_done(&r->reply.headers);
    dr_buf_done(&r->body);
    dr_free((char *)(uintptr_t)r->path);
    dr_free(r->uri);
    dr_free(r);
    count(h, -1, suspended ? -1 : 0);
}

/* --- begin: everything that needs no body --- */

static enum MHD_Result see_header(void *arg, enum MHD_ValueKind kind, const char *key, size_t key_len,
                                  const char *value, size_t value_len) {
    (void)kind;
    srv_guard_header(arg, key, key_len, value, value_len);
    return MHD_YES;
}

static void identify(srv_req *r) {
    uint64_t rnd[4] = {0};
    uint8_t raw[12];
    if (getrandom(rnd, sizeof rnd, GRND_NONBLOCK) < 0)
        rnd[0] = (uint64_t)dr_clock_ns(), rnd[1] = (uint64_t)(uintptr_t)r;
    const char *id = srv_header(r, "X-Request-Id");
    if (srv_request_id_ok(id))
        snprintf(r->id, sizeof r->id, "%s", id);
    else {
        memcpy(raw, rnd, sizeof raw);
        memcpy(r->id, "req-", 4);
        dr_hex(raw, sizeof raw, r->id + 4);
    }
    if (!srv_traceparent_next(srv_header(r, "traceparent"), rnd[2], r->trace))
        srv_traceparent_new(rnd[3], rnd[1], rnd[2], r->trace);
}

/* Who is it and may they? SRV_GO when all is well. */
static srv_next admit(srv_req *r) {
    srv_app *app = r->app;
    const char *bad = srv_auth_origin_problem(app->auth, srv_header(r, "Host"), srv_header(r, "Origin"));
    if (bad) return srv_reply_error(r, bad, "%s", srv_problem_find(bad)->explain);
    if (!r->route->open && !srv_auth_token_ok(app->auth, srv_header(r, "Authorization")))
        return srv_reply_error(r, "unauthorized", "a token is needed: Authorization: Bearer TOKEN");
    const char *coding = srv_header(r, "Content-Encoding");
    if (coding && strcasecmp(coding, "identity"))
        return srv_reply_error(r, "unsupported_encoding", "Content-Encoding '%.40s' is not supported", coding);
    if (!r->route->data && r->content_length > SRV_BODY_SMALL) {
        srv_problem p;
        srv_problem_make(&p, "body_too_large", "a body of at most %d bytes is taken here", SRV_BODY_SMALL);
        p.has_limit = true;
        p.limit = SRV_BODY_SMALL;
        p.actual = r->content_length;
        return srv_reply_problem(r, &p);
    }
    return SRV_GO;
}

static srv_next begin(srv_http *h, srv_req *r, const char *url, const char *version, bool *ret_close) {
    srv_guard g;
    char allow[SRV_ALLOW];
    const char *why = "";
    srv_guard_init(&g);
    MHD_get_connection_values_n(r->conn, MHD_HEADER_KIND, see_header, &g);
    identify(r);
    r->content_length = g.length;
    if (!(r->path = dr_strdup(url))) return SRV_CLOSE;
    const char *bad = srv_guard_verdict(&g, r->method, version, r->uri, &why);
    bool has_body = g.n_coding || g.length > 0;
    *ret_close = bad || has_body; /* an answer now leaves a body unread */
    if (bad) {
        srv_count(&h->app->tele, SRV_FRAMING_REFUSED, 1);
        return srv_reply_error(r, bad, "%s", why);
    }
    r->route = srv_route_find(h->table, h->n_routes, r->method, r->path, r->param, allow);
    if (!r->route && !*allow) return srv_reply_error(r, "not_found", "there is nothing under this path");
    if (!r->route) {
        srv_reply_header(r, "Allow", "%s", allow);
        return srv_reply_error(r, "method_not_allowed", "this path knows %s", allow);
    }
    srv_next next = admit(r);
    if (next == SRV_GO && r->route->begin) next = r->route->begin(r);
    if (next == SRV_GO && !srv_peer_phase(r->peer, has_body ? SRV_PHASE_BODY : SRV_PHASE_BUSY)) return SRV_CLOSE;
    return next;
}

/* --- body --- */

static srv_next small_body(srv_req *r, const char *data, size_t len) {
    dr_buf_add(&r->body, data, len);
    if (!r->body.status) return SRV_GO;
    return srv_reply_error(r, "body_too_large", "a body of at most %d bytes is taken here", SRV_BODY_SMALL);
}

static enum MHD_Result on_data(srv_req *r, const char *data, size_t *len) {
    size_t n = *len;
    *len = 0;
    atomic_fetch_add_explicit(&r->peer->bytes, n, memory_order_relaxed);
    srv_count(&r->app->tele, SRV_BYTES_IN, n);
    if (atomic_load(&r->peer->phase) == SRV_PHASE_CUT) return MHD_NO;
    if (r->refused) return MHD_YES;
    r->body_bytes += n;
    srv_next next = r->route->data ? r->route->data(r, data, n) : small_body(r, data, n);
    if (next == SRV_GO) return MHD_YES;
    r->refused = true;
    if (next != SRV_REPLY || !srv_peer_phase(r->peer, SRV_PHASE_LINGER) || !srv_reply_raw(r, r->peer->fd))
        return MHD_NO;
    return MHD_YES;
}

/* --- the handler --- */

static enum MHD_Result act(srv_req *r, srv_next next, bool close_after) {
    switch (next) {
    case SRV_GO:
    case SRV_PARK:
        return MHD_YES;
    case SRV_REPLY:
        return srv_reply_queue(r, close_after);
    default:
        return MHD_NO;
    }
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *conn, const char *url, const char *method,
                                  const char *version, const char *data, size_t *len, void **con_cls) {
    srv_http *h = arg;
    srv_req *r = *con_cls;
    (void)conn;
    if (!r) return MHD_NO;
    if (!r->begun) {
        bool close_after = atomic_load(&h->closing);
        if (close_after) return MHD_NO;
        r->begun = true;
        r->method = method;
        srv_next next = begin(h, r, url, version, &close_after);
        if (next == SRV_REPLY && !srv_peer_phase(r->peer, SRV_PHASE_BUSY)) return MHD_NO;
        return act(r, next, close_after);
    }
    if (r->suspended) { /* the count falls after the step, which may suspend anew: 0 means that none is on its way */
        r->suspended = false;
        enum MHD_Result result = act(r, r->step(r), false);
        count(h, 0, -1);
        return result;
    }
    if (atomic_load(&h->closing)) return MHD_NO; /* would suspend */
    if (*len) return on_data(r, data, len);
    if (r->refused || !srv_peer_phase(r->peer, SRV_PHASE_BUSY)) return MHD_NO;
    return act(r, r->route->ready(r), false);
}

void srv_http_too_slow(void *arg, int fd) {
    srv_app *app = arg;
    srv_problem p;
    char head[256];
    srv_problem_make(&p, "body_too_slow", "the body came in slower than %lld bytes a second",
                     (long long)app->cfg->body_rate_min);
    char *body = srv_problem_text(&p, NULL);
    srv_count(&app->tele, SRV_BODIES_SLOW, 1);
    if (!body) return;
    int n = snprintf(head, sizeof head,
                     "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Type: application/problem+json\r\n"
                     "Content-Length: %zu\r\n\r\n",
                     strlen(body));
    if (send(fd, head, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT | MSG_MORE) == n)
        (void)!send(fd, body, strlen(body), MSG_NOSIGNAL | MSG_DONTWAIT);
    dr_free(body);
}

/* --- start and stop --- */

static void on_log(void *arg, const char *fmt, va_list ap) {
    char text[300];
    (void)arg;
    vsnprintf(text, sizeof text, fmt, ap);
    text[strcspn(text, "\n")] = 0;
    dr_log(DR_LOG_DEBUG, NULL, "libmicrohttpd: %s", text);
}

static void raise_fd_limit(int64_t connections) {
    struct rlimit lim;
    rlim_t want = (rlim_t)connections * 2 + 256;
    if (getrlimit(RLIMIT_NOFILE, &lim) || lim.rlim_cur >= want) return;
    lim.rlim_cur = want < lim.rlim_max ? want : lim.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &lim)) dr_log(DR_LOG_WARN, NULL, "cannot raise the limit of open files");
}

dr_status srv_http_open(srv_app *app, int listen_fd, const srv_route *table, size_t n_routes, dr_error *err) {
    const srv_config *cfg = app->cfg;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned threads = cfg->http_threads ? (unsigned)cfg->http_threads
                       : cores < 2       ? 2
                       : cores > 4       ? 4
                                         : (unsigned)cores;
    pthread_condattr_t attr;
    srv_http *h = dr_calloc(1, sizeof *h);
    if (!h) {
        close(listen_fd);
        return dr_fail(err, DR_NOMEM, "out of memory");
    }
    *h = (srv_http){.app = app, .table = table, .n_routes = n_routes};
    pthread_mutex_init(&h->mu, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&h->cond, &attr);
    pthread_condattr_destroy(&attr);
    app->http = h;
    raise_fd_limit(cfg->connections_max);
    h->daemon = MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC | MHD_USE_ERROR_LOG, 0, NULL, NULL,
        on_request, h, MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL, MHD_OPTION_LISTEN_SOCKET, listen_fd,
        MHD_OPTION_THREAD_POOL_SIZE, threads, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)131072,
        MHD_OPTION_CONNECTION_MEMORY_INCREMENT, (size_t)65536, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)cfg->connections_max, MHD_OPTION_PER_IP_CONNECTION_LIMIT, (unsigned)cfg->connections_per_ip,
        MHD_OPTION_CONNECTION_TIMEOUT, 30u, MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_NOTIFY_CONNECTION,
        on_connection, h, MHD_OPTION_URI_LOG_CALLBACK, on_uri, h, MHD_OPTION_NOTIFY_COMPLETED, on_completed, h,
        MHD_OPTION_END);
    if (!h->daemon) {
        close(listen_fd);
        app->http = NULL;
        srv_http_close(h, 0);
        return dr_fail(err, DR_UNAVAILABLE, "cannot start the HTTP threads");
    }
    return DR_OK;
}

void srv_http_close(srv_http *h, int64_t grace_ms) {
    if (!h) return;
    if (h->daemon) {
        MHD_socket fd = MHD_quiesce_daemon(h->daemon);
        atomic_store(&h->closing, true);
        srv_watch_stop_waiting(h->app->watch);
        int64_t end = dr_clock_ns() + grace_ms * 1000000;
        struct timespec ts = {.tv_sec = end / 1000000000, .tv_nsec = end % 1000000000};
        bool late = false;
        pthread_mutex_lock(&h->mu);
        while (h->active && !late) late = pthread_cond_timedwait(&h->cond, &h->mu, &ts) == ETIMEDOUT;
        while (h->suspended) pthread_cond_wait(&h->cond, &h->mu); /* each has a waker that is on its way */
        pthread_mutex_unlock(&h->mu);
        MHD_stop_daemon(h->daemon);
        if (fd != MHD_INVALID_SOCKET) close(fd);
    }
    pthread_cond_destroy(&h->cond);
    pthread_mutex_destroy(&h->mu);
    dr_free(h);
}
