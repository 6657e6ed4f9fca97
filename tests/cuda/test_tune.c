/* test_tune.c - tuned convolution plans in the emulated module: found, kept in a file, used by the next start; and what
 * a file can do that holds something else. tests/cusim/cudnn_naive.c says what the engines are like: untuned is engine
 * 11, the fast one is 12, whose sums differ in rounding. */
#include "tests/cuda/parity.h"

#include <dlfcn.h>
#include <unistd.h>

static dr_error err;
static char path[64], text[1 << 16];

static struct {
    void (*fail_with)(long n, int error);
    long (*calls)(void);
    size_t (*live)(void);
} sim;

static bool prepare(void) {
    char lib_path[600];
    snprintf(lib_path, sizeof lib_path, "%s/derain-cuda.so", getenv("DERAIN_MODULE_DIR"));
    void *lib = dlopen(lib_path, RTLD_NOW | RTLD_LOCAL), *p[3];
    if (!lib || !(p[0] = dlsym(lib, "cusim_fail_with")) || !(p[1] = dlsym(lib, "cusim_calls")) ||
        !(p[2] = dlsym(lib, "cusim_live")))
        return false;
    memcpy(&sim.fail_with, &p[0], sizeof p[0]);
    memcpy(&sim.calls, &p[1], sizeof p[1]);
    memcpy(&sim.live, &p[2], sizeof p[2]);
    snprintf(path, sizeof path, "/tmp/test_tune_%ld", (long)getpid());
    unlink(path);
    err = (dr_error){0};
    return true;
}

/* The file's text; "" where there is none. */
static const char *file(void) {
    FILE *f = fopen(path, "rb");
    text[f ? fread(text, 1, sizeof text - 1, f) : 0] = 0;
    if (f) fclose(f);
    return text;
}
static void write_file(const char *s) {
    FILE *f = fopen(path, "wb");
    if (!f) return;
    fputs(s, f);
    fclose(f);
}
static int lines(const char *s) {
    int n = 0;
    for (; *s; s++) n += *s == '\n';
    return n;
}

typedef struct work {
    dr_shape x;
    int o, k, pad;
    bool bias, backward;
} work;
static const work small = {{1, 16, 9, 10}, 24, 3, 1, true, true}, in = {{2, 3, 26, 31}, 32, 7, 0, true, false},
                  out = {{1, 16, 22, 20}, 3, 7, 0, true, false};

/* One convolution with everything that w asks for; the numbers are the same each time. */
static dr_status convolve(party *s, work w, dr_slot *slot) {
    const dr_conv2d_desc d = {.k = w.k, .pad = w.pad, .frozen = slot};
    const dr_shape y = {w.x.n, w.o, w.x.h + 2 * w.pad - w.k + 1, w.x.w + 2 * w.pad - w.k + 1};
    const size_t n_w = (size_t)(w.o * w.x.c * w.k * w.k);
    s->n = 0, s->n_kept = 0, s->n_inputs = 0;
    float *wt = flat(s, n_w, -0.2, 0.2), *b = w.bias ? flat(s, (size_t)w.o, -1, 1) : NULL;
    dr_tensor x = input(s, w.x), ty = blank(s, y);
    if (!s->status) note(s, dr_be_conv2d(s->be, d, x, wt, b, ty, slot, &s->err));
    keep(s, ty);
    if (w.backward && !s->status) {
        dr_tensor dy = input(s, y), dx = blank(s, w.x);
        float *dw = flat(s, n_w, 0, 0);
        if (!s->status) note(s, dr_be_conv2d_dx(s->be, d, dy, wt, dx, NULL, &s->err));
        keep(s, dx);
        if (!s->status) note(s, dr_be_conv2d_dw(s->be, d, x, dy, dw, NULL, NULL, &s->err));
        keep_flat(s, dw, n_w);
    }
    dr_pool_reset(&s->pool);
    return s->status;
}

