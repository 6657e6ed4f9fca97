/* paint.h - the pictures of tests/gpu/picture.c: slopes, disks, noise and slanted bright streaks; the same for the same
 * size. Not part of a photograph's statistics, but of what rounding shows on: fine edges on flat ground. */
#ifndef TESTS_GPU_PAINT_H
#define TESTS_GPU_PAINT_H

#include "core/image/image.h"

#include <math.h>

static inline uint32_t paint_next(uint32_t *state) { /* xorshift32 */
    uint32_t x = *state;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return *state = x;
}

static inline uint8_t paint_to8(double v) {
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v + 0.5);
}

/* img: 3 channels of 8 bits */
static inline void paint(dr_image *img) {
    uint32_t rng = 2463534242u;
    int w = img->width, h = img->height;
    for (int y = 0; y < h; y++) {
        uint8_t *row = dr_image_row8(img, y);
        for (int x = 0; x < w; x++) {
            double disk = (x / 96 + y / 80) % 3 ? 0 : hypot(x % 96 - 48, y % 80 - 40) < 30 ? 60 : 0;
            for (int c = 0; c < 3; c++) {
                double slope = 60 + 90.0 * (c == 1 ? (double)y / h : (double)x / w) + 20 * sin(0.05 * x + c + 0.03 * y);
                row[3 * x + c] = paint_to8(slope + disk * (c - 0.5) + (double)(paint_next(&rng) % 9) - 4);
            }
        }
    }
    int streaks = (int)((long)w * h / 600) + 4;
    for (int i = 0; i < streaks; i++) {
        int x0 = (int)(paint_next(&rng) % (uint32_t)w), y0 = (int)(paint_next(&rng) % (uint32_t)h);
        int length = 8 + (int)(paint_next(&rng) % 24), bright = 30 + (int)(paint_next(&rng) % 60);
        for (int k = 0; k < length; k++) {
            int x = x0 + k / 4, y = y0 + k;
            if (x >= w || y >= h) break;
            uint8_t *p = dr_image_row8(img, y) + 3 * x;
            for (int c = 0; c < 3; c++) p[c] = paint_to8(p[c] + bright);
        }
    }
}

#endif
