/* amx.h - convolutions on AMX tiles, f32 in and out.
 *
 * Products are bf16 x bf16, sums f32 in tiles over the whole of K. Two arithmetics: plain bf16 (training in
 * DR_PREC_BF16), and `split`, where x and w are each the sum of two bf16 and three of the four products are taken: the
 * error of a product is some 2^-17 of it, about that of f32 by Winograd, at a third of the speed, still twice as fast
 * as f32 any other way. Every output element is summed by one thread in one fixed order, so the bits do not depend on
 * the number of threads.
 *
 * Channels of x and y are multiples of 16 (nChw16c), but one side may be few and planar (3 or 1 at the ends of the
 * networks) as long as few*k <= 32: the taps of a row then take the place of channels. */
#ifndef DR_CPU_AMX_H
#define DR_CPU_AMX_H

#include "core/tensor/backend.h"
#include <stdbool.h>
#include <stddef.h>

typedef struct dr_amx_conv {
    int n, ic, ih, iw, oc, k, pad; /* ih x iw: what the convolution sees, after `then` */
    bool flip;                     /* w is (ic,oc,k,k) to be transposed and turned: backward-data of its layer */
    bool split;
    /* forward only, on the way in: norm and ReLU, resampling from rh x rw, mirrored padding (x not planar for the first
     * two) */
    bool reflect, relu;
    const float *in_stats; /* n*ic pairs (mean, rstd), or NULL */
    dr_norm_then then;     /* NONE, BLUR_DOWN, BLUR_UP */
    int rh, rw;
    /* on the way out, y not planar */
    float *out_stats; /* n*oc pairs of y, or NULL */
    float eps;
} dr_amx_conv;

bool dr_amx_open(void); /* does the CPU have AMX bf16, and does the system let us use it? */
bool dr_amx_takes(const dr_amx_conv *c);

/* y(n,oc,..) = conv(x(n,ic,..), w) + b (b may be NULL); OpenMP threads as set by the caller, here and below. */
size_t dr_amx_weights_bytes(const dr_amx_conv *c);
void dr_amx_prepare(const dr_amx_conv *c, const float *w, void *prepared);
size_t dr_amx_conv_scratch(const dr_amx_conv *c, int threads);
void dr_amx_conv_run(const dr_amx_conv *c, const float *x, const void *prepared, const float *b, float *y,
                     void *scratch);

/* dw += gradient; `flip`: dw is (ic,oc,k,k), transposed and turned. */
size_t dr_amx_dw_scratch(const dr_amx_conv *c, int threads);
void dr_amx_dw_run(const dr_amx_conv *c, const float *x, const float *dy, float *dw, void *scratch);

#endif
