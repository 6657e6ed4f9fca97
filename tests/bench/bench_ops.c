/* bench_ops.c - GB/s of the entries of the CPU table that live on memory, at a large and a small tensor.
 *
 *     make build/tests/bench/bench_ops && build/tests/bench/bench_ops [THREADS [ENTRY]]
 *
 * Bytes are the tensors an entry must read and write once, so a second pass over a tensor that left the cache shows as
 * fewer GB/s. The best of many runs counts: what disturbs only ever takes time. */
#include "core/base/clock.h"
#include "core/tensor/pool.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static dr_backend *be;
static dr_pool pool;
static const char *only;

static void must(dr_status s, const dr_error *err) {
    if (!s) return;
    fprintf(stderr, "bench_ops: %s\n", err->text);
    exit(1);
}

static dr_tensor make(dr_shape s) {
    dr_tensor t;
    dr_error err = {0};
    must(dr_pool_tensor(&pool, s, &t, &err), &err);
    float *f = t.data;
    for (size_t i = 0; i < dr_shape_count(s); i++) f[i] = (float)(i * 2654435761u % 1000) / 500 - 1;
    return t;
}

/* BENCH(name, floats, call): runs for at least half a second, prints the best. */
#define BENCH(name, floats, call)                                                                                      \
    do {                                                                                                               \
        if (only && !strstr(name, only)) break;                                                                        \
        int64_t best = INT64_MAX, begin = dr_clock_ns();                                                               \
        for (int runs_ = 0; runs_ < 20 || dr_clock_ns() - begin < 500000000; runs_++) {                                \
            dr_error e_ = {0};                                                                                         \
            int64_t t0 = dr_clock_ns();                                                                                \
            must(call, &e_);                                                                                           \
            int64_t t = dr_clock_ns() - t0;                                                                            \
            if (t < best) best = t;                                                                                    \
        }                                                                                                              \
        printf("%-24s %8.3f ms %7.1f GB/s\n", name, (double)best / 1e6, (double)(floats)*4 / (double)best);            \
    } while (0)

static void bench(dr_shape s) {
    char text[48];
    double n = (double)dr_shape_count(s);
    dr_tensor x = make(s), y = make(s), z = make(s), none = {0};
    dr_shape ps = dr_shape_make(s.n, s.c, s.h + 2, s.w + 2);
    dr_tensor p = make(ps), q = make(ps), d = make(dr_shape_make(s.n, s.c, s.h / 2, s.w / 2));
    dr_tensor u = make(dr_shape_make(s.n, s.c, 2 * s.h, 2 * s.w));
    float *stats = calloc((size_t)(s.n * s.c), 2 * sizeof *stats);
    if (!stats) exit(1);
    const float eps = 1e-5f;
    printf("%s\n", dr_shape_text(s, text));
    BENCH("copy", 2 * n, dr_be_copy(be, x, y, &e_));
    BENCH("fill", n, dr_be_fill(be, 0, y, &e_));
    BENCH("axpy", 3 * n, dr_be_axpy(be, 0.5f, x, y, &e_));
    BENCH("add", 3 * n, dr_be_add(be, x, z, y, &e_));
    BENCH("act lrelu", 2 * n, dr_be_act(be, DR_ACT_LRELU, x, y, &e_));
    BENCH("act tanh", 2 * n, dr_be_act(be, DR_ACT_TANH, x, y, &e_));
    BENCH("act_bwd lrelu", 3 * n, dr_be_act_bwd(be, DR_ACT_LRELU, y, z, y, &e_));
    BENCH("norm_stats", n, dr_be_norm_stats(be, eps, x, stats, &e_));
    BENCH("norm_act relu", 2 * n, dr_be_norm_act(be, eps, DR_ACT_RELU, x, stats, y, &e_));
    BENCH("norm_act_bwd relu", 3 * n, dr_be_norm_act_bwd(be, DR_ACT_RELU, x, stats, z, y, &e_));
    BENCH("pad_reflect 1", 2 * n, dr_be_pad_reflect(be, 1, x, p, &e_));
    BENCH("pad_reflect_bwd 1", 2 * n, dr_be_pad_reflect_bwd(be, 1, p, y, &e_));
    BENCH("blur_down", 1.25 * n, dr_be_blur_down(be, x, d, &e_));
    BENCH("blur_down_bwd", 1.25 * n, dr_be_blur_down_bwd(be, d, y, &e_));
    BENCH("blur_up", 5 * n, dr_be_blur_up(be, x, u, &e_));
    BENCH("blur_up_bwd", 5 * n, dr_be_blur_up_bwd(be, u, y, &e_));
    BENCH("apply", 2 * n, dr_be_norm_apply(be, x, stats, DR_ACT_RELU, DR_THEN_NONE, 0, none, y, &e_));
    BENCH("apply, pad 1", 2 * n, dr_be_norm_apply(be, x, stats, DR_ACT_RELU, DR_THEN_REFLECT, 1, none, p, &e_));
    BENCH("apply, add, pad 1", 3 * n, dr_be_norm_apply(be, x, stats, DR_ACT_NONE, DR_THEN_ADD, 1, q, p, &e_));
    BENCH("apply, blur down", 1.25 * n,
          dr_be_norm_apply(be, x, stats, DR_ACT_RELU, DR_THEN_BLUR_DOWN, 0, none, d, &e_));
    BENCH("apply, blur up", 5 * n, dr_be_norm_apply(be, x, stats, DR_ACT_RELU, DR_THEN_BLUR_UP, 0, none, u, &e_));
    dr_adam_desc a = {.lr = 1e-4f, .beta1 = 0.5f, .beta2 = 0.999f, .eps = 1e-8f, .t = 1};
    BENCH("adam", 7 * n, dr_be_adam(be, &a, dr_shape_count(s), y.data, x.data, z.data, z.data, &e_));
    free(stats);
    dr_pool_reset(&pool);
}

static void bench_heads(void) {
    dr_shape s = dr_shape_make(256, 256, 1, 1);
    dr_tensor q = make(s), k = make(s), y = make(s), loss = make(dr_shape_make(1, 1, 1, 1));
    printf("256 rows of 256 (GB/s of three matrices)\n");
    BENCH("linear", 3 * 65536.0, dr_be_linear(be, q, k.data, NULL, y, &e_));
    BENCH("linear_dw", 3 * 65536.0, dr_be_linear_dw(be, q, k, y.data, NULL, &e_));
    BENCH("nce", 3 * 65536.0, dr_be_nce(be, 1, 0.07f, q, k, loss, &e_));
    BENCH("nce_bwd", 3 * 65536.0, dr_be_nce_bwd(be, 1, 0.07f, q, k, 1, y, &e_));
}

int main(int argc, char **argv) {
    dr_error err = {0};
    dr_backend_opts opts = {.threads = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 0};
    only = argc > 2 ? argv[2] : NULL;
    must(dr_backend_open("cpu", &opts, &be, NULL, &err), &err);
    printf("%s\n", dr_be_describe(be));
    dr_pool_init(&pool, be, 0);
    bench(dr_shape_make(1, 64, 512, 512));
    bench(dr_shape_make(1, 256, 64, 64));
    bench(dr_shape_make(1, 32, 128, 128));
    bench_heads();
    dr_pool_done(&pool);
    dr_backend_close(be);
    return 0;
}
