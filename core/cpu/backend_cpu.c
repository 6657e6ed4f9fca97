/* backend_cpu.c - the CPU table: instance, memory, and the two places that know both layouts, upload and download. */
#include "core/base/alloc.h"
#include "core/cpu/conv.h"
#include "core/cpu/entries.h"
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

static enum dr_cpu_isa isa_limit = DR_CPU_AVX512;

void dr_cpu_limit_isa(enum dr_cpu_isa best) {
    isa_limit = best;
}

static enum dr_cpu_isa detect_isa(void) {
    enum dr_cpu_isa best = DR_CPU_BASE;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        best = DR_CPU_AVX2;
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
            best = DR_CPU_AVX512;
    }
#endif
    return best < isa_limit ? best : isa_limit;
}

static const dr_kern *kern_of(enum dr_cpu_isa isa) {
    switch (isa) {
    case DR_CPU_AVX512:
        return &dr_kern_avx512;
    case DR_CPU_AVX2:
        return &dr_kern_avx2;
    case DR_CPU_BASE:
        break;
    }
    return &dr_kern_base;
}

static int count_cores(void) {
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
    return n > 0 ? n : 1;
}

static void cpu_close(dr_backend *be) {
    dr_cpu *c = dr_cpu_of(be);
    dr_cpu_conv_close(c);
    dr_free(c);
}

static dr_status cpu_open(const dr_host_api *host, const dr_backend_opts *opts, dr_backend **ret, dr_error *err) {
    if (opts->threads < 0 || opts->threads > 1024)
        return dr_fail(err, DR_INVALID, "cpu: %d threads; 0 (all cores) to 1024 are possible", opts->threads);
    dr_cpu *c = dr_calloc(1, sizeof *c);
    if (!c) return dr_fail(err, DR_NOMEM, "cpu: no memory to open the backend");
    c->base.ops = &dr_cpu_ops;
    c->host = *host;
    c->precision = opts->precision;
    c->threads = opts->threads ? opts->threads : count_cores();
    enum dr_cpu_isa isa = detect_isa();
    c->isa = isa;
    c->kern = kern_of(isa);
    dr_status s = dr_cpu_conv_open(c, err);
    if (s) {
        cpu_close(&c->base);
        return s;
    }
    snprintf(c->text, sizeof c->text, "%s (%s, %d thread%s)", c->kern->name, dr_cpu_conv_text(c), c->threads,
             c->threads == 1 ? "" : "s");
    *ret = &c->base;
    return DR_OK;
}

static const char *cpu_describe(dr_backend *be) {
    return dr_cpu_of(be)->text;
}

static size_t cpu_tensor_bytes(dr_backend *be, dr_shape s) {
    (void)be;
    return (dr_shape_count(s) * sizeof(float) + 63) / 64 * 64;
}

/* Large blocks on huge pages: fewer faults on first use, fewer misses of the TLB afterwards. Only advice. */
static void advise_huge(void *p, size_t bytes) {
    const uintptr_t huge = (uintptr_t)2 << 20;
    uintptr_t from = ((uintptr_t)p + huge - 1) & ~(huge - 1), to = ((uintptr_t)p + bytes) & ~(huge - 1);
    if (to > from) (void)madvise((void *)from, to - from, MADV_HUGEPAGE);
}

static dr_status cpu_alloc(dr_backend *be, size_t bytes, void **ret, dr_error *err) {
    (void)be;
    void *p = dr_malloc_aligned(bytes);
    if (!p) return dr_fail(err, DR_NOMEM, "cpu: no memory for %zu bytes", bytes);
    advise_huge(p, bytes);
    *ret = p;
    return DR_OK;
}

static void cpu_free(dr_backend *be, void *p) {
    (void)be;
    dr_free(p);
}

/* One row of 16 planes, `stride` floats apart, to or from w pixels of 16 lanes. */
static void interleave(int w, size_t stride, const float *planes, float *pixels) {
    for (int x = 0; x < w; x++)
        for (int l = 0; l < DR_LANES; l++) pixels[x * DR_LANES + l] = planes[(size_t)l * stride + (size_t)x];
}

static void deinterleave(int w, size_t stride, const float *pixels, float *planes) {
    for (int l = 0; l < DR_LANES; l++)
        for (int x = 0; x < w; x++) planes[(size_t)l * stride + (size_t)x] = pixels[x * DR_LANES + l];
}

