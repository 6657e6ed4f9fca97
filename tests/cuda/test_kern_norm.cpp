/* test_kern_norm.cpp - instance norm of cuda/k_norm.cu against its formula in double: statistics, every form of the
 * fused pass, the backward pass; and that equal images have equal bits, alone and in a batch. */
#include "tests/cuda/kern_test.h"

static const dk_act acts[] = {DK_ACT_NONE, DK_ACT_RELU, DK_ACT_LRELU};

static double slope(dk_act a) {
    return a == DK_ACT_RELU ? 0 : a == DK_ACT_LRELU ? 0.2 : 1;
}

/* Pairs (mean, rstd) of each plane. */
static double *stats_ref(dk_map m, const double *x) {
    size_t hw = (size_t)m.h * (size_t)m.w, planes = (size_t)m.n * (size_t)m.c;
    double *s = (double *)malloc(2 * planes * sizeof *s);
    for (size_t p = 0; p < planes; p++) {
        double mean = 0, var = 0;
        for (size_t i = 0; i < hw; i++) mean += x[p * hw + i] / (double)hw;
        for (size_t i = 0; i < hw; i++) var += (x[p * hw + i] - mean) * (x[p * hw + i] - mean) / (double)hw;
        s[2 * p] = mean;
        s[2 * p + 1] = 1 / sqrt(var + (double)EPS);
    }
    return s;
}
static double *normed_ref(dk_map m, const double *x, const double *s, dk_act act) {
    size_t hw = (size_t)m.h * (size_t)m.w;
    double *y = (double *)malloc(dk_count(m) * sizeof *y);
    for (size_t i = 0; i < dk_count(m); i++) {
        double v = (x[i] - s[2 * (i / hw)]) * s[2 * (i / hw) + 1];
        y[i] = v < 0 ? slope(act) * v : v;
    }
    return y;
}
static dk_map stats_map(dk_map m) {
    return map(false, DK_F32, 1, 1, m.n * m.c, 2);
}

/* Runs dk_norm_stats; *ret_host: the device's numbers. */
static float *run_stats(dk_map m, const void *x, double **ret_host) {
    void *stats = dev_out(stats_map(m)), *scratch = dev_bytes(dk_norm_scratch(m));
    dk_norm_stats(NULL, m, EPS, x, (float *)stats, scratch);
    cudaFree(scratch);
    *ret_host = get(stats_map(m), stats);
    return (float *)stats;
}

static void check_stats(dk_map m, double mean, double spread, double tol) {
    double *x = random_host(m, mean, spread), *want = stats_ref(m, x), *got, wm = 0, wr = 0;
    void *dx = put(m, x);
    float *stats = run_stats(m, dx, &got);
    for (int p = 0; p < m.n * m.c; p++) {
        double em = fabs(got[2 * p] - want[2 * p]) * want[2 * p + 1], er = fabs(got[2 * p + 1] / want[2 * p + 1] - 1);
        if (!(em <= wm)) wm = em;
        if (!(er <= wr)) wr = er;
    }
    cudaFree(dx);
    cudaFree(stats);
    free(x);
    free(want);
    free(got);
    CHECK(!cudaGetLastError());
    /* the mean itself rounds to a float, which counts in units of the deviation */
    CHECK_MSG(wm <= tol + 1.3e-7 * fabs(mean) / spread, "%s: mean off by %g deviations", map_text(m), wm);
    CHECK_MSG(wr <= tol, "%s: rstd off by %g", map_text(m), wr);
}

/* Sizes of all shapes tested below: wide at all types, then planar. */
static int for_maps(int i, dk_map *m) {
    static const int wide[][4] = {{1, 8, 2, 2},   {2, 16, 3, 7},  {3, 24, 5, 5}, {1, 264, 4, 3},
                                  {1, 40, 11, 9}, {2, 8, 17, 33}, {1, 64, 9, 16}};
    static const int planar[][4] = {{1, 3, 2, 2}, {2, 3, 3, 8}, {3, 1, 7, 5}, {1, 5, 40, 33}};
    int nw = (int)LEN(wide);
    if (i >= 3 * nw + (int)LEN(planar)) return 0;
    const int *s = i < 3 * nw ? wide[i / 3] : planar[i - 3 * nw];
    *m = map(i < 3 * nw, i < 3 * nw ? (dk_type)(i % 3) : DK_F32, s[0], s[1], s[2], s[3]);
    return 1;
}

