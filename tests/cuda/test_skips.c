/* test_skips.c - a step in which something is not finite, on the CPU and on the module: it changes nothing, or only
 * what its first half has learned, and says why.
 *
 * What is spoiled: a value of a loss by dr_backend_poison(), gradients by a table that is laid over the backend's, the
 * picture, a weight. What must stay is compared bit by bit: weights and moments of each net. */
#include "tests/cuda/emulated.h"
#include "tests/golden/train_run.h"
#include "tests/t.h"

static const dr_objective transplant = {.w_gan = 1, .w_idt = 10, .w_transplant = 10, .g_gan = DR_GAN_NEG_MEAN};
static const dr_objective released = {.w_gan = 1, .w_nce = 2, .w_idt = 1, .dual = true, .g_gan = DR_GAN_HINGE_REAL};

/* Weights and moments of each net on the host. */
typedef struct snapshot {
    float *v[DR_NETS];
    size_t n[DR_NETS];
} snapshot;

static dr_status take_snapshot(dr_nets *m, snapshot *ret) {
    dr_status s = DR_OK;
    *ret = (snapshot){0};
    for (dr_net i = 0; i < DR_NETS && !s; i++) {
        const dr_params *ps = dr_nets_params(m, i);
        const float *from[] = {ps->value, m->adam_m[i], m->adam_v[i]};
        ret->n[i] = ps->floats;
        ret->v[i] = malloc(3 * ps->floats * sizeof(float));
        for (int k = 0; k < 3 && !s; k++)
            s = dr_be_download_raw(m->be, from[k], ret->v[i] + (size_t)k * ps->floats, ps->floats * sizeof(float),
                                   &err);
    }
    return s;
}

static void drop_snapshot(snapshot *s) {
    for (int i = 0; i < DR_NETS; i++) free(s->v[i]);
}

/* The nets that differ: "D_A D_B". */
static const char *changed(const snapshot *a, const snapshot *b) {
    static char names[DR_NETS * 4 + 1];
    *names = 0;
    for (dr_net i = 0; i < DR_NETS; i++)
        if (memcmp(a->v[i], b->v[i], 3 * a->n[i] * sizeof(float))) {
            strcat(names, *names ? " " : "");
            strcat(names, dr_net_name(i));
        }
    return names;
}

static const dr_backend_ops *good_ops;
static dr_backend_ops bad_ops;
static int bad_calls;

/* Infinite gradients of losses that are finite themselves. */
static dr_status endless_l1_bwd(dr_backend *be, dr_tensor a, dr_tensor b, float g, dr_tensor da, dr_error *e) {
    return good_ops->l1_bwd(be, a, b, bad_calls++ ? g : INFINITY, da, e);
}
static dr_status endless_gan_bwd(dr_backend *be, dr_gan_loss mode, dr_tensor s, float g, dr_tensor ds, dr_error *e) {
    return good_ops->gan_bwd(be, mode, s, bad_calls++ ? g : INFINITY, ds, e);
}

typedef enum spoil { NOTHING, A_LOSS, L1_BWD, GAN_BWD, A_PIXEL, A_WEIGHT } spoil;

/* One step of a run, spoiled somehow; then a good one, which must not be left out. Which nets the first has changed,
 * and whether these changed as they do in a step that is not spoiled. */
