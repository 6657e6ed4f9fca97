/* ops_conv.h - shared by the files of the table's convolutions: operands in the form that conv.h takes, packed weights.
 */
#ifndef DR_CUDA_OPS_CONV_H
#define DR_CUDA_OPS_CONV_H

#include "cuda/gpu.h"

/* What a convolution becomes for conv.h: itself, a wide one with its rows as outputs (ops_conv.c), a high one with its
 * columns as inputs (ops_conv_in.c). Weights are packed for each of them in its own way. */
typedef enum conv_form { CONV_WHOLE, CONV_ROWS, CONV_COLUMNS, CONV_N_FORMS } conv_form;

/* One forward convolution as the table asks for it. */
typedef struct conv_call {
    dr_conv2d_desc d;
    dr_tensor x, y;
    const float *w, *b;
    dr_slot *slot;
} conv_call;

static inline int conv_round8(int c) {
    return (c + 7) / 8 * 8;
}
static inline size_t conv_elt(const gpu *g) {
    return dk_elt(g->type);
}
static inline size_t conv_weight_bytes(const gpu *g, cv_shape s) {
    return gpu_aligned((size_t)s.o * (size_t)s.k * (size_t)cv_kw(s) * (size_t)s.i * conv_elt(g));
}
/* The convolution x -> y with all channels rounded up. */
static inline cv_shape conv_whole(const gpu *g, dr_conv2d_desc d, dr_shape x, dr_shape y) {
    return (cv_shape){x.n, conv_round8(x.c), x.h, x.w, conv_round8(y.c), d.k, d.pad, g->type, 0};
}

/* Packed weights of a form: from the slot if they stay (frozen), else made in *at, which then moves on. */
dr_status conv_weights(gpu *g, const conv_call *c, conv_form form, cv_shape s, char **at, const void **ret,
                       dr_error *err);

/* ops_conv.c */
dr_status conv_run_whole(gpu *g, const conv_call *c, dr_error *err);

/* ops_conv_in.c: can this one be done by columns, and is that the way to go? While tuning, the first question for a
 * shape is settled by the clock. */
bool conv_takes_columns(const gpu *g, const conv_call *c);
dr_status conv_run_in(gpu *g, const conv_call *c, dr_error *err);

#endif
