/* be.h - the way to call a backend: dr_be_<entry>() for every entry of the table, same arguments, same meaning.
 *
 * The wrappers assert the shapes (a wrong shape is a programmer's error) and count down to an injected fault in tests.
 * Included by backend.h. */
#ifndef DR_TENSOR_BE_H
#define DR_TENSOR_BE_H

#include "core/base/device.h"
#include "core/tensor/backend.h"

/* Output sides of a convolution and of the two blurs. */
static inline int dr_conv_side(int in, dr_conv2d_desc d) {
    return in + 2 * d.pad - d.k + 1;
}
static inline int dr_blur_down_side(int in) {
    return (in + 1) / 2;
}
static inline int dr_blur_up_side(int in) {
    return 2 * in;
}

/* Does the backend have the fused entries norm_stats and norm_apply? */
bool dr_be_is_fused(const dr_backend *be);

const char *dr_be_describe(dr_backend *be);
size_t dr_be_tensor_bytes(dr_backend *be, dr_shape s);
DR_MUSTUSE dr_status dr_be_alloc(dr_backend *be, size_t bytes, void **ret, dr_error *err);
void dr_be_free(dr_backend *be, void *p);
DR_MUSTUSE dr_status dr_be_upload(dr_backend *be, const float *nchw, dr_tensor dst, dr_error *err);
DR_MUSTUSE dr_status dr_be_download(dr_backend *be, dr_tensor src, float *nchw, dr_error *err);
DR_MUSTUSE dr_status dr_be_upload_raw(dr_backend *be, const void *src, void *dst, size_t bytes, dr_error *err);
DR_MUSTUSE dr_status dr_be_download_raw(dr_backend *be, const void *src, void *dst, size_t bytes, dr_error *err);
DR_MUSTUSE dr_status dr_be_sync(dr_backend *be, dr_error *err);

DR_MUSTUSE dr_status dr_be_fill(dr_backend *be, float v, dr_tensor y, dr_error *err);
DR_MUSTUSE dr_status dr_be_copy(dr_backend *be, dr_tensor x, dr_tensor y, dr_error *err);
DR_MUSTUSE dr_status dr_be_copy_rows(dr_backend *be, dr_tensor x, int from_x, dr_tensor y, int from_y, int rows,
                                     dr_error *err);
DR_MUSTUSE dr_status dr_be_axpy(dr_backend *be, float a, dr_tensor x, dr_tensor y, dr_error *err);
DR_MUSTUSE dr_status dr_be_add(dr_backend *be, dr_tensor a, dr_tensor b, dr_tensor y, dr_error *err);
DR_MUSTUSE dr_status dr_be_scale(dr_backend *be, float a, dr_tensor x, dr_tensor y, dr_error *err);
DR_MUSTUSE dr_status dr_be_act(dr_backend *be, dr_act act, dr_tensor x, dr_tensor y, dr_error *err);
DR_MUSTUSE dr_status dr_be_act_bwd(dr_backend *be, dr_act act, dr_tensor y, dr_tensor dy, dr_tensor dx, dr_error *err);
DR_MUSTUSE dr_status dr_be_add_bcast(dr_backend *be, dr_tensor a, float s, dr_tensor b, dr_tensor y, dr_error *err);
DR_MUSTUSE dr_status dr_be_add_bcast_bwd(dr_backend *be, float s, dr_tensor dy, dr_tensor db, dr_error *err);
DR_MUSTUSE dr_status dr_be_clamp(dr_backend *be, float lo, float hi, dr_tensor x, dr_tensor y, dr_error *err);
DR_MUSTUSE dr_status dr_be_clamp_bwd(dr_backend *be, float lo, float hi, dr_tensor x, dr_tensor dy, dr_tensor dx,
                                     dr_error *err);

DR_MUSTUSE dr_status dr_be_conv2d(dr_backend *be, dr_conv2d_desc d, dr_tensor x, const float *w, const float *b,
                                  dr_tensor y, dr_slot *slot, dr_error *err);
DR_MUSTUSE dr_status dr_be_conv2d_dx(dr_backend *be, dr_conv2d_desc d, dr_tensor dy, const float *w, dr_tensor dx,
                                     dr_slot *slot, dr_error *err);
DR_MUSTUSE dr_status dr_be_conv2d_dw(dr_backend *be, dr_conv2d_desc d, dr_tensor x, dr_tensor dy, float *dw, float *db,
                                     dr_slot *slot, dr_error *err);

DR_MUSTUSE dr_status dr_be_norm_act(dr_backend *be, float eps, dr_act act, dr_tensor x, float *stats, dr_tensor y,
                                    dr_error *err);
DR_MUSTUSE dr_status dr_be_norm_act_bwd(dr_backend *be, dr_act act, dr_tensor x, const float *stats, dr_tensor dy,
                                        dr_tensor dx, dr_error *err);

DR_MUSTUSE dr_status dr_be_pad_reflect(dr_backend *be, int p, dr_tensor x, dr_tensor y, dr_error *err);
DR_MUSTUSE dr_status dr_be_pad_reflect_bwd(dr_backend *be, int p, dr_tensor dy, dr_tensor dx, dr_error *err);
DR_MUSTUSE dr_status dr_be_blur_down(dr_backend *be, dr_tensor x, dr_tensor y, dr_error *err);
DR_MUSTUSE dr_status dr_be_blur_down_bwd(dr_backend *be, dr_tensor dy, dr_tensor dx, dr_error *err);
DR_MUSTUSE dr_status dr_be_blur_up(dr_backend *be, dr_tensor x, dr_tensor y, dr_error *err);
DR_MUSTUSE dr_status dr_be_blur_up_bwd(dr_backend *be, dr_tensor dy, dr_tensor dx, dr_error *err);

