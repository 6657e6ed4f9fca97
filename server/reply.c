/* reply.c - answers: JSON, bytes, files, problems. A handler fills r->reply; http.c sends it through libmicrohttpd, or,
 * where a body is refused half-way (libmicrohttpd takes no answer then), srv_reply_raw() writes it to the socket. */
#include "core/base/alloc.h"
#include "core/base/log.h"
#include "server/http.h"
#include "server/request.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define JSON_MAX (64u << 20)

void srv_reply_clear(srv_reply *reply) {
    if (reply->fd >= 0) close(reply->fd);
    dr_buf_done(&reply->headers);
    dr_free(reply->data);
    *reply = (srv_reply){.fd = -1};
    dr_buf_init(&reply->headers, 16384);
}

void srv_reply_header(srv_req *r, const char *name, const char *fmt, ...) {
    char value[2048];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(value, sizeof value, fmt, ap);
    va_end(ap);
    for (char *p = value; *p; p++)
        if (*p == '\r' || *p == '\n') *p = ' ';
    dr_buf_printf(&r->reply.headers, "%s: %s\n", name, value);
}

static void body(srv_req *r, int status, char *data, size_t len) {
    dr_free(r->reply.data);
    if (r->reply.fd >= 0) close(r->reply.fd);
    r->reply.fd = -1;
    r->reply.status = status;
    r->reply.data = data;
    r->reply.len = len;
}

/* The last resort needs no memory at all. */
static srv_next no_memory(srv_req *r) {
    body(r, 507, NULL, 0);
    return SRV_REPLY;
}

static int dump(const char *data, size_t len, void *arg) {
    dr_buf *b = arg;
    dr_buf_add(b, data, len);
    return b->status ? -1 : 0;
}

static srv_next reply_json_as(srv_req *r, int status, const char *type, json_t *o) {
    dr_buf b;
    size_t len = 0;
    if (!o) return no_memory(r);
    dr_buf_init(&b, JSON_MAX);
    int bad = json_dump_callback(o, dump, &b, JSON_COMPACT);
    json_decref(o);
    dr_buf_add(&b, "\n", 1);
    char *data = bad ? NULL : dr_buf_detach(&b, &len);
    dr_buf_done(&b);
    if (!data) return no_memory(r);
    body(r, status, data, len);
    srv_reply_header(r, "Content-Type", "%s", type);
    return SRV_REPLY;
}

srv_next srv_reply_json(srv_req *r, int status, json_t *o) {
    return reply_json_as(r, status, "application/json", o);
}

srv_next srv_reply_text(srv_req *r, int status, const char *type, dr_buf *text) {
    size_t len = 0;
    char *data = dr_buf_detach(text, &len);
    dr_buf_done(text);
    if (!data) return no_memory(r);
    body(r, status, data, len);
    srv_reply_header(r, "Content-Type", "%s", type);
    return SRV_REPLY;
}

srv_next srv_reply_empty(srv_req *r, int status) {
    body(r, status, NULL, 0);
    return SRV_REPLY;
}

srv_next srv_reply_file(srv_req *r, int status, const char *type, int fd, uint64_t offset, uint64_t len) {
    body(r, status, NULL, (size_t)len);
    r->reply.fd = fd;
    r->reply.offset = offset;
    srv_reply_header(r, "Content-Type", "%s", type);
    return SRV_REPLY;
}

srv_next srv_reply_stream(srv_req *r, const char *type, ptrdiff_t (*pull)(srv_req *r, char *buf, size_t max)) {
    body(r, 200, NULL, 0);
    r->reply.pull = pull;
    srv_reply_header(r, "Content-Type", "%s", type);
    return SRV_REPLY;
}

srv_next srv_reply_problem(srv_req *r, const srv_problem *p) {
    if (p->row->status == 401) srv_reply_header(r, "WWW-Authenticate", "Bearer");
    int retry = p->retry_after_s;
    if (!retry && p->row->status == 503) retry = 5;
    if (retry) srv_reply_header(r, "Retry-After", "%d", retry);
    return reply_json_as(r, p->row->status, "application/problem+json", srv_problem_json(p, r->id));
}

srv_next srv_reply_error(srv_req *r, const char *code, const char *fmt, ...) {
    srv_problem p;
    char detail[320];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(detail, sizeof detail, fmt, ap);
    va_end(ap);
    srv_problem_make(&p, code, "%s", detail);
    return srv_reply_problem(r, &p);
}

srv_next srv_reply_failed(srv_req *r, dr_status s, const dr_error *err) {
    srv_problem p;
    srv_problem_from(&p, s, err);
    if (p.row->status >= 500)
        dr_log(DR_LOG_ERROR, r->id, "%s: %s", dr_status_text(s), err && *err->text ? err->text : "no details");
    return srv_reply_problem(r, &p);
}

