/* linear.c - rows of the projection heads: gather, linear layers, L2 norm. All matrices are row-major.
 *
 * The right-hand matrix of a product is packed once in panels; threads take blocks of ROWS rows. Every element of the
 * result is summed by one thread in the order of k. */
#include "core/cpu/conv.h"
#include "core/cpu/entries.h"
#include <math.h>
#include <string.h>

enum { ROWS = 30 }; /* a multiple of the row tile of every instruction set */

dr_status dr_cpu_gather(dr_backend *be, dr_tensor x, const int32_t *idx, int s, dr_tensor rows, dr_error *err) {
    (void)err;
    dr_planes g = dr_cpu_planes(dr_cpu_of(be), x.shape);
    const float *px = x.data;
    float *py = rows.data;
    int per_image = g.n_planes / x.shape.n;
    for (int n = 0; n < x.shape.n; n++)
        for (int i = 0; i < s; i++)
            for (int p = 0; p < per_image; p++, py += g.lanes)
                memcpy(py, px + (size_t)(n * per_image + p) * g.plane + (size_t)idx[i] * (size_t)g.lanes,
                       (size_t)g.lanes * sizeof *py);
    return DR_OK;
}

dr_status dr_cpu_gather_bwd(dr_backend *be, dr_tensor drows, const int32_t *idx, int s, dr_tensor dx, dr_error *err) {
    dr_status st = dr_cpu_fill(be, 0, dx, err);
    if (st) return st;
    dr_planes g = dr_cpu_planes(dr_cpu_of(be), dx.shape);
    const float *pd = drows.data;
    float *px = dx.data;
    int per_image = g.n_planes / dx.shape.n;
    for (int n = 0; n < dx.shape.n; n++)
        for (int i = 0; i < s; i++)
            for (int p = 0; p < per_image; p++, pd += g.lanes)
                memcpy(px + (size_t)(n * per_image + p) * g.plane + (size_t)idx[i] * (size_t)g.lanes, pd,
                       (size_t)g.lanes * sizeof *pd);
    return DR_OK;
}

/* C (m,n) [+]= A B + bias, see dr_kern.gemm; B by strides. */
static dr_status product(dr_cpu *c, int m, int n, int k, const float *a, ptrdiff_t a_m, ptrdiff_t a_k, const float *b,
                         ptrdiff_t b_k, ptrdiff_t b_n, const float *bias, bool add, float *y, dr_error *err) {
    const dr_kern *kern = c->kern;
    size_t panels = ((size_t)n + (size_t)kern->panel - 1) / (size_t)kern->panel;
    void *packed;
    dr_status s = dr_cpu_scratch(c, panels * (size_t)kern->panel * (size_t)k * sizeof(float), &packed, err);
    if (s) return s;
    kern->pack(k, n, b, b_k, b_n, packed);
    int blocks = (m + ROWS - 1) / ROWS, nt = (size_t)m * (size_t)n * (size_t)k < 200000 ? 1 : c->threads;
#pragma omp parallel for schedule(dynamic) num_threads(nt) if (nt > 1)
    for (int i = 0; i < blocks; i++) {
        int from = i * ROWS, rows = m - from < ROWS ? m - from : ROWS;
        kern->gemm(rows, n, k, a + from * a_m, a_m, a_k, packed, bias, add, y + (ptrdiff_t)from * n, n);
    }
    return DR_OK;
}

/* x is (R,I), w (O,I), y (R,O). */
dr_status dr_cpu_linear(dr_backend *be, dr_tensor x, const float *w, const float *b, dr_tensor y, dr_error *err) {
    int in = x.shape.c, out = y.shape.c;
    return product(dr_cpu_of(be), x.shape.n, out, in, x.data, in, 1, w, 1, in, b, false, y.data, err);
}

dr_status dr_cpu_linear_dx(dr_backend *be, dr_tensor dy, const float *w, dr_tensor dx, dr_error *err) {
    int in = dx.shape.c, out = dy.shape.c;
    return product(dr_cpu_of(be), dy.shape.n, in, out, dy.data, out, 1, w, in, 1, NULL, false, dx.data, err);
}

dr_status dr_cpu_linear_dw(dr_backend *be, dr_tensor x, dr_tensor dy, float *dw, float *db, dr_error *err) {
    dr_cpu *c = dr_cpu_of(be);
    int in = x.shape.c, out = dy.shape.c, rows = x.shape.n;
    const float *pd = dy.data;
    dr_status s = product(c, out, in, rows, pd, 1, out, x.data, in, 1, NULL, true, dw, err);
    if (s || !db) return s;
    for (int r = 0; r < rows; r++) c->kern->axpby((size_t)out, 1, pd + (ptrdiff_t)r * out, db, db);
    return DR_OK;
}

static const float norm_eps = 1e-7f;

dr_status dr_cpu_l2norm(dr_backend *be, dr_tensor v, float *norms, dr_tensor y, dr_error *err) {
    (void)err;
    const dr_kern *kern = dr_cpu_of(be)->kern;
    size_t n = (size_t)v.shape.c;
    for (int r = 0; r < v.shape.n; r++) {
        const float *pv = (const float *)v.data + (size_t)r * n;
        norms[r] = (float)sqrt(kern->dot(n, pv, pv));
        kern->scale(n, 1 / (norms[r] + norm_eps), pv, (float *)y.data + (size_t)r * n);
    }
    return DR_OK;
}

/* y = v/(a+e), a = |v|: dv = (dy - y (y.dy)(a+e)/a) / (a+e); a row of zeros gets 0. */
dr_status dr_cpu_l2norm_bwd(dr_backend *be, dr_tensor y, const float *norms, dr_tensor dy, dr_tensor dv,
                            dr_error *err) {
    (void)err;
    const dr_kern *kern = dr_cpu_of(be)->kern;
    size_t n = (size_t)y.shape.c;
    for (int r = 0; r < y.shape.n; r++) {
        const float *py = (const float *)y.data + (size_t)r * n, *pd = (const float *)dy.data + (size_t)r * n;
        float *pv = (float *)dv.data + (size_t)r * n, a = norms[r], e = a + norm_eps;
        if (a == 0) {
            kern->fill(n, 0, pv);
            continue;
        }
        float along = (float)(kern->dot(n, py, pd) * (double)e / (double)a);
        kern->axpby(n, -along, py, pd, pv);
        kern->scale(n, 1 / e, pv, pv);
    }
    return DR_OK;
}
