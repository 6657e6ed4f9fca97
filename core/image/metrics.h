/* metrics.h - PSNR and SSIM of two pictures, luma and RGB (METHOD.md section 11).
 *
 * Luma is BT.601 as MATLAB's rgb2ycbcr has it (16..235, not rounded). PSNR = 10 log10(255^2 / MSE), capped at 100 dB.
 * SSIM: Gaussian window 11 x 11 of sigma 1.5, only where it lies whole inside the picture, C1 = 6.5025, C2 = 58.5225;
 * the RGB figures are the MSE over all three channels and the mean of the three SSIMs. */
#ifndef DR_IMAGE_METRICS_H
#define DR_IMAGE_METRICS_H

#include "core/derain.h"
#include "core/image/image.h"

#define DR_PSNR_MAX    100.0
#define DR_SSIM_WINDOW 11

/* Both pictures as 8 bits (16 are rounded), grey as three equal channels, alpha left out. Errors: INVALID (sizes differ
 * or a side is below the window), NOMEM. */
DR_MUSTUSE dr_status dr_score_images(const dr_image *a, const dr_image *b, dr_score *ret, dr_error *err);

/* One plane of w x h floats on the scale 0..255, both sides >= 11: mean of the SSIM map. INVALID, NOMEM. */
DR_MUSTUSE dr_status dr_ssim_plane(const float *a, const float *b, int w, int h, double *ret, dr_error *err);

/* From the mean squared error on the scale 0..255. */
double dr_psnr(double mse);

#endif
