/* test_kern_loss.cpp tests cuda/k_loss.cu and cuda/k_optim.cu: losses to 1e-6 of sums in double, gradients element by
 * element, Adam over several steps. */
#include "tests/cuda/kt.h"

static const size_t sizes[] = {1, 7, 255, 257, 4097, 300007};

static double gan(dk_gan mode, double s) {
    switch (mode) {
    case DK_HINGE_REAL:
        return s > 1 ? 0 : 1 - s;
    case DK_HINGE_FAKE:
        return s < -1 ? 0 : 1 + s;
    case DK_LSGAN_REAL:
        return (s - 1) * (s - 1);
    case DK_LSGAN_FAKE:
        return s * s;
    case DK_NEG_MEAN:
        break;
    }
    return -s;
}
static double gan_bwd(dk_gan mode, double s) {
    switch (mode) {
    case DK_HINGE_REAL:
        return s < 1 ? -1 : 0;
    case DK_HINGE_FAKE:
        return s > -1 ? 1 : 0;
    case DK_LSGAN_REAL:
        return 2 * (s - 1);
    case DK_LSGAN_FAKE:
        return 2 * s;
    case DK_NEG_MEAN:
        break;
    }
    return -1;
}

TEST(adversarial_losses) {
    const dk_gan modes[] = {DK_HINGE_REAL, DK_HINGE_FAKE, DK_LSGAN_REAL, DK_LSGAN_FAKE, DK_NEG_MEAN};
    for (dk_type t : kt_types)
        for (dk_gan mode : modes)
            for (size_t n : sizes) {
                if (n > 5000 && mode != DK_LSGAN_REAL) continue;
                vec s = kt_random(t, n, 1, -2, 1.5), ds(n);
                s[0] = 1, s[n / 2] = -1; /* the hinges */
                double sum = 0;
                for (size_t i = 0; i < n; i++) sum += gan(mode, s[i]), ds[i] = 0.3 / (double)n * gan_bwd(mode, s[i]);
                kt_buf ps(t, s), loss(DK_F32, 1), pd(t, n);
                kt_mem scratch(dk_loss_scratch(n));
                dk_gan_loss(NULL, mode, t, n, ps.p, loss.f(), scratch.p);
                CHECK_VEC(loss.get(), vec(1, sum / (double)n), 1e-6, 1e-12);
                dk_gan_loss_bwd(NULL, mode, t, n, ps.p, 0.3f, pd.p);
                CHECK_VEC(pd.get(), ds, kt_ulp(t), kt_tiny(t));
            }
}

TEST(a_nan_score_shows_in_the_loss) {
    vec s(1000, 0.5);
    s[777] = (double)NAN;
    kt_buf ps(DK_F32, s), loss(DK_F32, vec(1, 0.0));
    kt_mem scratch(dk_loss_scratch(1000));
    dk_gan_loss(NULL, DK_HINGE_REAL, DK_F32, 1000, ps.p, loss.f(), scratch.p);
    CHECK(std::isnan(loss.get()[0]));
}

TEST(mean_absolute_difference) {
    for (dk_type t : kt_types)
        for (size_t n : sizes) {
            vec a = kt_random(t, n, 2), b = kt_random(t, n, 3), da(n);
            if (n > 2) b[2] = a[2];
            double sum = 0;
            for (size_t i = 0; i < n; i++) {
                sum += fabs(a[i] - b[i]);
                da[i] = 1.7 / (double)n * ((a[i] > b[i]) - (a[i] < b[i]));
            }
            kt_buf pa(t, a), pb(t, b), loss(DK_F32, 1), pd(t, n);
            kt_mem scratch(dk_loss_scratch(n));
            dk_l1(NULL, t, n, pa.p, pb.p, loss.f(), scratch.p);
            CHECK_VEC(loss.get(), vec(1, sum / (double)n), 1e-6, 1e-12);
            dk_l1_bwd(NULL, t, n, pa.p, pb.p, 1.7f, pd.p);
            CHECK_VEC(pd.get(), da, kt_ulp(t), kt_tiny(t));
        }
}

