/* test_derain.c - the engine through its public door: pictures of every kind, bad ones, limits, threads, evaluation. */
#include "core/derain.h"

#include "core/base/alloc.h"
#include "core/base/fs.h"
#include "core/image/codec.h"
#include "core/image/convert.h"
#include "core/model/engine.h"
#include "core/model/weights.h"
#include "tests/core/scenes.h"
#include "tests/t.h"
#include <sys/stat.h>
#include <unistd.h>

static char *tmp(const char *name) {
    static char path[8][128];
    static int i;
    i = (i + 1) % 8;
    snprintf(path[i], sizeof path[i], "/tmp/test_derain_%ld_%s", (long)getpid(), name);
    return path[i];
}

/* A generator whose every layer matters (`zero`: one that changes nothing, with a residual). */
static const char *model_file(int residual, bool zero) {
    const char *path = tmp(zero ? "zero" : "net");
    if (zero) {
        dr_model_spec spec = {.ngf = 16, .blocks = 1, .residual = residual, .seed = 4, .name = "zero"};
        return dr_model_init_file(&spec, path, NULL) ? NULL : path;
    }
    dr_backend *be;
    dr_generator g;
    dr_backend_opts o = {.threads = 1};
    if (dr_backend_open("cpu", &o, &be, NULL, NULL)) return NULL;
    dr_status s = dr_generator_init(&g, (dr_generator_config){16, 1, residual}, be, false, NULL);
    if (!s) s = dr_params_init_xavier(&g.params, 21, "x", 1.0, NULL);
    dr_st_writer *w = dr_st_writer_create();
    dr_st_writer_metaf(w, "derain.residual", "%d", residual);
    dr_weights_save(w, "", &g.params, NULL, DR_ST_F32);
    if (!s) s = dr_st_writer_save(w, path, NULL);
    dr_st_writer_destroy(w);
    dr_generator_done(&g);
    dr_backend_close(be);
    return s ? NULL : path;
}

typedef struct rig {
    dr_engine *e;
    dr_model *m;
} rig;

static bool rig_open(rig *r, int threads, int residual, bool zero) {
    *r = (rig){0};
    const char *path = model_file(residual, zero);
    dr_engine_opts o = {.backend = "cpu", .threads = threads};
    dr_error err = {0};
    bool ok = path && !dr_engine_open(&o, &r->e, &err) && !dr_model_open(r->e, path, &r->m, &err);
    if (!ok) printf("# %s\n", err.text);
    if (path) unlink(path);
    return ok;
}

static void rig_close(rig *r) {
    dr_model_close(r->m);
    dr_engine_close(r->e);
}

static uint32_t pixel(int x, int y, int c) {
    return (uint32_t)(x * 37 + y * 101 + c * 59 + (x * y) % 23) * 2654435761u;
}

static dr_image picture(int w, int h, int channels, int depth) {
    dr_image img = {0};
    if (dr_image_init(&img, w, h, channels, depth, NULL)) abort();
    for (int y = 0; y < h; y++)
        for (int i = 0; i < w * channels; i++) {
            uint32_t v = pixel(i / channels, y, i % channels) >> 16;
            if (depth == 8)
                dr_image_row8(&img, y)[i] = (uint8_t)(v >> 8);
            else
                dr_image_row16(&img, y)[i] = (uint16_t)v;
        }
    return img;
}

static void *png(int w, int h, int channels, int depth, size_t *ret_len) {
    dr_image img = picture(w, h, channels, depth);
    void *data = NULL;
    if (dr_image_encode(&img, DR_FORMAT_PNG, 0, false, &data, ret_len, NULL)) abort();
    dr_image_done(&img);
    return data;
}

/* ---- pictures ------------------------------------------------------------------------------------------------- */

