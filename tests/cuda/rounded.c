/* rounded.c - two tables over a backend's own: one that writes down what the module stores, and one that makes the CPU
 * backend round at the same places and compares. Every entry stands here once for both.
 *
 * Where the module rounds (cuda/kern.h, cuda/ops_*.c): tensors with channels in multiples of 8 and more than one pixel
 * are bf16; every other tensor, statistics, biases, weights and gradients are f32. Convolutions take all operands in
 * bf16 and round their sums once, before a bias is added; gradients of weights are rounded before they are added up;
 * the last layer of a generator adds the sums of its window's rows, each rounded. */
#include "tests/cuda/rounded.h"

#include <assert.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the log ----------------------------------------------------------------------------------------------------- */

typedef struct item {
    struct item *next;
    const char *entry; /* static text */
    size_t n;
    float v[];
} item;

struct rounded_log {
    item *first, **last;
};

rounded_log *rounded_log_create(void) {
    rounded_log *log = calloc(1, sizeof *log);
    if (log) log->last = &log->first;
    return log;
}

void rounded_log_destroy(rounded_log *log) {
    while (log && log->first) {
        item *i = log->first;
        log->first = i->next;
        free(i);
    }
    free(log);
}

static item *append(rounded_log *log, const char *entry, size_t n) {
    item *i = malloc(sizeof *i + n * sizeof *i->v);
    if (!i) abort(); /* a test's memory */
    *i = (item){.entry = entry, .n = n};
    *log->last = i;
    log->last = &i->next;
    return i;
}

/* The next item, which must be this entry's; the caller frees. */
static item *take(rounded_log *log, const char *entry, size_t n) {
    item *i = log->first;
    if (!i || strcmp(i->entry, entry) || i->n != n) {
        fprintf(stderr, "rounded: %s of %zu values here, %s of %zu on the module\n", entry, n, i ? i->entry : "nothing",
                i ? i->n : 0);
        abort();
    }
    log->first = i->next;
    if (!log->first) log->last = &log->first;
    return i;
}

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

static float to_bf16(float v) {
    uint32_t u;
    if (isnan(v)) return v;
    memcpy(&u, &v, 4);
    u = (u + 0x7fffu + (u >> 16 & 1)) & 0xffff0000u;
    memcpy(&v, &u, 4);
    return v;
}

static bool is_wide(dr_shape s) {
    return s.c % 8 == 0 && (s.h > 1 || s.w > 1);
}

static double rms(const float *v, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)v[i] * (double)v[i];
    return n ? sqrt(sum / (double)n) : 0;
}

/* ---- watching the module ----------------------------------------------------------------------------------------- */

static const dr_backend_ops *module_ops;
static dr_backend_ops watch_ops;
static rounded_log *watch_log;

static dr_status keep(dr_backend *be, const char *entry, dr_tensor t, dr_error *err) {
    return module_ops->download(be, t, append(watch_log, entry, dr_shape_count(t.shape))->v, err);
}

static dr_status keep_flat(dr_backend *be, const char *entry, const float *p, size_t n, dr_error *err) {
    return module_ops->download_raw(be, p, append(watch_log, entry, n)->v, n * sizeof *p, err);
}

/* What the module makes of f32 values before it multiplies them. */
static void round_item(const rounded_log *log) {
    item *i = (item *)(void *)((char *)log->last - offsetof(item, next));
    for (size_t k = 0; k < i->n; k++) i->v[k] = to_bf16(i->v[k]);
}

static dr_status keep_operand(dr_backend *be, dr_tensor t, dr_error *err) {
    if (is_wide(t.shape)) return DR_OK;
    dr_status s = keep(be, "operand", t, err);
    round_item(watch_log);
    return s;
}

static dr_status keep_weights(dr_backend *be, const float *w, size_t n, dr_error *err) {
    dr_status s = keep_flat(be, "weights", w, n, err);
    round_item(watch_log);
    return s;
}

/* ---- the reference ----------------------------------------------------------------------------------------------- */

static dr_backend_ops round_ops;
static rounded_log *round_log;
static double tolerance;
static rounded_count count;

rounded_count rounded_counted(void) {
    return count;
}

/* Own value v, the module's h, both still to be looked at; r(x) is the rounding of the place. h is accepted if it is
 * r of a number within t of v. */
