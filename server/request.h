/* request.h - one HTTP request from its request line to the end of its answer, and how handlers talk to it.
 *
 * A request is owned by its HTTP thread; while it is parked nobody touches it but the call-back it waits for. Handlers
 * come in three steps, all in the HTTP thread and none of them blocking: begin(r)       header read, body not: the
 * place for every refusal that needs no body data(r, ...)   a piece of the body ready(r)       all read and say what
 * comes next. A parked request goes on at r->step. */
#ifndef SRV_REQUEST_H
#define SRV_REQUEST_H

#include "core/base/buf.h"
#include "server/app.h"
#include "server/headers.h"
#include "server/problem.h"
#include <jansson.h>
#include <microhttpd.h>

typedef struct srv_req srv_req;

typedef enum srv_next {
    SRV_GO,    /* read on */
    SRV_REPLY, /* r->reply is the answer */
    SRV_PARK,  /* suspended by srv_park_on() or srv_park_call(); goes on at r->step */
    SRV_CLOSE  /* no answer: the client is gone */
} srv_next;

typedef srv_next (*srv_step)(srv_req *r);

typedef struct srv_route {
    const char *method, *path;                                  /* "/v1/jobs/{id}": {} matches one segment */
    srv_step begin;                                             /* may be NULL */
    srv_next (*data)(srv_req *r, const char *data, size_t len); /* NULL: a small body is collected in r->body */
    srv_step ready;
    bool open;           /* answered without a token */
    const char *summary; /* for openapi */
} srv_route;

#define SRV_BODY_SMALL 65536 /* most bytes of a JSON body */
#define SRV_N_PARAMS   2
#define SRV_PARAM      520 /* bytes of a {} with its NUL: a name of 128 characters in UTF-8 */

typedef struct srv_reply {
    int status;
    dr_buf headers; /* "Name: value\n" lines */
    char *data;     /* dr_malloc'ed, or NULL */
    size_t len;
    int fd; /* >= 0: body is [offset, offset+len) of this file */
    uint64_t offset;
    /* A body without end: gives its next bytes (> 0), SRV_STREAM_END, or SRV_STREAM_WAIT after srv_stream_wait(). NULL
     * = none. In the HTTP thread, as the steps. */
    ptrdiff_t (*pull)(struct srv_req *r, char *buf, size_t max);
} srv_reply;

struct srv_req {
    srv_app *app;
    struct MHD_Connection *conn;
    srv_peer *peer;
    char id[72], trace[SRV_TRACE];
    char *uri; /* as sent, with the query */
    const char *method, *path;
    const srv_route *route;
    char param[SRV_N_PARAMS][SRV_PARAM]; /* values of {} in the path */
    int64_t content_length;              /* -1 = chunked or none */
    uint64_t body_bytes;
    dr_buf body; /* routes without data() */
    srv_step step;
    srv_park park;
    bool begun, suspended, refused, queued;
    srv_reply reply;
    void *state; /* the handler's own */
    void (*state_free)(void *state);
    void (*left)(srv_req *r); /* the client left while it waited; may be NULL */
    int64_t started_ns;
    int status; /* answered */
};

const char *srv_header(srv_req *r, const char *name); /* NULL when absent; valid until the answer */

/* --- query: every parameter must be known, once, and well-formed --- */
typedef struct srv_query {
    const char *name;
    const char *value; /* set by srv_query_read; NULL = absent */
} srv_query;
/* The list ends with a NULL name. False: r->reply is a 422 problem. */
bool srv_query_read(srv_req *r, srv_query *list);

/* --- waiting --- */

/* Suspend until `key` is woken, the deadline (dr_clock_ns, 0 = none), the client leaves or the daemon stops. The caller
 * has armed r->park with srv_wait_arm() and then looked. */
void srv_wait_arm(srv_req *r, const char *key);
srv_next srv_wait(srv_req *r, srv_step step, int64_t deadline_ns);
srv_wake srv_wait_why(srv_req *r);

/* The same in the middle of a streamed answer, from its pull(), which is called again afterwards. Not for work: an
 * orderly stop does not wait for streams. */
enum { SRV_STREAM_WAIT = 0, SRV_STREAM_END = -1, SRV_STREAM_CUT = -2 };
ptrdiff_t srv_stream_wait(srv_req *r, int64_t deadline_ns); /* armed by srv_wait_arm(); what pull() is to return */

/* Suspend for a call that is on its way and will surely call back: arm first, then start the call, then park. The
 * call-back ends with srv_call_back(r). */
void srv_call_arm(srv_req *r);
srv_next srv_call_park(srv_req *r, srv_step step);
void srv_call_back(srv_req *r);

/* --- answers: each fills r->reply and returns SRV_REPLY --- */
void srv_reply_header(srv_req *r, const char *name, const char *fmt, ...) DR_PRINTF(3, 4);
srv_next srv_reply_json(srv_req *r, int status, json_t *o);                      /* takes o; NULL = out of memory */
srv_next srv_reply_text(srv_req *r, int status, const char *type, dr_buf *text); /* takes the text */
srv_next srv_reply_empty(srv_req *r, int status);
srv_next srv_reply_file(srv_req *r, int status, const char *type, int fd, uint64_t offset, uint64_t len); /* takes fd */
srv_next srv_reply_stream(srv_req *r, const char *type, ptrdiff_t (*pull)(srv_req *r, char *buf, size_t max));
/* blob.c: bytes that never change, known by their sha-256 (hex): ETag, digest, and for GET Range, If-Range and
 * If-None-Match. Takes fd, of `total` bytes. */
srv_next srv_reply_blob(srv_req *r, const char *type, const char *sha256, const char *cache, int fd, uint64_t total);
srv_next srv_reply_problem(srv_req *r, const srv_problem *p);
srv_next srv_reply_error(srv_req *r, const char *code, const char *fmt, ...) DR_PRINTF(3, 4);
srv_next srv_reply_failed(srv_req *r, dr_status s, const dr_error *err); /* logs causes of kind 500 */
/* A problem object that was stored with a job. */
srv_next srv_reply_stored(srv_req *r, const char *problem_json, const char *job);
void srv_reply_clear(srv_reply *reply);

/* For http.c: hand r->reply to libmicrohttpd, or write it to the socket by hand in the middle of a body. */
enum MHD_Result srv_reply_queue(srv_req *r, bool close);
bool srv_reply_raw(srv_req *r, int fd);

#endif
