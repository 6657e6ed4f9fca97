/* PNG: every kind of pixel comes out as it was put in, metadata is kept, anything broken is refused, nothing leaks. */
#include "core/base/alloc.h"
#include "core/image/codec.h"
#include "tests/core/pictures.h"
#include "tests/t.h"

static int decode_small(const bytes *b, dr_image *ret, dr_error *err) {
    const dr_limits lim = {.side_min = 1};
    return dr_image_decode(b->p, b->n, &lim, ret, err);
}

/* What sample k of pixel x in row y has to be after decoding. */
static unsigned expected(const png_spec *s, int y, int x, int k) {
    const unsigned scale = s->depth == 16 ? 65535 : 255;
    if (s->type == PNG_COLOR_TYPE_PALETTE) {
        const int i = (int)png_sample(s, y, x);
        const unsigned rgba[4] = {(uint8_t)(i * 7), (uint8_t)(i * 5 + 1), (uint8_t)(255 - i),
                                  i < s->n_trns ? (uint8_t)(i * 31) : 255u};
        return rgba[k];
    }
    const int channels = png_spec_channels(s), top = s->depth < 8 ? (1 << s->depth) - 1 : (int)scale;
    if (k == channels) { /* alpha by key */
        const unsigned key[3] = {channels == 1 ? s->trns.gray : s->trns.red, s->trns.green, s->trns.blue};
        for (int c = 0; c < channels; c++)
            if (png_sample(s, y, x * channels + c) != key[c]) return scale;
        return 0;
    }
    return png_sample(s, y, x * channels + k) * scale / (unsigned)top;
}

static void check_kind(const png_spec *s, int want_channels) {
    bytes b = make_png(s);
    dr_image img = {0};
    dr_error err = {0};
    dr_picture_info info;
    const dr_limits lim = {.side_min = 1};
    CHECK_MSG(!dr_image_decode(b.p, b.n, &lim, &img, &err), "type %d depth %d: %s", s->type, s->depth, err.text);
    CHECK(!dr_probe(b.p, b.n, 0, &lim, &info, NULL));
    CHECK(img.width == s->w && img.height == s->h && img.depth == (s->depth == 16 ? 16 : 8));
    CHECK_MSG(img.channels == want_channels, "type %d depth %d: %d channels", s->type, s->depth, img.channels);
    CHECK(info.width == s->w && info.height == s->h && info.channels == want_channels && info.bit_depth == img.depth);
    for (int y = 0; y < s->h; y++)
        for (int x = 0; x < s->w; x++)
            for (int k = 0; k < want_channels; k++) {
                const unsigned got = img.depth == 8 ? dr_image_row8(&img, y)[x * want_channels + k]
                                                    : dr_image_row16(&img, y)[x * want_channels + k];
                CHECK_MSG(got == expected(s, y, x, k), "type %d depth %d at %d,%d,%d: %u", s->type, s->depth, y, x, k,
                          got);
            }
    dr_image_done(&img);
    bytes_done(&b);
}

TEST(grey_of_every_depth) {
    for (int depth = 1; depth <= 16 && !t_bad; depth *= 2)
        for (int i = 0; i < 2; i++)
            check_kind(&(png_spec){.w = 37, .h = 23, .type = PNG_COLOR_TYPE_GRAY, .depth = depth, .interlaced = i}, 1);
}

TEST(palettes_become_rgb_or_rgba) {
    for (int depth = 1; depth <= 8 && !t_bad; depth *= 2)
        for (int i = 0; i < 2; i++)
            for (int trns = 0; trns < 2; trns++)
                check_kind(&(png_spec){.w = 29,
                                       .h = 31,
                                       .type = PNG_COLOR_TYPE_PALETTE,
                                       .depth = depth,
                                       .interlaced = i,
                                       .n_palette = (1 << depth) - (depth > 1),
                                       .n_trns = trns ? 2 : 0},
                           trns ? 4 : 3);
}

TEST(colour_and_alpha_of_both_depths) {
    static const int types[] = {PNG_COLOR_TYPE_RGB, PNG_COLOR_TYPE_GRAY_ALPHA, PNG_COLOR_TYPE_RGB_ALPHA};
    for (int t = 0; t < 3 && !t_bad; t++)
        for (int depth = 8; depth <= 16; depth += 8)
            for (int i = 0; i < 2; i++) {
                const png_spec s = {.w = 21, .h = 34, .type = types[t], .depth = depth, .interlaced = i};
                check_kind(&s, png_spec_channels(&s));
            }
}

