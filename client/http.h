/* http.h - calls to the service over libcurl: time limits, retries, checksums, errors in words.
 *
 * Calls that are safe to repeat (GET, HEAD, PUT, DELETE, and POST with an Idempotency-Key, which stays the same) are
 * repeated after a broken connection and after 429, 502 and 503, honouring Retry-After; a server that was never reached
 * is not waited for. One handle is used by one thread at a time; handles are independent. */
#ifndef CLI_HTTP_H
#define CLI_HTTP_H

#include "core/base/status.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct cli_http cli_http;

/* Set by a signal handler: calls that are under way end at once with CANCELLED. */
extern atomic_int cli_stop;

/* url is http:// or https:// with a host; key NULL = none. Both are copied. INVALID "bad_url". */
DR_MUSTUSE dr_status cli_http_open(const char *url, const char *key, cli_http **ret, dr_error *err);
void cli_http_close(cli_http *h); /* NULL is fine */
const char *cli_http_url(const cli_http *h);

/* A file that is sent from its beginning at each try, or that takes an answer. Neither is ever held in memory. */
typedef struct cli_file {
    int fd;
    uint64_t len;
} cli_file;

typedef struct cli_call {
    const char *method; /* "GET" when NULL */
    const char *path;   /* from "/v1/..." on, with query, already escaped */
    const char *accept, *prefer, *content_type, *idem_key, *if_match; /* NULL = header not sent */
    const void *body;
    size_t body_len;
    const cli_file *send; /* instead of body; NULL = none */
    cli_file *keep;      /* takes the picture of a 2xx answer (len is set); other answers go to memory. NULL = all do */
    size_t answer_max;   /* bytes of body taken at most; 0 = 1 GiB */
    int64_t wait_ms;     /* how long the server was asked to hold the answer */
    int64_t deadline_ns; /* monotonic, over all tries; 0 = none */
    int tries_max;       /* 0 = 5 */
    bool ignore_stop;    /* for the one call that must still be made after ^C: cancelling */
} cli_call;

typedef struct cli_answer {
    int status; /* HTTP status of the last answer; 0 = there was none */
    char *body; /* NUL-terminated, owned; "" where the answer was kept in a file */
    size_t len;
    bool kept;          /* a picture, in cli_call.keep */
    uint8_t sha256[32]; /* of what was kept */
    char content_type[64], location[256], link[512], model[96], timing[256], request_id[80], disposition[256],
        digest[160], etag[96];
    int64_t retry_after_s; /* -1 = not given */
    double seconds;        /* of the last try */
    int tries;
} cli_answer;

/* OK for 2xx whose body, where the answer carries a Content-Digest, has that sha-256 (CORRUPT "digest_mismatch"
 * otherwise). Errors by err->what: cannot_reach (UNAVAILABLE), timed_out (BUSY), interrupted (CANCELLED); for an HTTP
 * error the problem's `code`, its words with limit, actual and setting in err->text. ret is filled in every case; clear
 * it. */
DR_MUSTUSE dr_status cli_http_do(cli_http *h, const cli_call *call, cli_answer *ret, dr_error *err);
void cli_answer_clear(cli_answer *a);

int cli_exit_code(dr_status s, const dr_error *err, int http_status); /* of cli.h */

char *cli_escape(const char *s); /* for a query or a path segment; caller frees, NULL without memory */
void cli_idem_key(char ret[40]); /* a fresh random key */

#endif
