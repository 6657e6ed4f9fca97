/* test_detail.c - fine structure: blur takes it away, streaks near the vertical hardly add any. */
#include "core/base/rng.h"
#include "core/image/detail.h"
#include "tests/t.h"
#include <math.h>

enum { W = 120, H = 90 };

static void texture(dr_image *img) {
    dr_rng r;
    dr_rng_seed(&r, 5, 1);
    for (int y = 0; y < H; y++)
        for (int x = 0; x < W * img->channels; x++) {
            int v = 80 + (int)dr_rng_below(&r, 40);
            if (img->depth == 8)
                dr_image_row8(img, y)[x] = (uint8_t)v;
            else
                dr_image_row16(img, y)[x] = (uint16_t)(v * 257);
        }
}

TEST(equal_for_every_kind_of_picture_that_shows_the_same) {
    dr_image img = {0};
    CHECK(!dr_image_init(&img, 3, 4, 1, 8, NULL));
    static const uint8_t rows[4] = {10, 10, 20, 10}; /* second differences: 10, -20 */
    for (int y = 0; y < 4; y++)
        for (int x = 0; x < 3; x++) dr_image_row8(&img, y)[x] = rows[y];
    CHECK(fabs(dr_detail_image(&img) - 15) < 1e-12);
    dr_image_done(&img);
    CHECK(!dr_image_init(&img, 3, 4, 4, 16, NULL));
    for (int y = 0; y < 4; y++)
        for (int x = 0; x < 12; x++) dr_image_row16(&img, y)[x] = (uint16_t)(x % 4 == 3 ? y * 9000 : rows[y] * 257);
    CHECK(fabs(dr_detail_image(&img) - 15) < 1e-9); /* alpha does not count */
    dr_image_done(&img);
    CHECK(!dr_image_init(&img, 16, 2, 3, 8, NULL) && dr_detail_image(&img) == 0);
    dr_image_done(&img);
}

TEST(blur_takes_it_away_and_rain_hardly_adds_any) {
    dr_image img = {0}, soft = {0}, rain = {0};
    CHECK(!dr_image_init(&img, W, H, 3, 8, NULL));
    texture(&img);
    double whole = dr_detail_image(&img);
    CHECK(whole > 5 && !dr_image_copy(&img, &soft, NULL));
    for (int y = 1; y + 1 < H; y++)
        for (int x = 0; x < W * 3; x++)
            dr_image_row8(&soft, y)[x] =
                (uint8_t)((dr_image_row8(&img, y - 1)[x] + dr_image_row8(&img, y)[x] + dr_image_row8(&img, y + 1)[x]) /
                          3);
    CHECK(dr_detail_image(&soft) < 0.6 * whole);
    /* the same streaks, falling with a lean of 1 in 10 and lying */
    double more[2];
    for (int lying = 0; lying < 2; lying++) {
        dr_rng r;
        CHECK(!dr_image_copy(&img, &rain, NULL));
        dr_rng_seed(&r, 9, 2);
        for (int i = 0; i < 60; i++) {
            int x = (int)dr_rng_below(&r, W - 30), y = (int)dr_rng_below(&r, H - 30);
            for (int k = 0; k < 30; k++)
                for (int c = 0; c < 3; c++) {
                    uint8_t *p = &dr_image_row8(&rain, y + (lying ? k / 10 : k))[3 * (x + (lying ? k : k / 10)) + c];
                    *p = (uint8_t)(*p > 200 ? 250 : *p + 50);
                }
        }
        more[lying] = dr_detail_image(&rain) / whole - 1;
        dr_image_done(&rain);
    }
    CHECK_MSG(more[0] < 0.3 * more[1] && more[1] > 0.2, "falling %.3f, lying %.3f", more[0], more[1]);
    dr_image_done(&img);
    dr_image_done(&soft);
}
