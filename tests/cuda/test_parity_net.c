/* test_parity_net.c - the generator as it is served on the CUDA module, against the CPU backend.
 *
 * The emulated module (build/cusim) computes with the real kernels' sources, 16-bit storage included; only convolutions
 * are plain loops. Where DERAIN_GPU_TEST is set, the module of DERAIN_MODULE_DIR runs on its device. */
#include "core/derain.h"
#include "core/image/convert.h"
#include "core/model/engine.h"
#include "core/model/weights.h"
#include "core/nn/generator.h"
#include "tests/cuda/parity.h"

#include <unistd.h>

static dr_error err; /* of the last failure */

static dr_status model_file(const char *path, int blocks, int residual) {
    dr_backend *be;
    dr_generator g;
    dr_status s = dr_backend_open("cpu", &(dr_backend_opts){.threads = 1}, &be, NULL, &err);
    if (s) return s;
    s = dr_generator_init(&g, (dr_generator_config){16, blocks, residual}, be, false, &err);
    if (!s) s = dr_params_init_xavier(&g.params, 21, "x", 1.0, &err);
    dr_st_writer *w = dr_st_writer_create();
    dr_st_writer_metaf(w, "derain.residual", "%d", residual);
    dr_weights_save(w, "", &g.params, NULL, DR_ST_F32);
    if (!s) s = dr_st_writer_save(w, path, &err);
    dr_st_writer_destroy(w);
    dr_generator_done(&g);
    dr_backend_close(be);
    return s;
}

static dr_status forward(const char *backend, const char *precision, const char *path, const float *x, int w, int h,
                         float *y) {
    dr_engine *e = NULL;
    dr_model *m = NULL;
    dr_engine_opts o = {.backend = backend, .threads = 1, .precision = precision};
    dr_status s = dr_engine_open(&o, &e, &err);
    if (!s) s = dr_model_open(e, path, &m, &err);
    for (int i = 0; i < 2 && !s; i++) s = dr_model_forward(m, x, w, h, y, &err); /* the second from prepared weights */
    dr_model_close(m);
    dr_engine_close(e);
    return s;
}

/* Largest difference, and that of 8-bit pixels with their PSNR. */
static void compare(int w, int h, int residual, const char *precision, const char *shipped) {
    char path[64];
    size_t n = 3 * (size_t)w * (size_t)h;
    float *x = malloc(3 * n * sizeof *x), *a = x + n, *b = x + 2 * n;
    dr_rng r;
    dr_rng_seed(&r, 9, 9);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)fmin(1, fmax(-1, 0.7 * sin((double)i * 0.013) + dr_rng_range(&r, -0.3, 0.3)));
    snprintf(path, sizeof path, "/tmp/test_parity_%ld", (long)getpid());
    err = (dr_error){0};
    dr_status s = shipped ? DR_OK : model_file(path, 3, residual);
    if (!s) s = forward("cpu", "f32", shipped ? shipped : path, x, w, h, a);
    if (!s) s = forward("cuda", precision, shipped ? shipped : path, x, w, h, b);
    if (!shipped) unlink(path);
    double most = 0, square = 0;
    int levels = 0;
    for (size_t i = 0; i < n && !s; i++) {
        int u = (int)lround(fmin(1, fmax(-1, (double)a[i])) * 127.5),
            v = (int)lround(fmin(1, fmax(-1, (double)b[i])) * 127.5);
        most = fmax(most, fabs((double)a[i] - (double)b[i]));
        levels = abs(u - v) > levels ? abs(u - v) : levels;
        square += (double)((u - v) * (u - v)) / (double)n;
    }
    free(x);
    CHECK_MSG(!s, "%s", err.text);
    double psnr = square > 0 ? 10 * log10(255.0 * 255.0 / square) : 99;
    if (!strcmp(precision, "f32"))
        CHECK_MSG(most <= 1e-4, "%dx%d residual %d: largest difference %g", w, h, residual, most);
    else if (!strcmp(precision, "f16"))
        CHECK_MSG(shipped ? levels <= 1 && psnr >= 70 : psnr >= 52, "%dx%d residual %d: %d grey levels, %.1f dB", w, h,
                  residual, levels, psnr);
    else
        CHECK_MSG(shipped ? levels <= 2 && psnr >= 48 : psnr >= 40, "%dx%d residual %d: %d grey levels, %.1f dB", w, h,
                  residual, levels, psnr);
    printf("# %dx%d residual %d %s: %.2g, %d levels, %.1f dB\n", w, h, residual, precision, most, levels, psnr);
}

