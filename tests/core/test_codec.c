/* Decode, encode and probe as the rest of the program sees them: kinds found by bytes, bad pictures, limits. */
#include "core/base/alloc.h"
#include "core/image/codec.h"
#include "tests/core/pictures.h"
#include "tests/t.h"

/* A picture with some structure; alpha too. */
static dr_image picture(int w, int h, int channels, int depth) {
    dr_image img = {0};
    if (dr_image_init(&img, w, h, channels, depth, NULL)) return img;
    for (size_t i = 0; i < img.stride * (size_t)h; i++) ((uint8_t *)img.pixels)[i] = (uint8_t)(i * 2654435761u >> 21);
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

TEST(formats_have_names) {
    CHECK(!strcmp(dr_format_name(DR_FORMAT_PNG), "png") && !strcmp(dr_format_mime(DR_FORMAT_JPEG), "image/jpeg"));
    CHECK(!strcmp(dr_format_name(DR_FORMAT_JPEG), "jpeg") && !strcmp(dr_format_mime(DR_FORMAT_PNG), "image/png"));
}

/* Both doors must say the same. */
static dr_status both(const void *p, size_t n, const dr_limits *lim, dr_error *err) {
    dr_image img = {0};
    dr_picture_info info;
    dr_error second = {0};
    *err = (dr_error){0};
    const dr_status s = dr_probe(p, n, 0, lim, &info, err);
    const dr_status t = dr_image_decode(p, n, lim, &img, &second);
    dr_image_done(&img);
    if (s != t || strcmp(err->what, second.what) != 0) t_bad = 1;
    return s;
}

TEST(strangers_are_refused_by_their_bytes) {
    static const struct {
        const char *bytes;
        size_t n;
        const char *name;
    } rows[] = {{"hello, I am text", 16, "supported: PNG, JPEG"},
                {"a", 1, "supported"},
                {"\x89", 1, "supported"},
                {"\xFF\xD8", 2, "supported"},
                {"\0\0\0\0\0\0\0\0", 8, "supported"},
                {"GIF89a......", 12, "GIF"},
                {"RIFF....WEBP", 12, "WebP"},
                {"....ftypheic", 12, "HEIF"},
                {"BM....", 6, "BMP"},
                {"II*\0....", 8, "TIFF"},
                {"%PDF-1.4", 8, "PDF"},
                {"\x89JNG\r\n\x1a\n", 8, "supported"}};
    dr_error err;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        CHECK_MSG(both(rows[i].bytes, rows[i].n, NULL, &err) == DR_UNSUPPORTED, "row %zu", i);
        CHECK(!strcmp(err.what, "unsupported_format") && strstr(err.text, rows[i].name));
    }
    CHECK(both("", 0, NULL, &err) == DR_INVALID && !strcmp(err.what, "empty_body"));
    CHECK(both(NULL, 0, NULL, &err) == DR_INVALID && !strcmp(err.what, "empty_body"));
}

/* A PNG header that claims a size, with little behind it. */
static bytes claim(uint32_t w, uint32_t h) {
    bytes b = make_png(&(png_spec){.w = 16, .h = 16, .type = PNG_COLOR_TYPE_RGB, .depth = 8});
    pic_put32(b.p + 16, w);
    pic_put32(b.p + 20, h);
    png_repair(b.p, b.n);
    return b;
}