TEST(a_net_that_changes_nothing_changes_nothing) {
    for (int residual = 1; residual <= 3; residual += 2) {
        rig r;
        CHECK(rig_open(&r, 2, residual, true));
        static const int kinds[][4] = {{16, 16, 3, 8},  {17, 31, 3, 8},  {40, 18, 1, 8},
                                       {21, 22, 2, 8},  {19, 33, 4, 8},  {16, 16, 1, 16},
                                       {30, 17, 3, 16}, {17, 17, 4, 16}, {18, 23, 2, 16}};
        for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
            size_t len, out_len;
            void *in = png(kinds[k][0], kinds[k][1], kinds[k][2], kinds[k][3], &len), *out;
            dr_error err = {0};
            dr_run_stats st;
            CHECK_MSG(!dr_derain(r.m, in, len, NULL, &out, &out_len, &st, &err), "%s", err.text);
            dr_image a = {0}, b = {0};
            CHECK(!dr_image_decode(in, len, NULL, &a, NULL) && !dr_image_decode(out, out_len, NULL, &b, NULL));
            CHECK(a.width == b.width && a.height == b.height && a.channels == b.channels && a.depth == b.depth);
            CHECK_MSG(!memcmp(a.pixels, b.pixels, a.stride * (size_t)a.height), "kind %zu", k);
            CHECK(st.input.width == kinds[k][0] && st.input.channels == kinds[k][2] && st.infer_ms > 0);
            dr_image_done(&a);
            dr_image_done(&b);
            dr_free(in);
            dr_free(out);
        }
        rig_close(&r);
    }
}

TEST(alpha_passes_untouched_and_colours_change) {
    rig r;
    CHECK(rig_open(&r, 2, 0, false));
    size_t len, out_len;
    void *in = png(24, 20, 4, 8, &len), *out;
    CHECK(!dr_derain(r.m, in, len, NULL, &out, &out_len, NULL, NULL));
    dr_image a = {0}, b = {0};
    CHECK(!dr_image_decode(in, len, NULL, &a, NULL) && !dr_image_decode(out, out_len, NULL, &b, NULL));
    int changed = 0;
    for (int y = 0; y < 20; y++)
        for (int x = 0; x < 24; x++) {
            CHECK(dr_image_row8(&a, y)[4 * x + 3] == dr_image_row8(&b, y)[4 * x + 3]);
            changed += dr_image_row8(&a, y)[4 * x] != dr_image_row8(&b, y)[4 * x];
        }
    CHECK(changed > 200);
    dr_image_done(&a);
    dr_image_done(&b);
    dr_free(in);
    dr_free(out);
    rig_close(&r);
}

/* The padded path by hand: mirror, run, cut, round. */
TEST(odd_sizes_are_mirrored_run_and_cut) {
    rig r;
    CHECK(rig_open(&r, 2, 3, false));
    static float x[3 * 19 * 22], want[3 * 20 * 24], got[3 * 19 * 22];
    for (size_t i = 0; i < sizeof x / sizeof *x; i++) x[i] = sinf((float)i * 0.11f);
    for (int c = 0; c < 3; c++)
        for (int i = 0; i < 20; i++)
            for (int k = 0; k < 24; k++)
                want[(c * 20 + i) * 24 + k] = x[(c * 19 + (i < 19 ? i : 36 - i)) * 22 + (k < 22 ? k : 42 - k)];
    dr_error err = {0};
    CHECK_MSG(!dr_model_forward(r.m, x, 22, 19, got, &err), "%s", err.text);
    CHECK(!dr_model_run_planes(r.m, want, 24, 20, UINT64_MAX, NULL, &err));
    for (int c = 0; c < 3; c++)
        for (int i = 0; i < 19; i++)
            for (int k = 0; k < 22; k++) CHECK(got[(c * 19 + i) * 22 + k] == want[(c * 20 + i) * 24 + k]);
    CHECK(dr_model_forward(r.m, x, 15, 19, got, &err) == DR_INVALID && !strcmp(err.what, "image_too_small"));
    rig_close(&r);
}

TEST(the_same_pixels_for_any_number_of_threads) {
    static float x[3 * 70 * 90], y[3][sizeof x / sizeof *x];
    for (size_t i = 0; i < sizeof x / sizeof *x; i++) x[i] = sinf((float)i * 0.7f) * cosf((float)(i % 53));
    for (int t = 0; t < 3; t++) {
        rig r;
        CHECK(rig_open(&r, t + 1, 1, false));
        CHECK(!dr_model_forward(r.m, x, 90, 70, y[t], NULL));
        rig_close(&r);
    }
    CHECK(!memcmp(y[0], y[1], sizeof x) && !memcmp(y[0], y[2], sizeof x) && memcmp(x, y[0], sizeof x));
}

