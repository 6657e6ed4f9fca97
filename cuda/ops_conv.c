/* ops_conv.c - the table's convolutions in terms of conv.h: tensors widened to multiples of 8 channels in the type
 * stored, weights from PyTorch's order to (O,k,k,I) and gradients back, biases.
 *
 * Weights are packed anew in every call, since training changes them in every step, unless the caller says that they
 * stay (frozen, with a slot). The scratch memory of a call is cut into parts in the order of use. */
#include "cuda/gpu.h"

#include <stdlib.h>

static int round8(int c) {
    return (c + 7) / 8 * 8;
}

/* The convolution x -> y with all channels rounded up. */
static cv_shape shape_of(const gpu *g, dr_conv2d_desc d, dr_shape x, dr_shape y) {
    return (cv_shape){x.n, round8(x.c), x.h, x.w, round8(y.c), d.k, d.pad, g->type, 0};
}

static size_t elt(const gpu *g) {
    return dk_elt(g->type);
}

/* Bytes of the NHWC form that conv.h takes; 0 if the tensor lies that way already. */
static size_t wide_bytes(const gpu *g, dr_shape s) {
    if (gpu_map(g, s).wide) return 0;
    return gpu_aligned((size_t)s.n * (size_t)s.h * (size_t)s.w * (size_t)round8(s.c) * elt(g));
}

static size_t weight_bytes(const gpu *g, cv_shape s) {
    return gpu_aligned((size_t)s.o * (size_t)s.k * (size_t)cv_kw(s) * (size_t)s.i * elt(g));
}

/* The tensor in the form that conv.h takes: itself, or widened into *at, which moves on. */
static const void *widened(gpu *g, dr_tensor x, char **at) {
    dk_map m = gpu_map(g, x.shape);
    if (m.wide) return x.data;
    void *y = *at;
    *at += wide_bytes(g, x.shape);
    dk_widen(g->stream, m, round8(x.shape.c), g->type, x.data, y);
    return y;
}

/* ---- frozen weights ---------------------------------------------------------------------------------------------- */

typedef struct packed {
    gpu *g;
    void *w;
} packed;

static void free_packed(void *p) {
    packed *k = p;
    gpu_free(&k->g->base, k->w);
    free(k);
}

static void pack(gpu *g, cv_shape s, int o, int i, const float *w, void *y) {
    if (s.kw) /* by rows */
        dk_pack_rows(g->stream, o, i, s.kw, s.o, s.i, s.type, w, y);
    else
        dk_pack_weights(g->stream, o, i, s.k, s.o, s.i, s.type, w, y);
}

/* Packed weights: from the slot if they stay, else made in *at. */
static dr_status weights(gpu *g, dr_conv2d_desc d, cv_shape s, int o, int i, const float *w, dr_slot *slot, char **at,
                         const void **ret, dr_error *err) {
    if (!(d.frozen && slot)) {
        pack(g, s, o, i, w, *at);
        *ret = *at;
        *at += weight_bytes(g, s);
        return DR_OK;
    }
    if (!slot->p) {
        packed *k = malloc(sizeof *k);
        if (!k) return g->host.fail(err, DR_NOMEM, "cuda: no memory for packed weights");
        dr_status st = gpu_alloc(&g->base, weight_bytes(g, s), &k->w, err);
        if (st) {
            free(k);
            return st;
        }
        k->g = g;
        pack(g, s, o, i, w, k->w);
        *slot = (dr_slot){k, free_packed};
    }
    *ret = ((const packed *)slot->p)->w;
    return DR_OK;
}

/* ---- the three ----------------------------------------------------------------------------------------------------
 */

/* Large windows with one or three outputs, as the generator's last layer: k x k would fill 3 of 64 columns of a tensor
 * core's tile, and no Hopper engine takes 7x7. As a 1 x k convolution with k times the outputs it has engines
 * everywhere, and its sums over k rows are made here, in f32 of parts rounded to the type: the error stays that of one
 * rounding. */
static bool by_rows(dr_conv2d_desc d, dr_shape x, dr_shape y) {
    return d.k >= 5 && d.k <= 64 && d.pad == 0 && (y.c == 1 || y.c == 3) && x.c >= 16;
}