static float settled(const char *entry, bool narrow, float v, const float *h, double scale) {
    const float own = narrow ? to_bf16(v) : v;
    count.stored++;
    if (!h || *h == own) return own;
    const double t = tolerance * (fabs((double)v) + scale), d = fabs((double)*h - (double)v);
    const float lo = (float)((double)v - t), hi = (float)((double)v + t);
    const bool taken =
        narrow ? *h >= to_bf16(lo) && *h <= to_bf16(hi) && *h == to_bf16(*h) : d <= t; /* false for NaN */
    if (!taken) {
        if (!count.refused++) snprintf(count.first, sizeof count.first, "%s, call %zu", entry, count.calls);
        return own;
    }
    count.ties += narrow;
    if (!narrow) count.farthest = fmax(count.farthest, d / (fabs((double)v) + scale));
    return *h;
}

/* n values as the module stores them. */
static void settle(const char *entry, bool narrow, size_t n, float *v) {
    const double scale = rms(v, n);
    item *h = round_log ? take(round_log, entry, n) : NULL;
    count.calls++;
    for (size_t i = 0; i < n; i++) v[i] = settled(entry, narrow, v[i], h ? &h->v[i] : NULL, scale);
    free(h);
}

static float *values(dr_backend *be, dr_tensor t) {
    float *v = malloc(dr_shape_count(t.shape) * sizeof *v);
    if (!v || dr_cpu_ops.download(be, t, v, NULL)) abort();
    return v;
}

static dr_status settle_tensor(dr_backend *be, const char *entry, bool narrow, dr_tensor t, dr_error *err) {
    float *v = values(be, t);
    settle(entry, narrow, dr_shape_count(t.shape), v);
    dr_status s = dr_cpu_ops.upload(be, v, t, err);
    free(v);
    return s;
}

static dr_status store(dr_backend *be, const char *entry, dr_tensor t, dr_error *err) {
    return settle_tensor(be, entry, is_wide(t.shape), t, err);
}

/* ---- entries with one result ------------------------------------------------------------------------------------- */

#define T dr_tensor
/* name, result, its arguments in a call, its arguments */
#define SIMPLE(X)                                                                                                      \
    X(axpy, y, (be, a, x, y, err), float a, T x, T y)                                                                  \
    X(add, y, (be, a, b, y, err), T a, T b, T y)                                                                       \
    X(scale, y, (be, a, x, y, err), float a, T x, T y)                                                                 \
    X(act, y, (be, act, x, y, err), dr_act act, T x, T y)                                                              \
    X(act_bwd, dx, (be, act, y, dy, dx, err), dr_act act, T y, T dy, T dx)                                             \
    X(add_bcast, y, (be, a, s, b, y, err), T a, float s, T b, T y)                                                     \
    X(add_bcast_bwd, db, (be, s, dy, db, err), float s, T dy, T db)                                                    \
    X(clamp, y, (be, lo, hi, x, y, err), float lo, float hi, T x, T y)                                                 \
    X(clamp_bwd, dx, (be, lo, hi, x, dy, dx, err), float lo, float hi, T x, T dy, T dx)                                \
    X(norm_act_bwd, dx, (be, act, x, stats, dy, dx, err), dr_act act, T x, const float *stats, T dy, T dx)             \
    X(pad_reflect, y, (be, p, x, y, err), int p, T x, T y)                                                             \
    X(pad_reflect_bwd, dx, (be, p, dy, dx, err), int p, T dy, T dx)                                                    \
    X(blur_down, y, (be, x, y, err), T x, T y)                                                                         \
    X(blur_down_bwd, dx, (be, dy, dx, err), T dy, T dx)                                                                \
    X(blur_up, y, (be, x, y, err), T x, T y)                                                                           \
    X(blur_up_bwd, dx, (be, dy, dx, err), T dy, T dx)                                                                  \
    X(gather, rows, (be, x, idx, s, rows, err), T x, const int32_t *idx, int s, T rows)                                \
    X(gather_bwd, dx, (be, drows, idx, s, dx, err), T drows, const int32_t *idx, int s, T dx)                          \
    X(linear, y, (be, x, w, b, y, err), T x, const float *w, const float *b, T y)                                      \
    X(linear_dx, dx, (be, dy, w, dx, err), T dy, const float *w, T dx)                                                 \
    X(l2norm_bwd, dv, (be, y, norms, dy, dv, err), T y, const float *norms, T dy, T dv)                                \
    X(nce_bwd, dq, (be, groups, tau, q, k, g, dq, err), int groups, float tau, T q, T k, float g, T dq)                \
    X(gan_bwd, ds, (be, mode, s, g, ds, err), dr_gan_loss mode, T s, float g, T ds)                                    \
    X(l1_bwd, da, (be, a, b, g, da, err), T a, T b, float g, T da)                                                     \
    X(freq_bwd, da, (be, a, b, g, da, err), T a, T b, float g, T da)

