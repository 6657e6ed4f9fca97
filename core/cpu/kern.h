/* kern.h - the inner loops of the CPU backend: single-threaded, on pieces that the family files cut for the threads.
 *
 * kern.inc is compiled three times (kern_base.c, kern_avx2.c, kern_avx512.c); open() chooses a table by cpuid. Flat
 * loops work on n floats of any layout. Row loops work on pixels of 16 lanes (nChw16c: one pixel of one block of
 * channels) or of 1 lane (planar). Sums always run in the same order, whoever calls: results do not depend on threads.
 */
#ifndef DR_CPU_KERN_H
#define DR_CPU_KERN_H

#include "core/tensor/backend.h"

enum { DR_LANES = 16 };

/* Per lane of one plane: statistics and, in the backward pass, the two means. */
typedef struct dr_lanes {
    float mean[DR_LANES], rstd[DR_LANES];
    float mean_g[DR_LANES], mean_gx[DR_LANES]; /* mean(g), mean(g*xh) */
} dr_lanes;

/* n, w, wo count pixels. y may be x where both have n pixels. */
typedef struct dr_rows {
    /* sum[l] += sum of x, sq[l] += sum of x^2, exact to about 1e-7 of the deviation */
    void (*norm_sums)(size_t n, const float *x, double *sum, double *sq);
    void (*norm_apply)(size_t n, const float *x, const dr_lanes *s, dr_act act, float *y);
    /* y = act((x-mean)*rstd) + r */
    void (*norm_add)(size_t n, const float *x, const dr_lanes *s, dr_act act, const float *r, float *y);
    /* sg[l] += sum of g, sgx[l] += sum of g*xh; g = act'(xh)*dy */
    void (*norm_bwd_sums)(size_t n, const float *x, const float *dy, const dr_lanes *s, dr_act act, double *sg,
                          double *sgx);
    void (*norm_bwd)(size_t n, const float *x, const float *dy, const dr_lanes *s, dr_act act, float *dx);

    /* One output row of wo = ceil(w/2) pixels from three input rows of w > 1; s (or NULL) normalises what is read. */
    void (*blur_down)(int w, int wo, const float *a, const float *b, const float *c, const dr_lanes *s, dr_act act,
                      float *y);
    /* One row of w pixels of dx from ca*a + cb*b, rows of wo pixels of dy. */
    void (*blur_down_bwd)(int w, int wo, const float *a, float ca, const float *b, float cb, float *dx);
    /* One output row of 2w pixels from a/4 + 3b/4. */
    void (*blur_up)(int w, const float *a, const float *b, const dr_lanes *s, dr_act act, float *y);
    /* One row of w pixels of dx from (a + 3b + 3c + d)/4, rows of 2w pixels of dy. */
    void (*blur_up_bwd)(int w, const float *a, const float *b, const float *c, const float *d, float *dx);
} dr_rows;

typedef struct dr_kern {
    const char *name; /* "AVX-512" */
    const dr_rows *planar, *blocked;

    /* flat; outputs may alias inputs */
    void (*fill)(size_t n, float v, float *y);
    void (*scale)(size_t n, float a, const float *x, float *y);
    void (*axpby)(size_t n, float a, const float *x, const float *z, float *y);           /* y = a x + z */
    void (*axpy_spread)(size_t n_pix, float a, const float *b, const float *z, float *y); /* b serves 16 lanes */
    void (*act)(size_t n, dr_act act, const float *x, float *y);
    void (*act_bwd)(size_t n, dr_act act, const float *y, const float *dy, float *dx);
    void (*clamp)(size_t n, float lo, float hi, const float *x, float *y);
    void (*clamp_bwd)(size_t n, float lo, float hi, const float *x, const float *dy, float *dx);
    void (*sign_diff)(size_t n, float g, const float *a, const float *b, float *y); /* g*sign(a-b) */
    double (*sum_abs_diff)(size_t n, const float *a, const float *b);
    double (*dot)(size_t n, const float *a, const float *b);
    /* p = exp(scale*c - shift), 0 below e^-60; returns the sum; p may alias c */
    double (*exp_sum)(size_t n, float scale, float shift, const float *c, float *p);
    void (*adam)(size_t n, float b1, float b2, float step, float root_bc2, float eps, float *p, const float *g,
                 float *m, float *v);
    void (*ema)(size_t n, float decay, const float *p, float *ema);

    /* C (m,n) [+]= A (m,k) B (k,n). A is addressed by strides; B was packed in panels of `panel` columns, K by K.
     * n_bias: NULL or n floats added to every row. */
    int panel;
    void (*pack)(int k, int n, const float *b, ptrdiff_t k_stride, ptrdiff_t n_stride, float *packed);
    void (*gemm)(int m, int n, int k, const float *a, ptrdiff_t m_stride, ptrdiff_t k_stride, const float *packed,
                 const float *n_bias, bool add, float *c, ptrdiff_t ldc);
} dr_kern;

extern const dr_kern dr_kern_base, dr_kern_avx2, dr_kern_avx512;

#endif
