/* fuzz_picture.h - what must hold for any bytes given to a picture decoder; shared by the fuzz targets and by the test
 * that replays seeds and their mutations. A broken promise ends the process, so that every engine sees it. */
#ifndef FUZZ_PICTURE_H
#define FUZZ_PICTURE_H

#include "core/base/alloc.h"
#include "core/image/codec.h"
#include <stdlib.h>
#include <string.h>

#define FUZZ_REQUIRE(e)                                                                                                \
    do {                                                                                                               \
        if (!(e)) abort();                                                                                             \
    } while (0)

/* Small, so that a run is fast and a forgotten limit shows as memory. */
static const dr_limits fuzz_limits = {.body_max_bytes = 1 << 20,
                                      .side_min = 1,
                                      .side_max = 2000,
                                      .pixels_max = 200000,
                                      .aspect_max = 2000,
                                      .ratio_max = 1000000,
                                      .mem_budget = 64 << 20};

/* A failure carries its status and says something. */
static inline void fuzz_check_error(dr_status s, const dr_error *err) {
    FUZZ_REQUIRE(err->code == s && err->text[0]);
    FUZZ_REQUIRE(s == DR_CORRUPT || s == DR_UNSUPPORTED || s == DR_TOO_LARGE || s == DR_INVALID || s == DR_NOMEM);
    FUZZ_REQUIRE(s == DR_NOMEM || err->what[0]);
}

/* What was decoded can be written as PNG and read again, the same. */
static inline void fuzz_check_round_trip(const dr_image *img) {
    void *data;
    size_t len;
    dr_image again;
    dr_error err = {0};
    const dr_limits none = {.side_min = 1, .aspect_max = 1 << 20, .ratio_max = 1 << 30};
    FUZZ_REQUIRE(!dr_image_encode(img, DR_FORMAT_PNG, 0, false, &data, &len, &err));
    FUZZ_REQUIRE(!dr_image_decode(data, len, &none, &again, &err));
    FUZZ_REQUIRE(again.width == img->width && again.height == img->height && again.channels == img->channels &&
                 again.depth == img->depth && !memcmp(again.pixels, img->pixels, img->stride * (size_t)img->height));
    FUZZ_REQUIRE(again.meta.has_phys == img->meta.has_phys && again.meta.exif_len == img->meta.exif_len);
    dr_free(data);
    dr_image_done(&again);
    if (img->channels % 2 == 0) return;
    FUZZ_REQUIRE(!dr_image_encode(img, DR_FORMAT_JPEG, 0, false, &data, &len, &err));
    dr_free(data);
}

/* Probe and decode agree with each other. */
static inline void fuzz_decode(const uint8_t *data, size_t len) {
    dr_image img = {0};
    dr_error err = {0}, probe_err = {0};
    dr_picture_info info;
    const dr_status p = dr_probe(data, len, 0, &fuzz_limits, &info, &probe_err);
    const dr_status s = dr_image_decode(data, len, &fuzz_limits, &img, &err);
    if (p) fuzz_check_error(p, &probe_err);
    if (p) FUZZ_REQUIRE(s == p);
    if (s) {
        fuzz_check_error(s, &err);
        FUZZ_REQUIRE(!img.pixels);
        return;
    }
    FUZZ_REQUIRE(img.width == info.width && img.height == info.height && img.channels == info.channels &&
                 img.depth == info.bit_depth);
    fuzz_check_round_trip(&img);
    dr_image_done(&img);
}

#endif
