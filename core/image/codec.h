/* codec.h - encoded bytes to picture and back. The kind is found by the first bytes, never by a name. */
#ifndef DR_IMAGE_CODEC_H
#define DR_IMAGE_CODEC_H

#include "core/derain.h"
#include "core/image/image.h"

/* Decode a PNG or JPEG upright. Palettes become RGB(A), grey stays grey, 16 bits stay 16, below 8 becomes 8; ICC, EXIF,
 * density and colour chunks are kept. lim may be NULL. Limits are checked from the header before anything is
 * allocated. The caller calls dr_image_done(ret). Errors: those of dr_probe(), CORRUPT image_corrupt (wrong checksum,
 * cut off, any data warning of the JPEG decoder), TOO_LARGE memory (setting mem_budget: the pixels alone pass it),
 * NOMEM. */
DR_MUSTUSE dr_status dr_image_decode(const void *data, size_t len, const dr_limits *lim, dr_image *ret, dr_error *err);

/* Encode; the caller frees *ret_data with dr_free. NONE means PNG. quality 1..100 is for JPEG, 0 = 95; chroma is never
 * subsampled; 16 bits become 8 in a JPEG. Metadata is written where the format can hold it, unless strip_metadata.
 * Errors: UNSUPPORTED alpha_jpeg; INVALID (quality); TOO_LARGE image_too_large (a side above JPEG's 65500); NOMEM. */
DR_MUSTUSE dr_status dr_image_encode(const dr_image *img, dr_format format, int quality, bool strip_metadata,
                                     void **ret_data, size_t *ret_len, dr_error *err);

#endif
