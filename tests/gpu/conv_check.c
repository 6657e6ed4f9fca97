/* conv_check.c - the convolutions on a real device.
 *
 *   conv_check                     checks and a table, one row a layer; the last line sums up; exit 0, 1, or 77: no
 * device conv_check --dump-device FILE  writes cuDNN's description of device 0 (for tests/cuda/devices) and ends
 *
 * Check: each kind of layer at a small size against the plain loops on the host (relative L2 below 1e-2 for bf16, 1e-3
 * for f16, 1e-5 for f32: tf32 would show as 3e-4), and that a sum beyond f16 is infinite, not cut off: what finds such
 * pictures rests on it. Then at full size: two runs give equal bits; time of the heuristic's first plan
 * and of the tuned one; and the tuned plans, saved and opened again, give the bits they gave before. */
#include "tests/cuda/half.h"
#include "tests/cuda/layer_shapes.h"

#include "cuda/conv_cudnn.h"
#include "tests/cusim/conv_naive.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *const kinds[] = {"fwd", "dgrad", "wgrad"};
static int n_checks, n_bad;
static const double seconds_max = 50; /* no new shape at full size after that */

static void debug(const char *text) {
    printf("# %s\n", text);
}
static const dr_host_api host = {.log_debug = debug, .fail = dr_fail};