TEST(statistics) {
    dk_map m;
    for (int i = 0; for_maps(i, &m) && !t_bad; i++) check_stats(m, 0.3, 1.5, 3e-6);
    if (!t_bad) check_stats(map(true, DK_F32, 1, 8, 1, 9), 0, 1, 3e-6);
    if (!t_bad) check_stats(map(true, DK_F32, 1, 2056, 2, 3), 0, 1, 3e-6); /* more than 256 groups of channels */
}
/* A mean of 100 deviations would leave nothing of unshifted sums. */
TEST(statistics_of_a_large_mean) {
    check_stats(map(true, DK_F32, 1, 16, 40, 37), 200, 2, 2e-5);
    if (!t_bad) check_stats(map(false, DK_F32, 1, 2, 40, 37), 200, 2, 2e-5);
}
/* eps counts where there is next to no variance; one pixel has none. */
TEST(statistics_of_flat_planes) {
    check_stats(map(true, DK_F32, 1, 8, 8, 8), 0, 1e-3, 3e-6);
    if (!t_bad) check_stats(map(true, DK_F32, 2, 8, 1, 1), 3, 1, 3e-6);
}
/* More slabs than a reduction's rows of threads. */
TEST(statistics_of_many_slabs) {
    check_stats(map(true, DK_BF16, 1, 264, 40, 41), 0, 1, 3e-6);
    if (!t_bad) check_stats(map(true, DK_F32, 1, 256, 36, 44), 0, 1, 3e-6);
}

/* resid has `ring` more pixels on every side. */
static void check_apply(dk_map m, dk_act act, dk_then then, int p, int ring) {
    kind k = then == DK_THEN_BLUR_DOWN ? DOWN : then == DK_THEN_BLUR_UP ? UP : PAD;
    int need = k == PAD ? p + 1 : k == DOWN ? 2 : 1;
    if (m.h < need || m.w < need) return;
    dk_map o = out_of(k, m, p), rm = sized(m, m.h + 2 * ring, m.w + 2 * ring);
    double *x = random_host(m, 0.3, 1.5), *r = random_host(rm, 0, 1), *hs;
    void *dx = put(m, x), *dr = then == DK_THEN_ADD ? put(rm, r) : NULL, *dy = dev_out(o);
    float *stats = run_stats(m, dx, &hs);
    double *mid = normed_ref(m, x, hs, act), *want = (double *)malloc(dk_count(o) * sizeof *want);
    if (then == DK_THEN_ADD)
        for (int pl = 0; pl < m.n * m.c; pl++)
            for (int y = 0; y < m.h; y++)
                for (int c = 0; c < m.w; c++)
                    mid[((size_t)pl * (size_t)m.h + (size_t)y) * (size_t)m.w + (size_t)c] +=
                        r[((size_t)pl * (size_t)rm.h + (size_t)(y + ring)) * (size_t)rm.w + (size_t)(c + ring)];
    resample(k, true, m, p, mid, want);
    dk_norm_apply(NULL, m, dx, stats, act, then, p, dr, rm.h, rm.w, dy);
    double w = worst(o, dy, want, 0.5), changed = worst(m, dx, x, 1);
    void *all[] = {dx, dr, dy, stats};
    for (size_t i = 0; i < LEN(all); i++) cudaFree(all[i]);
    double *host[] = {x, r, hs, mid, want};
    for (size_t i = 0; i < LEN(host); i++) free(host[i]);
    CHECK(!cudaGetLastError());
    CHECK_MSG(w <= tolerance(m), "%s act %d then %d p %d ring %d: error %g", map_text(m), act, then, p, ring, w);
    CHECK_MSG(changed == 0, "%s then %d: the input changed", map_text(m), then);
}

static void check_applies(dk_then then, int p, int ring) {
    dk_map m;
    for (int i = 0; for_maps(i, &m); i++)
        for (size_t a = 0; a < LEN(acts) && !t_bad; a++)
            if (m.c <= 64 || a == 1) check_apply(m, acts[a], then, p, ring);
}
TEST(apply_alone) {
    check_applies(DK_THEN_NONE, 0, 0);
}
TEST(apply_reflect_1) {
    check_applies(DK_THEN_REFLECT, 1, 0);
}
TEST(apply_reflect_3) {
    check_applies(DK_THEN_REFLECT, 3, 0);
}
TEST(apply_blur_down) {
    check_applies(DK_THEN_BLUR_DOWN, 0, 0);
}
TEST(apply_blur_up) {
    check_applies(DK_THEN_BLUR_UP, 0, 0);
}
TEST(apply_add) {
    check_applies(DK_THEN_ADD, 0, 0);
}
TEST(apply_add_of_padded) {
    check_applies(DK_THEN_ADD, 0, 1);
}
TEST(apply_add_reflect) {
    check_applies(DK_THEN_ADD, 1, 1);
    if (!t_bad) check_applies(DK_THEN_ADD, 3, 0);
}
TEST(apply_large) { /* several pixels to a thread */
    check_apply(map(true, DK_BF16, 1, 8, 33, 531), DK_ACT_RELU, DK_THEN_REFLECT, 3, 0);
    if (!t_bad) check_apply(map(true, DK_BF16, 1, 128, 33, 268), DK_ACT_RELU, DK_THEN_ADD, 1, 1);
    if (!t_bad) check_apply(map(true, DK_F16, 1, 128, 33, 268), DK_ACT_RELU, DK_THEN_ADD, 1, 1);
}

