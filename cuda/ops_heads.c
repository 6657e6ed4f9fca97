/* ops_heads.c - projection heads: rows of features, linear layers on them, unit length. f32 throughout. */
#include "cuda/gpu.h"

dr_status gpu_gather(dr_backend *be, dr_tensor x, const int32_t *idx, int s, dr_tensor rows, dr_error *err) {
    gpu *g = gpu_of(be);
    dk_gather(g->stream, gpu_map(g, x.shape), idx, s, x.data, rows.data);
    return gpu_launched(g, "gather", err);
}

dr_status gpu_gather_bwd(dr_backend *be, dr_tensor drows, const int32_t *idx, int s, dr_tensor dx, dr_error *err) {
    gpu *g = gpu_of(be);
    dk_gather_bwd(g->stream, gpu_map(g, dx.shape), idx, s, drows.data, dx.data);
    return gpu_launched(g, "gather_bwd", err);
}

/* y = x w^T + b: x is (rows, in), w is (out, in) */
dr_status gpu_linear(dr_backend *be, dr_tensor x, const float *w, const float *b, dr_tensor y, dr_error *err) {
    gpu *g = gpu_of(be);
    int rows = x.shape.n, in = x.shape.c, out = y.shape.c;
    dk_gemm(g->stream, false, true, rows, out, in, 1, x.data, (size_t)in, 0, w, (size_t)in, 0, 0, y.data, (size_t)out,
            0, 1);
    if (b) dk_row_bias(g->stream, rows, out, b, y.data);
    return gpu_launched(g, "linear", err);
}

dr_status gpu_linear_dx(dr_backend *be, dr_tensor dy, const float *w, dr_tensor dx, dr_error *err) {
    gpu *g = gpu_of(be);
    int rows = dy.shape.n, in = dx.shape.c, out = dy.shape.c;
    dk_gemm(g->stream, false, false, rows, in, out, 1, dy.data, (size_t)out, 0, w, (size_t)in, 0, 0, dx.data,
            (size_t)in, 0, 1);
    return gpu_launched(g, "linear_dx", err);
}

dr_status gpu_linear_dw(dr_backend *be, dr_tensor x, dr_tensor dy, float *dw, float *db, dr_error *err) {
    gpu *g = gpu_of(be);
    int rows = x.shape.n, in = x.shape.c, out = dy.shape.c;
    dk_gemm(g->stream, true, false, out, in, rows, 1, dy.data, (size_t)out, 0, x.data, (size_t)in, 0, 1, dw, (size_t)in,
            0, 1);
    if (db) dk_col_sum(g->stream, rows, out, dy.data, db);
    return gpu_launched(g, "linear_dw", err);
}

dr_status gpu_l2norm(dr_backend *be, dr_tensor v, float *norms, dr_tensor y, dr_error *err) {
    gpu *g = gpu_of(be);
    dk_l2norm(g->stream, v.shape.n, v.shape.c, v.data, norms, y.data);
    return gpu_launched(g, "l2norm", err);
}

dr_status gpu_l2norm_bwd(dr_backend *be, dr_tensor y, const float *norms, dr_tensor dy, dr_tensor dv, dr_error *err) {
    gpu *g = gpu_of(be);
    dk_l2norm_bwd(g->stream, y.shape.n, y.shape.c, y.data, norms, dy.data, dv.data);
    return gpu_launched(g, "l2norm_bwd", err);
}
