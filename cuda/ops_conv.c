/* ops_conv.c - the table's convolutions in terms of conv.h: tensors widened to multiples of 8 channels in the type
 * stored, weights from PyTorch's order to (O,k,k,I) and gradients back, biases.
 *
 * Weights are packed anew in every call, since training changes them in every step, unless the caller says that they
 * stay (frozen, with a slot). The scratch memory of a call is cut into parts in the order of use. */
#include "cuda/ops_conv.h"

#include <stdlib.h>

/* Bytes of the NHWC form that conv.h takes; 0 if the tensor lies that way already. */
static size_t wide_bytes(const gpu *g, dr_shape s) {
    if (gpu_map(g, s).wide) return 0;
    return gpu_aligned((size_t)s.n * (size_t)s.h * (size_t)s.w * (size_t)conv_round8(s.c) * conv_elt(g));
}

/* The tensor in the form that conv.h takes: itself, or widened into *at, which moves on. */
static const void *widened(gpu *g, dr_tensor x, char **at) {
    dk_map m = gpu_map(g, x.shape);
    if (m.wide) return x.data;
    void *y = *at;
    *at += wide_bytes(g, x.shape);
    dk_widen(g->stream, m, conv_round8(x.shape.c), g->type, x.data, y);
    return y;
}

/* ---- frozen weights ---------------------------------------------------------------------------------------------- */

/* A model's shapes share the slot, and may go different ways. */
typedef struct packed {
    gpu *g;
    void *w[CONV_N_FORMS];
} packed;

static void free_packed(void *p) {
    packed *k = p;
    for (int f = 0; f < CONV_N_FORMS; f++)
        if (k->w[f]) gpu_free(&k->g->base, k->w[f]);
    free(k);
}

static void pack(gpu *g, const conv_call *c, conv_form form, cv_shape s, void *y) {
    const int o = c->y.shape.c, i = c->x.shape.c;
    if (form == CONV_ROWS)
        dk_pack_rows(g->stream, o, i, c->d.k, s.o, s.i, s.type, c->w, y);
    else if (form == CONV_COLUMNS)
        dk_pack_columns(g->stream, o, i, c->d.k, s.o, s.i, s.type, c->w, y);
    else
        dk_pack_weights(g->stream, o, i, c->d.k, s.o, s.i, s.type, c->w, y);
}

