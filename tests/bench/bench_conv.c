/* bench_conv.c - milliseconds and GF/s of every convolution of the networks, all three passes.
 *
 * bench_conv [SIZE [THREADS [f32|bf16 [PASSES]]]]: picture side (512), threads (2), arithmetic, and a subset of "fdw".
 * One thread is timed by the processor time that it gets. GF/s counts the multiplications of the direct convolution, so
 * Winograd can exceed the machine's peak. */
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/cpu/conv.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static float *array(size_t n) {
    float *p = dr_malloc_aligned(n * sizeof *p);
    for (size_t i = 0; p && i < n; i++) p[i] = (float)((i * 2654435761u) >> 16 & 255) / 128.0f - 1.0f;
    return p;
}

typedef struct layer {
    const char *name;
    int div, ic, oc, k, pad, grow; /* side = size / div + grow */
} layer;

static const layer layers[] = {
    {"in   3->64 k7", 1, 3, 64, 7, 0, 6},       {"     64->128", 1, 64, 128, 3, 1, 0},
    {"     128->256", 2, 128, 256, 3, 1, 0},    {"res  256->256", 4, 256, 256, 3, 0, 2},
    {"     256->128", 2, 256, 128, 3, 1, 0},    {"     128->64", 1, 128, 64, 3, 1, 0},
    {"out  64->3 k7", 1, 64, 3, 7, 0, 6},       {"D    3->64 k4", 1, 3, 64, 4, 1, 0},
    {"D    64->128 k4", 2, 64, 128, 4, 1, 0},   {"D    128->256 k4", 4, 128, 256, 4, 1, 0},
    {"D    256->512 k4", 8, 256, 512, 4, 1, 0}, {"D    512->1 k4", 8, 512, 1, 4, 1, -1},
};

/* With one thread its own time, so that a busy machine matters less. */
static int64_t now(const dr_cpu *c) {
    struct timespec t;
    if (c->threads > 1) return dr_clock_ns();
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static double run(dr_cpu *c, char pass, dr_conv2d_desc d, dr_tensor x, dr_tensor y, float *w, float *b, dr_slot *slot) {
    double best = 1e9;
    int64_t start = dr_clock_ns();
    for (int i = 0; i < 4 || (i < 40 && dr_clock_ns() - start < 100000000); i++) {
        int64_t t = now(c);
        dr_status s = pass == 'f'   ? dr_cpu_conv2d(&c->base, d, x, w, b, y, slot, NULL)
                      : pass == 'd' ? dr_cpu_conv2d_dx(&c->base, d, y, w, x, NULL, NULL)
                                    : dr_cpu_conv2d_dw(&c->base, d, x, y, w, NULL, NULL, NULL);
        if (s) return -1;
        double ms = (double)(now(c) - t) / 1e6;
        if (ms < best) best = ms;
    }
    return best;
}

int main(int argc, char **argv) {
    int size = argc > 1 ? atoi(argv[1]) : 512;
    dr_cpu c = {.threads = argc > 2 ? atoi(argv[2]) : 2};
    if (argc > 3 && !strcmp(argv[3], "bf16")) c.precision = DR_PREC_BF16;
    const char *passes = argc > 4 ? argv[4] : "fdw";
    c.isa = __builtin_cpu_supports("avx512bw") ? DR_CPU_AVX512
            : __builtin_cpu_supports("avx2")   ? DR_CPU_AVX2
                                               : DR_CPU_BASE;
    if (dr_cpu_conv_open(&c, NULL)) return 1;
    printf("%dx%d, %d threads, %s\n%-18s %7s", size, size, c.threads, dr_cpu_conv_text(&c), "layer", "GF");
    for (const char *p = passes; *p; p++) printf("  %c ms   (GF/s)", *p);
    printf("\n");
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
        const layer *l = &layers[i];
        int side = size / l->div + l->grow, os = side + 2 * l->pad - l->k + 1;
        dr_shape xs = {1, l->ic, side, side}, ys = {1, l->oc, os, os};
        dr_tensor x = {xs, array((size_t)l->ic * (size_t)(side * side))};
        dr_tensor y = {ys, array((size_t)l->oc * (size_t)(os * os))};
        float *w = array((size_t)(l->ic * l->oc * l->k * l->k)), *b = array((size_t)l->oc);
        double gf = 2e-9 * l->ic * l->oc * l->k * l->k * os * os;
        printf("%-18s %7.2f", l->name, gf);
        for (const char *p = passes; *p; p++) {
            dr_slot slot = {0};
            dr_conv2d_desc d = {.k = l->k, .pad = l->pad, .frozen = c.precision == DR_PREC_F32};
            double ms = run(&c, *p, d, x, y, w, b, c.precision == DR_PREC_F32 ? &slot : NULL);
            printf("  %7.2f (%4.0f)", ms, gf / ms * 1e3);
            fflush(stdout);
            if (slot.p) slot.destroy(slot.p);
        }
        printf("\n");
        dr_free(x.data);
        dr_free(y.data);
        dr_free(w);
        dr_free(b);
    }
    dr_cpu_conv_close(&c);
    return 0;
}