srv_next srv_reply_stored(srv_req *r, const char *problem_json, const char *job) {
    json_t *o = srv_problem_stored(problem_json, job);
    int status = (int)json_integer_value(json_object_get(o, "status"));
    return reply_json_as(r, status, "application/problem+json", o);
}

/* The next "Name: value" line; NULL at the end. Splits in place. */
static char *next_line(char *p, char **ret_name, char **ret_value) {
    char *colon = p ? strchr(p, ':') : NULL, *end = p ? strchr(p, '\n') : NULL;
    if (!colon || !end) return NULL;
    *colon = *end = 0;
    *ret_name = p;
    *ret_value = colon + 2;
    return end + 1;
}

static void common_headers(srv_req *r) {
    bool cached = r->reply.headers.data && strstr(r->reply.headers.data, "Cache-Control:");
    if (!cached) srv_reply_header(r, "Cache-Control", "no-store");
    srv_reply_header(r, "X-Request-Id", "%s", r->id);
    srv_reply_header(r, "traceparent", "%s", r->trace);
    srv_reply_header(r, "X-Content-Type-Options", "nosniff");
}

/* libmicrohttpd asks at once again after 0 bytes, for ever: pull() gives none only together with a suspension. */
static ssize_t on_pull(void *arg, uint64_t pos, char *buf, size_t max) {
    srv_req *r = arg;
    (void)pos;
    bool resumed = r->suspended;
    r->suspended = false;
    ptrdiff_t n = r->reply.pull(r, buf, max);
    if (n > 0) srv_count(&r->app->tele, SRV_BYTES_OUT, (uint64_t)n);
    if (resumed) srv_http_resumed(r); /* after the pull, which may suspend anew */
    return n == SRV_STREAM_END   ? MHD_CONTENT_READER_END_OF_STREAM
           : n == SRV_STREAM_CUT ? MHD_CONTENT_READER_END_WITH_ERROR
                                 : n;
}

enum MHD_Result srv_reply_queue(srv_req *r, bool close_after) {
    srv_reply *a = &r->reply;
    struct MHD_Response *resp = NULL;
    char *name = NULL, *value = NULL;
    common_headers(r);
    if (a->pull) {
        resp = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16384, on_pull, r, NULL);
    } else if (a->fd >= 0) {
        if ((resp = MHD_create_response_from_fd_at_offset64(a->len, a->fd, a->offset))) a->fd = -1; /* it closes */
    } else if (a->data) {
        resp = MHD_create_response_from_buffer_with_free_callback(a->len, a->data, dr_free);
        if (resp) a->data = NULL;
    } else
        resp = MHD_create_response_from_buffer(0, (void *)(uintptr_t) "", MHD_RESPMEM_PERSISTENT);
    if (!resp) return MHD_NO;
    bool ok = a->headers.status == DR_OK;
    for (char *p = a->headers.data; (p = next_line(p, &name, &value));)
        ok = MHD_add_response_header(resp, name, value) == MHD_YES && ok;
    if (close_after) ok = MHD_add_response_header(resp, "Connection", "close") == MHD_YES && ok;
    enum MHD_Result result = ok ? MHD_queue_response(r->conn, (unsigned)a->status, resp) : MHD_NO;
    MHD_destroy_response(resp);
    r->status = a->status;
    r->queued = result == MHD_YES;
    srv_count(&r->app->tele, SRV_BYTES_OUT, a->len);
    return result;
}

static const char *reason(int status) {
    switch (status) {
    case 400:
        return "Bad Request";
    case 408:
        return "Request Timeout";
    case 413:
        return "Content Too Large";
    case 415:
        return "Unsupported Media Type";
    case 422:
        return "Unprocessable Content";
    case 507:
        return "Insufficient Storage";
    default:
        return "Error";
    }
}

bool srv_reply_raw(srv_req *r, int fd) {
    srv_reply *a = &r->reply;
    char *name = NULL, *value = NULL;
    dr_buf b;
    dr_buf_init(&b, 65536);
    common_headers(r);
    dr_buf_printf(&b, "HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Length: %zu\r\n", a->status, reason(a->status),
                  a->len);
    for (char *p = a->headers.data; (p = next_line(p, &name, &value));) dr_buf_printf(&b, "%s: %s\r\n", name, value);
    dr_buf_puts(&b, "\r\n");
    if (a->data) dr_buf_add(&b, a->data, a->len);
    /* A fresh answer of a few hundred bytes fits the socket's buffer; where it does not, the client sees a cut. */
    bool ok = !b.status && send(fd, b.data, b.len, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)b.len;
    if (ok) shutdown(fd, SHUT_WR);
    dr_buf_done(&b);
    r->status = a->status;
    return ok;
}
