/* test_cpu_ops.c - every entry of the CPU table but the convolutions (test_conv.c) against ref.c.
 *
 * A case computes something on a backend and hands each result with its reference to emit(). run() does that for every
 * instruction set of this machine with 1 to 3 threads, and wants the same bits from all thread counts. */
#include "core/base/alloc.h"
#include "core/base/rng.h"
#include "core/cpu/cpu.h"
#include "core/cpu/ref.h"
#include "core/tensor/pool.h"
#include "tests/t.h"

static dr_backend *be;
static dr_pool pool;
static dr_rng rng;
static char why[400]; /* what went wrong first; "" */

static float *bits; /* all results of this run, and of the first with this instruction set */
static size_t n_bits, cap_bits;
static float *first_bits;
static size_t n_first;

/* Host arrays live until the end of a run. */
static void *held[4096];
static int n_held;

static void *hold(size_t bytes) {
    void *p = calloc(1, bytes ? bytes : 1);
    if (!p || n_held == (int)(sizeof held / sizeof *held)) exit(2);
    held[n_held++] = p;
    return p;
}

static void note(const char *what, size_t i, double got, double want) {
    if (!why[0]) snprintf(why, sizeof why, "%s[%zu] is %.9g, want %.9g", what, i, got, want);
}

static void must(dr_status s, const dr_error *err) {
    if (s && !why[0]) snprintf(why, sizeof why, "call failed: %s", err->text);
}

/* CALL(entry, ...): dr_be_<entry>() on the backend of this run. */
#define CALL(entry, ...)                                                                                               \
    do {                                                                                                               \
        dr_error e_ = {0};                                                                                             \
        must(dr_be_##entry(be, __VA_ARGS__, &e_), &e_);                                                                \
    } while (0)

static double *zeros(size_t n) {
    return hold(n * sizeof(double));
}

/* Random values that float holds exactly, in [-r, r]. */
static double *noise(size_t n, double r) {
    double *p = zeros(n);
    for (size_t i = 0; i < n; i++) p[i] = (double)(float)dr_rng_range(&rng, -r, r);
    return p;
}

static float *to_float(size_t n, const double *x) {
    float *f = hold(n * sizeof *f);
    for (size_t i = 0; i < n; i++) f[i] = (float)x[i];
    return f;
}

static dr_tensor empty(dr_shape s) {
    dr_tensor t = {0};
    dr_error err = {0};
    must(dr_pool_tensor(&pool, s, &t, &err), &err);
    float *f = t.data;
    for (size_t i = 0; i < dr_shape_count(s); i++) f[i] = NAN; /* an output must be written everywhere */
    return t;
}

static dr_tensor up(dr_shape s, const double *x) {
    dr_tensor t = empty(s);
    CALL(upload, to_float(dr_shape_count(s), x), t);
    return t;
}

static double *down(dr_tensor t) {
    size_t n = dr_shape_count(t.shape);
    float *f = hold(n * sizeof *f);
    CALL(download, t, f);
    double *d = zeros(n);
    for (size_t i = 0; i < n; i++) d[i] = (double)f[i];
    return d;
}

/* |got - want| <= tol (1 + |want|), and the bits are remembered. */
static void emit_raw(const char *what, size_t n, const float *got, const double *want, double tol) {
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)got[i] - want[i]) <= tol * (1 + fabs(want[i])))) {
            note(what, i, (double)got[i], want[i]);
            break;
        }
    if (n_bits + n > cap_bits) {
        cap_bits = 2 * (n_bits + n);
        bits = realloc(bits, cap_bits * sizeof *bits);
        if (!bits) exit(2);
    }
    memcpy(bits + n_bits, got, n * sizeof *bits);
    n_bits += n;
}

static void emit(const char *what, dr_tensor got, const double *want, double tol) {
    size_t n = dr_shape_count(got.shape);
    float *f = hold(n * sizeof *f);
    CALL(download, got, f);
    emit_raw(what, n, f, want, tol);
}

static double dot(size_t n, const double *a, const double *b) {
    double s = 0;
    for (size_t i = 0; i < n; i++) s += a[i] * b[i];
    return s;
}

/* <y, Ax> == <x, A'y>, for the results of the kernels themselves. */
static void emit_adjoint(const char *what, size_t nx, const double *x, const double *aty, size_t ny, const double *y,
                         const double *ax) {
    double l = dot(ny, y, ax), r = dot(nx, x, aty);
    double size = sqrt(dot(nx, x, x) * dot(nx, aty, aty)) + 1e-30;
    if (!(fabs(l - r) <= 2e-6 * size)) note(what, 0, l, r);
}

typedef void case_fn(const void *arg);

static bool run_one(int isa, int threads, case_fn *fn, const void *arg) {
    dr_error err = {0};
    dr_cpu_limit_isa((enum dr_cpu_isa)isa);
    dr_status s = dr_backend_open("cpu", &(dr_backend_opts){.threads = threads}, &be, NULL, &err);
    dr_cpu_limit_isa(DR_CPU_AVX512);
    must(s, &err);
    if (s) return false;
    bool is_there = dr_cpu_of(be)->isa == isa;
    if (is_there) {
        dr_pool_init(&pool, be, 1 << 22);
        dr_rng_seed(&rng, 7, 0);
        n_bits = 0;
        fn(arg);
        dr_pool_done(&pool);
    }
    while (n_held) free(held[--n_held]);
    dr_backend_close(be);
    return is_there;
}

