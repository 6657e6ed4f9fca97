/* test_parity_record.c - recorded runs on the module: what is replayed is what plain calls do, to the bit; a recording
 * is given up when memory has moved; a fault at any call while recording leaves a plain run or an error, nothing stuck.
 */
#include "core/model/plan.h"
#include "core/nn/generator.h"
#include "tests/cuda/emulated.h"
#include "tests/t.h"

static dr_error err;

typedef struct rig {
    dr_backend *be;
    dr_generator g;
    dr_plan *p;
    dr_slot *slots;
    void *block;
} rig;

enum { SIDE = 16, N = 3 * SIDE * SIDE };

static dr_status rig_open(rig *r, dr_precision precision, int side) {
    *r = (rig){0};
    err = (dr_error){0};
    dr_graph g;
    dr_status s = dr_backend_open("cuda", &(dr_backend_opts){.precision = precision}, &r->be, NULL, &err);
    if (!s) s = dr_generator_init(&r->g, (dr_generator_config){16, 1, 1}, r->be, false, &err);
    if (!s) s = dr_params_init_xavier(&r->g.params, 21, "x", 1.0, &err);
    if (s) return s;
    r->slots = calloc((size_t)r->g.params.n, sizeof *r->slots);
    dr_graph_init(&g, NULL, NULL, DR_MODE_PLAN);
    dr_var x = dr_input(&g, (dr_tensor){.shape = {1, 3, side, side}}, false);
    dr_var y = dr_generator_forward(&g, &r->g, x, NULL);
    s = dr_plan_build(&g, x, y, r->be, true, r->g.params.p, r->g.params.n, r->slots, NULL, &r->p, &err);
    dr_graph_done(&g);
    if (!s) s = dr_be_alloc(r->be, dr_plan_bytes(r->p), &r->block, &err);
    return s;
}

static void rig_close(rig *r) {
    dr_plan_destroy(r->p);
    for (int i = 0; r->slots && i < r->g.params.n; i++) dr_slot_clear(&r->slots[i]);
    free(r->slots);
    dr_generator_done(&r->g);
    if (r->block) dr_be_free(r->be, r->block);
    dr_backend_close(r->be);
}

/* A run on picture number `seed`. */
static dr_status run(rig *r, int seed, void *block, float *ret) {
    float x[N];
    for (int i = 0; i < N; i++) x[i] = sinf((float)(i * (seed + 3)) * 0.07f);
    dr_status s = dr_be_upload(r->be, x, dr_plan_input(r->p, block), &err);
    if (!s) s = dr_plan_run(r->p, block, NULL, &err);
    if (!s) s = dr_be_download(r->be, dr_plan_output(r->p, block), ret, &err);
    return s;
}

TEST(replayed_runs_equal_plain_ones) {
    for (int f32 = 0; f32 < 2; f32++) {
        rig r;
        float want[3][N], got[N];
        void *own[3] = {NULL};
        CHECK_MSG(!rig_open(&r, f32 ? DR_PREC_F32 : DR_PREC_BF16, SIDE), "%s", err.text);
        for (int i = 0; i < 3; i++) { /* a block of its own each time: never recorded */
            CHECK(!dr_be_alloc(r.be, dr_plan_bytes(r.p), &own[i], &err));
            CHECK_MSG(!run(&r, i, own[i], want[i]), "%s", err.text);
            if (i == 1) CHECK(!run(&r, i, r.block, want[i]));
        }
        for (int i = 0; i < 3; i++) dr_be_free(r.be, own[i]); /* not before: the next one could lie where one was */
        CHECK(r.be->n_recorded == 0 && r.be->n_replayed == 0);
        CHECK(memcmp(want[0], want[1], sizeof got) && memcmp(want[1], want[2], sizeof got));
        for (int i = 0; i < 7; i++) {
            memset(got, 0, sizeof got);
            CHECK_MSG(!run(&r, i % 3, r.block, got), "%s", err.text);
            CHECK_MSG(!memcmp(got, want[i % 3], sizeof got), "run %d", i);
            CHECK(r.be->n_recorded == (i > 0) && r.be->n_replayed == (unsigned)i);
        }
        rig_close(&r);
    }
}

TEST(recorded_anew_when_memory_moved) {
    rig r;
    float want[N], got[N];
    CHECK_MSG(!rig_open(&r, DR_PREC_BF16, SIDE), "%s", err.text);
    for (int i = 0; i < 3; i++) CHECK(!run(&r, 1, r.block, want));
    CHECK(r.be->n_recorded == 1 && r.be->n_replayed == 2);
    /* the scratch memory grows with the largest tensor that was uploaded */
    dr_tensor big = {.shape = {1, 16, 800, 800}};
    const size_t n = 16 * 800 * 800;
    float *v = calloc(n, sizeof *v);
    CHECK(!dr_be_alloc(r.be, dr_be_tensor_bytes(r.be, big.shape), &big.data, &err));
    CHECK(!dr_be_upload(r.be, v, big, &err));
    free(v);
    CHECK(!run(&r, 1, r.block, got) && !memcmp(want, got, sizeof got));
    CHECK(r.be->n_recorded == 2 && r.be->n_replayed == 3);
    /* another block: a plain run, then a recording of that one */
    void *other = NULL;
    CHECK(!dr_be_alloc(r.be, dr_plan_bytes(r.p), &other, &err));
    for (int i = 0; i < 3; i++) CHECK(!run(&r, 1, other, got) && !memcmp(want, got, sizeof got));
    CHECK(r.be->n_recorded == 3 && r.be->n_replayed == 5);
    dr_be_free(r.be, other);
    dr_be_free(r.be, big.data);
    rig_close(&r);
}

