/* scenes.h - for tests: decoded pictures with large shapes of their own, so that different seeds look different to a
 * fingerprint, and their encoded bytes. */
#ifndef TESTS_SCENES_H
#define TESTS_SCENES_H

#include "core/base/alloc.h"
#include "core/base/rng.h"
#include "core/image/codec.h"
#include <math.h>

/* A few random waves. */
static inline dr_image scene(uint64_t seed, int w, int h, int channels, int depth) {
    dr_image img = {0};
    dr_rng r;
    double fx[6], fy[6], ph[6];
    dr_rng_seed(&r, seed, 1);
    for (int k = 0; k < 6; k++) {
        fx[k] = dr_rng_below(&r, 700) / 100.0, fy[k] = dr_rng_below(&r, 700) / 100.0;
        ph[k] = dr_rng_below(&r, 628) / 100.0;
    }
    if (dr_image_init(&img, w, h, channels, depth, NULL)) return img;
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++)
            for (int c = 0; c < channels; c++) {
                double v = 0;
                for (int k = 0; k < 6; k++) v += cos(6.2832 * (fx[k] * x / w + fy[k] * y / h) + ph[k] + 0.1 * c);
                v = 0.5 + v / 12;
                if (depth == 8)
                    dr_image_row8(&img, y)[x * channels + c] = (uint8_t)(v * 255);
                else
                    dr_image_row16(&img, y)[x * channels + c] = (uint16_t)(v * 65535);
            }
    return img;
}

typedef struct scene_file {
    void *p;
    size_t n;
} scene_file;

static inline scene_file scene_encoded(uint64_t seed, int w, int h, int channels, int depth, dr_format format,
                                       int quality) {
    dr_image img = scene(seed, w, h, channels, depth);
    scene_file f = {0};
    if (dr_image_encode(&img, format, quality, true, &f.p, &f.n, NULL)) f = (scene_file){0};
    dr_image_done(&img);
    return f;
}

#endif