static void run(case_fn *fn, const void *arg) {
    why[0] = 0;
    for (int isa = DR_CPU_BASE; isa <= DR_CPU_AVX512 && !why[0]; isa++)
        for (int threads = 1; threads <= 3 && !why[0]; threads++) {
            if (threads == 2 && isa != DR_CPU_AVX512) continue; /* how work is cut does not depend on it */
            if (!run_one(isa, threads, fn, arg)) continue;
            size_t l = strlen(why);
            if (l) snprintf(why + l, sizeof why - l, " (instruction set %d, %d threads)", isa, threads);
            if (threads == 1) {
                float *t = first_bits;
                first_bits = bits;
                n_first = n_bits;
                bits = t;
                cap_bits = 0;
                free(bits);
                bits = NULL;
            } else if (!l && (n_bits != n_first || (n_bits && memcmp(bits, first_bits, n_bits * sizeof *bits)))) {
                snprintf(why, sizeof why, "other bits with %d threads than with 1 (instruction set %d)", threads, isa);
            }
        }
    free(bits);
    free(first_bits);
    bits = first_bits = NULL;
    n_bits = cap_bits = n_first = 0;
}

#define RUN(fn, arg)                                                                                                   \
    do {                                                                                                               \
        run(fn, arg);                                                                                                  \
        CHECK_MSG(!why[0], "%s", why);                                                                                 \
    } while (0)

/* Small and awkward, planar and blocked, below and above the size from which threads are used; the last has planes that
 * do not fit in the cache. */
static const dr_shape shapes[] = {
    {1, 1, 2, 2},   {2, 16, 5, 7},   {1, 3, 33, 65},   {3, 5, 4, 2},    {2, 32, 65, 67},
    {1, 64, 9, 31}, {1, 3, 130, 97}, {1, 16, 97, 101}, {2, 48, 31, 33}, {1, 16, 2, 3000},
};
// NOLINTNEXTLINE(bugprone-macro-parentheses): s is a name to declare
#define EACH_SHAPE(s) for (const dr_shape *s = shapes; s < shapes + sizeof shapes / sizeof *shapes; s++)

/* ---- elementwise ---- */

static void eltwise_case(const void *arg) {
    const dr_shape s = *(const dr_shape *)arg;
    const size_t n = dr_shape_count(s);
    double *a = noise(n, 2), *b = noise(n, 2), *want = zeros(n);
    a[0] = 0; /* the kink */
    dr_tensor ta = up(s, a), tb = up(s, b), y = empty(s);

    for (size_t i = 0; i < n; i++) want[i] = (double)0.3f;
    CALL(fill, 0.3f, y);
    emit("fill", y, want, 0);
    CALL(copy, ta, y);
    emit("copy", y, a, 0);
    for (size_t i = 0; i < n; i++) want[i] = a[i] + b[i];
    CALL(add, ta, tb, y);
    emit("add", y, want, 1e-7);
    for (size_t i = 0; i < n; i++) want[i] = -1.5 * a[i];
    CALL(scale, -1.5f, ta, y);
    emit("scale", y, want, 1e-7);
    for (size_t i = 0; i < n; i++) want[i] = -1.5 * a[i] + 0.25 * b[i];
    CALL(axpy, 0.25f, tb, y);
    emit("axpy", y, want, 3e-7);

    for (int act = DR_ACT_NONE; act <= DR_ACT_TANH; act++) {
        double *dx = zeros(n);
        dr_ref_act(n, (dr_act)act, a, want);
        CALL(act, (dr_act)act, ta, y);
        emit("act", y, want, 2e-7);
        dr_ref_act_bwd(n, (dr_act)act, want, b, dx);
        dr_tensor tdx = empty(s);
        CALL(act_bwd, (dr_act)act, y, tb, tdx);
        emit("act_bwd", tdx, dx, 2e-6);
        CALL(copy, ta, tdx); /* in place */
        CALL(act, (dr_act)act, tdx, tdx);
        emit("act in place", tdx, want, 2e-7);
    }
    dr_ref_clamp(n, -0.5, 1.25, a, want);
    CALL(clamp, -0.5f, 1.25f, ta, y);
    emit("clamp", y, want, 0);
    dr_ref_clamp_bwd(n, -0.5, 1.25, a, b, want);
    CALL(clamp_bwd, -0.5f, 1.25f, ta, tb, y);
    emit("clamp_bwd", y, want, 0);

    for (int bc = 1; bc <= s.c; bc += s.c == 1 ? 1 : s.c - 1) { /* one channel for all, and as many */
        dr_shape bs = dr_shape_make(s.n, bc, s.h, s.w);
        size_t nb = dr_shape_count(bs);
        double *one = noise(nb, 1), *db = zeros(nb);
        dr_tensor tone = up(bs, one), tdb = empty(bs);
        dr_ref_add_bcast(s, bc, a, -0.75, one, want);
        CALL(add_bcast, ta, -0.75f, tone, y);
        emit("add_bcast", y, want, 1e-6);
        dr_ref_add_bcast_bwd(s, bc, -0.75, b, db);
        CALL(add_bcast_bwd, -0.75f, tb, tdb);
        emit("add_bcast_bwd", tdb, db, 1e-5);
    }
    double *back = down(ta);
    for (size_t i = 0; i < n; i++)
        if (back[i] != a[i]) note("upload and download", i, back[i], a[i]);
}

TEST(elementwise) {
    EACH_SHAPE(s) RUN(eltwise_case, s);
}