TEST(limits_are_seen_in_the_header) {
    static const struct {
        uint32_t w, h;
        dr_limits lim;
        dr_status status;
        const char *what, *setting;
        int64_t limit, actual;
    } rows[] = {
        {60000, 60000, {0}, DR_TOO_LARGE, "image_too_large", "side_max", 32768, 60000},
        {32769, 1000, {0}, DR_TOO_LARGE, "image_too_large", "side_max", 32768, 32769},
        {0x7FFFFFFF, 0x7FFFFFFF, {0}, DR_TOO_LARGE, "image_too_large", "side_max", 32768, 0x7FFFFFFF},
        {10001, 10000, {0}, DR_TOO_LARGE, "image_too_large", "pixels_max", 100000000, 100010000},
        {20000, 99, {0}, DR_TOO_LARGE, "image_too_large", "aspect_max", 200, 203},
        {99, 20000, {0}, DR_TOO_LARGE, "image_too_large", "aspect_max", 200, 203},
        {9000, 9000, {0}, DR_TOO_LARGE, "image_too_large", "ratio_max", 2000, 0},
        {15, 400, {0}, DR_INVALID, "image_too_small", "", 16, 15},
        {400, 1, {0}, DR_INVALID, "image_too_small", "", 16, 1},
        {200, 100, {.side_max = 150}, DR_TOO_LARGE, "image_too_large", "side_max", 150, 200},
        {200, 100, {.pixels_max = 19999}, DR_TOO_LARGE, "image_too_large", "pixels_max", 19999, 20000},
        {200, 100, {.side_min = 101}, DR_INVALID, "image_too_small", "", 101, 100},
        {200, 100, {.aspect_max = 1}, DR_TOO_LARGE, "image_too_large", "aspect_max", 1, 2},
        {200, 100, {.body_max_bytes = 50}, DR_TOO_LARGE, "image_too_large", "body_max_bytes", 50, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        bytes b = claim(rows[i].w, rows[i].h);
        dr_error err;
        dr_alloc_fail_after(1, true); /* nothing may be allocated before the limits */
        const dr_status s = both(b.p, b.n, &rows[i].lim, &err);
        const long n = dr_alloc_count();
        dr_alloc_fail_after(0, false);
        CHECK_MSG(s == rows[i].status && !strcmp(err.what, rows[i].what) && !strcmp(err.setting, rows[i].setting),
                  "row %zu: %d %s %s", i, s, err.what, err.setting);
        CHECK_MSG(err.limit == rows[i].limit && (!rows[i].actual || err.actual == rows[i].actual), "row %zu: %lld", i,
                  (long long)err.actual);
        CHECK(err.text[0] && n == 0);
        bytes_done(&b);
    }
}

TEST(the_limits_themselves_are_allowed) {
    dr_picture_info info;
    bytes b = claim(16, 16);
    CHECK(!dr_probe(b.p, b.n, 0, NULL, &info, NULL));
    bytes_done(&b);
    const dr_limits roomy = {.ratio_max = 1000000000};
    b = claim(10000, 10000);
    CHECK(!dr_probe(b.p, b.n, 0, &roomy, &info, NULL));
    bytes_done(&b);
    b = claim(32768, 164);
    CHECK(!dr_probe(b.p, b.n, 0, NULL, &info, NULL));
    bytes_done(&b);
    b = claim(9000, 9000); /* the ratio counts against the whole, not the part that is here */
    CHECK(!dr_probe(b.p, b.n, 1 << 20, NULL, &info, NULL));
    bytes_done(&b);
}

TEST(a_small_memory_budget_refuses_before_allocating) {
    bytes b = make_png(&(png_spec){.w = 100, .h = 100, .type = PNG_COLOR_TYPE_RGB, .depth = 16});
    const dr_limits lim = {.mem_budget = 59999};
    dr_error err = {0};
    dr_image img = {0};
    dr_alloc_fail_after(1, true);
    const dr_status s = dr_image_decode(b.p, b.n, &lim, &img, &err);
    dr_alloc_fail_after(0, false);
    CHECK(s == DR_TOO_LARGE && !strcmp(err.what, "memory") && !strcmp(err.setting, "mem_budget"));
    CHECK(err.limit == 59999 && err.actual == 60000);
    bytes_done(&b);
}

TEST(defaults_fill_only_what_is_zero) {
    dr_limits a = {0}, b = {.side_max = 5, .mem_budget = 77};
    dr_limits_fill(&a);
    dr_limits_fill(&b);
    CHECK(a.body_max_bytes == 256u << 20 && a.side_min == 16 && a.side_max == 32768 && a.pixels_max == 100000000 &&
          a.aspect_max == 200 && a.ratio_max == 2000);
    CHECK(a.mem_budget > (uint64_t)16 << 20 && a.mem_budget < (uint64_t)1 << 50);
    CHECK(b.side_max == 5 && b.mem_budget == 77 && b.side_min == 16);
}

/* With the beginning only, the answer is the same or "more". */
TEST(a_beginning_is_enough_for_the_header) {
    bytes p = make_png(
        &(png_spec){.w = 40, .h = 30, .type = PNG_COLOR_TYPE_PALETTE, .depth = 4, .n_palette = 9, .n_trns = 3});
    bytes j = make_jpeg(&(jpeg_spec){.w = 40, .h = 30, .components = 3});
    uint8_t app[6 + EXIF_LEN] = "Exif\0";
    make_exif(app + 6, true, 6, 40, 30);
    jpeg_insert(&j, 2, 0xE1, app, sizeof app);
    png_insert(&p, png_find(&p, "IDAT"), "eXIf", app + 6, EXIF_LEN);
    const bytes *all[2] = {&p, &j};
    for (int k = 0; k < 2; k++) {
        dr_picture_info want, info;
        CHECK(!dr_probe(all[k]->p, all[k]->n, 0, NULL, &want, NULL));
        CHECK(want.width == 30 && want.height == 40 && want.channels == (k ? 3 : 4));
        size_t enough = 0;
        for (size_t n = 0; n < all[k]->n; n++) {
            uint8_t *exact = malloc(n + !n);
            memcpy(exact, all[k]->p, n);
            dr_error err = {0};
            const dr_status s = dr_probe(exact, n, all[k]->n, NULL, &info, &err);
            free(exact);
            if (s == DR_OK) {
                CHECK(!memcmp(&info, &want, sizeof want));
                if (!enough) enough = n;
            } else {
                CHECK_MSG(s == DR_UNAVAILABLE && !strcmp(err.what, "header_incomplete") && !enough, "%zu bytes: %d", n,
                          s);
            }
        }
        CHECK(enough && enough < all[k]->n);
    }
    bytes_done(&p);
    bytes_done(&j);
}