/* In both layouts plane i begins at the same place: i*lanes*h*w. */
static dr_status cpu_upload(dr_backend *be, const float *nchw, dr_tensor dst, dr_error *err) {
    (void)err;
    dr_cpu *c = dr_cpu_of(be);
    dr_planes g = dr_cpu_planes(c, dst.shape);
    float *y = dst.data;
    if (g.lanes == 1) {
        memcpy(y, nchw, (size_t)g.n_planes * g.plane * sizeof *y);
        return DR_OK;
    }
    int rows = g.n_planes * g.h, nt = dr_cpu_threads(c, (size_t)g.n_planes * g.plane);
#pragma omp parallel for schedule(static) num_threads(nt) if (nt > 1)
    for (int i = 0; i < rows; i++) {
        size_t plane = (size_t)(i / g.h) * g.plane, r = (size_t)(i % g.h);
        interleave(g.w, (size_t)g.h * (size_t)g.w, nchw + plane + r * (size_t)g.w, y + plane + r * g.row);
    }
    return DR_OK;
}

static dr_status cpu_download(dr_backend *be, dr_tensor src, float *nchw, dr_error *err) {
    (void)err;
    dr_cpu *c = dr_cpu_of(be);
    dr_planes g = dr_cpu_planes(c, src.shape);
    const float *x = src.data;
    if (g.lanes == 1) {
        memcpy(nchw, x, (size_t)g.n_planes * g.plane * sizeof *x);
        return DR_OK;
    }
    int rows = g.n_planes * g.h, nt = dr_cpu_threads(c, (size_t)g.n_planes * g.plane);
#pragma omp parallel for schedule(static) num_threads(nt) if (nt > 1)
    for (int i = 0; i < rows; i++) {
        size_t plane = (size_t)(i / g.h) * g.plane, r = (size_t)(i % g.h);
        deinterleave(g.w, (size_t)g.h * (size_t)g.w, x + plane + r * g.row, nchw + plane + r * (size_t)g.w);
    }
    return DR_OK;
}

static dr_status cpu_copy_raw(dr_backend *be, const void *src, void *dst, size_t bytes, dr_error *err) {
    (void)be, (void)err;
    memcpy(dst, src, bytes);
    return DR_OK;
}

static dr_status cpu_sync(dr_backend *be, dr_error *err) {
    (void)be, (void)err;
    return DR_OK;
}

const dr_backend_ops dr_cpu_ops = {
    .abi = DR_BACKEND_ABI,
    .size = sizeof(dr_backend_ops),
    .name = "cpu",
    .open = cpu_open,
    .close = cpu_close,
    .describe = cpu_describe,
    .tensor_bytes = cpu_tensor_bytes,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .upload = cpu_upload,
    .download = cpu_download,
    .upload_raw = cpu_copy_raw,
    .download_raw = cpu_copy_raw,
    .sync = cpu_sync,
    .fill = dr_cpu_fill,
    .copy = dr_cpu_copy,
    .copy_rows = dr_cpu_copy_rows,
    .axpy = dr_cpu_axpy,
    .add = dr_cpu_add,
    .scale = dr_cpu_scale,
    .act = dr_cpu_act,
    .act_bwd = dr_cpu_act_bwd,
    .add_bcast = dr_cpu_add_bcast,
    .add_bcast_bwd = dr_cpu_add_bcast_bwd,
    .clamp = dr_cpu_clamp,
    .clamp_bwd = dr_cpu_clamp_bwd,
    .conv2d = dr_cpu_conv2d,
    .conv2d_dx = dr_cpu_conv2d_dx,
    .conv2d_dw = dr_cpu_conv2d_dw,
    .norm_act = dr_cpu_norm_act,
    .norm_act_bwd = dr_cpu_norm_act_bwd,
    .pad_reflect = dr_cpu_pad_reflect,
    .pad_reflect_bwd = dr_cpu_pad_reflect_bwd,
    .blur_down = dr_cpu_blur_down,
    .blur_down_bwd = dr_cpu_blur_down_bwd,
    .blur_up = dr_cpu_blur_up,
    .blur_up_bwd = dr_cpu_blur_up_bwd,
    .gather = dr_cpu_gather,
    .gather_bwd = dr_cpu_gather_bwd,
    .linear = dr_cpu_linear,
    .linear_dx = dr_cpu_linear_dx,
    .linear_dw = dr_cpu_linear_dw,
    .l2norm = dr_cpu_l2norm,
    .l2norm_bwd = dr_cpu_l2norm_bwd,
    .nce = dr_cpu_nce,
    .nce_bwd = dr_cpu_nce_bwd,
    .gan = dr_cpu_gan,
    .gan_bwd = dr_cpu_gan_bwd,
    .l1 = dr_cpu_l1,
    .l1_bwd = dr_cpu_l1_bwd,
    .freq = dr_cpu_freq,
    .freq_bwd = dr_cpu_freq_bwd,
    .adam = dr_cpu_adam,
    .ema = dr_cpu_ema,
    .norm_stats = dr_cpu_norm_stats,
    .norm_apply = dr_cpu_norm_apply,
    .conv2d_fuses = dr_cpu_conv2d_fuses,
    .conv2d_fused = dr_cpu_conv2d_fused,
};
