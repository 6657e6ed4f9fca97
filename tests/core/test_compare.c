/* test_compare.c - core/compare.h: equal versions differ in nothing, doing nothing is measured as such, a harmed
 * version loses, pictures of all kinds go through, and whatever is refused leaves nothing. */
#include "core/base/alloc.h"
#include "core/compare.h"
#include "core/image/codec.h"
#include "tests/t.h"
#include <unistd.h>

static char same[128], idle[128], wild[128];
static dr_engine *engine;
static dr_model *two[2], *mixed[3];

static dr_status init(char *path, size_t cap, const char *name, int residual, uint64_t seed) {
    snprintf(path, cap, "/tmp/derain-compare-%d-%s.safetensors", (int)getpid(), name);
    const dr_model_spec spec = {.ngf = 16, .blocks = 1, .residual = residual, .seed = seed};
    return dr_model_init_file(&spec, path, NULL);
}

static void down(void) {
    for (int i = 0; i < 2; i++) dr_model_close(two[i]);
    for (int i = 0; i < 3; i++) dr_model_close(mixed[i]);
    dr_engine_close(engine);
    unlink(same);
    unlink(idle);
    unlink(wild);
    engine = NULL;
    memset(two, 0, sizeof two);
    memset(mixed, 0, sizeof mixed);
}

static bool up(void) {
    const dr_engine_opts opts = {.backend = "cpu", .threads = 2};
    return !init(same, sizeof same, "same", 0, 3) && !init(idle, sizeof idle, "idle", 3, 1) &&
           !init(wild, sizeof wild, "wild", 0, 9) && !dr_engine_open(&opts, &engine, NULL) &&
           !dr_model_open(engine, same, &two[0], NULL) && !dr_model_open(engine, same, &two[1], NULL) &&
           !dr_model_open(engine, idle, &mixed[0], NULL) && !dr_model_open(engine, wild, &mixed[1], NULL) &&
           !dr_model_open(engine, idle, &mixed[2], NULL);
}

/* A scene of gradients; rain: bright streaks over it. */
static bool picture(int w, int h, int channels, int depth, bool rain, void **ret, size_t *ret_len) {
    dr_image img = {0};
    if (dr_image_init(&img, w, h, channels, depth, NULL)) return false;
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++)
            for (int c = 0; c < channels; c++) {
                int v = (x * 2 + y + 40 * c) % 180 + (rain && x % 13 == 4 && y % 29 < 18 ? 70 : 0);
                size_t at = (size_t)(x * channels + c);
                if (depth == 8)
                    dr_image_row8(&img, y)[at] = (uint8_t)v;
                else
                    dr_image_row16(&img, y)[at] = (uint16_t)(v * 257);
            }
    dr_status s = dr_image_encode(&img, DR_FORMAT_PNG, 0, true, ret, ret_len, NULL);
    dr_image_done(&img);
    return !s;
}

TEST(equal_versions_differ_in_nothing) {
    void *rainy = NULL, *png = NULL;
    size_t len, png_len;
    dr_compare_row row;
    dr_error err = {0};
    CHECK(up() && picture(97, 64, 3, 8, true, &rainy, &len));
    const dr_compare_opts o = {.side = 80};
    CHECK_MSG(!dr_compare_picture(two, 2, rainy, len, NULL, 0, &o, &row, &err), "%s", err.text);
    CHECK(row.width == 97 && row.height == 64 && row.n == 2 && !row.has_truth && row.spread == 0);
    CHECK(!memcmp(&row.col[1], &row.col[2], sizeof row.col[1]) && row.col[1].finite);
    CHECK(row.col[1].change.psnr_rgb < 60 && dr_compare_better(&row, 1, 2) == 0);
    const char *names[] = {"a/1", "b/1"};
    const dr_compare_item item = {"picture.png", &row};
    const dr_compare_heads heads = {names, "Both give the same pictures. And some more words that have to be wrapped."};
    CHECK(!dr_compare_sheet(&item, 1, &heads, &png, &png_len, &err));
    dr_image sheet = {0};
    CHECK(!dr_image_decode(png, png_len, NULL, &sheet, NULL) && sheet.channels == 3);
    CHECK_MSG(sheet.width > 4 * 264 && sheet.height > 64, "%d x %d", sheet.width, sheet.height);
    dr_image_done(&sheet);
    dr_free(png);
    dr_compare_row_done(&row);
    CHECK(!row.strip && dr_compare_sheet(&item, 1, &heads, &png, &png_len, NULL) == DR_INVALID); /* nothing to show */
    dr_free(rainy);
    down();
}