static void tanh_case(const void *arg) {
    (void)arg;
    const dr_shape s = dr_shape_make(1, 1, 400, 601);
    size_t n = dr_shape_count(s);
    double *x = zeros(n), *want = zeros(n);
    for (size_t i = 0; i < n; i++) x[i] = (double)(float)(-12 + 24 * (double)i / (double)n);
    for (size_t i = 0; i < 2000; i++) x[i] = (double)(float)pow(10, -6 + 0.003 * (double)i); /* 1e-6 .. 1 */
    x[n - 1] = 1e30, x[n - 2] = -1e30, x[n - 3] = 0;
    dr_ref_act(n, DR_ACT_TANH, x, want);
    dr_tensor t = up(s, x);
    CALL(act, DR_ACT_TANH, t, t);
    double *y = down(t);
    for (size_t i = 0; i < n; i++) {
        if (!(fabs(y[i] - want[i]) <= 2e-7)) note("tanh", i, y[i], want[i]);
        if (!(fabs(y[i] - want[i]) <= 5e-7 * fabs(want[i]))) note("tanh, relative", i, y[i], want[i]);
        if (fabs(y[i]) > 1) note("tanh above one", i, y[i], want[i]);
    }
}

TEST(tanh_is_exact_to_2e_7) {
    RUN(tanh_case, NULL);
}

/* A NaN must not vanish on the way: the trainer looks for it in the losses. */
static void nan_case(const void *arg) {
    const dr_shape s = *(const dr_shape *)arg;
    size_t n = dr_shape_count(s);
    double *x = noise(n, 1);
    x[n / 2] = (double)NAN;
    dr_tensor t = up(s, x), y = empty(s), loss = empty(dr_shape_make(1, 1, 1, 1));
    for (int act = DR_ACT_NONE; act <= DR_ACT_TANH; act++) {
        CALL(act, (dr_act)act, t, y);
        if (!isnan(down(y)[n / 2])) note("NaN through an activation", (size_t)act, 0, 0);
    }
    CALL(clamp, -1, 1, t, y);
    if (!isnan(down(y)[n / 2])) note("NaN through clamp", 0, 0, 0);
    float *stats = hold((size_t)s.n * (size_t)s.c * 2 * sizeof *stats);
    CALL(norm_act, 1e-5f, DR_ACT_RELU, t, stats, y);
    if (!isnan(down(y)[n / 2])) note("NaN through norm", 0, 0, 0);
    CALL(fill, 0, y);
    CALL(l1, t, y, loss);
    if (!isnan(down(loss)[0])) note("NaN through l1", 0, 0, 0);
    if (s.c < 8) {
        CALL(freq, t, y, loss);
        if (!isnan(down(loss)[0])) note("NaN through freq", 0, 0, 0);
    }
    CALL(gan, DR_GAN_HINGE_REAL, t, loss);
    if (!isnan(down(loss)[0])) note("NaN through gan", 0, 0, 0);
}

TEST(nan_stays_nan) {
    RUN(nan_case, &shapes[1]);
    RUN(nan_case, &shapes[2]);
}

/* ---- instance norm ---- */

static const dr_act norm_acts[] = {DR_ACT_NONE, DR_ACT_RELU, DR_ACT_LRELU};

static void norm_case(const void *arg) {
    const dr_shape s = *(const dr_shape *)arg;
    size_t n = dr_shape_count(s), planes = (size_t)s.n * (size_t)s.c;
    double *x = noise(n, 1), *dy = noise(n, 1), *want = zeros(n), *stats = zeros(2 * planes), *dx = zeros(n);
    for (size_t i = 0; i < n; i++) x[i] = (double)(float)(x[i] + 0.1 * (double)(i % 7)); /* a mean that is not 0 */
    dr_tensor tx = up(s, x), tdy = up(s, dy), y = empty(s), tdx = empty(s);
    float *tstats = hold(2 * planes * sizeof *tstats);
    for (int a = 0; a < 3; a++) {
        dr_ref_norm_act(s, 1e-5, norm_acts[a], x, stats, want);
        CALL(norm_act, 1e-5f, norm_acts[a], tx, tstats, y);
        emit_raw("norm stats", 2 * planes, tstats, stats, 1e-6);
        emit("norm_act", y, want, 3e-6);
        /* from the kernel's statistics, so that the sign at the kink is the same */
        for (size_t i = 0; i < 2 * planes; i++) stats[i] = (double)tstats[i];
        dr_ref_norm_act_bwd(s, norm_acts[a], x, stats, dy, dx);
        CALL(norm_act_bwd, norm_acts[a], tx, tstats, tdy, tdx);
        emit("norm_act_bwd", tdx, dx, 1e-5);
        float *fused = hold(2 * planes * sizeof *fused);
        CALL(norm_stats, 1e-5f, tx, fused);
        for (size_t i = 0; i < 2 * planes; i++)
            if (fused[i] != tstats[i]) note("norm_stats", i, (double)fused[i], (double)tstats[i]);
    }
}

TEST(instance_norm) {
    EACH_SHAPE(s) RUN(norm_case, s);
}

