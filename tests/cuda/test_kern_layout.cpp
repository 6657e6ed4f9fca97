/* test_kern_layout.cpp tests cuda/k_layout.cu: moves between layouts exactly (up to the type's rounding), packed
 * weights there and back, bias gradients against sums in double. */
#include "tests/cuda/kt.h"

/* 1030 images: more than a grid is deep */
static const int shapes[][4] = {{1, 1, 1, 1},   {2, 3, 5, 7},     {1, 3, 33, 31}, {2, 8, 1, 3},
                                {1, 8, 40, 27}, {2, 24, 9, 5},    {1, 264, 6, 7}, {3, 64, 8, 8},
                                {1, 72, 1, 65}, {1030, 16, 1, 5}, {4, 1, 30, 30}, {2, 16, 32, 33}};

TEST(nchw_there_and_back) {
    for (dk_type t : kt_types)
        for (const int *s : shapes) {
            dk_map m = kt_map(s[0], s[1], s[2], s[3], s[1] % 8 == 0 && s[2] * s[3] > 1, t);
            dk_map planar = kt_map(s[0], s[1], s[2], s[3], false, DK_F32);
            vec x = kt_random(m.type, dk_count(m), 1), y(x.size());
            FOR_NCP(m) y[kt_at(m, n, c, p)] = x[kt_at(planar, n, c, p)];
            kt_buf px(DK_F32, x), py(m.type, x.size()), back(DK_F32, x.size());
            dk_from_nchw(NULL, m, px.f(), py.p);
            CHECK_VEC(py.get(), y, 0, 0);
            dk_to_nchw(NULL, m, py.p, back.f());
            CHECK_VEC(back.get(), x, 0, 0);
        }
}

TEST(widen_pads_with_zeros_and_rounds) {
    const int pads[] = {0, 8, 16, 72};
    for (dk_type t : kt_types)
        for (const int *s : shapes)
            for (int more : pads) {
                if (s[0] > 1000 && more != 16) continue;
                dk_map m = kt_map(s[0], s[1], s[2], s[3], false, DK_F32);
                int cpad = more ? (s[1] + 7) / 8 * 8 + more - 8 : s[1]; /* 0: none, whatever c is */
                dk_map w = kt_map(s[0], cpad, s[2], s[3], true, t);
                vec x = kt_random(DK_F32, dk_count(m), 2), y(dk_count(w), 0.0), back(x.size()), bias(x.size());
                vec b = kt_random(DK_F32, (size_t)m.c, 3);
                FOR_NCP(m) {
                    size_t i = kt_at(m, n, c, p);
                    back[i] = y[kt_at(w, n, c, p)] = kt_round(t, x[i]);
                    bias[i] = back[i] + b[(size_t)c];
                }
                kt_buf px(DK_F32, x), py(t, y.size()), pz(DK_F32, x.size()), pb(DK_F32, b);
                dk_widen(NULL, m, cpad, t, px.f(), py.p);
                CHECK_VEC(py.get(), y, 0, 0);
                dk_narrow(NULL, m, cpad, t, py.p, NULL, pz.f());
                CHECK_VEC(pz.get(), back, 0, 0);
                dk_narrow(NULL, m, cpad, t, py.p, pb.f(), pz.f());
                CHECK_VEC(pz.get(), bias, 1e-6, 1e-6);
            }
}

TEST(narrow_leaves_padded_channels_unread) {
    for (dk_type t : kt_types) {
        dk_map m = kt_map(1, 3, 4, 5, false, DK_F32);
        vec x(20 * 8, (double)NAN), y(60);
        for (int p = 0; p < 20; p++)
            for (int c = 0; c < 3; c++) x[(size_t)(p * 8 + c)] = y[(size_t)(c * 20 + p)] = p + c;
        kt_buf px(t, x), py(DK_F32, 60);
        dk_narrow(NULL, m, 8, t, px.p, NULL, py.f());
        CHECK_VEC(py.get(), y, 0, 0);
    }
}

