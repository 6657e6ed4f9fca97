/* probe.h - headers of PNG and JPEG files, read by hand: sizes, channels, orientation and where the metadata lies.
 *
 * Needs no memory and decodes nothing, so that limits are checked before anything is allocated. The codecs take the
 * metadata from here as well, since a codec library would keep copies of it in its own memory. */
#ifndef DR_IMAGE_PROBE_H
#define DR_IMAGE_PROBE_H

#include "core/derain.h"

#define DR_ICC_SEGMENTS_MAX 255

typedef struct dr_head {
    dr_format format;
    int width, height; /* as stored, before the orientation */
    int bit_depth, channels;
    int orientation;     /* 1..8 */
    bool interlaced;     /* PNG Adam7, JPEG progressive */
    const uint8_t *exif; /* TIFF block inside the data, NULL = none */
    size_t exif_len;
    /* PNG: the chunks' data, of the right length and sense; NULL = none */
    const uint8_t *phys, *gama, *chrm, *srgb;
    /* JPEG: pieces of the profile in order; n_icc = 0 where they are not complete */
    const uint8_t *icc[DR_ICC_SEGMENTS_MAX];
    uint16_t icc_len[DR_ICC_SEGMENTS_MAX];
    int n_icc;
} dr_head;

/* The work of dr_probe() without the limits; the pointers are borrowed from data. */
DR_MUSTUSE dr_status dr_head_parse(const void *data, size_t len, uint64_t total, dr_head *ret, dr_error *err);

/* The limits on a parsed header; lim must be filled. */
DR_MUSTUSE dr_status dr_head_check(const dr_head *h, uint64_t total, const dr_limits *lim, dr_error *err);

static inline uint32_t dr_be32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

#endif