/* Far from zero and nearly flat; constant; one wild pixel at the start: where E[x^2] - mean^2 fails. */
static void hard_norm_case(const void *arg) {
    const dr_shape s = *(const dr_shape *)arg;
    size_t n = dr_shape_count(s), planes = (size_t)s.n * (size_t)s.c, m = n / planes;
    float *tstats = hold(2 * planes * sizeof *tstats);
    double *x = noise(n, 0.5), *want = zeros(n), *stats = zeros(2 * planes);
    for (size_t i = 0; i < n; i++) x[i] = (double)(float)(x[i] + 1000);
    dr_tensor tx = up(s, x), y = empty(s);
    dr_ref_norm_act(s, 1e-5, DR_ACT_NONE, x, stats, want);
    CALL(norm_act, 1e-5f, DR_ACT_NONE, tx, tstats, y);
    /* the mean itself is rounded to float: 3e-5 of 0.29 */
    emit("far from zero", y, want, 2e-4);
    for (size_t i = 0; i < planes; i++)
        if (fabs((double)tstats[2 * i + 1] / stats[2 * i + 1] - 1) > 1e-6)
            note("rstd far from zero", i, (double)tstats[2 * i + 1], stats[2 * i + 1]);

    for (size_t i = 0; i < n; i++) x[i] = 3.25;
    for (size_t i = 0; i < n; i++) want[i] = 0;
    tx = up(s, x);
    CALL(norm_act, 1e-5f, DR_ACT_NONE, tx, tstats, y);
    emit("constant", y, want, 0);
    if (fabs((double)tstats[1] - 1 / sqrt(1e-5)) > 1e-3) note("rstd of a constant", 1, (double)tstats[1], 316.2);

    x = noise(n, 1);
    for (size_t p = 0; p < planes; p++) x[p * m] = 1e4;
    tx = up(s, x);
    dr_ref_norm_act(s, 1e-5, DR_ACT_NONE, x, stats, want);
    CALL(norm_act, 1e-5f, DR_ACT_NONE, tx, tstats, y);
    emit("a wild pixel", y, want, 3e-6);
}

TEST(instance_norm_where_sums_cancel) {
    static const dr_shape s[] = {{1, 16, 40, 41}, {1, 3, 17, 19}, {1, 32, 97, 101}};
    for (int i = 0; i < 3; i++) RUN(hard_norm_case, &s[i]);
}

static void fused_case(const void *arg) {
    const dr_shape s = *(const dr_shape *)arg;
    size_t n = dr_shape_count(s), planes = (size_t)s.n * (size_t)s.c;
    dr_tensor x = up(s, noise(n, 3)), t = empty(s), none = {0};
    float *stats = hold(2 * planes * sizeof *stats), *again = hold(2 * planes * sizeof *stats);
    CALL(norm_stats, 1e-5f, x, stats);
    for (int a = 0; a < 3; a++) {
        dr_act act = norm_acts[a];
        CALL(norm_act, 1e-5f, act, x, again, t);
        dr_tensor y = empty(s);
        CALL(norm_apply, x, stats, act, DR_THEN_NONE, 0, none, y);
        emit("apply", y, down(t), 0);
        CALL(copy, x, y);
        CALL(norm_apply, y, stats, act, DR_THEN_NONE, 0, none, y);
        emit("apply in place", y, down(t), 0);

        dr_tensor r0 = up(s, noise(n, 1)), sum = empty(s);
        CALL(add, t, r0, sum);
        for (int p = a; p <= 3 && p < s.h && p < s.w; p += 2) { /* 0 and 2, 1 and 3 */
            dr_shape ps = dr_shape_make(s.n, s.c, s.h + 2 * p, s.w + 2 * p);
            dr_tensor want = empty(ps), got = empty(ps);
            CALL(pad_reflect, p, t, want);
            CALL(norm_apply, x, stats, act, DR_THEN_REFLECT, p, none, got);
            emit("apply, pad", got, down(want), 0);

            for (int q = 0; q <= 1; q++) { /* the skip with and without a border of its own */
                dr_shape rs = dr_shape_make(s.n, s.c, s.h + 2 * q, s.w + 2 * q);
                dr_tensor r = empty(rs);
                if (q < s.h && q < s.w)
                    CALL(pad_reflect, q, r0, r);
                else
                    continue;
                CALL(pad_reflect, p, sum, want);
                CALL(norm_apply, x, stats, act, DR_THEN_ADD, p, r, got);
                emit("apply, add, pad", got, down(want), 5e-7);
            }
        }
        CALL(norm_apply, x, stats, act, DR_THEN_ADD, 0, r0, r0);
        emit("apply, add in place", r0, down(sum), 5e-7);

        dr_shape ds = dr_shape_make(s.n, s.c, dr_blur_down_side(s.h), dr_blur_down_side(s.w));
        dr_shape us = dr_shape_make(s.n, s.c, 2 * s.h, 2 * s.w);
        dr_tensor wd = empty(ds), gd = empty(ds), wu = empty(us), gu = empty(us);
        CALL(blur_down, t, wd);
        CALL(norm_apply, x, stats, act, DR_THEN_BLUR_DOWN, 0, none, gd);
        emit("apply, blur down", gd, down(wd), 5e-7);
        CALL(blur_up, t, wu);
        CALL(norm_apply, x, stats, act, DR_THEN_BLUR_UP, 0, none, gu);
        emit("apply, blur up", gu, down(wu), 5e-7);
    }
}

TEST(fused_norm_equals_the_simple_entries) {
    EACH_SHAPE(s) RUN(fused_case, s);
}

/* ---- resampling ---- */

