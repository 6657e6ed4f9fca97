/* test_verdict.c - the gate on staged networks: real pictures, rain drawn over them, real measures; only the network is
 * a plain function of the planes, named by the file of its "weights". */
#include "tests/t.h"
#include "core/base/alloc.h"
#include "core/base/fs.h"
#include "core/base/rng.h"
#include "core/image/codec.h"
#include "core/model/engine.h"
#include "server/verdict.h"
#include "tests/db/util.h"
#include <jansson.h>
#include <math.h>

/* --- networks --- */

static int opened, called;

dr_status dr_engine_open(const dr_engine_opts *opts, dr_engine **ret, dr_error *err) {
    (void)opts, (void)err;
    *ret = calloc(1, sizeof **ret);
    opened++;
    return DR_OK;
}
void dr_engine_close(dr_engine *e) {
    opened--;
    free(e);
}
bool dr_engine_device(const dr_engine *e, dr_device_state *ret) {
    return (void)e, (void)ret, false;
}
void dr_engine_drain(dr_engine *e) {
    (void)e;
}
dr_status dr_model_open(dr_engine *e, const char *path, dr_model **ret, dr_error *err) {
    (void)e;
    if (!strcmp(path, "missing")) return dr_fail(err, DR_NOT_FOUND, "no such file");
    *ret = calloc(1, sizeof **ret);
    snprintf((*ret)->info.name, sizeof(*ret)->info.name, "%s", path);
    opened++;
    return DR_OK;
}
void dr_model_close(dr_model *m) {
    opened--;
    free(m);
}
void dr_model_set_yield(dr_model *m, bool (*between)(void *arg), void *arg) {
    (void)m, (void)between, (void)arg;
}
int dr_padded_side(int side) {
    return (side + 3) / 4 * 4;
}

static float at(const float *p, int w, int h, int c, int y, int x) {
    x = x < 0 ? 0 : x >= w ? w - 1 : x;
    y = y < 0 ? 0 : y >= h ? h - 1 : y;
    return p[((size_t)c * (size_t)h + (size_t)y) * (size_t)w + (size_t)x];
}

static int by_value(const void *a, const void *b) {
    return (*(const float *)a > *(const float *)b) - (*(const float *)a < *(const float *)b);
}

static float median9(const float *in, int w, int h, int c, int y, int x) {
    float v[9];
    for (int i = 0; i < 9; i++) v[i] = at(in, w, h, c, y, x + i - 4);
    qsort(v, 9, sizeof *v, by_value);
    return v[4];
}

/* What stands out from the median of 9 pixels beside it, here and four rows up and down, is taken for rain. */
static void without_streaks(const float *in, float *out, int w, int h) {
    size_t n = (size_t)w * (size_t)h;
    float *excess = malloc(n * sizeof *excess);
    for (int c = 0; c < 3; c++) {
        for (int y = 0; y < h; y++)
            for (int x = 0; x < w; x++)
                excess[(size_t)y * (size_t)w + (size_t)x] = at(in, w, h, c, y, x) - median9(in, w, h, c, y, x);
        for (int y = 0; y < h; y++)
            for (int x = 0; x < w; x++) {
                bool streak = at(excess, w, h, 0, y, x) > 0.25f;
                for (int k = -4; k <= 4 && streak; k++) {
                    float most = 0;
                    for (int i = -1; i <= 1; i++) most = fmaxf(most, at(excess, w, h, 0, y + k, x + i));
                    streak = most > 0.25f;
                }
                if (streak) out[(size_t)c * n + (size_t)y * (size_t)w + (size_t)x] = median9(in, w, h, c, y, x);
            }
    }
    free(excess);
}

/* 5 x 5: much less than "blurs" does. */
static float softened(const float *in, int w, int h, int c, int y, int x) {
    float sum = 0;
    for (int i = -2; i <= 2; i++)
        for (int k = -2; k <= 2; k++) sum += at(in, w, h, c, y + i, x + k);
    return sum / 25;
}

static float blurred(const float *in, int w, int h, int c, int y, int x) {
    float sum = 0;
    for (int i = -4; i <= 4; i++)
        for (int k = -4; k <= 4; k++) sum += at(in, w, h, c, y + i, x + k);
    return sum / 81;
}

