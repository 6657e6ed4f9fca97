/* seeds.h - the seed corpus of the picture fuzzers, made by code: one small file of every kind. */
#ifndef FUZZ_SEEDS_H
#define FUZZ_SEEDS_H

#include "tests/core/pictures.h"

#define SEEDS_PNG  16
#define SEEDS_JPEG 9

PIC_FN bytes seed_png(int i) {
    static const struct {
        int type, depth, n_palette, n_trns;
    } kinds[8] = {{PNG_COLOR_TYPE_GRAY, 1, 0, 0},      {PNG_COLOR_TYPE_GRAY, 16, 0, 1},
                  {PNG_COLOR_TYPE_PALETTE, 2, 4, 0},   {PNG_COLOR_TYPE_PALETTE, 8, 50, 20},
                  {PNG_COLOR_TYPE_RGB, 8, 0, 1},       {PNG_COLOR_TYPE_RGB, 16, 0, 0},
                  {PNG_COLOR_TYPE_RGB_ALPHA, 8, 0, 0}, {PNG_COLOR_TYPE_GRAY_ALPHA, 8, 0, 0}};
    const png_spec s = {.w = 17 + i,
                        .h = 18,
                        .type = kinds[i % 8].type,
                        .depth = kinds[i % 8].depth,
                        .interlaced = i >= 8,
                        .n_palette = kinds[i % 8].n_palette,
                        .n_trns = kinds[i % 8].n_trns};
    bytes b = make_png(&s);
    if (i % 2) {
        uint8_t exif[EXIF_LEN], chrm[32] = {0, 0, 1};
        make_exif(exif, i % 4 == 1, i % 9, 17, 18);
        png_insert(&b, png_find(&b, "IDAT"), "eXIf", exif, EXIF_LEN);
        png_insert(&b, png_find(&b, "IDAT"), "pHYs", "\0\0\1\0\0\0\1\1\1", 9);
        png_insert(&b, png_find(&b, "IDAT"), "gAMA", "\0\0\xb1\x8f", 4);
        png_insert(&b, png_find(&b, "IDAT"), "cHRM", chrm, 32);
        png_insert(&b, png_find(&b, "IEND"), "tEXt", "k\0v", 3);
    }
    return b;
}

PIC_FN bytes seed_jpeg(int i) {
    static const jpeg_spec kinds[SEEDS_JPEG] = {
        {.w = 17, .h = 19, .components = 3},
        {.w = 33, .h = 17, .components = 3, .subsampled = true},
        {.w = 24, .h = 24, .components = 3, .progressive = true},
        {.w = 40, .h = 18, .components = 3, .progressive = true, .subsampled = true, .restart = 2},
        {.w = 16, .h = 16, .components = 1},
        {.w = 20, .h = 16, .components = 1, .progressive = true},
        {.w = 16, .h = 20, .components = 3, .arithmetic = true},
        {.w = 16, .h = 16, .components = 4},
        {.w = 30, .h = 30, .components = 3, .adobe_rgb = true, .restart = 1},
    };
    bytes b = make_jpeg(&kinds[i]);
    if (i % 2) {
        uint8_t app[6 + EXIF_LEN] = "Exif\0";
        make_exif(app + 6, i % 4 == 1, i % 9, 17, 18);
        jpeg_insert(&b, 2, 0xE1, app, sizeof app);
        jpeg_insert(&b, 2, 0xE2, "ICC_PROFILE\0\2\2tail", 18);
        jpeg_insert(&b, 2, 0xE2, "ICC_PROFILE\0\1\2head", 18);
    }
    return b;
}

#endif
