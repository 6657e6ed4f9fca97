/* test_pictures.c - core/pictures.h: facts, fingerprints that survive what people do to pictures and tell different
 * ones apart, and contact sheets with broken pictures among the good. The photographs of ../shared/data, where they are
 * there, show that there is no false alarm. */
#include "core/base/alloc.h"
#include "core/base/fs.h"
#include "core/image/resize.h"
#include "core/pictures.h"
#include "tests/core/scenes.h"
#include "tests/t.h"

static bool facts_of(const dr_image *img, dr_format f, int quality, dr_picture_facts *ret) {
    void *data = NULL;
    size_t len = 0;
    bool ok =
        !dr_image_encode(img, f, quality, true, &data, &len, NULL) && !dr_picture_check(data, len, NULL, ret, NULL);
    dr_free(data);
    return ok;
}

TEST(facts_hold_the_rain_score) {
    dr_image img = scene(3, 96, 64, 3, 8), small = scene(4, 15, 40, 3, 8);
    dr_limits tiny = {.side_min = 8};
    dr_picture_facts f = {0};
    void *data = NULL;
    size_t len = 0;
    double want = -1;
    CHECK(!dr_image_encode(&img, DR_FORMAT_PNG, 0, true, &data, &len, NULL));
    CHECK(!dr_rain_score(data, len, NULL, &want, NULL) && !dr_picture_check(data, len, NULL, &f, NULL));
    CHECK(f.has_rain && f.rain == want && want > 0 && want < 100);
    dr_free(data);
    CHECK(!dr_image_encode(&small, DR_FORMAT_PNG, 0, true, &data, &len, NULL));
    CHECK(!dr_picture_check(data, len, &tiny, &f, NULL) && !f.has_rain); /* too small for one */
    dr_free(data);
    dr_image_done(&img);
    dr_image_done(&small);
}

TEST(facts_say_what_a_picture_is) {
    dr_image img = scene(1, 96, 64, 3, 8), deep = scene(1, 96, 64, 3, 16), grey = scene(1, 96, 64, 1, 8);
    dr_picture_facts a, b, c, d;
    CHECK(facts_of(&img, DR_FORMAT_PNG, 0, &a) && facts_of(&deep, DR_FORMAT_PNG, 0, &b));
    CHECK(facts_of(&grey, DR_FORMAT_PNG, 0, &c) && facts_of(&img, DR_FORMAT_JPEG, 95, &d));
    CHECK(a.info.width == 96 && a.info.height == 64 && a.info.bit_depth == 8 && !a.grey && a.has_look);
    CHECK(b.info.bit_depth == 16 && !b.grey && c.grey && c.info.channels == 1 && d.info.format == DR_FORMAT_JPEG);
    CHECK(dr_look_distance(&a.look, &b.look) <= 2 && strcmp(a.pixels_sha256, b.pixels_sha256) != 0);
    for (int y = 0; y < img.height; y++) /* three equal channels are grey as well, until one sample differs */
        for (int x = 0; x < img.width; x++) {
            uint8_t *p = dr_image_row8(&img, y) + 3 * x;
            p[1] = p[2] = p[0];
        }
    CHECK(facts_of(&img, DR_FORMAT_PNG, 0, &d) && d.grey);
    dr_image_row8(&img, 63)[3 * 95] ^= 1;
    CHECK(facts_of(&img, DR_FORMAT_PNG, 0, &d) && !d.grey);
    dr_image_done(&img);
    dr_image_done(&deep);
    dr_image_done(&grey);
}

TEST(pixels_have_one_digest_in_whatever_file) {
    dr_image img = scene(2, 80, 50, 3, 8);
    void *plain = NULL, *stripped = NULL;
    size_t n = 0, m = 0;
    dr_picture_facts a, b;
    img.meta.has_phys = true, img.meta.phys_x = img.meta.phys_y = 3000;
    CHECK(!dr_image_encode(&img, DR_FORMAT_PNG, 0, false, &plain, &n, NULL));
    CHECK(!dr_image_encode(&img, DR_FORMAT_PNG, 0, true, &stripped, &m, NULL));
    CHECK(n != m && !dr_picture_check(plain, n, NULL, &a, NULL) && !dr_picture_check(stripped, m, NULL, &b, NULL));
    CHECK(!strcmp(a.pixels_sha256, b.pixels_sha256) && !dr_look_distance(&a.look, &b.look));
    dr_free(plain);
    dr_free(stripped);
    dr_image_done(&img);
}

TEST(what_does_not_decode_is_told_apart) {
    dr_image img = scene(3, 80, 50, 3, 8);
    void *data = NULL;
    size_t n = 0;
    dr_picture_facts f;
    dr_error err = {0};
    CHECK(!dr_image_encode(&img, DR_FORMAT_PNG, 0, true, &data, &n, NULL));
    ((uint8_t *)data)[n / 2] ^= 0x55;
    CHECK(dr_picture_check(data, n, NULL, &f, &err) == DR_CORRUPT && !strcmp(err.what, "image_corrupt"));
    err = (dr_error){0};
    CHECK(dr_picture_check("only text", 9, NULL, &f, &err) == DR_UNSUPPORTED);
    err = (dr_error){0};
    CHECK(dr_picture_check("", 0, NULL, &f, &err) == DR_INVALID && !strcmp(err.what, "empty_body"));
    ((uint8_t *)data)[n / 2] ^= 0x55;
    err = (dr_error){0};
    const dr_limits small = {.pixels_max = 1000};
    CHECK(dr_picture_check(data, n, &small, &f, &err) == DR_TOO_LARGE && !strcmp(err.setting, "pixels_max"));
    dr_free(data);
    dr_image_done(&img);
}

