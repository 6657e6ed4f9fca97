/* conv_tune.c - which plan of a shape is the fastest, by the device's own clock.
 *
 * The candidates come in the order of conv_select.h, the first of them what is used untuned. Each runs a few times on
 * the operands of a real call, or on random numbers; the one with the smallest median stays, and its line goes into the
 * file's new lines (conv_file.h). Only deterministic plans are candidates, and speed does not buy precision: a lower
 * tier is not timed where a higher one runs. So tuning changes results by rounding at most. */
#include "cuda/conv_in.h"

#include <float.h>
#include <stdlib.h>
#include <string.h>

enum { CANDIDATES = 8, WARM = 2, RUNS = 5, AT_A_TIME = 4 };
#define SHORT_MS 0.1f

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
        return cv_cuda_fail(e, c, "memory for tuning", err);
    }
    *ret = p;
    return DR_OK;
}

static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Median milliseconds of a plan. Short ones run a few times between the events, so that what the host needs for a call
 * is not what is measured. */
static dr_status measure(cv_engine *e, const cg_plan *p, cv_kind kind, void *const buf[3], cudaEvent_t from,
                         cudaEvent_t to, float *ret, dr_error *err) {
    float ms[RUNS], once = 0;
    int n = 1;
    for (int i = 0; i < WARM + RUNS; i++) {
        dr_status s = DR_OK;
        cudaError_t c = cudaEventRecord(from, e->st);
        for (int k = 0; k < n && !c && !s; k++) s = cv_execute(e, p, kind, buf[0], buf[1], buf[2], err);
        if (s) return s;
        if (!c) c = cudaEventRecord(to, e->st);
        if (!c) c = cudaEventSynchronize(to);
        if (!c) c = cudaEventElapsedTime(i < WARM ? &once : &ms[i - WARM], from, to);
        if (c) return cv_cuda_fail(e, c, "timing a plan", err);
        if (i == WARM - 1) n = once < SHORT_MS ? AT_A_TIME : 1;
    }
    qsort(ms, RUNS, sizeof *ms, by_value);
    *ret = ms[RUNS / 2] / (float)n;
    return DR_OK;
}

/* Walks the candidates with the clock's two events; *best is the caller's to end. */
static dr_status race(cv_engine *e, const cv_key *k, void *const buf[3], cudaEvent_t from, cudaEvent_t to,
                      cg_plan *best, float *ret_first_ms, float *ret_best_ms, dr_error *err) {
    cv_select *c = NULL;
    dr_status status = cv_select_open(&e->target, k->kind, k->s, &c, err);
    *ret_first_ms = 0;
    *ret_best_ms = FLT_MAX;
    for (int n = 0; n < CANDIDATES && !status; n++) {
        dr_error why = {0};
        cg_plan p;
        float ms = 0;
        if (cv_select_next(c, &p, &why)) break;
        if (best->plan && cv_tier(p.traits, k->s.type) > cv_tier(best->traits, k->s.type)) {
            cg_plan_done(&p);
            break;
        }
        dr_status m = measure(e, &p, k->kind, buf, from, to, &ms, &why);
        if (m) {
            cv_debug(e, "candidate with engine %d not timed: %s", p.id.engine, why.text);
            cudaError_t ce = cudaStreamQuery(e->st); /* the stream is idle here unless the device failed */
            if (ce) status = cv_cuda_fail(e, ce, "tuning", err);
        } else if (n == 0) {
            *ret_first_ms = ms;
        }
        if (!m && ms < *ret_best_ms) {
            cg_plan_done(best);
            *best = p;
            *ret_best_ms = ms;
        } else {
            cg_plan_done(&p);
        }
    }
    cv_select_close(c);
    return status;
}

dr_status cv_tune_entry(cv_engine *e, cv_entry *at, void *const buf[3], dr_error *err) {
    cudaEvent_t from = NULL, to = NULL;
    cg_plan best = {0};
    float first_ms = 0, best_ms = 0;
    char what[128];
    const cv_key k = at->k;
    const int before = at->plan.id.engine;
    cv_shape_text(k.kind, k.s, what, sizeof what);
    cudaError_t ce = cudaEventCreate(&from);
    if (!ce) ce = cudaEventCreate(&to);
    dr_status s = ce ? cv_cuda_fail(e, ce, "events", err) : DR_OK;
    if (!s) s = race(e, &k, buf, from, to, &best, &first_ms, &best_ms, err);
    if (from) cudaEventDestroy(from);
    if (to) cudaEventDestroy(to);
    if (!s && best.plan && cv_tier(best.traits, k.s.type) == 0)
        s = cv_file_put(&e->file, (int)k.kind, k.s, &best.id, err);
    if (s) {
        cg_plan_done(&best);
        return s;
    }
    at->tried = true;
    if (!best.plan) {
        cv_debug(e, "not tuned, %s: no candidate could be timed", what);
        return DR_OK;
    }
    cv_debug(e, "tuned %s: engine %d in %.4f ms; untuned engine %d in %.4f ms", what, best.id.engine, (double)best_ms,
             before, (double)first_ms);
    cg_plan_done(&at->plan);
    at->plan = best;
    e->generation++;
    e->n_tuned += !at->tuned;
    e->n_tuned_now++;
    at->tuned = true;
    return DR_OK;
}

dr_status cv_tune(cv_engine *e, cv_kind kind, cv_shape s, dr_error *err) {
    cv_entry *at = NULL;
    void *buf[3] = {NULL};
    dr_status status = cv_find(e, kind, s, &at, err);
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
    if (!status) status = cv_tune_entry(e, at, buf, err);
    for (int i = 0; i < 3; i++) cudaFree(buf[i]);
    return status;
}

/* ---- while tuning is on -------------------------------------------------------------------------------------------
 */

void cv_set_tuning(cv_engine *e, bool on) {
    if (on == e->tuning) return;
    e->tuning = on;
    e->generation++; /* recorded work goes past cv_run(), and with it past tuning */
    if (on) e->n_tuned_now = 0;
    for (int i = 0; i < e->cap; i++) e->table[i].tried = false;
}

bool cv_is_tuning(const cv_engine *e) {
    return e->tuning;
}

int cv_tuned_now(const cv_engine *e) {
    return e->n_tuned_now;
}

dr_status cv_save(cv_engine *e, dr_error *err) {
    return cv_file_save(&e->file, err);
}

int cv_known(const cv_engine *e, uint32_t *ret_sum) {
    uint32_t sum = 0;
    char text[CV_CACHE_MAX_LINE];
    for (int i = 0; i < e->file.n_old; i++) { /* in any order */
        uint32_t h = 2166136261u;
        const size_t n = cv_cache_format_line(&e->file.lines[i], text, sizeof text);
        for (size_t k = 0; k < n; k++) h = (h ^ (unsigned char)text[k]) * 16777619u;
        sum += h;
    }
    *ret_sum = sum;
    return e->file.n_old;
}

/* ---- the two ways of a convolution with few inputs ----------------------------------------------------------------
 */

int cv_columns(const cv_engine *e, cv_shape s) {
    const cv_plan_id *l = cv_file_find(&e->file, CV_CACHE_COLUMNS, s);
    return l ? l->engine : -1;
}

dr_status cv_set_columns(cv_engine *e, cv_shape s, bool yes, dr_error *err) {
    const cv_plan_id l = {.engine = yes};
    e->generation++;
    return cv_file_put(&e->file, CV_CACHE_COLUMNS, s, &l, err);
}
