/* test_bands.c - a picture in bands is the picture as a whole: for every bound of what is kept and every height of
 * bands, within the memory that was planned, for any number of threads, broken off or failing at any call. */
#include "tests/core/bands.h"

#include "core/cpu/conv.h"
#include "core/image/codec.h"
#include "core/model/engine.h"
#include "core/model/weights.h"
#include <unistd.h>

static dr_error err;

static dr_status open_net(net *t, int threads, dr_generator_config cfg) {
    err = (dr_error){0};
    return net_open(t, "cpu", &(dr_backend_opts){.threads = threads}, cfg, &err);
}

/* ---- the same picture ------------------------------------------------------------------------------------------- */

/* Square, tall, flat, the smallest, and sides that are no multiple of a band. */
static const dr_shape shapes[] = {{1, 3, 16, 16},  {1, 3, 20, 36}, {1, 3, 84, 20}, {1, 3, 16, 120},
                                  {1, 3, 132, 16}, {2, 3, 60, 28}, {1, 3, 68, 44}};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0], N_BOUNDS = 4 };

static void compare_all(net *t, int n_bounds) {
    static const int heights[] = {4, 8, 16, 40, 1000};
    double most = 0;
    int ties = 0;
    for (int k = 0; k < N_SHAPES; k++)
        for (int bound = 0; bound < n_bounds; bound++)
            for (int i = 0; i < 5; i++) {
                net_result r;
                CHECK_MSG(!net_compare(t, shapes[k], bound, heights[i], &r, &err), "%s", err.text);
                CHECK_MSG(r.most <= 2e-5 && r.levels <= 1 && !r.behind, "shape %d bound %d rows %d: %g, %d levels", k,
                          bound, heights[i], r.most, r.levels);
                CHECK_MSG(bound || r.most == 0, "all values are kept, and yet the picture is another one");
                most = fmax(most, r.most);
                ties += r.ties;
            }
    printf("# largest difference %.2g, %d samples of 8 bits differ\n", most, ties);
    CHECK(ties <= 300); /* of a million */
}

TEST(bands_give_what_the_whole_gives) {
    static const dr_generator_config cfgs[] = {{16, 2, 0}, {16, 3, 1}, {16, 2, 3}};
    for (int c = 0; c < 3 && !t_bad; c++) {
        net t;
        CHECK_MSG(!open_net(&t, 2, cfgs[c]), "%s", err.text);
        compare_all(&t, N_BOUNDS);
        net_close(&t);
    }
}

TEST(bands_give_what_the_whole_gives_without_amx) {
    net t;
    dr_cpu_conv_limit(false);
    dr_status s = open_net(&t, 2, (dr_generator_config){16, 2, 1});
    if (!s) compare_all(&t, N_BOUNDS);
    dr_cpu_conv_limit(true);
    CHECK_MSG(!s, "%s", err.text);
    net_close(&t);
}

/* Backends whose convolutions take nothing along: paddings exist, and padded sums are the skips of the blocks. Down to
 * where the blocks themselves are made by rows. */
TEST(bands_give_what_the_whole_gives_with_bare_convolutions) {
    net t;
    CHECK_MSG(!open_net(&t, 2, (dr_generator_config){16, 2, 0}), "%s", err.text);
    dr_backend_ops bare = *t.be->ops;
    const dr_backend_ops *full = t.be->ops;
    bare.conv2d_fuses = NULL;
    bare.conv2d_fused = NULL;
    t.be->ops = &bare;
    compare_all(&t, N_BOUNDS + 2);
    t.be->ops = full;
    net_close(&t);
}