static void start(party *s, const char *backend, dr_precision p, const char *cache) {
    *s = (party){.round = p};
    const dr_backend_opts o = {.threads = 1, .precision = p, .plan_cache = cache};
    s->status = dr_backend_open(backend, &o, &s->be, NULL, &s->err);
    if (!s->status) dr_pool_init(&s->pool, s->be, 1 << 20);
}

/* Plans made and tuned by now. */
static bool plans_are(party *s, uint32_t plans, uint32_t tuned) {
    dr_device_info i;
    const bool ok = dr_be_info(s->be, &i) && i.plans == plans && i.plans_tuned == tuned;
    if (!ok) printf("# %u plans, %u tuned; %u and %u were expected\n", i.plans, i.plans_tuned, plans, tuned);
    return ok;
}

static bool equal(const party *a, const party *b) {
    return a->n == b->n && a->n && !memcmp(a->out, b->out, a->n * sizeof *a->out);
}

static const char *type_text(int p) {
    return p == DR_PREC_F32 ? "\tf32\t" : p == DR_PREC_F16 ? "\tf16\t" : "\tbf16\t";
}

/* Of results that differ in rounding, relative. */
static double near(int p) {
    return p == DR_PREC_F32 ? 1e-6 : p == DR_PREC_F16 ? 5e-4 : 4e-3;
}

static double apart(const party *a, const party *b) {
    return a->n == b->n && a->n ? distance(a->out, b->out, a->n) : INFINITY;
}

TEST(found_kept_and_used_by_the_next_start) {
    for (int p = DR_PREC_F32; p <= DR_PREC_F16; p++) {
        if (!prepare()) SKIP("no emulated module");
        party plain, tuned, next;
        int n = -1;
        start(&plain, "cuda", (dr_precision)p, path);
        CHECK_MSG(!convolve(&plain, small, NULL), "%s", plain.err.text);
        CHECK(plans_are(&plain, 3, 0));
        CHECK(access(path, F_OK)); /* work alone writes nothing */

        start(&tuned, "cuda", (dr_precision)p, path);
        CHECK(!convolve(&tuned, small, NULL) && equal(&plain, &tuned));
        CHECK(dr_be_tunes(tuned.be) && !dr_be_tune(tuned.be, true, &n, &err) && n == 0);
        CHECK_MSG(!convolve(&tuned, small, NULL), "%s", tuned.err.text);
        CHECK(plans_are(&tuned, 3, 3) && access(path, F_OK));
        const double d = apart(&plain, &tuned);
        CHECK_MSG(d > 0 || p != DR_PREC_F32, "the same bits");
        CHECK_MSG(d < near(p), "%g apart", d);
        CHECK(!dr_be_tune(tuned.be, true, &n, &err) && n == 3); /* on again is no new start */
        CHECK_MSG(!dr_be_tune(tuned.be, false, &n, &err) && n == 3, "%s", err.text);
        CHECK(lines(file()) == 3 && strstr(text, type_text(p)));
        CHECK(strstr(text, "\tcusim\t90\t132\tforward\t") && strstr(text, "\t12\t2:1\n"));

        start(&next, "cuda", (dr_precision)p, path);
        CHECK_MSG(!convolve(&next, small, NULL) && equal(&tuned, &next), "%s", next.err.text);
        CHECK(plans_are(&next, 3, 3));
        /* what is known is not timed again */
        const long calls = sim.calls();
        CHECK(!dr_be_tune(next.be, true, &n, &err) && !convolve(&next, small, NULL));
        CHECK(!dr_be_tune(next.be, false, &n, &err) && n == 0);
        CHECK_MSG(sim.calls() - calls < 40, "%ld calls", sim.calls() - calls);
        side_close(&plain), side_close(&tuned), side_close(&next);
        unlink(path);
    }
}

