/* conv_cudnn.c - convolutions on a device: plans by shape, a workspace, the cache of tuned plans.
 *
 * A plan is made on the first use of a shape and kept. Where one fails when it runs, the shape moves on to its next
 * candidate for good; where the device itself has failed, no candidate is tried and the error goes up. The workspace is
 * one buffer for all plans: they run one after the other on one stream. It grows, after a synchronisation, and never
 * shrinks. Sizes are 64-bit throughout; whether cuDNN has an engine for more than 2^31 elements is its to say. */
#include "cuda/conv_cudnn.h"

#include <errno.h>
#include <float.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TUNE_CANDIDATES = 8, TUNE_WARM = 3, TUNE_RUNS = 7, MAX_CACHE_LINES = 8192 };

typedef struct key {
    cv_kind kind;
    cv_shape s;
} key;

typedef struct entry {
    bool used;
    key k;
    cg_plan plan;
    bool tuned; /* from the cache or cv_tune; else candidate number n_failed */
    int n_failed;
} entry;

struct cv_engine {
    const dr_host_api *host;
    cudaStream_t st;
    cg_target target;
    entry *table; /* open addressing; cap is a power of two, at most half full */
    int cap;
    atomic_int n, n_tuned; /* read from other threads too */
    void *workspace;
    atomic_size_t workspace_bytes;
    unsigned generation; /* see cv_generation */
    char *cache_path;
    cv_cache_line *lines;
    int n_lines;
    char device[128];
    int cc, sms;
};

static void debug(const cv_engine *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void debug(const cv_engine *e, const char *fmt, ...) {
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (e->host->log_debug) e->host->log_debug(text);
}

static dr_status cuda_fail(const cv_engine *e, cudaError_t c, const char *doing, dr_error *err) {
    dr_status code = c == cudaErrorMemoryAllocation ? DR_NOMEM : DR_BACKEND;
    cudaGetLastError(); /* memory errors do not stick; take them back */
    e->host->fail(err, code, "convolutions, %s: %s (CUDA error %d)", doing, cudaGetErrorString(c), (int)c);
    return code;
}

/* ---- plans by shape -----------------------------------------------------------------------------------------------
 */

static uint64_t hash(const key *k) {
    const int v[] = {(int)k->kind, (int)k->s.type, k->s.n, k->s.i,   k->s.h,
                     k->s.w,       k->s.o,         k->s.k, k->s.pad, cv_kw(k->s)};
    uint64_t h = 14695981039346656037u; /* FNV-1a over the numbers, not over padding */
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) h = (h ^ (uint32_t)v[i]) * 1099511628211u;
    return h ^ (h >> 29);
}

static bool same_key(const key *a, const key *b) {
    return a->kind == b->kind && a->s.type == b->s.type && a->s.n == b->s.n && a->s.i == b->s.i && a->s.h == b->s.h &&
           a->s.w == b->s.w && a->s.o == b->s.o && a->s.k == b->s.k && a->s.pad == b->s.pad &&
           cv_kw(a->s) == cv_kw(b->s);
}

static entry *slot(entry *table, int cap, const key *k) {
    uint64_t i = hash(k);
    while (table[i & (uint64_t)(cap - 1)].used && !same_key(&table[i & (uint64_t)(cap - 1)].k, k)) i++;
    return &table[i & (uint64_t)(cap - 1)];
}

static dr_status make_room(cv_engine *e, dr_error *err) {
    if (2 * (e->n + 1) <= e->cap) return DR_OK;
    int cap = e->cap ? 2 * e->cap : 64;
    entry *table = calloc((size_t)cap, sizeof *table);
    if (!table) return e->host->fail(err, DR_NOMEM, "out of memory for %d convolution plans", cap);
    for (int i = 0; i < e->cap; i++)
        if (e->table[i].used) *slot(table, cap, &e->table[i].k) = e->table[i];
    free(e->table);
    e->table = table;
    e->cap = cap;
    return DR_OK;
}