/* Every op that bands know, three halvings in a row, sums of values that are made by rows, one value read twice. */
static dr_var all_ops(dr_graph *g, net *t, dr_var x) {
    dr_param *p = t->g.params.p;
    const dr_conv2d_desc k7 = {.k = 7, .pad = 0}, k3 = {.k = 3, .pad = 1};
    dr_var a = dr_conv2d(g, dr_pad_reflect(g, x, 3), &p[t->g.conv_in], &p[t->g.conv_in + 1], k7);
    dr_var n = dr_instance_norm(g, a, 1e-5f, DR_ACT_LRELU);
    dr_var s = dr_add(g, dr_scale(g, n, 0.5f), dr_activation(g, a, DR_ACT_TANH));
    dr_var d = dr_blur_down(g, dr_blur_down(g, dr_blur_down(g, s)));
    dr_var u = dr_blur_up(g, dr_blur_up(g, dr_blur_up(g, d)));
    dr_var b = dr_conv2d(g, dr_add(g, u, s), &p[t->g.down[0]], NULL, k3);
    dr_var m = dr_blur_up(g, dr_blur_down(g, dr_instance_norm(g, b, 1e-5f, DR_ACT_NONE)));
    dr_var c = dr_conv2d(g, dr_pad_reflect(g, dr_add(g, b, m), 1), &p[t->g.up[1]], NULL, (dr_conv2d_desc){.k = 3});
    dr_var e = dr_add(g, n, dr_instance_norm(g, c, 1e-5f, DR_ACT_RELU));
    dr_var y = dr_conv2d(g, dr_pad_reflect(g, e, 3), &p[t->g.conv_out], &p[t->g.conv_out + 1], k7);
    return dr_clamp(g, dr_add_bcast(g, x, -0.5f, y), -0.9f, 0.8f);
}

TEST(every_op_goes_in_bands) {
    static const int heights[] = {4, 12, 32};
    net t;
    CHECK_MSG(!open_net(&t, 2, (dr_generator_config){16, 1, 1}), "%s", err.text);
    t.forward = all_ops;
    for (int h = 16; h <= 104 && !t_bad; h += 8)
        for (int bound = 1; bound < 6; bound++)
            for (int i = 0; i < 3; i++) {
                net_result r;
                CHECK_MSG(!net_compare(&t, (dr_shape){1, 3, h, 24}, bound, heights[i], &r, &err), "%s", err.text);
                CHECK_MSG(r.most <= 1e-5 && !r.behind, "height %d bound %d rows %d: %g", h, bound, heights[i], r.most);
            }
    net_close(&t);
}

/* Losses and the like look at all rows at once. */
static dr_var not_by_rows(dr_graph *g, net *t, dr_var x) {
    (void)t;
    dr_var y = dr_l2_normalize(g, x);
    return dr_add(g, dr_scale(g, y, 2), y);
}

TEST(other_ops_are_refused) {
    net t;
    dr_plan *p = NULL;
    const dr_plan_bands o = {.kept_max = 64, .rows = 16, .cost_max = HUGE_VAL};
    CHECK_MSG(!open_net(&t, 1, (dr_generator_config){16, 1, 1}), "%s", err.text);
    t.forward = not_by_rows;
    CHECK(net_plan(&t, (dr_shape){4, 3, 1, 1}, &o, &p, &err) == DR_OK); /* that small it is kept */
    dr_plan_destroy(p);
    p = NULL;
    err = (dr_error){0};
    CHECK_MSG(net_plan(&t, (dr_shape){400, 3, 1, 1}, &o, &p, &err) == DR_UNSUPPORTED && !p, "%s", err.text);
    net_close(&t);
}

/* ---- memory ----------------------------------------------------------------------------------------------------- */

TEST(less_is_kept_in_less_memory) {
    net t;
    dr_plan *p;
    dr_error e = {0};
    const dr_shape in = {1, 3, 512, 256};
    size_t bytes[N_BOUNDS + 1];
    double cost[N_BOUNDS + 1];
    CHECK_MSG(!open_net(&t, 1, (dr_generator_config){16, 3, 1}), "%s", err.text);
    CHECK(!net_plan(&t, in, NULL, &p, &e));
    const size_t whole = dr_plan_bytes(p);
    const double work = dr_plan_total_cost(p);
    size_t bound[N_BOUNDS + 1];
    for (int k = 0; k < N_BOUNDS; k++) bound[k] = net_bound(p, k);
    dr_plan_destroy(p);
    for (int k = 0; k < N_BOUNDS; k++) {
        CHECK(!net_plan(&t, in, &(dr_plan_bands){bound[k], 64, HUGE_VAL}, &p, &e));
        bytes[k] = dr_plan_bytes(p);
        cost[k] = dr_plan_total_cost(p);
        dr_plan_destroy(p);
    }
    printf("# %zu: %zu %zu %zu bytes, work %.2f %.2f %.2f\n", whole, bytes[1], bytes[2], bytes[3], cost[1] / work,
           cost[2] / work, cost[3] / work);
    CHECK(bytes[0] == whole && cost[0] == work);
    CHECK(bytes[1] < whole / 10 * 7 && bytes[2] < whole / 20 * 9 && bytes[3] < bytes[2]);
    CHECK(cost[1] > work && cost[2] > cost[1] && cost[2] < 1.8 * work && cost[3] > cost[2]);
    err = (dr_error){0};
    CHECK(net_plan(&t, in, &(dr_plan_bands){bound[3], 64, cost[3] * 0.99}, &p, &err) == DR_TOO_LARGE);
    net_close(&t);
}