TEST(generator_equals_the_cpu_in_f32) {
    compare(16, 16, 0, "f32", NULL);
    if (!t_bad) compare(37, 22, 1, "f32", NULL);
    if (!t_bad) compare(40, 24, 3, "f32", NULL);
}

/* Random weights fill the whole range of the output with noise, so that every rounding shows. */
TEST(generator_is_near_the_cpu_in_f16) {
    compare(48, 40, 0, "f16", NULL);
    if (!t_bad) compare(64, 48, 3, "f16", NULL);
}
TEST(generator_is_near_the_cpu_in_bf16) {
    compare(48, 40, 0, "bf16", NULL);
    if (!t_bad) compare(64, 48, 3, "bf16", NULL);
}

TEST(shipped_weights_are_within_a_level_in_f16) {
    compare(64, 48, 1, "f16", "models/derain.safetensors");
    if (!t_bad) compare(45, 71, 1, "f16", "models/derain.safetensors");
}
TEST(shipped_weights_are_within_two_levels_in_bf16) {
    compare(64, 48, 1, "bf16", "models/derain.safetensors");
    if (!t_bad) compare(45, 71, 1, "bf16", "models/derain.safetensors");
}

/* A served picture (pixels in, pixels out) against the planes' way on the same module: the same pixels, every time. */
static void serve(dr_model *m, int w, int h, int channels, int depth, int out_depth) {
    dr_image img = {0}, want = {0}, got = {0};
    const int pw = dr_padded_side(w), ph = dr_padded_side(h);
    float *x = malloc(3 * (size_t)pw * (size_t)ph * sizeof *x);
    dr_rng r;
    dr_rng_seed(&r, 4, 4);
    dr_status s = dr_image_init(&img, w, h, channels, depth, &err);
    for (size_t i = 0; !s && i < img.stride * (size_t)h; i++)
        ((uint8_t *)img.pixels)[i] = (uint8_t)(i / 5 + dr_rng_below(&r, 90));
    if (!s) s = dr_image_copy(&img, &want, &err);
    dr_planar_from_image(&img, x, pw, ph);
    if (!s) s = dr_model_run_planes(m, x, pw, ph, UINT64_MAX, NULL, &err);
    if (!s && out_depth != depth) s = dr_image_set_depth(&want, out_depth, &err);
    if (!s) dr_planar_to_image(x, pw, ph, &want);
    bool same = true;
    for (int i = 0; i < 4 && !s; i++) {
        s = dr_image_copy(&img, &got, &err);
        if (!s) s = dr_model_run_image(m, &got, out_depth, UINT64_MAX, NULL, &err);
        same = same && !s && got.pixels && got.stride == want.stride &&
               !memcmp(got.pixels, want.pixels, want.stride * (size_t)h);
        dr_image_done(&got);
    }
    same = same && img.pixels && want.pixels &&
           (out_depth != depth || memcmp(img.pixels, want.pixels, want.stride * (size_t)h));
    dr_image_done(&img);
    dr_image_done(&want);
    free(x);
    CHECK_MSG(!s, "%s", err.text);
    CHECK_MSG(same, "%d x %d, %d channels of %d bits to %d", w, h, channels, depth, out_depth);
}

TEST(pictures_go_as_pixels) {
    char path[64];
    dr_engine *e = NULL;
    dr_model *m = NULL;
    err = (dr_error){0};
    snprintf(path, sizeof path, "/tmp/test_parity_%ld", (long)getpid());
    dr_status s = model_file(path, 2, 1);
    if (!s) s = dr_engine_open(&(dr_engine_opts){.backend = "cuda"}, &e, &err);
    if (!s) s = dr_model_open(e, path, &m, &err);
    unlink(path);
    CHECK_MSG(!s, "%s", err.text);
    serve(m, 37, 22, 3, 8, 8);
    if (!t_bad) serve(m, 24, 20, 4, 8, 16);
    if (!t_bad) serve(m, 17, 33, 2, 16, 8);
    if (!t_bad) serve(m, 16, 16, 1, 16, 16);
    dr_image small;
    CHECK(!dr_image_init(&small, 8, 40, 3, 8, &err));
    CHECK(dr_model_run_image(m, &small, 8, UINT64_MAX, NULL, &err) == DR_INVALID);
    dr_image_done(&small);
    dr_model_close(m);
    dr_engine_close(e);
}
