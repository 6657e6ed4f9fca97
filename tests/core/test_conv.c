/* test_conv.c - convolutions of the CPU backend against double loops, and what they promise about bits. */
#include "core/base/alloc.h"
#include "core/cpu/conv.h"
#include "tests/t.h"

/* ---- an instance without the rest of the table, tensors in the native layout ---- */

static void cpu_done(dr_cpu *c) {
    dr_cpu_conv_close(c);
}

static enum dr_cpu_isa best = DR_CPU_AVX512;

static dr_status cpu_init(dr_cpu *c, int threads, dr_precision p) {
    dr_error err = {0};
    *c = (dr_cpu){.threads = threads, .precision = p, .isa = DR_CPU_BASE};
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) c->isa = DR_CPU_AVX2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        c->isa = DR_CPU_AVX512;
    if (c->isa > (int)best) c->isa = best;
    dr_status s = dr_cpu_conv_open(c, &err);
    if (s) printf("# %s\n", err.text);
    return s;
}

static size_t count(dr_shape s) {
    return (size_t)s.n * (size_t)s.c * (size_t)s.h * (size_t)s.w;
}

static size_t at(dr_shape s, int n, int c, int y, int x) { /* native layout */
    if (s.c % 16) return (((size_t)n * (size_t)s.c + (size_t)c) * (size_t)s.h + (size_t)y) * (size_t)s.w + (size_t)x;
    size_t blk = (size_t)n * (size_t)(s.c / 16) + (size_t)(c / 16);
    return ((blk * (size_t)s.h + (size_t)y) * (size_t)s.w + (size_t)x) * 16 + (size_t)(c % 16);
}

static float noise(unsigned seed, size_t i) {
    uint32_t h = (uint32_t)(i * 2654435761u) ^ (seed * 0x9e3779b9u);
    h ^= h >> 15, h *= 0x2c1b3c6du, h ^= h >> 12, h *= 0x297a2d39u, h ^= h >> 15;
    return (float)h / 2147483648.0f - 1.0f;
}

static float *array(size_t n, unsigned seed) {
    float *p = dr_malloc_aligned(n * sizeof *p);
    for (size_t i = 0; p && i < n; i++) p[i] = seed ? noise(seed, i) : 0;
    return p;
}

static dr_tensor tensor(dr_shape s, unsigned seed) {
    return (dr_tensor){s, array(count(s), seed)};
}

/* One convolution's data. */
typedef struct conv {
    dr_conv2d_desc d;
    dr_tensor x, y, dy, dx;
    float *w, *b, *dw, *db;
    size_t nw;
} conv;

static conv conv_make(int n, int ic, int h, int w, int oc, int k, int pad) {
    dr_shape xs = {n, ic, h, w}, ys = {n, oc, h + 2 * pad - k + 1, w + 2 * pad - k + 1};
    conv c = {.d = {.k = k, .pad = pad}, .nw = (size_t)(ic * oc * k * k)};
    c.x = tensor(xs, 1);
    c.y = tensor(ys, 9);
    c.dy = tensor(ys, 2);
    c.dx = tensor(xs, 9);
    c.w = array(c.nw, 3);
    c.b = array((size_t)oc, 4);
    c.dw = array(c.nw, 5);
    c.db = array((size_t)oc, 6);
    return c;
}

static void conv_done(conv *c) {
    float *all[] = {c->x.data, c->y.data, c->dy.data, c->dx.data, c->w, c->b, c->dw, c->db};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) dr_free(all[i]);
}

/* Relative rms error of the whole of a pass against sums in double, over at most `most` strided outputs. */
typedef struct err2 {
    double d, r;
} err2;
static void miss(err2 *e, double got, double want) {
    e->d += (got - want) * (got - want);
    e->r += want * want;
}
static double rel(err2 e) {
    return e.r > 0 ? sqrt(e.d / e.r) : sqrt(e.d);
}

