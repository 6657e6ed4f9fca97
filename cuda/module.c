/* module.c - derain-cuda.so: the backend table on CUDA and cuDNN, and how it opens on a device.
 *
 * The module exports one symbol, dr_backend_entry. Loading it needs no GPU; open() does, and says in one line what is
 * missing: driver, device, or a device that is too old. */
#include "cuda/gpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CC_MIN = 80 };

static void gpu_close(dr_backend *be) {
    gpu *g = gpu_of(be);
    if (!g) return;
    if (g->stream) (void)cudaStreamSynchronize(g->stream);
    cv_close(g->conv);
    gpu_pace_close(g);
    if (g->idle) (void)cudaEventDestroy(g->idle);
    if (g->scratch) gpu_free(be, g->scratch);
    if (g->staging) (void)cudaFreeHost(g->staging);
    for (int i = 0; i < GPU_N_PIECES; i++)
        if (g->moved[i]) (void)cudaEventDestroy(g->moved[i]);
    if (g->stream) (void)cudaStreamDestroy(g->stream);
    (void)cudaGetLastError(); /* what failed here is nobody else's */
    free(g->blocks);
    free(g);
}

/* Is there a usable device? cudaGetDeviceCount leaves n as it was when it fails. */
static dr_status find_device(const dr_host_api *host, int device, dr_error *err) {
    int n = 0;
    cudaError_t e = cudaGetDeviceCount(&n);
    if (e == cudaErrorInsufficientDriver || e == cudaErrorStubLibrary)
        return host->fail(err, DR_UNAVAILABLE, "cuda: no usable NVIDIA driver (%s)", cudaGetErrorString(e));
    if (e) return host->fail(err, DR_UNAVAILABLE, "cuda: no device (%s)", cudaGetErrorString(e));
    if (device < 0 || device >= n)
        return host->fail(err, DR_UNAVAILABLE, "cuda: device %d was asked for, there are %d", device, n);
    return DR_OK;
}

static dr_status describe_device(gpu *g, dr_error *err) {
    struct cudaDeviceProp p;
    dr_status s = gpu_check(g, cudaGetDeviceProperties(&p, g->device), "cudaGetDeviceProperties", err);
    if (s) return s;
    if (p.major * 10 + p.minor < CC_MIN)
        return g->host.fail(err, DR_UNAVAILABLE, "cuda: %s has compute capability %d.%d, needed is %d.%d", p.name,
                            p.major, p.minor, CC_MIN / 10, CC_MIN % 10);
    snprintf(g->text, sizeof g->text, "%.80s (%.0f GB, %s, %s)", p.name, (double)p.totalGlobalMem / 1e9, cv_version(),
             dk_type_name(g->type));
    return DR_OK;
}

/* Which plans are in use is part of what computes: with others a training goes on with other roundings. */
static void describe_plans(gpu *g) {
    uint32_t sum;
    const int n = cv_known(g->conv, &sum);
    const size_t len = strlen(g->text);
    if (n) snprintf(g->text + len - 1, sizeof g->text - len + 1, ", %d tuned plans %08x)", n, (unsigned)sum);
}

static dr_status gpu_open(const dr_host_api *host, const dr_backend_opts *opts, dr_backend **ret, dr_error *err);

static dk_type type_of(dr_precision p) {
    return p == DR_PREC_F32 ? DK_F32 : p == DR_PREC_BF16 ? DK_BF16 : DK_F16;
}

static const char *gpu_describe(dr_backend *be) {
    return gpu_of(be)->text;
}

