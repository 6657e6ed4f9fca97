/* ops_norm.c - instance norm and resampling. norm_act is statistics plus one pass; norm_apply is that pass with what
 * follows it in a generator. */
#include "cuda/gpu.h"

dr_status gpu_norm_stats(dr_backend *be, float eps, dr_tensor x, float *stats, dr_error *err) {
    gpu *g = gpu_of(be);
    dk_map m = gpu_map(g, x.shape);
    void *scratch;
    dr_status s = gpu_scratch(g, dk_norm_scratch(m), &scratch, err);
    if (s) return s;
    dk_norm_stats(g->stream, m, eps, x.data, stats, scratch);
    return gpu_launched(g, "norm_stats", err);
}

dr_status gpu_norm_apply(dr_backend *be, dr_tensor x, const float *stats, dr_act act, dr_norm_then then, int p,
                         dr_tensor resid, dr_tensor y, dr_error *err) {
    gpu *g = gpu_of(be);
    dk_norm_apply(g->stream, gpu_map(g, x.shape), x.data, stats, (dk_act)act, (dk_then)then, p, resid.data,
                  resid.shape.h, resid.shape.w, y.data);
    return gpu_launched(g, "norm_apply", err);
}

dr_status gpu_norm_act(dr_backend *be, float eps, dr_act act, dr_tensor x, float *stats, dr_tensor y, dr_error *err) {
    dr_status s = gpu_norm_stats(be, eps, x, stats, err);
    return s ? s : gpu_norm_apply(be, x, stats, act, DR_THEN_NONE, 0, (dr_tensor){0}, y, err);
}

dr_status gpu_norm_act_bwd(dr_backend *be, dr_act act, dr_tensor x, const float *stats, dr_tensor dy, dr_tensor dx,
                           dr_error *err) {
    gpu *g = gpu_of(be);
    dk_map m = gpu_map(g, x.shape);
    void *scratch;
    dr_status s = gpu_scratch(g, dk_norm_scratch(m), &scratch, err);
    if (s) return s;
    dk_norm_bwd(g->stream, m, (dk_act)act, x.data, stats, dy.data, dx.data, scratch);
    return gpu_launched(g, "norm_act_bwd", err);
}

dr_status gpu_pad_reflect(dr_backend *be, int p, dr_tensor x, dr_tensor y, dr_error *err) {
    gpu *g = gpu_of(be);
    dk_pad_reflect(g->stream, gpu_map(g, x.shape), p, x.data, y.data);
    return gpu_launched(g, "pad_reflect", err);
}

dr_status gpu_pad_reflect_bwd(dr_backend *be, int p, dr_tensor dy, dr_tensor dx, dr_error *err) {
    gpu *g = gpu_of(be);
    dk_pad_reflect_bwd(g->stream, gpu_map(g, dx.shape), p, dy.data, dx.data);
    return gpu_launched(g, "pad_reflect_bwd", err);
}

dr_status gpu_blur_down(dr_backend *be, dr_tensor x, dr_tensor y, dr_error *err) {
    gpu *g = gpu_of(be);
    dk_blur_down(g->stream, gpu_map(g, x.shape), x.data, y.data);
    return gpu_launched(g, "blur_down", err);
}

dr_status gpu_blur_down_bwd(dr_backend *be, dr_tensor dy, dr_tensor dx, dr_error *err) {
    gpu *g = gpu_of(be);
    dk_blur_down_bwd(g->stream, gpu_map(g, dx.shape), dy.data, dx.data);
    return gpu_launched(g, "blur_down_bwd", err);
}

dr_status gpu_blur_up(dr_backend *be, dr_tensor x, dr_tensor y, dr_error *err) {
    gpu *g = gpu_of(be);
    dk_blur_up(g->stream, gpu_map(g, x.shape), x.data, y.data);
    return gpu_launched(g, "blur_up", err);
}

dr_status gpu_blur_up_bwd(dr_backend *be, dr_tensor dy, dr_tensor dx, dr_error *err) {
    gpu *g = gpu_of(be);
    dk_blur_up_bwd(g->stream, gpu_map(g, dx.shape), dy.data, dx.data);
    return gpu_launched(g, "blur_up_bwd", err);
}