#define ONE_RESULT(entry, result, args, ...)                                                                           \
    static dr_status watch_##entry(dr_backend *be, __VA_ARGS__, dr_error *err) {                                       \
        dr_status st = module_ops->entry args;                                                                         \
        return st ? st : keep(be, #entry, result, err);                                                                \
    }                                                                                                                  \
    static dr_status round_##entry(dr_backend *be, __VA_ARGS__, dr_error *err) {                                       \
        dr_status st = dr_cpu_ops.entry args;                                                                          \
        return st ? st : store(be, #entry, result, err);                                                               \
    }
SIMPLE(ONE_RESULT)
#undef ONE_RESULT

/* ---- entries with more ------------------------------------------------------------------------------------------- */

/* From the host, and constants: nothing that the order of a sum could change. */
static dr_status round_in_place(dr_backend *be, dr_tensor t, dr_error *err) {
    if (!is_wide(t.shape)) return DR_OK;
    float *v = values(be, t);
    for (size_t i = 0; i < dr_shape_count(t.shape); i++) v[i] = to_bf16(v[i]);
    dr_status s = dr_cpu_ops.upload(be, v, t, err);
    free(v);
    return s;
}

static dr_status round_upload(dr_backend *be, const float *nchw, T dst, dr_error *err) {
    dr_status s = dr_cpu_ops.upload(be, nchw, dst, err);
    return s ? s : round_in_place(be, dst, err);
}

static dr_status round_fill(dr_backend *be, float v, T y, dr_error *err) {
    dr_status s = dr_cpu_ops.fill(be, v, y, err);
    return s ? s : round_in_place(be, y, err);
}

static size_t n_stats(dr_shape s) {
    return 2 * (size_t)s.n * (size_t)s.c;
}

static dr_status watch_norm_act(dr_backend *be, float eps, dr_act act, T x, float *stats, T y, dr_error *err) {
    dr_status s = module_ops->norm_act(be, eps, act, x, stats, y, err);
    if (!s) s = keep_flat(be, "norm_act stats", stats, n_stats(x.shape), err);
    return s ? s : keep(be, "norm_act", y, err);
}

static dr_status round_norm_act(dr_backend *be, float eps, dr_act act, T x, float *stats, T y, dr_error *err) {
    dr_status s = dr_cpu_ops.norm_act(be, eps, act, x, stats, y, err);
    if (s) return s;
    settle("norm_act stats", false, n_stats(x.shape), stats);
    return store(be, "norm_act", y, err);
}

static dr_status watch_l2norm(dr_backend *be, T v, float *norms, T y, dr_error *err) {
    dr_status s = module_ops->l2norm(be, v, norms, y, err);
    if (!s) s = keep_flat(be, "l2norm norms", norms, (size_t)v.shape.n, err);
    return s ? s : keep(be, "l2norm", y, err);
}

static dr_status round_l2norm(dr_backend *be, T v, float *norms, T y, dr_error *err) {
    dr_status s = dr_cpu_ops.l2norm(be, v, norms, y, err);
    if (s) return s;
    settle("l2norm norms", false, (size_t)v.shape.n, norms);
    return store(be, "l2norm", y, err);
}

/* ---- convolutions ------------------------------------------------------------------------------------------------ */

static size_t n_weights(dr_conv2d_desc d, T x, T y) {
    return (size_t)y.shape.c * (size_t)x.shape.c * (size_t)d.k * (size_t)d.k;
}