/* A recording works in scratch memory that is gone then: it must not be replayed. */
TEST(recorded_anew_after_a_trim) {
    rig r;
    float want[N], got[N];
    CHECK_MSG(!rig_open(&r, DR_PREC_BF16, SIDE), "%s", err.text);
    for (int i = 0; i < 3; i++) CHECK(!run(&r, 1, r.block, want));
    CHECK(r.be->n_recorded == 1 && r.be->n_replayed == 2);
    for (int round = 0; round < 5; round++) { /* more often than recording may fail in a row */
        dr_be_trim(r.be);
        for (int i = 0; i < 3; i++) CHECK(!run(&r, 1, r.block, got) && !memcmp(want, got, sizeof got));
        CHECK_MSG(r.be->n_recorded == 2 + (unsigned)round, "%d", (int)r.be->n_recorded);
    }
    CHECK(r.be->n_replayed >= 2 + 5);
    rig_close(&r);
}

TEST(faults_end_in_a_plain_run_or_an_error) {
    rig r;
    float want[N], got[N];
    CHECK_MSG(!rig_open(&r, DR_PREC_BF16, SIDE), "%s", err.text);
    CHECK(!run(&r, 1, r.block, want));
    rig_close(&r);
    int failed = 0, fine = 0;
    for (long n = 1; n < 40; n += 3) {
        CHECK_MSG(!rig_open(&r, DR_PREC_BF16, SIDE), "%s", err.text);
        CHECK(!run(&r, 1, r.block, got));
        dr_backend_fail_after(n); /* somewhere in the run that records */
        dr_status s = run(&r, 1, r.block, got);
        dr_backend_fail_after(0);
        failed += s != DR_OK;
        fine += !s;
        CHECK_MSG(s || !memcmp(want, got, sizeof got), "fault %ld", n);
        for (int i = 0; i < 3; i++) CHECK(!run(&r, 1, r.block, got) && !memcmp(want, got, sizeof got));
        CHECK_MSG(r.be->n_replayed > 0, "fault %ld: never replayed again", n);
        rig_close(&r);
    }
    CHECK_MSG(fine > 3 && failed > 0, "%d fine, %d failed", fine, failed);
}

TEST(nothing_is_allocated_while_recording) {
    rig r;
    void *p = NULL;
    dr_slot slot = {0};
    CHECK_MSG(!rig_open(&r, DR_PREC_BF16, SIDE), "%s", err.text);
    CHECK(dr_be_record_end(r.be, &slot, &err) && !slot.p); /* nothing was begun */
    err = (dr_error){0};
    CHECK(!dr_be_record_begin(r.be, &err));
    CHECK(dr_be_alloc(r.be, 100, &p, &err) == DR_BACKEND && !p);
    CHECK(dr_be_record_begin(r.be, &err));
    CHECK(!dr_be_record_end(r.be, NULL, &err));
    CHECK(!dr_be_alloc(r.be, 100, &p, &err) && p);
    dr_be_free(r.be, p);
    rig_close(&r);
}

/* What is replayed goes past the table, and with it past tuning. */
TEST(tuning_goes_past_recordings) {
    rig r;
    float before[N], tuned[N], got[N];
    int n = 0;
    CHECK_MSG(!rig_open(&r, DR_PREC_F32, SIDE), "%s", err.text);
    for (int i = 0; i < 3; i++) CHECK(!run(&r, 1, r.block, before));
    CHECK(r.be->n_replayed == 2);
    CHECK(!dr_be_tune(r.be, true, NULL, &err));
    for (int i = 0; i < 2; i++) CHECK_MSG(!run(&r, 1, r.block, tuned), "%s", err.text);
    CHECK(r.be->n_replayed == 2 && r.be->n_recorded == 1);
    CHECK(!dr_be_tune(r.be, false, &n, &err) && n >= 6);
    CHECK(memcmp(before, tuned, sizeof tuned));
    for (int i = 0; i < N; i++) CHECK_MSG(fabsf(before[i] - tuned[i]) < 1e-4f, "%d: %g, %g", i, before[i], tuned[i]);
    for (int i = 0; i < 3; i++) CHECK(!run(&r, 1, r.block, got) && !memcmp(tuned, got, sizeof got));
    CHECK(r.be->n_recorded == 2 && r.be->n_replayed >= 4);
    rig_close(&r);
}

TEST(a_cancelled_run_is_not_replayed) {
    rig r;
    float y[N];
    atomic_bool cancel = false;
    _Atomic float progress = 0;
    const dr_plan_watch watch = {.cancel = &cancel, .progress = &progress, .from = 0.25f, .to = 0.75f};
    CHECK_MSG(!rig_open(&r, DR_PREC_BF16, SIDE), "%s", err.text);
    CHECK(!run(&r, 1, r.block, y));
    CHECK(!dr_plan_run(r.p, r.block, &watch, &err));
    CHECK(progress == 0.75f && r.be->n_replayed == 1);
    cancel = true;
    CHECK(dr_plan_run(r.p, r.block, &watch, &err) == DR_CANCELLED && r.be->n_replayed == 1);
    rig_close(&r);
}
