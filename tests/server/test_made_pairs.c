/* test_made_pairs.c - pairs out of an unpaired hold-out: whole or not at all, made once, and what is in them. */
#include "core/base/alloc.h"
#include "core/base/fs.h"
#include "core/image/codec.h"
#include "server/made_pairs.h"
#include "server/training_files.h"
#include "tests/core/scenes.h"
#include "tests/db/util.h"
#include "tests/t.h"

static char dir[256], weights[300];

static bool put_picture(const char *name, int w, int h, int seed) {
    char path[400];
    scene_file f = scene_encoded(seed, w, h, 3, 8, DR_FORMAT_PNG, 0);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    bool ok = !dr_fs_write_atomic(path, f.p, f.n, NULL);
    dr_free(f.p);
    return ok;
}

static bool put_text(const char *name, const char *text) {
    char path[400];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return !dr_fs_write_atomic(path, text, strlen(text), NULL);
}

static bool begin(int residual) {
    scratch_make(dir, sizeof dir);
    snprintf(weights, sizeof weights, "%s/w.safetensors", dir);
    const dr_model_spec spec = {.ngf = 16, .blocks = 1, .residual = residual, .seed = 3};
    return !dr_model_init_file(&spec, weights, NULL) && put_picture("r0.png", 80, 64, 1) &&
           put_picture("r1.png", 64, 90, 2) && put_picture("r2.png", 70, 70, 3) && put_picture("c0.png", 100, 48, 4) &&
           put_picture("c1.png", 60, 60, 5) && put_text(SRV_HELD_RAINY, "r0.png\nr1.png\nr2.png\n") &&
           put_text(SRV_HELD_CLEAN, "c0.png\nc1.png\n");
}

static bool there(const char *name) {
    char path[400];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return dr_fs_exists(path);
}

static bool read_made(const char *side, int i, dr_image *ret) {
    char path[400], *data;
    size_t len;
    snprintf(path, sizeof path, "%s/made/%s/%06d.png", dir, side, i);
    if (dr_fs_read(path, 1 << 24, &data, &len, NULL)) return false;
    bool ok = !dr_image_decode(data, len, NULL, ret, NULL);
    dr_free(data);
    return ok;
}

static srv_made_in in(void) {
    return (srv_made_in){.dir = dir, .weights = weights, .backend = "cpu", .threads = 1};
}

TEST(a_network_that_takes_nothing_off_moves_no_rain) {
    size_t n = 0;
    dr_error err = {0};
    CHECK(begin(1)); /* a fresh residual takes off nothing */
    srv_made_in o = in();
    CHECK_MSG(!srv_made_pairs(&o, &n, &err), "%s", err.text);
    CHECK(n == 3);
    static const int size[3][2] = {{80, 48}, {64, 48}, {60, 60}}; /* what the two have in common */
    for (int i = 0; i < 3; i++) {
        dr_image a = {0}, b = {0};
        CHECK(read_made("rainy", i, &a) && read_made("clean", i, &b));
        CHECK_MSG(a.width == size[i][0] && a.height == size[i][1] && b.width == a.width && b.height == a.height,
                  "%d: %d x %d", i, a.width, a.height);
        CHECK(a.channels == 3 && !memcmp(a.pixels, b.pixels, a.stride * (size_t)a.height));
        dr_image_done(&a);
        dr_image_done(&b);
    }
    scratch_rm(dir);
}

TEST(what_a_network_takes_off_is_moved) {
    size_t n = 0;
    CHECK(begin(0)); /* one that paints anew: nearly all of the picture is taken off */
    srv_made_in o = in();
    o.pairs_max = 2;
    CHECK(!srv_made_pairs(&o, &n, NULL) && n == 2);
    dr_image a = {0}, b = {0};
    CHECK(read_made("rainy", 1, &a) && read_made("clean", 1, &b));
    CHECK(memcmp(a.pixels, b.pixels, a.stride * (size_t)a.height) != 0);
    dr_image_done(&a);
    dr_image_done(&b);
    CHECK(there("made/rainy/000001.png") && !there("made/rainy/000002.png") && !there("made.tmp"));
    /* made once: the next life takes what is there, also where the pictures are gone meanwhile */
    CHECK(put_text(SRV_HELD_RAINY, "gone.png\n"));
    CHECK(!srv_made_pairs(&o, &n, NULL) && n == 2);
    scratch_rm(dir);
}

static bool no(void *arg, dr_engine *e) {
    (void)arg;
    return !e;
}
static int entered, left;
static void on_enter(void *arg) {
    (void)arg;
    entered++;
}
static void on_leave(void *arg) {
    (void)arg;
    left++;
}

TEST(broken_off_nothing_is_left_and_the_next_one_is_whole) {
    size_t n = 7;
    dr_error err = {0};
    CHECK(begin(1));
    srv_made_in o = in();
    o.yield = no;
    o.before = on_enter;
    o.after = on_leave;
    CHECK(srv_made_pairs(&o, &n, &err) == DR_CANCELLED && n == 7);
    CHECK(entered == 1 && left == 1 && !there("made") && !there("made.tmp"));
    char half[400];
    snprintf(half, sizeof half, "%s/made.tmp/rainy", dir); /* what a kill may leave */
    CHECK(!dr_fs_mkdirs(half, 0700, NULL) && put_text("made.tmp/rainy/000009.png", "half done"));
    o.yield = NULL;
    CHECK(!srv_made_pairs(&o, &n, NULL) && n == 3 && there("made/clean/000002.png") && !there("made.tmp"));
    CHECK(!there("made/rainy/000009.png"));
    CHECK(entered == 4 && left == 4);
    scratch_rm(dir);
}

TEST(a_side_without_pictures_makes_none_and_a_lost_one_is_told) {
    size_t n = 7;
    dr_error err = {0};
    CHECK(begin(1) && put_text(SRV_HELD_CLEAN, ""));
    srv_made_in o = in();
    CHECK(!srv_made_pairs(&o, &n, NULL) && n == 0 && !there("made"));
    CHECK(put_text(SRV_HELD_CLEAN, "c0.png\ngone.png\n"));
    CHECK(srv_made_pairs(&o, &n, &err) == DR_NOT_FOUND && !there("made") && !there("made.tmp"));
    scratch_rm(dir);
}
