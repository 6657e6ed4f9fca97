/* JPEG: all usual kinds are read, anything that the decoder warns about is refused, metadata is kept, output is 4:4:4.
 */
#include "core/base/alloc.h"
#include "core/image/codec.h"
#include "tests/core/pictures.h"
#include "tests/t.h"

static dr_status decode(const bytes *b, dr_image *ret, dr_error *err) {
    *err = (dr_error){0};
    *ret = (dr_image){0};
    return dr_image_decode(b->p, b->n, NULL, ret, err);
}

/* Mean difference to what was put in. */
static double distance(const dr_image *img) {
    double sum = 0;
    for (int y = 0; y < img->height; y++)
        for (int x = 0; x < img->width; x++)
            for (int c = 0; c < img->channels; c++)
                sum += abs(dr_image_row8(img, y)[x * img->channels + c] - jpeg_sample(x, y, c));
    return sum / ((double)img->width * img->height * img->channels);
}

TEST(usual_kinds_are_read) {
    static const jpeg_spec rows[] = {
        {.w = 64, .h = 48, .components = 3},
        {.w = 50, .h = 33, .components = 3, .subsampled = true},
        {.w = 50, .h = 33, .components = 3, .progressive = true},
        {.w = 61, .h = 47, .components = 3, .progressive = true, .subsampled = true, .restart = 3},
        {.w = 40, .h = 40, .components = 3, .adobe_rgb = true},
        {.w = 33, .h = 57, .components = 1},
        {.w = 33, .h = 57, .components = 1, .progressive = true},
        {.w = 40, .h = 40, .components = 3, .arithmetic = true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        bytes b = make_jpeg(&rows[i]);
        dr_image img;
        dr_error err;
        dr_picture_info info;
        CHECK_MSG(!decode(&b, &img, &err), "row %zu: %s", i, err.text);
        CHECK(!dr_probe(b.p, b.n, 0, NULL, &info, NULL) && info.format == DR_FORMAT_JPEG);
        CHECK(img.width == rows[i].w && img.height == rows[i].h && img.channels == rows[i].components &&
              img.depth == 8);
        CHECK(info.width == img.width && info.height == img.height && info.channels == img.channels &&
              info.bit_depth == 8);
        CHECK_MSG(distance(&img) < (rows[i].subsampled ? 12 : 3), "row %zu: %g", i, distance(&img));
        dr_image_done(&img);
        bytes_done(&b);
    }
}

static const jpeg_spec plain = {.w = 48, .h = 40, .components = 3};

TEST(every_truncation_is_corrupt) {
    for (int progressive = 0; progressive < 2; progressive++) {
        jpeg_spec s = plain;
        s.progressive = progressive;
        bytes b = make_jpeg(&s);
        for (size_t n = 3; n < b.n; n++) {
            uint8_t *exact = malloc(n);
            memcpy(exact, b.p, n);
            const bytes cut = {exact, n};
            dr_image img;
            dr_error err;
            const dr_status st = decode(&cut, &img, &err);
            free(exact);
            CHECK_MSG(st == DR_CORRUPT && !strcmp(err.what, "image_corrupt") && !img.pixels, "%zu of %zu: %d", n, b.n,
                      st);
        }
        bytes_done(&b);
    }
}

TEST(a_data_warning_is_corrupt) {
    jpeg_spec s = plain;
    s.restart = 2;
    bytes b = make_jpeg(&s);
    dr_image img;
    dr_error err;
    /* an end marker in the middle of the pixels: libjpeg would fill up with grey */
    size_t at = jpeg_find(&b, 0xDA) + 100;
    bytes early = bytes_of(b.p, b.n);
    early.p[at] = 0xFF;
    early.p[at + 1] = 0xD9;
    CHECK(decode(&early, &img, &err) == DR_CORRUPT && !strcmp(err.what, "image_corrupt") && !img.pixels);
    bytes_done(&early);
    /* a restart marker with the wrong number */
    for (at = jpeg_find(&b, 0xDA) + 14; b.p[at] != 0xFF || b.p[at + 1] != 0xD0;) at++;
    b.p[at + 1] = 0xD5;
    CHECK(decode(&b, &img, &err) == DR_CORRUPT && !img.pixels);
    bytes_done(&b);
}

TEST(cmyk_and_12_bits_are_unsupported_colour) {
    dr_image img;
    dr_error err;
    dr_picture_info info;
    bytes b = make_jpeg(&(jpeg_spec){.w = 32, .h = 32, .components = 4});
    CHECK(decode(&b, &img, &err) == DR_UNSUPPORTED && !strcmp(err.what, "unsupported_color") &&
          strstr(err.text, "CMYK"));
    err = (dr_error){0};
    CHECK(dr_probe(b.p, b.n, 0, NULL, &info, &err) == DR_UNSUPPORTED && !strcmp(err.what, "unsupported_color"));
    bytes_done(&b);
    b = make_jpeg(&plain);
    b.p[jpeg_find(&b, 0xC0) + 4] = 12;
    CHECK(decode(&b, &img, &err) == DR_UNSUPPORTED && !strcmp(err.what, "unsupported_color"));
    bytes_done(&b);
}

TEST(lossless_and_hierarchical_are_unsupported_formats) {
    static const int markers[] = {0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF};
    for (size_t i = 0; i < sizeof markers / sizeof *markers; i++) {
        bytes b = make_jpeg(&plain);
        b.p[jpeg_find(&b, 0xC0) + 1] = (uint8_t)markers[i];
        dr_image img;
        dr_error err;
        CHECK(decode(&b, &img, &err) == DR_UNSUPPORTED && !strcmp(err.what, "unsupported_format"));
        bytes_done(&b);
    }
}

TEST(broken_headers_are_corrupt) {
    bytes b = make_jpeg(&plain);
    const size_t sof = jpeg_find(&b, 0xC0), dqt = jpeg_find(&b, 0xDB);
    const struct {
        size_t at;
        int value;
    } rows[] = {{sof + 2, 0xFF}, {sof + 9, 200}, {sof + 1, 0xE5}, {dqt, 0},     {dqt + 1, 0xD8},
                {dqt + 1, 0xD9}, {dqt + 1, 0},   {dqt + 3, 1},    {sof + 12, 7}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        bytes c = bytes_of(b.p, b.n);
        c.p[rows[i].at] = (uint8_t)rows[i].value;
        if (rows[i].at == dqt + 3) c.p[dqt + 2] = 0; /* length 1 */
        dr_image img;
        dr_error err;
        const dr_status s = decode(&c, &img, &err);
        CHECK_MSG((s == DR_CORRUPT || s == DR_UNSUPPORTED) && !img.pixels, "row %zu: %d", i, s);
        CHECK_MSG(s == DR_CORRUPT || i == 1, "row %zu: %d", i, s);
        bytes_done(&c);
    }
    bytes zero = bytes_of(b.p, b.n); /* height given only behind the pixels (DNL) */
    zero.p[sof + 5] = zero.p[sof + 6] = 0;
    dr_image img;
    dr_error err;
    CHECK(decode(&zero, &img, &err) == DR_CORRUPT);
    bytes_done(&zero);
    bytes twice = bytes_of(b.p, b.n);
    bytes_insert(&twice, sof, b.p + sof, 19);
    CHECK(decode(&twice, &img, &err) == DR_CORRUPT);
    bytes_done(&twice);
    bytes_done(&b);
}

/* The same refinement said again and again costs time, not bytes. */
TEST(too_many_scans_are_corrupt) {
    jpeg_spec s = plain;
    s.progressive = true;
    bytes b = make_jpeg(&s);
    size_t first = 0, end = 0; /* the first scan: from its SOS to the next marker that is no data */
    first = jpeg_find(&b, 0xDA);
    for (end = first + 2; !(b.p[end] == 0xFF && b.p[end + 1] == 0xC4) && !(b.p[end] == 0xFF && b.p[end + 1] == 0xDA);)
        end++;
    bytes scan = bytes_of(b.p + first, end - first), many = {0};
    for (int i = 0; i < 200; i++) bytes_add(&many, scan.p, scan.n);
    bytes_insert(&b, end, many.p, many.n);
    dr_image img;
    dr_error err;
    CHECK(decode(&b, &img, &err) == DR_CORRUPT && !img.pixels);
    bytes_done(&scan);
    bytes_done(&many);
    bytes_done(&b);
}

/* ---- metadata --------------------------------------------------------------------------------------------------- */

static void add_exif(bytes *b, bool big, int orientation, int w, int h) {
    uint8_t app[6 + EXIF_LEN] = "Exif\0";
    make_exif(app + 6, big, orientation, w, h);
    jpeg_insert(b, 2, 0xE1, app, sizeof app);
}

static void add_icc(bytes *b, const bytes *icc, size_t piece, bool reversed) {
    const int n = (int)((icc->n + piece - 1) / piece);
    for (int i = 0; i < n; i++) {
        const int k = reversed ? i : n - 1 - i; /* each goes in front of the last */
        bytes seg = {0};
        const uint8_t number[2] = {(uint8_t)(k + 1), (uint8_t)n};
        bytes_add(&seg, "ICC_PROFILE", 12);
        bytes_add(&seg, number, 2);
        const size_t left = icc->n - (size_t)k * piece;
        bytes_add(&seg, icc->p + (size_t)k * piece, left < piece ? left : piece);
        jpeg_insert(b, 2, 0xE2, seg.p, seg.n);
        bytes_done(&seg);
    }
}

TEST(metadata_goes_to_jpeg_and_png_and_back) {
    bytes b = make_jpeg(
        &(jpeg_spec){.w = 48, .h = 40, .components = 3, .density_unit = 1, .density_x = 300, .density_y = 72});
    bytes icc = make_icc(150000, false);
    add_icc(&b, &icc, 65519, false);
    add_exif(&b, false, 1, 48, 40);
    dr_image img;
    dr_error err;
    CHECK(!decode(&b, &img, &err));
    bytes_done(&b);
    uint8_t exif[EXIF_LEN];
    make_exif(exif, false, 1, 48, 40);
    memset(exif + 34, 0, 4);               /* the thumbnail of the rainy picture is no longer linked */
    for (int step = 0; step < 3; step++) { /* JPEG -> PNG -> JPEG -> JPEG */
        CHECK(img.meta.icc_len == icc.n && !memcmp(img.meta.icc, icc.p, icc.n));
        CHECK(img.meta.exif_len == EXIF_LEN && !memcmp(img.meta.exif, exif, EXIF_LEN));
        CHECK(img.meta.has_phys && img.meta.phys_unit == 1 && img.meta.phys_x == 11811 && img.meta.phys_y == 2835);
        void *out;
        size_t n;
        CHECK(!dr_image_encode(&img, step == 0 ? DR_FORMAT_PNG : DR_FORMAT_JPEG, 0, false, &out, &n, NULL));
        dr_image_done(&img);
        const bytes enc = {out, n};
        if (step > 0) CHECK(enc.p[13] == 1 && enc.p[14] == 300 / 256 && enc.p[15] == 300 % 256 && enc.p[17] == 72);
        CHECK(!decode(&enc, &img, &err));
        dr_free(out);
    }
    void *out;
    size_t n;
    CHECK(!dr_image_encode(&img, DR_FORMAT_JPEG, 0, true, &out, &n, NULL));
    const bytes bare = {out, n};
    CHECK(!jpeg_find(&bare, 0xE1) && !jpeg_find(&bare, 0xE2));
    dr_free(out);
    dr_image_done(&img);
    bytes_done(&icc);
}

TEST(a_profile_in_any_order_is_put_together_and_half_a_one_is_dropped) {
    bytes icc = make_icc(1000, false);
    dr_image img;
    dr_error err;
    bytes b = make_jpeg(&plain);
    add_icc(&b, &icc, 300, true);
    CHECK(!decode(&b, &img, &err) && img.meta.icc_len == 1000 && !memcmp(img.meta.icc, icc.p, 1000));
    dr_image_done(&img);

    const size_t at = jpeg_find(&b, 0xE2), n = 4 + 14 + 100; /* the last piece stands first: take it out */
    bytes less = bytes_of(b.p, at);
    bytes_add(&less, b.p + at + n, b.n - at - n);
    CHECK(!decode(&less, &img, &err) && !img.meta.icc);
    dr_image_done(&img);
    bytes_done(&less);

    b.p[at + 16] = 1; /* the same number twice */
    CHECK(!decode(&b, &img, &err) && !img.meta.icc);
    dr_image_done(&img);
    b.p[at + 16] = 9; /* beyond the count */
    CHECK(!decode(&b, &img, &err) && !img.meta.icc);
    dr_image_done(&img);
    bytes_done(&b);
    bytes_done(&icc);
}

TEST(density_units) {
    static const struct {
        int unit, x, y;
        bool has;
        uint32_t want_x, want_y;
        int want_unit;
    } rows[] = {{1, 72, 72, true, 2835, 2835, 1},
                {2, 100, 50, true, 10000, 5000, 1},
                {0, 1, 1, false, 0, 0, 0},
                {0, 4, 3, true, 4, 3, 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        bytes b = make_jpeg(&(jpeg_spec){.w = 16,
                                         .h = 16,
                                         .components = 1,
                                         .density_unit = rows[i].unit,
                                         .density_x = rows[i].x,
                                         .density_y = rows[i].y});
        dr_image img;
        dr_error err;
        CHECK(!decode(&b, &img, &err));
        CHECK(img.meta.has_phys == rows[i].has);
        if (rows[i].has) {
            CHECK(img.meta.phys_x == rows[i].want_x && img.meta.phys_y == rows[i].want_y &&
                  img.meta.phys_unit == rows[i].want_unit);
            void *out;
            size_t n;
            CHECK(!dr_image_encode(&img, DR_FORMAT_JPEG, 0, false, &out, &n, NULL));
            const uint8_t *p = out;
            CHECK(p[13] == rows[i].unit && p[14] * 256 + p[15] == rows[i].x && p[16] * 256 + p[17] == rows[i].y);
            dr_free(out);
        }
        dr_image_done(&img);
        bytes_done(&b);
    }
}

/* What does not fit into a JPEG segment is left out, and the picture is still good. */
TEST(an_exif_block_that_is_too_large_is_left_out) {
    dr_image img, again;
    dr_error err;
    CHECK(!dr_image_init(&img, 20, 20, 3, 8, NULL));
    for (size_t n = 65527; n <= 65528; n++) {
        dr_free(img.meta.exif);
        img.meta.exif = dr_calloc(n, 1);
        memcpy(img.meta.exif, "II*\0", 4);
        img.meta.exif_len = n;
        void *out;
        size_t len;
        CHECK(!dr_image_encode(&img, DR_FORMAT_JPEG, 0, false, &out, &len, NULL));
        const bytes enc = {out, len};
        CHECK(!decode(&enc, &again, &err));
        CHECK(again.meta.exif_len == (n == 65527 ? n : 0));
        dr_free(out);
        dr_image_done(&again);
    }
    dr_image_done(&img);
}

/* ---- orientation ------------------------------------------------------------------------------------------------ */

/* Stored pixel (x,y) of upright (u,v) for a stored picture of w x h. */
static void stored_at(int orientation, int w, int h, int u, int v, int *x, int *y) {
    const int at[9][2] = {{0, 0}, {u, v},         {w - 1 - u, v},         {w - 1 - u, h - 1 - v}, {u, h - 1 - v},
                          {v, u}, {v, h - 1 - u}, {w - 1 - v, h - 1 - u}, {w - 1 - v, u}};
    *x = at[orientation][0];
    *y = at[orientation][1];
}

TEST(all_eight_orientations_are_turned_upright) {
    const int w = 48, h = 40;
    bytes b = make_jpeg(&plain);
    dr_image stored;
    dr_error err;
    CHECK(!decode(&b, &stored, &err));
    for (int o = 1; o <= 8; o++)
        for (int big = 0; big < 2; big++) {
            bytes c = bytes_of(b.p, b.n);
            add_exif(&c, big, o, w, h);
            dr_image img;
            dr_picture_info info;
            CHECK(!decode(&c, &img, &err));
            const int uw = o >= 5 ? h : w, uh = o >= 5 ? w : h;
            CHECK(img.width == uw && img.height == uh);
            CHECK(!dr_probe(c.p, c.n, 0, NULL, &info, NULL) && info.width == uw && info.height == uh);
            for (int v = 0; v < uh; v++)
                for (int u = 0; u < uw; u++) {
                    int x, y;
                    stored_at(o, w, h, u, v, &x, &y);
                    CHECK_MSG(!memcmp(dr_image_row8(&img, v) + 3 * u, dr_image_row8(&stored, y) + 3 * x, 3),
                              "orientation %d at %d,%d", o, u, v);
                }
            uint8_t want[EXIF_LEN];
            make_exif(want, big, 1, uw, uh);
            memset(want + 34, 0, 4);
            CHECK_MSG(img.meta.exif_len == EXIF_LEN && !memcmp(img.meta.exif, want, EXIF_LEN), "orientation %d", o);
            dr_image_done(&img);
            bytes_done(&c);
        }
    dr_image_done(&stored);
    bytes_done(&b);
}

TEST(a_turned_picture_has_its_density_turned) {
    bytes b =
        make_jpeg(&(jpeg_spec){.w = 32, .h = 16, .components = 1, .density_unit = 2, .density_x = 10, .density_y = 20});
    add_exif(&b, true, 8, 32, 16);
    dr_image img;
    dr_error err;
    CHECK(!decode(&b, &img, &err) && img.meta.phys_x == 2000 && img.meta.phys_y == 1000);
    dr_image_done(&img);
    bytes_done(&b);
}

/* ---- output ----------------------------------------------------------------------------------------------------- */

TEST(output_is_444_and_near) {
    for (int channels = 1; channels <= 3; channels += 2)
        for (int depth = 8; depth <= 16; depth += 8) {
            dr_image img, again;
            dr_error err;
            CHECK(!dr_image_init(&img, 70, 45, channels, 8, NULL));
            for (int y = 0; y < 45; y++)
                for (int i = 0; i < 70 * channels; i++)
                    dr_image_row8(&img, y)[i] = (uint8_t)jpeg_sample(i / channels, y, i % channels);
            CHECK(!dr_image_set_depth(&img, depth, NULL));
            void *out;
            size_t n;
            CHECK(!dr_image_encode(&img, DR_FORMAT_JPEG, 0, false, &out, &n, NULL));
            const bytes enc = {out, n};
            const uint8_t *sof = enc.p + jpeg_find(&enc, 0xC0);
            CHECK(sof[9] == channels);
            for (int c = 0; c < channels; c++) CHECK(sof[11 + 3 * c] == 0x11);
            CHECK(!decode(&enc, &again, &err) && distance(&again) < 3);
            dr_free(out);
            dr_image_done(&img);
            dr_image_done(&again);
        }
}

TEST(quality_changes_the_size_and_is_checked) {
    dr_image img;
    CHECK(!dr_image_init(&img, 64, 64, 3, 8, NULL));
    for (size_t i = 0; i < img.stride * 64; i++) ((uint8_t *)img.pixels)[i] = (uint8_t)(i * 2654435761u >> 24);
    size_t n50, n95, n0;
    void *out;
    CHECK(!dr_image_encode(&img, DR_FORMAT_JPEG, 50, false, &out, &n50, NULL));
    dr_free(out);
    CHECK(!dr_image_encode(&img, DR_FORMAT_JPEG, 95, false, &out, &n95, NULL));
    dr_free(out);
    CHECK(!dr_image_encode(&img, DR_FORMAT_JPEG, 0, false, &out, &n0, NULL));
    dr_free(out);
    CHECK(n50 < n95 && n0 == n95);
    CHECK(dr_image_encode(&img, DR_FORMAT_JPEG, 101, false, &out, &n0, NULL) == DR_INVALID);
    CHECK(dr_image_encode(&img, DR_FORMAT_JPEG, -1, false, &out, &n0, NULL) == DR_INVALID);
    dr_image_done(&img);
}

TEST(alpha_and_giant_sides_cannot_become_jpeg) {
    dr_image img;
    dr_error err = {0};
    void *out;
    size_t n;
    for (int channels = 2; channels <= 4; channels += 2) {
        CHECK(!dr_image_init(&img, 20, 20, channels, 8, NULL));
        err = (dr_error){0};
        CHECK(dr_image_encode(&img, DR_FORMAT_JPEG, 0, false, &out, &n, &err) == DR_UNSUPPORTED &&
              !strcmp(err.what, "alpha_jpeg"));
        dr_image_done(&img);
    }
    CHECK(!dr_image_init(&img, 65501, 1, 1, 8, NULL));
    err = (dr_error){0};
    CHECK(dr_image_encode(&img, DR_FORMAT_JPEG, 0, false, &out, &n, &err) == DR_TOO_LARGE && err.limit == 65500 &&
          err.actual == 65501);
    dr_image_done(&img);
}

TEST(every_allocation_may_fail) {
    bytes b = make_jpeg(&(jpeg_spec){.w = 90, .h = 70, .components = 3, .progressive = true}),
          icc = make_icc(70000, false);
    add_icc(&b, &icc, 60000, false);
    add_exif(&b, true, 6, 90, 70);
    dr_image img;
    dr_error err;
    for (int encode = 0; encode < 2; encode++)
        for (long i = 1;; i++) {
            CHECK(i < 100);
            void *out = NULL;
            size_t n = 0;
            if (encode) {
                CHECK(!decode(&b, &img, &err));
                CHECK(!dr_image_set_depth(&img, 16, NULL));
            }
            dr_alloc_fail_after(i, false);
            const dr_status s =
                encode ? dr_image_encode(&img, DR_FORMAT_JPEG, 0, false, &out, &n, NULL) : decode(&b, &img, &err);
            const long count = dr_alloc_count();
            dr_alloc_fail_after(0, false);
            const bool kept = img.pixels != NULL;
            dr_image_done(&img);
            dr_free(out);
            if (!s) {
                CHECK(count < i && i > 2);
                break;
            }
            CHECK_MSG(s == DR_NOMEM && kept == encode && !out, "allocation %ld: %d", i, s);
        }
    /* libjpeg's own memory has the budget for a fence */
    const dr_limits tight = {.mem_budget = 90 * 70 * 3};
    CHECK(dr_image_decode(b.p, b.n, &tight, &img, NULL) == DR_NOMEM);
    bytes_done(&b);
    bytes_done(&icc);
}
