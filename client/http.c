/* http.c - see http.h. A try that fails half-way is repeated from the start: small bodies are held in memory, pictures
 * come from a file and go to one (cli_call.send and keep), whose SHA-256 is made as they pass. */
#include "client/http.h"
#include "client/cli.h"
#include "core/base/alloc.h"
#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/fs.h"
#include "core/base/hash.h"
#include "core/base/parse.h"
#include <ctype.h>
#include <curl/curl.h>
#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

atomic_int cli_stop;

struct cli_http {
    CURL *curl;
    char *url, *auth; /* without the last slash; "Authorization: Bearer ..." or NULL */
    bool reached;     /* some answer came over this handle */
};

enum { CONNECT_MS = 5000, CALL_MS = 60000, RETRY_AFTER_MAX_S = 60 };

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;
static void curl_init(void) {
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

dr_status cli_http_open(const char *url, const char *key, cli_http **ret, dr_error *err) {
    pthread_once(&curl_once, curl_init);
    const char *host = strncasecmp(url, "http://", 7) == 0    ? url + 7
                       : strncasecmp(url, "https://", 8) == 0 ? url + 8
                                                              : NULL;
    bool named =
        host && (*host == '[' ? isxdigit((unsigned char)host[1]) || host[1] == ':' : isalnum((unsigned char)*host));
    if (!named || strpbrk(url, " \r\n\t"))
        return dr_fail_as(err, DR_INVALID, "bad_url", "'%s' is no http:// or https:// address", url);
    if (key && (!*key || strpbrk(key, "\r\n")))
        return dr_fail_as(err, DR_INVALID, "bad_key", "the access key is empty or has a line break in it");
    cli_http *h = dr_calloc(1, sizeof *h);
    if (!h) return dr_fail(err, DR_NOMEM, "out of memory");
    h->curl = curl_easy_init();
    h->url = dr_strdup(url);
    if (key && (h->auth = dr_malloc(strlen(key) + 32)))
        snprintf(h->auth, strlen(key) + 32, "Authorization: Bearer %s", key);
    if (!h->curl || !h->url || (key && !h->auth)) {
        cli_http_close(h);
        return dr_fail(err, DR_NOMEM, "out of memory");
    }
    for (size_t n = strlen(h->url); n && h->url[n - 1] == '/';) h->url[--n] = 0;
    *ret = h;
    return DR_OK;
}

void cli_http_close(cli_http *h) {
    if (!h) return;
    curl_easy_cleanup(h->curl);
    dr_free(h->url);
    dr_free(h->auth);
    dr_free(h);
}

const char *cli_http_url(const cli_http *h) {
    return h->url;
}

void cli_answer_clear(cli_answer *a) {
    dr_free(a->body);
    *a = (cli_answer){.retry_after_s = -1};
}

/* --- one try
 * -------------------------------------------------------------------------------------------------------------- */

typedef struct try_state {
    const cli_call *call;
    CURL *curl;
    cli_answer *a;
    dr_buf body;
    uint64_t sent;
    bool kept;     /* the body goes to call->keep */
    dr_sha256 sha; /* of what is kept */
    dr_status status;
    dr_error err; /* what went wrong on this side */
} try_state;

static size_t on_read(char *ret, size_t size, size_t n, void *arg) {
    try_state *t = arg;
    const cli_file *f = t->call->send;
    uint64_t left = f->len - t->sent;
    size_t want = size * n < left ? size * n : (size_t)left;
    ssize_t got = 0;
    do got = want ? pread(f->fd, ret, want, (off_t)t->sent) : 0;
    while (got < 0 && errno == EINTR);
    if (got < 0)
        t->status = dr_fail_errno(&t->err, errno, "read", "the picture");
    else if (!got && want)
        t->status = dr_fail(&t->err, DR_CONFLICT, "the picture has become shorter while it was sent");
    if (t->status) return CURL_READFUNC_ABORT;
    t->sent += (uint64_t)got;
    return (size_t)got;
}

/* A connection that was to be used again is gone: the same body over another one. */
static int on_seek(void *arg, curl_off_t offset, int origin) {
    try_state *t = arg;
    if (origin != SEEK_SET || offset < 0 || (uint64_t)offset > t->call->send->len) return CURL_SEEKFUNC_FAIL;
    t->sent = (uint64_t)offset;
    return CURL_SEEKFUNC_OK;
}

static bool is_picture(CURL *curl, const cli_answer *a) {
    long status = 0;
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    return status >= 200 && status < 300 && strncasecmp(a->content_type, "image/", 6) == 0;
}

static size_t keep_part(try_state *t, cli_file *f, const char *data, size_t len) {
    if (f->len + len > t->body.max) {
        t->body.status = DR_TOO_LARGE;
        return 0;
    }
    t->status = dr_fs_write_all(f->fd, data, len, &t->err);
    if (t->status) return 0;
    dr_sha256_add(&t->sha, data, len);
    f->len += len;
    return len;
}

static size_t on_body(char *data, size_t size, size_t n, void *arg) {
    try_state *t = arg;
    cli_file *f = t->call->keep;
    if (f && !t->kept && !t->body.len) t->kept = is_picture(t->curl, t->a);
    if (f && t->kept) return keep_part(t, f, data, size * n);
    dr_buf_add(&t->body, data, size * n);
    return t->body.status ? 0 : size * n;
}

static void keep(char *to, size_t cap, const char *v, size_t n) {
    while (n && isspace((unsigned char)*v)) v++, n--;
    while (n && isspace((unsigned char)v[n - 1])) n--;
    if (n >= cap) n = cap - 1;
    memcpy(to, v, n);
    to[n] = 0;
}

static size_t on_header(char *line, size_t size, size_t n, void *arg) {
    cli_answer *a = ((try_state *)arg)->a;
    size_t len = size * n;
    const struct {
        const char *name;
        char *to;
        size_t cap;
    } wanted[] = {
        {"content-type:", a->content_type, sizeof a->content_type},
        {"location:", a->location, sizeof a->location},
        {"link:", a->link, sizeof a->link},
        {"x-derain-model:", a->model, sizeof a->model},
        {"server-timing:", a->timing, sizeof a->timing},
        {"x-request-id:", a->request_id, sizeof a->request_id},
        {"content-digest:", a->digest, sizeof a->digest},
        {"etag:", a->etag, sizeof a->etag},
        {"content-disposition:", a->disposition, sizeof a->disposition},
    };
    if (len > 5 && strncasecmp(line, "http/", 5) == 0) { /* a new answer: what a 100 or a redirect said is over */
        for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) wanted[i].to[0] = 0;
        a->retry_after_s = -1;
    }
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        size_t k = strlen(wanted[i].name);
        if (len > k && strncasecmp(line, wanted[i].name, k) == 0) keep(wanted[i].to, wanted[i].cap, line + k, len - k);
    }
    if (len > 12 && strncasecmp(line, "retry-after:", 12) == 0) {
        char v[32];
        keep(v, sizeof v, line + 12, len - 12);
        if (!dr_parse_i64(v, 0, 86400, &a->retry_after_s)) a->retry_after_s = -1;
    }
    return len;
}