TEST(weights_there_and_back) {
    const int w[][5] = {{1, 1, 1, 8, 8},     {64, 3, 7, 64, 8}, {3, 64, 7, 8, 64}, {1, 72, 4, 8, 72},
                        {8, 136, 3, 8, 136}, {5, 3, 1, 8, 8},   {9, 65, 3, 9, 65}, {2, 9, 15, 8, 16}};
    for (dk_type t : kt_types)
        for (const int *s : w) {
            int o = s[0], i = s[1], k = s[2], kk = k * k, opad = s[3], ipad = s[4];
            size_t n = (size_t)o * (size_t)i * (size_t)kk, np = (size_t)opad * (size_t)kk * (size_t)ipad;
            vec v = kt_random(DK_F32, n, 4), packed(np, 0.0), grad = kt_random(t, np, 5), dw = kt_random(DK_F32, n, 6);
            vec sum = dw;
            for (int a = 0; a < o; a++)
                for (int b = 0; b < i; b++)
                    for (int r = 0; r < kk; r++) {
                        size_t at = ((size_t)a * (size_t)i + (size_t)b) * (size_t)kk + (size_t)r;
                        size_t to = ((size_t)a * (size_t)kk + (size_t)r) * (size_t)ipad + (size_t)b;
                        packed[to] = kt_round(t, v[at]);
                        sum[at] += grad[to];
                    }
            kt_buf pv(DK_F32, v), pp(t, np), pg(t, grad), pd(DK_F32, dw);
            dk_pack_weights(NULL, o, i, k, opad, ipad, t, pv.f(), pp.p);
            CHECK_VEC(pp.get(), packed, 0, 0);
            dk_unpack_weights(NULL, o, i, k, opad, ipad, t, pg.p, pd.f());
            CHECK_VEC(pd.get(), sum, 1e-6, 1e-6);
        }
}

/* A k x k window as k rows: packed weights, and the sums of its rows. */
TEST(windows_as_rows) {
    const int cases[][6] = {{1, 3, 7, 24, 6, 5}, {2, 1, 7, 8, 3, 300}, {1, 3, 5, 16, 4, 4}, {3, 1, 5, 24, 1, 1}};
    for (dk_type t : kt_types)
        for (const int *s : cases) {
            const int o = s[1], k = s[2], i = s[3], opad = (k * o + 7) / 8 * 8, ipad = i + 8;
            vec w = kt_random(DK_F32, (size_t)(o * i * k * k), 11), packed((size_t)(opad * k * ipad), 0.0);
            for (int a = 0; a < o; a++)
                for (int b = 0; b < i; b++)
                    for (int r = 0; r < k; r++)
                        for (int c = 0; c < k; c++)
                            packed[(size_t)(((r * o + a) * k + c) * ipad + b)] =
                                kt_round(t, w[(size_t)(((a * i + b) * k + r) * k + c)]);
            kt_buf pw(DK_F32, w), pp(t, packed.size());
            dk_pack_rows(NULL, o, i, k, opad, ipad, t, pw.f(), pp.p);
            CHECK_VEC(pp.get(), packed, 0, 0);

            dk_map m = kt_map(s[0], o, s[4], s[5], false, DK_F32);
            const int rows = m.h + k - 1;
            vec x = kt_random(t, (size_t)(m.n * rows * m.w * opad), 12), b = kt_random(DK_F32, (size_t)o, 13),
                y(dk_count(m));
            FOR_NCP(m) {
                double sum = b[(size_t)c];
                for (int r = 0; r < k; r++)
                    sum += x[(size_t)(((n * rows + p / m.w + r) * m.w + p % m.w) * opad + r * o + c)];
                y[kt_at(m, n, c, p)] = sum;
            }
            kt_buf px(t, x), pb(DK_F32, b), py(DK_F32, y.size());
            dk_sum_rows(NULL, m, k, opad, t, px.p, pb.f(), py.f());
            CHECK_VEC(py.get(), y, 1e-6, 1e-5);
        }
}

/* An infinite part is seen in f16: NaN in the sums that it belongs to, and in no other. */
TEST(rows_beyond_the_range_of_f16) {
    for (dk_type t : kt_types)
        for (double odd : {(double)INFINITY, -(double)INFINITY, (double)NAN}) {
            dk_map m = kt_map(1, 3, 9, 5, false, DK_F32);
            vec x((size_t)(15 * 5 * 24), 0.25);
            x[(size_t)((7 * 5 + 2) * 24 + 4 * 3 + 1)] = odd; /* row 4 of output 1, line 7 - 4 = 3, column 2 */
            kt_buf px(t, x), py(DK_F32, dk_count(m));
            dk_sum_rows(NULL, m, 7, 24, t, px.p, NULL, py.f());
            vec y = py.get();
            FOR_NCP(m) {
                const double v = y[kt_at(m, n, c, p)];
                if (c == 1 && p == 3 * 5 + 2)
                    CHECK_MSG(t == DK_F16 || std::isnan(odd) ? std::isnan(v) : v == odd, "%s: %g", dk_type_name(t), v);
                else
                    CHECK_MSG(v == 7 * 0.25, "%d %d: %g", c, p, v);
            }
        }
}