/* The line of the cache for a shape on this device with this cuDNN. The file knows square windows only. */
static cv_cache_line *cached(const cv_engine *e, const key *k) {
    if (cv_kw(k->s) != k->s.k) return NULL;
    for (int i = 0; i < e->n_lines; i++) {
        cv_cache_line *l = &e->lines[i];
        if (l->kind == (int)k->kind && l->type == (int)k->s.type && l->n == k->s.n && l->i == k->s.i &&
            l->h == k->s.h && l->w == k->s.w && l->o == k->s.o && l->k == k->s.k && l->pad == k->s.pad &&
            l->cc == e->cc && l->sms == e->sms && l->cudnn == (int)cudnnGetVersion() && !strcmp(l->device, e->device))
            return l;
    }
    return NULL;
}

/* Candidate number `skip` of a shape. */
static dr_status candidate(cv_engine *e, const key *k, int skip, cg_plan *ret, dr_error *err) {
    cv_select *c = NULL;
    cg_plan p = {0};
    dr_status s = cv_select_open(&e->target, k->kind, k->s, &c, err);
    for (int i = 0; !s && i <= skip; i++) {
        cg_plan_done(&p);
        s = cv_select_next(c, &p, err);
    }
    cv_select_close(c);
    if (!s) *ret = p;
    return s;
}

static dr_status check_shape(const cv_engine *e, cv_shape s, dr_error *err) {
    bool ok = s.n > 0 && s.i > 0 && s.h > 0 && s.w > 0 && s.o > 0 && s.k > 0 && s.pad >= 0 && s.i % 8 == 0 &&
              s.o % 8 == 0 && s.k <= 64 && s.pad <= 64 && (int64_t)s.h + 2 * s.pad >= s.k &&
              (int64_t)s.w + 2 * s.pad >= cv_kw(s) && cv_kw(s) > 0 && cv_kw(s) <= 64 &&
              (s.type == DK_F32 || s.type == DK_BF16 || s.type == DK_F16);
    if (ok) return DR_OK;
    char what[128];
    cv_shape_text(CV_FORWARD, s, what, sizeof what);
    e->host->fail(err, DR_BACKEND, "convolution, %s: not a shape for this backend", what);
    return DR_BACKEND;
}

static dr_status find(cv_engine *e, cv_kind kind, cv_shape s, entry **ret, dr_error *err) {
    const key k = {kind, s};
    dr_status status = check_shape(e, s, err);
    if (!status) status = make_room(e, err);
    if (status) return status;
    entry *at = slot(e->table, e->cap, &k);
    if (!at->used) {
        entry fresh = {.used = true, .k = k};
        const cv_cache_line *line = cached(e, &k);
        if (line) {
            cv_select *c = NULL;
            dr_error why = {0};
            fresh.tuned =
                !cv_select_open(&e->target, kind, s, &c, &why) && !cv_select_named(c, &line->plan, &fresh.plan, &why);
            cv_select_close(c);
            if (!fresh.tuned) debug(e, "tuned plan not used: %s", why.text);
        }
        if (!fresh.tuned) status = candidate(e, &k, 0, &fresh.plan, err);
        if (status) return status;
        *at = fresh;
        e->n++;
        e->n_tuned += fresh.tuned;
    }
    *ret = at;
    return DR_OK;
}

static dr_status reserve(cv_engine *e, size_t bytes, dr_error *err) {
    if (bytes <= e->workspace_bytes) return DR_OK;
    enum cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
    if (!cudaStreamIsCapturing(e->st, &capture) && capture != cudaStreamCaptureStatusNone) {
        e->host->fail(err, DR_NOMEM, "convolutions, workspace: it cannot grow while a run is recorded");
        return DR_NOMEM; /* so that no other plan is tried for it */
    }
    e->generation++;
    cudaError_t c = cudaStreamSynchronize(e->st);
    if (c) return cuda_fail(e, c, "waiting for the stream", err);
    cudaFree(e->workspace); /* first: the old and the new one need not fit together */
    e->workspace = NULL;
    e->workspace_bytes = 0;
    bytes = (bytes + (((size_t)1 << 20) - 1)) >> 20 << 20;
    c = cudaMalloc(&e->workspace, bytes);
    if (c) {
        e->workspace = NULL;
        return cuda_fail(e, c, "workspace", err);
    }
    e->workspace_bytes = bytes;
    return DR_OK;
}