static void resample_case(const void *arg) {
    const dr_shape s = *(const dr_shape *)arg;
    const size_t n = dr_shape_count(s);
    double *x = noise(n, 1), *dx = zeros(n);
    dr_tensor tx = up(s, x), tdx = empty(s);

    for (int p = 0; p <= 3 && p < s.h && p < s.w; p++) {
        dr_shape o = dr_shape_make(s.n, s.c, s.h + 2 * p, s.w + 2 * p);
        size_t no = dr_shape_count(o);
        double *y = zeros(no), *dy = noise(no, 1);
        dr_tensor ty = empty(o), tdy = up(o, dy);
        dr_ref_pad_reflect(s, p, x, y);
        CALL(pad_reflect, p, tx, ty);
        emit("pad_reflect", ty, y, 0);
        dr_ref_pad_reflect_bwd(s, p, dy, dx);
        CALL(pad_reflect_bwd, p, tdy, tdx);
        emit("pad_reflect_bwd", tdx, dx, 1e-6);
        emit_adjoint("pad_reflect, adjoint", n, x, down(tdx), no, dy, down(ty));
    }
    {
        dr_shape o = dr_shape_make(s.n, s.c, dr_blur_down_side(s.h), dr_blur_down_side(s.w));
        size_t no = dr_shape_count(o);
        double *y = zeros(no), *dy = noise(no, 1);
        dr_tensor ty = empty(o), tdy = up(o, dy);
        dr_ref_blur_down(s, x, y);
        CALL(blur_down, tx, ty);
        emit("blur_down", ty, y, 5e-7);
        dr_ref_blur_down_bwd(s, dy, dx);
        CALL(blur_down_bwd, tdy, tdx);
        emit("blur_down_bwd", tdx, dx, 5e-7);
        emit_adjoint("blur_down, adjoint", n, x, down(tdx), no, dy, down(ty));
    }
    {
        dr_shape o = dr_shape_make(s.n, s.c, 2 * s.h, 2 * s.w);
        size_t no = dr_shape_count(o);
        double *y = zeros(no), *dy = noise(no, 1);
        dr_tensor ty = empty(o), tdy = up(o, dy);
        dr_ref_blur_up(s, x, y);
        CALL(blur_up, tx, ty);
        emit("blur_up", ty, y, 5e-7);
        dr_ref_blur_up_bwd(s, dy, dx);
        CALL(blur_up_bwd, tdy, tdx);
        emit("blur_up_bwd", tdx, dx, 1e-6);
        emit_adjoint("blur_up, adjoint", n, x, down(tdx), no, dy, down(ty));
    }
}

TEST(resampling) {
    EACH_SHAPE(s) RUN(resample_case, s);
    static const dr_shape thin[] = {{1, 16, 2, 9}, {1, 16, 9, 2}, {1, 3, 3, 2},
                                    {1, 32, 3, 3}, {1, 16, 4, 4}, {2, 3, 6, 5}};
    for (size_t i = 0; i < sizeof thin / sizeof *thin; i++) RUN(resample_case, &thin[i]);
}

/* blur_up and no padding work down to one pixel. */
static void pixel_case(const void *arg) {
    const dr_shape s = *(const dr_shape *)arg, o = {s.n, s.c, 2 * s.h, 2 * s.w};
    size_t n = dr_shape_count(s), no = dr_shape_count(o);
    double *x = noise(n, 1), *dy = noise(no, 1), *y = zeros(no), *dx = zeros(n);
    dr_tensor tx = up(s, x), ty = empty(o), tdy = up(o, dy), tdx = empty(s);
    dr_ref_blur_up(s, x, y);
    CALL(blur_up, tx, ty);
    emit("blur_up", ty, y, 5e-7);
    dr_ref_blur_up_bwd(s, dy, dx);
    CALL(blur_up_bwd, tdy, tdx);
    emit("blur_up_bwd", tdx, dx, 1e-6);
    CALL(pad_reflect, 0, tx, tdx);
    emit("pad 0", tdx, x, 0);
}

TEST(one_pixel_wide) {
    static const dr_shape s[] = {{1, 16, 1, 1}, {1, 1, 1, 5}, {2, 16, 7, 1}};
    for (int i = 0; i < 3; i++) RUN(pixel_case, &s[i]);
}

/* ---- projection heads ---- */

typedef struct head {
    dr_shape x;
    int s, out;
} head;

static void head_case(const void *arg) {
    const head h = *(const head *)arg;
    size_t n = dr_shape_count(h.x), hw = (size_t)h.x.h * (size_t)h.x.w;
    int rows = h.x.n * h.s, in = h.x.c, out = h.out;
    size_t n_in = (size_t)rows * (size_t)in, n_out = (size_t)rows * (size_t)out, n_w = (size_t)in * (size_t)out;
    dr_shape is = dr_shape_make(rows, in, 1, 1), os = dr_shape_make(rows, out, 1, 1);
    int32_t *idx = hold((size_t)h.s * sizeof *idx);
    for (int i = 0; i < h.s; i++) idx[i] = (int32_t)((size_t)i * 7919 % hw); /* 7919 is prime: distinct */

    double *x = noise(n, 1), *r = zeros(n_in), *drows = noise(n_in, 1), *dx = zeros(n);
    dr_tensor tx = up(h.x, x), tr = empty(is), tdr = up(is, drows), tdx = empty(h.x);
    dr_ref_gather(h.x, x, idx, h.s, r);
    CALL(gather, tx, idx, h.s, tr);
    emit("gather", tr, r, 0);
    dr_ref_gather_bwd(h.x, drows, idx, h.s, dx);
    CALL(gather_bwd, tdr, idx, h.s, tdx);
    emit("gather_bwd", tdx, dx, 0);
    emit_adjoint("gather, adjoint", n, x, down(tdx), n_in, drows, down(tr));

    double *w = noise(n_w, 0.2), *b = noise((size_t)out, 1), *y = zeros(n_out), *dy = noise(n_out, 1);
    float *fw = to_float(n_w, w), *fb = to_float((size_t)out, b);
    dr_tensor ty = empty(os), tdy = up(os, dy), tdin = empty(is);
    dr_ref_linear(rows, in, out, r, w, b, y);
    CALL(linear, tr, fw, fb, ty);
    emit("linear", ty, y, 5e-6);
    dr_ref_linear(rows, in, out, r, w, NULL, y);
    CALL(linear, tr, fw, NULL, ty);
    emit("linear without bias", ty, y, 5e-6);
    double *din = zeros(n_in);
    dr_ref_linear_dx(rows, in, out, dy, w, din);
    CALL(linear_dx, tdy, fw, tdin);
    emit("linear_dx", tdin, din, 5e-6);
    emit_adjoint("linear, adjoint", n_in, r, down(tdin), n_out, dy, down(ty));
    /* gradients of weights are added to what is there */
    double *dw = noise(n_w, 1), *db = noise((size_t)out, 1);
    float *fdw = to_float(n_w, dw), *fdb = to_float((size_t)out, db);
    dr_ref_linear_dw(rows, in, out, r, dy, dw, db);
    CALL(linear_dw, tr, tdy, fdw, fdb);
    emit_raw("linear_dw", n_w, fdw, dw, 2e-5);
    emit_raw("linear_dw, bias", (size_t)out, fdb, db, 2e-5);
    dr_ref_linear_dw(rows, in, out, r, dy, dw, NULL);
    CALL(linear_dw, tr, tdy, fdw, NULL);
    emit_raw("linear_dw without bias", n_w, fdw, dw, 2e-5);

    double *v = noise(n_out, 1), *norms = zeros((size_t)rows), *dv = zeros(n_out);
    for (int i = 0; i < out; i++) v[i] = 0; /* a row of zeros */
    float *fnorms = hold((size_t)rows * sizeof *fnorms);
    dr_tensor tv = up(os, v), tdv = empty(os);
    dr_ref_l2norm(rows, out, v, norms, y);
    CALL(l2norm, tv, fnorms, ty);
    emit("l2norm", ty, y, 1e-6);
    emit_raw("l2norm, norms", (size_t)rows, fnorms, norms, 1e-6);
    dr_ref_l2norm_bwd(rows, out, y, norms, dy, dv);
    CALL(l2norm_bwd, ty, fnorms, tdy, tdv);
    emit("l2norm_bwd", tdv, dv, 1e-5);
}

