/* conv_kern.h - our own convolution kernels, one table for each instruction set.
 *
 * conv_kern.inc is compiled twice (conv_avx2.c, conv_avx512.c) and once for the baseline (conv_base.c);
 * dr_cpu_conv_open chooses. A kernel computes one piece of the output that no other piece shares, on the calling
 * thread: whoever calls it in parallel gets the same bits for any number of threads. */
#ifndef DR_CPU_CONV_KERN_H
#define DR_CPU_CONV_KERN_H

#include <stdbool.h>
#include <stddef.h>

enum { DR_FEW_OUT_MAX = 3 };

/* Convolution from nChw16c to at most DR_FEW_OUT_MAX planar channels: x is one picture (C/16,H,W,16), w is packed as
 * (C/16, ky, kx, oc, 16), y points to the first plane of the oc wanted, planes are oh*ow apart. */
typedef struct dr_few_out {
    const float *x, *w, *b; /* b may be NULL */
    float *y;
    int c_blocks, h, w_in, oh, ow, oc, k, pad;
} dr_few_out;

/* Winograd 3x3 of one picture, nChw16c to nChw16c, see wino.h. Tiles of 4x4 outputs are numbered by rows. */
typedef struct dr_wino {
    const float *x, *u, *b;     /* u: transformed weights; b may be NULL */
    const float *scale, *shift; /* x is taken as x*scale[c]+shift[c], at least 0 with relu; NULL: as it is */
    float *y;
    int ic, h, w, oc, oh, ow, pad, tiles_x;
    bool relu, reflect; /* the padding mirrors (after scale and relu) instead of being zero */
} dr_wino;

typedef struct dr_conv_kern {
    const char *name;
    /* outputs ob*16.. of the whole u, 36*ic*oc floats; `flip`: w is (ic,oc,3,3) and is turned by 180 degrees */
    void (*wino_weights)(const float *w, int ic, int oc, bool flip, int ob, float *u);
    /* `n` tiles from tile0, in dr_wino_scratch floats. part: NULL, or oc/16 times (first, sum, sum of squares)[16] of
     * the outputs, both sums about `first` */
    void (*wino_block)(const dr_wino *a, int tile0, int n, float *scratch, float *part);
    void (*few_out_row)(const dr_few_out *a, int row);
} dr_conv_kern;

extern const dr_conv_kern dr_conv_kern_base, dr_conv_kern_avx2, dr_conv_kern_avx512;

#endif
