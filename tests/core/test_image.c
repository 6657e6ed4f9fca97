/* The picture's owner: sizes, turning, change of depth, copies, without memory. */
#include "core/base/alloc.h"
#include "core/image/image.h"
#include "tests/t.h"

static dr_image filled(int w, int h, int channels, int depth) {
    dr_image img = {0};
    if (dr_image_init(&img, w, h, channels, depth, NULL)) return img;
    for (size_t i = 0; i < img.stride * (size_t)h; i++) ((uint8_t *)img.pixels)[i] = (uint8_t)(i * 37 + i / 251);
    return img;
}

TEST(sizes_are_checked) {
    dr_image img = {0};
    static const int bad[][4] = {{0, 1, 1, 8}, {1, 0, 1, 8}, {-1, 5, 1, 8}, {1, 1, 0, 8},
                                 {1, 1, 5, 8}, {1, 1, 1, 7}, {1, 1, 1, 32}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK(dr_image_init(&img, bad[i][0], bad[i][1], bad[i][2], bad[i][3], NULL) == DR_INVALID);
    size_t n = 7;
    CHECK(!dr_image_bytes(0, 1, 1, 8, &n) && n == 7);
    CHECK(dr_image_bytes(3, 5, 4, 16, &n) && n == 120);
    CHECK(dr_image_bytes(INT32_MAX, INT32_MAX, 1, 8, &n));
    CHECK(!dr_image_bytes(INT32_MAX, INT32_MAX, 4, 16, &n));
    CHECK(dr_image_init(&img, INT32_MAX, INT32_MAX, 4, 16, NULL) == DR_TOO_LARGE);
    CHECK(!img.pixels);
    dr_image_done(&img);
    dr_image_done(NULL);
}

/* Turning back gives the picture again, for every size of pixel and sizes around the tile. */
TEST(turning_there_and_back_is_exact) {
    static const int back[9] = {0, 1, 2, 3, 4, 5, 8, 7, 6};
    for (int channels = 1; channels <= 4; channels++)
        for (int depth = 8; depth <= 16; depth += 8)
            for (int o = 1; o <= 8; o++)
                for (int w = 31; w <= 65; w += 17) {
                    dr_image a = filled(w, 33, channels, depth), b;
                    CHECK(!dr_image_copy(&a, &b, NULL));
                    CHECK(!dr_image_orient(&b, o, NULL));
                    if (o >= 5) CHECK(b.width == 33 && b.height == w);
                    if (o > 1) CHECK(memcmp(a.pixels, b.pixels, a.stride * 33));
                    CHECK(!dr_image_orient(&b, back[o], NULL));
                    CHECK(b.width == w && b.stride == a.stride && !memcmp(a.pixels, b.pixels, a.stride * 33));
                    dr_image_done(&a);
                    dr_image_done(&b);
                }
}

TEST(impossible_orientations_change_nothing) {
    dr_image a = filled(5, 4, 3, 8);
    const void *p = a.pixels;
    CHECK(!dr_image_orient(&a, 0, NULL) && !dr_image_orient(&a, 9, NULL) && !dr_image_orient(&a, -3, NULL));
    CHECK(a.pixels == p && a.width == 5);
    dr_image_done(&a);
}

TEST(depth_is_rounded_and_comes_back) {
    dr_image a;
    CHECK(!dr_image_init(&a, 256, 1, 1, 8, NULL));
    for (int i = 0; i < 256; i++) dr_image_row8(&a, 0)[i] = (uint8_t)i;
    CHECK(!dr_image_set_depth(&a, 16, NULL));
    CHECK(a.stride == 512 && dr_image_row16(&a, 0)[1] == 257 && dr_image_row16(&a, 0)[255] == 65535);
    CHECK(!dr_image_set_depth(&a, 16, NULL));
    CHECK(!dr_image_set_depth(&a, 8, NULL));
    for (int i = 0; i < 256; i++) CHECK(dr_image_row8(&a, 0)[i] == i);
    for (unsigned v = 0; v < 65536; v++) CHECK(dr_image_to8((uint16_t)v) == (int)(v * 255.0 / 65535.0 + 0.5));
    dr_image_done(&a);
}

TEST(without_memory_the_picture_stays) {
    dr_image a = filled(20, 10, 3, 8), b = {0};
    a.meta.icc = (uint8_t *)dr_strdup("profile");
    a.meta.icc_len = 7;
    a.meta.exif = (uint8_t *)dr_strdup("exif");
    a.meta.exif_len = 4;
    const void *p = a.pixels;
    for (long i = 1; i <= 3; i++) {
        dr_alloc_fail_after(i, false);
        const dr_status s = dr_image_copy(&a, &b, NULL);
        dr_alloc_fail_after(0, false);
        CHECK(s == DR_NOMEM && !b.pixels);
    }
    dr_alloc_fail_after(1, false);
    dr_status s = dr_image_orient(&a, 6, NULL);
    dr_alloc_fail_after(0, false);
    CHECK(s == DR_NOMEM && a.pixels == p && a.width == 20);
    dr_alloc_fail_after(1, false);
    s = dr_image_set_depth(&a, 16, NULL);
    dr_alloc_fail_after(0, false);
    CHECK(s == DR_NOMEM && a.pixels == p && a.depth == 8);
    CHECK(!dr_image_copy(&a, &b, NULL) && b.meta.icc != a.meta.icc && !memcmp(b.meta.exif, "exif", 4));
    CHECK(!dr_image_set_depth(&a, 16, NULL) && a.meta.icc_len == 7);
    dr_image_done(&a);
    dr_image_done(&b);
}
