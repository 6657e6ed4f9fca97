/* resize.h - bicubic resizing as Pillow does it (a = -0.5, support widened when shrinking, so that it does not alias).
 *
 * Two passes, horizontal first. Weights are made in double and normalised; positions are centres of pixels. The 8-bit
 * form rounds between the passes and uses Pillow's fixed-point weights, so that it gives Pillow's bytes. */
#ifndef DR_IMAGE_RESIZE_H
#define DR_IMAGE_RESIZE_H

#include "core/image/image.h"

/* Depth 8 (INVALID otherwise). Alpha is resized like a colour (no premultiplication). Metadata is not kept. Sides
 * 1..65535. Errors: INVALID, TOO_LARGE, NOMEM. */
DR_MUSTUSE dr_status dr_image_resize(const dr_image *img, int width, int height, dr_image *ret, dr_error *err);

/* Planar floats (channels,h,w) to (channels,height,width); may leave the range of the input by overshoot. */
DR_MUSTUSE dr_status dr_planar_resize(const float *x, int channels, int h, int w, float *ret, int height, int width,
                                      dr_error *err);

#endif