/* The output layer is a convolution of 1 x 7. */
TEST(windows_that_are_not_square) {
    if (!prepare()) SKIP("no emulated module");
    party s, next;
    start(&s, "cuda", DR_PREC_BF16, path);
    CHECK(!dr_be_tune(s.be, true, NULL, &err) && !convolve(&s, out, NULL) && !dr_be_tune(s.be, false, NULL, &err));
    CHECK(lines(file()) == 1 && strstr(text, "\t24\t1\t7\t0\t12\t2:1\n"));
    start(&next, "cuda", DR_PREC_BF16, path);
    CHECK(!convolve(&next, out, NULL) && equal(&s, &next) && plans_are(&next, 1, 1));
    side_close(&s), side_close(&next);
    unlink(path);
}

/* Lines for the forward convolution of `small`, f32, with some engine and knobs. */
static void line(char *ret, size_t cap, const char *device, int cudnn, const char *engine) {
    snprintf(ret, cap, "v2\t%d\t%s\t90\t132\tforward\tf32\t1\t16\t9\t10\t24\t3\t3\t1\t%s\n", cudnn, device, engine);
}

TEST(files_that_promise_too_much) {
    static const struct {
        const char *device, *engine;
        int cudnn;
        bool used;
    } cases[] = {
        {"cusim", "12\t2:1", 90000, true},      /* the same place with a good plan, so that the others are seen */
        {"cusim", "12\t2:0", 90000, true},      /* another plan of that engine */
        {"cusim", "99\t-", 90000, false},       /* no such engine */
        {"cusim", "12\t-", 90000, false},       /* no such knobs */
        {"cusim", "12\t2:7", 90000, false},     /* */
        {"cusim", "12\t2:1,3:0", 90000, false}, /* */
        {"cusim", "13\t-", 90000, false},       /* not deterministic */
        {"cusim", "15\t-", 90000, false},       /* workspace */
        {"cusim", "16\t-", 90000, false},       /* finds no plan */
        {"cusim", "21\t-", 90000, false},       /* a lower tier */
        {"cusim", "14\t-", 90000, false},       /* fails when it runs */
        {"cusim 2", "12\t2:1", 90000, false},   /* another device */
        {"cusim", "12\t2:1", 90001, false},     /* another library */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (!prepare()) SKIP("no emulated module");
        party plain, s;
        char l[200];
        line(l, sizeof l, cases[i].device, cases[i].cudnn, cases[i].engine);
        start(&plain, "cuda", DR_PREC_F32, NULL);
        CHECK(!convolve(&plain, small, NULL));
        write_file(l);
        start(&s, "cuda", DR_PREC_F32, path);
        CHECK_MSG(!convolve(&s, small, NULL), "%s: %s", cases[i].engine, s.err.text);
        CHECK_MSG(plans_are(&s, 3, cases[i].used), "engine %s", cases[i].engine);
        CHECK_MSG(apart(&plain, &s) < 1e-6, "engine %s", cases[i].engine);
        CHECK_MSG(cases[i].used || equal(&plain, &s), "engine %s", cases[i].engine);
        CHECK(!convolve(&s, small, NULL) && !strcmp(file(), l)); /* read only */
        side_close(&plain), side_close(&s);
        unlink(path);
    }
}

/* Tuning puts a line that cannot be used right. */
TEST(tuning_replaces_what_does_not_run) {
    static const char *const engines[] = {"99\t-", "14\t-"};
    for (int i = 0; i < 2; i++) {
        if (!prepare()) SKIP("no emulated module");
        party s;
        char l[200];
        line(l, sizeof l, "cusim", 90000, engines[i]);
        write_file(l);
        start(&s, "cuda", DR_PREC_F32, path);
        CHECK(!dr_be_tune(s.be, true, NULL, &err) && !convolve(&s, small, NULL) && !convolve(&s, small, NULL));
        CHECK(!dr_be_tune(s.be, false, NULL, &err) && plans_are(&s, 3, 3));
        line(l, sizeof l, "cusim", 90000, "12\t2:1");
        CHECK_MSG(lines(file()) == 3 && strstr(text, l), "%s", text);
        side_close(&s);
        unlink(path);
    }
}

