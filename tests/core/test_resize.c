/* Bicubic resizing: bytes of Pillow 9.4 (their CRC-32), and the properties that the formula promises. */
#include "core/base/alloc.h"
#include "core/base/hash.h"
#include "core/image/resize.h"
#include "tests/t.h"

/* Byte n of the picture is the top byte of n * 2654435761 (mod 2^32); the same formula made the expected checksums with
 * Image.frombytes("RGB", (w, h), ...).resize((W, H), Image.BICUBIC). */
static dr_image hashed(int w, int h) {
    dr_image img = {0};
    if (dr_image_init(&img, w, h, 3, 8, NULL)) return img;
    for (size_t i = 0; i < img.stride * (size_t)h; i++)
        ((uint8_t *)img.pixels)[i] = (uint8_t)((uint32_t)i * 2654435761u >> 24);
    return img;
}

TEST(bytes_are_those_of_pillow) {
    static const struct {
        int w, h, to_w, to_h;
        uint32_t crc;
    } rows[] = {{48, 36, 96, 80, 0xAA8555BAu}, {96, 80, 24, 20, 0xB8FDFA49u}, {33, 57, 40, 21, 0x7FAE64F7u},
                {31, 17, 64, 16, 0x876DA34Eu}, {16, 16, 16, 40, 0xBE987908u}, {5, 3, 30, 20, 0xCDF99B32u},
                {40, 30, 1, 1, 0x5B6B248Bu}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        dr_image a = hashed(rows[i].w, rows[i].h), b;
        CHECK(!dr_image_resize(&a, rows[i].to_w, rows[i].to_h, &b, NULL));
        const uint32_t crc = dr_crc32(0, b.pixels, b.stride * (size_t)b.height);
        CHECK_MSG(crc == rows[i].crc, "%dx%d to %dx%d gives %08x", rows[i].w, rows[i].h, rows[i].to_w, rows[i].to_h,
                  crc);
        dr_image_done(&a);
        dr_image_done(&b);
    }
}

TEST(floats_agree_with_bytes) {
    dr_image a = hashed(50, 41), b;
    CHECK(!dr_image_resize(&a, 20, 70, &b, NULL));
    float x[41 * 50], y[70 * 20];
    for (int i = 0; i < 41 * 50; i++) x[i] = ((uint8_t *)a.pixels)[3 * i + 1];
    CHECK(!dr_planar_resize(x, 1, 41, 50, y, 70, 20, NULL));
    for (int i = 0; i < 70 * 20; i++) {
        const float v = y[i] < 0 ? 0 : y[i] > 255 ? 255 : y[i];
        /* the byte form rounds and clips between the passes as well */
        CHECK_MSG(fabsf(v - (float)((uint8_t *)b.pixels)[3 * i + 1]) < 40, "%d: %g", i, (double)y[i]);
    }
    double mean = 0, off = 0;
    for (int i = 0; i < 70 * 20; i++) off += fabs((double)y[i] - ((uint8_t *)b.pixels)[3 * i + 1]), mean += y[i];
    CHECK(mean / 1400 > 100 && mean / 1400 < 155 && off / 1400 < 4);
    dr_image_done(&a);
    dr_image_done(&b);
}

/* A cubic with a = -0.5 interpolates straight lines exactly where its window lies inside. */
TEST(a_ramp_stays_a_ramp) {
    float x[64 * 4], y[160 * 4];
    for (int r = 0; r < 4; r++)
        for (int i = 0; i < 64; i++) x[r * 64 + i] = (float)i;
    CHECK(!dr_planar_resize(x, 1, 4, 64, y, 4, 160, NULL));
    for (int i = 8; i < 152; i++) CHECK(fabs(y[160 + i] - ((i + 0.5) * 0.4 - 0.5)) < 1e-4);
}

TEST(a_flat_picture_stays_flat_and_channels_apart) {
    float x[3 * 30 * 20], y[3 * 7 * 90];
    for (int c = 0; c < 3; c++)
        for (int i = 0; i < 600; i++) x[c * 600 + i] = (float)(c - 1) * 0.75F;
    CHECK(!dr_planar_resize(x, 3, 30, 20, y, 7, 90, NULL));
    for (int c = 0; c < 3; c++)
        for (int i = 0; i < 630; i++) CHECK(fabsf(y[c * 630 + i] - (float)(c - 1) * 0.75F) < 1e-6F);
}

/* Fine stripes shrink to their mean instead of aliasing. */
TEST(shrinking_averages) {
    float x[256], y[32];
    for (int i = 0; i < 256; i++) x[i] = i % 2 ? 1.0F : -1.0F;
    CHECK(!dr_planar_resize(x, 1, 1, 256, y, 1, 32, NULL));
    for (int i = 2; i < 30; i++) CHECK(fabsf(y[i]) < 0.01F);
}

TEST(bad_sizes_are_refused) {
    dr_image a = hashed(8, 8), b = {0};
    float f = 0;
    CHECK(dr_image_resize(&a, 0, 8, &b, NULL) == DR_INVALID);
    CHECK(dr_image_resize(&a, 8, 70000, &b, NULL) == DR_INVALID);
    CHECK(!dr_image_set_depth(&a, 16, NULL) && dr_image_resize(&a, 4, 4, &b, NULL) == DR_INVALID);
    CHECK(dr_planar_resize(&f, 1, 1, 1, &f, -1, 1, NULL) == DR_INVALID);
    CHECK(!b.pixels);
    dr_image_done(&a);
}

TEST(every_allocation_may_fail) {
    dr_image a = hashed(12, 9), b = {0};
    float x[108] = {0}, y[100];
    for (int form = 0; form < 2; form++) {
        for (long i = 1;; i++) {
            CHECK(i < 50);
            dr_alloc_fail_after(i, false);
            const dr_status s =
                form ? dr_planar_resize(x, 1, 9, 12, y, 10, 10, NULL) : dr_image_resize(&a, 10, 10, &b, NULL);
            const long n = dr_alloc_count();
            dr_alloc_fail_after(0, false);
            if (!s) {
                CHECK(n < i && i > 3);
                break;
            }
            CHECK(s == DR_NOMEM && !b.pixels);
        }
        dr_image_done(&b);
    }
    dr_image_done(&a);
}
