/* plans.c - cuDNN's half without a device: from the description of one (devices/sm_*.json), every convolution of the
 * networks gets a plan through the selection that runs on a device (cuda/conv_select.c), and in bf16 (training,
 * pictures) and f16 (pictures, up to 8 at a time) that plan is a deterministic, precompiled one on tensor cores (tier
 * 0). Also the file of tuned plans, line by line. `plans --verbose` prints a table: the engine for each cell. Support
 * is the library's own word; speed is not told. */
#include "tests/t.h"

#if !__has_include(<cudnn.h>)

TEST(plans_without_a_device) {
    SKIP("built without cudnn.h");
}

#else

#include "tests/cuda/layer_shapes.h"

#include "core/base/status.h"
#include "cuda/conv_select.h"

#include <unistd.h>

/* No leak check: cuBLASLt, which an engine asks for, loses memory where there is no device, and a library that cuDNN
 * unloads leaves its C++ runtime's pool behind. Bad accesses are still found. */
// NOLINTBEGIN(bugprone-reserved-identifier): the sanitizer's own name
const char *__asan_default_options(void);
__attribute__((visibility("default"))) const char *__asan_default_options(void) {
    return "detect_leaks=0";
}
// NOLINTEND(bugprone-reserved-identifier)

static const int archs[] = {80, 86, 89, 90, 100, 120};
enum { N_ARCHS = sizeof archs / sizeof *archs };
static const struct { int n, crop; } batches[] = {{1, 128}, {8, 128}, {8, 256}};
enum { N_BATCHES = sizeof batches / sizeof *batches };
static const dr_host_api host = {.fail = dr_fail};

static bool verbose(void) {
    static int v = -1;
    if (v < 0) {
        char line[4096] = "";
        FILE *f = fopen("/proc/self/cmdline", "rb");
        size_t n = f ? fread(line, 1, sizeof line - 1, f) : 0;
        if (f) fclose(f);
        v = 0;
        for (size_t i = 0; i < n; i += strlen(line + i) + 1) v |= !strcmp(line + i, "--verbose");
    }
    return v;
}

/* NULL: no description of devices in this cuDNN (before 9.8), or an engine library is missing. */
static cudnnBackendDescriptor_t open_device(int arch, dr_error *err) {
    char path[64], json[4096];
    snprintf(path, sizeof path, "tests/cuda/devices/sm_%d.json", arch);
    FILE *f = fopen(path, "rb");
    if (!f) {
        dr_fail(err, DR_NOT_FOUND, "%s", path);
        return NULL;
    }
    size_t n = fread(json, 1, sizeof json, f);
    fclose(f);
    cudnnBackendDescriptor_t d = NULL;
    return cg_device_from_json(&host, json, n, &d, err) ? NULL : d;
}

typedef struct sum {
    int n, n_bad;
    char first[400];
} sum;

/* An id as the file of tuned plans gives it back. */
static bool through_text(int arch, cv_kind kind, cv_shape s, const cv_plan_id *id, cv_plan_id *ret) {
    char text[CV_CACHE_MAX_LINE];
    cv_cache_line l = {.cudnn = (int)cudnnGetVersion(),
                       .device = "device",
                       .cc = arch,
                       .sms = 1,
                       .kind = (int)kind,
                       .type = (int)s.type,
                       .n = s.n,
                       .i = s.i,
                       .h = s.h,
                       .w = s.w,
                       .o = s.o,
                       .k = s.k,
                       .kw = cv_kw(s),
                       .pad = s.pad,
                       .plan = *id};
    const size_t n = cv_cache_format_line(&l, text, sizeof text);
    if (!n || !cv_cache_parse_line(text, n - 1, &l)) return false;
    *ret = l.plan;
    return true;
}