dr_status conv_weights(gpu *g, const conv_call *c, conv_form form, cv_shape s, char **at, const void **ret,
                       dr_error *err) {
    if (!(c->d.frozen && c->slot)) {
        pack(g, c, form, s, *at);
        *ret = *at;
        *at += conv_weight_bytes(g, s);
        return DR_OK;
    }
    if (!c->slot->p) {
        packed *k = calloc(1, sizeof *k);
        if (!k) return g->host.fail(err, DR_NOMEM, "cuda: no memory for packed weights");
        k->g = g;
        c->slot->p = k;
        c->slot->destroy = free_packed;
    }
    packed *k = c->slot->p;
    if (!k->w[form]) {
        dr_status st = gpu_alloc_beside(g, conv_weight_bytes(g, s), &k->w[form], err);
        if (st) {
            k->w[form] = NULL;
            return st;
        }
        pack(g, c, form, s, k->w[form]);
    }
    *ret = k->w[form];
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

static dr_status conv_by_rows(gpu *g, const conv_call *c, dr_error *err) {
    const dr_shape x = c->x.shape, y = c->y.shape;
    const cv_shape s = {x.n, conv_round8(x.c), x.h, x.w, conv_round8(c->d.k * y.c), 1, 0, g->type, c->d.k};
    const size_t sums = gpu_aligned((size_t)s.n * (size_t)s.h * (size_t)y.w * (size_t)s.o * conv_elt(g));
    void *mem;
    dr_status st = gpu_scratch(g, wide_bytes(g, x) + sums + conv_weight_bytes(g, s) + 256, &mem, err);
    if (st) return st;
    char *at = mem;
    const void *wx = widened(g, c->x, &at), *ww;
    void *parts = at;
    at += sums;
    if ((st = conv_weights(g, c, CONV_ROWS, s, &at, &ww, err))) return st;
    if ((st = cv_run(g->conv, CV_FORWARD, s, wx, ww, parts, err))) return st;
    dk_sum_rows(g->stream, gpu_map(g, y), c->d.k, s.o, s.type, parts, c->b, c->y.data);
    return gpu_launched(g, "conv2d", err);
}

dr_status conv_run_whole(gpu *g, const conv_call *c, dr_error *err) {
    const dr_shape x = c->x.shape, y = c->y.shape;
    const cv_shape s = conv_whole(g, c->d, x, y);
    const dk_map my = gpu_map(g, y);
    void *mem;
    dr_status st = gpu_scratch(g, wide_bytes(g, x) + wide_bytes(g, y) + conv_weight_bytes(g, s) + 256, &mem, err);
    if (st) return st;
    char *at = mem;
    const void *wx = widened(g, c->x, &at), *ww;
    void *wy = my.wide ? c->y.data : at;
    if (!my.wide) at += wide_bytes(g, y);
    if ((st = conv_weights(g, c, CONV_WHOLE, s, &at, &ww, err))) return st;
    if ((st = cv_run(g->conv, CV_FORWARD, s, wx, ww, wy, err))) return st;
    if (!my.wide)
        dk_narrow(g->stream, my, s.o, s.type, wy, c->b, c->y.data);
    else if (c->b)
        dk_bias_add(g->stream, my, c->b, c->y.data);
    return gpu_launched(g, "conv2d", err);
}

dr_status gpu_conv2d(dr_backend *be, dr_conv2d_desc d, dr_tensor x, const float *w, const float *b, dr_tensor y,
                     dr_slot *slot, dr_error *err) {
    gpu *g = gpu_of(be);
    const conv_call c = {d, x, y, w, b, slot};
    if (by_rows(d, x.shape, y.shape)) return conv_by_rows(g, &c, err);
    if (conv_takes_columns(g, &c)) return conv_run_in(g, &c, err);
    return conv_run_whole(g, &c, err);
}

dr_status gpu_conv2d_dx(dr_backend *be, dr_conv2d_desc d, dr_tensor dy, const float *w, dr_tensor dx, dr_slot *slot,
                        dr_error *err) {
    gpu *g = gpu_of(be);
    const cv_shape s = conv_whole(g, d, dx.shape, dy.shape);
    dk_map mx = gpu_map(g, dx.shape);
    void *mem;
    (void)slot;
    d.frozen = false;
    const conv_call c = {d, dx, dy, w, NULL, NULL}; /* weights are packed as forward takes them */
    dr_status st =
        gpu_scratch(g, wide_bytes(g, dx.shape) + wide_bytes(g, dy.shape) + conv_weight_bytes(g, s) + 256, &mem, err);
    if (st) return st;
    char *at = mem;
    const void *wy = widened(g, dy, &at), *ww;
    void *wx = mx.wide ? dx.data : at;
    if (!mx.wide) at += wide_bytes(g, dx.shape);
    if ((st = conv_weights(g, &c, CONV_WHOLE, s, &at, &ww, err))) return st;
    if ((st = cv_run(g->conv, CV_BACKWARD_DATA, s, wy, ww, wx, err))) return st;
    if (!mx.wide) dk_narrow(g->stream, mx, s.i, s.type, wx, NULL, dx.data);
    return gpu_launched(g, "conv2d_dx", err);
}

dr_status gpu_conv2d_dw(dr_backend *be, dr_conv2d_desc d, dr_tensor x, dr_tensor dy, float *dw, float *db,
                        dr_slot *slot, dr_error *err) {
    gpu *g = gpu_of(be);
    const cv_shape s = conv_whole(g, d, x.shape, dy.shape);
    dk_map my = gpu_map(g, dy.shape);
    size_t sums = db ? gpu_aligned(dk_bias_grad_scratch(my)) : 0;
    void *mem;
    (void)slot;
    dr_status st = gpu_scratch(
        g, wide_bytes(g, x.shape) + wide_bytes(g, dy.shape) + conv_weight_bytes(g, s) + sums + 256, &mem, err);
    if (st) return st;
    char *at = mem;
    const void *wx = widened(g, x, &at), *wy = widened(g, dy, &at);
    void *dwp = at;
    at += conv_weight_bytes(g, s);
    if ((st = cv_run(g->conv, CV_BACKWARD_WEIGHTS, s, wx, wy, dwp, err))) return st;
    dk_unpack_weights(g->stream, dy.shape.c, x.shape.c, s.k, s.o, s.i, s.type, dwp, dw);
    if (db) dk_bias_grad(g->stream, my, dy.data, db, at);
    return gpu_launched(g, "conv2d_dw", err);
}

/* ---- tuning -------------------------------------------------------------------------------------------------------
 */

dr_status gpu_tune(dr_backend *be, bool on, int *ret_tuned, dr_error *err) {
    gpu *g = gpu_of(be);
    if (g->recording) return g->host.fail(err, DR_BACKEND, "cuda: tuning cannot begin or end while recording");
    const bool was_on = cv_is_tuning(g->conv);
    cv_set_tuning(g->conv, on);
    if (ret_tuned) *ret_tuned = was_on ? cv_tuned_now(g->conv) : 0;
    return on || !was_on ? DR_OK : cv_save(g->conv, err);
}