TEST(a_transparent_colour_becomes_alpha) {
    for (int depth = 1; depth <= 16 && !t_bad; depth *= 2) {
        png_spec s = {.w = 20, .h = 20, .type = PNG_COLOR_TYPE_GRAY, .depth = depth, .n_trns = 1};
        s.trns.gray = (png_uint_16)png_sample(&s, 3, 5);
        check_kind(&s, 2);
        if (depth < 8) continue;
        s.type = PNG_COLOR_TYPE_RGB;
        s.trns.red = (png_uint_16)png_sample(&s, 7, 3 * 4);
        s.trns.green = (png_uint_16)png_sample(&s, 7, 3 * 4 + 1);
        s.trns.blue = (png_uint_16)png_sample(&s, 7, 3 * 4 + 2);
        check_kind(&s, 4);
    }
}

TEST(narrow_interlaced_pictures) {
    for (int w = 1; w <= 9 && !t_bad; w++)
        for (int h = 1; h <= 9; h++)
            check_kind(&(png_spec){.w = w, .h = h, .type = PNG_COLOR_TYPE_RGB, .depth = 8, .interlaced = true}, 3);
}

/* ---- what is wrong with it -------------------------------------------------------------------------------------- */

static const png_spec plain = {.w = 40, .h = 30, .type = PNG_COLOR_TYPE_RGB, .depth = 8};

TEST(every_truncation_is_corrupt) {
    bytes b = make_png(&plain);
    for (size_t n = 8; n < b.n; n++) {
        dr_image img = {0};
        dr_error err = {0};
        uint8_t *exact = malloc(n); /* so that a read beyond is seen */
        memcpy(exact, b.p, n);
        const dr_status s = dr_image_decode(exact, n, NULL, &img, &err);
        free(exact);
        CHECK_MSG(s == DR_CORRUPT && !strcmp(err.what, "image_corrupt") && !img.pixels, "%zu bytes: %d", n, s);
    }
    bytes_done(&b);
}

/* A changed byte anywhere is seen, since every chunk has a checksum. */
TEST(every_flipped_byte_is_corrupt) {
    bytes b = make_png(&plain);
    const uint8_t text[] = "Comment\0hello";
    png_insert(&b, png_find(&b, "IDAT"), "tEXt", text, sizeof text);
    png_insert(&b, png_find(&b, "IDAT"), "zzZz", text, sizeof text);
    png_insert(&b, png_find(&b, "IDAT"), "gAMA", "\0\0\xb1\x8f", 4);
    for (size_t at = 4; at < b.n; at++) {
        dr_image img = {0};
        dr_error err = {0};
        b.p[at] ^= 0x55;
        const dr_status s = dr_image_decode(b.p, b.n, NULL, &img, &err);
        b.p[at] ^= 0x55;
        CHECK_MSG(s == DR_CORRUPT && !img.pixels, "byte %zu: %d %s", at, s, err.text);
    }
    bytes_done(&b);
}

static dr_status status_of(const bytes *b, const char **ret_what) {
    static dr_error err;
    err = (dr_error){0};
    dr_image img = {0};
    const dr_status s = dr_image_decode(b->p, b->n, NULL, &img, &err);
    if (!s) dr_image_done(&img);
    *ret_what = err.what;
    return s;
}

TEST(impossible_headers_are_corrupt) {
    static const struct {
        int at, value;
    } rows[] = {{24, 3}, {24, 0}, {24, 32}, {25, 1},    {25, 5},  {25, 7},
                {26, 1}, {27, 1}, {28, 2},  {16, 0x80}, {15, 'X'}};
    bytes b = make_png(&plain);
    const char *what;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        bytes c = bytes_of(b.p, b.n);
        c.p[rows[i].at] = (uint8_t)rows[i].value;
        png_repair(c.p, c.n);
        CHECK_MSG(status_of(&c, &what) == DR_CORRUPT && !strcmp(what, "image_corrupt"), "row %zu", i);
        bytes_done(&c);
    }
    bytes none = bytes_of(b.p, b.n);
    pic_put32(none.p + 16, 0);
    png_repair(none.p, none.n);
    CHECK(status_of(&none, &what) == DR_CORRUPT);
    bytes_done(&none);

    bytes text = bytes_of(b.p, b.n);
    memmove(text.p + 4, text.p + 5, text.n - 5); /* \r\n became \n */
    CHECK(status_of(&text, &what) == DR_CORRUPT);
    bytes_done(&text);
    bytes_done(&b);
}