TEST(the_cheapest_plan_that_fits_is_taken) {
    net t;
    dr_plan *p = NULL;
    uint64_t least = 0, unused;
    const dr_shape in = {1, 3, 256, 160};
    CHECK_MSG(!open_net(&t, 1, (dr_generator_config){16, 2, 0}), "%s", err.text);
    CHECK(!net_fit(&t, in, UINT64_MAX, &p, NULL, &err) && p && !dr_plan_is_banded(p));
    const uint64_t whole = dr_plan_need(p);
    dr_plan_destroy(p);
    CHECK(!net_fit(&t, in, 0, &p, &least, &err) && !p && least > 0 && least < whole / 2);
    CHECK(!net_fit(&t, in, least - 1, &p, &unused, &err) && !p && unused == least);
    double before = 0;
    int kinds = 0;
    for (uint64_t limit = whole; limit >= least; limit -= limit / 16) {
        CHECK(!net_fit(&t, in, limit, &p, NULL, &err) && p);
        CHECK(dr_plan_need(p) <= limit && dr_plan_is_banded(p) == (limit < whole));
        CHECK_MSG(dr_plan_total_cost(p) >= before, "less memory for less work"); /* it would have been taken before */
        kinds += dr_plan_total_cost(p) > before;
        before = dr_plan_total_cost(p);
        dr_plan_destroy(p);
    }
    CHECK(!net_fit(&t, in, least, &p, NULL, &err) && p && dr_plan_need(p) == least);
    dr_plan_destroy(p);
    CHECK_MSG(kinds >= 4, "%d", kinds);

    dr_backend_ops plain = *t.be->ops; /* a backend without statistics of its own */
    const dr_backend_ops *full = t.be->ops;
    plain.norm_stats = NULL;
    plain.norm_apply = NULL;
    t.be->ops = &plain;
    dr_status s = net_fit(&t, in, 0, &p, &least, &err);
    t.be->ops = full;
    CHECK(!s && !p && least >= whole);
    net_close(&t);
}

/* ---- pictures through the engine --------------------------------------------------------------------------------- */

typedef struct rig {
    dr_engine *e;
    dr_model *m;
} rig;

static bool rig_open(rig *r, int threads) {
    char path[64];
    dr_st_writer *w = NULL;
    net t;
    *r = (rig){0};
    err = (dr_error){0};
    snprintf(path, sizeof path, "/tmp/test_bands_%ld", (long)getpid());
    dr_status s = open_net(&t, 1, (dr_generator_config){16, 2, 1});
    if (!s) {
        w = dr_st_writer_create();
        dr_st_writer_metaf(w, "derain.residual", "1");
        dr_weights_save(w, "", &t.g.params, NULL, DR_ST_F32);
        s = dr_st_writer_save(w, path, &err);
        dr_st_writer_destroy(w);
    }
    net_close(&t);
    const dr_engine_opts o = {.backend = "cpu", .threads = threads};
    if (!s) s = dr_engine_open(&o, &r->e, &err);
    if (!s) s = dr_model_open(r->e, path, &r->m, &err);
    unlink(path);
    return !s;
}

static void rig_close(rig *r) {
    dr_model_close(r->m);
    dr_engine_close(r->e);
}

static dr_image picture(int w, int h) {
    dr_image img = {0};
    if (dr_image_init(&img, w, h, 3, 8, NULL)) abort();
    for (int y = 0; y < h; y++)
        for (int i = 0; i < 3 * w; i++)
            dr_image_row8(&img, y)[i] = (uint8_t)(128 + 90 * sinf((float)(i * (y % 13 + 3)) * 0.02f) + i * y % 31);
    return img;
}

/* All that the backend's alloc gave and nobody gave back. */
static struct {
    const dr_backend_ops *to;
    size_t held, most;
    struct {
        void *p;
        size_t bytes;
    } block[64];
} count;