static void verdict(bool ok, const char *what, const char *why) {
    n_checks++;
    if (ok) return;
    n_bad++;
    printf("not ok %s: %s\n", what, why);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Elements of a, b and out of cv_run(). */
static void counts(cv_kind kind, cv_shape s, size_t ret[3]) {
    const size_t oh = (size_t)(s.h + 2 * s.pad - s.k + 1), ow = (size_t)(s.w + 2 * s.pad - cv_kw(s) + 1);
    const size_t x = (size_t)s.n * (size_t)s.h * (size_t)s.w * (size_t)s.i, y = (size_t)s.n * oh * ow * (size_t)s.o;
    const size_t w = (size_t)s.o * (size_t)s.k * (size_t)cv_kw(s) * (size_t)s.i;
    ret[0] = kind == CV_BACKWARD_DATA ? y : x;
    ret[1] = kind == CV_BACKWARD_WEIGHTS ? y : w;
    ret[2] = kind == CV_FORWARD ? y : kind == CV_BACKWARD_DATA ? x : w;
}

static float get(const void *p, size_t i, dk_type t) {
    if (t == DK_F32) return ((const float *)p)[i];
    if (t == DK_F16) return (float)f16_value(((const uint16_t *)p)[i]);
    uint32_t bits = (uint32_t)((const uint16_t *)p)[i] << 16;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

static void *noise(size_t n, dk_type t, unsigned seed) {
    char *p = malloc(n * 4);
    for (size_t i = 0; p && i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        float f = (float)(seed >> 8) / 16777216.0f - 0.5f;
        uint32_t bits;
        memcpy(&bits, &f, 4);
        if (t == DK_F32)
            memcpy(p + 4 * i, &f, 4);
        else
            memcpy(p + 2 * i, &(uint16_t){t == DK_F16 ? f16_bits(f16_round((double)f)) : (uint16_t)(bits >> 16)}, 2);
    }
    return p;
}

typedef struct buffers {
    void *at[3];
    size_t bytes[3];
} buffers;

static void release(buffers *b) {
    for (int i = 0; i < 3; i++) cudaFree(b->at[i]);
    *b = (buffers){0};
}

/* a and b with random numbers (a chunk, repeated), out with NaN. */
static bool fill(buffers *b, cv_kind kind, cv_shape s) {
    size_t n[3];
    counts(kind, s, n);
    cudaError_t c = cudaSuccess;
    *b = (buffers){0};
    for (int i = 0; i < 3 && !c; i++) {
        b->bytes[i] = n[i] * (s.type == DK_F32 ? 4 : 2);
        c = cudaMalloc(&b->at[i], b->bytes[i]);
        if (!c && i == 2) c = cudaMemset(b->at[i], 0xff, b->bytes[i]);
        if (c || i == 2) continue;
        size_t chunk = n[i] < 1 << 18 ? n[i] : 1 << 18, at = chunk * (s.type == DK_F32 ? 4 : 2);
        void *p = noise(chunk, s.type, 17u + (unsigned)i);
        c = p ? cudaMemcpy(b->at[i], p, at, cudaMemcpyHostToDevice) : cudaErrorMemoryAllocation;
        free(p);
        for (size_t m; !c && at < b->bytes[i]; at += m) {
            m = at < b->bytes[i] - at ? at : b->bytes[i] - at;
            c = cudaMemcpy((char *)b->at[i] + at, b->at[i], m, cudaMemcpyDeviceToDevice);
        }
    }
    if (c) {
        printf("# buffers: %s\n", cudaGetErrorString(c));
        release(b);
    }
    return !c;
}

/* One direction at a small size on both sides. */
static void compare(cv_engine *dev, const char *name, cv_kind kind, cv_shape s) {
    size_t n[3];
    char what[200], shape[128], why[200];
    dr_error err = {0};
    buffers b = {0};
    counts(kind, s, n);
    cv_shape_text(kind, s, shape, sizeof shape);
    snprintf(what, sizeof what, "%s %s", name, shape);
    const size_t size = s.type == DK_F32 ? 4 : 2;
    void *pa = noise(n[0], s.type, 1), *pb = noise(n[1], s.type, 2), *want = malloc(n[2] * size),
         *got = malloc(n[2] * size);
    bool ok = pa && pb && want && got && fill(&b, kind, s);
    ok = ok && !cudaMemcpy(b.at[0], pa, b.bytes[0], cudaMemcpyHostToDevice) &&
         !cudaMemcpy(b.at[1], pb, b.bytes[1], cudaMemcpyHostToDevice) &&
         !naive_conv(&host, kind, s, false, pa, pb, want, &err) &&
         !cv_run(dev, kind, s, b.at[0], b.at[1], b.at[2], &err) &&
         !cudaMemcpy(got, b.at[2], b.bytes[2], cudaMemcpyDeviceToHost);
    if (!ok) {
        verdict(false, what, err.text[0] ? err.text : cudaGetErrorString(cudaGetLastError()));
    } else {
        double diff = 0, sum = 0;
        for (size_t i = 0; i < n[2]; i++) {
            double v = get(want, i, s.type), d = (double)get(got, i, s.type) - v;
            diff += d * d, sum += v * v;
        }
        double rel = sqrt(diff / sum), most = s.type == DK_F32 ? 1e-5 : s.type == DK_F16 ? 1e-3 : 1e-2;
        snprintf(why, sizeof why, "relative L2 %.3g, at most %g", rel, most);
        verdict(rel < most && sum > 0, what, why); /* NaN is not below */
    }
    release(&b);
    free(pa), free(pb), free(want), free(got);
}

/* All sums of a convolution are 2^16 or more: every result is infinite. */
static void overflow(cv_engine *dev) {
    const cv_shape s = {1, 64, 9, 11, 64, 3, 1, DK_F16, 0};
    const char *what = "sums beyond f16 are infinite";
    size_t n[3];
    buffers b = {0};
    dr_error err = {0};
    counts(CV_FORWARD, s, n);
    uint16_t *v = malloc(2 * (n[0] + n[1] + n[2]));
    for (size_t i = 0; v && i < n[0] + n[1]; i++) v[i] = i < n[0] ? 0x5400 : 0x4c00; /* 64 and 16 */
    bool ok = v && fill(&b, CV_FORWARD, s) && !cudaMemcpy(b.at[0], v, b.bytes[0], cudaMemcpyHostToDevice) &&
              !cudaMemcpy(b.at[1], v + n[0], b.bytes[1], cudaMemcpyHostToDevice) &&
              !cv_run(dev, CV_FORWARD, s, b.at[0], b.at[1], b.at[2], &err) &&
              !cudaMemcpy(v, b.at[2], b.bytes[2], cudaMemcpyDeviceToHost);
    size_t n_other = 0;
    for (size_t i = 0; ok && i < n[2]; i++) n_other += v[i] != 0x7c00;
    verdict(ok && !n_other, what, err.text[0] ? err.text : "a result is finite or not a number");
    release(&b);
    free(v);
}

static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Median milliseconds of seven runs after three; negative: failed. */
static float timed(cv_engine *e, cv_kind kind, cv_shape s, const buffers *b, cudaStream_t st, dr_error *err) {
    enum { WARM = 3, RUNS = 7 };
    float ms[RUNS] = {0};
    cudaEvent_t from = NULL, to = NULL;
    bool ok = !cudaEventCreate(&from) && !cudaEventCreate(&to);
    for (int i = 0; ok && i < WARM + RUNS; i++) {
        ok = !cudaEventRecord(from, st) && !cv_run(e, kind, s, b->at[0], b->at[1], b->at[2], err) &&
             !cudaEventRecord(to, st) && !cudaEventSynchronize(to);
        if (ok && i >= WARM) ok = !cudaEventElapsedTime(&ms[i - WARM], from, to);
    }
    if (from) cudaEventDestroy(from);
    if (to) cudaEventDestroy(to);
    qsort(ms, RUNS, sizeof *ms, by_value);
    return ok ? ms[RUNS / 2] : -1;
}

/* Runs into a buffer full of NaN and takes the result. */
static bool result(cv_engine *e, cv_kind kind, cv_shape s, const buffers *b, void *ret, dr_error *err) {
    return !cudaMemset(b->at[2], 0xff, b->bytes[2]) && !cudaDeviceSynchronize() &&
           !cv_run(e, kind, s, b->at[0], b->at[1], b->at[2], err) && !cudaDeviceSynchronize() &&
           !cudaMemcpy(ret, b->at[2], b->bytes[2], cudaMemcpyDeviceToHost);
}

/* One direction at full size: equal bits twice, then times. `again` reads the tuned plans that e saved. */
static void measure(cv_engine *e, const char *name, cv_kind kind, cv_shape s, cudaStream_t st, const char *cache) {
    char what[200], shape[128];
    dr_error err = {0};
    buffers b = {0};
    cv_choice first = {0}, tuned = {0}, read = {0};
    cv_shape_text(kind, s, shape, sizeof shape);
    snprintf(what, sizeof what, "%s %s", name, shape);
    bool ok = fill(&b, kind, s) && !cv_choice_of(e, kind, s, &first, &err);
    char *one = ok ? malloc(b.bytes[2]) : NULL, *two = ok ? malloc(b.bytes[2]) : NULL;
    ok = ok && one && two && result(e, kind, s, &b, one, &err) && result(e, kind, s, &b, two, &err);
    if (ok) verdict(!memcmp(one, two, b.bytes[2]), what, "two runs of one plan differ");
    float ms = ok ? timed(e, kind, s, &b, st, &err) : -1, best = -1;
    ok = ok && !cv_choice_of(e, kind, s, &first, &err) && !cv_tune(e, kind, s, &err) &&
         !cv_choice_of(e, kind, s, &tuned, &err);
    if (ok) best = timed(e, kind, s, &b, st, &err);
    ok = ok && ms > 0 && best > 0 && result(e, kind, s, &b, one, &err) && result(e, kind, s, &b, two, &err);
    if (ok) verdict(!memcmp(one, two, b.bytes[2]), what, "two runs of the tuned plan differ");
    if (ok && cache) { /* what was saved is found and is the same plan */
        cv_engine *again = NULL;
        ok = !cv_save(e, &err) && !cv_open(&host, st, cache, &again, &err) &&
             !cv_choice_of(again, kind, s, &read, &err) && result(again, kind, s, &b, two, &err);
        if (ok)
            verdict(read.tuned && cv_same_id(&read.id, &tuned.id) && !memcmp(one, two, b.bytes[2]), what,
                    "the saved plan is not the tuned one");
        cv_close(again);
    }
    if (ok) {
        const double flops =
            2.0 * s.n * (s.h + 2 * s.pad - s.k + 1) * (s.w + 2 * s.pad - cv_kw(s) + 1) * s.i * s.o * s.k * cv_kw(s);
        verdict(cv_tier(tuned.traits, s.type) == 0, what, "no engine of the wanted kind");
        printf("%-10s %-5s %-4s %2dx%dx%dx%d to %-4d k%d p%d | %8.3f ms %6.1f TFLOP/s e%-3d %6.1f MB | tuned %8.3f ms "
               "%6.1f "
               "TFLOP/s e%-3d %6.1f MB\n",
               name, kinds[kind], dk_type_name(s.type), s.n, s.i, s.h, s.w, s.o, s.k, s.pad, (double)ms,
               flops / (double)ms * 1e-9, first.id.engine, (double)first.workspace * 1e-6, (double)best,
               flops / (double)best * 1e-9, tuned.id.engine, (double)tuned.workspace * 1e-6);
    } else {
        verdict(false, what, err.text[0] ? err.text : cudaGetErrorString(cudaGetLastError()));
    }
    free(one), free(two);
    release(&b);
}

static int dump(const char *path) {
    dr_error err = {0};
    cudnnBackendDescriptor_t d = NULL;
    char *json = NULL;
    if (cg_device_open(&host, 0, &d, &err) || cg_device_to_json(&host, d, &json, &err)) {
        printf("device description: %s\n", err.text);
        cg_device_close(d);
        return 1;
    }
    cg_device_close(d);
    FILE *f = fopen(path, "wb");
    bool ok = f && fprintf(f, "%s\n", json) > 0;
    if (f && fclose(f)) ok = false;
    printf("%s: %s\n", path, ok ? "written" : "cannot be written");
    free(json);
    return ok ? 0 : 1;
}

/* A layer's channels and window on a picture so small that the host's loops take milliseconds. */
static cv_shape small(cv_shape s, dk_type t) {
    double taps = (double)s.i * s.o * s.k * cv_kw(s);
    s.n = 2, s.type = t;
    s.h = taps > 4e5 ? 9 : 17, s.w = taps > 4e5 ? 11 : 22;
    return s;
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    int n_devices = 0;
    cudaError_t c = cudaGetDeviceCount(&n_devices);
    if (c || n_devices < 1) {
        printf("no device: %s\n", c ? cudaGetErrorString(c) : "none found");
        return 77;
    }
    if (argc == 3 && !strcmp(argv[1], "--dump-device")) return dump(argv[2]);
    if (argc != 1) {
        fprintf(stderr, "usage: conv_check [--dump-device FILE]\n");
        return 2;
    }
    const double start = now();
    char cache[64];
    snprintf(cache, sizeof cache, "/tmp/conv_check.%ld.plans", (long)getpid());
    cudaStream_t st = NULL;
    cv_engine *dev = NULL;
    dr_error err = {0};
    if (cudaStreamCreate(&st) || cv_open(&host, st, cache, &dev, &err)) {
        printf("does not open: %s\n", err.text);
        cv_close(dev);
        return 1;
    }
    layer l[2 * MAX_LAYERS];
    int n = generator_layers(64, 1, 32, 32, DK_BF16, l);
    n += generator_layers(32, 1, 32, 32, DK_BF16, l + n);
    n += discriminator_layers(64, 3, 1, 32, DK_BF16, l + n);
    for (int i = 0; i < n; i++)
        for (int k = CV_FORWARD; k <= CV_BACKWARD_WEIGHTS; k++)
            for (int t = DK_F32; t <= DK_F16; t++) compare(dev, l[i].name, (cv_kind)k, small(l[i].s, (dk_type)t));
    overflow(dev);
    printf("# %d comparisons with plain loops, %d failed, %.1f s, %s\n", n_checks, n_bad, now() - start, cv_version());

    static const struct {
        int f, n, h, w;
        bool training;
    } full[] = {{64, 8, 128, 128, true},    {32, 8, 128, 128, true},   {64, 1, 256, 256, false},
                {32, 1, 256, 256, false},   {64, 1, 512, 512, false},  {32, 1, 512, 512, false},
                {64, 1, 1080, 1920, false}, {32, 1, 1080, 1920, false}};
    int n_left = 0;
    for (int set = 0; set < (int)(sizeof full / sizeof *full) + 1; set++) {
        bool d = set == (int)(sizeof full / sizeof *full); /* last: the discriminator */
        n = d ? discriminator_layers(64, 3, 8, 128, DK_BF16, l)
              : generator_layers(full[set].f, full[set].n, full[set].h, full[set].w,
                                 full[set].training ? DK_BF16 : DK_F16, l);
        for (int i = 0; i < n; i++)
            for (int k = CV_FORWARD; k <= (d || full[set].training ? CV_BACKWARD_WEIGHTS : CV_FORWARD); k++)
                if (now() - start < seconds_max)
                    measure(dev, l[i].name, (cv_kind)k, l[i].s, st, set == 0 && i % 3 == 0 ? cache : NULL);
                else
                    n_left++;
    }
    c = cudaDeviceSynchronize();
    verdict(!c, "device after everything", cudaGetErrorString(c));
    unlink(cache);
    const int plans = cv_plan_count(dev);
    const size_t workspace = cv_workspace_bytes(dev);
    cv_close(dev);
    cudaStreamDestroy(st);
    printf("%d checks, %d failed, %d shapes not timed (out of time), %d plans, workspace %.0f MB, %.1f s\n", n_checks,
           n_bad, n_left, plans, (double)workspace * 1e-6, now() - start);
    return n_bad ? 1 : 0;
}