/* y may be x, or the skip where it has no border. */
TEST(apply_in_place) {
    for (int k = 0; k < 9; k++) {
        const int form = k / 3;
        dk_map m = map(true, (dk_type)(k % 3), 2, 16, 7, 19);
        double *x = random_host(m, 0, 1), *r = random_host(m, 0, 1), *hs;
        void *dx = put(m, x), *dr = put(m, r);
        float *stats = run_stats(m, dx, &hs);
        double *want = normed_ref(m, x, hs, DK_ACT_RELU);
        for (size_t i = 0; form && i < dk_count(m); i++) want[i] += r[i];
        void *y = form == 2 ? dr : dx;
        dk_norm_apply(NULL, m, dx, stats, DK_ACT_RELU, form ? DK_THEN_ADD : DK_THEN_NONE, 0, form ? dr : NULL, m.h, m.w,
                      y);
        double w = worst(m, y, want, 0.5);
        void *all[] = {dx, dr, stats};
        for (size_t i = 0; i < LEN(all); i++) cudaFree(all[i]);
        double *host[] = {x, r, hs, want};
        for (size_t i = 0; i < LEN(host); i++) free(host[i]);
        CHECK_MSG(w <= tolerance(m), "form %d: error %g", form, w);
    }
}

static void check_bwd(dk_map m, dk_act act) {
    size_t hw = (size_t)m.h * (size_t)m.w;
    double *x = random_host(m, 0.3, 1.5), *dy = random_host(m, 0.1, 1), *hs;
    double *want = (double *)malloc(dk_count(m) * sizeof *want);
    void *d_x = put(m, x), *d_dy = put(m, dy), *d_dx = dev_out(m), *scratch = dev_bytes(dk_norm_scratch(m));
    float *stats = run_stats(m, d_x, &hs);
    for (size_t p = 0; p < dk_count(m) / hw; p++) {
        double mg = 0, mgx = 0;
        for (int pass = 0; pass < 2; pass++)
            for (size_t i = p * hw; i < (p + 1) * hw; i++) {
                double xh = (x[i] - hs[2 * p]) * hs[2 * p + 1], g = xh > 0 ? dy[i] : slope(act) * dy[i];
                if (pass) {
                    want[i] = hs[2 * p + 1] * (g - mg - xh * mgx);
                } else {
                    mg += g / (double)hw;
                    mgx += g * xh / (double)hw;
                }
            }
    }
    dk_norm_bwd(NULL, m, act, d_x, stats, d_dy, d_dx, scratch);
    double w = worst(m, d_dx, want, 0.5);
    void *all[] = {d_x, d_dy, d_dx, scratch, stats};
    for (size_t i = 0; i < LEN(all); i++) cudaFree(all[i]);
    double *host[] = {x, dy, hs, want};
    for (size_t i = 0; i < LEN(host); i++) free(host[i]);
    CHECK(!cudaGetLastError());
    CHECK_MSG(w <= tolerance(m) * 2, "%s act %d: error %g", map_text(m), act, w);
}

TEST(backward) {
    dk_map m;
    for (int i = 0; for_maps(i, &m); i++)
        for (size_t a = 0; a < LEN(acts) && !t_bad; a++)
            if (m.c <= 64 || a == 1) check_bwd(m, acts[a]);
}

/* An image has the same bits alone and as the last of three, forward and backward. */
TEST(batches_change_no_bit) {
    for (int k = 0; k < 3; k++) {
        const bool wide = k > 0;
        dk_map m3 = map(wide, (dk_type)k, 3, wide ? 24 : 3, 21, 34), m1 = m3;
        m1.n = 1;
        size_t one = dk_count(m1);
        double *x = random_host(m3, 0, 1), *dy = random_host(m3, 0, 1), *s3, *s1;
        void *x3 = put(m3, x), *x1 = put(m1, x + 2 * one), *dy3 = put(m3, dy), *dy1 = put(m1, dy + 2 * one);
        void *dx3 = dev_out(m3), *dx1 = dev_out(m1), *scratch = dev_bytes(dk_norm_scratch(m3));
        float *st3 = run_stats(m3, x3, &s3), *st1 = run_stats(m1, x1, &s1);
        dk_norm_bwd(NULL, m3, DK_ACT_LRELU, x3, st3, dy3, dx3, scratch);
        dk_norm_bwd(NULL, m1, DK_ACT_LRELU, x1, st1, dy1, dx1, scratch);
        double *h3 = get(m3, dx3), *h1 = get(m1, dx1);
        bool stats_same = !memcmp(s3 + 4 * m1.c, s1, sizeof *s1 * 2 * (size_t)m1.c);
        bool dx_same = !memcmp(h3 + 2 * one, h1, sizeof *h1 * one);
        void *all[] = {x3, x1, dy3, dy1, dx3, dx1, scratch, st3, st1};
        for (size_t i = 0; i < LEN(all); i++) cudaFree(all[i]);
        double *host[] = {x, dy, s3, s1, h3, h1};
        for (size_t i = 0; i < LEN(host); i++) free(host[i]);
        CHECK(stats_same);
        CHECK(dx_same);
    }
}