static dr_status count_alloc(dr_backend *be, size_t bytes, void **ret, dr_error *e) {
    for (int i = 0; i < 64; i++)
        if (!count.block[i].p) {
            dr_status s = count.to->alloc(be, bytes, ret, e);
            if (s) return s;
            count.block[i].p = *ret;
            count.block[i].bytes = bytes;
            count.held += bytes;
            if (count.held > count.most) count.most = count.held;
            return DR_OK;
        }
    abort();
}
static void count_free(dr_backend *be, void *p) {
    for (int i = 0; i < 64; i++)
        if (count.block[i].p == p) {
            count.held -= count.block[i].bytes;
            count.block[i].p = NULL;
        }
    count.to->free(be, p);
}

/* Odd sizes, many budgets: the pixels of the whole but for ties, and no byte more than was promised. */
TEST(a_budget_is_kept_and_the_picture_stays) {
    static const int sizes[][2] = {{131, 245}, {37, 400}, {333, 18}, {16, 16}};
    rig r;
    CHECK_MSG(rig_open(&r, 2), "%s", err.text);
    dr_backend_ops counting = *(count.to = r.e->be->ops);
    counting.alloc = count_alloc;
    counting.free = count_free;
    r.e->be->ops = &counting;
    for (int k = 0; k < 4 && !t_bad; k++) {
        const int w = sizes[k][0], h = sizes[k][1];
        dr_image want = picture(w, h);
        const uint64_t all = dr_model_run_bytes(r.m, w, h), least = dr_model_run_bytes_min(r.m, w, h);
        CHECK(least <= all && least > 0);
        CHECK(!dr_model_run_image(r.m, &want, 8, all, NULL, &err));
        CHECK(count.held == r.e->block_bytes);
        int levels = 0, ties = 0;
        for (int i = 0; i <= 8; i++) {
            const uint64_t budget = all - (all - least) / 8 * (uint64_t)i - (i == 8 ? (all - least) % 8 : 0);
            dr_image got = picture(w, h);
            count.most = 0;
            CHECK_MSG(!dr_model_run_image(r.m, &got, 8, budget, NULL, &err), "%s", err.text);
            CHECK_MSG(r.e->block_bytes + 28 * (uint64_t)(w * h) < budget && count.most <= r.e->block_bytes,
                      "%d x %d: %zu held of %zu", w, h, r.e->block_bytes, (size_t)budget);
            for (int y = 0; y < h; y++)
                for (int x = 0; x < 3 * w; x++) {
                    const int d = abs(dr_image_row8(&want, y)[x] - dr_image_row8(&got, y)[x]);
                    levels = d > levels ? d : levels;
                    ties += d > 0;
                }
            dr_image_done(&got);
        }
        CHECK_MSG(levels <= 1 && ties <= w * h / 100, "%d x %d: %d levels, %d ties", w, h, levels, ties);
        dr_image small = picture(w, h);
        const uint64_t below = least - 1;
        CHECK(dr_model_run_image(r.m, &small, 8, below, NULL, &err) == DR_TOO_LARGE);
        CHECK_MSG(!strcmp(err.what, "memory") && !strcmp(err.setting, "mem_budget") && err.limit == (int64_t)below &&
                      err.actual == (int64_t)least,
                  "%s", err.text);
        err = (dr_error){0};
        dr_image_done(&small);
        dr_image_done(&want);
    }
    r.e->be->ops = count.to;
    rig_close(&r);
}

TEST(the_same_pixels_for_any_number_of_threads) {
    enum { W = 90, H = 218 };
    static float x[3 * 92 * 220], y[3][sizeof x / sizeof *x], whole[sizeof x / sizeof *x];
    for (size_t i = 0; i < sizeof x / sizeof *x; i++) x[i] = sinf((float)i * 0.7f) * cosf((float)(i % 53));
    for (int part = 0; part <= 4 && !t_bad; part++) {
        for (int n = 0; n < 3; n++) {
            rig r;
            CHECK_MSG(rig_open(&r, n + 1), "%s", err.text);
            const uint64_t all = dr_model_run_bytes(r.m, W, H), least = dr_model_run_bytes_min(r.m, W, H);
            memcpy(y[n], x, sizeof x);
            CHECK(!dr_model_run_planes(r.m, y[n], 92, 220, all - (all - least) / 4 * (uint64_t)part, NULL, &err));
            rig_close(&r);
        }
        CHECK_MSG(!memcmp(y[0], y[1], sizeof x) && !memcmp(y[0], y[2], sizeof x), "part %d", part);
        if (part == 0) memcpy(whole, y[0], sizeof x);
        double most = 0;
        for (size_t i = 0; i < sizeof x / sizeof *x; i++) most = fmax(most, fabs((double)whole[i] - (double)y[0][i]));
        CHECK_MSG(most <= 2e-5, "part %d: %g", part, most);
    }
}

