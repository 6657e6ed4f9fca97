/* test_fallback.c - the emulated device breaks, or is too small, while a picture is derained: with `fallback` the CPU
 * gives the picture; without it the error is said. */
#include "core/base/alloc.h"
#include "core/derain.h"
#include "core/image/codec.h"
#include "tests/cuda/parity.h"
#include "tests/cuda/sim.h"

#include <unistd.h>

static dr_error err;
static void *picture;
static size_t picture_len;
static char path[64];

static bool prepare(void) {
    if (!find_sim()) return false;
    if (picture) return true;
    dr_image img = {0};
    dr_model_spec spec = {.ngf = 16, .blocks = 1, .residual = 0, .seed = 5};
    snprintf(path, sizeof path, "/tmp/test_fallback_%ld", (long)getpid());
    if (dr_model_init_file(&spec, path, &err) || dr_image_init(&img, 40, 24, 3, 8, &err)) return false;
    for (int y = 0; y < 24; y++)
        for (int x = 0; x < 120; x++) dr_image_row8(&img, y)[x] = (uint8_t)(x * 2 + y * 5);
    dr_status s = dr_image_encode(&img, DR_FORMAT_PNG, 0, false, &picture, &picture_len, &err);
    dr_image_done(&img);
    return !s;
}

typedef struct rig {
    dr_engine *e;
    dr_model *m;
    void *out;
    size_t len;
    dr_run_stats stats;
} rig;

static dr_status open_rig(rig *r, const char *backend, bool fallback) {
    *r = (rig){0};
    err = (dr_error){0};
    const dr_engine_opts o = {.backend = backend, .threads = 1, .fallback = fallback};
    dr_status s = dr_engine_open(&o, &r->e, &err);
    return s ? s : dr_model_open(r->e, path, &r->m, &err);
}
static dr_status run(rig *r) {
    dr_free(r->out);
    r->out = NULL;
    err = (dr_error){0};
    return dr_derain(r->m, picture, picture_len, NULL, &r->out, &r->len, &r->stats, &err);
}
static void close_rig(rig *r) {
    dr_free(r->out);
    dr_model_close(r->m);
    dr_engine_close(r->e);
}
static bool equal(const rig *a, const rig *b) {
    return a->len == b->len && !memcmp(a->out, b->out, a->len);
}

TEST(a_broken_device_is_given_up) {
    if (!prepare()) SKIP("no emulated module");
    rig cpu, gpu;
    CHECK_MSG(!open_rig(&cpu, "cpu", false) && !run(&cpu), "%s", err.text);
    for (long n = 1; n < 40 && !t_bad; n += 6) {
        CHECK_MSG(!open_rig(&gpu, "cuda", true), "%s", err.text);
        CHECK_MSG(!run(&gpu) && !gpu.stats.on_cpu && !*gpu.stats.lost, "%s", err.text);
        sim.fail_with(n, 719); /* launch failure: the context is gone */
        dr_status s = run(&gpu);
        sim.fail_with(0, 0);
        CHECK_MSG(!s && gpu.stats.on_cpu && strstr(gpu.stats.lost, "cuda"), "call %ld: %s", n, err.text);
        CHECK_MSG(equal(&cpu, &gpu), "call %ld: not the CPU's picture", n);
        CHECK(!run(&gpu) && gpu.stats.on_cpu && equal(&cpu, &gpu)); /* and it stays with the CPU */
        close_rig(&gpu);
    }
    close_rig(&cpu);
}

TEST(a_small_device_is_asked_again) {
    if (!prepare()) SKIP("no emulated module");
    rig cpu, gpu;
    CHECK_MSG(!open_rig(&cpu, "cpu", false) && !run(&cpu) && !open_rig(&gpu, "cuda", true), "%s", err.text);
    sim.set_memory(1 << 20);
    dr_status s = run(&gpu);
    sim.set_memory((size_t)4 << 30);
    CHECK_MSG(!s && gpu.stats.on_cpu && !*gpu.stats.lost && equal(&cpu, &gpu), "%s", err.text);
    CHECK_MSG(!run(&gpu) && !gpu.stats.on_cpu, "%s", err.text);
    close_rig(&cpu);
    close_rig(&gpu);
}

TEST(without_fallback_the_error_is_said) {
    if (!prepare()) SKIP("no emulated module");
    rig gpu;
    CHECK_MSG(!open_rig(&gpu, "cuda", false) && !run(&gpu), "%s", err.text);
    sim.fail_with(5, 719);
    dr_status s = run(&gpu);
    sim.fail_with(0, 0);
    CHECK_MSG(s == DR_BACKEND && strstr(err.text, "cuda"), "%d %s", (int)s, err.text);
    close_rig(&gpu);
}

TEST(other_weights_under_the_name_are_not_taken) {
    if (!prepare()) SKIP("no emulated module");
    rig gpu;
    CHECK_MSG(!open_rig(&gpu, "cuda", true) && !run(&gpu), "%s", err.text);
    dr_model_spec spec = {.ngf = 16, .blocks = 1, .residual = 0, .seed = 6};
    CHECK(!dr_model_init_file(&spec, path, &err));
    sim.fail_with(5, 719);
    dr_status s = run(&gpu);
    sim.fail_with(0, 0);
    CHECK_MSG(s == DR_CORRUPT && strstr(err.text, "other weights"), "%d %s", (int)s, err.text);
    close_rig(&gpu);
    unlink(path);
}
