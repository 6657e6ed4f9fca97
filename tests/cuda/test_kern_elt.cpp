/* test_kern_elt.cpp tests cuda/k_elt.cu: every kernel, all types, sizes around the pieces of 16 bytes and the blocks,
 * in place too. */
#include "tests/cuda/kt.h"

static const size_t sizes[] = {1, 7, 8, 255, 257, 2049, 600001};

TEST(fill_writes_all_and_no_more) {
    for (dk_type t : kt_types)
        for (size_t n : sizes) {
            kt_buf y(t, n);
            dk_fill(NULL, t, n, 1.25f, y.p);
            CHECK_VEC(y.get(), vec(n, 1.25), 0, 0);
        }
}

TEST(more_than_one_launch_holds_at_once) { /* threads come round again */
    for (dk_type t : kt_types) {
        const size_t n = 4600003;
        vec a = kt_random(t, n, 12), y = a;
        for (double &v : y) v *= 2;
        kt_buf p(t, a);
        dk_scale(NULL, t, n, 2, p.p, p.p);
        CHECK_VEC(p.get(), y, 0, 0);
    }
}

TEST(axpy_add_scale) {
    for (dk_type t : kt_types)
        for (size_t n : sizes) {
            vec a = kt_random(t, n, 1), b = kt_random(t, n, 2), axpy(n), add(n), scale(n);
            for (size_t i = 0; i < n; i++) axpy[i] = b[i] + 0.75 * a[i], add[i] = a[i] + b[i], scale[i] = -1.5 * a[i];
            kt_buf pa(t, a), pb(t, b), y(t, n);
            dk_add(NULL, t, n, pa.p, pb.p, y.p);
            CHECK_VEC(y.get(), add, kt_ulp(t), 1e-6);
            dk_scale(NULL, t, n, -1.5f, pa.p, y.p);
            CHECK_VEC(y.get(), scale, kt_ulp(t), 0);
            dk_axpy(NULL, t, n, 0.75f, pa.p, pb.p);
            CHECK_VEC(pb.get(), axpy, kt_ulp(t), 1e-6);
            CHECK_VEC(pa.get(), a, 0, 0);
            dk_scale(NULL, t, n, -1.5f, pa.p, pa.p);
            CHECK_VEC(pa.get(), scale, kt_ulp(t), 0);
        }
}

static double act(dk_act a, double v) {
    return a == DK_ACT_RELU    ? (v < 0 ? 0 : v)
           : a == DK_ACT_LRELU ? (v < 0 ? 0.2 * v : v)
           : a == DK_ACT_TANH  ? tanh(v)
                               : v;
}
static double slope(dk_act a, double y) {
    return a == DK_ACT_RELU ? (y > 0) : a == DK_ACT_LRELU ? (y > 0 ? 1 : 0.2) : a == DK_ACT_TANH ? 1 - y * y : 1;
}

TEST(activations_and_their_gradients) {
    const dk_act all[] = {DK_ACT_NONE, DK_ACT_RELU, DK_ACT_LRELU, DK_ACT_TANH};
    for (dk_type t : kt_types)
        for (dk_act a : all)
            for (size_t n : {(size_t)1, (size_t)7, (size_t)257, (size_t)5000}) {
                vec x = kt_random(t, n, 3, -6, 6), dy = kt_random(t, n, 4), y(n), out = kt_random(t, n, 5, -1, 1),
                    dx(n);
                x[0] = out[n / 2] = 0;
                for (size_t i = 0; i < n; i++) y[i] = act(a, x[i]), dx[i] = slope(a, out[i]) * dy[i];
                kt_buf px(t, x), py(t, n), po(t, out), pd(t, dy), pg(t, n);
                dk_activate(NULL, t, n, a, px.p, py.p);
                CHECK_VEC(py.get(), y, kt_ulp(t), 1e-7);
                dk_activate_bwd(NULL, t, n, a, po.p, pd.p, pg.p);
                CHECK_VEC(pg.get(), dx, kt_ulp(t), 1e-6);
                dk_activate(NULL, t, n, a, px.p, px.p);
                CHECK_VEC(px.get(), y, kt_ulp(t), 1e-7);
                dk_activate_bwd(NULL, t, n, a, po.p, pd.p, pd.p);
                CHECK_VEC(pd.get(), dx, kt_ulp(t), 1e-6);
            }
}