TEST(depth_and_format_of_the_output) {
    rig r;
    CHECK(rig_open(&r, 2, 1, true));
    size_t len, out_len;
    void *out, *in = png(20, 20, 3, 8, &len);
    dr_run_opts o = {.depth = 16};
    dr_error err = {0};
    dr_picture_info info;
    CHECK_MSG(!dr_derain(r.m, in, len, &o, &out, &out_len, NULL, &err), "%s", err.text);
    CHECK(!dr_probe(out, out_len, 0, NULL, &info, NULL) && info.bit_depth == 16 && info.format == DR_FORMAT_PNG);
    dr_free(out);
    o = (dr_run_opts){.format = DR_FORMAT_JPEG};
    CHECK(!dr_derain(r.m, in, len, &o, &out, &out_len, NULL, &err));
    CHECK(!dr_probe(out, out_len, 0, NULL, &info, NULL) && info.format == DR_FORMAT_JPEG && info.width == 20);
    dr_free(out);
    o.depth = 12;
    CHECK(dr_derain(r.m, in, len, &o, &out, &out_len, NULL, &err) == DR_INVALID);
    dr_free(in);
    in = png(20, 20, 4, 8, &len);
    o.depth = 0;
    err = (dr_error){0};
    CHECK(dr_derain(r.m, in, len, &o, &out, &out_len, NULL, &err) == DR_UNSUPPORTED && !strcmp(err.what, "alpha_jpeg"));
    dr_free(in);
    rig_close(&r);
}

/* ---- what goes wrong ------------------------------------------------------------------------------------------ */

TEST(bad_pictures_are_refused_and_the_model_goes_on) {
    rig r;
    CHECK(rig_open(&r, 2, 1, false));
    size_t len, out_len;
    void *good = png(32, 32, 3, 8, &len), *out = NULL;
    dr_error err = {0};
    CHECK(dr_derain(r.m, "", 0, NULL, &out, &out_len, NULL, &err) == DR_INVALID && !strcmp(err.what, "empty_body"));
    err = (dr_error){0};
    CHECK(dr_derain(r.m, "hello, world", 12, NULL, &out, &out_len, NULL, &err) == DR_UNSUPPORTED &&
          !strcmp(err.what, "unsupported_format"));
    err = (dr_error){0};
    CHECK(dr_derain(r.m, good, len - 20, NULL, &out, &out_len, NULL, &err) == DR_CORRUPT);
    size_t small_len;
    void *small = png(15, 40, 3, 8, &small_len);
    err = (dr_error){0};
    CHECK(dr_derain(r.m, small, small_len, NULL, &out, &out_len, NULL, &err) == DR_INVALID &&
          !strcmp(err.what, "image_too_small"));
    CHECK(!out);
    CHECK(!dr_derain(r.m, good, len, NULL, &out, &out_len, NULL, NULL));
    dr_free(out);
    dr_free(small);
    dr_free(good);
    rig_close(&r);
}

TEST(memory_is_charged_before_it_is_taken) {
    rig r;
    CHECK(rig_open(&r, 2, 1, false));
    size_t len, out_len;
    void *in = png(64, 64, 3, 8, &len), *out;
    const uint64_t all = dr_model_run_bytes(r.m, 64, 64), need = dr_model_run_bytes_min(r.m, 64, 64);
    CHECK(need < all);
    dr_limits lim = {.mem_budget = need - 1};
    dr_run_opts o = {.limits = &lim};
    dr_error err = {0};
    CHECK(dr_derain(r.m, in, len, &o, &out, &out_len, NULL, &err) == DR_TOO_LARGE);
    CHECK_MSG(!strcmp(err.setting, "mem_budget") && err.limit == (int64_t)need - 1 && err.actual == (int64_t)need &&
                  !strcmp(err.what, "memory"),
              "%s", err.text);
    CHECK(r.e->block == NULL); /* nothing was taken for it */
    lim.mem_budget = need;
    CHECK(!dr_derain(r.m, in, len, &o, &out, &out_len, NULL, NULL)); /* in bands */
    const size_t little = r.e->block_bytes;
    dr_free(out);
    lim.mem_budget = all;
    CHECK(!dr_derain(r.m, in, len, &o, &out, &out_len, NULL, NULL));
    CHECK(r.e->block_bytes > little);
    dr_free(out);
    lim.mem_budget = need; /* a block that is kept for speed does not outweigh a budget */
    CHECK(!dr_derain(r.m, in, len, &o, &out, &out_len, NULL, NULL) && r.e->block_bytes == little);
    dr_free(out);
    dr_free(in);
    /* grows with the picture, whatever its shape, and survives sizes that no machine holds */
    CHECK(dr_model_run_bytes(r.m, 640, 640) > 50 * all && dr_model_run_bytes(r.m, 8, 64) == 0);
    CHECK(dr_model_run_bytes(r.m, 32768, 32768) > 100000000000u);
    CHECK(dr_model_run_bytes_min(r.m, 640, 640) < dr_model_run_bytes(r.m, 640, 640) / 2);
    CHECK(dr_model_run_bytes_min(r.m, 8, 64) == 0);
    const uint64_t huge = dr_model_run_bytes_min(r.m, 32768, 32768);
    CHECK_MSG(huge > 50000000000u && huge < dr_model_run_bytes(r.m, 32768, 32768) / 2, "%zu", (size_t)huge);
    rig_close(&r);
}

