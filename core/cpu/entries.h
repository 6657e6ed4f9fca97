/* entries.h - the table's entries by file; what they do stands in core/tensor/backend.h. */
#ifndef DR_CPU_ENTRIES_H
#define DR_CPU_ENTRIES_H

#include "core/cpu/cpu.h"

/* eltwise.c */
dr_status dr_cpu_fill(dr_backend *be, float v, dr_tensor y, dr_error *err);
dr_status dr_cpu_copy(dr_backend *be, dr_tensor x, dr_tensor y, dr_error *err);
dr_status dr_cpu_copy_rows(dr_backend *be, dr_tensor x, int from_x, dr_tensor y, int from_y, int rows, dr_error *err);
dr_status dr_cpu_axpy(dr_backend *be, float a, dr_tensor x, dr_tensor y, dr_error *err);
dr_status dr_cpu_add(dr_backend *be, dr_tensor a, dr_tensor b, dr_tensor y, dr_error *err);
dr_status dr_cpu_scale(dr_backend *be, float a, dr_tensor x, dr_tensor y, dr_error *err);
dr_status dr_cpu_act(dr_backend *be, dr_act act, dr_tensor x, dr_tensor y, dr_error *err);
dr_status dr_cpu_act_bwd(dr_backend *be, dr_act act, dr_tensor y, dr_tensor dy, dr_tensor dx, dr_error *err);
dr_status dr_cpu_add_bcast(dr_backend *be, dr_tensor a, float s, dr_tensor b, dr_tensor y, dr_error *err);
dr_status dr_cpu_add_bcast_bwd(dr_backend *be, float s, dr_tensor dy, dr_tensor db, dr_error *err);
dr_status dr_cpu_clamp(dr_backend *be, float lo, float hi, dr_tensor x, dr_tensor y, dr_error *err);
dr_status dr_cpu_clamp_bwd(dr_backend *be, float lo, float hi, dr_tensor x, dr_tensor dy, dr_tensor dx, dr_error *err);

/* norm.c */
dr_status dr_cpu_norm_act(dr_backend *be, float eps, dr_act act, dr_tensor x, float *stats, dr_tensor y, dr_error *err);
dr_status dr_cpu_norm_act_bwd(dr_backend *be, dr_act act, dr_tensor x, const float *stats, dr_tensor dy, dr_tensor dx,
                              dr_error *err);
dr_status dr_cpu_norm_stats(dr_backend *be, float eps, dr_tensor x, float *stats, dr_error *err);
dr_status dr_cpu_norm_apply(dr_backend *be, dr_tensor x, const float *stats, dr_act act, dr_norm_then then, int p,
                            dr_tensor resid, dr_tensor y, dr_error *err);

/* resample.c */
/* The pixel next to a border at distance p, mirrored: i in -(n-1) .. 2(n-1). */
static inline int dr_reflect(int i, int n) {
    return i < 0 ? -i : i >= n ? 2 * (n - 1) - i : i;
}
/* Fill the p pixels on both ends of a row from the w pixels in its middle. */
void dr_cpu_reflect_ends(float *row, int w, int p, int lanes);
dr_status dr_cpu_pad_reflect(dr_backend *be, int p, dr_tensor x, dr_tensor y, dr_error *err);
dr_status dr_cpu_pad_reflect_bwd(dr_backend *be, int p, dr_tensor dy, dr_tensor dx, dr_error *err);
dr_status dr_cpu_blur_down(dr_backend *be, dr_tensor x, dr_tensor y, dr_error *err);
dr_status dr_cpu_blur_down_bwd(dr_backend *be, dr_tensor dy, dr_tensor dx, dr_error *err);
dr_status dr_cpu_blur_up(dr_backend *be, dr_tensor x, dr_tensor y, dr_error *err);
dr_status dr_cpu_blur_up_bwd(dr_backend *be, dr_tensor dy, dr_tensor dx, dr_error *err);

/* linear.c */
dr_status dr_cpu_gather(dr_backend *be, dr_tensor x, const int32_t *idx, int s, dr_tensor rows, dr_error *err);
dr_status dr_cpu_gather_bwd(dr_backend *be, dr_tensor drows, const int32_t *idx, int s, dr_tensor dx, dr_error *err);
dr_status dr_cpu_linear(dr_backend *be, dr_tensor x, const float *w, const float *b, dr_tensor y, dr_error *err);
dr_status dr_cpu_linear_dx(dr_backend *be, dr_tensor dy, const float *w, dr_tensor dx, dr_error *err);
dr_status dr_cpu_linear_dw(dr_backend *be, dr_tensor x, dr_tensor dy, float *dw, float *db, dr_error *err);
dr_status dr_cpu_l2norm(dr_backend *be, dr_tensor v, float *norms, dr_tensor y, dr_error *err);
dr_status dr_cpu_l2norm_bwd(dr_backend *be, dr_tensor y, const float *norms, dr_tensor dy, dr_tensor dv, dr_error *err);

/* loss.c */
dr_status dr_cpu_nce(dr_backend *be, int groups, float temperature, dr_tensor q, dr_tensor k, dr_tensor loss,
                     dr_error *err);
dr_status dr_cpu_nce_bwd(dr_backend *be, int groups, float temperature, dr_tensor q, dr_tensor k, float g, dr_tensor dq,
                         dr_error *err);
dr_status dr_cpu_gan(dr_backend *be, dr_gan_loss mode, dr_tensor s, dr_tensor loss, dr_error *err);
dr_status dr_cpu_gan_bwd(dr_backend *be, dr_gan_loss mode, dr_tensor s, float g, dr_tensor ds, dr_error *err);
dr_status dr_cpu_l1(dr_backend *be, dr_tensor a, dr_tensor b, dr_tensor loss, dr_error *err);
dr_status dr_cpu_l1_bwd(dr_backend *be, dr_tensor a, dr_tensor b, float g, dr_tensor da, dr_error *err);

/* freq.c */
dr_status dr_cpu_freq(dr_backend *be, dr_tensor a, dr_tensor b, dr_tensor loss, dr_error *err);
dr_status dr_cpu_freq_bwd(dr_backend *be, dr_tensor a, dr_tensor b, float g, dr_tensor da, dr_error *err);

/* optim.c */
dr_status dr_cpu_adam(dr_backend *be, const dr_adam_desc *d, size_t n, float *p, const float *g, float *m, float *v,
                      dr_error *err);
dr_status dr_cpu_ema(dr_backend *be, float decay, size_t n, const float *p, float *ema, dr_error *err);

#endif
