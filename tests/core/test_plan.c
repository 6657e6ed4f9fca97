/* test_plan.c - a planned network gives what the recorded one gives, fused or not, in memory that starts as garbage. */
#include "core/model/plan.h"

#include "core/base/alloc.h"
#include "core/base/rng.h"
#include "core/cpu/conv.h"
#include "core/model/pack.h"
#include "core/nn/generator.h"
#include "tests/t.h"

/* ---- packing -------------------------------------------------------------------------------------------------- */

TEST(packed_buffers_that_meet_do_not_overlap) {
    dr_rng r;
    dr_rng_seed(&r, 3, 0);
    for (int round = 0; round < 300; round++) {
        dr_span s[40] = {0};
        int n = 1 + (int)dr_rng_below(&r, 40);
        size_t need = 0;
        for (int i = 0; i < n; i++) {
            s[i].first = (int)dr_rng_below(&r, 20);
            s[i].last = s[i].first + (int)dr_rng_below(&r, 6);
            s[i].bytes = 64 * dr_rng_below(&r, 50);
        }
        size_t total = dr_pack(s, n);
        for (int t = 0; t < 26; t++) {
            size_t alive = 0;
            for (int i = 0; i < n; i++)
                if (s[i].first <= t && t <= s[i].last) alive += s[i].bytes;
            if (alive > need) need = alive;
        }
        CHECK(total >= need && total <= 2 * need);
        for (int i = 0; i < n; i++) {
            CHECK(s[i].offset + s[i].bytes <= total && s[i].offset % 64 == 0);
            for (int k = 0; k < i; k++)
                CHECK(!s[i].bytes || !s[k].bytes || s[i].last < s[k].first || s[k].last < s[i].first ||
                      s[i].offset + s[i].bytes <= s[k].offset || s[k].offset + s[k].bytes <= s[i].offset);
        }
    }
}

TEST(pack_of_nothing) {
    dr_span s[2] = {{0}, {0}};
    CHECK(dr_pack(s, 0) == 0 && dr_pack(s, 2) == 0 && s[1].offset == 0);
}

/* ---- plans ---------------------------------------------------------------------------------------------------- */

typedef struct net {
    dr_backend *be;
    dr_generator g;
    dr_slot *slots;
} net;

/* Random weights that let every layer matter, the last one too. */
static dr_status net_open(net *t, dr_generator_config cfg, dr_error *err) {
    *t = (net){0};
    dr_backend_opts o = {.threads = 2};
    dr_status s = dr_backend_open("cpu", &o, &t->be, NULL, err);
    if (!s) s = dr_generator_init(&t->g, cfg, t->be, false, err);
    if (!s) s = dr_params_init_xavier(&t->g.params, 11, "G", 1.0, err);
    float bias[256];
    for (int i = 0; i < 256; i++) bias[i] = 0.3f * sinf((float)i);
    for (int i = 1; i < t->g.params.n && !s; i += 2) s = dr_params_upload(&t->g.params, i, bias, err);
    t->slots = dr_calloc((size_t)t->g.params.n, sizeof *t->slots);
    return s;
}

static void net_close(net *t) {
    for (int i = 0; i < t->g.params.n; i++) dr_slot_clear(&t->slots[i]);
    dr_free(t->slots);
    dr_generator_done(&t->g);
    dr_backend_close(t->be);
}

static void picture(dr_shape s, float *x) {
    for (size_t i = 0; i < dr_shape_count(s); i++) x[i] = sinf((float)i * 0.37f) * cosf((float)(i % 97));
}