TEST(cancel_and_progress) {
    rig r;
    CHECK(rig_open(&r, 2, 1, false));
    size_t len, out_len;
    void *in = png(32, 32, 3, 8, &len), *out;
    atomic_bool cancel = true;
    _Atomic float progress = 0;
    dr_run_opts o = {.cancel = &cancel, .progress = &progress};
    dr_error err = {0};
    CHECK(dr_derain(r.m, in, len, &o, &out, &out_len, NULL, &err) == DR_CANCELLED && progress < 0.5f);
    cancel = false;
    CHECK(!dr_derain(r.m, in, len, &o, &out, &out_len, NULL, NULL) && progress == 1.0f);
    dr_free(out);
    dr_free(in);
    rig_close(&r);
}

TEST(every_failure_comes_back_without_a_leak) {
    size_t len, out_len;
    void *in = png(17, 20, 4, 8, &len), *out;
    rig r;
    CHECK(rig_open(&r, 1, 1, false));
    const char *path = model_file(1, false);
    for (long n = 1, most = 1; n <= most; n++) {
        dr_alloc_fail_after(n, false);
        dr_model *m = NULL;
        dr_error err = {0};
        dr_status s = dr_model_open(r.e, path, &m, &err);
        if (!s) s = dr_derain(m, in, len, NULL, &out, &out_len, NULL, &err);
        if (dr_alloc_count() > most) most = dr_alloc_count();
        dr_alloc_fail_after(0, false);
        dr_model_close(m);
        if (!s) dr_free(out);
        CHECK_MSG((!s || err.code == s) && most < 3000, "%d %s", s, err.text);
    }
    for (long n = 1;; n++) {
        dr_backend_fail_after(n);
        dr_model *m = NULL;
        dr_error err = {0};
        dr_status s = dr_model_open(r.e, path, &m, &err);
        if (!s) s = dr_derain(m, in, len, NULL, &out, &out_len, NULL, &err);
        dr_backend_fail_after(0);
        dr_model_close(m);
        if (!s) dr_free(out);
        CHECK_MSG(!s || (s == DR_BACKEND && err.code == s), "%d %s", s, err.text);
        CHECK(n < 3000);
        if (!s) break;
    }
    unlink(path);
    dr_free(in);
    rig_close(&r);
}

TEST(engine_and_model_say_what_they_are) {
    rig r;
    CHECK(rig_open(&r, 1, 3, true));
    CHECK(!strcmp(dr_engine_backend(r.e), "cpu") && dr_engine_describe(r.e)[0] && dr_engine_note(r.e)[0] == 0);
    const dr_model_info *i = dr_model_get_info(r.m);
    CHECK(i->ngf == 16 && i->blocks == 1 && i->residual == 3 && !strcmp(i->name, "zero") && i->params > 1000);
    rig_close(&r);
    dr_engine *e = NULL;
    dr_error err = {0};
    CHECK(dr_engine_open(&(dr_engine_opts){.backend = "abacus"}, &e, &err) != DR_OK && !e && err.text[0]);
    CHECK(!dr_engine_open(NULL, &e, NULL));
    dr_model *m = NULL;
    err = (dr_error){0};
    CHECK(dr_model_open(e, "/tmp/no/such.safetensors", &m, &err) == DR_NOT_FOUND && !m);
    const char *bad = tmp("bad");
    err = (dr_error){0};
    CHECK(!dr_fs_write_atomic(bad, "not a model at all", 18, NULL));
    CHECK(dr_model_open(e, bad, &m, &err) == DR_CORRUPT && !m && strstr(err.text, "bad"));
    unlink(bad);
    dr_engine_close(e);
}

