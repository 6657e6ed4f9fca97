/* test_kern_heads.cpp tests cuda/k_heads.cu: gather and scatter, all forms of the product against sums in double, row
 * norms with their gradients. */
#include "tests/cuda/kt.h"

static std::vector<int32_t> positions(int s, int hw, unsigned seed) {
    std::vector<int32_t> all((size_t)hw);
    for (int i = 0; i < hw; i++) all[(size_t)i] = i;
    uint64_t r = seed;
    for (int i = hw - 1; i > 0; i--) {
        r = r * 6364136223846793005ull + 1442695040888963407ull;
        std::swap(all[(size_t)i], all[(size_t)((r >> 33) % (uint64_t)(i + 1))]);
    }
    all.resize((size_t)s);
    return all;
}

TEST(gather_and_scatter) {
    const int cases[][5] = {{1, 8, 1, 2, 1},      {2, 128, 16, 17, 256}, {1, 264, 3, 5, 7},  {3, 24, 4, 4, 16},
                            {1, 256, 33, 9, 255}, {2, 3, 5, 7, 11},      {1, 1, 20, 20, 50}, {2, 16, 1, 1, 1}};
    for (dk_type t : kt_types)
        for (const int *k : cases) {
            dk_map m = kt_map(k[0], k[1], k[2], k[3], k[1] % 8 == 0 && k[2] * k[3] > 1, t);
            int s = k[4], hw = m.h * m.w;
            std::vector<int32_t> idx = positions(s, hw, 5);
            size_t n_rows = (size_t)(m.n * s * m.c);
            vec x = kt_random(m.type, dk_count(m), 1), rows(n_rows), drows = kt_random(DK_F32, n_rows, 2);
            vec dx(x.size(), 0.0);
            for (int n = 0; n < m.n; n++)
                for (int i = 0; i < s; i++)
                    for (int c = 0; c < m.c; c++) {
                        size_t row = (size_t)((n * s + i) * m.c + c), at = kt_at(m, n, c, idx[(size_t)i]);
                        rows[row] = x[at];
                        dx[at] = kt_round(m.type, drows[row]);
                    }
            kt_mem pi((size_t)s * 4);
            cudaMemcpy(pi.p, idx.data(), (size_t)s * 4, cudaMemcpyHostToDevice);
            kt_buf px(m.type, x), py(DK_F32, n_rows), pd(DK_F32, drows), pg(m.type, x.size());
            dk_gather(NULL, m, (const int32_t *)pi.p, s, px.p, py.f());
            CHECK_VEC(py.get(), rows, 0, 0);
            dk_gather_bwd(NULL, m, (const int32_t *)pi.p, s, pd.f(), pg.p);
            CHECK_VEC(pg.get(), dx, 0, 0);
        }
}

/* One product with rows `gap` longer than needed, in memory of the exact size; what lies in the gaps stays. */
static bool product_is_right(bool ta, bool tb, int M, int N, int K, float beta, int gap, int batch) {
    size_t ar = (size_t)(ta ? K : M), ac = (size_t)(ta ? M : K), br = (size_t)(tb ? N : K), bc = (size_t)(tb ? K : N);
    size_t lda = ac + (size_t)gap, ldb = bc + (size_t)gap, ldc = (size_t)(N + gap);
    size_t sa = ar * lda, sb = br * ldb, sc = (size_t)M * ldc, z_n = (size_t)batch;
    vec a = kt_random(DK_F32, sa * z_n, 1), b = kt_random(DK_F32, sb * z_n, 2), c = kt_random(DK_F32, sc * z_n, 3);
    vec want = c;
    for (size_t z = 0; z < z_n; z++)
        for (size_t i = 0; i < (size_t)M; i++)
            for (size_t j = 0; j < (size_t)N; j++) {
                double sum = 0;
                for (size_t k = 0; k < (size_t)K; k++)
                    sum += a[z * sa + (ta ? k * lda + i : i * lda + k)] * b[z * sb + (tb ? j * ldb + k : k * ldb + j)];
                double *w = &want[z * sc + i * ldc + j];
                *w = 0.5 * sum + (beta != 0 ? (double)beta * *w : 0);
            }
    if (beta == 0 && gap == 0) c.assign(c.size(), (double)NAN); /* is not read */
    kt_buf pa(DK_F32, a), pb(DK_F32, b), pc(DK_F32, c);
    dk_gemm(NULL, ta, tb, M, N, K, 0.5f, pa.f(), lda, sa, pb.f(), ldb, sb, beta, pc.f(), ldc, sc, batch);
    vec got = pc.get();
    long at = kt_differs(got, want, 1e-6, 2e-6 * sqrt((double)K));
    if (at >= 0)
        printf("# ta %d tb %d %dx%dx%d beta %g gap %d batch %d: element %ld is %.9g, expected %.9g\n", ta, tb, M, N, K,
               (double)beta, gap, batch, at, got[(size_t)at], want[(size_t)at]);
    return at < 0;
}

TEST(products_of_all_forms) {
    const int sizes[][3] = {{1, 1, 1},    {7, 5, 3},     {33, 31, 65},  {64, 64, 16}, {65, 63, 17},
                            {1, 257, 33}, {130, 1, 100}, {32, 32, 257}, {31, 96, 32}, {40, 70, 31}};
    for (const int *s : sizes)
        for (int form = 0; form < 4; form++)
            for (int b = 0; b < 3; b++)
                CHECK(product_is_right(form & 1, form & 2, s[0], s[1], s[2], b == 0 ? 0 : b == 1 ? 1 : -0.5f, b, 1));
}