/* What the graph gives, node by node with the simple kernels. */
static dr_status by_graph(net *t, dr_shape in, const float *x, float *y, dr_error *err) {
    dr_pool pool;
    dr_graph g;
    dr_tensor xt;
    dr_pool_init(&pool, t->be, 0);
    dr_graph_init(&g, t->be, &pool, DR_MODE_EVAL);
    dr_status s = dr_pool_tensor(&pool, in, &xt, err);
    if (!s) s = dr_be_upload(t->be, x, xt, err);
    dr_var out = s ? -1 : dr_generator_forward(&g, &t->g, dr_input(&g, xt, false), NULL);
    if (!s) s = dr_graph_run(&g, out, err);
    if (!s) s = dr_be_download(t->be, dr_var_tensor(&g, out), y, err);
    dr_graph_done(&g);
    dr_pool_done(&pool);
    return s;
}

static dr_status plan_of(net *t, dr_shape in, bool fuse, dr_plan **ret, dr_error *err) {
    dr_graph g;
    dr_graph_init(&g, NULL, NULL, DR_MODE_PLAN);
    dr_var x = dr_input(&g, (dr_tensor){.shape = in}, false), y = dr_generator_forward(&g, &t->g, x, NULL);
    dr_status s = dr_plan_build(&g, x, y, t->be, fuse, t->g.params.p, t->g.params.n, t->slots, NULL, ret, err);
    dr_graph_done(&g);
    return s;
}

static dr_status by_plan(net *t, dr_plan *p, const float *x, float *y, const dr_plan_watch *watch, dr_error *err) {
    void *block;
    dr_status s = dr_be_alloc(t->be, dr_plan_bytes(p), &block, err);
    if (s) return s;
    memset(block, 0xff, dr_plan_bytes(p)); /* NaN everywhere: reading what was not made shows */
    s = dr_be_upload(t->be, x, dr_plan_input(p, block), err);
    if (!s) s = dr_plan_run(p, block, watch, err);
    if (!s) s = dr_be_download(t->be, dr_plan_output(p, block), y, err);
    dr_be_free(t->be, block);
    return s;
}

static void compare(void) {
    static const dr_generator_config cfgs[] = {{16, 1, 0}, {16, 2, 3}, {16, 3, 1}, {32, 2, 0}};
    static const dr_shape shapes[] = {{1, 3, 16, 16}, {1, 3, 20, 36}, {2, 3, 24, 16}};
    static float x[2 * 3 * 24 * 36], want[sizeof x / sizeof *x], got[sizeof x / sizeof *x];
    for (int c = 0; c < 4; c++) {
        net t;
        dr_error err = {0};
        CHECK_MSG(!net_open(&t, cfgs[c], &err), "%s", err.text);
        for (int k = 0; k < 3; k++) {
            size_t n = dr_shape_count(shapes[k]);
            picture(shapes[k], x);
            CHECK_MSG(!by_graph(&t, shapes[k], x, want, &err), "%s", err.text);
            double spread = 0;
            for (size_t i = 0; i < n; i++) spread += fabs((double)want[i] - (double)x[i]);
            CHECK(spread / (double)n > 0.05); /* the net does something */
            for (int fuse = 0; fuse < 2; fuse++) {
                dr_plan *p;
                CHECK_MSG(!plan_of(&t, shapes[k], fuse, &p, &err), "%s", err.text);
                for (int again = 0; again < 2; again++) { /* the second time the slots are filled */
                    memset(got, 0, sizeof got);
                    CHECK_MSG(!by_plan(&t, p, x, got, NULL, &err), "%s", err.text);
                    for (size_t i = 0; i < n; i++)
                        CHECK_MSG(fabsf(got[i] - want[i]) < 2e-5f, "cfg %d shape %d fuse %d: %zu: %g %g", c, k, fuse, i,
                                  (double)got[i], (double)want[i]);
                }
                dr_plan_destroy(p);
            }
        }
        net_close(&t);
    }
}

TEST(plan_gives_what_the_graph_gives) {
    compare();
}

/* Machines without AMX fuse less: other steps, the same picture. */
TEST(plan_gives_what_the_graph_gives_without_amx) {
    dr_cpu_conv_limit(false);
    compare();
    dr_cpu_conv_limit(true);
}