/* ---- many sizes ----------------------------------------------------------------------------------------------- */

TEST(many_sizes_share_plans_and_memory) {
    rig r;
    CHECK(rig_open(&r, 2, 1, false));
    enum { N = DR_PLANS_MAX + 4, SIDE = 16 + 4 * 12 };
    static float x[3 * SIDE * SIDE], first[N][3 * SIDE * SIDE], y[3 * SIDE * SIDE];
    for (size_t i = 0; i < sizeof x / sizeof *x; i++) x[i] = sinf((float)i);
    for (int round = 0; round < 2; round++) /* more sizes than plans are remembered */
        for (int k = 0; k < N; k++) {
            int w = 16 + 4 * (k % 12), h = w - 4 * (k / 12) < 16 ? SIDE : w - 4 * (k / 12);
            CHECK(!dr_model_forward(r.m, x, w, h, round ? y : first[k], NULL));
            if (round) CHECK(!memcmp(y, first[k], 3 * sizeof *x * (size_t)(w * h)));
        }
    size_t big = r.e->block_bytes;
    for (int i = 0; i < 20; i++) CHECK(!dr_model_forward(r.m, x, 16, 16, y, NULL));
    CHECK_MSG(r.e->block_bytes < big / 4, "%zu of %zu", r.e->block_bytes, big);
    CHECK(!memcmp(y, first[0], 3 * 16 * 16 * sizeof *x));
    rig_close(&r);
}

/* ---- evaluation and benchmark --------------------------------------------------------------------------------- */

static void put(const char *dir, const char *name, int w, int h, int shift) {
    dr_image img = picture(w, h, 3, 8);
    for (int y = 0; y < h; y++)
        for (int i = 0; i < 3 * w; i++) {
            int v = dr_image_row8(&img, y)[i] / 2 + 40 + (i / 3 % 7 == 0 ? shift : 0);
            dr_image_row8(&img, y)[i] = (uint8_t)v;
        }
    void *data;
    size_t len;
    char *path = dr_fs_join(dir, name);
    if (dr_image_encode(&img, DR_FORMAT_PNG, 0, false, &data, &len, NULL) || dr_fs_write_atomic(path, data, len, NULL))
        abort();
    dr_free(path);
    dr_free(data);
    dr_image_done(&img);
}

static void rm(const char *dir) {
    char **names;
    size_t n;
    if (!dr_fs_list(dir, &names, &n, NULL)) {
        for (size_t i = 0; i < n; i++) {
            char *p = dr_fs_join(dir, names[i]);
            unlink(p);
            dr_free(p);
        }
        dr_fs_list_free(names, n);
    }
    rmdir(dir);
}

static void count_row(const dr_eval_row *row, size_t i, size_t n, void *arg) {
    (void)row;
    *(int *)arg += (int)(i + 10 * n);
}

