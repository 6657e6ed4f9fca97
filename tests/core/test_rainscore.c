/* test_rainscore.c - the rain score on drawn pictures: what must raise it, what must not. */
#include "core/base/rng.h"
#include "core/image/rainscore.h"
#include "tests/t.h"

enum { W = 120, H = 90 };

static void fill(dr_image *img, uint64_t seed, int noise) {
    dr_rng r;
    dr_rng_seed(&r, seed, 1);
    for (int y = 0; y < img->height; y++)
        for (int x = 0; x < img->width * img->channels; x++) {
            int v = 90 + x / img->channels / 4 + y / 3 + (int)dr_rng_below(&r, (uint32_t)noise + 1);
            if (img->depth == 8)
                dr_image_row8(img, y)[x] = (uint8_t)v;
            else
                dr_image_row16(img, y)[x] = (uint16_t)(v * 257);
        }
}

static void add(dr_image *img, int x, int y, int light) {
    if (x < 0 || y < 0 || x >= img->width || y >= img->height) return;
    for (int c = 0; c < img->channels; c++) {
        size_t i = (size_t)x * (size_t)img->channels + (size_t)c;
        if (img->depth == 8)
            dr_image_row8(img, y)[i] = (uint8_t)(dr_image_row8(img, y)[i] + light);
        else
            dr_image_row16(img, y)[i] = (uint16_t)(dr_image_row16(img, y)[i] + light * 257);
    }
}

/* n lines 14 long; down: falling with a lean of 1 in 5, else lying. */
static void lines(dr_image *img, int n, int light, bool down) {
    dr_rng r;
    dr_rng_seed(&r, 9, 2);
    for (int i = 0; i < n; i++) {
        int x = (int)dr_rng_below(&r, (uint32_t)img->width), y = (int)dr_rng_below(&r, (uint32_t)img->height);
        for (int k = 0; k < 14; k++) add(img, down ? x + k / 5 : x + k, down ? y + k : y + k / 5, light);
    }
}

static double score(int channels, int depth, int n, int light, bool down) {
    dr_image img = {0};
    double v = -1;
    if (dr_image_init(&img, W, H, channels, depth, NULL)) return -1;
    fill(&img, 3, 12);
    lines(&img, n, light, down);
    if (dr_rain_score_image(&img, &v, NULL)) v = -1;
    dr_image_done(&img);
    return v;
}

TEST(streaks_that_fall_raise_it_and_lines_that_lie_lower_it) {
    double none = score(3, 8, 0, 0, true), few = score(3, 8, 40, 60, true), many = score(3, 8, 160, 60, true),
           lying = score(3, 8, 160, 60, false);
    printf("# none %.1f few %.1f many %.1f lying %.1f\n", none, few, many, lying);
    CHECK(none > 45 && none < 55);
    CHECK(few > none + 5 && many > few + 5 && lying < none - 10);
}

TEST(dark_lines_count_for_much_less) {
    double bright = score(3, 8, 60, 60, true), dark = score(3, 8, 60, -60, true);
    CHECK_MSG(dark < bright - 15, "%.1f %.1f", bright, dark);
}

TEST(depth_and_channels_change_little_and_a_flat_picture_is_in_the_middle) {
    double a = score(3, 8, 80, 50, true), b = score(3, 16, 80, 50, true), g = score(1, 8, 80, 50, true),
           t = score(4, 8, 80, 50, true);
    CHECK_MSG(a - b < 0.05 && b - a < 0.05 && g > 60 && t > 60, "%.2f %.2f %.2f %.2f", a, b, g, t);
    dr_image img = {0};
    double v = 0;
    CHECK(dr_image_init(&img, 16, 16, 1, 8, NULL) == DR_OK);
    CHECK(dr_rain_score_image(&img, &v, NULL) == DR_OK && v == 50);
    dr_image_done(&img);
    CHECK(dr_image_init(&img, 15, 40, 1, 8, NULL) == DR_OK);
    CHECK(dr_rain_score_image(&img, &v, NULL) == DR_INVALID);
    dr_image_done(&img);
    CHECK(dr_image_init(&img, 3000, 20, 3, 8, NULL) == DR_OK); /* the middle is looked at */
    CHECK(dr_rain_score_image(&img, &v, NULL) == DR_OK && v == 50);
    dr_image_done(&img);
}