TEST(doing_nothing_is_measured_as_such_and_a_harmed_version_loses) {
    void *rainy = NULL, *clean = NULL;
    size_t len, clean_len;
    dr_compare_row row;
    dr_error err = {0};
    double score;
    CHECK(up() && picture(64, 96, 3, 8, true, &rainy, &len) && picture(64, 96, 3, 8, false, &clean, &clean_len));
    CHECK_MSG(!dr_compare_picture(mixed, 3, rainy, len, clean, clean_len, NULL, &row, &err), "%s", err.text);
    CHECK(row.n == 3 && row.has_truth && !row.strip && row.spread > 1);
    CHECK(row.col[1].change.psnr_rgb == 100 && row.col[1].truth.psnr_y == row.col[0].truth.psnr_y);
    CHECK(row.col[1].rain == row.col[0].rain && dr_compare_better(&row, 0, 1) == 0);
    CHECK(!dr_rain_score(rainy, len, NULL, &score, NULL) && score == row.col[0].rain);
    CHECK(row.col[2].truth.psnr_y < row.col[0].truth.psnr_y - 1 && dr_compare_better(&row, 2, 0) == -1 &&
          dr_compare_better(&row, 1, 2) == 1 && dr_compare_better(&row, 1, 3) == 0);
    dr_compare_row_done(&row);
    CHECK(!dr_compare_picture(mixed, 1, clean, clean_len, clean, clean_len, NULL, &row, &err));
    CHECK(row.col[0].truth.psnr_y == 100 && row.col[0].truth.ssim_y > 0.9999 && row.spread == 0);
    dr_free(rainy);
    dr_free(clean);
    down();
}

TEST(all_kinds_of_pictures) {
    static const struct {
        int w, h, channels, depth;
    } kind[] = {{40, 30, 1, 8}, {33, 47, 2, 8}, {16, 16, 4, 8}, {50, 20, 3, 16}, {600, 18, 4, 16}};
    const dr_compare_opts o = {.side = 128};
    CHECK(up());
    for (size_t i = 0; i < sizeof kind / sizeof *kind; i++) {
        void *data = NULL, *png = NULL;
        size_t len, png_len;
        dr_compare_row row;
        dr_error err = {0};
        CHECK(picture(kind[i].w, kind[i].h, kind[i].channels, kind[i].depth, true, &data, &len));
        CHECK_MSG(!dr_compare_picture(mixed, 3, data, len, data, len, &o, &row, &err), "%zu: %s", i, err.text);
        CHECK(row.col[1].change.psnr_rgb == 100 && row.spread > 0);
        const char *names[] = {"a/1", "b/1", "a name that is much too long for the place it has on the sheet, really"};
        const dr_compare_item item = {"\xC3\xA4.png", &row};
        CHECK(!dr_compare_sheet(&item, 1, &(dr_compare_heads){.versions = names}, &png, &png_len, &err));
        dr_free(png);
        dr_free(data);
        dr_compare_row_done(&row);
    }
    down();
}

typedef struct gate {
    int before, after, refuse_at;
} gate;
static bool before(void *arg) {
    gate *g = arg;
    return ++g->before != g->refuse_at;
}
static void after(void *arg) {
    ((gate *)arg)->after++;
}

TEST(what_is_refused) {
    void *data = NULL, *small = NULL;
    size_t len, small_len;
    dr_compare_row row;
    dr_error err = {0};
    CHECK(up() && picture(64, 48, 3, 8, true, &data, &len) && picture(64, 47, 3, 8, false, &small, &small_len));
    CHECK(dr_compare_picture(two, 0, data, len, NULL, 0, NULL, &row, NULL) == DR_INVALID);
    CHECK(dr_compare_picture(two, 2, data, len / 2, NULL, 0, NULL, &row, NULL) == DR_CORRUPT);
    CHECK(dr_compare_picture(two, 2, "text", 4, NULL, 0, NULL, &row, NULL) == DR_UNSUPPORTED);
    CHECK(dr_compare_picture(two, 2, data, len, small, small_len, NULL, &row, &err) == DR_INVALID &&
          !strcmp(err.what, "size_differs") && strstr(err.text, "clean picture"));
    CHECK(dr_compare_picture(two, 2, data, len, "text", 4, NULL, &row, NULL) == DR_UNSUPPORTED);
    const dr_limits tight = {.mem_budget = 1 << 20};
    err = (dr_error){0};
    CHECK(dr_compare_picture(two, 2, data, len, NULL, 0, &(dr_compare_opts){.limits = &tight}, &row, &err) ==
              DR_TOO_LARGE &&
          !strcmp(err.setting, "mem_budget") && err.actual > err.limit);
    gate g = {0};
    dr_compare_opts o = {.before = before, .after = after, .arg = &g};
    CHECK(!dr_compare_picture(two, 2, data, len, data, len, &o, &row, NULL));
    CHECK_MSG(g.before == g.after && g.before >= 10, "%d %d", g.before, g.after);
    for (int i = 1; i <= g.before; i++) { /* refused at each place where it asks */
        gate no = {.refuse_at = i};
        o.arg = &no;
        CHECK(dr_compare_picture(two, 2, data, len, data, len, &o, &row, NULL) == DR_CANCELLED);
        CHECK(no.before == i && no.after == i);
    }
    atomic_bool cancel = true;
    CHECK(dr_compare_picture(two, 2, data, len, NULL, 0, &(dr_compare_opts){.cancel = &cancel}, &row, NULL) ==
          DR_CANCELLED);
    dr_free(data);
    dr_free(small);
    down();
}