TEST(evaluation_pairs_by_name_and_averages) {
    rig r;
    CHECK(rig_open(&r, 2, 1, true)); /* changes nothing: output and input score the same */
    char rainy[100], clean[100], linked[100];
    snprintf(rainy, sizeof rainy, "%s", tmp("rainy"));
    snprintf(clean, sizeof clean, "%s", tmp("clean"));
    snprintf(linked, sizeof linked, "%s", tmp("link"));
    CHECK(!mkdir(rainy, 0700) && !mkdir(clean, 0700) && !symlink(clean, linked));
    put(rainy, "a.png", 40, 24, 30);
    put(clean, "a.png", 40, 24, 0);
    put(rainy, "b.png", 24, 33, 10);
    put(clean, "b.png", 24, 33, 0);
    dr_eval e;
    dr_error err = {0};
    int calls = 0;
    CHECK_MSG(!dr_evaluate(r.m, rainy, linked, count_row, &calls, &e, &err), "%s", err.text);
    CHECK(e.n == 2 && calls == 41 && !strcmp(e.rows[1].name, "b.png") && e.rows[1].height == 33);
    CHECK(e.rows[0].input.psnr_y < e.rows[1].input.psnr_y && e.rows[0].input.psnr_y > 20 &&
          e.rows[1].input.psnr_y < 60);
    CHECK(e.rows[0].output.psnr_y == e.rows[0].input.psnr_y && e.rows[0].output.ssim_rgb == e.rows[0].input.ssim_rgb);
    CHECK(fabs(e.mean_input.psnr_y - (e.rows[0].input.psnr_y + e.rows[1].input.psnr_y) / 2) < 1e-9);
    dr_eval_done(&e);
    CHECK(!dr_evaluate(r.m, clean, clean, NULL, NULL, &e, &err) && e.mean_output.psnr_y == 100 &&
          e.mean_output.ssim_y > 0.999);
    dr_eval_done(&e);

    put(rainy, "c.png", 24, 24, 0);
    CHECK(dr_evaluate(r.m, rainy, clean, NULL, NULL, &e, &err) == DR_INVALID && strstr(err.text, "'c.png'"));
    put(clean, "c.png", 24, 25, 0);
    err = (dr_error){0};
    CHECK(dr_evaluate(r.m, rainy, clean, NULL, NULL, &e, &err) == DR_INVALID && strstr(err.text, "24 x 25"));
    char *c = dr_fs_join(clean, "c.png");
    CHECK(!dr_fs_write_atomic(c, "no picture", 10, NULL));
    err = (dr_error){0};
    CHECK(dr_evaluate(r.m, rainy, clean, NULL, NULL, &e, &err) == DR_UNSUPPORTED && strstr(err.text, "c.png"));
    char *a = dr_fs_join(rainy, "c.png");
    unlink(a);
    err = (dr_error){0};
    CHECK(dr_evaluate(r.m, rainy, clean, NULL, NULL, &e, &err) == DR_INVALID && strstr(err.text, "'c.png'"));
    dr_free(a);
    dr_free(c);
    rm(rainy);
    CHECK(!mkdir(rainy, 0700));
    CHECK(dr_evaluate(r.m, rainy, rainy, NULL, NULL, &e, NULL) == DR_INVALID); /* nothing there */
    CHECK(dr_evaluate(r.m, "/tmp/no/such/folder", clean, NULL, NULL, &e, NULL) == DR_NOT_FOUND);
    rm(rainy);
    rm(clean);
    unlink(linked);
    rig_close(&r);
}

/* The published figures of the real test pictures' inputs, where they are at hand. */
TEST(baseline_of_the_real_pictures) {
    static const char dir[] = "../shared/data/paired";
    char *csv, rainy[200], clean[200];
    size_t len;
    if (dr_fs_read("../shared/data/paired/input_baseline.csv", 1 << 20, &csv, &len, NULL))
        SKIP("no pictures in ../shared/data");
    rig r;
    CHECK(rig_open(&r, 0, 1, true));
    snprintf(rainy, sizeof rainy, "%s/DDN_samples/rainy", dir);
    snprintf(clean, sizeof clean, "%s/DDN_samples/clean", dir);
    dr_eval e;
    dr_error err = {0};
    CHECK_MSG(!dr_evaluate(r.m, rainy, clean, NULL, NULL, &e, &err), "%s", err.text);
    for (size_t i = 0; i < e.n; i++) {
        char key[80];
        double py, sy, pr, sr;
        snprintf(key, sizeof key, "\nDDN_samples,%s,", e.rows[i].name);
        const char *line = strstr(csv, key);
        CHECK_MSG(line && sscanf(line + strlen(key), "%lf,%lf,%lf,%lf", &py, &sy, &pr, &sr) == 4, "%s", key);
        const dr_score *s = &e.rows[i].input;
        CHECK_MSG(fabs(s->psnr_y - py) < 0.01 && fabs(s->ssim_y - sy) < 0.0005 && fabs(s->psnr_rgb - pr) < 0.01 &&
                      fabs(s->ssim_rgb - sr) < 0.0005,
                  "%s %g %g", key, s->psnr_y, s->ssim_y);
    }
    dr_eval_done(&e);
    dr_free(csv);
    rig_close(&r);
}

