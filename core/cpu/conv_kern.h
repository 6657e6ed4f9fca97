/* conv_kern.h - our own convolution kernels, one table for each instruction set.
 *
 * conv_kern.inc is compiled twice (conv_avx2.c, conv_avx512.c) and once for the baseline (conv_base.c);
 * dr_cpu_conv_open chooses. A kernel computes one piece of the output that no other piece shares, on the calling
 * thread: whoever calls it in parallel gets the same bits for any number of threads. */
#ifndef DR_CPU_CONV_KERN_H
#define DR_CPU_CONV_KERN_H

#include <stddef.h>

enum { DR_FEW_OUT_MAX = 3 };

/* Convolution from nChw16c to at most DR_FEW_OUT_MAX planar channels: x is one picture (C/16,H,W,16), w is packed as
 * (C/16, ky, kx, oc, 16), y points to the first plane of the oc wanted, planes are oh*ow apart. */
typedef struct dr_few_out {
    const float *x, *w, *b; /* b may be NULL */
    float *y;
    int c_blocks, h, w_in, oh, ow, oc, k, pad;
} dr_few_out;

typedef struct dr_conv_kern {
    const char *name;
    void (*few_out_row)(const dr_few_out *a, int row);
} dr_conv_kern;

extern const dr_conv_kern dr_conv_kern_base, dr_conv_kern_avx2, dr_conv_kern_avx512;

#endif