/* ---- broken off, failing ---------------------------------------------------------------------------------------- */

typedef struct asked {
    long n, at;
    _Atomic float progress;
    float last;
    bool rises;
} asked;

static bool between(void *arg) {
    asked *a = arg;
    const float now = atomic_load(&a->progress);
    a->rises = a->rises && now >= a->last;
    a->last = now;
    return ++a->n != a->at;
}

TEST(cancel_progress_and_between_within_a_pass) {
    net t;
    dr_plan *p;
    const dr_shape in = {1, 3, 128, 32};
    static float x[3 * 128 * 32], y[sizeof x / sizeof *x];
    CHECK_MSG(!open_net(&t, 2, (dr_generator_config){16, 2, 1}), "%s", err.text);
    net_picture(in, x);
    CHECK(!net_plan(&t, in, NULL, &p, &err));
    const dr_plan_bands o = {net_bound(p, 2), 16, HUGE_VAL};
    const int steps = dr_plan_steps(p);
    dr_plan_destroy(p);
    CHECK(!net_plan(&t, in, &o, &p, &err));
    asked a = {.rises = true};
    dr_plan_watch w = {.between = between, .between_arg = &a, .progress = &a.progress, .from = 0.1f, .to = 0.9f};
    CHECK(!net_run(&t, p, x, y, &w, NULL, &err));
    const long all = a.n;
    CHECK_MSG(all > 4 * steps && a.rises && fabsf(a.progress - 0.9f) < 1e-5f, "asked %ld times, up to %g", all,
              (double)a.progress);
    for (long at = 1; at <= all; at += 1 + all / 20) {
        a = (asked){.at = at, .rises = true};
        dr_error e = {0};
        CHECK(net_run(&t, p, x, y, &w, NULL, &e) == DR_CANCELLED && a.n == at && a.progress < 0.9f);
    }
    atomic_bool cancel = true;
    dr_error e = {0};
    CHECK(net_run(&t, p, x, y, &(dr_plan_watch){.cancel = &cancel}, NULL, &e) == DR_CANCELLED);
    dr_plan_destroy(p);
    net_close(&t);
}

TEST(every_failing_call_comes_back) {
    net t;
    const dr_shape in = {1, 3, 48, 16};
    static float x[3 * 48 * 16], y[sizeof x / sizeof *x];
    CHECK_MSG(!open_net(&t, 1, (dr_generator_config){16, 1, 1}), "%s", err.text);
    net_picture(in, x);
    const dr_plan_bands o = {40 * 16 * 16 * 4, 16, HUGE_VAL};
    long calls = 0;
    for (long n = 1;; n++) {
        dr_plan *p;
        dr_error e = {0};
        CHECK(!net_plan(&t, in, &o, &p, &err));
        dr_backend_fail_after(n);
        dr_status s = net_run(&t, p, x, y, NULL, NULL, &e);
        dr_backend_fail_after(0);
        dr_plan_destroy(p);
        CHECK_MSG(!s || (s == DR_BACKEND && e.code == s), "call %ld: %d %s", n, (int)s, e.text);
        CHECK(n < 2000);
        calls = n;
        if (!s) break;
    }
    CHECK_MSG(calls > 60, "%ld", calls);
    for (long n = 1;; n++) {
        dr_plan *p = NULL;
        dr_error e = {0};
        dr_alloc_fail_after(n, true);
        dr_status s = net_plan(&t, in, &o, &p, &e);
        dr_alloc_fail_after(0, false);
        CHECK(!s == !!p && n < 500);
        dr_plan_destroy(p);
        if (!s) break;
    }
    for (long n = 1, most = 1; n <= most; n += 1 + n / 12) {
        dr_plan *p = NULL;
        dr_error e = {0};
        uint64_t least;
        dr_alloc_fail_after(n, false);
        dr_status s = net_fit(&t, in, 0, &p, &least, &e);
        if (dr_alloc_count() > most) most = dr_alloc_count();
        dr_alloc_fail_after(0, false);
        CHECK_MSG(s == DR_NOMEM && e.code == s && !p, "allocation %ld: %d", n, (int)s);
    }
    net_close(&t);
}

/* ---- no room ----------------------------------------------------------------------------------------------------- */

/* A backend with memory for blocks of `most` bytes only. */
static size_t most;
static int n_refused, n_trimmed;