TEST(projection_heads) {
    static const head h[] = {{{1, 16, 9, 9}, 7, 16}, {{2, 128, 20, 21}, 64, 256}, {{1, 64, 16, 16}, 256, 256},
                             {{2, 3, 5, 6}, 5, 7},   {{1, 16, 1, 1}, 1, 33},      {{1, 32, 40, 40}, 97, 31}};
    for (size_t i = 0; i < sizeof h / sizeof *h; i++) RUN(head_case, &h[i]);
}

/* ---- losses ---- */

static double *unit_rows(int rows, int cols) {
    double *v = noise((size_t)rows * (size_t)cols, 1), *y = zeros((size_t)rows * (size_t)cols);
    dr_ref_l2norm(rows, cols, v, zeros((size_t)rows), y);
    for (size_t i = 0; i < (size_t)rows * (size_t)cols; i++) y[i] = (double)(float)y[i];
    return y;
}

typedef struct nce_arg {
    int groups, s, cols;
    double temperature;
} nce_arg;

static void nce_case(const void *arg) {
    const nce_arg a = *(const nce_arg *)arg;
    int rows = a.groups * a.s;
    size_t n = (size_t)rows * (size_t)a.cols;
    dr_shape s = dr_shape_make(rows, a.cols, 1, 1);
    double *k = unit_rows(rows, a.cols), *q = unit_rows(rows, a.cols), *dq = zeros(n);
    for (size_t i = 0; i < n / 2; i++) q[i] = k[i]; /* half of them match */
    dr_tensor tq = up(s, q), tk = up(s, k), loss = empty(dr_shape_make(1, 1, 1, 1)), tdq = empty(s);
    double want = dr_ref_nce(a.groups, a.temperature, rows, a.cols, q, k);
    CALL(nce, a.groups, (float)a.temperature, tq, tk, loss);
    emit("nce", loss, &want, 2e-6);
    dr_ref_nce_bwd(a.groups, a.temperature, rows, a.cols, q, k, 0.7 * rows, dq);
    CALL(nce_bwd, a.groups, (float)a.temperature, tq, tk, 0.7f * (float)rows, tdq);
    emit("nce_bwd", tdq, dq, 1e-5);
}

TEST(contrastive_loss) {
    static const nce_arg a[] = {{1, 256, 256, 0.07}, {2, 64, 256, 0.07}, {3, 37, 20, 0.07}, {1, 1, 16, 0.07},
                                {2, 200, 48, 0.5},   {1, 8, 3, 20}}; /* at T = 20 the placeholder counts */
    for (size_t i = 0; i < sizeof a / sizeof *a; i++) RUN(nce_case, &a[i]);
}

static void loss_case(const void *arg) {
    const dr_shape s = *(const dr_shape *)arg, one = {1, 1, 1, 1};
    size_t n = dr_shape_count(s);
    double *a = noise(n, 3), *b = noise(n, 3), *want = zeros(n), v;
    b[0] = a[0]; /* sign(0) = 0 */
    a[n - 1] = n > 1 ? 1 : a[n - 1];
    dr_tensor ta = up(s, a), tb = up(s, b), loss = empty(one), d = empty(s);
    for (int m = DR_GAN_HINGE_REAL; m <= DR_GAN_NEG_MEAN; m++) {
        v = dr_ref_gan(n, (dr_gan_loss)m, a);
        CALL(gan, (dr_gan_loss)m, ta, loss);
        emit("gan", loss, &v, 1e-6);
        dr_ref_gan_bwd(n, (dr_gan_loss)m, a, 1.5 * (double)n, want);
        CALL(gan_bwd, (dr_gan_loss)m, ta, 1.5f * (float)n, d);
        emit("gan_bwd", d, want, 1e-6);
    }
    v = dr_ref_l1(n, a, b);
    CALL(l1, ta, tb, loss);
    emit("l1", loss, &v, 1e-6);
    dr_ref_l1_bwd(n, a, b, 1.5 * (double)n, want);
    CALL(l1_bwd, ta, tb, 1.5f * (float)n, d);
    emit("l1_bwd", d, want, 1e-6);
}

