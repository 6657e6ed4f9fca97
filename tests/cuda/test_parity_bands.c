/* test_parity_bands.c - the CUDA module with less memory than a picture wants: bands give what the whole plan gives,
 * and a device that is too small for that is still the one that does the work. */
#include "core/image/codec.h"
#include "core/model/engine.h"
#include "core/model/weights.h"
#include "tests/core/bands.h"
#include "tests/cuda/emulated.h"

#include <dlfcn.h>
#include <unistd.h>

static dr_error err;

/* ---- the same picture ------------------------------------------------------------------------------------------- */

static dr_status open_net(net *t, dr_precision precision, int residual) {
    err = (dr_error){0};
    return net_open(t, "cuda", &(dr_backend_opts){.precision = precision}, (dr_generator_config){16, 2, residual},
                    &err);
}

static void compare(net *t, int w, int h, int bound, int rows, const char *precision) {
    net_result r;
    CHECK_MSG(!net_compare(t, (dr_shape){1, 3, h, w}, bound, rows, &r, &err), "%s", err.text);
    printf("# %dx%d bound %d rows %d %s: %.2g, %d levels, %.1f dB\n", w, h, bound, rows, precision, r.most, r.levels,
           r.psnr);
    CHECK(!r.behind);
    if (!strcmp(precision, "f32"))
        CHECK_MSG(r.most <= 1e-4, "%dx%d bound %d rows %d: %g", w, h, bound, rows, r.most);
    else
        CHECK_MSG(r.psnr >= (precision[0] == 'b' ? 42 : 55), "%dx%d bound %d rows %d: %.1f dB", w, h, bound, rows,
                  r.psnr);
}

TEST(bands_give_what_the_whole_gives_in_f32) {
    net t;
    for (int residual = 0; residual < 2 && !t_bad; residual++) {
        CHECK_MSG(!open_net(&t, DR_PREC_F32, residual), "%s", err.text);
        compare(&t, 16, 16, 2, 16, "f32");
        if (!t_bad) compare(&t, 20, 44, 1, 8, "f32");
        if (!t_bad) compare(&t, 20, 44, 2, 12, "f32");
        if (!t_bad) compare(&t, 36, 28, 3, 16, "f32");
        net_close(&t);
    }
}

/* Random weights fill the whole range of the output with noise, so that every rounding that falls the other way since
 * a mean has another last digit shows. */
TEST(bands_are_near_the_whole_in_bf16) {
    net t;
    CHECK_MSG(!open_net(&t, DR_PREC_BF16, 1), "%s", err.text);
    compare(&t, 20, 44, 1, 8, "bf16");
    if (!t_bad) compare(&t, 36, 28, 2, 16, "bf16");
    if (!t_bad) compare(&t, 16, 52, 3, 16, "bf16");
    net_close(&t);
}

TEST(bands_are_near_the_whole_in_f16) {
    net t;
    CHECK_MSG(!open_net(&t, DR_PREC_F16, 1), "%s", err.text);
    compare(&t, 20, 44, 1, 8, "f16");
    if (!t_bad) compare(&t, 36, 28, 2, 16, "f16");
    net_close(&t);
}

/* ---- a small device --------------------------------------------------------------------------------------------- */

static struct {
    void (*set_memory)(size_t bytes);
    size_t (*live_bytes)(void);
    void (*fail_with)(long n, int error);
    long (*calls)(void);
    size_t (*live)(void);
} sim;

static bool find_sim(void) {
    char path[600];
    if (getenv("DERAIN_GPU_TEST")) return false;
    snprintf(path, sizeof path, "%s/derain-cuda.so", getenv("DERAIN_MODULE_DIR"));
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    const char *names[] = {"cusim_set_memory", "cusim_live_bytes", "cusim_fail_with", "cusim_calls", "cusim_live"};
    void *to[] = {&sim.set_memory, &sim.live_bytes, &sim.fail_with, &sim.calls, &sim.live};
    for (int i = 0; lib && i < 5; i++) {
        void *p = dlsym(lib, names[i]);
        if (!p) return false;
        memcpy(to[i], &p, sizeof p);
    }
    return lib != NULL;
}

enum { W = 45, H = 90 };

typedef struct rig {
    dr_engine *e;
    dr_model *m;
    void *in, *out;
    size_t in_len, out_len;
    dr_run_stats stats;
    char path[64]; /* the CPU opens it too */
} rig;

static dr_status open_rig(rig *r, bool fallback) {
    dr_image img = {0};
    const dr_model_spec spec = {.ngf = 16, .blocks = 2, .residual = 0, .seed = 5};
    *r = (rig){0};
    err = (dr_error){0};
    snprintf(r->path, sizeof r->path, "/tmp/test_parity_bands_%ld", (long)getpid());
    dr_status s = dr_image_init(&img, W, H, 3, 8, &err);
    for (int y = 0; y < H && !s; y++)
        for (int x = 0; x < 3 * W; x++) dr_image_row8(&img, y)[x] = (uint8_t)(x * 2 + y * 5 + x * y % 31);
    if (!s) s = dr_image_encode(&img, DR_FORMAT_PNG, 0, false, &r->in, &r->in_len, &err);
    dr_image_done(&img);
    const dr_engine_opts o = {.backend = "cuda", .fallback = fallback, .precision = "f32"};
    if (!s) s = dr_model_init_file(&spec, r->path, &err);
    if (!s) s = dr_engine_open(&o, &r->e, &err);
    if (!s) s = dr_model_open(r->e, r->path, &r->m, &err);
    return s;
}
static dr_status run(rig *r) {
    dr_free(r->out);
    r->out = NULL;
    err = (dr_error){0};
    return dr_derain(r->m, r->in, r->in_len, NULL, &r->out, &r->out_len, &r->stats, &err);
}
static void close_rig(rig *r) {
    unlink(r->path);
    dr_free(r->in);
    dr_free(r->out);
    dr_model_close(r->m);
    dr_engine_close(r->e);
}

