/* count.c - see count.h. Every entry that training calls is there and does nothing. */
#include "core/tensor/count.h"

#pragma GCC diagnostic ignored "-Wunused-parameter" /* a table of functions that do nothing */

static dr_count *of(dr_backend *be) {
    return (dr_count *)be;
}

static bool is_wide(dr_shape s) {
    return s.c % 8 == 0 && (s.h > 1 || s.w > 1);
}

static size_t tensor_bytes(dr_backend *be, dr_shape s) {
    const int wide = of(be)->wide;
    if (wide) return (dr_shape_count(s) * (is_wide(s) ? (size_t)wide : sizeof(float)) + 255) / 256 * 256;
    return (dr_shape_count(s) * sizeof(float) + 63) / 64 * 64;
}

/* Addresses without memory, one behind the other: nobody looks at what is there. */
static dr_status count_alloc(dr_backend *be, size_t bytes, void **ret, dr_error *err) {
    dr_count *c = of(be);
    *ret = (void *)(uintptr_t)(64 + c->held); /* not NULL, aligned */
    c->held += (bytes + 63) / 64 * 64;
    return DR_OK;
}

static void count_free(dr_backend *be, void *p) {}

static dr_status download(dr_backend *be, dr_tensor src, float *nchw, dr_error *err) {
    if (dr_shape_count(src.shape) == 1) *nchw = 0;
    return DR_OK;
}

/* What cuda/ops_conv.c puts aside: operands that are not wide yet with 8 channels at least, packed weights, the parts
 * of a large window's rows. */
static void conv_gpu(dr_count *c, dr_conv2d_desc d, dr_tensor x, dr_tensor y) {
    const size_t wide = (size_t)c->wide, xi = ((size_t)x.shape.c + 7) / 8 * 8, yo = ((size_t)y.shape.c + 7) / 8 * 8,
                 k = (size_t)d.k, nx = (size_t)x.shape.n * (size_t)x.shape.h * (size_t)x.shape.w,
                 ny = (size_t)y.shape.n * (size_t)y.shape.h * (size_t)y.shape.w;
    size_t n = yo * k * k * xi * wide + 1024;
    if (!is_wide(x.shape)) n += nx * xi * wide;
    if (!is_wide(y.shape)) n += nx * (k * (size_t)y.shape.c > yo ? k * (size_t)y.shape.c + 8 : yo) * wide;
    n += ny / 64 * sizeof(float); /* sums of a bias */
    if (n > c->scratch) c->scratch = n;
}

/* What the CPU's kernels (oneDNN, Winograd, AMX) may ask for: the operands in another order, the weights turned or
 * prepared, and for the gradient of the weights one sum a thread. Measured: docs/internals/training-jobs.md. */
static void conv(dr_backend *be, dr_conv2d_desc d, dr_tensor x, dr_tensor y, bool dw) {
    dr_count *c = of(be);
    if (c->wide) {
        conv_gpu(c, d, x, y);
        return;
    }
    size_t w = (size_t)x.shape.c * (size_t)y.shape.c * (size_t)d.k * (size_t)d.k * sizeof(float);
    size_t n = tensor_bytes(be, x.shape) + tensor_bytes(be, y.shape) + w * (dw ? 2 + (size_t)c->threads : 3);
    if (n > c->scratch) c->scratch = n;
}

static dr_status conv2d(dr_backend *be, dr_conv2d_desc d, dr_tensor x, const float *w, const float *b, dr_tensor y,
                        dr_slot *slot, dr_error *err) {
    conv(be, d, x, y, false);
    return DR_OK;
}
static dr_status conv2d_dx(dr_backend *be, dr_conv2d_desc d, dr_tensor dy, const float *w, dr_tensor dx, dr_slot *slot,
                           dr_error *err) {
    conv(be, d, dx, dy, false);
    return DR_OK;
}
static dr_status conv2d_dw(dr_backend *be, dr_conv2d_desc d, dr_tensor x, dr_tensor dy, float *dw, float *db,
                           dr_slot *slot, dr_error *err) {
    conv(be, d, x, dy, true);
    return DR_OK;
}

#define NOTHING(name, ...)                                                                                             \
    static dr_status name(dr_backend *be, __VA_ARGS__, dr_error *err) {                                                \
        return DR_OK;                                                                                                  \
    }