TEST(benchmark_measures) {
    rig r;
    CHECK(rig_open(&r, 2, 1, false));
    dr_bench b;
    CHECK(!dr_bench_run(r.m, 33, 20, 1, 4, &b, NULL));
    CHECK(b.runs == 4 && b.min_ms > 0 && b.median_ms >= b.min_ms && b.peak_rss_mb > 1);
    CHECK(fabs(b.mpix_per_s - 660 / 1e3 / b.median_ms) < 1e-9);
    CHECK(!dr_bench_run(r.m, 33, 20, 3, 2, &b, NULL));
    CHECK(b.batch == 3 && fabs(b.mpix_per_s - 3 * 660 / 1e3 / b.median_ms) < 1e-9);
    dr_error err = {0};
    CHECK(dr_bench_run(r.m, 33, 20, 0, 1, &b, NULL) == DR_INVALID &&
          dr_bench_run(r.m, 33, 20, 65, 1, &b, NULL) == DR_INVALID);
    CHECK(dr_bench_run(r.m, 33, 20, 1, 0, &b, &err) == DR_INVALID &&
          dr_bench_run(r.m, 8, 20, 1, 1, &b, NULL) == DR_INVALID);
    err = (dr_error){0};
    CHECK(dr_bench_run(r.m, 32768, 32768, 1, 1, &b, &err) == DR_TOO_LARGE && !strcmp(err.setting, "mem_budget"));
    rig_close(&r);
}

/* --- a pair made of two pictures --- */

TEST(moved_rain_is_what_the_network_takes_off) {
    char path[400];
    dr_engine *e;
    dr_model *m;
    dr_error err = {0};
    const dr_engine_opts eo = {.backend = "cpu", .threads = 1};
    const dr_model_spec spec = {.ngf = 16, .blocks = 1, .residual = 1, .seed = 3}; /* fresh: takes nothing off */
    snprintf(path, sizeof path, "/tmp/derain-moved-%d.safetensors", (int)getpid());
    CHECK(!dr_model_init_file(&spec, path, &err) && !dr_engine_open(&eo, &e, &err) &&
          !dr_model_open(e, path, &m, &err));
    static const struct {
        int w, h, channels, depth;
    } kinds[] = {{40, 30, 3, 8}, {33, 64, 1, 8}, {50, 20, 4, 16}, {26, 26, 2, 8}};
    for (int i = 0; i < 4; i++) {
        scene_file a = scene_encoded(5, kinds[i].w, kinds[i].h, kinds[i].channels, kinds[i].depth, DR_FORMAT_PNG, 0),
                   b = scene_encoded(6, 37, 41, 3, 8, DR_FORMAT_PNG, 0);
        void *p, *q;
        size_t n, k;
        dr_image x = {0}, y = {0};
        CHECK_MSG(!dr_model_transplant(m, a.p, a.n, b.p, b.n, NULL, &p, &n, &q, &k, &err), "%s", err.text);
        CHECK(!dr_image_decode(p, n, NULL, &x, NULL) && !dr_image_decode(q, k, NULL, &y, NULL));
        CHECK(x.width == (kinds[i].w < 37 ? kinds[i].w : 37) && x.height == (kinds[i].h < 41 ? kinds[i].h : 41));
        CHECK(x.channels == 3 && x.depth == 8 && y.width == x.width && y.height == x.height);
        CHECK(!memcmp(x.pixels, y.pixels, x.stride * (size_t)x.height));
        dr_image_done(&x);
        dr_image_done(&y);
        dr_free(p);
        dr_free(q);
        dr_free(a.p);
        dr_free(b.p);
    }
    scene_file a = scene_encoded(5, 200, 17, 3, 8, DR_FORMAT_PNG, 0),
               b = scene_encoded(6, 17, 200, 3, 8, DR_FORMAT_PNG, 0);
    void *p, *q;
    size_t n, k;
    dr_check_opts o = {.side_max = 16};
    CHECK(!dr_model_transplant(m, a.p, a.n, b.p, b.n, &o, &p, &n, &q, &k, &err));
    dr_free(p);
    dr_free(q);
    o.side_max = 15;
    CHECK(dr_model_transplant(m, a.p, a.n, b.p, b.n, &o, &p, &n, &q, &k, &err) == DR_INVALID &&
          !strcmp(err.what, "image_too_small"));
    err = (dr_error){0};
    CHECK(dr_model_transplant(m, a.p, 40, b.p, b.n, NULL, &p, &n, &q, &k, &err) == DR_CORRUPT);
    dr_free(a.p);
    dr_free(b.p);
    dr_model_close(m);
    dr_engine_close(e);
    unlink(path);
}