TEST(pixels_that_are_not_all_there_are_corrupt) {
    bytes b = make_png(&plain);
    const char *what;
    b.p[23] = 31; /* one row more than the data holds */
    png_repair(b.p, b.n);
    CHECK(status_of(&b, &what) == DR_CORRUPT);
    bytes_done(&b);

    b = make_png(&plain); /* no palette for a palette picture */
    b.p[25] = 3;
    png_repair(b.p, b.n);
    CHECK(status_of(&b, &what) == DR_CORRUPT);
    bytes_done(&b);

    b = make_png(&plain); /* the end chunk in place of the pixels */
    const size_t at = png_find(&b, "IDAT"), end = png_find(&b, "IEND");
    memmove(b.p + at, b.p + end, b.n - end);
    b.n -= end - at;
    CHECK(status_of(&b, &what) == DR_CORRUPT);
    bytes_done(&b);
}

TEST(bytes_behind_the_end_do_no_harm) {
    bytes b = make_png(&plain);
    const char *what;
    bytes_add(&b, "trailing", 8);
    CHECK(status_of(&b, &what) == DR_OK);
    bytes_done(&b);
}

/* Chunks that the decoder drops: many of them, and one that would inflate to a lot. */
TEST(unknown_and_text_chunks_are_dropped) {
    bytes b = make_png(&plain);
    const char *what;
    for (int i = 0; i < 2000; i++) png_insert(&b, png_find(&b, "IDAT"), i % 2 ? "vpAg" : "tEXt", "k\0value", 7);
    uint8_t *large = calloc(1, 3 << 20);
    png_insert(&b, png_find(&b, "IDAT"), "qrSt", large, 3 << 20);
    memcpy(large, "name", 5);
    png_insert(&b, png_find(&b, "IDAT"), "zTXt", large, 3 << 20);
    free(large);
    CHECK(status_of(&b, &what) == DR_OK);
    png_insert(&b, png_find(&b, "IDAT"), "QRST", "", 0); /* unknown and critical */
    CHECK(status_of(&b, &what) == DR_CORRUPT);
    bytes_done(&b);
}

/* ---- metadata --------------------------------------------------------------------------------------------------- */

TEST(metadata_survives_byte_for_byte) {
    for (int grey = 0; grey < 2; grey++) {
        png_spec s = plain;
        if (grey) s.type = PNG_COLOR_TYPE_GRAY;
        bytes b = make_png(&s), icc = make_icc(4000, grey);
        uint8_t exif[EXIF_LEN], phys[9] = {0, 0, 0x0B, 0x13, 0, 0, 0x0B, 0x14, 1}, chrm[32];
        make_exif(exif, true, 1, 40, 30);
        memset(exif + 34, 0, 4); /* no thumbnail: then nothing in the block may change */
        for (int i = 0; i < 8; i++) pic_put32(chrm + 4 * i, (uint32_t)(10000 + 777 * i));
        png_insert(&b, png_find(&b, "IDAT"), "gAMA", "\0\0\xb1\x8f", 4);
        png_insert(&b, png_find(&b, "IDAT"), "cHRM", chrm, 32);
        png_insert(&b, png_find(&b, "IDAT"), "sRGB", "\2", 1);
        png_insert(&b, png_find(&b, "IDAT"), "pHYs", phys, 9);
        png_insert(&b, png_find(&b, "IEND"), "eXIf", exif, EXIF_LEN);

        dr_image img = {0}, again = {0};
        CHECK(!decode_small(&b, &img, NULL));
        bytes_done(&b);
        CHECK(dr_image_meta_copy(&img.meta, &again.meta, NULL) == DR_OK);
        dr_image_meta_done(&again.meta);
        img.meta.icc = dr_malloc(icc.n);
        memcpy(img.meta.icc, icc.p, icc.n);
        img.meta.icc_len = icc.n;
        void *out;
        size_t n;
        CHECK(!dr_image_encode(&img, DR_FORMAT_PNG, 0, false, &out, &n, NULL));
        dr_image_done(&img);
        CHECK(!dr_image_decode(out, n, NULL, &again, NULL));
        const bytes enc = {out, n};
        const size_t at = png_find(&enc, "pHYs"), ac = png_find(&enc, "cHRM");
        CHECK(at && ac && !memcmp(enc.p + at + 8, phys, 9) && !memcmp(enc.p + ac + 8, chrm, 32));
        dr_free(out);
        const dr_image_meta *m = &again.meta;
        CHECK(m->has_phys && m->phys_x == 0x0B13 && m->phys_y == 0x0B14 && m->phys_unit == 1);
        CHECK(m->has_gama && m->gama == 45455 && m->has_srgb && m->srgb == 2 && m->has_chrm && m->chrm[7] == 15439);
        CHECK(m->exif_len == EXIF_LEN && !memcmp(m->exif, exif, EXIF_LEN));
        CHECK(m->icc_len == icc.n && !memcmp(m->icc, icc.p, icc.n));

        CHECK(!dr_image_encode(&again, DR_FORMAT_PNG, 0, true, &out, &n, NULL));
        const bytes bare = {out, n};
        CHECK(!png_find(&bare, "iCCP") && !png_find(&bare, "eXIf") && !png_find(&bare, "pHYs") &&
              !png_find(&bare, "gAMA") && !png_find(&bare, "cHRM") && !png_find(&bare, "sRGB"));
        dr_free(out);
        dr_image_done(&again);
        bytes_done(&icc);
    }
}