TEST(the_look_survives_what_people_do_and_tells_scenes_apart) {
    enum { N = 24 };
    dr_picture_facts f[N];
    for (int i = 0; i < N; i++) {
        dr_image img = scene(100 + (uint64_t)i, 160, 120, 3, 8), half = {0};
        dr_picture_facts q, h;
        CHECK(facts_of(&img, DR_FORMAT_PNG, 0, &f[i]) && facts_of(&img, DR_FORMAT_JPEG, 20, &q));
        CHECK_MSG(dr_look_distance(&f[i].look, &q.look) <= DR_LOOK_SAME, "JPEG: %d",
                  dr_look_distance(&f[i].look, &q.look));
        CHECK(!dr_image_resize(&img, 80, 60, &half, NULL) && facts_of(&half, DR_FORMAT_PNG, 0, &h));
        CHECK_MSG(dr_look_distance(&f[i].look, &h.look) <= DR_LOOK_SAME, "half: %d",
                  dr_look_distance(&f[i].look, &h.look));
        for (int k = 0; k < i; k++)
            CHECK_MSG(dr_look_distance(&f[i].look, &f[k].look) > DR_LOOK_SAME, "%d and %d: %d", i, k,
                      dr_look_distance(&f[i].look, &f[k].look));
        dr_image_done(&img);
        dr_image_done(&half);
    }
}

TEST(a_flat_picture_has_no_look_and_hex_goes_round) {
    dr_image img = {0};
    dr_picture_facts f;
    dr_look back;
    char hex[DR_LOOK_HEX];
    CHECK(!dr_image_init(&img, 40, 40, 3, 8, NULL) && facts_of(&img, DR_FORMAT_PNG, 0, &f) && !f.has_look && f.grey);
    dr_image_done(&img);
    img = scene(5, 33, 17, 3, 8);
    CHECK(facts_of(&img, DR_FORMAT_PNG, 0, &f) && f.has_look && !(f.look.bits[0] & 1));
    dr_look_format(&f.look, hex);
    CHECK(dr_look_parse(hex, &back) && !dr_look_distance(&back, &f.look) && !memcmp(&back, &f.look, sizeof back));
    hex[63] = 0;
    CHECK(!dr_look_parse(hex, &back) && !dr_look_parse("", &back));
    dr_image_done(&img);
}

static dr_status give(void *arg, int i, char **ret, size_t *ret_len, dr_error *err) {
    (void)arg;
    if (i == 2) return dr_fail(err, DR_NOT_FOUND, "no such file");
    dr_image img = scene((uint64_t)i, i == 1 ? 2000 : 60, 40, i == 3 ? 1 : 4, i == 4 ? 16 : 8);
    void *data = NULL;
    dr_status s = dr_image_encode(&img, DR_FORMAT_PNG, 0, true, &data, ret_len, err);
    if (!s && i == 5) *ret_len /= 2;
    *ret = data;
    dr_image_done(&img);
    return s;
}

TEST(a_contact_sheet_shows_good_and_bad) {
    const dr_contact_item items[6] = {{"one", false},      {"a name that is far too long for its place", true},
                                      {"x", false},        {NULL, false},
                                      {"\xC3\xA4", false}, {"cut", true}};
    void *png = NULL;
    size_t n = 0;
    dr_image sheet = {0};
    CHECK(!dr_contact_sheet(items, 6, 4, 64, NULL, give, NULL, &png, &n, NULL));
    CHECK(!dr_image_decode(png, n, NULL, &sheet, NULL) && sheet.width == 4 * 70 + 6 && sheet.height == 2 * 81 + 6);
    const uint8_t *red = dr_image_row8(&sheet, 6 + 11) + 3 * (6 + 2 * 70);
    CHECK(red[0] == 220 && red[1] == 60); /* crossed out */
    dr_image_done(&sheet);
    dr_free(png);
    CHECK(dr_contact_sheet(items, 0, 4, 64, NULL, give, NULL, &png, &n, NULL) == DR_INVALID);
    CHECK(dr_contact_sheet(items, 6, 4, 1000, NULL, give, NULL, &png, &n, NULL) == DR_INVALID);
}

/* The data's README: Rain100 holds nine backgrounds twice, of which 5=14, 7=36, 8=47 and 9=58 are in this part. */
TEST(photographs_give_no_false_alarm) {
    static const char *const dir = "../shared/data/paired/Rain100L/clean";
    static const int twice[][2] = {{3, 4}, {5, 14}, {6, 25}, {7, 36}, {8, 47}, {9, 58}, {10, 69}, {11, 80}, {12, 91}};
    char **names = NULL;
    size_t n = 0;
    if (dr_fs_list(dir, &names, &n, NULL)) SKIP("no photographs here");
    dr_picture_facts *f = dr_calloc(n, sizeof *f);
    for (size_t i = 0; i < n; i++) {
        char *path = dr_fs_join(dir, names[i]), *data = NULL;
        size_t len = 0;
        CHECK(!dr_fs_read(path, 1 << 24, &data, &len, NULL) && !dr_picture_check(data, len, NULL, &f[i], NULL));
        dr_free(path);
        dr_free(data);
        for (size_t k = 0; k < i; k++) {
            int a = (int)strtol(names[i], NULL, 10), b = (int)strtol(names[k], NULL, 10), d;
            bool known = false;
            for (size_t t = 0; t < 9; t++)
                known = known || (twice[t][0] == b && twice[t][1] == a) || (twice[t][0] == a && twice[t][1] == b);
            d = dr_look_distance(&f[i].look, &f[k].look);
            CHECK_MSG((d <= DR_LOOK_SAME) == known, "%s and %s are %d apart", names[i], names[k], d);
        }
    }
    dr_free(f);
    dr_fs_list_free(names, n);
}
