/* conv_cudnn.c - convolutions on a device: plans by shape, and a workspace. Tuning is in conv_tune.c.
 *
 * A plan is made on the first use of a shape and kept. Where one fails when it runs, the shape moves on to its next
 * candidate for good; where the device itself has failed, no candidate is tried and the error goes up. The workspace is
 * one buffer for all plans: they run one after the other on one stream. It grows, after a synchronisation, and goes
 * only where memory is short (cv_trim). Sizes are 64-bit throughout; whether cuDNN has an engine for more than 2^31
 * elements is its to say. */
#include "cuda/conv_in.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void cv_debug(const cv_engine *e, const char *fmt, ...) {
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (e->host->log_debug) e->host->log_debug(text);
}

dr_status cv_cuda_fail(const cv_engine *e, cudaError_t c, const char *doing, dr_error *err) {
    dr_status code = c == cudaErrorMemoryAllocation ? DR_NOMEM : DR_BACKEND;
    cudaGetLastError(); /* memory errors do not stick; take them back */
    e->host->fail(err, code, "cuda: convolutions, %s: %s (error %d)", doing, cudaGetErrorString(c), (int)c);
    return code;
}

/* ---- plans by shape -----------------------------------------------------------------------------------------------
 */

static uint64_t hash(const cv_key *k) {
    const int v[] = {(int)k->kind, (int)k->s.type, k->s.n, k->s.i,   k->s.h,
                     k->s.w,       k->s.o,         k->s.k, k->s.pad, cv_kw(k->s)};
    uint64_t h = 14695981039346656037u; /* FNV-1a over the numbers, not over padding */
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) h = (h ^ (uint32_t)v[i]) * 1099511628211u;
    return h ^ (h >> 29);
}

static bool same_key(const cv_key *a, const cv_key *b) {
    return a->kind == b->kind && a->s.type == b->s.type && a->s.n == b->s.n && a->s.i == b->s.i && a->s.h == b->s.h &&
           a->s.w == b->s.w && a->s.o == b->s.o && a->s.k == b->s.k && a->s.pad == b->s.pad &&
           cv_kw(a->s) == cv_kw(b->s);
}

static cv_entry *slot(cv_entry *table, int cap, const cv_key *k) {
    uint64_t i = hash(k);
    while (table[i & (uint64_t)(cap - 1)].used && !same_key(&table[i & (uint64_t)(cap - 1)].k, k)) i++;
    return &table[i & (uint64_t)(cap - 1)];
}

static dr_status make_room(cv_engine *e, dr_error *err) {
    if (2 * (e->n + 1) <= e->cap) return DR_OK;
    int cap = e->cap ? 2 * e->cap : 64;
    cv_entry *table = calloc((size_t)cap, sizeof *table);
    if (!table) return e->host->fail(err, DR_NOMEM, "out of memory for %d convolution plans", cap);
    for (int i = 0; i < e->cap; i++)
        if (e->table[i].used) *slot(table, cap, &e->table[i].k) = e->table[i];
    free(e->table);
    e->table = table;
    e->cap = cap;
    return DR_OK;
}