/* Grey levels by which the two encoded pictures differ at most; -1: no pictures. */
static int apart(const void *a, size_t a_len, const void *b, size_t b_len) {
    dr_image x = {0}, y = {0};
    int most = -1;
    if (!dr_image_decode(a, a_len, NULL, &x, NULL) && !dr_image_decode(b, b_len, NULL, &y, NULL) &&
        x.stride == y.stride && x.height == y.height) {
        most = 0;
        for (size_t i = 0; i < x.stride * (size_t)x.height; i++) {
            const int d = abs(((uint8_t *)x.pixels)[i] - ((uint8_t *)y.pixels)[i]);
            most = d > most ? d : most;
        }
    }
    dr_image_done(&x);
    dr_image_done(&y);
    return most;
}

/* The memory of the device goes down from where all is well to where nothing is: first the whole picture, then bands of
 * it, with the device's own pixels; then the CPU, or the error where that is not wanted. */
static void shrink(bool fallback) {
    rig r;
    size_t before = sim.live(), held, want_len;
    CHECK_MSG(!open_rig(&r, fallback) && !run(&r) && !r.stats.on_cpu, "%s", err.text);
    held = sim.live_bytes(); /* weights, their prepared forms, scratch and the whole block */
    const size_t whole = r.e->block_bytes;
    want_len = r.out_len;
    void *want = memcpy(dr_malloc(want_len), r.out, want_len);
    int in_bands = 0, given_up = 0;
    for (int part = 0; part <= 8 && !t_bad; part++) {
        dr_be_free(r.e->be, r.e->block);
        r.e->block = NULL;
        r.e->block_bytes = 0;
        sim.set_memory(held - whole + whole / 8 * (size_t)(8 - part));
        dr_status s = run(&r);
        const bool on_device = !s && !r.stats.on_cpu;
        in_bands += on_device && r.e->block_bytes < whole;
        given_up += !on_device;
        if (!s && apart(want, want_len, r.out, r.out_len) > 1) t_bad = 1;
        if (s != (fallback || on_device ? DR_OK : DR_NOMEM) || *r.stats.lost) t_bad = 1;
        if (t_bad) printf("# part %d: %d %s\n", part, (int)s, err.text);
        if (part == 8 && on_device) t_bad = 1;
        sim.set_memory((size_t)4 << 30);
    }
    printf("# %d runs in bands, %d not on the device; the whole block is %zu bytes\n", in_bands, given_up, whole);
    dr_status s = t_bad ? DR_OK : run(&r); /* and with room again as a whole */
    const bool again =
        !s && !r.stats.on_cpu && r.e->block_bytes == whole && r.out_len == want_len && !memcmp(r.out, want, want_len);
    dr_free(want);
    close_rig(&r);
    CHECK(in_bands >= 3 && given_up >= 1 && again);
    CHECK(sim.live() == before);
}

TEST(a_small_device_goes_on_in_bands) {
    if (!find_sim()) SKIP("no emulated module");
    shrink(true);
}
TEST(without_a_fallback_the_end_is_an_error) {
    if (!find_sim()) SKIP("no emulated module");
    shrink(false);
}

/* No memory at any call of the runtime, in a run that is in bands already: it is tried again, and nothing stays. */
TEST(every_call_may_find_no_memory) {
    if (!find_sim()) SKIP("no emulated module");
    rig r;
    const size_t before = sim.live();
    int worked = 0, failed = 0;
    CHECK_MSG(!open_rig(&r, false) && !run(&r), "%s", err.text);
    void *want = r.out;
    const size_t want_len = r.out_len;
    const uint64_t least = dr_model_run_bytes_min(r.m, W, H), all = dr_model_run_bytes(r.m, W, H);
    const dr_limits lim = {.mem_budget = least + (all - least) / 3};
    const dr_run_opts o = {.limits = &lim};
    r.out = NULL;
    long n = sim.calls();
    CHECK_MSG(!dr_derain(r.m, r.in, r.in_len, &o, &r.out, &r.out_len, &r.stats, &err), "%s", err.text);
    n = sim.calls() - n;
    for (long i = 1; i <= n && !t_bad; i += i < 12 ? 1 : n / 12) {
        dr_free(r.out);
        r.out = NULL;
        err = (dr_error){0};
        sim.fail_with(i, 2);
        dr_status s = dr_derain(r.m, r.in, r.in_len, &o, &r.out, &r.out_len, &r.stats, &err);
        sim.fail_with(0, 0);
        if (s) failed++;
        if (!s) worked++;
        if (!s && apart(want, want_len, r.out, r.out_len) > 1) t_bad = 1;
        if (t_bad) printf("# call %ld of %ld: not the picture\n", i, n);
    }
    printf("# %ld calls; %d faults were got over, %d were said\n", n, worked, failed);
    dr_free(want);
    close_rig(&r);
    CHECK(worked >= 1 && sim.live() == before);
}