static const dr_backend_ops ops = {
    .abi = DR_BACKEND_ABI,
    .size = sizeof(dr_backend_ops),
    .name = "cuda",
    .open = gpu_open,
    .close = gpu_close,
    .describe = gpu_describe,
    .tensor_bytes = gpu_tensor_bytes,
    .alloc = gpu_alloc,
    .free = gpu_free,
    .upload = gpu_upload,
    .download = gpu_download,
    .upload_raw = gpu_upload_raw,
    .download_raw = gpu_download_raw,
    .sync = gpu_sync,
    .fill = gpu_fill,
    .copy = gpu_copy,
    .copy_rows = gpu_copy_rows,
    .axpy = gpu_axpy,
    .add = gpu_add,
    .scale = gpu_scale,
    .act = gpu_act,
    .act_bwd = gpu_act_bwd,
    .add_bcast = gpu_add_bcast,
    .add_bcast_bwd = gpu_add_bcast_bwd,
    .clamp = gpu_clamp,
    .clamp_bwd = gpu_clamp_bwd,
    .conv2d = gpu_conv2d,
    .conv2d_dx = gpu_conv2d_dx,
    .conv2d_dw = gpu_conv2d_dw,
    .norm_act = gpu_norm_act,
    .norm_act_bwd = gpu_norm_act_bwd,
    .pad_reflect = gpu_pad_reflect,
    .pad_reflect_bwd = gpu_pad_reflect_bwd,
    .blur_down = gpu_blur_down,
    .blur_down_bwd = gpu_blur_down_bwd,
    .blur_up = gpu_blur_up,
    .blur_up_bwd = gpu_blur_up_bwd,
    .gather = gpu_gather,
    .gather_bwd = gpu_gather_bwd,
    .linear = gpu_linear,
    .linear_dx = gpu_linear_dx,
    .linear_dw = gpu_linear_dw,
    .l2norm = gpu_l2norm,
    .l2norm_bwd = gpu_l2norm_bwd,
    .nce = gpu_nce,
    .nce_bwd = gpu_nce_bwd,
    .gan = gpu_gan,
    .gan_bwd = gpu_gan_bwd,
    .l1 = gpu_l1,
    .l1_bwd = gpu_l1_bwd,
    .freq = gpu_freq,
    .freq_bwd = gpu_freq_bwd,
    .adam = gpu_adam,
    .ema = gpu_ema,
    .norm_stats = gpu_norm_stats,
    .norm_apply = gpu_norm_apply,
    .pixels_in = gpu_pixels_in,
    .pixels_out = gpu_pixels_out,
    .record_begin = gpu_record_begin,
    .record_end = gpu_record_end,
    .replay = gpu_replay,
    .info = gpu_info,
    .tune = gpu_tune,
    .pace = gpu_pace,
    .trim = gpu_trim,
};

static dr_status gpu_open(const dr_host_api *host, const dr_backend_opts *opts, dr_backend **ret, dr_error *err) {
    int least = 0, most = 0;
    /* A request's thread spins while it waits for the device, which is quicker; background work leaves the core. */
    const unsigned wait = cudaEventDisableTiming | (opts->background ? cudaEventBlockingSync : 0);
    dr_status s = find_device(host, opts->device, err);
    if (s) return s;
    gpu *g = calloc(1, sizeof *g);
    if (!g) return host->fail(err, DR_NOMEM, "cuda: no memory for the backend");
    g->base.ops = &ops;
    g->host = *host;
    g->device = opts->device;
    g->type = type_of(opts->precision);
    g->slice_calls = 1;
    s = gpu_check(g, cudaSetDevice(g->device), "cudaSetDevice", err);
    if (!s) s = describe_device(g, err);
    if (!s) s = gpu_check(g, cudaDeviceGetStreamPriorityRange(&least, &most), "cudaDeviceGetStreamPriorityRange", err);
    if (!s)
        s = gpu_check(g,
                      cudaStreamCreateWithPriority(&g->stream, cudaStreamNonBlocking, opts->background ? least : most),
                      "cudaStreamCreateWithPriority", err);
    if (!s) s = gpu_check(g, cudaMallocHost((void **)&g->staging, GPU_N_PIECES * GPU_PIECE), "cudaMallocHost", err);
    for (int i = 0; i < GPU_N_PIECES && !s; i++)
        s = gpu_check(g, cudaEventCreateWithFlags(&g->moved[i], wait), "cudaEventCreateWithFlags", err);
    if (!s && opts->background)
        s = gpu_check(g, cudaEventCreateWithFlags(&g->idle, wait), "cudaEventCreateWithFlags", err);
    const char *cache = opts->plan_cache && *opts->plan_cache ? opts->plan_cache : NULL;
    if (!s) s = cv_open(host, g->stream, cache, &g->conv, err);
    if (!s) describe_plans(g);
    if (s) {
        gpu_close(&g->base);
        return s;
    }
    *ret = &g->base;
    return DR_OK;
}

__attribute__((visibility("default"))) const dr_backend_ops *dr_backend_entry(void);
const dr_backend_ops *dr_backend_entry(void) {
    return &ops;
}