/* With the placeholder e^(-10/T) among the candidates, as METHOD.md 7.2. */
static void nce_case(int groups, int s, double tau, double lo, double hi) {
    const double t = (double)(float)tau;
    size_t rows = (size_t)(groups * s), n_s = (size_t)s;
    vec sim = kt_random(DK_F32, rows * n_s, 4, lo, hi), grad(sim.size());
    if (hi <= 1)
        for (size_t r = 0; r < rows; r += 2) sim[r * n_s + r % n_s] = 1; /* every other row is nearly solved */
    double loss = 0;
    for (size_t r = 0; r < rows; r++) {
        const double *c = &sim[r * n_s];
        double top = -10, sum = 0;
        for (size_t j = 0; j < n_s; j++) top = fmax(top, c[j]);
        for (size_t j = 0; j < n_s; j++) sum += exp((c[j] - top) / t);
        sum += exp((-10 - top) / t);
        loss += log(sum) - (c[r % n_s] - top) / t;
        for (size_t j = 0; j < n_s; j++)
            grad[r * n_s + j] = 0.6 / (t * (double)rows) * (exp((c[j] - top) / t) / sum - (j == r % n_s));
    }
    kt_buf p(DK_F32, sim), value(DK_F32, 1);
    kt_mem scratch(dk_nce_scratch(groups, s));
    dk_nce(NULL, groups, s, (float)tau, p.f(), value.f(), scratch.p);
    CHECK_VEC(value.get(), vec(1, loss / (double)rows), 2e-6, 1e-12);
    CHECK_VEC(p.get(), sim, 0, 0);
    dk_nce_bwd(NULL, groups, s, (float)tau, 0.6f, p.f());
    CHECK_VEC(p.get(), grad, 1e-5, 1e-7 / (t * (double)rows));
}
TEST(patch_nce) {
    for (int s : {1, 2, 7, 31, 33, 255, 256}) nce_case(s < 100 ? 3 : 1, s, 0.07, -1, 1);
    nce_case(2, 256, 0.07, -1, 1);
    nce_case(2, 40, 1, -1, 1);
}
TEST(patch_nce_is_stable) {
    nce_case(2, 65, 0.07, 90, 100); /* e^1428 */
    nce_case(2, 65, 0.07, -100, -90);
    nce_case(1, 20, 1, -12, -8); /* the placeholder counts */
}

/* p - 1 is -1e-6 in such a row: f32 would lose it. */
TEST(patch_nce_of_solved_rows_keeps_its_gradient) {
    const double t = (double)0.07f, others = 2 * exp(-1 / t);
    vec sim = {1, 0, 0, 0, 1, 0, 0, 0, 1};
    kt_buf p(DK_F32, sim), value(DK_F32, 1);
    kt_mem scratch(dk_nce_scratch(1, 3));
    dk_nce(NULL, 1, 3, 0.07f, p.f(), value.f(), scratch.p);
    CHECK_VEC(value.get(), vec(1, log1p(others)), 1e-5, 0);
    dk_nce_bwd(NULL, 1, 3, 0.07f, 1, p.f());
    for (size_t i = 0; i < 3; i++) {
        double own = p.get()[i * 4], want = -others / (1 + others) / (3 * t);
        CHECK_MSG(fabs(own / want - 1) < 1e-5, "%g, expected %g", own, want);
    }
}

TEST(adam_follows_its_formula_for_steps) {
    for (size_t n : {(size_t)1, (size_t)3, (size_t)7, (size_t)1025, (size_t)2300003}) {
        vec p = kt_random(DK_F32, n, 5), m(n, 0.0), v(n, 0.0);
        kt_buf pp(DK_F32, p), pm(DK_F32, m), pv(DK_F32, v);
        const double b1 = (double)0.5f, b2 = (double)0.999f, lr = (double)1e-3f;
        for (int t = 1; t <= (n > 100000 ? 1 : 4); t++) {
            vec g = kt_random(DK_F32, n, 5u + (unsigned)t, -0.1, 0.1);
            g[0] = 0;
            const double c1 = 1 - pow(b1, t), c2 = 1 - pow(b2, t);
            for (size_t i = 0; i < n; i++) {
                m[i] = b1 * m[i] + (1 - b1) * g[i];
                v[i] = b2 * v[i] + (1 - b2) * g[i] * g[i];
                p[i] -= lr / c1 * m[i] / (sqrt(v[i] / c2) + (double)1e-8f);
            }
            kt_buf pg(DK_F32, g);
            dk_adam(NULL, n, 1e-3f, 0.5f, 0.999f, 1e-8f, (float)c1, (float)c2, pp.f(), pg.f(), pm.f(), pv.f());
            CHECK_VEC(pp.get(), p, 3e-7 * t, 1e-8 * t);
            CHECK_VEC(pm.get(), m, 1e-6, 1e-8);
            CHECK_VEC(pv.get(), v, 1e-6, 1e-9);
        }
    }
}

TEST(moving_average) {
    for (size_t n : sizes) {
        vec p = kt_random(DK_F32, n, 6), e = kt_random(DK_F32, n, 7), y(n);
        for (size_t i = 0; i < n; i++) y[i] = (double)0.999f * e[i] + (1 - (double)0.999f) * p[i];
        kt_buf pp(DK_F32, p), pe(DK_F32, e);
        dk_ema(NULL, n, 0.999f, pp.f(), pe.f());
        CHECK_VEC(pe.get(), y, 1e-6, 1e-7);
    }
}