static void want(const cg_target *t, int arch, cv_kind kind, const layer *l, sum *r) {
    cv_select *c = NULL;
    cg_plan p = {0};
    dr_error err = {0};
    dr_status s = cv_select_open(t, kind, l->s, &c, &err);
    if (!s) s = cv_select_next(c, &p, &err);
    int tier = s ? -1 : cv_tier(p.traits, l->s.type);
    bool ok = !s && p.workspace <= CV_MAX_WORKSPACE && !p.traits.nondeterministic && tier == 0;
    if (l->s.type != DK_F32) ok = ok && p.traits.tensor_core && !p.traits.compiles;
    /* its line is enough to build the same plan again: that is what the file of tuned plans rests on */
    if (ok) {
        cg_plan again = {0};
        cv_plan_id id;
        ok = through_text(arch, kind, l->s, &p.id, &id) && !cv_select_named(c, &id, &again, &err) &&
             cv_same_id(&p.id, &again.id) && again.workspace == p.workspace;
        cg_plan_done(&again);
    }
    char what[128];
    cv_shape_text(kind, l->s, what, sizeof what);
    if (verbose()) {
        char engine[16] = "none";
        if (!s) snprintf(engine, sizeof engine, "e%d", p.id.engine);
        printf("# sm_%-3d %-10s %-48s %-4s tier %d, workspace %.1f MB\n", arch, l->name, what, engine, tier,
               (double)p.workspace / 1e6);
    }
    r->n++;
    if (!ok && !r->n_bad++)
        snprintf(r->first, sizeof r->first, "sm_%d %s %.127s: tier %d %.200s", arch, l->name, what, tier, err.text);
    cg_plan_done(&p);
    cv_select_close(c);
}

/* All layers of a list, for one or all three directions. */
static void want_all(const cg_target *t, int arch, const layer *l, int n, bool training, sum *r) {
    for (int i = 0; i < n; i++)
        for (int k = CV_FORWARD; k <= (training ? CV_BACKWARD_WEIGHTS : CV_FORWARD); k++)
            want(t, arch, (cv_kind)k, &l[i], r);
}

typedef void shapes_fn(const cg_target *t, int arch, sum *r);

static void on_every_arch(shapes_fn *fn, const char *name) {
    sum r = {0};
    for (int i = 0; i < N_ARCHS; i++) {
        dr_error err = {0};
        cg_target t = {.host = &host, .device = open_device(archs[i], &err)};
        if (!t.device && cudnnGetVersion() < 90800) SKIP("cuDNN before 9.8 makes no plans without a device");
        CHECK_MSG(t.device, "sm_%d: %s", archs[i], err.text);
        fn(&t, archs[i], &r);
        cg_device_close(t.device);
    }
    if (verbose()) printf("# %s: %d plans, %d missing\n", name, r.n, r.n_bad);
    CHECK(r.n > 0);
    CHECK_MSG(!r.n_bad, "%d of %d without a plan, the first: %s", r.n_bad, r.n, r.first);
}

static void generators(const cg_target *t, int arch, sum *r) {
    static const int widths[] = {16, 32, 48, 64};
    layer l[MAX_LAYERS];
    for (int f = 0; f < 4; f++)
        for (int i = 0; i < N_BATCHES; i++) {
            const int n = batches[i].n, crop = batches[i].crop;
            want_all(t, arch, l, generator_layers(widths[f], n, crop, crop, DK_BF16, l), true, r);
        }
}
TEST(generator_training) {
    on_every_arch(generators, "generator, training");
}

static void pictures_in(const cg_target *t, int arch, dk_type type, sum *r) {
    static const int widths[] = {16, 32, 48, 64}, sizes[][2] = {{256, 256}, {336, 520}, {1080, 1920}};
    layer l[MAX_LAYERS];
    for (int f = 0; f < 4; f++)
        for (int i = 0; i < 3; i++)
            want_all(t, arch, l, generator_layers(widths[f], 1, sizes[i][0], sizes[i][1], type, l), false, r);
    want_all(t, arch, l, generator_layers(64, 1, 2160, 3840, type, l), false, r);
}
static void pictures_bf16(const cg_target *t, int arch, sum *r) {
    pictures_in(t, arch, DK_BF16, r);
}
static void pictures_f16(const cg_target *t, int arch, sum *r) {
    pictures_in(t, arch, DK_F16, r);
}
TEST(generator_pictures_in_bf16) {
    on_every_arch(pictures_bf16, "generator, pictures in bf16");
}
TEST(generator_pictures_in_f16) {
    on_every_arch(pictures_f16, "generator, pictures in f16");
}