static double check_y(const conv *c, bool bias, size_t most) {
    dr_shape xs = c->x.shape, ys = c->y.shape;
    const float *x = c->x.data, *y = c->y.data;
    size_t total = count(ys), step = total / most + 1;
    err2 e = {0};
    for (size_t i = 0; i < total; i += step) {
        int ox = (int)(i % (size_t)ys.w), oy = (int)(i / (size_t)ys.w % (size_t)ys.h);
        int o = (int)(i / (size_t)ys.w / (size_t)ys.h % (size_t)ys.c),
            n = (int)(i / (size_t)ys.w / (size_t)ys.h / (size_t)ys.c);
        double s = bias ? (double)c->b[o] : 0;
        for (int ci = 0; ci < xs.c; ci++)
            for (int ky = 0; ky < c->d.k; ky++)
                for (int kx = 0; kx < c->d.k; kx++) {
                    int iy = oy + ky - c->d.pad, ix = ox + kx - c->d.pad;
                    if (iy < 0 || ix < 0 || iy >= xs.h || ix >= xs.w) continue;
                    s += (double)x[at(xs, n, ci, iy, ix)] * (double)c->w[((o * xs.c + ci) * c->d.k + ky) * c->d.k + kx];
                }
        miss(&e, (double)y[at(ys, n, o, oy, ox)], s);
    }
    return rel(e);
}

static double check_dx(const conv *c, size_t most) {
    dr_shape xs = c->x.shape, ys = c->y.shape;
    const float *dx = c->dx.data, *dy = c->dy.data;
    size_t total = count(xs), step = total / most + 1;
    err2 e = {0};
    for (size_t i = 0; i < total; i += step) {
        int ix = (int)(i % (size_t)xs.w), iy = (int)(i / (size_t)xs.w % (size_t)xs.h);
        int ci = (int)(i / (size_t)xs.w / (size_t)xs.h % (size_t)xs.c),
            n = (int)(i / (size_t)xs.w / (size_t)xs.h / (size_t)xs.c);
        double s = 0;
        for (int o = 0; o < ys.c; o++)
            for (int ky = 0; ky < c->d.k; ky++)
                for (int kx = 0; kx < c->d.k; kx++) {
                    int oy = iy - ky + c->d.pad, ox = ix - kx + c->d.pad;
                    if (oy < 0 || ox < 0 || oy >= ys.h || ox >= ys.w) continue;
                    s += (double)dy[at(ys, n, o, oy, ox)] * (double)c->w[((o * xs.c + ci) * c->d.k + ky) * c->d.k + kx];
                }
        miss(&e, (double)dx[at(xs, n, ci, iy, ix)], s);
    }
    return rel(e);
}

/* dw holds noise(5) before, and the gradient `times` times after. */
static double check_dw(const conv *c, int times, size_t most) {
    dr_shape xs = c->x.shape, ys = c->y.shape;
    const float *x = c->x.data, *dy = c->dy.data;
    size_t step = c->nw / most + 1;
    err2 e = {0};
    for (size_t i = 0; i < c->nw; i += step) {
        int k = c->d.k, kx = (int)(i % (size_t)k), ky = (int)(i / (size_t)k % (size_t)k);
        int ci = (int)(i / (size_t)(k * k) % (size_t)xs.c), o = (int)(i / (size_t)(k * k) / (size_t)xs.c);
        double s = 0;
        for (int n = 0; n < xs.n; n++)
            for (int oy = 0; oy < ys.h; oy++)
                for (int ox = 0; ox < ys.w; ox++) {
                    int iy = oy + ky - c->d.pad, ix = ox + kx - c->d.pad;
                    if (iy < 0 || ix < 0 || iy >= xs.h || ix >= xs.w) continue;
                    s += (double)x[at(xs, n, ci, iy, ix)] * (double)dy[at(ys, n, o, oy, ox)];
                }
        miss(&e, (double)c->dw[i], (double)noise(5, i) + times * s);
    }
    return rel(e);
}

