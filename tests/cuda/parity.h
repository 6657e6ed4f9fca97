/* parity.h - one computation on two backends, and how far their results are apart.
 *
 * A computation is a function that uploads inputs made by a hash, calls the table, and hands its outputs to keep().
 * It runs once on the CPU backend and once on the CUDA module: the emulated one (build/cusim) or, where
 * DERAIN_GPU_TEST is set, the real one. Inputs are rounded to the 16-bit type on both sides when the module stores in
 * one, so that what is compared is the arithmetic and the rounding of results. */
#ifndef PARITY_H
#define PARITY_H

#include "core/base/rng.h"
#include "core/tensor/backend.h"
#include "core/tensor/pool.h"
#include "tests/cuda/emulated.h"
#include "tests/cuda/half.h"
#include "tests/t.h"

typedef struct party {
    dr_backend *be;
    dr_pool pool;
    dr_precision round; /* inputs to BF16 or F16; else not */
    float *out;         /* all that keep() got, one after the other, */
    size_t n, cap;
    size_t end[128]; /* and where each ends */
    int n_kept;
    int n_inputs;
    dr_status status; /* the first failure */
    dr_error err;
} party;

static inline float to_bf16(float v) {
    uint32_t u;
    memcpy(&u, &v, 4);
    u = (u + 0x7fffu + ((u >> 16) & 1)) & 0xffff0000u;
    memcpy(&v, &u, 4);
    return v;
}

static inline void note(party *s, dr_status st) {
    if (!s->status) s->status = st;
}

static inline void side_open(party *s, const char *backend, dr_precision p) {
    *s = (party){0};
    s->status = dr_backend_open(backend, &(dr_backend_opts){.threads = 1, .precision = p}, &s->be, NULL, &s->err);
    if (!s->status) dr_pool_init(&s->pool, s->be, 1 << 20);
}

static inline void side_close(party *s) {
    dr_pool_done(&s->pool);
    dr_backend_close(s->be);
    free(s->out);
    *s = (party){0};
}

/* Numbers of a range, the same on both sides for the same call in order. */
static inline float *numbers(party *s, size_t n, double lo, double hi) {
    float *v = malloc(n * sizeof *v);
    dr_rng r;
    dr_rng_seed(&r, 5, (uint64_t)s->n_inputs++);
    for (size_t i = 0; v && i < n; i++) {
        v[i] = (float)dr_rng_range(&r, lo, hi);
        if (s->round == DR_PREC_BF16) v[i] = to_bf16(v[i]);
        if (s->round == DR_PREC_F16) v[i] = (float)f16_round((double)v[i]);
    }
    return v;
}

static inline dr_tensor blank(party *s, dr_shape shape) {
    dr_tensor t = {shape, NULL};
    if (!s->status) note(s, dr_pool_tensor(&s->pool, shape, &t, &s->err));
    return t;
}

static inline dr_tensor input_in(party *s, dr_shape shape, double lo, double hi) {
    dr_tensor t = blank(s, shape);
    float *v = numbers(s, dr_shape_count(shape), lo, hi);
    if (!s->status) note(s, dr_be_upload(s->be, v, t, &s->err));
    free(v);
    return t;
}
static inline dr_tensor input(party *s, dr_shape shape) {
    return input_in(s, shape, -1, 1);
}

/* A flat array on the device: weights, gradients to add to. */
static inline float *flat(party *s, size_t n, double lo, double hi) {
    void *p = NULL;
    float *v = numbers(s, n, lo, hi);
    if (!s->status) note(s, dr_pool_raw(&s->pool, n * sizeof *v, &p, &s->err));
    if (!s->status) note(s, dr_be_upload_raw(s->be, v, p, n * sizeof *v, &s->err));
    free(v);
    return p;
}

static inline float *room(party *s, size_t n) {
    if (s->n + n > s->cap) {
        s->cap = 2 * (s->n + n);
        s->out = realloc(s->out, s->cap * sizeof *s->out);
    }
    s->n += n;
    s->end[s->n_kept++ % 128] = s->n;
    return s->out + s->n - n;
}

static inline void keep(party *s, dr_tensor t) {
    if (!s->status) note(s, dr_be_download(s->be, t, room(s, dr_shape_count(t.shape)), &s->err));
}
static inline void keep_flat(party *s, const float *p, size_t n) {
    if (!s->status) note(s, dr_be_download_raw(s->be, p, room(s, n), n * sizeof *p, &s->err));
}

/* ||a - b|| / ||a||; infinite when something is not a number. */
static inline double distance(const float *a, const float *b, size_t n) {
    double d = 0, r = 0;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(a[i]) || !isfinite(b[i])) return INFINITY;
        d += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        r += (double)a[i] * (double)a[i];
    }
    return r > 0 ? sqrt(d / r) : sqrt(d);
}

/* The largest distance of any kept output; *ret_i: which. */
static inline double worst(const party *a, const party *b, int *ret_i) {
    double most = a->n_kept == b->n_kept && a->n == b->n ? 0 : INFINITY;
    *ret_i = -1;
    for (int i = 0; i < a->n_kept && !isinf(most); i++) {
        size_t from = i ? a->end[i - 1] : 0;
        double d = distance(a->out + from, b->out + from, a->end[i] - from);
        if (d > most || isinf(d)) {
            most = d;
            *ret_i = i;
        }
    }
    return most;
}

#endif
