/* eltwise.c - elementwise entries: flat loops over chunks, the same in both layouts. */
#include "core/cpu/entries.h"
#include <string.h>

/* Run `call` for every chunk of n floats: `at` is its offset, `len` its length. */
#define FLAT(c, n, call)                                                                                               \
    do {                                                                                                               \
        size_t n_ = (n);                                                                                               \
        int chunks_ = dr_cpu_chunks(n_), nt_ = dr_cpu_threads((c), n_);                                                \
        _Pragma("omp parallel for schedule(dynamic) num_threads(nt_) if (nt_ > 1)") for (int i_ = 0; i_ < chunks_;     \
                                                                                         i_++) {                       \
            size_t at = (size_t)i_ * DR_CPU_CHUNK, len = dr_cpu_chunk_len(n_, i_);                                     \
            call;                                                                                                      \
        }                                                                                                              \
        return DR_OK;                                                                                                  \
    } while (0)

dr_status dr_cpu_fill(dr_backend *be, float v, dr_tensor y, dr_error *err) {
    (void)err;
    const dr_cpu *c = dr_cpu_of(be);
    float *py = y.data;
    FLAT(c, dr_shape_count(y.shape), c->kern->fill(len, v, py + at));
}

dr_status dr_cpu_copy(dr_backend *be, dr_tensor x, dr_tensor y, dr_error *err) {
    (void)err;
    const dr_cpu *c = dr_cpu_of(be);
    const float *px = x.data;
    float *py = y.data;
    if (px == py) return DR_OK;
    FLAT(c, dr_shape_count(y.shape), memcpy(py + at, px + at, len * sizeof *py));
}

dr_status dr_cpu_copy_rows(dr_backend *be, dr_tensor x, int from_x, dr_tensor y, int from_y, int rows, dr_error *err) {
    (void)err;
    const dr_cpu *c = dr_cpu_of(be);
    const dr_planes gx = dr_cpu_planes(c, x.shape), gy = dr_cpu_planes(c, y.shape);
    const float *px = (const float *)x.data + (size_t)from_x * gx.row;
    float *py = (float *)y.data + (size_t)from_y * gy.row;
    const size_t bytes = (size_t)rows * gx.row * sizeof *py;
    const int n = gx.n_planes, nt = dr_cpu_threads(c, (size_t)n * (size_t)rows * gx.row);
#pragma omp parallel for schedule(static) num_threads(nt) if (nt > 1)
    for (int i = 0; i < n; i++) memcpy(py + (size_t)i * gy.plane, px + (size_t)i * gx.plane, bytes);
    return DR_OK;
}

dr_status dr_cpu_axpy(dr_backend *be, float a, dr_tensor x, dr_tensor y, dr_error *err) {
    (void)err;
    const dr_cpu *c = dr_cpu_of(be);
    const float *px = x.data;
    float *py = y.data;
    FLAT(c, dr_shape_count(y.shape), c->kern->axpby(len, a, px + at, py + at, py + at));
}

dr_status dr_cpu_add(dr_backend *be, dr_tensor a, dr_tensor b, dr_tensor y, dr_error *err) {
    (void)err;
    const dr_cpu *c = dr_cpu_of(be);
    const float *pa = a.data, *pb = b.data;
    float *py = y.data;
    FLAT(c, dr_shape_count(y.shape), c->kern->axpby(len, 1, pb + at, pa + at, py + at));
}

dr_status dr_cpu_scale(dr_backend *be, float a, dr_tensor x, dr_tensor y, dr_error *err) {
    (void)err;
    const dr_cpu *c = dr_cpu_of(be);
    const float *px = x.data;
    float *py = y.data;
    FLAT(c, dr_shape_count(y.shape), c->kern->scale(len, a, px + at, py + at));
}

dr_status dr_cpu_act(dr_backend *be, dr_act act, dr_tensor x, dr_tensor y, dr_error *err) {
    (void)err;
    const dr_cpu *c = dr_cpu_of(be);
    const float *px = x.data;
    float *py = y.data;
    FLAT(c, dr_shape_count(y.shape), c->kern->act(len, act, px + at, py + at));
}