static dr_status count_sync(dr_backend *be, dr_error *err) {
    return DR_OK;
}
NOTHING(upload, const float *nchw, dr_tensor dst)
NOTHING(raw, const void *src, void *dst, size_t bytes)
NOTHING(fill, float v, dr_tensor y)
NOTHING(unary, dr_tensor x, dr_tensor y)
NOTHING(copy_rows, dr_tensor x, int from_x, dr_tensor y, int from_y, int rows)
NOTHING(scaled, float a, dr_tensor x, dr_tensor y)
NOTHING(binary, dr_tensor a, dr_tensor b, dr_tensor y)
NOTHING(act, dr_act a, dr_tensor x, dr_tensor y)
NOTHING(act_bwd, dr_act a, dr_tensor y, dr_tensor dy, dr_tensor dx)
NOTHING(add_bcast, dr_tensor a, float s, dr_tensor b, dr_tensor y)
NOTHING(clamp, float lo, float hi, dr_tensor x, dr_tensor y)
NOTHING(clamp_bwd, float lo, float hi, dr_tensor x, dr_tensor dy, dr_tensor dx)
NOTHING(norm_act, float eps, dr_act a, dr_tensor x, float *stats, dr_tensor y)
NOTHING(norm_act_bwd, dr_act a, dr_tensor x, const float *stats, dr_tensor dy, dr_tensor dx)
NOTHING(pad, int p, dr_tensor x, dr_tensor y)
NOTHING(gather, dr_tensor x, const int32_t *idx, int s, dr_tensor rows)
NOTHING(linear, dr_tensor x, const float *w, const float *b, dr_tensor y)
NOTHING(linear_dx, dr_tensor dy, const float *w, dr_tensor dx)
NOTHING(linear_dw, dr_tensor x, dr_tensor dy, float *dw, float *db)
NOTHING(l2norm, dr_tensor v, float *norms, dr_tensor y)
NOTHING(l2norm_bwd, dr_tensor y, const float *norms, dr_tensor dy, dr_tensor dv)
NOTHING(nce, int groups, float t, dr_tensor q, dr_tensor k, dr_tensor loss)
NOTHING(nce_bwd, int groups, float t, dr_tensor q, dr_tensor k, float g, dr_tensor dq)
NOTHING(gan, dr_gan_loss m, dr_tensor s, dr_tensor loss)
NOTHING(gan_bwd, dr_gan_loss m, dr_tensor s, float g, dr_tensor ds)
NOTHING(l1_bwd, dr_tensor a, dr_tensor b, float g, dr_tensor da)
NOTHING(adam, const dr_adam_desc *d, size_t n, float *p, const float *g, float *m, float *v)
NOTHING(ema, float decay, size_t n, const float *p, float *e)

static const dr_backend_ops table = {
    .abi = DR_BACKEND_ABI,
    .size = sizeof(dr_backend_ops),
    .name = "count",
    .tensor_bytes = tensor_bytes,
    .alloc = count_alloc,
    .free = count_free,
    .upload = upload,
    .download = download,
    .upload_raw = raw,
    .download_raw = raw,
    .sync = count_sync,
    .fill = fill,
    .copy = unary,
    .copy_rows = copy_rows,
    .axpy = scaled,
    .add = binary,
    .scale = scaled,
    .act = act,
    .act_bwd = act_bwd,
    .add_bcast = add_bcast,
    .add_bcast_bwd = scaled,
    .clamp = clamp,
    .clamp_bwd = clamp_bwd,
    .conv2d = conv2d,
    .conv2d_dx = conv2d_dx,
    .conv2d_dw = conv2d_dw,
    .norm_act = norm_act,
    .norm_act_bwd = norm_act_bwd,
    .pad_reflect = pad,
    .pad_reflect_bwd = pad,
    .blur_down = unary,
    .blur_down_bwd = unary,
    .blur_up = unary,
    .blur_up_bwd = unary,
    .gather = gather,
    .gather_bwd = gather,
    .linear = linear,
    .linear_dx = linear_dx,
    .linear_dw = linear_dw,
    .l2norm = l2norm,
    .l2norm_bwd = l2norm_bwd,
    .nce = nce,
    .nce_bwd = nce_bwd,
    .gan = gan,
    .gan_bwd = gan_bwd,
    .l1 = binary,
    .l1_bwd = l1_bwd,
    .freq = binary, /* its tables and spectra are smaller than what any convolution asks for */
    .freq_bwd = l1_bwd,
    .adam = adam,
    .ema = ema,
};

void dr_count_init(dr_count *c, int threads) {
    *c = (dr_count){.base = {.ops = &table}, .threads = threads > 0 ? threads : 1};
}

void dr_count_init_gpu(dr_count *c, bool bf16) {
    *c = (dr_count){.base = {.ops = &table}, .threads = 1, .wide = bf16 ? 2 : 4};
}