static dr_status execute(cv_engine *e, const cg_plan *p, cv_kind kind, const void *a, const void *b, void *out,
                         dr_error *err) {
    void *at[CG_N_TENSORS];
    at[CG_X] = kind == CV_BACKWARD_DATA ? out : (void *)a;
    at[CG_W] = kind == CV_BACKWARD_WEIGHTS ? out : (void *)b;
    at[CG_Y] = kind == CV_FORWARD ? out : kind == CV_BACKWARD_DATA ? (void *)a : (void *)b;
    dr_status s = reserve(e, p->workspace, err);
    return s ? s : cg_execute(&e->target, p, at, e->workspace, err);
}

dr_status cv_run(cv_engine *e, cv_kind kind, cv_shape s, const void *a, const void *b, void *out, dr_error *err) {
    entry *at = NULL;
    dr_status status = find(e, kind, s, &at, err);
    if (status) return status;
    for (;;) {
        dr_error why = {0};
        status = execute(e, &at->plan, kind, a, b, out, &why);
        if (!status) return DR_OK;
        cudaError_t c = cudaStreamQuery(e->st);
        if (status == DR_NOMEM || (c != cudaSuccess && c != cudaErrorNotReady)) {
            e->host->fail(err, status == DR_NOMEM ? DR_NOMEM : DR_BACKEND, "%s", why.text);
            return status == DR_NOMEM ? DR_NOMEM : DR_BACKEND;
        }
        debug(e, "convolution plan with engine %d given up: %s", at->plan.id.engine, why.text);
        cg_plan next;
        int skip = at->tuned ? 0 : at->n_failed + 1;
        status = candidate(e, &at->k, skip, &next, err);
        if (status) return status;
        cg_plan_done(&at->plan);
        at->plan = next;
        e->generation++;
        e->n_tuned -= at->tuned;
        at->tuned = false;
        at->n_failed = skip;
    }
}

dr_status cv_choice_of(cv_engine *e, cv_kind kind, cv_shape s, cv_choice *ret, dr_error *err) {
    entry *at = NULL;
    dr_status status = find(e, kind, s, &at, err);
    if (status) return status;
    *ret =
        (cv_choice){.id = at->plan.id, .traits = at->plan.traits, .workspace = at->plan.workspace, .tuned = at->tuned};
    return DR_OK;
}

/* ---- tuning -------------------------------------------------------------------------------------------------------
 */

/* Device memory with random numbers: zeros would draw less power than pictures and run faster. */
static dr_status random_buffer(cv_engine *e, size_t count, dk_type type, void **ret, dr_error *err) {
    const size_t size = dk_elt(type), bytes = count * size, chunk = bytes < 1 << 20 ? bytes : 1 << 20;
    unsigned char *host = malloc(chunk);
    if (!host) return e->host->fail(err, DR_NOMEM, "out of memory for tuning");
    uint32_t r = 12345;
    for (size_t i = 0; i < chunk / size; i++) {
        r = r * 1664525u + 1013904223u;
        float v = (float)(r >> 8) / 16777216.0f - 0.5f;
        uint32_t bits;
        memcpy(&bits, &v, 4);
        uint32_t a = bits & 0x7fffffffu;
        uint16_t half = (uint16_t)(bits >> 16); /* bf16; digits cut off are no matter here */
        if (type == DK_F16) half = (uint16_t)((half & 0x8000u) | (a < 0x38800000u ? 0 : (a - 0x38000000u) >> 13));
        if (type == DK_F32)
            memcpy(host + 4 * i, &v, 4);
        else
            memcpy(host + 2 * i, &half, 2);
    }
    char *p = NULL;
    cudaError_t c = cudaMalloc((void **)&p, bytes);
    if (!c) c = cudaMemcpyAsync(p, host, chunk, cudaMemcpyHostToDevice, e->st);
    for (size_t done = chunk; !c && done < bytes;) {
        size_t n = done < bytes - done ? done : bytes - done;
        c = cudaMemcpyAsync(p + done, p, n, cudaMemcpyDeviceToDevice, e->st);
        done += n;
    }
    if (!c) c = cudaStreamSynchronize(e->st);
    free(host);
    if (c) {
        cudaFree(p);
        return cuda_fail(e, c, "memory for tuning", err);
    }
    *ret = p;
    return DR_OK;
}