static void one_spoiled_step(const char *backend, dr_precision p, const golden_run *run, const dr_objective *obj,
                             int d_layers, int residual, spoil what, long nth, const char *not_finite,
                             const char *may_change) {
    fixture f, clean;
    snapshot before = {0}, after = {0}, want = {0};
    dr_train_metrics m = {0}, m2 = {0};
    char name[64], got[DR_NETS * 4 + 1] = "";
    dr_status s = open_fixture(&f, backend, p, run, obj, 1e-4, 1e-3, d_layers, residual);
    dr_image_pool pool_a = {0}, pool_b = {0};
    if (!s) s = dr_image_pool_init(&pool_a, 2, 3 * (size_t)run->crop * (size_t)run->crop, 1, &err);
    if (!s) s = dr_image_pool_init(&pool_b, 2, 3 * (size_t)run->crop * (size_t)run->crop, 2, &err);
    f.step.pool_a = &pool_a, f.step.pool_b = &pool_b;
    if (!s && what == A_WEIGHT) {
        const float nan = NAN;
        s = dr_be_upload_raw(f.be, &nan, f.nets.g[0].params.p[2].value, sizeof nan, &err);
    }
    if (!s) s = take_snapshot(&f.nets, &before);
    if (!s) {
        bad_ops = *(good_ops = f.be->ops);
        bad_calls = 0;
        if (what == L1_BWD) bad_ops.l1_bwd = endless_l1_bwd;
        if (what == GAN_BWD) bad_ops.gan_bwd = endless_gan_bwd;
        f.be->ops = &bad_ops;
        dr_backend_poison(what == A_LOSS ? nth : 0, 1);
        int crop = run->crop;
        float *a = f.data, *b = f.data + 3 * crop * crop;
        f.at = 1;
        snprintf(name, sizeof name, "a.1.%d", run->seed);
        hg_smooth_picture(name, 3, crop, run->cell, a);
        snprintf(name, sizeof name, "b.1.%d", run->seed);
        hg_smooth_picture(name, 3, crop, run->cell, b);
        if (what == A_PIXEL) a[77] = INFINITY;
        s = dr_step_run(&f.step, 0, 1.0, 1, crop, a, b, &m, &err);
        f.be->ops = good_ops;
        dr_backend_poison(0, 0);
    }
    if (!s) s = take_snapshot(&f.nets, &after);
    if (!s) snprintf(got, sizeof got, "%s", changed(&before, &after));
    const int pooled = pool_a.count;
    if (!s && what != A_WEIGHT) s = run_step(&f, &m2);
    /* what did change, changed as it should */
    bool as_ever = true;
    if (!s && *may_change) {
        s = open_fixture(&clean, backend, p, run, obj, 1e-4, 1e-3, d_layers, residual);
        dr_train_metrics m3 = {0};
        if (!s) s = run_step(&clean, &m3);
        if (!s) s = take_snapshot(&clean.nets, &want);
        for (dr_net i = DR_NET_D_A; !s && i <= DR_NET_D_B; i++)
            as_ever = as_ever && !memcmp(want.v[i], after.v[i], 3 * want.n[i] * sizeof(float));
        drop_snapshot(&want);
        close_fixture(&clean);
    }
    drop_snapshot(&before);
    drop_snapshot(&after);
    close_fixture(&f);
    dr_image_pool_done(&pool_a);
    dr_image_pool_done(&pool_b);
    CHECK_MSG(!s, "%s", err.text);
    CHECK_MSG(m.skipped && m.n == 0 && m.not_finite && !strcmp(m.not_finite, not_finite), "%s: %s", not_finite,
              m.skipped ? m.not_finite : "not left out");
    CHECK_MSG(!strcmp(got, may_change), "%s: changed: %s", not_finite, got);
    CHECK_MSG(as_ever, "%s: the discriminators learned something else", not_finite);
    CHECK_MSG(what == A_WEIGHT || (!m2.skipped && m2.n > 3), "%s: the next step is left out too", not_finite);
    CHECK_MSG(pooled == (what == A_PIXEL || what == A_WEIGHT ? 0 : 1), "%s: %d fakes in the pool", not_finite, pooled);
}

/* Losses of a step in order, each half's followed by a check of each net. */
static void skipped_steps(const char *backend, dr_precision p) {
    const golden_run *t = &golden_transplant;
    const dr_objective *o = &transplant;
    one_spoiled_step(backend, p, t, o, 2, 1, A_LOSS, 1, "d_A_real", "");
    if (!t_bad) one_spoiled_step(backend, p, t, o, 2, 1, A_LOSS, 4, "d_B_fake", "");
    if (!t_bad) one_spoiled_step(backend, p, t, o, 2, 1, GAN_BWD, 0, "D_B", "");
    if (!t_bad) one_spoiled_step(backend, p, t, o, 2, 1, A_LOSS, 7, "adv_A", "D_A D_B");
    if (!t_bad) one_spoiled_step(backend, p, t, o, 2, 1, L1_BWD, 0, "G_A", "D_A D_B");
    if (!t_bad) one_spoiled_step(backend, p, t, o, 2, 1, A_PIXEL, 0, "d_A_fake", "");
    if (!t_bad) one_spoiled_step(backend, p, t, o, 2, 1, A_WEIGHT, 0, "d_A_fake", "");
    if (!t_bad) one_spoiled_step(backend, p, &golden_released, &released, 3, 0, A_LOSS, 8, "adv_B", "D_A D_B");
}

TEST(on_the_cpu) {
    skipped_steps("cpu", DR_PREC_F32);
}
TEST(on_the_module_in_f32) {
    skipped_steps("cuda", DR_PREC_F32);
}
TEST(on_the_module_in_bf16) {
    skipped_steps("cuda", DR_PREC_BF16);
}
