/* formats.h - what codec.c needs of png.c and jpeg.c. Nobody else includes this.
 *
 * Both libraries leave through longjmp. So each codec keeps its state in a struct of the outer function, runs the
 * library only in small functions that set the jump and own nothing, and frees everything in one place outside. */
#ifndef DR_IMAGE_FORMATS_H
#define DR_IMAGE_FORMATS_H

#include "core/base/buf.h"
#include "core/image/image.h"
#include "core/image/probe.h"

/* Pixels as stored (not turned) and the ICC profile. lim is filled, h comes from the same data. */
DR_MUSTUSE dr_status dr_png_decode(const uint8_t *data, size_t len, const dr_head *h, const dr_limits *lim,
                                   dr_image *ret, dr_error *err);
DR_MUSTUSE dr_status dr_jpeg_decode(const uint8_t *data, size_t len, const dr_head *h, const dr_limits *lim,
                                    dr_image *ret, dr_error *err);

/* Append to out; meta NULL = none. */
DR_MUSTUSE dr_status dr_png_encode(const dr_image *img, const dr_image_meta *meta, dr_buf *out, dr_error *err);
DR_MUSTUSE dr_status dr_jpeg_encode(const dr_image *img, int quality, const dr_image_meta *meta, dr_buf *out,
                                    dr_error *err);

#endif