static dr_status watch_conv2d(dr_backend *be, dr_conv2d_desc d, T x, const float *w, const float *b, T y, dr_slot *slot,
                              dr_error *err) {
    dr_status s = keep_operand(be, x, err);
    if (!s) s = keep_weights(be, w, n_weights(d, x, y), err);
    if (!s) s = module_ops->conv2d(be, d, x, w, b, y, slot, err);
    return s ? s : keep(be, "conv2d", y, err);
}

static dr_status watch_conv2d_dx(dr_backend *be, dr_conv2d_desc d, T dy, const float *w, T dx, dr_slot *slot,
                                 dr_error *err) {
    dr_status s = keep_operand(be, dy, err);
    if (!s) s = keep_weights(be, w, n_weights(d, dx, dy), err);
    if (!s) s = module_ops->conv2d_dx(be, d, dy, w, dx, slot, err);
    return s ? s : keep(be, "conv2d_dx", dx, err);
}

static dr_status watch_conv2d_dw(dr_backend *be, dr_conv2d_desc d, T x, T dy, float *dw, float *db, dr_slot *slot,
                                 dr_error *err) {
    dr_status s = keep_operand(be, x, err);
    if (!s) s = keep_operand(be, dy, err);
    return s ? s : module_ops->conv2d_dw(be, d, x, dy, dw, db, slot, err);
}

/* A tensor of the same shape, to be freed with done(). */
static T blank(dr_backend *be, dr_shape s) {
    T t = {s, NULL};
    if (dr_cpu_ops.alloc(be, dr_cpu_ops.tensor_bytes(be, s), &t.data, NULL)) abort();
    return t;
}

/* The operand of a convolution: itself where it is bf16 already, else a rounded copy. */
static T operand(dr_backend *be, T x) {
    if (is_wide(x.shape)) return x;
    T t = blank(be, x.shape);
    float *v = values(be, x);
    settle("operand", true, dr_shape_count(x.shape), v);
    if (dr_cpu_ops.upload(be, v, t, NULL)) abort();
    free(v);
    return t;
}

static void done(dr_backend *be, T t, T of) {
    if (t.data != of.data) dr_cpu_ops.free(be, t.data);
}

static float *rounded_weights(const float *w, size_t n) {
    float *v = malloc(n * sizeof *v);
    if (!v) abort();
    memcpy(v, w, n * sizeof *v);
    settle("weights", true, n, v);
    return v;
}

enum { PARTS_MAX = 64 };

/* b + the sum of k parts, each rounded; where f32 cannot decide how, as it comes nearest to the module's value. */
static float summed(int k, const float *const *part, const double *scale, size_t i, float b, const float *h) {
    float p[PARTS_MAX], other[PARTS_MAX], sum = b, best = INFINITY, value = 0;
    int open[PARTS_MAX], n = 0;
    for (int r = 0; r < k; r++) {
        const double v = (double)part[r][i], t = tolerance * (fabs(v) + scale[r]);
        const float lo = to_bf16((float)(v - t)), hi = to_bf16((float)(v + t));
        p[r] = to_bf16(part[r][i]);
        other[r] = p[r] == lo ? hi : lo;
        if (h && lo != hi && n < 8) open[n++] = r;
        sum += p[r];
    }
    if (!n) return sum;
    for (int choice = 0; choice < 1 << n; choice++) {
        float s = b, q[PARTS_MAX];
        memcpy(q, p, (size_t)k * sizeof *q);
        for (int j = 0; j < n; j++)
            if (choice >> j & 1) q[open[j]] = other[open[j]];
        for (int r = 0; r < k; r++) s += q[r];
        if (fabsf(s - *h) < best) {
            best = fabsf(s - *h);
            value = s;
        }
    }
    return value;
}

/* The module takes large windows with few outputs row by row (cuda/ops_conv.c). */
static int rows_of(dr_conv2d_desc d, T x, T y) {
    return d.k >= 5 && d.k <= PARTS_MAX && !d.pad && (y.shape.c == 1 || y.shape.c == 3) && x.shape.c >= 16 ? d.k : 1;
}

