/* ops_loss.c - losses and the optimizer. */
#include "cuda/gpu.h"

#include <math.h>

/* Similarities of the s queries and keys of each group, (groups, s, s), then room for the loss's own partial sums. */
static dr_status similarities(gpu *g, int groups, dr_tensor q, dr_tensor k, float **ret_sim, void **ret_scratch,
                              dr_error *err) {
    int s = q.shape.n / groups, c = q.shape.c;
    size_t ss = (size_t)s * (size_t)s, sc = (size_t)s * (size_t)c;
    size_t bytes = gpu_aligned((size_t)groups * ss * sizeof(float));
    void *mem;
    dr_status st = gpu_scratch(g, bytes + dk_nce_scratch(groups, s), &mem, err);
    if (st) return st;
    dk_gemm(g->stream, false, true, s, s, c, 1, q.data, (size_t)c, sc, k.data, (size_t)c, sc, 0, mem, (size_t)s, ss,
            groups);
    *ret_sim = mem;
    *ret_scratch = (char *)mem + bytes;
    return DR_OK;
}

dr_status gpu_nce(dr_backend *be, int groups, float temperature, dr_tensor q, dr_tensor k, dr_tensor loss,
                  dr_error *err) {
    gpu *g = gpu_of(be);
    float *sim;
    void *scratch;
    dr_status s = similarities(g, groups, q, k, &sim, &scratch, err);
    if (s) return s;
    dk_nce(g->stream, groups, q.shape.n / groups, temperature, sim, loss.data, scratch);
    return gpu_launched(g, "nce", err);
}

dr_status gpu_nce_bwd(dr_backend *be, int groups, float temperature, dr_tensor q, dr_tensor k, float gain, dr_tensor dq,
                      dr_error *err) {
    gpu *g = gpu_of(be);
    float *sim;
    void *scratch;
    dr_status st = similarities(g, groups, q, k, &sim, &scratch, err);
    if (st) return st;
    int s = q.shape.n / groups, c = q.shape.c;
    size_t ss = (size_t)s * (size_t)s, sc = (size_t)s * (size_t)c;
    dk_nce_bwd(g->stream, groups, s, temperature, gain, sim);
    dk_gemm(g->stream, false, false, s, c, s, 1, sim, (size_t)s, ss, k.data, (size_t)c, sc, 0, dq.data, (size_t)c, sc,
            groups);
    return gpu_launched(g, "nce_bwd", err);
}

dr_status gpu_gan(dr_backend *be, dr_gan_loss mode, dr_tensor s, dr_tensor loss, dr_error *err) {
    gpu *g = gpu_of(be);
    void *scratch;
    dr_status st = gpu_scratch(g, dk_loss_scratch(gpu_count(s.shape)), &scratch, err);
    if (st) return st;
    dk_gan_loss(g->stream, (dk_gan)mode, gpu_type(g, s.shape), gpu_count(s.shape), s.data, loss.data, scratch);
    return gpu_launched(g, "gan", err);
}

dr_status gpu_gan_bwd(dr_backend *be, dr_gan_loss mode, dr_tensor s, float gain, dr_tensor ds, dr_error *err) {
    gpu *g = gpu_of(be);
    dk_gan_loss_bwd(g->stream, (dk_gan)mode, gpu_type(g, s.shape), gpu_count(s.shape), s.data, gain, ds.data);
    return gpu_launched(g, "gan_bwd", err);
}

dr_status gpu_l1(dr_backend *be, dr_tensor a, dr_tensor b, dr_tensor loss, dr_error *err) {
    gpu *g = gpu_of(be);
    void *scratch;
    dr_status st = gpu_scratch(g, dk_loss_scratch(gpu_count(a.shape)), &scratch, err);
    if (st) return st;
    dk_l1(g->stream, gpu_type(g, a.shape), gpu_count(a.shape), a.data, b.data, loss.data, scratch);
    return gpu_launched(g, "l1", err);
}

dr_status gpu_l1_bwd(dr_backend *be, dr_tensor a, dr_tensor b, float gain, dr_tensor da, dr_error *err) {
    gpu *g = gpu_of(be);
    dk_l1_bwd(g->stream, gpu_type(g, a.shape), gpu_count(a.shape), a.data, b.data, gain, da.data);
    return gpu_launched(g, "l1_bwd", err);
}

/* Pictures: planar f32. */
dr_status gpu_freq(dr_backend *be, dr_tensor a, dr_tensor b, dr_tensor loss, dr_error *err) {
    gpu *g = gpu_of(be);
    dk_map m = gpu_map(g, a.shape);
    void *scratch;
    dr_status st = gpu_scratch(g, dk_freq_scratch(m), &scratch, err);
    if (st) return st;
    dk_freq(g->stream, m, a.data, b.data, loss.data, scratch);
    return gpu_launched(g, "freq", err);
}

dr_status gpu_freq_bwd(dr_backend *be, dr_tensor a, dr_tensor b, float gain, dr_tensor da, dr_error *err) {
    gpu *g = gpu_of(be);
    dk_map m = gpu_map(g, a.shape);
    void *scratch;
    dr_status st = gpu_scratch(g, dk_freq_scratch(m), &scratch, err);
    if (st) return st;
    dk_freq_bwd(g->stream, m, a.data, b.data, gain, da.data, scratch);
    return gpu_launched(g, "freq_bwd", err);
}

dr_status gpu_adam(dr_backend *be, const dr_adam_desc *d, size_t n, float *p, const float *grad, float *m, float *v,
                   dr_error *err) {
    gpu *g = gpu_of(be);
    dk_adam(g->stream, n, d->lr, d->beta1, d->beta2, d->eps, (float)(1 - pow((double)d->beta1, (double)d->t)),
            (float)(1 - pow((double)d->beta2, (double)d->t)), p, grad, m, v);
    return gpu_launched(g, "adam", err);
}

dr_status gpu_ema(dr_backend *be, float decay, size_t n, const float *p, float *ema, dr_error *err) {
    gpu *g = gpu_of(be);
    dk_ema(g->stream, n, decay, p, ema);
    return gpu_launched(g, "ema", err);
}
