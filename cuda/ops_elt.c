/* ops_elt.c - elementwise entries: any layout, since equal shapes lie equally. */
#include "cuda/gpu.h"

dr_status gpu_fill(dr_backend *be, float v, dr_tensor y, dr_error *err) {
    gpu *g = gpu_of(be);
    dk_fill(g->stream, gpu_type(g, y.shape), gpu_count(y.shape), v, y.data);
    return gpu_launched(g, "fill", err);
}

dr_status gpu_copy(dr_backend *be, dr_tensor x, dr_tensor y, dr_error *err) {
    gpu *g = gpu_of(be);
    if (x.data == y.data) return DR_OK;
    return gpu_check(
        g, cudaMemcpyAsync(y.data, x.data, dk_bytes(gpu_map(g, x.shape)), cudaMemcpyDeviceToDevice, g->stream), "copy",
        err);
}

/* Rows lie side by side within an image (wide) or a plane. */
dr_status gpu_copy_rows(dr_backend *be, dr_tensor x, int from_x, dr_tensor y, int from_y, int rows, dr_error *err) {
    gpu *g = gpu_of(be);
    const dk_map m = gpu_map(g, x.shape);
    const size_t row = (size_t)m.w * (m.wide ? (size_t)m.c : 1) * dk_elt(m.type);
    const int parts = m.wide ? m.n : m.n * m.c;
    const char *px = (const char *)x.data + (size_t)from_x * row;
    char *py = (char *)y.data + (size_t)from_y * row;
    dr_status s = gpu_launched(g, "copy_rows", err);
    for (int i = 0; i < parts && !s; i++)
        s = gpu_check(g,
                      cudaMemcpyAsync(py + (size_t)i * (size_t)y.shape.h * row,
                                      px + (size_t)i * (size_t)x.shape.h * row, (size_t)rows * row,
                                      cudaMemcpyDeviceToDevice, g->stream),
                      "copy_rows", err);
    return s;
}

dr_status gpu_axpy(dr_backend *be, float a, dr_tensor x, dr_tensor y, dr_error *err) {
    gpu *g = gpu_of(be);
    dk_axpy(g->stream, gpu_type(g, y.shape), gpu_count(y.shape), a, x.data, y.data);
    return gpu_launched(g, "axpy", err);
}

dr_status gpu_add(dr_backend *be, dr_tensor a, dr_tensor b, dr_tensor y, dr_error *err) {
    gpu *g = gpu_of(be);
    dk_add(g->stream, gpu_type(g, y.shape), gpu_count(y.shape), a.data, b.data, y.data);
    return gpu_launched(g, "add", err);
}

dr_status gpu_scale(dr_backend *be, float a, dr_tensor x, dr_tensor y, dr_error *err) {
    gpu *g = gpu_of(be);
    dk_scale(g->stream, gpu_type(g, y.shape), gpu_count(y.shape), a, x.data, y.data);
    return gpu_launched(g, "scale", err);
}

dr_status gpu_act(dr_backend *be, dr_act act, dr_tensor x, dr_tensor y, dr_error *err) {
    gpu *g = gpu_of(be);
    dk_activate(g->stream, gpu_type(g, y.shape), gpu_count(y.shape), (dk_act)act, x.data, y.data);
    return gpu_launched(g, "act", err);
}

dr_status gpu_act_bwd(dr_backend *be, dr_act act, dr_tensor y, dr_tensor dy, dr_tensor dx, dr_error *err) {
    gpu *g = gpu_of(be);
    dk_activate_bwd(g->stream, gpu_type(g, y.shape), gpu_count(y.shape), (dk_act)act, y.data, dy.data, dx.data);
    return gpu_launched(g, "act_bwd", err);
}

dr_status gpu_add_bcast(dr_backend *be, dr_tensor a, float s, dr_tensor b, dr_tensor y, dr_error *err) {
    gpu *g = gpu_of(be);
    dk_add_bcast(g->stream, gpu_map(g, a.shape), s, a.data, b.shape.c, b.data, y.data);
    return gpu_launched(g, "add_bcast", err);
}

dr_status gpu_add_bcast_bwd(dr_backend *be, float s, dr_tensor dy, dr_tensor db, dr_error *err) {
    gpu *g = gpu_of(be);
    dk_add_bcast_bwd(g->stream, gpu_map(g, dy.shape), s, dy.data, db.shape.c, db.data);
    return gpu_launched(g, "add_bcast_bwd", err);
}

dr_status gpu_clamp(dr_backend *be, float lo, float hi, dr_tensor x, dr_tensor y, dr_error *err) {
    gpu *g = gpu_of(be);
    dk_clamp(g->stream, gpu_type(g, y.shape), gpu_count(y.shape), lo, hi, x.data, y.data);
    return gpu_launched(g, "clamp", err);
}

dr_status gpu_clamp_bwd(dr_backend *be, float lo, float hi, dr_tensor x, dr_tensor dy, dr_tensor dx, dr_error *err) {
    gpu *g = gpu_of(be);
    dk_clamp_bwd(g->stream, gpu_type(g, dx.shape), gpu_count(dx.shape), lo, hi, x.data, dy.data, dx.data);
    return gpu_launched(g, "clamp_bwd", err);
}
