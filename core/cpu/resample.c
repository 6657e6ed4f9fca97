/* resample.c - reflection pads, the two anti-alias filters (METHOD.md section 3), and their adjoints, row by row.
 *
 * Every output row depends on a few input rows only, so rows are the parallel work; adjoints gather instead of scatter.
 */
#include "core/cpu/entries.h"
#include <string.h>

void dr_cpu_reflect_ends(float *row, int w, int p, int lanes) {
    size_t bytes = (size_t)lanes * sizeof *row;
    for (int i = 0; i < p; i++) {
        memcpy(row + (p - 1 - i) * lanes, row + (p + 1 + i) * lanes, bytes);
        memcpy(row + (p + w + i) * lanes, row + (p + w - 2 - i) * lanes, bytes);
    }
}

dr_status dr_cpu_pad_reflect(dr_backend *be, int p, dr_tensor x, dr_tensor y, dr_error *err) {
    (void)err;
    const dr_cpu *c = dr_cpu_of(be);
    dr_planes g = dr_cpu_planes(c, x.shape), gy = dr_cpu_planes(c, y.shape);
    const float *px = x.data;
    float *py = y.data;
    int rows = gy.n_planes * gy.h, nt = dr_cpu_threads(c, dr_shape_count(y.shape));
#pragma omp parallel for schedule(dynamic, dr_cpu_band(gy)) num_threads(nt) if (nt > 1)
    for (int i = 0; i < rows; i++) {
        size_t iy = (size_t)dr_reflect(i % gy.h - p, g.h);
        float *row = py + (size_t)i * gy.row;
        memcpy(row + p * g.lanes, px + (size_t)(i / gy.h) * g.plane + iy * g.row, g.row * sizeof *row);
        dr_cpu_reflect_ends(row, g.w, p, g.lanes);
    }
    return DR_OK;
}

/* dx (+)= a padded row folded back onto the w pixels it was made of. */
static void fold_row(const dr_kern *kern, dr_planes g, int p, const float *row, bool add, float *dx) {
    int lanes = g.lanes;
    const float *mid = row + p * lanes;
    if (add)
        kern->axpby(g.row, 1, mid, dx, dx);
    else
        memcpy(dx, mid, g.row * sizeof *dx);
    for (int k = 1; k <= p; k++)
        for (int l = 0; l < lanes; l++) {
            dx[k * lanes + l] += row[(p - k) * lanes + l];
            dx[(g.w - 1 - k) * lanes + l] += row[(p + g.w - 1 + k) * lanes + l];
        }
}

dr_status dr_cpu_pad_reflect_bwd(dr_backend *be, int p, dr_tensor dy, dr_tensor dx, dr_error *err) {
    (void)err;
    const dr_cpu *c = dr_cpu_of(be);
    dr_planes g = dr_cpu_planes(c, dx.shape), gy = dr_cpu_planes(c, dy.shape);
    const float *pd = dy.data;
    float *px = dx.data;
    int rows = g.n_planes * g.h, nt = dr_cpu_threads(c, dr_shape_count(dy.shape));
#pragma omp parallel for schedule(dynamic, dr_cpu_band(g)) num_threads(nt) if (nt > 1)
    for (int i = 0; i < rows; i++) {
        int iy = i % g.h;
        const float *plane = pd + (size_t)(i / g.h) * gy.plane;
        float *row = px + (size_t)i * g.row;
        fold_row(c->kern, g, p, plane + (size_t)(iy + p) * gy.row, false, row);
        if (iy >= 1 && iy <= p) fold_row(c->kern, g, p, plane + (size_t)(p - iy) * gy.row, true, row);
        int below = g.h - 1 - iy; /* distance to the last row */
        if (below >= 1 && below <= p)
            fold_row(c->kern, g, p, plane + (size_t)(p + g.h - 1 + below) * gy.row, true, row);
    }
    return DR_OK;
}