static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Median milliseconds of a plan. */
static dr_status measure(cv_engine *e, const cg_plan *p, cv_kind kind, void *const buf[3], cudaEvent_t from,
                         cudaEvent_t to, float *ret, dr_error *err) {
    float ms[TUNE_RUNS];
    for (int i = 0; i < TUNE_WARM + TUNE_RUNS; i++) {
        cudaError_t c = cudaEventRecord(from, e->st);
        dr_status s = c ? DR_OK : execute(e, p, kind, buf[0], buf[1], buf[2], err);
        if (s) return s;
        if (!c) c = cudaEventRecord(to, e->st);
        if (!c) c = cudaEventSynchronize(to);
        if (!c && i >= TUNE_WARM) c = cudaEventElapsedTime(&ms[i - TUNE_WARM], from, to);
        if (c) return cuda_fail(e, c, "timing a plan", err);
    }
    qsort(ms, TUNE_RUNS, sizeof *ms, by_value);
    *ret = ms[TUNE_RUNS / 2];
    return DR_OK;
}

static dr_status remember(cv_engine *e, const key *k, const cv_plan_id *id, dr_error *err) {
    if (cv_kw(k->s) != k->s.k) return DR_OK;
    cv_cache_line l = {.cudnn = (int)cudnnGetVersion(),
                       .cc = e->cc,
                       .sms = e->sms,
                       .kind = (int)k->kind,
                       .type = (int)k->s.type,
                       .n = k->s.n,
                       .i = k->s.i,
                       .h = k->s.h,
                       .w = k->s.w,
                       .o = k->s.o,
                       .k = k->s.k,
                       .pad = k->s.pad,
                       .plan = *id};
    memcpy(l.device, e->device, sizeof l.device);
    cv_cache_line *old = cached(e, k);
    if (old) {
        *old = l;
        return DR_OK;
    }
    if (e->n_lines == MAX_CACHE_LINES) {
        debug(e, "more than %d tuned plans: one is not kept", MAX_CACHE_LINES);
        return DR_OK;
    }
    cv_cache_line *more = realloc(e->lines, ((size_t)e->n_lines + 1) * sizeof *more);
    if (!more) return e->host->fail(err, DR_NOMEM, "out of memory for a tuned plan");
    e->lines = more;
    e->lines[e->n_lines++] = l;
    return DR_OK;
}