static bool stopped(const cli_call *call) {
    return !call->ignore_stop && atomic_load(&cli_stop);
}

static int on_progress(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d) {
    (void)a, (void)b, (void)c, (void)d;
    return stopped(arg);
}

static bool add_header(struct curl_slist **list, const char *name, const char *value) {
    if (!value) return true;
    char line[512];
    int n = snprintf(line, sizeof line, "%s: %s", name, value);
    struct curl_slist *grown = n < (int)sizeof line ? curl_slist_append(*list, line) : NULL;
    if (grown) *list = grown;
    return grown != NULL;
}

static dr_status try_once(cli_http *h, const cli_call *call, const char *url, int64_t limit_ms, cli_answer *a,
                          CURLcode *ret_rc, dr_error *err) {
    struct curl_slist *headers = NULL;
    const char *method = call->method ? call->method : "GET";
    try_state t = {.call = call, .curl = h->curl, .a = a};
    char why[CURL_ERROR_SIZE] = "";
    bool put = strcmp(method, "PUT") == 0, post = put || strcmp(method, "POST") == 0;
    cli_answer_clear(a);
    dr_buf_init(&t.body, call->answer_max ? call->answer_max : (size_t)1 << 30);
    dr_sha256_init(&t.sha);
    if (call->keep) { /* what an earlier try left */
        call->keep->len = 0;
        if (ftruncate(call->keep->fd, 0) || lseek(call->keep->fd, 0, SEEK_SET))
            return dr_fail_errno(err, errno, "empty", "the result's file");
    }
    bool good = add_header(&headers, "Accept", call->accept) && add_header(&headers, "Prefer", call->prefer) &&
                add_header(&headers, "Content-Type", call->content_type) &&
                add_header(&headers, "Idempotency-Key", call->idem_key) &&
                add_header(&headers, "If-Match", call->if_match);
    if (good && h->auth) {
        struct curl_slist *grown = curl_slist_append(headers, h->auth);
        good = grown != NULL;
        if (grown) headers = grown;
    }
    curl_easy_reset(h->curl);
    curl_easy_setopt(h->curl, CURLOPT_URL, url);
    curl_easy_setopt(h->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(h->curl, CURLOPT_USERAGENT, "derain");
    curl_easy_setopt(h->curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(h->curl, CURLOPT_CONNECTTIMEOUT_MS, (long)(limit_ms < CONNECT_MS ? limit_ms : CONNECT_MS));
    curl_easy_setopt(h->curl, CURLOPT_TIMEOUT_MS, (long)limit_ms);
    curl_easy_setopt(h->curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(h->curl, CURLOPT_WRITEDATA, &t);
    curl_easy_setopt(h->curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(h->curl, CURLOPT_HEADERDATA, &t);
    curl_easy_setopt(h->curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(h->curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(h->curl, CURLOPT_XFERINFODATA, call);
    curl_easy_setopt(h->curl, CURLOPT_ERRORBUFFER, why);
    if (post) {
        curl_easy_setopt(h->curl, CURLOPT_POST, 1L);
        if (call->send) {
            curl_easy_setopt(h->curl, CURLOPT_READFUNCTION, on_read);
            curl_easy_setopt(h->curl, CURLOPT_READDATA, &t);
            curl_easy_setopt(h->curl, CURLOPT_SEEKFUNCTION, on_seek);
            curl_easy_setopt(h->curl, CURLOPT_SEEKDATA, &t);
        } else {
            curl_easy_setopt(h->curl, CURLOPT_POSTFIELDS, call->body ? call->body : "");
        }
        curl_easy_setopt(h->curl, CURLOPT_POSTFIELDSIZE_LARGE,
                         (curl_off_t)(call->send ? call->send->len : call->body_len));
        if (put) curl_easy_setopt(h->curl, CURLOPT_CUSTOMREQUEST, "PUT");
    } else if (strcmp(method, "HEAD") == 0) {
        curl_easy_setopt(h->curl, CURLOPT_NOBODY, 1L);
    } else {
        curl_easy_setopt(h->curl, CURLOPT_CUSTOMREQUEST, method);
    }
    curl_easy_setopt(h->curl, CURLOPT_HTTPHEADER, headers);
    int64_t start = dr_clock_ns();
    CURLcode rc = good ? curl_easy_perform(h->curl) : CURLE_OUT_OF_MEMORY;
    a->seconds = (double)(dr_clock_ns() - start) * 1e-9;
    curl_slist_free_all(headers);
    *ret_rc = rc;
    long status = 0;
    /* whatever went wrong later, somebody took the connection */
    if (rc != CURLE_OK && rc != CURLE_COULDNT_CONNECT && rc != CURLE_COULDNT_RESOLVE_HOST &&
        rc != CURLE_OPERATION_TIMEDOUT)
        h->reached = true;
    if (rc == CURLE_OK) curl_easy_getinfo(h->curl, CURLINFO_RESPONSE_CODE, &status);
    dr_status s = DR_OK;
    if (rc == CURLE_OK) {
        h->reached = true;
        a->status = (int)status;
        if (!t.body.len) dr_buf_add(&t.body, "", 0);
        a->body = dr_buf_detach(&t.body, &a->len);
        if (!a->body) s = dr_fail(err, DR_NOMEM, "out of memory");
        a->kept = t.kept;
        dr_sha256_end(&t.sha, a->sha256);
    } else if (stopped(call)) {
        s = dr_fail_as(err, DR_CANCELLED, "interrupted", "interrupted");
    } else if (t.status) {
        s = t.status;
        if (err) *err = t.err;
    } else if (t.body.status == DR_TOO_LARGE) {
        s = dr_fail_as(err, DR_TOO_LARGE, "answer_too_large", "the answer of %s is larger than %zu bytes", h->url,
                       t.body.max);
    } else if (rc == CURLE_OUT_OF_MEMORY || t.body.status) {
        s = dr_fail(err, DR_NOMEM, "out of memory");
    } else if (rc == CURLE_OPERATION_TIMEDOUT && h->reached) {
        s = dr_fail_as(err, DR_BUSY, "timed_out", "%s gave no answer in %.0f s", h->url, a->seconds);
    } else {
        s = dr_fail_as(err, DR_UNAVAILABLE, "cannot_reach", "cannot reach %s: %s", h->url,
                       *why ? why : curl_easy_strerror(rc));
    }
    dr_buf_done(&t.body);
    return s;
}

/* --- what an answer means
 * --------------------------------------------------------------------------------------------------- */

/* Content-Digest: sha-256=:BASE64: (RFC 9530); other algorithms are ignored. */
static dr_status check_digest(const cli_answer *a, dr_error *err) {
    const char *p = strstr(a->digest, "sha-256=:");
    if (!p) return DR_OK;
    uint8_t want[40], got[32]; /* the decoder wants room for whole groups */
    size_t n = 0;
    p += 9;
    const char *end = strchr(p, ':');
    dr_sha256 h;
    dr_sha256_init(&h);
    dr_sha256_add(&h, a->body, a->len);
    dr_sha256_end(&h, got);
    if (a->kept) memcpy(got, a->sha256, sizeof got);
    if (!end || !dr_unbase64(p, (size_t)(end - p), want, sizeof want, &n) || n != 32 || memcmp(want, got, 32) != 0)
        return dr_fail_as(err, DR_CORRUPT, "digest_mismatch",
                          "the answer arrived damaged: its sha-256 is not the announced one");
    return DR_OK;
}

static dr_status status_of(int http) {
    switch (http) {
    case 400:
    case 422:
        return DR_INVALID;
    case 404:
    case 410:
        return DR_NOT_FOUND;
    case 409:
    case 412:
        return DR_CONFLICT;
    case 413:
        return DR_TOO_LARGE;
    case 406:
    case 415:
        return DR_UNSUPPORTED;
    case 429:
    case 504:
        return DR_BUSY;
    case 503:
        return DR_UNAVAILABLE;
    case 507:
        return DR_NOSPACE;
    default:
        return http >= 500 ? DR_INTERNAL : DR_INVALID;
    }
}

static dr_status problem(const cli_http *h, const cli_answer *a, dr_error *err) {
    dr_status s = status_of(a->status);
    json_t *o = strncasecmp(a->content_type, "application/", 12) == 0
                    ? json_loadb(a->body, a->len, JSON_REJECT_DUPLICATES, NULL)
                    : NULL;
    if (!json_is_object(o)) {
        json_decref(o);
        return dr_fail_as(err, s, "http_error", "%s answered %d without saying why; is that a deraind?", h->url,
                          a->status);
    }
    const char *title = json_string_value(json_object_get(o, "title")),
               *detail = json_string_value(json_object_get(o, "detail"));
    const char *code = json_string_value(json_object_get(o, "code")),
               *setting = json_string_value(json_object_get(o, "setting"));
    json_t *limit = json_object_get(o, "limit"), *actual = json_object_get(o, "actual");
    char numbers[160] = "";
    if (json_is_number(limit) && json_is_number(actual))
        snprintf(numbers, sizeof numbers, " (limit %.0f, actual %.0f%s%s)", json_number_value(limit),
                 json_number_value(actual), setting ? ", setting " : "", setting ? setting : "");
    else if (setting)
        snprintf(numbers, sizeof numbers, " (setting %s)", setting);
    const char *words = detail && *detail ? detail : title && *title ? title : "no reason given";
    s = dr_fail_as(err, s, code ? code : "http_error", "%.180s%s [%d %s]", words, numbers, a->status, code ? code : "");
    json_decref(o);
    for (char *p = err ? err->text : NULL; p && *p; p++) /* foreign words go to a terminal */
        if ((unsigned char)*p < 32 || *p == 127) *p = '?';
    return s;
}

int cli_exit_code(dr_status s, const dr_error *err, int http_status) {
    const char *what = err ? err->what : "";
    if (!s) return CLI_OK;
    if (strcmp(what, "bad_url") == 0 || strcmp(what, "bad_key") == 0) return CLI_USAGE;
    if (strcmp(what, "cannot_reach") == 0) return CLI_UNREACHABLE;
    if (strcmp(what, "timed_out") == 0 || http_status == 504) return CLI_TIMED_OUT;
    if (http_status == 500) return CLI_FAILED;
    return http_status >= 400 ? CLI_REFUSED : CLI_FAILED;
}

/* --- tries
 * -------------------------------------------------------------------------------------------------------------------
 */

static bool answer_says_again(const cli_answer *a) {
    if (a->status == 429 || a->status == 502 || a->status == 503) return true;
    /* our own first try is still being worked on behind a connection that broke */
    return a->status == 409 && a->body && strstr(a->body, "idempotency") && strstr(a->body, "in_progress");
}

/* Sleep in short steps so that ^C is heard. False: not worth waiting, the deadline comes first. */
static bool pause_ms(int64_t ms, int64_t deadline_ns) {
    int64_t until = dr_clock_ns() + ms * 1000000;
    if (deadline_ns && until >= deadline_ns) return false;
    for (int64_t left; (left = until - dr_clock_ns()) > 0 && !atomic_load(&cli_stop);) {
        int64_t step = left < 50000000 ? left : 50000000;
        nanosleep(&(struct timespec){.tv_nsec = (long)step}, NULL);
    }
    return !atomic_load(&cli_stop);
}

/* Retry-After is taken at its word (the server adds its own jitter); else 0.25, 0.5, 1 ... s, each up to a half more.
 */
static int64_t backoff_ms(const cli_answer *a, int tries) {
    if (a->retry_after_s >= 0)
        return (a->retry_after_s < RETRY_AFTER_MAX_S ? a->retry_after_s : RETRY_AFTER_MAX_S) * 1000;
    int64_t ms = INT64_C(250) << (tries < 6 ? tries - 1 : 5);
    uint8_t r = 0;
    (void)!getrandom(&r, 1, GRND_NONBLOCK);
    return ms + ms * r / 512;
}

dr_status cli_http_do(cli_http *h, const cli_call *call, cli_answer *ret, dr_error *err) {
    dr_error own;
    const char *method = call->method ? call->method : "GET";
    bool repeatable = strcmp(method, "POST") != 0 || call->idem_key;
    int tries_max = call->tries_max ? call->tries_max : 5;
    *ret = (cli_answer){.retry_after_s = -1};
    char *url = dr_malloc(strlen(h->url) + strlen(call->path) + 1);
    if (!url) return dr_fail(err, DR_NOMEM, "out of memory");
    memcpy(url, h->url, strlen(h->url));
    memcpy(url + strlen(h->url), call->path, strlen(call->path) + 1);
    dr_status s = DR_OK;
    for (int tries = 1;; tries++) {
        own = (dr_error){0};
        /* the body at 64 KB/s, what the server may hold it, and a minute for the rest */
        int64_t limit_ms = CALL_MS + call->wait_ms + (int64_t)((call->send ? call->send->len : call->body_len) / 65);
        bool last_chance = false;
        if (call->deadline_ns) {
            int64_t left = (call->deadline_ns - dr_clock_ns()) / 1000000;
            if (left < limit_ms) {
                limit_ms = left;
                last_chance = true;
            }
        }
        if (limit_ms <= 0) {
            s = dr_fail_as(&own, DR_BUSY, "timed_out", "the time given with --timeout is over");
            break;
        }
        CURLcode rc = CURLE_OK;
        bool reached_before = h->reached;
        s = try_once(h, call, url, limit_ms, ret, &rc, &own);
        ret->tries = tries;
        bool again;
        if (!s) {
            if (ret->status < 300) {
                bool body = !call->method || strcmp(call->method, "HEAD") != 0; /* else it is of what GET sends */
                s = body ? check_digest(ret, &own) : DR_OK;
                again = s != DR_OK;
            } else {
                s = problem(h, ret, &own);
                again = answer_says_again(ret);
            }
        } else {
            if (rc == CURLE_OPERATION_TIMEDOUT && last_chance) {
                own = (dr_error){0};
                s = dr_fail_as(&own, DR_BUSY, "timed_out", "no answer from %s in the time given with --timeout",
                               h->url);
                break;
            }
            again = s == DR_UNAVAILABLE || (s == DR_BUSY && rc == CURLE_OPERATION_TIMEDOUT);
            if ((rc == CURLE_COULDNT_CONNECT || rc == CURLE_COULDNT_RESOLVE_HOST || rc == CURLE_OPERATION_TIMEDOUT) &&
                !reached_before)
                again = false;
        }
        if (!s || !again || !repeatable || tries >= tries_max) break;
        if (!pause_ms(backoff_ms(ret, tries), call->deadline_ns)) break;
    }
    dr_free(url);
    if (s && stopped(call)) {
        own = (dr_error){0};
        s = dr_fail_as(&own, DR_CANCELLED, "interrupted", "interrupted");
    }
    if (s && err && !err->code) *err = own;
    return s;
}

char *cli_escape(const char *s) {
    char *out = dr_malloc(strlen(s) * 3 + 1), *p = out;
    if (!out) return NULL;
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (isalnum(c) || strchr("-._~", c))
            *p++ = (char)c;
        else
            p += snprintf(p, 4, "%%%02X", c);
    }
    *p = 0;
    return out;
}

void cli_idem_key(char ret[40]) {
    uint8_t raw[16];
    for (size_t n = 0; n < sizeof raw;) {
        ssize_t r = getrandom(raw + n, sizeof raw - n, 0);
        if (r > 0) n += (size_t)r;
    }
    memcpy(ret, "derain-", 7);
    dr_hex(raw, sizeof raw, ret + 7);
}