dr_status dr_cpu_blur_down(dr_backend *be, dr_tensor x, dr_tensor y, dr_error *err) {
    (void)err;
    const dr_cpu *c = dr_cpu_of(be);
    dr_planes g = dr_cpu_planes(c, x.shape), gy = dr_cpu_planes(c, y.shape);
    const float *px = x.data;
    float *py = y.data;
    int rows = gy.n_planes * gy.h, nt = dr_cpu_threads(c, dr_shape_count(x.shape));
#pragma omp parallel for schedule(dynamic, dr_cpu_band(gy)) num_threads(nt) if (nt > 1)
    for (int i = 0; i < rows; i++) {
        int o = i % gy.h;
        const float *plane = px + (size_t)(i / gy.h) * g.plane;
        const float *above = plane + (size_t)dr_reflect(2 * o - 1, g.h) * g.row;
        const float *below = plane + (size_t)dr_reflect(2 * o + 1, g.h) * g.row;
        g.rows->blur_down(g.w, gy.w, above, plane + (size_t)(2 * o) * g.row, below, NULL, DR_ACT_NONE,
                          py + (size_t)i * gy.row);
    }
    return DR_OK;
}

/* dx[2k] = dy[k]/2; dx[2k+1] = (dy[k] + dy[k+1])/4, where an output whose outer tap was mirrored counts twice. A row
 * that has one source only is given as two halves of it. */
dr_status dr_cpu_blur_down_bwd(dr_backend *be, dr_tensor dy, dr_tensor dx, dr_error *err) {
    (void)err;
    const dr_cpu *c = dr_cpu_of(be);
    dr_planes g = dr_cpu_planes(c, dx.shape), gy = dr_cpu_planes(c, dy.shape);
    const float *pd = dy.data;
    float *px = dx.data;
    int rows = g.n_planes * g.h, nt = dr_cpu_threads(c, dr_shape_count(dx.shape));
#pragma omp parallel for schedule(dynamic, dr_cpu_band(g)) num_threads(nt) if (nt > 1)
    for (int i = 0; i < rows; i++) {
        int k = i % g.h / 2;
        const float *a = pd + (size_t)(i / g.h) * gy.plane + (size_t)k * gy.row, *b = a;
        float ca = 0.25f, cb = 0.25f;
        if (i % g.h % 2) {
            ca = k == 0 ? 0.5f : 0.25f;
            if (k + 1 < gy.h) {
                b = a + gy.row;
                cb = 2 * (k + 1) + 1 == g.h ? 0.5f : 0.25f;
            } else {
                ca = cb = ca / 2;
            }
        }
        g.rows->blur_down_bwd(g.w, gy.w, a, ca, b, cb, px + (size_t)i * g.row);
    }
    return DR_OK;
}

dr_status dr_cpu_blur_up(dr_backend *be, dr_tensor x, dr_tensor y, dr_error *err) {
    (void)err;
    const dr_cpu *c = dr_cpu_of(be);
    dr_planes g = dr_cpu_planes(c, x.shape), gy = dr_cpu_planes(c, y.shape);
    const float *px = x.data;
    float *py = y.data;
    int rows = gy.n_planes * gy.h, nt = dr_cpu_threads(c, dr_shape_count(y.shape));
#pragma omp parallel for schedule(dynamic, dr_cpu_band(gy)) num_threads(nt) if (nt > 1)
    for (int i = 0; i < rows; i++) {
        int oy = i % gy.h, k = oy / 2, other = oy % 2 ? k + 1 : k - 1;
        other = other < 0 ? 0 : other >= g.h ? g.h - 1 : other;
        const float *plane = px + (size_t)(i / gy.h) * g.plane;
        g.rows->blur_up(g.w, plane + (size_t)other * g.row, plane + (size_t)k * g.row, NULL, DR_ACT_NONE,
                        py + (size_t)i * gy.row);
    }
    return DR_OK;
}

dr_status dr_cpu_blur_up_bwd(dr_backend *be, dr_tensor dy, dr_tensor dx, dr_error *err) {
    (void)err;
    const dr_cpu *c = dr_cpu_of(be);
    dr_planes g = dr_cpu_planes(c, dx.shape), gy = dr_cpu_planes(c, dy.shape);
    const float *pd = dy.data;
    float *px = dx.data;
    int rows = g.n_planes * g.h, nt = dr_cpu_threads(c, dr_shape_count(dy.shape));
#pragma omp parallel for schedule(dynamic, dr_cpu_band(g)) num_threads(nt) if (nt > 1)
    for (int i = 0; i < rows; i++) {
        int k = i % g.h;
        const float *b = pd + (size_t)(i / g.h) * gy.plane + (size_t)(2 * k) * gy.row;
        const float *a = k > 0 ? b - gy.row : b, *e = b + gy.row, *d = k + 1 < g.h ? e + gy.row : e;
        g.rows->blur_up_bwd(g.w, a, b, e, d, px + (size_t)i * g.row);
    }
    return DR_OK;
}