dr_status cv_tune(cv_engine *e, cv_kind kind, cv_shape s, dr_error *err) {
    const key k = {kind, s};
    entry *at = NULL;
    cv_select *c = NULL;
    void *buf[3] = {NULL};
    cudaEvent_t from = NULL, to = NULL;
    cg_plan best = {0};
    float best_ms = FLT_MAX;
    dr_status status = find(e, kind, s, &at, err);
    if (status) return status;
    const size_t less = (size_t)(s.k - 1), x = (size_t)s.n * (size_t)s.h * (size_t)s.w * (size_t)s.i,
                 w = (size_t)s.o * (size_t)s.k * (size_t)cv_kw(s) * (size_t)s.i,
                 y = (size_t)s.n * ((size_t)s.h + 2 * (size_t)s.pad - less) *
                     ((size_t)s.w + 2 * (size_t)s.pad - (size_t)(cv_kw(s) - 1)) * (size_t)s.o;
    const size_t count[3] = {kind == CV_BACKWARD_DATA ? y : x, kind == CV_BACKWARD_WEIGHTS ? y : w,
                             kind == CV_FORWARD         ? y
                             : kind == CV_BACKWARD_DATA ? x
                                                        : w};
    for (int i = 0; i < 3 && !status; i++) status = random_buffer(e, count[i], s.type, &buf[i], err);
    cudaError_t ce = status ? cudaSuccess : cudaEventCreate(&from);
    if (!status && !ce) ce = cudaEventCreate(&to);
    if (ce) status = cuda_fail(e, ce, "events", err);
    if (!status) status = cv_select_open(&e->target, kind, s, &c, err);
    if (status) goto out;
    for (int n = 0; n < TUNE_CANDIDATES; n++) {
        dr_error why = {0};
        cg_plan p;
        float ms = 0;
        if (cv_select_next(c, &p, &why)) break;
        int tier = cv_tier(p.traits, s.type);
        bool worse = best.plan && tier > cv_tier(best.traits, s.type); /* speed does not buy precision */
        dr_status m = worse ? DR_OK : measure(e, &p, kind, buf, from, to, &ms, &why);
        if (m) {
            debug(e, "candidate with engine %d not timed: %s", p.id.engine, why.text);
            ce = cudaStreamQuery(e->st);
            if (ce) status = cuda_fail(e, ce, "tuning", err); /* the stream is idle here unless the device failed */
        }
        if (!m && !worse && ms < best_ms) {
            cg_plan_done(&best);
            best = p;
            best_ms = ms;
        } else {
            cg_plan_done(&p);
        }
        if (worse || status) break;
    }
    if (!status && !best.plan) {
        e->host->fail(err, DR_BACKEND, "tuning: no candidate could be timed");
        status = DR_BACKEND;
    }
    if (!status && cv_tier(best.traits, s.type) == 0) status = remember(e, &k, &best.id, err);
    if (!status) {
        cg_plan_done(&at->plan);
        at->plan = best;
        e->generation++;
        e->n_tuned += !at->tuned;
        at->tuned = true;
        best = (cg_plan){0};
    }
out:
    cg_plan_done(&best);
    cv_select_close(c);
    if (from) cudaEventDestroy(from);
    if (to) cudaEventDestroy(to);
    for (int i = 0; i < 3; i++) cudaFree(buf[i]);
    return status;
}

/* ---- the file of tuned plans ---------------------------------------------------------------------------------------
 */

static dr_status load(cv_engine *e, dr_error *err) {
    FILE *f = fopen(e->cache_path, "rbe");
    if (!f) {
        if (errno != ENOENT) debug(e, "tuned plans, %s: %s", e->cache_path, strerror(errno));
        return DR_OK; /* tuning is a speed-up: without it everything works */
    }
    char *text = malloc(CV_CACHE_MAX_BYTES + 1);
    size_t len = text ? fread(text, 1, CV_CACHE_MAX_BYTES + 1, f) : 0;
    fclose(f);
    if (!text) return e->host->fail(err, DR_NOMEM, "out of memory for the tuned plans");
    if (len > CV_CACHE_MAX_BYTES) {
        debug(e, "tuned plans, %s: over %d bytes, not read", e->cache_path, CV_CACHE_MAX_BYTES);
        len = 0;
    }
    int n_bad = 0, cap = 0;
    dr_status s = DR_OK;
    for (size_t at = 0; at < len && !s;) {
        const char *newline = memchr(text + at, '\n', len - at);
        size_t n = newline ? (size_t)(newline - text) - at : len - at;
        cv_cache_line l;
        if (!newline || !cv_cache_parse_line(text + at, n, &l) || e->n_lines == MAX_CACHE_LINES) {
            n_bad++;
        } else {
            if (e->n_lines == cap) {
                cap = cap ? 2 * cap : 64;
                cv_cache_line *more = realloc(e->lines, (size_t)cap * sizeof *more);
                if (!more)
                    s = e->host->fail(err, DR_NOMEM, "out of memory for the tuned plans");
                else
                    e->lines = more;
            }
            if (!s) e->lines[e->n_lines++] = l;
        }
        at += n + 1;
    }
    free(text);
    if (n_bad) debug(e, "tuned plans, %s: %d lines ignored", e->cache_path, n_bad);
    return s;
}