TEST(a_file_that_cannot_be_written_is_an_error_at_the_end) {
    if (!prepare()) SKIP("no emulated module");
    party s;
    start(&s, "cuda", DR_PREC_F32, "/tmp/no/such/folder/plans");
    CHECK(!dr_be_tune(s.be, true, NULL, &err) && !convolve(&s, small, NULL));
    CHECK(dr_be_tune(s.be, false, NULL, &err) == DR_IO && strstr(err.text, "/tmp/no/such/folder/plans"));
    CHECK(!convolve(&s, small, NULL) && plans_are(&s, 3, 3)); /* found is found */
    side_close(&s);
}

/* Every call of the runtime fails once in a tuning: an error or a result, nothing left over, and then all is well. */
TEST(faults_while_tuning) {
    if (!prepare()) SKIP("no emulated module");
    party s, plain;
    const work tiny = {{1, 3, 10, 11}, 16, 7, 0, true, false};
    start(&plain, "cuda", DR_PREC_F32, NULL);
    CHECK(!convolve(&plain, tiny, NULL));
    int n_failed = 0;
    start(&s, "cuda", DR_PREC_F32, path);
    const long from = sim.calls();
    CHECK(!dr_be_tune(s.be, true, NULL, &err) && !convolve(&s, tiny, NULL) && !dr_be_tune(s.be, false, NULL, &err));
    const long n = sim.calls() - from;
    side_close(&s);
    const size_t live = sim.live();
    for (long i = 1; i < n; i += i < 40 ? 1 : n / 40 + 1)
        for (int code = 2; code <= 719; code += 717) {
            unlink(path);
            start(&s, "cuda", DR_PREC_F32, path);
            dr_status st = dr_be_tune(s.be, true, NULL, &err);
            sim.fail_with(i, code);
            if (!st) st = convolve(&s, tiny, NULL);
            st = dr_be_tune(s.be, false, NULL, NULL) ? DR_BACKEND : st;
            sim.fail_with(0, 0);
            n_failed += st != DR_OK;
            CHECK_MSG(st || apart(&plain, &s) < 1e-6, "call %ld, error %d", i, code);
            side_close(&s);
            CHECK_MSG(sim.live() == live, "call %ld, error %d: %zu alive, %zu before", i, code, sim.live(), live);
        }
    printf("# %ld calls, %d failed\n", n, n_failed);
    CHECK(n > 100 && n_failed > 10);
    side_close(&plain);
    unlink(path);
}

/* ---- large windows over few inputs --------------------------------------------------------------------------------
 */

/* The line that says by columns (1) or whole (0); the channels of x are rounded up. */
static void say_columns(work w, dr_precision p, int yes) {
    char l[200];
    snprintf(l, sizeof l, "v2\t90000\tcusim\t90\t132\tcolumns%s%d\t8\t%d\t%d\t%d\t%d\t%d\t0\t%d\t-\n",
             type_text((int)p), w.x.n, w.x.h, w.x.w, w.o, w.k, w.k, yes);
    write_file(l);
}