static dr_status conv_by_rows(gpu *g, dr_conv2d_desc d, dr_tensor x, const float *w, const float *b, dr_tensor y,
                              dr_slot *slot, dr_error *err) {
    const cv_shape s = {x.shape.n, round8(x.shape.c), x.shape.h, x.shape.w, round8(d.k * y.shape.c), 1,
                        0,         g->type,           d.k};
    const size_t sums = gpu_aligned((size_t)s.n * (size_t)s.h * (size_t)y.shape.w * (size_t)s.o * elt(g));
    void *mem;
    dr_status st = gpu_scratch(g, wide_bytes(g, x.shape) + sums + weight_bytes(g, s) + 256, &mem, err);
    if (st) return st;
    char *at = mem;
    const void *wx = widened(g, x, &at), *ww;
    void *parts = at;
    at += sums;
    if ((st = weights(g, d, s, y.shape.c, x.shape.c, w, slot, &at, &ww, err))) return st;
    if ((st = cv_run(g->conv, CV_FORWARD, s, wx, ww, parts, err))) return st;
    dk_sum_rows(g->stream, gpu_map(g, y.shape), d.k, s.o, s.type, parts, b, y.data);
    return gpu_launched(g, "conv2d", err);
}

dr_status gpu_conv2d(dr_backend *be, dr_conv2d_desc d, dr_tensor x, const float *w, const float *b, dr_tensor y,
                     dr_slot *slot, dr_error *err) {
    gpu *g = gpu_of(be);
    if (by_rows(d, x.shape, y.shape)) return conv_by_rows(g, d, x, w, b, y, slot, err);
    cv_shape s = shape_of(g, d, x.shape, y.shape);
    dk_map my = gpu_map(g, y.shape);
    void *mem;
    dr_status st =
        gpu_scratch(g, wide_bytes(g, x.shape) + wide_bytes(g, y.shape) + weight_bytes(g, s) + 256, &mem, err);
    if (st) return st;
    char *at = mem;
    const void *wx = widened(g, x, &at), *ww;
    void *wy = my.wide ? y.data : at;
    if (!my.wide) at += wide_bytes(g, y.shape);
    if ((st = weights(g, d, s, y.shape.c, x.shape.c, w, slot, &at, &ww, err))) return st;
    if ((st = cv_run(g->conv, CV_FORWARD, s, wx, ww, wy, err))) return st;
    if (!my.wide)
        dk_narrow(g->stream, my, s.o, s.type, wy, b, y.data);
    else if (b)
        dk_bias_add(g->stream, my, b, y.data);
    return gpu_launched(g, "conv2d", err);
}

dr_status gpu_conv2d_dx(dr_backend *be, dr_conv2d_desc d, dr_tensor dy, const float *w, dr_tensor dx, dr_slot *slot,
                        dr_error *err) {
    gpu *g = gpu_of(be);
    cv_shape s = shape_of(g, d, dx.shape, dy.shape);
    dk_map mx = gpu_map(g, dx.shape);
    void *mem;
    (void)slot; /* its weights may be another use's */
    d.frozen = false;
    dr_status st =
        gpu_scratch(g, wide_bytes(g, dx.shape) + wide_bytes(g, dy.shape) + weight_bytes(g, s) + 256, &mem, err);
    if (st) return st;
    char *at = mem;
    const void *wy = widened(g, dy, &at), *ww;
    void *wx = mx.wide ? dx.data : at;
    if (!mx.wide) at += wide_bytes(g, dx.shape);
    if ((st = weights(g, d, s, dy.shape.c, dx.shape.c, w, NULL, &at, &ww, err))) return st;
    if ((st = cv_run(g->conv, CV_BACKWARD_DATA, s, wy, ww, wx, err))) return st;
    if (!mx.wide) dk_narrow(g->stream, mx, s.i, s.type, wx, NULL, dx.data);
    return gpu_launched(g, "conv2d_dx", err);
}

dr_status gpu_conv2d_dw(dr_backend *be, dr_conv2d_desc d, dr_tensor x, dr_tensor dy, float *dw, float *db,
                        dr_slot *slot, dr_error *err) {
    gpu *g = gpu_of(be);
    cv_shape s = shape_of(g, d, x.shape, dy.shape);
    dk_map my = gpu_map(g, dy.shape);
    size_t sums = db ? gpu_aligned(dk_bias_grad_scratch(my)) : 0;
    void *mem;
    (void)slot;
    dr_status st =
        gpu_scratch(g, wide_bytes(g, x.shape) + wide_bytes(g, dy.shape) + weight_bytes(g, s) + sums + 256, &mem, err);
    if (st) return st;
    char *at = mem;
    const void *wx = widened(g, x, &at), *wy = widened(g, dy, &at);
    void *dwp = at;
    at += weight_bytes(g, s);
    if ((st = cv_run(g->conv, CV_BACKWARD_WEIGHTS, s, wx, wy, dwp, err))) return st;
    dk_unpack_weights(g->stream, dy.shape.c, x.shape.c, s.k, s.o, s.i, s.type, dwp, dw);
    if (db) dk_bias_grad(g->stream, my, dy.data, db, at);
    return gpu_launched(g, "conv2d_dw", err);
}