dr_status cv_save(cv_engine *e, dr_error *err) {
    if (!e->cache_path || !e->n_lines) return DR_OK;
    char path[PATH_MAX];
    int n = snprintf(path, sizeof path, "%s.XXXXXX", e->cache_path);
    if (n < 0 || (size_t)n >= sizeof path) return e->host->fail(err, DR_IO, "path of the tuned plans is too long");
    int fd = mkstemp(path);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "wb");
    bool ok = f != NULL;
    for (int i = 0; ok && i < e->n_lines; i++) {
        char line[CV_CACHE_MAX_LINE];
        size_t len = cv_cache_format_line(&e->lines[i], line, sizeof line);
        ok = fwrite(line, 1, len, f) == len; /* len 0: a name that has no form in here, left out */
    }
    ok = ok && !fflush(f) && !fsync(fd);
    int why = errno;
    if (f ? fclose(f) != 0 : fd >= 0 && close(fd) != 0) {
        if (ok) why = errno;
        ok = false;
    }
    if (ok && rename(path, e->cache_path)) {
        why = errno;
        ok = false;
    }
    if (ok) return DR_OK;
    if (fd >= 0) unlink(path);
    e->host->fail(err, DR_IO, "tuned plans, %s: %s", e->cache_path, strerror(why));
    return DR_IO;
}

/* ---- open and close ------------------------------------------------------------------------------------------------
 */

dr_status cv_open(const dr_host_api *host, cudaStream_t st, const char *cache_path, cv_engine **ret, dr_error *err) {
    cv_engine *e = calloc(1, sizeof *e);
    if (!e) return host->fail(err, DR_NOMEM, "out of memory for the convolutions");
    e->host = host;
    e->st = st;
    e->target.host = host;
    dr_status s = DR_OK;
    int device = 0;
    struct cudaDeviceProp prop;
    cudaError_t c = cudaGetDevice(&device);
    if (!c) c = cudaGetDeviceProperties(&prop, device);
    if (c) {
        s = cuda_fail(e, c, "device", err);
        goto out;
    }
    snprintf(e->device, sizeof e->device, "%.127s", prop.name);
    e->cc = prop.major * 10 + prop.minor;
    e->sms = prop.multiProcessorCount;
    cudnnStatus_t d = cudnnCreate(&e->target.handle);
    if (!d) d = cudnnSetStream(e->target.handle, st);
    if (d) {
        char said[256] = "";
        cudnnGetLastErrorString(said, sizeof said);
        said[strcspn(said, "\n")] = 0;
        s = DR_BACKEND;
        host->fail(err, s, "cuDNN does not open: %s%s%s", cudnnGetErrorString(d), *said ? ": " : "", said);
        goto out;
    }
    if (cache_path) {
        e->cache_path = strdup(cache_path);
        s = e->cache_path ? load(e, err) : host->fail(err, DR_NOMEM, "out of memory for the convolutions");
    }
out:
    if (s) {
        cv_close(e);
        return s;
    }
    *ret = e;
    return DR_OK;
}

void cv_close(cv_engine *e) {
    if (!e) return;
    for (int i = 0; i < e->cap; i++)
        if (e->table[i].used) cg_plan_done(&e->table[i].plan);
    free(e->table);
    if (e->workspace) {
        cudaStreamSynchronize(e->st);
        cudaFree(e->workspace);
    }
    if (e->target.handle) cudnnDestroy(e->target.handle);
    free(e->cache_path);
    free(e->lines);
    free(e);
}

unsigned cv_generation(const cv_engine *e) {
    return e->generation;
}

size_t cv_workspace_bytes(const cv_engine *e) {
    return e->workspace_bytes;
}

int cv_plan_count(const cv_engine *e) {
    return e->n;
}

int cv_tuned_count(const cv_engine *e) {
    return e->n_tuned;
}

const char *cv_version(void) {
    static char text[32];
    if (!text[0]) {
        int v = (int)cudnnGetVersion();
        snprintf(text, sizeof text, "cuDNN %d.%d.%d", v / 10000, v / 100 % 100, v % 100);
    }
    return text;
}