/* Whole pictures, several at a time, bands of rows: the buffer of the emulation is 16 KiB. */
TEST(by_columns_is_the_same_convolution) {
    static const work works[] = {
        {{2, 3, 26, 31}, 32, 7, 0, true, false},  {{1, 3, 13, 12}, 16, 7, 0, false, false},
        {{5, 1, 9, 10}, 24, 5, 0, true, false},   {{1, 4, 70, 150}, 16, 7, 0, true, false},
        {{3, 2, 8, 300}, 16, 6, 0, true, false},  {{1, 3, 7, 7 + 16}, 16, 7, 0, true, false},
        {{7, 3, 12, 13}, 16, 5, 0, false, false},
    };
    for (size_t i = 0; i < sizeof works / sizeof *works; i++)
        for (int p = DR_PREC_F32; p <= DR_PREC_F16; p++) {
            if (!prepare()) SKIP("no emulated module");
            party cpu, whole, columns;
            dr_slot slot = {0};
            start(&cpu, "cpu", DR_PREC_F32, NULL);
            cpu.round = (dr_precision)p;
            start(&whole, "cuda", (dr_precision)p, NULL);
            say_columns(works[i], (dr_precision)p, 1);
            start(&columns, "cuda", (dr_precision)p, path);
            CHECK(!convolve(&cpu, works[i], NULL) && !convolve(&whole, works[i], NULL));
            for (int again = 0; again < 3; again++) { /* the last time from the slot */
                CHECK_MSG(!convolve(&columns, works[i], again ? &slot : NULL), "%s", columns.err.text);
                const double d = apart(&cpu, &columns);
                CHECK_MSG(d < 2 * near(p), "work %zu: %g from the CPU's", i, d);
            }
            char high[40]; /* it did go another way: tuning finds that window */
            snprintf(high, sizeof high, "\t%d\t1\t0\t12\t2:1\n", works[i].k);
            CHECK(!dr_be_tune(columns.be, true, NULL, &err) && !convolve(&columns, works[i], NULL));
            CHECK_MSG(!dr_be_tune(columns.be, false, NULL, &err) && strstr(file(), high), "%s", text);
            dr_slot_clear(&slot);
            side_close(&cpu), side_close(&whole), side_close(&columns);
            unlink(path);
        }
}

/* One model's sizes share a slot: the ways must not take each other's weights. */
TEST(ways_share_a_slot) {
    if (!prepare()) SKIP("no emulated module");
    party s, plain;
    work other = in;
    dr_slot slot = {0};
    other.x.h += 3;
    say_columns(in, DR_PREC_F32, 1);
    start(&plain, "cuda", DR_PREC_F32, NULL);
    start(&s, "cuda", DR_PREC_F32, path);
    for (int i = 0; i < 4; i++) {
        const work w = i % 2 ? other : in;
        CHECK(!convolve(&plain, w, NULL));
        CHECK_MSG(!convolve(&s, w, &slot) && apart(&plain, &s) < 1e-6, "turn %d: %s", i, s.err.text);
    }
    dr_slot_clear(&slot);
    side_close(&s), side_close(&plain);
    unlink(path);
}

/* By the emulated clock columns pay where a piece holds more than a row or two, and do not where the bands are thin. */
TEST(the_clock_says_which_way) {
    static const struct {
        work w;
        bool columns;
    } cases[] = {{{{1, 3, 18, 19}, 64, 7, 0, true, false}, true}, {{{1, 3, 40, 400}, 16, 7, 0, true, false}, false}};
    for (int i = 0; i < 2; i++) {
        if (!prepare()) SKIP("no emulated module");
        party s, plain, next;
        int n = 0;
        start(&plain, "cuda", DR_PREC_F32, NULL);
        start(&s, "cuda", DR_PREC_F32, path);
        CHECK(!convolve(&plain, cases[i].w, NULL));
        CHECK(!dr_be_tune(s.be, true, NULL, &err) && !convolve(&s, cases[i].w, NULL));
        CHECK(!dr_be_tune(s.be, false, &n, &err) && n >= 2 && apart(&plain, &s) < 1e-6);
        const char *l = strstr(file(), "\tcolumns\t");
        CHECK_MSG(l && strstr(l, cases[i].columns ? "\t7\t7\t0\t1\t-\n" : "\t7\t7\t0\t0\t-\n"), "%s", text);
        start(&next, "cuda", DR_PREC_F32, path);
        CHECK(!convolve(&next, cases[i].w, NULL) && equal(&s, &next));
        side_close(&s), side_close(&plain), side_close(&next);
        unlink(path);
    }
}