TEST(losses) {
    EACH_SHAPE(s) RUN(loss_case, s);
}

static void freq_case(const void *arg) {
    const dr_shape s = *(const dr_shape *)arg, one = {1, 1, 1, 1};
    size_t n = dr_shape_count(s);
    double *a = noise(n, 1), *b = noise(n, 1), *want = zeros(n), v;
    for (size_t i = 0; i < n; i++) b[i] *= 0.5;
    dr_tensor ta = up(s, a), tb = up(s, b), loss = empty(one), d = empty(s);
    v = dr_ref_freq(s, a, b);
    CALL(freq, ta, tb, loss);
    emit("freq", loss, &v, 1e-6);
    dr_ref_freq_bwd(s, a, b, 1.5 * (double)n, want);
    CALL(freq_bwd, ta, tb, 1.5f * (float)n, d);
    emit("freq_bwd", d, want, 2e-5); /* a small bin's direction feels the rounding of the large ones */
    /* equal pictures: nothing, and no direction either */
    v = 0;
    for (size_t i = 0; i < n; i++) want[i] = 0;
    CALL(freq, ta, ta, loss);
    emit("freq of nothing", loss, &v, 0);
    CALL(freq_bwd, ta, ta, 1.5f * (float)n, d);
    emit("freq_bwd of nothing", d, want, 0);
}

TEST(spectra) {
    static const dr_shape s[] = {{1, 1, 1, 1},   {1, 3, 1, 7},  {1, 1, 9, 1},   {2, 3, 5, 6},
                                 {1, 3, 16, 16}, {2, 1, 7, 33}, {1, 3, 24, 20}, {1, 1, 64, 50}};
    for (size_t i = 0; i < sizeof s / sizeof *s; i++) RUN(freq_case, &s[i]);
}

/* One wave has one bin and its conjugate, of half its amplitude times sqrt(hw) each; a constant has only bin 0. */
static void wave_case(const void *arg) {
    (void)arg;
    const dr_shape s = {1, 1, 12, 20}, one = {1, 1, 1, 1};
    size_t n = dr_shape_count(s);
    double *a = zeros(n), *b = zeros(n), want[] = {0.3 / sqrt((double)n), 0.6 / sqrt((double)n)};
    for (int wave = 0; wave < 2; wave++) {
        for (int i = 0; i < (int)n; i++) {
            int row = i / s.w, col = i % s.w;
            a[i] = wave ? 0.6 * cos(2 * M_PI * (3.0 * row / s.h + 7.0 * col / s.w) + 1) : 0.3;
        }
        dr_tensor ta = up(s, a), tb = up(s, b), loss = empty(one);
        CALL(freq, ta, tb, loss);
        double got = down(loss)[0];
        if (!(fabs(got - want[wave]) < 2e-6)) note("spectrum of a wave", (size_t)wave, got, want[wave]);
    }
}

TEST(a_wave_has_two_bins_and_a_constant_one) {
    RUN(wave_case, NULL);
}

/* ---- optimizer ---- */

static void optim_case(const void *arg) {
    size_t n = *(const size_t *)arg;
    dr_adam_desc d = {.lr = 1e-3f, .beta1 = 0.5f, .beta2 = 0.999f, .eps = 1e-8f};
    double *p = noise(n, 1), *m = zeros(n), *v = zeros(n), *ema = noise(n, 1);
    float *fp = to_float(n, p), *fm = to_float(n, m), *fv = to_float(n, v), *fe = to_float(n, ema);
    for (d.t = 1; d.t <= 5; d.t++) {
        double *g = noise(n, pow(10, -(double)d.t)); /* from 0.1 down to 1e-5 */
        float *fg = to_float(n, g);
        g[0] = fg[0] = 0;
        dr_ref_adam(&d, n, p, g, m, v);
        CALL(adam, &d, n, fp, fg, fm, fv);
        dr_ref_ema(0.9, n, p, ema);
        CALL(ema, 0.9f, n, fp, fe);
    }
    emit_raw("adam", n, fp, p, 1e-6);
    emit_raw("adam, m", n, fm, m, 1e-6);
    emit_raw("adam, v", n, fv, v, 1e-7);
    emit_raw("ema", n, fe, ema, 1e-6);
}

TEST(optimizer) {
    static const size_t n[] = {1, 3, 16, 1000, 70001};
    for (size_t i = 0; i < sizeof n / sizeof *n; i++) RUN(optim_case, &n[i]);
}

/* ---- the reference itself: are its gradients derivatives? ---- */

typedef double value_fn(const double *x, void *arg);

/* d(value)/dx[i] by central differences against `grad`. */
static void check_gradient(const char *what, size_t n, double *x, const double *grad, value_fn *value, void *arg) {
    for (size_t i = 0; i < n; i++) {
        double keep = x[i], h = 1e-6;
        x[i] = keep + h;
        double up_v = value(x, arg);
        x[i] = keep - h;
        double down_v = value(x, arg);
        x[i] = keep;
        double want = (up_v - down_v) / (2 * h);
        if (!(fabs(want - grad[i]) <= 1e-6 * (1 + fabs(want)))) note(what, i, grad[i], want);
    }
}

typedef struct probe {
    dr_shape s;
    dr_act act;
    dr_gan_loss mode;
    double *dy, *k, *tmp, *stats;
} probe;