static void several(const cg_target *t, int arch, sum *r) {
    static const int widths[] = {32, 64}, sizes[][2] = {{16, 16}, {256, 256}, {480, 640}};
    layer l[MAX_LAYERS];
    for (int f = 0; f < 2; f++)
        for (int i = 0; i < 3; i++)
            for (int n = 2; n <= 8; n++)
                want_all(t, arch, l, generator_layers(widths[f], n, sizes[i][0], sizes[i][1], DK_F16, l), false, r);
}
TEST(several_pictures_at_a_time_in_f16) {
    on_every_arch(several, "generator, 2 to 8 pictures in f16");
}

static void discriminators(const cg_target *t, int arch, sum *r) {
    layer l[MAX_LAYERS];
    for (int f = 32; f <= 64; f *= 2)
        for (int depth = 2; depth <= 3; depth++)
            for (int i = 0; i < N_BATCHES; i++)
                want_all(t, arch, l, discriminator_layers(f, depth, batches[i].n, batches[i].crop, DK_BF16, l), true,
                         r);
}
TEST(discriminator_training) {
    on_every_arch(discriminators, "discriminator, training");
}

/* f32 is for checks: one width of each network, true f32 arithmetic. */
static void exact(const cg_target *t, int arch, sum *r) {
    layer l[MAX_LAYERS];
    want_all(t, arch, l, generator_layers(32, 2, 128, 128, DK_F32, l), true, r);
    want_all(t, arch, l, discriminator_layers(32, 3, 2, 128, DK_F32, l), true, r);
}
TEST(exact_f32) {
    on_every_arch(exact, "f32");
}

/* What is refused is refused with words, and nothing is left half made. */
TEST(refusals) {
    dr_error err = {0};
    cudnnBackendDescriptor_t d = NULL;
    CHECK(cg_device_from_json(&host, "{\"warpSize\": \"many\"", 18, &d, &err) && !d && err.text[0]);
    cg_target t = {.host = &host, .device = open_device(90, &err)};
    if (!t.device) SKIP("cuDNN makes no plans without a device");
    cv_select *c = NULL;
    err = (dr_error){0};
    cv_shape s = {1, 64, 2, 2, 64, 7, 0, DK_BF16, 0}; /* larger window than picture */
    CHECK(cv_select_open(&t, CV_FORWARD, s, &c, &err) && !c && err.text[0]);
    s = (cv_shape){1, 64, 64, 64, 64, 3, 1, DK_BF16, 0};
    err = (dr_error){0};
    CHECK(!cv_select_open(&t, CV_FORWARD, s, &c, &err));
    cg_plan p = {0};
    const cv_plan_id unknown = {.engine = 99999}, knobs = {.engine = 62, .n_knobs = 1, .knob = {{999, 7}}};
    CHECK(cv_select_named(c, &unknown, &p, &err) && !p.plan && err.text[0]);
    err = (dr_error){0};
    CHECK(cv_select_named(c, &knobs, &p, &err) && !p.plan && err.text[0]);
    /* the walk ends, with BACKEND and the shape's name, and has no plan twice from one list */
    int n = 0;
    err = (dr_error){0};
    while (n < 300 && !cv_select_next(c, &p, &err)) {
        cg_plan_done(&p);
        n++;
    }
    CHECK_MSG(n > 3 && n < 300, "%d plans", n);
    CHECK_MSG(err.code == DR_BACKEND && strstr(err.text, "64x64"), "%s", err.text);
    cv_select_close(c);
    cg_device_close(t.device);
}

/* A tensor of more than 2^31 elements gets a plan or a clear error, not a wrong size. */
TEST(more_than_2_31_elements) {
    dr_error err = {0};
    cg_target t = {.host = &host, .device = open_device(90, &err)};
    if (!t.device) SKIP("cuDNN makes no plans without a device");
    cv_shape s = {1, 64, 6000, 6000, 64, 3, 1, DK_BF16, 0}; /* 2.3e9 */
    cv_select *c = NULL;
    cg_plan p = {0};
    dr_status st = cv_select_open(&t, CV_FORWARD, s, &c, &err);
    if (!st) st = cv_select_next(c, &p, &err);
    if (verbose()) printf("# 2.3e9 elements: %s\n", st ? err.text : "a plan");
    CHECK_MSG(!st || err.text[0], "status %d", (int)st);
    CHECK(st || (cv_tier(p.traits, DK_BF16) >= 0 && p.workspace <= CV_MAX_WORKSPACE));
    cg_plan_done(&p);
    cv_select_close(c);
    cg_device_close(t.device);
}

#endif