/* Every half there and back; between each two neighbours: their middle, and what is next to it on either side. */
TEST(every_half_and_what_rounds_to_it) {
    vec v;
    for (int h = 0; h < 65536; h++) {
        const double a = f16_value((uint16_t)h),
                     b = (h & 0x7fff) == 0x7bff ? copysign(65536.0, a) : f16_value((uint16_t)(h + 1));
        v.push_back(a);
        if ((h & 0x7fff) >= 0x7c00) continue;
        const float mid = (float)((a + b) / 2);
        for (float f : {nextafterf(mid, -INFINITY), mid, nextafterf(mid, INFINITY)}) v.push_back((double)f);
    }
    for (double d : {65519.996, 65520.0, 1e30, -1e30, 1e-8, -1e-8, 3e-8, -0.0}) v.push_back((double)(float)d);
    for (int odd = 0; odd < 2; odd++) { /* eight at a time and one by one */
        const int c = odd ? 9 : 8;
        v.resize(v.size() / (size_t)c * (size_t)c);
        dk_map planar = kt_map(1, c, 1, (int)v.size() / c, false, DK_F32),
               half = kt_map(1, c, 1, planar.w, true, DK_F16);
        vec want(v.size());
        FOR_NCP(planar) want[kt_at(half, n, c, p)] = f16_round(v[kt_at(planar, n, c, p)]);
        kt_buf x(DK_F32, v), y(DK_F16, v.size());
        dk_widen(NULL, planar, c, DK_F16, x.f(), y.p);
        vec got = y.get();
        for (size_t i = 0; i < got.size(); i++)
            CHECK_MSG(std::isnan(want[i]) ? std::isnan(got[i])
                                          : got[i] == want[i] && std::signbit(got[i]) == std::signbit(want[i]),
                      "element %zu: %.9g, expected %.9g", i, got[i], want[i]);
    }
}

TEST(activations_keep_nan) {
    for (dk_type t : kt_types) {
        kt_buf x(t, 9), y(t, vec(9, 1.0)); /* poison is NaN */
        dk_activate(NULL, t, 9, DK_ACT_RELU, x.p, y.p);
        for (double v : y.get()) CHECK(std::isnan(v));
        dk_clamp(NULL, t, 9, -1, 1, x.p, y.p);
        for (double v : y.get()) CHECK(std::isnan(v));
    }
}

TEST(clamp_and_gradient_with_the_borders_inside) {
    for (dk_type t : kt_types)
        for (size_t n : {(size_t)3, (size_t)263, (size_t)4097}) {
            vec x = kt_random(t, n, 6), dy = kt_random(t, n, 7), y(n), dx(n);
            x[0] = -1, x[1] = 1;
            for (size_t i = 0; i < n; i++) {
                y[i] = x[i] < -1 ? -1 : x[i] > 1 ? 1 : x[i];
                dx[i] = x[i] < -1 || x[i] > 1 ? 0 : dy[i];
            }
            kt_buf px(t, x), py(t, n), pd(t, dy);
            dk_clamp(NULL, t, n, -1, 1, px.p, py.p);
            CHECK_VEC(py.get(), y, 0, 0);
            dk_clamp_bwd(NULL, t, n, -1, 1, px.p, pd.p, pd.p);
            CHECK_VEC(pd.get(), dx, 0, 0);
        }
}

TEST(one_channel_serves_all) {
    const int shapes[][4] = {{1, 1, 1, 1},   {2, 3, 5, 7},  {1, 3, 16, 24}, {3, 8, 1, 3},  {2, 24, 9, 5},
                             {1, 264, 4, 3}, {2, 64, 8, 8}, {1, 3, 33, 41}, {300, 3, 2, 2}};
    for (dk_type t : kt_types)
        for (const int *s : shapes) {
            dk_map m = kt_map(s[0], s[1], s[2], s[3], s[1] % 8 == 0, t);
            size_t hw = (size_t)m.h * (size_t)m.w, n_b = (size_t)m.n * hw;
            vec a = kt_random(m.type, dk_count(m), 8), b = kt_random(DK_F32, n_b, 9), y(a.size()), db(n_b, 0.0);
            FOR_NCP(m) {
                size_t i = kt_at(m, n, c, p), j = (size_t)n * hw + (size_t)p;
                y[i] = a[i] - 0.5 * b[j];
                db[j] += -0.5 * a[i];
            }
            kt_buf pa(m.type, a), pb(DK_F32, b), py(m.type, a.size()), pg(DK_F32, n_b);
            dk_add_bcast(NULL, m, -0.5f, pa.p, 1, pb.p, py.p);
            CHECK_VEC(py.get(), y, kt_ulp(m.type), 1e-6);
            dk_add_bcast_bwd(NULL, m, -0.5f, pa.p, 1, pg.p);
            CHECK_VEC(pg.get(), db, 1e-6, 1e-5);
            dk_add_bcast(NULL, m, -0.5f, pa.p, 1, pb.p, pa.p);
            CHECK_VEC(pa.get(), y, kt_ulp(m.type), 1e-6);
        }
}

TEST(equal_shapes_add_and_scale) {
    for (dk_type t : kt_types) {
        dk_map m = kt_map(2, 16, 3, 5, true, t);
        vec a = kt_random(t, dk_count(m), 10), b = kt_random(t, dk_count(m), 11), y(a.size()), db(a.size());
        for (size_t i = 0; i < a.size(); i++) y[i] = a[i] + 0.25 * b[i], db[i] = 0.25 * a[i];
        kt_buf pa(t, a), pb(t, b), py(t, a.size());
        dk_add_bcast(NULL, m, 0.25f, pa.p, m.c, pb.p, py.p);
        CHECK_VEC(py.get(), y, kt_ulp(t), 1e-6);
        dk_add_bcast_bwd(NULL, m, 0.25f, pa.p, m.c, py.p);
        CHECK_VEC(py.get(), db, kt_ulp(t), 0);
    }
}