static dr_status small_alloc(dr_backend *be, size_t bytes, void **ret, dr_error *e) {
    if (bytes <= most) return count.to->alloc(be, bytes, ret, e);
    n_refused++;
    return dr_fail(e, DR_NOMEM, "no room for %zu bytes", bytes);
}
static void small_trim(dr_backend *be) {
    (void)be;
    n_trimmed++;
}
static dr_status small_info(dr_backend *be, dr_device_info *ret, dr_error *e) {
    (void)be, (void)e;
    ret->memory_free = most;
    return DR_OK;
}
/* The first n of its calls do not get the memory that they ask for. */
static int n_hungry;
static dr_status hungry_conv(dr_backend *be, dr_conv2d_desc d, dr_tensor x, const float *w, const float *b, dr_tensor y,
                             dr_slot *slot, dr_error *e) {
    if (n_hungry > 0 && n_hungry--) return dr_fail(e, DR_NOMEM, "no room for scratch");
    return count.to->conv2d(be, d, x, w, b, y, slot, e);
}

TEST(a_device_without_room_goes_on_in_bands) {
    rig r;
    enum { W = 120, H = 300 };
    CHECK_MSG(rig_open(&r, 1), "%s", err.text);
    dr_backend_ops small = *(count.to = r.e->be->ops);
    small.alloc = small_alloc;
    small.trim = small_trim;
    const uint64_t beside = 28 * W * H + (1 << 20);
    const size_t all = dr_model_run_bytes(r.m, W, H) - beside, least = dr_model_run_bytes_min(r.m, W, H) - beside;
    dr_image want = picture(W, H), little = picture(W, H);
    CHECK(!dr_model_run_image(r.m, &little, 0, least + beside, NULL, &err));
    const size_t least_block = r.e->block_bytes;
    dr_image_done(&little);
    CHECK(!dr_model_run_image(r.m, &want, 0, UINT64_MAX, NULL, &err));
    const size_t whole = r.e->block_bytes;
    r.e->be->ops = &small;
    for (int says = 0; says < 2; says++) /* it says what is free, or it only refuses */
        for (int part = 6; part >= -1; part--) {
            const size_t from = says ? least : least_block, to = says ? all : whole;
            small.info = says ? small_info : NULL;
            most = part < 0 ? from / 2 : from + (to - from) / 8 * (size_t)part + (says ? from / 16 : 0);
            n_refused = n_trimmed = 0;
            dr_image got = picture(W, H), before = picture(W, H);
            dr_be_free(r.e->be, r.e->block);
            r.e->block = NULL;
            r.e->block_bytes = r.e->scratch = 0;
            err = (dr_error){0};
            dr_status s = dr_model_run_image(r.m, &got, 0, UINT64_MAX, NULL, &err);
            int ties = 0;
            for (size_t i = 0; i < got.stride * H; i++)
                ties += ((uint8_t *)got.pixels)[i] != ((uint8_t *)want.pixels)[i];
            if (part >= (says ? 0 : 2)) CHECK_MSG(!s && ties < 100, "part %d: %s", part, err.text);
            CHECK_MSG(says ? n_refused == 0 : n_refused > 0, "part %d: refused %d times", part, n_refused);
            CHECK(n_trimmed > 0 || says);
            if (s) CHECK(s == DR_NOMEM && err.code == s && !memcmp(got.pixels, before.pixels, got.stride * H));
            if (part < 0) CHECK_MSG(s == DR_NOMEM, "half of the least was enough");
            dr_image_done(&got);
            dr_image_done(&before);
        }
    most = SIZE_MAX;
    small.conv2d = hungry_conv;
    for (int n = 1; n < 4; n++) { /* scratch memory: once it is repeated, then there is less */
        dr_image got = picture(W, H);
        n_hungry = n;
        n_trimmed = 0;
        err = (dr_error){0};
        CHECK_MSG(!dr_model_run_image(r.m, &got, 0, UINT64_MAX, NULL, &err), "%s", err.text);
        CHECK(n_trimmed == n && !err.code && (n == 1) == (r.e->block_bytes == whole));
        dr_image_done(&got);
    }
    n_hungry = 1000;
    dr_image got = picture(W, H);
    CHECK(dr_model_run_image(r.m, &got, 0, UINT64_MAX, NULL, &err) == DR_NOMEM && strstr(err.text, "scratch"));
    dr_image_done(&got);
    dr_image_done(&want);
    r.e->be->ops = count.to;
    rig_close(&r);
}