dr_status dr_cpu_act_bwd(dr_backend *be, dr_act act, dr_tensor y, dr_tensor dy, dr_tensor dx, dr_error *err) {
    (void)err;
    const dr_cpu *c = dr_cpu_of(be);
    const float *py = y.data, *pd = dy.data;
    float *px = dx.data;
    FLAT(c, dr_shape_count(y.shape), c->kern->act_bwd(len, act, py + at, pd + at, px + at));
}

dr_status dr_cpu_clamp(dr_backend *be, float lo, float hi, dr_tensor x, dr_tensor y, dr_error *err) {
    (void)err;
    const dr_cpu *c = dr_cpu_of(be);
    const float *px = x.data;
    float *py = y.data;
    FLAT(c, dr_shape_count(y.shape), c->kern->clamp(len, lo, hi, px + at, py + at));
}

dr_status dr_cpu_clamp_bwd(dr_backend *be, float lo, float hi, dr_tensor x, dr_tensor dy, dr_tensor dx, dr_error *err) {
    (void)err;
    const dr_cpu *c = dr_cpu_of(be);
    const float *px = x.data, *pd = dy.data;
    float *po = dx.data;
    FLAT(c, dr_shape_count(x.shape), c->kern->clamp_bwd(len, lo, hi, px + at, pd + at, po + at));
}

/* b is planar when it has one channel; plane i of a belongs to image i / planes. */
dr_status dr_cpu_add_bcast(dr_backend *be, dr_tensor a, float s, dr_tensor b, dr_tensor y, dr_error *err) {
    (void)err;
    const dr_cpu *c = dr_cpu_of(be);
    const float *pa = a.data, *pb = b.data;
    float *py = y.data;
    if (dr_shape_eq(a.shape, b.shape))
        FLAT(c, dr_shape_count(y.shape), c->kern->axpby(len, s, pb + at, pa + at, py + at));

    dr_planes g = dr_cpu_planes(c, a.shape);
    int rows = g.n_planes * g.h, per_image = g.n_planes / a.shape.n;
    int nt = dr_cpu_threads(c, dr_shape_count(a.shape));
#pragma omp parallel for schedule(static) num_threads(nt) if (nt > 1)
    for (int i = 0; i < rows; i++) {
        size_t at = (size_t)i * g.row, w = (size_t)g.w;
        const float *rb = pb + ((size_t)(i / g.h / per_image) * (size_t)g.h + (size_t)(i % g.h)) * w;
        if (g.lanes == 1)
            c->kern->axpby(w, s, rb, pa + at, py + at);
        else
            c->kern->axpy_spread(w, s, rb, pa + at, py + at);
    }
    return DR_OK;
}

dr_status dr_cpu_add_bcast_bwd(dr_backend *be, float s, dr_tensor dy, dr_tensor db, dr_error *err) {
    (void)err;
    const dr_cpu *c = dr_cpu_of(be);
    const float *pd = dy.data;
    float *pb = db.data;
    if (dr_shape_eq(dy.shape, db.shape)) FLAT(c, dr_shape_count(db.shape), c->kern->scale(len, s, pd + at, pb + at));

    dr_planes g = dr_cpu_planes(c, dy.shape);
    int rows = dy.shape.n * g.h, per_image = g.n_planes / dy.shape.n;
    int nt = dr_cpu_threads(c, dr_shape_count(dy.shape));
#pragma omp parallel for schedule(static) num_threads(nt) if (nt > 1)
    for (int i = 0; i < rows; i++) {
        size_t first = (size_t)(i / g.h * per_image) * g.plane + (size_t)(i % g.h) * g.row;
        float *y = pb + (size_t)i * (size_t)g.w;
        for (int x = 0; x < g.w; x++) {
            float sum = 0;
            for (int p = 0; p < per_image; p++)
                for (int l = 0; l < g.lanes; l++) sum += pd[first + (size_t)p * g.plane + (size_t)(x * g.lanes + l)];
            y[x] = s * sum;
        }
    }
    return DR_OK;
}