dr_status dr_model_run_planes(dr_model *m, float *planes, int pw, int ph, uint64_t mem_budget,
                              const dr_plan_watch *watch, dr_error *err) {
    size_t n = (size_t)3 * (size_t)pw * (size_t)ph;
    const char *name = m->info.name;
    float *in = malloc(n * sizeof *in);
    (void)mem_budget, (void)watch, (void)err;
    called++;
    memcpy(in, planes, n * sizeof *in);
    if (strstr(name, "helps")) without_streaks(in, planes, pw, ph);
    for (int c = 0; c < 3; c++)
        for (int y = 0; y < ph; y++)
            for (int x = 0; x < pw; x++) {
                float *out = &planes[((size_t)c * (size_t)ph + (size_t)y) * (size_t)pw + (size_t)x];
                if (strstr(name, "blurs")) *out = blurred(in, pw, ph, c, y, x);
                if (strstr(name, "softens")) *out = softened(in, pw, ph, c, y, x);
                if (strstr(name, "tints") && c == 0) *out += 0.1f;
                if (strstr(name, "darkens")) *out -= 0.1f;
                if (strstr(name, "nan") && x == 5 && y == 5) *out = NAN;
            }
    free(in);
    return DR_OK;
}

/* --- pictures --- */

enum { W = 160, H = 144, N = 4 };
static char dir[256], rainy[N][300], clean[N][300];
static const char *rainy_list[N], *clean_list[N];

static bool save(const char *path, const dr_image *img) {
    void *data;
    size_t len;
    if (dr_image_encode(img, DR_FORMAT_PNG, 0, true, &data, &len, NULL)) return false;
    bool ok = !dr_fs_write_atomic(path, data, len, NULL);
    dr_free(data);
    return ok;
}

static void draw_rain(dr_image *img, uint64_t seed) {
    dr_rng r;
    dr_rng_seed(&r, seed, 1);
    for (int i = 0; i < 250; i++) {
        int x = (int)dr_rng_below(&r, W), y = (int)dr_rng_below(&r, H), n = 10 + (int)dr_rng_below(&r, 15);
        for (int k = 0; k < n && y + k < H && x + k / 5 < W; k++)
            for (int c = 0; c < 3; c++) {
                uint8_t *p = dr_image_row8(img, y + k) + 3 * (x + k / 5) + c;
                *p = (uint8_t)(*p + (255 - *p) * 6 / 10);
            }
    }
}

static bool pictures(void) {
    static const char *const from[2] = {"tests/demo/raccoon.jpg", "tests/demo/launch.jpg"};
    static bool made;
    if (made) return true;
    scratch_make(dir, sizeof dir);
    for (int i = 0; i < N; i++) {
        char *data;
        size_t len;
        dr_image all = {0}, cut = {0};
        if (dr_fs_read(from[i % 2], 1 << 24, &data, &len, NULL) || dr_image_decode(data, len, NULL, &all, NULL) ||
            all.channels != 3 || all.width < 2 * W || all.height < 2 * H || dr_image_init(&cut, W, H, 3, 8, NULL))
            return false;
        dr_free(data);
        for (int y = 0; y < H; y++)
            memcpy(dr_image_row8(&cut, y), dr_image_row8(&all, y + i / 2 * H) + (size_t)3 * (size_t)(i * 30), 3 * W);
        snprintf(clean[i], sizeof clean[i], "%s/c%d.png", dir, i);
        snprintf(rainy[i], sizeof rainy[i], "%s/r%d.png", dir, i);
        if (!save(clean[i], &cut)) return false;
        draw_rain(&cut, (uint64_t)i + 1);
        if (!save(rainy[i], &cut)) return false;
        dr_image_done(&all);
        dr_image_done(&cut);
        rainy_list[i] = rainy[i];
        clean_list[i] = clean[i];
    }
    return made = true;
}

__attribute__((destructor)) static void clean_up(void) {
    if (*dir) scratch_rm(dir);
}

static srv_verdict_in unpaired(const char *weights, const char *parent) {
    return (srv_verdict_in){.weights = weights, .parent = parent, .rainy = {rainy_list, N}, .clean = {clean_list, N}};
}

/* The verdict's "ok" of a check: 1, 0, -1 skipped, -2 not there. */
static int check_of(const srv_verdict *v, const char *name) {
    json_t *o = json_loads(v->json, 0, NULL), *c;
    size_t i;
    int ret = -2;
    json_array_foreach(json_object_get(o, "checks"), i, c) {
        json_t *ok = json_object_get(c, "ok");
        if (!strcmp(json_string_value(json_object_get(c, "name")), name))
            ret = json_is_null(ok) ? -1 : json_is_true(ok);
    }
    json_decref(o);
    return ret;
}

static bool run(const srv_verdict_in *in, srv_verdict *ret) {
    dr_error err = {0};
    dr_status s = srv_verdict_run(in, ret, &err);
    if (s) printf("# %s\n", err.text);
    return !s;
}

