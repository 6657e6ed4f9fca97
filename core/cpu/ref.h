/* ref.h - every entry of the table as the formula says it, in double, planar NCHW, one loop a sum.
 *
 * The reference of the tests, for every backend; nothing in production calls it. Same names, meanings and order of
 * arguments as in core/tensor/backend.h; the shape given is that of x (of dx in a backward pass);
 * px, py, pd, po are x, y, dy, dx where y and x count pixels. */
#ifndef DR_CPU_REF_H
#define DR_CPU_REF_H

#include "core/tensor/backend.h"

void dr_ref_act(size_t n, dr_act act, const double *x, double *y);
void dr_ref_act_bwd(size_t n, dr_act act, const double *y, const double *dy, double *dx);
/* s is a's shape, b has bc channels (s.c or 1) */
void dr_ref_add_bcast(dr_shape s, int bc, const double *a, double f, const double *b, double *py);
void dr_ref_add_bcast_bwd(dr_shape s, int bc, double f, const double *dy, double *db);
void dr_ref_clamp(size_t n, double lo, double hi, const double *x, double *y);
void dr_ref_clamp_bwd(size_t n, double lo, double hi, const double *x, const double *dy, double *dx);

/* oc output channels; dw and db are accumulated into; b, db may be NULL */
void dr_ref_conv2d(dr_shape xs, int oc, dr_conv2d_desc d, const double *px, const double *w, const double *b,
                   double *py);
void dr_ref_conv2d_dx(dr_shape xs, int oc, dr_conv2d_desc d, const double *dy, const double *w, double *dx);
void dr_ref_conv2d_dw(dr_shape xs, int oc, dr_conv2d_desc d, const double *px, const double *dy, double *dw,
                      double *db);

void dr_ref_norm_act(dr_shape s, double eps, dr_act act, const double *px, double *stats, double *py);
void dr_ref_norm_act_bwd(dr_shape s, dr_act act, const double *px, const double *stats, const double *pd, double *po);

void dr_ref_pad_reflect(dr_shape s, int p, const double *x, double *y);
void dr_ref_pad_reflect_bwd(dr_shape s, int p, const double *dy, double *dx);
void dr_ref_blur_down(dr_shape s, const double *x, double *y);
void dr_ref_blur_down_bwd(dr_shape s, const double *dy, double *dx);
void dr_ref_blur_up(dr_shape s, const double *x, double *y);
void dr_ref_blur_up_bwd(dr_shape s, const double *dy, double *dx);

void dr_ref_gather(dr_shape xs, const double *x, const int32_t *idx, int s, double *rows);
void dr_ref_gather_bwd(dr_shape xs, const double *drows, const int32_t *idx, int s, double *dx);
void dr_ref_linear(int rows, int in, int out, const double *x, const double *w, const double *b, double *y);
void dr_ref_linear_dx(int rows, int in, int out, const double *dy, const double *w, double *dx);
void dr_ref_linear_dw(int rows, int in, int out, const double *x, const double *dy, double *dw, double *db);
void dr_ref_l2norm(int rows, int cols, const double *v, double *norms, double *y);
void dr_ref_l2norm_bwd(int rows, int cols, const double *y, const double *norms, const double *dy, double *dv);

double dr_ref_nce(int groups, double temperature, int rows, int cols, const double *q, const double *k);
void dr_ref_nce_bwd(int groups, double temperature, int rows, int cols, const double *q, const double *k, double g,
                    double *dq);
double dr_ref_gan(size_t n, dr_gan_loss mode, const double *s);
void dr_ref_gan_bwd(size_t n, dr_gan_loss mode, const double *s, double g, double *ds);
double dr_ref_l1(size_t n, const double *a, const double *b);
void dr_ref_l1_bwd(size_t n, const double *a, const double *b, double g, double *da);
double dr_ref_freq(dr_shape s, const double *a, const double *b);
void dr_ref_freq_bwd(dr_shape s, const double *a, const double *b, double g, double *da);

void dr_ref_adam(const dr_adam_desc *d, size_t n, double *p, const double *g, double *m, double *v);
void dr_ref_ema(double decay, size_t n, const double *p, double *ema);

#endif
