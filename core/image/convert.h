/* convert.h - between pixels and planar floats: (3,h,w) RGB in [-1,1], as the networks want them.
 *
 * 8 bits: x / 127.5 - 1; 16 bits: x / 32767.5 - 1. Grey is put into all three planes. Back: clamped, rounded to the
 * nearest level (the reference truncates, METHOD.md section 10), grey = mean of the three planes, so that three equal
 * planes give the same grey again. A picture goes straight into the padded planes and straight back out of them; no
 * copy in between. */
#ifndef DR_IMAGE_CONVERT_H
#define DR_IMAGE_CONVERT_H

#include "core/image/image.h"

/* v rounded up to a multiple of `multiple`. */
static inline int dr_round_up(int v, int multiple) {
    return (v + multiple - 1) / multiple * multiple;
}

/* Fill ret, (3,ph,pw) with ph >= height and pw >= width, mirroring the picture at its right and bottom edges (without
 * repeating the edge pixel, period 2(n-1)). Alpha is left out. */
void dr_planar_from_image(const dr_image *img, float *ret, int pw, int ph);

/* Rows y0 .. y0+n-1 of the padded planes, each plane n rows high: for bands. ret is (3,n,pw). */
void dr_planar_rows_from_image(const dr_image *img, float *ret, int pw, int y0, int n);

/* The upper left width x height of rgb, (3,ph,pw), into the picture's colours or grey. Alpha and metadata stay as they
 * are. NaN becomes the lowest level. */
void dr_planar_to_image(const float *rgb, int pw, int ph, dr_image *img);

/* Rows y0 .. y0+n-1 of the picture from planes n rows high, (3,n,pw). */
void dr_planar_rows_to_image(const float *rgb, int pw, int y0, int n, dr_image *img);

/* Planar floats (channels,h,w) into (channels,ph,pw), mirrored right and bottom; and the upper left part back. */
void dr_planar_pad(const float *x, int channels, int h, int w, float *ret, int ph, int pw);
void dr_planar_crop(const float *x, int channels, int ph, int pw, float *ret, int h, int w);

#endif