/* One verdict, one answer: which check must fail (NULL: none). */
static bool ends(const char *weights, const char *parent, const char *failing) {
    static const char *const names[] = {"finite", "pairs", "transplant", "rain", "detail", "clean", "colour"};
    srv_verdict v = {0};
    srv_verdict_in in = unpaired(weights, parent);
    bool ok = run(&in, &v) && v.accepted == !failing && !opened;
    for (int i = 0; i < 7 && ok && failing; i++) ok = check_of(&v, names[i]) != 0 || strstr(failing, names[i]);
    ok = ok && (!failing || (v.reason && *v.reason));
    if (!ok) printf("# %s: %s\n", weights, v.json ? v.json : "");
    srv_verdict_done(&v);
    return ok;
}

TEST(one_that_helps_is_accepted) {
    CHECK(pictures());
    CHECK(ends("helps", NULL, NULL));
    CHECK(ends("helps", "helps", NULL));
    CHECK(ends("helps", "identity", NULL));
}

TEST(an_identity_fails_the_rain_check_and_no_other) {
    CHECK(pictures());
    CHECK(ends("identity", NULL, "rain"));
    CHECK(ends("identity", "identity", "rain"));
    CHECK(ends("identity", "helps", "rain"));
}

TEST(one_that_blurs_fails_on_clean_pictures) {
    srv_verdict v = {0};
    CHECK(pictures());
    srv_verdict_in in = unpaired("blurs", "identity");
    CHECK(run(&in, &v) && !v.accepted && check_of(&v, "clean") == 0 && strstr(v.json, "\"psnr_min\""));
    srv_verdict_done(&v);
}

/* Clean pictures that are blurred themselves come back nearly as they were, and rain is gone from what is blurred. */
TEST(one_that_learned_to_blur_from_blurred_pictures_fails_on_detail) {
    srv_verdict v = {0};
    srv_verdict_limits l = srv_verdict_defaults;
    char path[N][320];
    const char *soft[N];
    CHECK(pictures());
    for (int i = 0; i < N; i++) {
        dr_image img = {0}, out = {0};
        char *data;
        size_t len;
        CHECK(!dr_fs_read(clean[i], 1 << 24, &data, &len, NULL) && !dr_image_decode(data, len, NULL, &img, NULL));
        CHECK(!dr_image_copy(&img, &out, NULL));
        for (int round = 0; round < 6; round++) { /* until once more changes little */
            for (int y = 1; y + 1 < H; y++)
                for (int x = 3; x < 3 * (W - 1); x++) {
                    int sum = 0;
                    for (int k = -1; k <= 1; k++)
                        for (int m = -3; m <= 3; m += 3) sum += dr_image_row8(&img, y + k)[x + m];
                    dr_image_row8(&out, y)[x] = (uint8_t)(sum / 9);
                }
            memcpy(img.pixels, out.pixels, img.stride * (size_t)H);
        }
        snprintf(path[i], sizeof path[i], "%s/soft%d.png", dir, i);
        soft[i] = path[i];
        CHECK(save(path[i], &out));
        dr_free(data);
        dr_image_done(&img);
        dr_image_done(&out);
    }
    srv_verdict_in in = unpaired("softens", "identity");
    in.clean = (srv_picture_list){soft, N};
    in.limits = &l;
    l.clean_psnr_min = 26;
    CHECK_MSG(run(&in, &v) && !v.accepted && check_of(&v, "detail") == 0, "%s", v.json);
    CHECK_MSG(check_of(&v, "clean") == 1 && check_of(&v, "colour") == 1, "%s", v.json);
    CHECK(strstr(v.json, "it blurs") != NULL);
    srv_verdict_done(&v);
    in.weights = "helps";
    CHECK(run(&in, &v) && check_of(&v, "detail") == 1);
    srv_verdict_done(&v);
    in = unpaired("softens", "identity"); /* with pairs there is more to go by */
    in.pair_rainy = in.rainy;
    in.pair_clean = in.clean;
    CHECK(run(&in, &v) && !v.accepted && check_of(&v, "detail") == -1 && check_of(&v, "pairs") == 0);
    srv_verdict_done(&v);
}

TEST(a_cast_and_values_that_are_none_are_seen) {
    CHECK(pictures());
    CHECK(ends("helps tints", NULL, "colour clean"));
    CHECK(ends("helps darkens", NULL, "colour clean"));
    CHECK(ends("helps nan", NULL, "finite"));
}

