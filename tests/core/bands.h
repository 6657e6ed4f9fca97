/* bands.h - a network in bands against the same network as a whole, on any backend (test_bands.c, and
 * tests/cuda/test_parity_bands.c for the module). */
#ifndef TEST_BANDS_H
#define TEST_BANDS_H

#include "core/base/alloc.h"
#include "core/base/rng.h"
#include "core/model/fit.h"
#include "core/model/plan.h"
#include "core/nn/generator.h"
#include "tests/t.h"

typedef struct net {
    dr_backend *be;
    dr_generator g;
    dr_slot *slots;
    dr_var (*forward)(dr_graph *g, struct net *t, dr_var x); /* NULL: the generator's */
} net;

/* Random weights that let every layer matter, the last one too. */
static inline dr_status net_open(net *t, const char *backend, const dr_backend_opts *o, dr_generator_config cfg,
                                 dr_error *err) {
    *t = (net){0};
    dr_status s = dr_backend_open(backend, o, &t->be, NULL, err);
    if (!s) s = dr_generator_init(&t->g, cfg, t->be, false, err);
    if (!s) s = dr_params_init_xavier(&t->g.params, 11, "G", 1.0, err);
    float bias[256];
    for (int i = 0; i < 256; i++) bias[i] = 0.3f * sinf((float)i);
    for (int i = 1; i < t->g.params.n && !s; i += 2) s = dr_params_upload(&t->g.params, i, bias, err);
    t->slots = dr_calloc((size_t)t->g.params.n + 1, sizeof *t->slots);
    return s;
}

static inline void net_close(net *t) {
    for (int i = 0; i < t->g.params.n; i++) dr_slot_clear(&t->slots[i]);
    dr_free(t->slots);
    dr_generator_done(&t->g);
    dr_backend_close(t->be);
}

static inline dr_var net_record(net *t, dr_graph *g, dr_shape in, dr_var *ret_x) {
    dr_graph_init(g, NULL, NULL, DR_MODE_PLAN);
    *ret_x = dr_input(g, (dr_tensor){.shape = in}, false);
    return t->forward ? t->forward(g, t, *ret_x) : dr_generator_forward(g, &t->g, *ret_x, NULL);
}

/* b NULL: the whole plan. */
static inline dr_status net_plan(net *t, dr_shape in, const dr_plan_bands *b, dr_plan **ret, dr_error *err) {
    dr_graph g;
    dr_var x, y = net_record(t, &g, in, &x);
    dr_status s = dr_plan_build(&g, x, y, t->be, true, t->g.params.p, t->g.params.n, t->slots, b, ret, err);
    dr_graph_done(&g);
    return s;
}

static inline dr_status net_fit(net *t, dr_shape in, uint64_t limit, dr_plan **ret, uint64_t *ret_least,
                                dr_error *err) {
    dr_graph g;
    dr_var x, y = net_record(t, &g, in, &x);
    dr_status s = dr_plan_fit(&g, x, y, t->be, t->g.params.p, t->g.params.n, t->slots, limit, ret, ret_least, err);
    dr_graph_done(&g);
    return s;
}

/* Every tenth pixel stands out, so that no two rows are alike and a row in the wrong place shows. */
static inline void net_picture(dr_shape s, float *x) {
    dr_rng r;
    dr_rng_seed(&r, 17, 3);
    for (size_t i = 0; i < dr_shape_count(s); i++)
        x[i] = 0.6f * sinf((float)i * 0.037f) + (float)dr_rng_range(&r, -0.3, 0.3) + (i % 10 ? 0 : 0.1f);
}

/* The block is NaN at first: reading what was not made shows. Behind it lies what must not be written. */
static inline dr_status net_run(net *t, dr_plan *p, const float *x, float *y, const dr_plan_watch *watch,
                                bool *ret_behind, dr_error *err) {
    enum { BEHIND = 4096 };
    const size_t bytes = dr_plan_bytes(p);
    void *block = NULL;
    unsigned char *fill = dr_malloc(bytes + BEHIND);
    dr_status s = fill ? dr_be_alloc(t->be, bytes + BEHIND, &block, err) : dr_fail(err, DR_NOMEM, "no memory");
    if (s) {
        dr_free(fill);
        return s;
    }
    memset(fill, 0xff, bytes + BEHIND);
    s = dr_be_upload_raw(t->be, fill, block, bytes + BEHIND, err);
    if (!s) s = dr_be_upload(t->be, x, dr_plan_input(p, block), err);
    if (!s) s = dr_plan_run(p, block, watch, err);
    if (!s) s = dr_be_download(t->be, dr_plan_output(p, block), y, err);
    if (!s && ret_behind) {
        s = dr_be_download_raw(t->be, (char *)block + bytes, fill, BEHIND, err);
        *ret_behind = false;
        for (int i = 0; i < BEHIND; i++) *ret_behind = *ret_behind || fill[i] != 0xff;
    }
    dr_be_free(t->be, block);
    dr_free(fill);
    return s;
}

/* Bound number k of the values that are kept, as fit.c has them: from all of them down. */
static inline size_t net_bound(const dr_plan *whole, int k) {
    return k ? dr_plan_largest(whole) / 8 * 5 >> (k - 1) : SIZE_MAX;
}

typedef struct net_result {
    double most; /* largest difference to the whole plan */
    double psnr; /* of the 8-bit pixels of the two, 99 where they are equal */
    int ties;    /* pixels of 8 bits that differ, and by how much at most */
    int levels;
    size_t whole_bytes, bytes;
    bool behind; /* something was written behind the block */
} net_result;

/* One shape, one choice of bands. */
static inline dr_status net_compare(net *t, dr_shape in, int bound, int rows, net_result *ret, dr_error *err) {
    dr_plan *whole = NULL, *banded = NULL;
    net_result r = {0};
    float *x = dr_malloc(3 * dr_shape_count(in) * sizeof *x), *a = x + dr_shape_count(in), *b = a + dr_shape_count(in);
    net_picture(in, x);
    dr_status s = net_plan(t, in, NULL, &whole, err);
    if (!s) {
        const dr_plan_bands o = {.kept_max = net_bound(whole, bound), .rows = rows, .cost_max = HUGE_VAL};
        s = net_plan(t, in, &o, &banded, err);
    }
    if (!s) s = net_run(t, whole, x, a, NULL, NULL, err);
    if (!s) s = net_run(t, banded, x, b, NULL, &r.behind, err);
    double square = 0;
    const size_t n = dr_shape_count(in);
    for (size_t i = 0; i < n && !s; i++) {
        const int u = (int)lround(fmin(1, fmax(-1, (double)a[i])) * 127.5),
                  v = (int)lround(fmin(1, fmax(-1, (double)b[i])) * 127.5);
        const double d = fabs((double)a[i] - (double)b[i]);
        if (!(d <= r.most)) r.most = isfinite(d) ? d : HUGE_VAL;
        if (abs(u - v) > r.levels) r.levels = abs(u - v);
        r.ties += u != v;
        square += (double)((u - v) * (u - v)) / (double)n;
    }
    r.psnr = square > 0 ? 10 * log10(255.0 * 255.0 / square) : 99;
    if (!s) {
        r.whole_bytes = dr_plan_bytes(whole);
        r.bytes = dr_plan_bytes(banded);
        *ret = r;
    }
    dr_plan_destroy(whole);
    dr_plan_destroy(banded);
    dr_free(x);
    return s;
}

#endif