TEST(products_in_batches) {
    for (int form = 0; form < 4; form++) {
        CHECK(product_is_right(form & 1, form & 2, 33, 40, 19, 0, 0, 5));
        CHECK(product_is_right(form & 1, form & 2, 65, 66, 21, 1, 3, 24)); /* 96 tiles: the large ones */
        CHECK(product_is_right(form & 1, form & 2, 128, 70, 40, 0, 0, 25));
    }
}

TEST(more_products_than_a_grid_is_deep) {
    CHECK(product_is_right(false, false, 5, 6, 7, 0, 0, 1027));
}

TEST(products_of_the_heads) {
    CHECK(product_is_right(false, true, 2048, 192, 24, 0, 0, 1)); /* forward: large tiles */
    CHECK(product_is_right(true, false, 72, 96, 2048, 1, 0, 1));  /* weights: small tiles, long sum */
    CHECK(product_is_right(false, true, 256, 256, 32, 0, 0, 2));  /* similarities */
}

TEST(equal_products_have_equal_bits) {
    vec a = kt_random(DK_F32, 100 * 300, 1), b = kt_random(DK_F32, 300 * 90, 2);
    kt_buf pa(DK_F32, a), pb(DK_F32, b), c1(DK_F32, 9000), c2(DK_F32, 9000);
    dk_gemm(NULL, false, false, 100, 90, 300, 1, pa.f(), 300, 0, pb.f(), 90, 0, 0, c1.f(), 90, 0, 1);
    dk_gemm(NULL, false, false, 100, 90, 300, 1, pa.f(), 300, 0, pb.f(), 90, 0, 0, c2.f(), 90, 0, 1);
    CHECK_VEC(c1.get(), c2.get(), 0, 0);
}

TEST(row_bias_and_column_sums) {
    const int sizes[][2] = {{1, 1}, {7, 3}, {255, 256}, {2048, 24}, {64, 265}, {1, 2050}};
    for (const int *s : sizes) {
        size_t rows = (size_t)s[0], cols = (size_t)s[1];
        vec x = kt_random(DK_F32, rows * cols, 1), b = kt_random(DK_F32, cols, 2), y(x.size()), db = b;
        for (size_t i = 0; i < x.size(); i++) y[i] = x[i] + b[i % cols], db[i % cols] += x[i];
        kt_buf px(DK_F32, x), pb(DK_F32, b), pd(DK_F32, b);
        dk_col_sum(NULL, s[0], s[1], px.f(), pd.f());
        CHECK_VEC(pd.get(), db, 1e-6, 1e-6 * sqrt((double)rows));
        dk_row_bias(NULL, s[0], s[1], pb.f(), px.f());
        CHECK_VEC(px.get(), y, 1e-6, 1e-6);
    }
}

TEST(l2norm_and_gradient) {
    const int sizes[][2] = {{1, 1}, {5, 3}, {9, 33}, {257, 256}, {8, 264}};
    for (const int *s : sizes) {
        size_t rows = (size_t)s[0], cols = (size_t)s[1], n = rows * cols;
        vec v = kt_random(DK_F32, n, 1), dy = kt_random(DK_F32, n, 2), y(n), norms(rows), dv(n);
        if (rows > 3)
            for (size_t j = 0; j < cols; j++) {
                v[cols + j] = 0;
                v[2 * cols + j] *= 1e-25; /* whose squares are no floats */
                v[3 * cols + j] *= 1e-8;  /* where the 1e-7 counts */
            }
        for (double &e : v) e = kt_round(DK_F32, e);
        for (size_t i = 0; i < rows; i++) {
            double sum = 0, dot = 0;
            for (size_t j = 0; j < cols; j++) sum += v[i * cols + j] * v[i * cols + j];
            double a = norms[i] = sqrt(sum), e = a + 1e-7;
            for (size_t j = 0; j < cols; j++)
                y[i * cols + j] = v[i * cols + j] / e, dot += y[i * cols + j] * dy[i * cols + j];
            for (size_t j = 0; j < cols; j++)
                dv[i * cols + j] = a == 0 ? 0 : (dy[i * cols + j] - y[i * cols + j] * dot * e / a) / e;
        }
        kt_buf pv(DK_F32, v), pn(DK_F32, rows), py(DK_F32, n), pd(DK_F32, dy), pg(DK_F32, n);
        dk_l2norm(NULL, s[0], s[1], pv.f(), pn.f(), py.f());
        CHECK_VEC(pn.get(), norms, 1e-6, 0);
        CHECK_VEC(py.get(), y, 1e-6, 0);
        dk_l2norm_bwd(NULL, s[0], s[1], py.f(), pn.f(), pd.f(), pg.f());
        vec got = pg.get();
        for (size_t i = 0; i < rows; i++) { /* relative to what was subtracted: up to |dy|/|v| */
            vec g(got.begin() + (long)(i * cols), got.begin() + (long)((i + 1) * cols));
            vec w(dv.begin() + (long)(i * cols), dv.begin() + (long)((i + 1) * cols));
            CHECK_VEC(g, w, 1e-5, 5e-6 / (norms[i] + 1e-7));
        }
    }
}
