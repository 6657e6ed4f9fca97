/* test_kern_freq.cpp tests cuda/k_freq.cu against the double sum of the definition: all bins of the whole transform,
 * one by one, so that half spectra, weights of columns and the way back are judged by something that has none of them.
 */
#include "tests/cuda/kt.h"

static size_t at(dk_map m, int plane, int y, int x) {
    return ((size_t)plane * (size_t)m.h + (size_t)y) * (size_t)m.w + (size_t)x;
}

/* The loss, and da = g times its gradient. */
static double spectrum(dk_map m, const vec &a, const vec &b, double g, vec &da) {
    const double root = sqrt((double)m.h * m.w), n = (double)dk_count(m);
    double sum = 0;
    da.assign(dk_count(m), 0.0);
    for (int p = 0; p < m.n * m.c; p++)
        for (int u = 0; u < m.h; u++)
            for (int v = 0; v < m.w; v++) {
                double re = 0, im = 0;
                for (int pass = 0; pass < 2; pass++) {
                    const double size = hypot(re, im);
                    if (pass) sum += size;
                    for (int y = 0; y < m.h; y++)
                        for (int x = 0; x < m.w; x++) {
                            const double angle = 2 * M_PI * ((double)u * y / m.h + (double)v * x / m.w);
                            const size_t i = at(m, p, y, x);
                            const double c = cos(angle) / root, s = sin(angle) / root;
                            if (!pass) re += (a[i] - b[i]) * c, im -= (a[i] - b[i]) * s;
                            if (pass && size > 0) da[i] += g / n * (re * c - im * s) / size;
                        }
                }
            }
    return sum / n;
}

static void freq_case(int n, int c, int h, int w) {
    const dk_map m = kt_map(n, c, h, w, false, DK_F32);
    vec a = kt_random(DK_F32, dk_count(m), 1, -1, 1), b = kt_random(DK_F32, dk_count(m), 2, -0.5, 0.5), want;
    const double value = spectrum(m, a, b, 1.7, want);
    kt_buf pa(DK_F32, a), pb(DK_F32, b), loss(DK_F32, 1), pd(DK_F32, dk_count(m));
    kt_mem scratch(dk_freq_scratch(m)), again(dk_freq_scratch(m));
    dk_freq(NULL, m, pa.f(), pb.f(), loss.f(), scratch.p);
    CHECK_VEC(loss.get(), vec(1, value), 2e-6, 1e-12);
    dk_freq_bwd(NULL, m, pa.f(), pb.f(), 1.7f, pd.f(), again.p);
    CHECK_VEC(pd.get(), want, 0, 2e-5 * 1.7 / (double)dk_count(m));
    CHECK_VEC(pa.get(), a, 0, 0);
    CHECK_VEC(pb.get(), b, 0, 0);
}

TEST(mean_magnitude_of_spectra) {
    static const int shapes[][4] = {{1, 1, 1, 1},   {1, 3, 1, 8},  {1, 1, 7, 1},   {2, 3, 5, 6},
                                    {1, 3, 16, 16}, {3, 1, 7, 33}, {1, 3, 20, 24}, {1, 1, 34, 70}};
    for (auto &s : shapes) freq_case(s[0], s[1], s[2], s[3]);
}

TEST(equal_pictures_have_no_gradient) {
    const dk_map m = kt_map(1, 3, 10, 12, false, DK_F32);
    kt_buf pa(DK_F32, kt_random(DK_F32, dk_count(m), 1)), loss(DK_F32, 1), pd(DK_F32, dk_count(m));
    kt_mem scratch(dk_freq_scratch(m));
    dk_freq(NULL, m, pa.f(), pa.f(), loss.f(), scratch.p);
    CHECK_VEC(loss.get(), vec(1, 0.0), 0, 0);
    dk_freq_bwd(NULL, m, pa.f(), pa.f(), 1, pd.f(), scratch.p);
    CHECK_VEC(pd.get(), vec(dk_count(m), 0.0), 0, 0);
}

/* One wave, one bin and its conjugate: half the amplitude times sqrt(hw) each. */
TEST(a_wave_has_two_bins) {
    const dk_map m = kt_map(1, 1, 12, 20, false, DK_F32);
    vec a(dk_count(m)), b(dk_count(m), 0.0);
    for (int y = 0; y < m.h; y++)
        for (int x = 0; x < m.w; x++) a[at(m, 0, y, x)] = 0.6 * cos(2 * M_PI * (3.0 * y / m.h + 7.0 * x / m.w) + 1);
    kt_buf pa(DK_F32, a), pb(DK_F32, b), loss(DK_F32, 1);
    kt_mem scratch(dk_freq_scratch(m));
    dk_freq(NULL, m, pa.f(), pb.f(), loss.f(), scratch.p);
    CHECK_VEC(loss.get(), vec(1, 0.6 / sqrt((double)dk_count(m))), 0, 2e-6);
}

TEST(a_nan_shows_in_the_loss) {
    const dk_map m = kt_map(1, 1, 6, 6, false, DK_F32);
    vec a(dk_count(m), 0.5);
    a[7] = (double)NAN;
    kt_buf pa(DK_F32, a), pb(DK_F32, vec(dk_count(m), 0.0)), loss(DK_F32, vec(1, 0.0));
    kt_mem scratch(dk_freq_scratch(m));
    dk_freq(NULL, m, pa.f(), pb.f(), loss.f(), scratch.p);
    CHECK(std::isnan(loss.get()[0]));
}
