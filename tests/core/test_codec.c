/* Decode and encode as the rest of the program sees them: formats found by bytes, bad pictures, limits. */
#include "core/base/alloc.h"
#include "core/image/codec.h"
#include "tests/t.h"

/* A picture with some structure; alpha too. */
static dr_image picture(int w, int h, int channels, int depth) {
    dr_image img = {0};
    if (dr_image_init(&img, w, h, channels, depth, NULL)) return img;
    for (int y = 0; y < h; y++)
        for (int i = 0; i < w * channels; i++) {
            const unsigned v = (unsigned)(y * 977 + i * 131 + (i * y) % 7919) * 37u;
            if (depth == 8)
                dr_image_row8(&img, y)[i] = (uint8_t)v;
            else
                dr_image_row16(&img, y)[i] = (uint16_t)v;
        }
    return img;
}

static int same_pixels(const dr_image *a, const dr_image *b) {
    return a->width == b->width && a->height == b->height && a->channels == b->channels && a->depth == b->depth &&
           !memcmp(a->pixels, b->pixels, a->stride * (size_t)a->height);
}

TEST(png_round_trip_is_exact_for_all_channels_and_depths) {
    for (int channels = 1; channels <= 4; channels++)
        for (int depth = 8; depth <= 16; depth += 8) {
            dr_image a = picture(37, 21, channels, depth), b;
            void *data;
            size_t len;
            CHECK(a.pixels);
            CHECK(!dr_image_encode(&a, DR_FORMAT_NONE, 0, false, &data, &len, NULL));
            dr_picture_info i;
            CHECK(!dr_probe(data, len, 0, NULL, &i, NULL));
            CHECK(i.format == DR_FORMAT_PNG && i.width == 37 && i.height == 21 && i.channels == channels &&
                  i.bit_depth == depth);
            CHECK(!dr_image_decode(data, len, NULL, &b, NULL));
            CHECK(same_pixels(&a, &b));
            dr_free(data);
            dr_image_done(&a);
            dr_image_done(&b);
        }
}

TEST(strangers_are_refused_by_their_bytes) {
    dr_picture_info i;
    dr_error e = {0};
    CHECK(dr_probe("", 0, 0, NULL, &i, &e) == DR_INVALID && !strcmp(e.what, "empty_body"));
    e = (dr_error){0};
    CHECK(dr_probe("hello, I am text", 16, 0, NULL, &i, &e) == DR_UNSUPPORTED && !strcmp(e.what, "unsupported_format"));
}