static double norm_value(const double *x, void *arg) {
    probe *p = arg;
    dr_ref_norm_act(p->s, 1e-5, p->act, x, p->stats, p->tmp);
    return dot(dr_shape_count(p->s), p->tmp, p->dy);
}
static double act_value(const double *x, void *arg) {
    probe *p = arg;
    dr_ref_act(dr_shape_count(p->s), p->act, x, p->tmp);
    return dot(dr_shape_count(p->s), p->tmp, p->dy);
}
static double clamp_value(const double *x, void *arg) {
    probe *p = arg;
    dr_ref_clamp(dr_shape_count(p->s), -0.5, 0.5, x, p->tmp);
    return dot(dr_shape_count(p->s), p->tmp, p->dy);
}
static double l2_value(const double *x, void *arg) {
    probe *p = arg;
    dr_ref_l2norm(p->s.n, p->s.c, x, p->stats, p->tmp);
    return dot(dr_shape_count(p->s), p->tmp, p->dy);
}
static double nce_value(const double *x, void *arg) {
    probe *p = arg;
    return dr_ref_nce(2, 0.07, p->s.n, p->s.c, x, p->k);
}
static double gan_value(const double *x, void *arg) {
    probe *p = arg;
    return dr_ref_gan(dr_shape_count(p->s), p->mode, x);
}
static double l1_value(const double *x, void *arg) {
    probe *p = arg;
    return dr_ref_l1(dr_shape_count(p->s), x, p->k);
}

static double freq_value(const double *x, void *arg) {
    probe *p = arg;
    return dr_ref_freq(p->s, x, p->k);
}

TEST(reference_gradients_are_derivatives) {
    why[0] = 0;
    dr_rng_seed(&rng, 3, 0);
    probe p = {.s = dr_shape_make(2, 3, 4, 5)};
    size_t n = dr_shape_count(p.s);
    double *x = noise(n, 1), *y = zeros(n), *g = zeros(n);
    p.dy = noise(n, 1), p.k = noise(n, 1), p.tmp = zeros(n), p.stats = zeros(n);
    for (int a = 0; a < 3; a++) {
        p.act = norm_acts[a];
        dr_ref_norm_act(p.s, 1e-5, p.act, x, p.stats, y);
        dr_ref_norm_act_bwd(p.s, p.act, x, p.stats, p.dy, g);
        check_gradient("norm_act_bwd", n, x, g, norm_value, &p);
    }
    for (int a = DR_ACT_NONE; a <= DR_ACT_TANH; a++) {
        p.act = (dr_act)a;
        dr_ref_act(n, p.act, x, y);
        dr_ref_act_bwd(n, p.act, y, p.dy, g);
        check_gradient("act_bwd", n, x, g, act_value, &p);
    }
    dr_ref_clamp_bwd(n, -0.5, 0.5, x, p.dy, g);
    check_gradient("clamp_bwd", n, x, g, clamp_value, &p);
    for (int m = DR_GAN_HINGE_REAL; m <= DR_GAN_NEG_MEAN; m++) {
        p.mode = (dr_gan_loss)m;
        double *s = noise(n, 3);
        dr_ref_gan_bwd(n, p.mode, s, 1, g);
        check_gradient("gan_bwd", n, s, g, gan_value, &p);
    }
    dr_ref_l1_bwd(n, x, p.k, 1, g);
    check_gradient("l1_bwd", n, x, g, l1_value, &p);
    dr_ref_freq_bwd(p.s, x, p.k, 1, g);
    check_gradient("freq_bwd", n, x, g, freq_value, &p);

    p.s = dr_shape_make(10, 12, 1, 1);
    double *v = noise(120, 1), *norms = zeros(10);
    p.tmp = zeros(120), p.stats = zeros(10), p.dy = noise(120, 1), y = zeros(120), g = zeros(120);
    dr_ref_l2norm(10, 12, v, norms, y);
    dr_ref_l2norm_bwd(10, 12, y, norms, p.dy, g);
    check_gradient("l2norm_bwd", 120, v, g, l2_value, &p);
    p.k = unit_rows(10, 12);
    dr_ref_nce_bwd(2, 0.07, 10, 12, y, p.k, 1, g);
    check_gradient("nce_bwd", 120, y, g, nce_value, &p);
    while (n_held) free(held[--n_held]);
    CHECK_MSG(!why[0], "%s", why);
}

/* ---- what goes wrong ---- */

TEST(no_memory_for_scratch) {
    dr_error err = {0};
    float x[64] = {0}, y[64], stats[2], loss[1];
    dr_tensor tx = {dr_shape_make(1, 1, 8, 8), x}, ty = {dr_shape_make(1, 1, 8, 8), y};
    dr_tensor tl = {dr_shape_make(1, 1, 1, 1), loss}, tm = {dr_shape_make(8, 8, 1, 1), x};
    for (int i = 0; i < 7; i++) {
        CHECK(!dr_backend_open("cpu", &(dr_backend_opts){.threads = 1}, &be, NULL, NULL));
        dr_alloc_fail_after(1, false);
        dr_status s = i == 0   ? dr_be_norm_act(be, 1e-5f, DR_ACT_NONE, tx, stats, ty, &err)
                      : i == 1 ? dr_be_l1(be, tx, ty, tl, &err)
                      : i == 2 ? dr_be_nce(be, 1, 0.07f, tm, tm, tl, &err)
                      : i == 3 ? dr_be_linear(be, tm, x, NULL, tm, &err)
                      : i == 4 ? dr_be_freq(be, tx, ty, tl, &err)
                      : i == 5 ? dr_be_freq_bwd(be, tx, tx, 1, ty, &err)
                               : dr_be_norm_act_bwd(be, DR_ACT_NONE, tx, stats, tx, ty, &err);
        dr_alloc_fail_after(0, false);
        CHECK(s == DR_NOMEM);
        dr_backend_close(be);
    }
}
