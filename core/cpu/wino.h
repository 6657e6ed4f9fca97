/* wino.h - 3x3 convolutions by our own Winograd F(4x4,3x3), f32.
 *
 * A thread takes a block of tiles through all three stages (transformed input, 36 small matrix products, output), so
 * the scratch is a few megabytes a thread for any picture, and the bits depend on neither the threads nor the other
 * pictures of a batch. It can take the instance norm and ReLU of its input and mirrored padding on the way in, and
 * leave the statistics of its output for the next norm. */
#ifndef DR_CPU_WINO_H
#define DR_CPU_WINO_H

#include "core/cpu/conv_kern.h"

typedef struct dr_wino_conv {
    int n, ic, ih, iw, oc, pad; /* ic and oc in multiples of 16 */
    bool flip;                  /* weights are (ic,oc,3,3), turned: the backward-data pass of their layer */
    bool reflect, relu;
    const float *in_stats; /* n*ic pairs (mean, rstd) that x is normalised with, or NULL */
    float *out_stats;      /* n*oc pairs of y to compute, or NULL */
    float eps;             /* of out_stats */
} dr_wino_conv;

size_t dr_wino_weights_bytes(const dr_wino_conv *c);
/* OpenMP threads as set by the caller, here and below. */
void dr_wino_prepare(const dr_conv_kern *kern, const dr_wino_conv *c, const float *w, float *u);

size_t dr_wino_scratch(const dr_wino_conv *c, int threads);
void dr_wino_run(const dr_conv_kern *kern, const dr_wino_conv *c, const float *x, const float *u, const float *b,
                 float *y, void *scratch);

#endif
