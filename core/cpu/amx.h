/* amx.h - bf16 convolutions on AMX tiles, f32 in and out, for training in DR_PREC_BF16.
 *
 * Products are bf16 x bf16, sums f32 in tiles over the whole of K. Every output element is summed by one thread in one
 * fixed order, so the bits do not depend on the number of threads.
 *
 * Channels of x and y are multiples of 16 (nChw16c), but one side may be few and planar (3 or 1 at the ends of the
 * networks) as long as few*k <= 32: the taps of a row then take the place of channels. */
#ifndef DR_CPU_AMX_H
#define DR_CPU_AMX_H

#include <stdbool.h>
#include <stddef.h>

typedef struct dr_amx_conv {
    int n, ic, ih, iw, oc, k, pad;
    bool flip; /* forward: w is (ic,oc,k,k) to be transposed and turned: the backward-data pass of its layer */
} dr_amx_conv;

bool dr_amx_open(void); /* does the CPU have AMX bf16, and does the system let us use it? */
bool dr_amx_takes(const dr_amx_conv *c);

/* y(n,oc,..) = conv(x(n,ic,..), w) + b (b may be NULL); OpenMP threads as set by the caller. */
size_t dr_amx_conv_scratch(const dr_amx_conv *c, int threads);
void dr_amx_conv_run(const dr_amx_conv *c, const float *x, const float *w, const float *b, float *y, void *scratch);

/* dw += gradient; `flip`: dw is (ic,oc,k,k), transposed and turned. */
size_t dr_amx_dw_scratch(const dr_amx_conv *c, int threads);
void dr_amx_dw_run(const dr_amx_conv *c, const float *x, const float *dy, float *dw, void *scratch);

#endif