static double check_db(const conv *c, int times) {
    dr_shape ys = c->y.shape;
    const float *dy = c->dy.data;
    err2 e = {0};
    for (int o = 0; o < ys.c; o++) {
        double s = 0;
        for (int n = 0; n < ys.n; n++)
            for (int y = 0; y < ys.h; y++)
                for (int x = 0; x < ys.w; x++) s += (double)dy[at(ys, n, o, y, x)];
        miss(&e, (double)c->db[o], (double)noise(6, (size_t)o) + times * s);
    }
    return rel(e);
}

static const struct {
    int n, ic, h, w, oc, k, pad;
} shapes[] = {
    /* the generator's */
    {1, 3, 38, 45, 64, 7, 0},
    {2, 64, 33, 30, 128, 3, 1},
    {1, 128, 17, 19, 256, 3, 1},
    {2, 256, 18, 13, 256, 3, 0},
    {1, 256, 12, 10, 128, 3, 1},
    {1, 128, 9, 31, 64, 3, 1},
    {2, 64, 22, 25, 3, 7, 0},
    {1, 32, 15, 40, 1, 7, 0},
    {1, 16, 12, 12, 3, 7, 0},
    {1, 3, 10, 22, 16, 7, 0},
    {1, 16, 6, 6, 16, 3, 0},
    {2, 32, 7, 5, 32, 3, 0},
    {1, 48, 4, 9, 80, 3, 1},
    {3, 16, 3, 3, 32, 3, 0},
    {1, 32, 1, 1, 16, 3, 1},
    {1, 64, 1, 7, 64, 3, 1},
    {1, 512, 5, 6, 512, 3, 1},
    /* the discriminator's */
    {2, 3, 33, 29, 64, 4, 1},
    {1, 64, 16, 17, 128, 4, 1},
    {2, 128, 9, 8, 256, 4, 1},
    {1, 256, 7, 9, 512, 4, 1},
    {2, 512, 6, 7, 1, 4, 1},
    {1, 3, 20, 20, 16, 4, 1},
    {1, 128, 5, 5, 1, 4, 1},
    {1, 16, 2, 2, 32, 4, 1},
    /* no multiple of 16 on either side */
    {1, 3, 9, 9, 3, 3, 1},
    {1, 8, 12, 11, 8, 3, 1},
    {1, 3, 16, 16, 8, 7, 0},
    {1, 8, 12, 14, 3, 7, 0},
    {1, 1, 8, 8, 16, 3, 1},
    {1, 8, 8, 8, 16, 3, 1},
    {1, 16, 8, 8, 20, 3, 1},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

static void passes(int threads, dr_precision prec, double limit) {
    dr_cpu cpu;
    CHECK(cpu_init(&cpu, threads, prec) == DR_OK);
    for (int i = 0; i < N_SHAPES && !t_bad; i++) {
        conv c =
            conv_make(shapes[i].n, shapes[i].ic, shapes[i].h, shapes[i].w, shapes[i].oc, shapes[i].k, shapes[i].pad);
        dr_error err = {0};
        dr_status s = dr_cpu_conv2d(&cpu.base, c.d, c.x, c.w, c.b, c.y, NULL, &err);
        double ey = s ? 1 : check_y(&c, true, 800);
        if (!s) s = dr_cpu_conv2d(&cpu.base, c.d, c.x, c.w, NULL, c.y, NULL, &err);
        double en = s ? 1 : check_y(&c, false, 800);
        if (!s) s = dr_cpu_conv2d_dx(&cpu.base, c.d, c.dy, c.w, c.dx, NULL, &err);
        double ex = s ? 1 : check_dx(&c, 800);
        if (!s) s = dr_cpu_conv2d_dw(&cpu.base, c.d, c.x, c.dy, c.dw, c.db, NULL, &err);
        double ew = s ? 1 : check_dw(&c, 1, 800);
        if (!s) s = dr_cpu_conv2d_dw(&cpu.base, c.d, c.x, c.dy, c.dw, NULL, NULL, &err);
        double e2 = s ? 1 : check_dw(&c, 2, 800), eb = check_db(&c, 1);
        if (s || !(ey < limit && en < limit && ex < limit && ew < limit && e2 < limit && eb < 1e-5)) {
            t_bad = 1;
            printf(
                "# (%d,%d,%d,%d)->%d k%d p%d: y %.2g, without bias %.2g, dx %.2g, dw %.2g, twice %.2g, db %.2g; %s\n",
                shapes[i].n, shapes[i].ic, shapes[i].h, shapes[i].w, shapes[i].oc, shapes[i].k, shapes[i].pad, ey, en,
                ex, ew, e2, eb, err.text);
        }
        conv_done(&c);
    }
    cpu_done(&cpu);
}

TEST(all_shapes_against_double_loops) {
    passes(2, DR_PREC_F32, 2e-5);
}
TEST(one_thread) {
    passes(1, DR_PREC_F32, 2e-5);
}
TEST(bf16_within_its_precision) {
    passes(2, DR_PREC_BF16, 2e-2);
}

TEST(avx2_kernels) {
    best = DR_CPU_AVX2;
    passes(2, DR_PREC_F32, 2e-5);
    best = DR_CPU_AVX512;
}
TEST(without_amx) {
    dr_cpu_conv_limit(false);
    passes(2, DR_PREC_F32, 2e-5);
    dr_cpu_conv_limit(true);
}
TEST(bf16_without_amx) {
    dr_cpu_conv_limit(false);
    passes(2, DR_PREC_BF16, 2e-2);
    dr_cpu_conv_limit(true);
}
TEST(baseline_kernels) {
    best = DR_CPU_BASE;
    passes(2, DR_PREC_F32, 2e-5);
    best = DR_CPU_AVX512;
}

TEST(forward_gives_equal_bits_for_any_number_of_threads) {
    static const int big[][7] = {{1, 256, 66, 66, 256, 3, 0}, {1, 128, 64, 64, 256, 3, 1}, {1, 64, 90, 101, 128, 3, 1},
                                 {1, 256, 37, 45, 128, 3, 1}, {1, 128, 70, 33, 64, 3, 1},  {1, 3, 70, 70, 64, 7, 0},
                                 {1, 64, 71, 50, 3, 7, 0},    {1, 32, 65, 63, 64, 3, 1},   {1, 3, 50, 61, 32, 7, 0}};
    enum { N = sizeof big / sizeof *big };
    for (int i = 0; i < N && !t_bad; i++) {
        const int *q = big[i];
        for (int frozen = 0; frozen < 2; frozen++) {
            conv c = conv_make(q[0], q[1], q[2], q[3], q[4], q[5], q[6]);
            c.d.frozen = frozen;
            float *first = NULL;
            size_t bytes = count(c.y.shape) * sizeof *first;
            for (int threads = 1; threads <= 3; threads++) {
                dr_cpu cpu;
                dr_slot slot = {0};
                dr_status s = cpu_init(&cpu, threads, DR_PREC_F32);
                if (!s) s = dr_cpu_conv2d(&cpu.base, c.d, c.x, c.w, c.b, c.y, frozen ? &slot : NULL, NULL);
                if (!first) {
                    first = dr_malloc_aligned(bytes);
                    memcpy(first, c.y.data, bytes);
                }
                if (s || memcmp(first, c.y.data, bytes)) {
                    printf("# %d->%d, frozen %d: other bits with %d threads\n", q[1], q[4], frozen, threads);
                    t_bad = 1;
                }
                if (slot.p) slot.destroy(slot.p);
                cpu_done(&cpu);
            }
            dr_free(first);
            conv_done(&c);
        }
    }
}

/* ---- fused ---- */

static int reflected(int i, int n) {
    return i < 0 ? -i : i >= n ? 2 * (n - 1) - i : i;
}

static int clamped(int i, int n) {
    return i < 0 ? 0 : i >= n ? n - 1 : i;
}

/* Normalised value of x, in double. */
static double norm_at(dr_tensor x, const float *stats, bool relu, int n, int c, int y, int i) {
    double v = (double)((const float *)x.data)[at(x.shape, n, c, y, i)];
    if (!stats) return v;
    const float *s = stats + ((size_t)n * (size_t)x.shape.c + (size_t)c) * 2;
    v = (v - (double)s[0]) * (double)s[1];
    return relu && v < 0 ? 0 : v;
}

/* What the convolution sees at (y,i), after resampling. */
static double seen(dr_tensor x, const dr_conv_fuse *f, int n, int c, int y, int i) {
    bool relu = f->in_act == DR_ACT_RELU;
    int h = x.shape.h, w = x.shape.w;
    double sum = 0;
    if (f->in_then == DR_THEN_NONE) return norm_at(x, f->in_stats, relu, n, c, y, i);
    if (f->in_then == DR_THEN_BLUR_UP) {
        int oy = clamped(y / 2 + (y % 2 ? 1 : -1), h), oi = clamped(i / 2 + (i % 2 ? 1 : -1), w);
        for (int a = 0; a < 2; a++)
            for (int b = 0; b < 2; b++)
                sum += (a ? 0.25 : 0.75) * (b ? 0.25 : 0.75) *
                       norm_at(x, f->in_stats, relu, n, c, a ? oy : y / 2, b ? oi : i / 2);
        return sum;
    }
    for (int a = -1; a <= 1; a++)
        for (int b = -1; b <= 1; b++)
            sum += (a ? 0.25 : 0.5) * (b ? 0.25 : 0.5) *
                   norm_at(x, f->in_stats, relu, n, c, reflected(2 * y + a, h), reflected(2 * i + b, w));
    return sum;
}

/* The prepared and padded input of a fused convolution. */
static dr_tensor prepared(dr_tensor x, const dr_conv_fuse *f, int h, int w, int pad) {
    dr_tensor t = tensor((dr_shape){x.shape.n, x.shape.c, h + 2 * pad, w + 2 * pad}, 0);
    for (int n = 0; n < x.shape.n; n++)
        for (int c = 0; c < x.shape.c; c++)
            for (int y = -pad; y < h + pad; y++)
                for (int i = -pad; i < w + pad; i++) {
                    bool inside = y >= 0 && i >= 0 && y < h && i < w;
                    if (!inside && !f->reflect) continue;
                    double v = seen(x, f, n, c, reflected(y, h), reflected(i, w));
                    ((float *)t.data)[at(t.shape, n, c, y + pad, i + pad)] = (float)v;
                }
    return t;
}

static double check_stats(dr_tensor y, const float *stats, float eps) {
    double worst = 0;
    for (int n = 0; n < y.shape.n; n++)
        for (int c = 0; c < y.shape.c; c++) {
            double m = 0, q = 0, count = (double)y.shape.h * y.shape.w;
            for (int i = 0; i < y.shape.h * y.shape.w; i++)
                m += (double)((float *)y.data)[at(y.shape, n, c, i / y.shape.w, i % y.shape.w)];
            m /= count;
            for (int i = 0; i < y.shape.h * y.shape.w; i++) {
                double d = (double)((float *)y.data)[at(y.shape, n, c, i / y.shape.w, i % y.shape.w)] - m;
                q += d * d;
            }
            double r = 1 / sqrt(q / count + (double)eps);
            const float *s = stats + ((size_t)n * (size_t)y.shape.c + (size_t)c) * 2;
            double e = fabs((double)s[0] - m) * r, e2 = fabs((double)s[1] / r - 1);
            if (e > worst) worst = e;
            if (e2 > worst) worst = e2;
        }
    return worst;
}

typedef struct fused_case {
    int n, ic, h, w, oc, k, pad;
    bool norm, relu, reflect, stats;
    dr_norm_then then;
} fused_case;

static const fused_case fused_cases[] = {
    {1, 256, 16, 17, 256, 3, 1, true, true, true, true, DR_THEN_NONE},
    {2, 64, 15, 33, 128, 3, 1, true, true, false, true, DR_THEN_NONE},
    {1, 32, 9, 10, 48, 3, 1, true, false, true, true, DR_THEN_NONE},
    {1, 32, 12, 12, 32, 3, 1, false, false, true, true, DR_THEN_NONE},
    {1, 16, 5, 700, 16, 3, 1, true, true, true, true, DR_THEN_NONE},
    {2, 128, 21, 18, 256, 3, 1, true, true, false, true, DR_THEN_BLUR_DOWN},
    {1, 16, 9, 1301, 32, 3, 1, true, true, true, true, DR_THEN_BLUR_DOWN},
    {2, 256, 7, 9, 128, 3, 1, false, false, false, true, DR_THEN_BLUR_UP},
    {1, 128, 10, 8, 64, 3, 1, true, true, false, true, DR_THEN_BLUR_UP},
    {1, 16, 3, 333, 16, 3, 1, true, true, true, true, DR_THEN_BLUR_UP},
    {1, 3, 20, 19, 64, 7, 3, false, false, true, true, DR_THEN_NONE},
    {1, 3, 9, 517, 32, 7, 3, false, false, true, true, DR_THEN_NONE},
    {1, 64, 13, 22, 3, 7, 3, true, true, true, false, DR_THEN_NONE},
    {2, 32, 8, 600, 1, 7, 3, true, true, true, false, DR_THEN_NONE},
};

/* How many of the cases the backend takes; each within `limit`, with equal bits for 1, 2 and 3 threads. */
static int fused_passes(dr_precision prec, double limit) {
    int taken = 0;
    for (size_t i = 0; i < sizeof fused_cases / sizeof *fused_cases && !t_bad; i++) {
        const fused_case *q = &fused_cases[i];
        int h = q->h, w = q->w;
        if (q->then == DR_THEN_BLUR_UP) h *= 2, w *= 2;
        if (q->then == DR_THEN_BLUR_DOWN) h = (h + 1) / 2, w = (w + 1) / 2;
        dr_tensor x = tensor((dr_shape){q->n, q->ic, q->h, q->w}, 1);
        float *in_stats = array((size_t)q->n * (size_t)q->ic * 2, 21), *out_stats[3];
        for (int j = 0; j < q->n * q->ic; j++) in_stats[2 * j + 1] = 1 + 0.5f * in_stats[2 * j + 1];
        for (int t = 0; t < 3; t++) out_stats[t] = array((size_t)q->n * (size_t)q->oc * 2, 0);
        dr_conv_fuse f = {.in_stats = q->norm ? in_stats : NULL,
                          .in_act = q->relu ? DR_ACT_RELU : DR_ACT_NONE,
                          .in_then = q->then,
                          .reflect = q->reflect,
                          .eps = 1e-5f};
        conv c = conv_make(q->n, q->ic, h + 2 * q->pad, w + 2 * q->pad, q->oc, q->k, 0);
        dr_free(c.x.data);
        c.x = prepared(x, &f, h, w, q->pad);
        float *first = dr_malloc_aligned(count(c.y.shape) * sizeof *first);
        double e = 0, es = 0;
        bool same = true;
        dr_conv2d_desc d = {.k = q->k, .pad = q->pad, .frozen = true};
        for (int t = 0; t < 3 && !t_bad; t++) {
            dr_cpu cpu;
            dr_slot slot = {0};
            t_bad = cpu_init(&cpu, t + 1, prec) != DR_OK;
            f.out_stats = q->stats ? out_stats[t] : NULL;
            bool takes = dr_cpu_conv2d_fuses(&cpu.base, d, &f, x.shape, c.y.shape);
            if (takes && dr_cpu_conv2d_fused(&cpu.base, d, &f, x, c.w, c.b, c.y, &slot, NULL)) t_bad = 1;
            if (takes && t == 0) {
                taken++;
                e = check_y(&c, true, 800);
                if (q->stats) es = check_stats(c.y, out_stats[0], f.eps);
                memcpy(first, c.y.data, count(c.y.shape) * sizeof *first);
            } else if (takes) {
                same = same && !memcmp(first, c.y.data, count(c.y.shape) * sizeof *first) &&
                       !memcmp(out_stats[0], out_stats[t], (size_t)(q->n * q->oc * 2) * sizeof *first);
            }
            if (slot.p) slot.destroy(slot.p);
            cpu_done(&cpu);
        }
        if (t_bad || !same || !(e < limit && es < 1e-5)) {
            printf("# fused case %zu: error %.2g, of statistics %.2g, equal bits %d\n", i, e, es, same);
            t_bad = 1;
        }
        for (int t = 0; t < 3; t++) dr_free(out_stats[t]);
        dr_free(in_stats);
        dr_free(first);
        dr_free(x.data);
        conv_done(&c);
    }
    return taken;
}

TEST(fused_equals_its_parts) {
    for (int isa = DR_CPU_BASE; isa <= DR_CPU_AVX512 && !t_bad; isa++) {
        best = (enum dr_cpu_isa)isa;
        int taken = fused_passes(DR_PREC_F32, 2e-5);
        if (!t_bad && taken != 5) {
            printf("# %d cases are fused\n", taken);
            t_bad = 1;
        }
    }
    best = DR_CPU_AVX512;
}

TEST(fused_in_bf16) {
    int taken = fused_passes(DR_PREC_BF16, 2e-2);
    printf("# %d of %zu cases are fused here\n", taken, sizeof fused_cases / sizeof *fused_cases);
}

/* Split arithmetic never decides a pixel: forward f32 is as good with AMX as without. */
TEST(forward_f32_is_exact_to_a_few_bits) {
    dr_cpu cpu;
    CHECK(cpu_init(&cpu, 2, DR_PREC_F32) == DR_OK);
    static const int q[][7] = {{1, 256, 20, 20, 256, 3, 0}, {1, 3, 30, 30, 64, 7, 0}, {1, 64, 30, 30, 3, 7, 0}};
    for (int i = 0; i < 3 && !t_bad; i++) {
        conv c = conv_make(q[i][0], q[i][1], q[i][2], q[i][3], q[i][4], q[i][5], q[i][6]);
        t_bad = dr_cpu_conv2d(&cpu.base, c.d, c.x, c.w, c.b, c.y, NULL, NULL) || !(check_y(&c, true, 800) < 2e-6);
        conv_done(&c);
    }
    cpu_done(&cpu);
}

TEST(training_passes_repeat_their_bits) {
    dr_cpu cpu;
    CHECK(cpu_init(&cpu, 2, DR_PREC_F32) == DR_OK);
    static const int q[][7] = {{1, 64, 40, 40, 64, 3, 0}, {2, 64, 21, 30, 3, 7, 0}, {1, 3, 30, 30, 64, 4, 1}};
    for (int i = 0; i < 3 && !t_bad; i++) {
        conv a = conv_make(q[i][0], q[i][1], q[i][2], q[i][3], q[i][4], q[i][5], q[i][6]);
        conv b = conv_make(q[i][0], q[i][1], q[i][2], q[i][3], q[i][4], q[i][5], q[i][6]);
        dr_status s = dr_cpu_conv2d_dx(&cpu.base, a.d, a.dy, a.w, a.dx, NULL, NULL);
        if (!s) s = dr_cpu_conv2d_dx(&cpu.base, b.d, b.dy, b.w, b.dx, NULL, NULL);
        if (!s) s = dr_cpu_conv2d_dw(&cpu.base, a.d, a.x, a.dy, a.dw, a.db, NULL, NULL);
        if (!s) s = dr_cpu_conv2d_dw(&cpu.base, b.d, b.x, b.dy, b.dw, b.db, NULL, NULL);
        t_bad = s || memcmp(a.dx.data, b.dx.data, count(a.dx.shape) * sizeof(float)) ||
                memcmp(a.dw, b.dw, a.nw * sizeof(float)) || memcmp(a.db, b.db, (size_t)a.y.shape.c * sizeof(float));
        conv_done(&a);
        conv_done(&b);
    }
    cpu_done(&cpu);
}

TEST(slot_follows_changed_weights_and_shapes_unless_frozen) {
    dr_cpu cpu;
    CHECK(cpu_init(&cpu, 2, DR_PREC_F32) == DR_OK);
    conv c = conv_make(1, 32, 20, 22, 48, 3, 1), o = conv_make(1, 32, 11, 9, 48, 3, 1);
    dr_slot slot = {0}, frozen = {0};
    dr_status s = dr_cpu_conv2d(&cpu.base, c.d, c.x, c.w, c.b, c.y, &slot, NULL);
    for (size_t i = 0; i < c.nw; i++) c.w[i] = noise(33, i);
    if (!s) s = dr_cpu_conv2d(&cpu.base, c.d, c.x, c.w, c.b, c.y, &slot, NULL);
    double changed = s ? 1 : check_y(&c, true, 800);
    if (!s) s = dr_cpu_conv2d(&cpu.base, o.d, o.x, o.w, o.b, o.y, &slot, NULL);
    double other = s ? 1 : check_y(&o, true, 800);
    c.d.frozen = true;
    double kept[2] = {1, 1};
    for (int i = 0; i < 2 && !s; i++) {
        s = dr_cpu_conv2d(&cpu.base, c.d, c.x, c.w, c.b, c.y, &frozen, NULL);
        kept[i] = s ? 1 : check_y(&c, true, 800);
    }
    if (slot.p) slot.destroy(slot.p);
    if (frozen.p) frozen.destroy(frozen.p);
    conv_done(&c);
    conv_done(&o);
    cpu_done(&cpu);
    CHECK(s == DR_OK);
    CHECK_MSG(changed < 2e-5 && other < 2e-5, "%g %g", changed, other);
    CHECK_MSG(kept[0] < 2e-5 && kept[1] < 2e-5, "%g %g", kept[0], kept[1]);
}

TEST(no_memory_is_an_error_and_leaks_nothing) {
    conv c = conv_make(1, 16, 8, 8, 16, 3, 1), f = conv_make(1, 16, 8, 8, 3, 7, 0);
    c.d.frozen = true;
    bool done = false;
    for (long n = 1; n < 60 && !done && !t_bad; n++) {
        dr_cpu cpu;
        dr_slot slot = {0};
        dr_error err = {0};
        dr_alloc_fail_after(n, false);
        dr_status s = cpu_init(&cpu, 1, DR_PREC_F32);
        if (!s) s = dr_cpu_conv2d(&cpu.base, c.d, c.x, c.w, c.b, c.y, &slot, &err);
        if (!s) s = dr_cpu_conv2d_dx(&cpu.base, f.d, f.dy, f.w, f.dx, NULL, &err);
        if (!s) s = dr_cpu_conv2d_dw(&cpu.base, f.d, f.x, f.dy, f.dw, f.db, NULL, &err);
        done = dr_alloc_count() < n;
        dr_alloc_fail_after(0, false);
        if (slot.p) slot.destroy(slot.p);
        cpu_done(&cpu);
        if (s != (done ? DR_OK : DR_NOMEM)) t_bad = 1;
    }
    conv_done(&c);
    conv_done(&f);
    CHECK(done);
}