DR_MUSTUSE dr_status dr_be_gather(dr_backend *be, dr_tensor x, const int32_t *idx, int s, dr_tensor rows,
                                  dr_error *err);
DR_MUSTUSE dr_status dr_be_gather_bwd(dr_backend *be, dr_tensor drows, const int32_t *idx, int s, dr_tensor dx,
                                      dr_error *err);
DR_MUSTUSE dr_status dr_be_linear(dr_backend *be, dr_tensor x, const float *w, const float *b, dr_tensor y,
                                  dr_error *err);
DR_MUSTUSE dr_status dr_be_linear_dx(dr_backend *be, dr_tensor dy, const float *w, dr_tensor dx, dr_error *err);
DR_MUSTUSE dr_status dr_be_linear_dw(dr_backend *be, dr_tensor x, dr_tensor dy, float *dw, float *db, dr_error *err);
DR_MUSTUSE dr_status dr_be_l2norm(dr_backend *be, dr_tensor v, float *norms, dr_tensor y, dr_error *err);
DR_MUSTUSE dr_status dr_be_l2norm_bwd(dr_backend *be, dr_tensor y, const float *norms, dr_tensor dy, dr_tensor dv,
                                      dr_error *err);

DR_MUSTUSE dr_status dr_be_nce(dr_backend *be, int groups, float temperature, dr_tensor q, dr_tensor k, dr_tensor loss,
                               dr_error *err);
DR_MUSTUSE dr_status dr_be_nce_bwd(dr_backend *be, int groups, float temperature, dr_tensor q, dr_tensor k, float g,
                                   dr_tensor dq, dr_error *err);
DR_MUSTUSE dr_status dr_be_gan(dr_backend *be, dr_gan_loss mode, dr_tensor s, dr_tensor loss, dr_error *err);
DR_MUSTUSE dr_status dr_be_gan_bwd(dr_backend *be, dr_gan_loss mode, dr_tensor s, float g, dr_tensor ds, dr_error *err);
DR_MUSTUSE dr_status dr_be_l1(dr_backend *be, dr_tensor a, dr_tensor b, dr_tensor loss, dr_error *err);
DR_MUSTUSE dr_status dr_be_l1_bwd(dr_backend *be, dr_tensor a, dr_tensor b, float g, dr_tensor da, dr_error *err);
DR_MUSTUSE dr_status dr_be_freq(dr_backend *be, dr_tensor a, dr_tensor b, dr_tensor loss, dr_error *err);
DR_MUSTUSE dr_status dr_be_freq_bwd(dr_backend *be, dr_tensor a, dr_tensor b, float g, dr_tensor da, dr_error *err);

DR_MUSTUSE dr_status dr_be_adam(dr_backend *be, const dr_adam_desc *d, size_t n, float *p, const float *g, float *m,
                                float *v, dr_error *err);
DR_MUSTUSE dr_status dr_be_ema(dr_backend *be, float decay, size_t n, const float *p, float *ema, dr_error *err);

/* Only where dr_be_is_fused(). */
DR_MUSTUSE dr_status dr_be_norm_stats(dr_backend *be, float eps, dr_tensor x, float *stats, dr_error *err);
DR_MUSTUSE dr_status dr_be_norm_apply(dr_backend *be, dr_tensor x, const float *stats, dr_act act, dr_norm_then then,
                                      int p, dr_tensor resid, dr_tensor y, dr_error *err);

/* Can this convolution be fused so? False on backends without such an entry. */
bool dr_be_conv2d_fuses(dr_backend *be, dr_conv2d_desc d, const dr_conv_fuse *f, dr_shape x, dr_shape y);
DR_MUSTUSE dr_status dr_be_conv2d_fused(dr_backend *be, dr_conv2d_desc d, const dr_conv_fuse *f, dr_tensor x,
                                        const float *w, const float *b, dr_tensor y, dr_slot *slot, dr_error *err);

/* Does the backend take pixels? Else core/image/convert.h, upload and download. */
bool dr_be_takes_pixels(const dr_backend *be);
DR_MUSTUSE dr_status dr_be_pixels_in(dr_backend *be, const dr_pixel_view *img, dr_tensor x, dr_error *err);
DR_MUSTUSE dr_status dr_be_pixels_out(dr_backend *be, dr_tensor y, const dr_pixel_view *img, dr_error *err);

bool dr_be_records(const dr_backend *be);
DR_MUSTUSE dr_status dr_be_record_begin(dr_backend *be, dr_error *err);
DR_MUSTUSE dr_status dr_be_record_end(dr_backend *be, dr_slot *ret, dr_error *err);
DR_MUSTUSE dr_status dr_be_replay(dr_backend *be, const dr_slot *recording, bool *ret_done, dr_error *err);

/* False where the backend has nothing to tell; an error of the device is that too. */
bool dr_be_info(dr_backend *be, dr_device_info *ret);
/* The same with the runs that were recorded and replayed, for the public doors. */
bool dr_be_state(dr_backend *be, dr_device_state *ret);
DR_MUSTUSE dr_status dr_be_pace(dr_backend *be, dr_error *err); /* OK where there is nothing to wait for */
void dr_be_trim(dr_backend *be);
bool dr_be_tunes(const dr_backend *be);
DR_MUSTUSE dr_status dr_be_tune(dr_backend *be, bool on, int *ret_tuned, dr_error *err);

#endif