TEST(a_profile_that_png_cannot_hold_is_left_out) {
    dr_image img, again;
    CHECK(!dr_image_init(&img, 20, 20, 1, 8, NULL));
    bytes icc = make_icc(200, false); /* RGB profile on a grey picture */
    img.meta.icc = dr_malloc(icc.n);
    memcpy(img.meta.icc, icc.p, icc.n);
    img.meta.icc_len = icc.n;
    void *out;
    size_t n;
    CHECK(!dr_image_encode(&img, DR_FORMAT_PNG, 0, false, &out, &n, NULL));
    CHECK(!dr_image_decode(out, n, NULL, &again, NULL));
    CHECK(!again.meta.icc);
    dr_free(out);
    dr_image_done(&img);
    dr_image_done(&again);
    bytes_done(&icc);
}

TEST(orientation_in_a_png_is_obeyed) {
    bytes b = make_png(&plain);
    uint8_t exif[EXIF_LEN];
    make_exif(exif, false, 6, 40, 30);
    png_insert(&b, png_find(&b, "IDAT"), "eXIf", exif, EXIF_LEN);
    dr_image img;
    dr_picture_info info;
    CHECK(!dr_probe(b.p, b.n, 0, NULL, &info, NULL) && info.width == 30 && info.height == 40);
    CHECK(!dr_image_decode(b.p, b.n, NULL, &img, NULL));
    CHECK(img.width == 30 && img.height == 40);
    for (int k = 0; k < 3; k++) CHECK(dr_image_row8(&img, 0)[29 * 3 + k] == expected(&plain, 0, 0, k));
    dr_image_done(&img);
    bytes_done(&b);
}

/* ---- memory ----------------------------------------------------------------------------------------------------- */

TEST(every_allocation_of_decoding_may_fail) {
    for (int kind = 0; kind < 2; kind++) {
        png_spec s = plain;
        s.interlaced = kind;
        if (kind) s.type = PNG_COLOR_TYPE_PALETTE, s.n_palette = 200, s.n_trns = 9;
        bytes b = make_png(&s);
        uint8_t exif[EXIF_LEN];
        make_exif(exif, true, 5, 40, 30);
        png_insert(&b, png_find(&b, "IDAT"), "eXIf", exif, EXIF_LEN);
        for (long i = 1;; i++) {
            CHECK(i < 500);
            dr_image img = {0};
            dr_error err = {0};
            dr_alloc_fail_after(i, false);
            const dr_status st = dr_image_decode(b.p, b.n, NULL, &img, &err);
            const long n = dr_alloc_count();
            dr_alloc_fail_after(0, false);
            if (!st) {
                CHECK(n < i && i > 5);
                dr_image_done(&img);
                break;
            }
            CHECK_MSG(st == DR_NOMEM && !img.pixels, "allocation %ld: %d %s", i, st, err.text);
        }
        bytes_done(&b);
    }
}

TEST(every_allocation_of_encoding_may_fail) {
    bytes b = make_png(&plain), icc = make_icc(300, false);
    dr_image img;
    CHECK(!dr_image_decode(b.p, b.n, NULL, &img, NULL));
    img.meta.icc = dr_malloc(icc.n);
    memcpy(img.meta.icc, icc.p, icc.n);
    img.meta.icc_len = icc.n;
    for (long i = 1;; i++) {
        CHECK(i < 500);
        void *out = NULL;
        size_t len = 0;
        dr_alloc_fail_after(i, false);
        const dr_status st = dr_image_encode(&img, DR_FORMAT_PNG, 0, false, &out, &len, NULL);
        const long n = dr_alloc_count();
        dr_alloc_fail_after(0, false);
        if (!st) {
            CHECK(n < i && i > 5);
            dr_free(out);
            break;
        }
        CHECK_MSG(st == DR_NOMEM && !out && !len, "allocation %ld: %d", i, st);
    }
    dr_image_done(&img);
    bytes_done(&b);
    bytes_done(&icc);
}
