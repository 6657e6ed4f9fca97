/* image.h - a decoded picture: interleaved samples of 8 or 16 bits, and the metadata that travels with it.
 *
 * The struct lives in the caller; what it points to belongs to it. The pixels are one block without row padding, in
 * R,G,B,A order, upright (the EXIF orientation was applied when it was decoded). One owner at a time. */
#ifndef DR_IMAGE_IMAGE_H
#define DR_IMAGE_IMAGE_H

#include "core/base/status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What PNG and JPEG can say about a picture besides its pixels, in PNG's terms. The has_ fields tell what is there. */
typedef struct dr_image_meta {
    uint8_t *icc; /* ICC profile, NULL = none */
    size_t icc_len;
    uint8_t *exif; /* TIFF block ("II*\0..." or "MM\0*..."), NULL = none */
    size_t exif_len;
    bool has_phys, has_gama, has_chrm, has_srgb;
    uint32_t phys_x, phys_y; /* pixels per unit */
    uint8_t phys_unit;       /* 1 = metre, 0 = only the ratio is known */
    uint32_t gama;           /* times 100000 */
    uint32_t chrm[8];        /* white, red, green, blue: x, y times 100000 */
    uint8_t srgb;            /* rendering intent 0..3 */
} dr_image_meta;

typedef struct dr_image {
    int width, height; /* pixels, both > 0 */
    int channels;      /* 1 grey, 2 grey+alpha, 3 RGB, 4 RGBA */
    int depth;         /* 8 or 16 bits a sample */
    size_t stride;     /* bytes a row = width * channels * depth / 8 */
    void *pixels;      /* uint8_t, or uint16_t in the machine's byte order */
    dr_image_meta meta;
} dr_image;

/* Bytes of the pixels; false where the numbers are out of range or the product does not fit. */
bool dr_image_bytes(int width, int height, int channels, int depth, size_t *ret);

/* Zeroed pixels, no metadata. Errors: INVALID (sizes, channels, depth), TOO_LARGE (does not fit size_t), NOMEM. */
DR_MUSTUSE dr_status dr_image_init(dr_image *img, int width, int height, int channels, int depth, dr_error *err);
void dr_image_done(dr_image *img); /* takes NULL, a zeroed struct and a half-built one */

uint8_t *dr_image_row8(const dr_image *img, int y);   /* depth 8 */
uint16_t *dr_image_row16(const dr_image *img, int y); /* depth 16 */

/* Turn the pixels as the EXIF orientation 1..8 asks for, so that the picture stands upright; 5..8 swap the sides.
 * Other numbers count as 1. On NOMEM the picture stays as it was. */
DR_MUSTUSE dr_status dr_image_orient(dr_image *img, int orientation, dr_error *err);

/* Change the depth, rounding to nearest (8 -> 16 -> 8 is exact). On NOMEM the picture stays as it was. */
DR_MUSTUSE dr_status dr_image_set_depth(dr_image *img, int depth, dr_error *err);

/* A copy of the whole, metadata too. */
DR_MUSTUSE dr_status dr_image_copy(const dr_image *img, dr_image *ret, dr_error *err);
DR_MUSTUSE dr_status dr_image_meta_copy(const dr_image_meta *m, dr_image_meta *ret, dr_error *err);
void dr_image_meta_done(dr_image_meta *m); /* leaves it empty */

/* 16 bits to 8, to the nearest: 65535 = 257 * 255. */
static inline uint8_t dr_image_to8(uint16_t v) {
    return (uint8_t)((v + 128u) / 257u);
}

#endif