static dr_status round_conv2d(dr_backend *be, dr_conv2d_desc d, T x, const float *w, const float *b, T y, dr_slot *slot,
                              dr_error *err) {
    (void)slot;
    const size_t nw = n_weights(d, x, y), n = dr_shape_count(y.shape), hw = (size_t)y.shape.h * (size_t)y.shape.w;
    const int k = rows_of(d, x, y);
    T in = operand(be, x);
    float *rw = rounded_weights(w, nw), *row = malloc(nw * sizeof *row), *part[PARTS_MAX];
    double scale[PARTS_MAX];
    if (!row) abort();
    dr_status s = DR_OK;
    for (int r = 0; r < k; r++) {
        for (size_t j = 0; j < nw; j++) row[j] = k == 1 || (int)(j / (size_t)d.k % (size_t)d.k) == r ? rw[j] : 0;
        if (!s) s = dr_cpu_ops.conv2d(be, d, in, row, NULL, y, NULL, err);
        part[r] = values(be, y);
        scale[r] = rms(part[r], n);
    }
    float *v = malloc(n * sizeof *v);
    if (!v) abort();
    if (is_wide(y.shape) && !b) {
        memcpy(v, part[0], n * sizeof *v);
    } else {
        const item *h = round_log ? round_log->first : NULL; /* settle() takes it */
        for (size_t i = 0; i < n; i++)
            v[i] = summed(k, (const float *const *)part, scale, i, b ? b[i / hw % (size_t)y.shape.c] : 0,
                          h && h->n == n ? &h->v[i] : NULL);
    }
    settle("conv2d", is_wide(y.shape), n, v);
    if (!s) s = dr_cpu_ops.upload(be, v, y, err);
    for (int r = 0; r < k; r++) free(part[r]);
    free(v);
    free(row);
    free(rw);
    done(be, in, x);
    return s;
}

static dr_status round_conv2d_dx(dr_backend *be, dr_conv2d_desc d, T dy, const float *w, T dx, dr_slot *slot,
                                 dr_error *err) {
    (void)slot;
    T out = operand(be, dy);
    float *rw = rounded_weights(w, n_weights(d, dx, dy));
    dr_status s = dr_cpu_ops.conv2d_dx(be, d, out, rw, dx, NULL, err);
    if (!s) s = settle_tensor(be, "conv2d_dx", true, dx, err); /* bf16 also where it becomes planar afterwards */
    free(rw);
    done(be, out, dy);
    return s;
}

static dr_status round_conv2d_dw(dr_backend *be, dr_conv2d_desc d, T x, T dy, float *dw, float *db, dr_slot *slot,
                                 dr_error *err) {
    (void)slot;
    const size_t n = n_weights(d, x, dy);
    T in = operand(be, x), out = operand(be, dy);
    float *sum = calloc(n, sizeof *sum), *unused = calloc(n, sizeof *unused);
    if (!sum || !unused) abort();
    dr_status s = dr_cpu_ops.conv2d_dw(be, d, in, out, sum, NULL, NULL, err);
    if (!s && db) s = dr_cpu_ops.conv2d_dw(be, d, in, dy, unused, db, NULL, err); /* from dy as it is */
    for (size_t i = 0; i < n; i++) dw[i] += to_bf16(sum[i]);
    free(unused);
    free(sum);
    done(be, out, dy);
    done(be, in, x);
    return s;
}

#define OTHER(X) X(norm_act) X(l2norm) X(conv2d) X(conv2d_dx) X(conv2d_dw)

/* ---- tables ------------------------------------------------------------------------------------------------------ */

void rounded_watch(dr_backend *module, rounded_log *log) {
    module_ops = module->ops;
    watch_ops = *module_ops;
    watch_log = log;
#define WATCH(entry, ...) watch_ops.entry = watch_##entry;
    SIMPLE(WATCH)
    OTHER(WATCH)
#undef WATCH
    module->ops = &watch_ops;
}

void rounded_follow(dr_backend *cpu, rounded_log *log, double t) {
    assert(cpu->ops == &dr_cpu_ops);
    round_ops = dr_cpu_ops;
    round_log = log;
    tolerance = t;
    count = (rounded_count){0};
#define ROUND(entry, ...) round_ops.entry = round_##entry;
    SIMPLE(ROUND)
    OTHER(ROUND)
#undef ROUND
    round_ops.upload = round_upload;
    round_ops.fill = round_fill;
    /* the fused entries would bypass these */
    round_ops.norm_stats = NULL;
    round_ops.norm_apply = NULL;
    round_ops.conv2d_fuses = NULL;
    round_ops.conv2d_fused = NULL;
    cpu->ops = &round_ops;
}