TEST(fusing_saves_steps_and_memory) {
    net t;
    dr_error err = {0};
    CHECK_MSG(!net_open(&t, (dr_generator_config){16, 3, 1}, &err), "%s", err.text);
    if (!dr_be_is_fused(t.be)) {
        net_close(&t);
        SKIP("this backend has no fused entries");
    }
    dr_plan *a, *b;
    dr_shape in = {1, 3, 256, 256};
    CHECK(!plan_of(&t, in, false, &a, &err) && !plan_of(&t, in, true, &b, &err));
    /* 12 convolutions, 11 norms of two steps; pad in, pad of the first block, blur up, pad out... of which three fuse
     */
    CHECK_MSG(dr_plan_steps(b) < dr_plan_steps(a), "%d %d", dr_plan_steps(a), dr_plan_steps(b));
    /* 12 convolutions, 11 norms of at most two steps each, 3 sums in them, tanh, residual, blur up, first two pads */
    CHECK_MSG(dr_plan_steps(b) <= 12 + 2 * 11 + 5, "%d", dr_plan_steps(b));
    CHECK(dr_plan_bytes(b) < dr_plan_bytes(a));
    /* the floor: 16 channels into 32 at full size, and the picture */
    size_t full = 256 * 256 * 16 * 4;
    CHECK_MSG(dr_plan_bytes(b) < 3 * full + full / 3, "%zu", dr_plan_bytes(b));
    dr_plan_destroy(a);
    dr_plan_destroy(b);
    net_close(&t);
}

TEST(cancel_and_progress) {
    net t;
    dr_error err = {0};
    CHECK_MSG(!net_open(&t, (dr_generator_config){16, 1, 0}, &err), "%s", err.text);
    dr_shape in = {1, 3, 16, 16};
    static float x[3 * 256], y[3 * 256];
    picture(in, x);
    dr_plan *p;
    CHECK(!plan_of(&t, in, true, &p, &err));
    atomic_bool cancel = true;
    _Atomic float progress = 0;
    dr_plan_watch w = {.cancel = &cancel, .progress = &progress, .from = 0.2f, .to = 0.8f};
    CHECK(by_plan(&t, p, x, y, &w, &err) == DR_CANCELLED && progress == 0);
    cancel = false;
    err = (dr_error){0};
    CHECK(!by_plan(&t, p, x, y, &w, &err) && fabsf(progress - 0.8f) < 1e-6f);
    dr_plan_destroy(p);
    net_close(&t);
}

TEST(every_failing_call_comes_back) {
    net t;
    dr_error err = {0};
    CHECK_MSG(!net_open(&t, (dr_generator_config){16, 1, 1}, &err), "%s", err.text);
    dr_shape in = {1, 3, 16, 16};
    static float x[3 * 256], y[3 * 256];
    picture(in, x);
    for (long n = 1;; n++) {
        dr_plan *p;
        CHECK(!plan_of(&t, in, n & 1, &p, &err));
        dr_backend_fail_after(n);
        dr_error e = {0};
        dr_status s = by_plan(&t, p, x, y, NULL, &e);
        dr_backend_fail_after(0);
        dr_plan_destroy(p);
        CHECK((!s || e.code == s) && n < 500);
        if (!s && n % 2 == 0) break;
    }
    for (long n = 1;; n++) {
        dr_plan *p = NULL;
        dr_alloc_fail_after(n, true);
        dr_error e = {0};
        dr_status s = plan_of(&t, in, true, &p, &e);
        dr_alloc_fail_after(0, false);
        CHECK(!s == !!p && n < 500);
        dr_plan_destroy(p);
        if (!s) break;
    }
    net_close(&t);
}

TEST(graph_errors_come_out) {
    net t;
    dr_error err = {0};
    CHECK_MSG(!net_open(&t, (dr_generator_config){16, 1, 0}, &err), "%s", err.text);
    dr_plan *p = NULL;
    CHECK(plan_of(&t, (dr_shape){1, 3, 2, 16}, true, &p, &err) == DR_INVALID && !p && err.text[0]);
    net_close(&t);
}