TEST(bias_and_its_gradient) {
    const int more[][4] = {{16, 1, 70, 90}, {3, 8, 90, 91}, {2100, 3, 1, 1}, {300, 512, 1, 1}, {1, 128, 61, 20}};
    for (dk_type t : kt_types)
        for (int k = 0; k < 17; k++) {
            const int *s = k < 12 ? shapes[k] : more[k - 12];
            dk_map m = kt_map(s[0], s[1], s[2], s[3], s[1] % 8 == 0 && s[2] * s[3] > 1, t);
            size_t c_n = (size_t)m.c, terms = dk_count(m) / c_n;
            vec x = kt_random(m.type, dk_count(m), 7), b = kt_random(DK_F32, c_n, 8), y(x.size()), db = b;
            FOR_NCP(m) {
                size_t i = kt_at(m, n, c, p), j = (size_t)c;
                y[i] = x[i] + b[j];
                db[j] += x[i];
            }
            kt_buf px(m.type, x), pb(DK_F32, b);
            kt_mem scratch(dk_bias_grad_scratch(m));
            dk_bias_grad(NULL, m, px.p, pb.f(), scratch.p);
            CHECK_VEC(pb.get(), db, 1e-6, 1e-6 * sqrt((double)terms));
            if (!m.wide && m.h * m.w > 1) continue; /* narrow adds those */
            kt_buf b2(DK_F32, b);
            dk_bias_add(NULL, m, b2.f(), px.p);
            CHECK_VEC(px.get(), y, kt_ulp(m.type), 1e-6);
        }
}

/* Every window of every row: what the k x 1 convolution reads is what the k x k one would. */
TEST(columns_of_windows_become_channels) {
    const int cases[][8] = {/* n, c, h, w, k, row, rows, cpad */
                            {1, 3, 12, 13, 7, 0, 12, 24},  {2, 3, 9, 140, 7, 2, 7, 24}, {1, 1, 5, 5, 5, 4, 1, 8},
                            {3, 4, 6, 300, 5, 0, 6, 24},   {1, 2, 7, 7, 7, 1, 6, 16},   {1, 3, 3, 263, 7, 0, 3, 32},
                            {1, 4, 2, 70, 64, 0, 2, 256}, {900, 1, 90, 6, 5, 7, 80, 8}};
    for (dk_type t : kt_types)
        for (const int *s : cases) {
            const int k = s[4], row = s[5], rows = s[6], cpad = s[7], wide = s[3] - k + 1;
            dk_map m = kt_map(s[0], s[1], s[2], s[3], false, DK_F32), to = kt_map(s[0], cpad, rows, wide, true, t);
            vec x = kt_random(DK_F32, dk_count(m), 11), y(dk_count(to), 0.0);
            for (int n = 0; n < m.n; n++)
                for (int h = 0; h < rows; h++)
                    for (int w = 0; w < wide; w++)
                        for (int c = 0; c < k * m.c; c++)
                            y[kt_at(to, n, c, h * wide + w)] =
                                kt_round(t, x[kt_at(m, n, c % m.c, (row + h) * m.w + w + c / m.c)]);
            kt_buf px(DK_F32, x), py(t, y.size());
            dk_gather_columns(NULL, m, k, row, rows, cpad, t, px.f(), py.p);
            CHECK_VEC(py.get(), y, 0, 0);
        }
}

TEST(weights_by_columns) {
    const int w[][5] = {{64, 3, 7, 64, 24}, {5, 3, 7, 8, 32}, {16, 1, 5, 16, 8}, {24, 4, 5, 24, 24}, {3, 2, 9, 8, 24}};
    for (dk_type t : kt_types)
        for (const int *s : w) {
            const int o = s[0], i = s[1], k = s[2], opad = s[3], cpad = s[4];
            vec v = kt_random(DK_F32, (size_t)(o * i * k * k), 12), packed((size_t)(opad * k * cpad), 0.0);
            for (int a = 0; a < o; a++)
                for (int b = 0; b < i; b++)
                    for (int r = 0; r < k; r++)
                        for (int c = 0; c < k; c++)
                            packed[(size_t)((a * k + r) * cpad + c * i + b)] =
                                kt_round(t, v[(size_t)(((a * i + b) * k + r) * k + c)]);
            kt_buf pv(DK_F32, v), pp(t, packed.size());
            dk_pack_columns(NULL, o, i, k, opad, cpad, t, pv.f(), pp.p);
            CHECK_VEC(pp.get(), packed, 0, 0);
        }
}