TEST(pairs_decide_where_there_are_some) {
    srv_verdict v = {0};
    CHECK(pictures());
    srv_verdict_in in = {
        .weights = "helps", .parent = "identity", .pair_rainy = {rainy_list, N}, .pair_clean = {clean_list, N}};
    CHECK(run(&in, &v) && v.accepted && check_of(&v, "pairs") == 1 && check_of(&v, "rain") == 1);
    CHECK(check_of(&v, "clean") == 1); /* the clean sides serve */
    srv_verdict_done(&v);
    in.weights = "identity", in.parent = "helps";
    CHECK(run(&in, &v) && !v.accepted && check_of(&v, "pairs") == 0);
    CHECK(strstr(v.reason, "PSNR") != NULL);
    srv_verdict_done(&v);
    in = unpaired("helps", NULL);
    CHECK(run(&in, &v) && check_of(&v, "pairs") == -1);
    srv_verdict_done(&v);
}

/* Pairs that were made: what the parent takes off must still come off, and nothing else. */
TEST(moved_rain_tells_a_version_that_fell_behind_its_parent) {
    srv_verdict v = {0};
    CHECK(pictures());
    srv_verdict_in in = unpaired("helps", "helps");
    in.made_rainy = in.rainy;
    in.made_clean = in.clean;
    CHECK(run(&in, &v) && v.accepted && check_of(&v, "transplant") == 1 && check_of(&v, "pairs") == -1);
    srv_verdict_done(&v);
    srv_verdict_limits l = srv_verdict_defaults;
    in.limits = &l;
    l.transplant_loss_max = 0.05;
    in.weights = "helps darkens"; /* 13 grey levels: on rainy pictures alone it could pass for rain */
    CHECK_MSG(run(&in, &v) && !v.accepted && check_of(&v, "transplant") == 0, "%s", v.json);
    srv_verdict_done(&v);
    in.weights = "identity";
    CHECK(run(&in, &v) && !v.accepted && check_of(&v, "transplant") == 0);
    srv_verdict_done(&v);
    in = unpaired("helps", NULL); /* nobody to fall behind */
    in.made_rainy = in.rainy;
    in.made_clean = in.clean;
    CHECK(run(&in, &v) && v.accepted && check_of(&v, "transplant") == -1);
    srv_verdict_done(&v);
    in = unpaired("helps", "helps");
    CHECK(run(&in, &v) && check_of(&v, "transplant") == -1);
    srv_verdict_done(&v);
    in.made_rainy = in.rainy;
    CHECK(srv_verdict_run(&in, &v, NULL) == DR_INVALID);
}

TEST(limits_move_the_verdict) {
    srv_verdict v = {0};
    srv_verdict_limits l = srv_verdict_defaults;
    CHECK(pictures());
    srv_verdict_in in = unpaired("helps", NULL);
    in.limits = &l;
    l.rain_fall_min = 60;
    CHECK(run(&in, &v) && !v.accepted && check_of(&v, "rain") == 0);
    srv_verdict_done(&v);
    l = srv_verdict_defaults;
    l.clean_psnr_min = 90;
    CHECK(run(&in, &v) && !v.accepted && check_of(&v, "clean") == 0);
    srv_verdict_done(&v);
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

TEST(it_gives_way_between_pictures_stops_when_told_and_says_what_is_missing) {
    srv_verdict v = {0};
    dr_error err = {0};
    atomic_bool cancel = true;
    CHECK(pictures());
    srv_verdict_in in = unpaired("helps", "identity");
    in.before = on_enter;
    in.after = on_leave;
    in.pictures_max = 2;
    called = 0;
    CHECK(run(&in, &v) && called == 2 + 2 + 2 && entered == called && left == called);
    srv_verdict_done(&v);
    in.cancel = &cancel;
    CHECK(srv_verdict_run(&in, &v, &err) == DR_CANCELLED && !opened && !v.json);
    err = (dr_error){0};
    in = (srv_verdict_in){.weights = "helps"};
    CHECK(srv_verdict_run(&in, &v, &err) == DR_INVALID && !strcmp(err.what, "nothing_held_out"));
    in = unpaired("missing", NULL);
    CHECK(srv_verdict_run(&in, &v, NULL) == DR_NOT_FOUND && !opened);
    in = unpaired("helps", NULL);
    in.pair_rainy = in.rainy;
    CHECK(srv_verdict_run(&in, &v, NULL) == DR_INVALID);
    const char *gone[] = {"/nowhere/x.png"};
    in = (srv_verdict_in){.weights = "helps", .rainy = {gone, 1}};
    CHECK(srv_verdict_run(&in, &v, NULL) == DR_NOT_FOUND && !opened);
}