/* Candidate number `skip` of a shape. */
static dr_status candidate(cv_engine *e, const cv_key *k, int skip, cg_plan *ret, dr_error *err) {
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

dr_status cv_find(cv_engine *e, cv_kind kind, cv_shape s, cv_entry **ret, dr_error *err) {
    const cv_key k = {kind, s};
    dr_status status = check_shape(e, s, err);
    if (!status) status = make_room(e, err);
    if (status) return status;
    cv_entry *at = slot(e->table, e->cap, &k);
    if (!at->used) {
        cv_entry fresh = {.used = true, .k = k};
        const cv_plan_id *known = cv_file_find(&e->file, (int)kind, s);
        if (known) {
            cv_select *c = NULL;
            dr_error why = {0};
            fresh.tuned =
                !cv_select_open(&e->target, kind, s, &c, &why) && !cv_select_named(c, known, &fresh.plan, &why);
            cv_select_close(c);
            if (!fresh.tuned) cv_debug(e, "tuned plan not used: %s", why.text);
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

static bool is_capturing(const cv_engine *e) {
    enum cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
    return !cudaStreamIsCapturing(e->st, &capture) && capture != cudaStreamCaptureStatusNone;
}

static dr_status reserve(cv_engine *e, size_t bytes, dr_error *err) {
    if (bytes <= e->workspace_bytes) return DR_OK;
    if (is_capturing(e)) {
        e->host->fail(err, DR_NOMEM, "convolutions, workspace: it cannot grow while a run is recorded");
        return DR_NOMEM; /* so that no other plan is tried for it */
    }
    e->generation++;
    cudaError_t c = cudaStreamSynchronize(e->st);
    if (c) return cv_cuda_fail(e, c, "waiting for the stream", err);
    cudaFree(e->workspace); /* first: the old and the new one need not fit together */
    e->workspace = NULL;
    e->workspace_bytes = 0;
    bytes = (bytes + (((size_t)1 << 20) - 1)) >> 20 << 20;
    c = cudaMalloc(&e->workspace, bytes);
    if (c) {
        e->workspace = NULL;
        return cv_cuda_fail(e, c, "workspace", err);
    }
    e->workspace_bytes = bytes;
    return DR_OK;
}

dr_status cv_execute(cv_engine *e, const cg_plan *p, cv_kind kind, const void *a, const void *b, void *out,
                     dr_error *err) {
    void *at[CG_N_TENSORS];
    at[CG_X] = kind == CV_BACKWARD_DATA ? out : (void *)a;
    at[CG_W] = kind == CV_BACKWARD_WEIGHTS ? out : (void *)b;
    at[CG_Y] = kind == CV_FORWARD ? out : kind == CV_BACKWARD_DATA ? (void *)a : (void *)b;
    dr_status s = reserve(e, p->workspace, err);
    return s ? s : cg_execute(&e->target, p, at, e->workspace, err);
}

dr_status cv_run(cv_engine *e, cv_kind kind, cv_shape s, const void *a, const void *b, void *out, dr_error *err) {
    cv_entry *at = NULL;
    dr_status status = cv_find(e, kind, s, &at, err);
    if (!status && e->tuning && !at->tuned && !at->tried && !is_capturing(e)) {
        void *const buf[3] = {(void *)a, (void *)b, out}; /* a and b are only read */
        status = cv_tune_entry(e, at, buf, err);
    }
    if (status) return status;
    for (;;) {
        dr_error why = {0};
        status = cv_execute(e, &at->plan, kind, a, b, out, &why);
        if (!status) return DR_OK;
        cudaError_t c = cudaStreamQuery(e->st);
        if (status == DR_NOMEM || (c != cudaSuccess && c != cudaErrorNotReady)) {
            e->host->fail(err, status == DR_NOMEM ? DR_NOMEM : DR_BACKEND, "%s", why.text);
            return status == DR_NOMEM ? DR_NOMEM : DR_BACKEND;
        }
        cv_debug(e, "convolution plan with engine %d given up: %s", at->plan.id.engine, why.text);
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
    cv_entry *at = NULL;
    dr_status status = cv_find(e, kind, s, &at, err);
    if (status) return status;
    *ret =
        (cv_choice){.id = at->plan.id, .traits = at->plan.traits, .workspace = at->plan.workspace, .tuned = at->tuned};
    return DR_OK;
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
        s = cv_cuda_fail(e, c, "device", err);
        goto out;
    }
    e->file = (cv_file){.host = host,
                        .cc = prop.major * 10 + prop.minor,
                        .sms = prop.multiProcessorCount,
                        .cudnn = (int)cudnnGetVersion()};
    snprintf(e->file.device, sizeof e->file.device, "%.127s", prop.name);
    cudnnStatus_t d = cudnnCreate(&e->target.handle);
    if (!d) d = cudnnSetStream(e->target.handle, st);
    if (d) {
        char said[256] = "";
        cudnnGetLastErrorString(said, sizeof said);
        said[strcspn(said, "\n")] = 0;
        s = DR_BACKEND;
        host->fail(err, s, "cuda: cuDNN does not open: %s%s%s", cudnnGetErrorString(d), *said ? ": " : "", said);
        goto out;
    }
    s = cv_file_open(&e->file, cache_path, err);
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
    cv_file_done(&e->file);
    free(e);
}

void cv_trim(cv_engine *e) {
    if (!e->workspace) return;
    e->generation++;
    if (cudaStreamSynchronize(e->st)) cudaGetLastError(); /* whoever works on the stream next hears of it */
    if (cudaFree(e->workspace)) cudaGetLastError();
    e->workspace = NULL;
    e->workspace_bytes = 0;
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
    return cg_version();
}
