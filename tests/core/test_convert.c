/* Pixels to planar floats and back: formulas, rounding, grey, alpha, padding. */
#include "tests/t.h"
#include "core/base/alloc.h"
#include "core/image/convert.h"

TEST(every_level_of_8_bits_comes_back) {
    dr_image img;
    CHECK(!dr_image_init(&img, 256, 1, 1, 8, NULL));
    for (int i = 0; i < 256; i++) dr_image_row8(&img, 0)[i] = (uint8_t)i;
    float x[3 * 256];
    dr_planar_from_image(&img, x, 256, 1);
    for (int i = 0; i < 3 * 256; i++) CHECK(x[i] == (float)(i % 256) / 127.5F - 1.0F);
    memset(img.pixels, 77, 256);
    dr_planar_to_image(x, 256, 1, &img);
    for (int i = 0; i < 256; i++) CHECK_MSG(dr_image_row8(&img, 0)[i] == i, "level %d", i);
    dr_image_done(&img);
}

TEST(every_level_of_16_bits_comes_back) {
    enum { N = 32768 };
    dr_image img;
    CHECK(!dr_image_init(&img, N, 2, 3, 16, NULL));
    for (int y = 0; y < 2; y++)
        for (int i = 0; i < 3 * N; i++) dr_image_row16(&img, y)[i] = (uint16_t)(i / 3 + y * N);
    float *x = malloc(sizeof(float) * 3 * 2 * N);
    dr_planar_from_image(&img, x, N, 2);
    CHECK(x[0] == -1.0F && x[2 * N - 1] == 1.0F);
    memset(img.pixels, 77, img.stride * 2);
    dr_planar_to_image(x, N, 2, &img);
    for (int y = 0; y < 2; y++)
        for (int i = 0; i < 3 * N; i++)
            CHECK_MSG(dr_image_row16(&img, y)[i] == i / 3 + y * N, "level %d", i / 3 + y * N);
    free(x);
    dr_image_done(&img);
}

TEST(values_are_rounded_and_clamped) {
    const struct {
        float in;
        int level;
    } rows[] = {{-1, 0},
                {1, 255},
                {-7, 0},
                {7, 255},
                {0, 128}, /* 127.5 goes up */
                {0.0031F, 128},
                {-0.0031F, 127},
                {1 - 0.49F / 127.5F, 255},
                {1 - 0.51F / 127.5F, 254},
                {NAN, 0},
                {INFINITY, 255},
                {-INFINITY, 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        dr_image img;
        CHECK(!dr_image_init(&img, 1, 1, 3, 8, NULL));
        const float x[3] = {rows[i].in, rows[i].in, rows[i].in};
        dr_planar_to_image(x, 1, 1, &img);
        for (int k = 0; k < 3; k++)
            CHECK_MSG(dr_image_row8(&img, 0)[k] == rows[i].level, "%g gives %d", (double)rows[i].in,
                      dr_image_row8(&img, 0)[k]);
        dr_image_done(&img);
    }
}

TEST(grey_is_the_mean_of_the_planes) {
    dr_image img;
    CHECK(!dr_image_init(&img, 1, 1, 1, 8, NULL));
    const float x[3] = {10 / 127.5F - 1, 20 / 127.5F - 1, 60 / 127.5F - 1};
    dr_planar_to_image(x, 1, 1, &img);
    CHECK(dr_image_row8(&img, 0)[0] == 30);
    dr_image_done(&img);
}

TEST(alpha_is_not_touched) {
    for (int channels = 2; channels <= 4; channels += 2)
        for (int depth = 8; depth <= 16; depth += 8) {
            dr_image img, was;
            CHECK(!dr_image_init(&img, 9, 7, channels, depth, NULL));
            for (size_t i = 0; i < img.stride * 7; i++) ((uint8_t *)img.pixels)[i] = (uint8_t)(i * 37 + 11);
            CHECK(!dr_image_copy(&img, &was, NULL));
            float x[3 * 12 * 8];
            dr_planar_from_image(&img, x, 12, 8);
            for (size_t i = 0; i < sizeof x / sizeof *x; i++) x[i] = -x[i];
            dr_planar_to_image(x, 12, 8, &img);
            const int bytes = depth / 8;
            int changed = 0;
            for (size_t i = 0; i < img.stride * 7; i++) {
                const int same = ((uint8_t *)img.pixels)[i] == ((uint8_t *)was.pixels)[i];
                if ((int)i / bytes % channels == channels - 1)
                    CHECK(same);
                else
                    changed += !same;
            }
            CHECK(changed > 0);
            dr_image_done(&img);
            dr_image_done(&was);
        }
}

/* Against the definition: pixel (y,x) of the padded planes is the mirrored one. */
TEST(padding_mirrors_without_the_edge) {
    dr_image img;
    CHECK(!dr_image_init(&img, 5, 6, 3, 8, NULL));
    for (int y = 0; y < 6; y++)
        for (int i = 0; i < 15; i++) dr_image_row8(&img, y)[i] = (uint8_t)(y * 40 + i);
    float x[3 * 8 * 8], flat[3 * 6 * 5], padded[3 * 8 * 8], band[3 * 3 * 8];
    dr_planar_from_image(&img, x, 8, 8);
    const int map[8] = {0, 1, 2, 3, 4, 3, 2, 1}, mapy[8] = {0, 1, 2, 3, 4, 5, 4, 3};
    for (int c = 0; c < 3; c++)
        for (int y = 0; y < 8; y++)
            for (int i = 0; i < 8; i++)
                CHECK(x[(c * 8 + y) * 8 + i] == (float)(mapy[y] * 40 + map[i] * 3 + c) / 127.5F - 1.0F);
    dr_planar_from_image(&img, flat, 5, 6);
    dr_planar_pad(flat, 3, 6, 5, padded, 8, 8);
    CHECK(!memcmp(padded, x, sizeof x));
    dr_planar_rows_from_image(&img, band, 8, 5, 3);
    for (int c = 0; c < 3; c++) CHECK(!memcmp(band + c * 24, x + (c * 8 + 5) * 8, 24 * sizeof(float)));
    float back[3 * 6 * 5];
    dr_planar_crop(padded, 3, 8, 8, back, 6, 5);
    CHECK(!memcmp(back, flat, sizeof flat));
    dr_image_done(&img);
}

TEST(bands_give_the_same_pixels_as_the_whole) {
    dr_image a, b;
    CHECK(!dr_image_init(&a, 7, 10, 4, 16, NULL) && !dr_image_init(&b, 7, 10, 4, 16, NULL));
    float x[3 * 10 * 8], band[3 * 3 * 8];
    for (size_t i = 0; i < sizeof x / sizeof *x; i++) x[i] = sinf((float)i);
    dr_planar_to_image(x, 8, 10, &a);
    for (int y0 = 0; y0 < 10; y0 += 3) {
        const int n = y0 + 3 <= 10 ? 3 : 10 - y0;
        for (int c = 0; c < 3; c++) memcpy(band + c * n * 8, x + (c * 10 + y0) * 8, (size_t)n * 8 * sizeof(float));
        dr_planar_rows_to_image(band, 8, y0, n, &b);
    }
    CHECK(!memcmp(a.pixels, b.pixels, a.stride * 10));
    dr_image_done(&a);
    dr_image_done(&b);
}
