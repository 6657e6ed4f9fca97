/* test_golden_train.c - training steps against PyTorch: tests/golden/make_train.py made the expected numbers.
 *
 * Same weights, pictures and patch positions on both sides, all from the hash. `released`: every loss of ten steps and
 * every gradient tensor of step 1 by its name; then shorter runs of the cycle and extra contrastive terms, of `full`
 * (with broad colours and spectra, by torch.fft) and of the rain transplant. The tolerances are those of float32
 * against PyTorch: losses 1e-3 relative, ||d|| <= 1e-3 ||ref|| + 1e-7 sqrt(n) for a gradient. ||d|| is estimated from
 * 64 random projections, so the limit is taken as 0.8 of that: an estimate below it means with 99 % certainty that the
 * norm itself is within the limit. */
#include "tests/golden/train_run.h"
#include "tests/t.h"

/* Largest relative difference of the losses of this step; infinite where a loss is missing or unknown. */
static double compare_losses(const fixture *f, const dr_train_metrics *m) {
    double worst = m->n == f->run->n_losses ? 0 : INFINITY;
    if (isinf(worst)) printf("# %d losses, PyTorch has %d\n", m->n, f->run->n_losses);
    for (int i = 0; i < f->run->n_losses; i++) {
        const golden_loss *l = &f->run->losses[i];
        double want = l->value[f->at - 1], d = INFINITY;
        for (int k = 0; k < m->n; k++)
            if (!strcmp(m->name[k], l->name)) d = fabs(m->value[k] - want) / fabs(want);
        if (!(d <= 1e-3)) printf("# step %d: %s is off by %.2g (expected %.7g)\n", f->at, l->name, d, want);
        worst = d > worst || isnan(d) ? d : worst;
    }
    return worst;
}

/* Largest estimate of ||d|| over its limit; infinite where an exact zero is not one. Tensors above `report` are named.
 */
static double compare_gradients(const fixture *f, dr_nets *nets, double report) {
    double worst = 0;
    for (int i = 0; i < f->run->n_tensors; i++) {
        const golden_tensor *t = &f->run->tensors[i];
        dr_params *ps;
        int at;
        double p[64], sum = 0, ratio = 0;
        if (!find_param(nets, t->name, &ps, &at) ||
            dr_be_download_raw(ps->be, ps->p[at].grad, f->data, t->n * sizeof(float), &err))
            return INFINITY;
        for (size_t k = 0; t->zero && k < t->n; k++)
            if (f->data[k] != 0) ratio = INFINITY;
        if (!t->zero) {
            hg_project(t->name, f->data, t->n, p);
            for (int k = 0; k < 64; k++) sum += (p[k] - t->projection[k]) * (p[k] - t->projection[k]) / 64;
            ratio = sqrt(sum) / (1e-3 * t->norm + 1e-7 * sqrt((double)t->n));
        }
        if (!(ratio <= report)) printf("# gradient of %s: %.3g of what is allowed\n", t->name, ratio);
        worst = ratio > worst || isnan(ratio) ? ratio : worst;
    }
    return worst;
}

static void check_run(const char *name, const golden_run *run, const dr_objective *obj, double lr, double lr_f,
                      int d_layers, int residual, double tolerance) {
    fixture f = {0};
    dr_train_metrics m = {0};
    double loss = 0, grad = 0;
    dr_status s = open_fixture(&f, "cpu", DR_PREC_F32, run, obj, lr, lr_f, d_layers, residual);
    for (int k = 0; !s && k < f.run->steps; k++) {
        if ((s = run_step(&f, &m))) break;
        double d = compare_losses(&f, &m);
        loss = d > loss || isnan(d) ? d : loss;
        if (k == 0) grad = compare_gradients(&f, &f.nets, 0.8 * tolerance);
    }
    int steps = f.at;
    close_fixture(&f);
    CHECK_MSG(!s, "%s", err.text);
    printf("# %s: losses of %d steps within %.2g; gradients at most %.2g of what is allowed\n", name, steps, loss,
           grad);
    CHECK(loss <= 1e-3);
    CHECK(grad <= 0.8 * tolerance);
}

/* The objective and the rates are those of the preset, so that the preset is checked too. */
TEST(released_agrees_with_pytorch) {
    dr_train_opts o;
    dr_objective obj;
    dr_train_opts_init(&o);
    o.preset = "released";
    err = (dr_error){0};
    CHECK_MSG(!dr_preset_fill(&o, &obj, &err), "%s", err.text);
    check_run("released", &golden_released, &obj, o.lr, o.lr_f, o.d_layers, o.residual, 1);
}

/* The trainer's weight is that of the mean over both directions, METHOD.md's that of each: twice its number. Twice the
 * tolerance: so many ReLUs take part that a few are switched by rounding alone (make_train.py). */
TEST(cycle_and_extra_contrast_agree_with_pytorch) {
    const dr_objective obj = {
        .w_gan = 1, .w_nce = 2, .w_idt = 1, .w_cycle = 20, .w_nce_extra = 2, .dual = true, .g_gan = DR_GAN_HINGE_REAL};
    check_run("cycle", &golden_cycle, &obj, 1e-4, 1e-3, 3, 0, 2);
}

/* The preset's own objective and rates again; the limits are those of the cycle. */
TEST(full_agrees_with_pytorch) {
    dr_train_opts o;
    dr_objective obj;
    dr_train_opts_init(&o);
    o.preset = "full";
    err = (dr_error){0};
    CHECK_MSG(!dr_preset_fill(&o, &obj, &err), "%s", err.text);
    check_run("full", &golden_full, &obj, o.lr, o.lr_f, o.d_layers, o.residual, 2);
}

TEST(rain_transplant_agrees_with_pytorch) {
    const dr_objective obj = {.w_gan = 1, .w_idt = 10, .w_transplant = 10, .g_gan = DR_GAN_NEG_MEAN};
    check_run("transplant", &golden_transplant, &obj, 2e-4, 1e-3, 2, 1, 1);
}

/* The comparison itself must notice an objective that is almost right: its gradients, not yet the losses of the first
 * step. */
static void check_seen(const golden_run *run, const dr_objective *obj, double tolerance) {
    fixture f = {0};
    dr_train_metrics m = {0};
    double grad = 0, loss = 0;
    dr_status s = open_fixture(&f, "cpu", DR_PREC_F32, run, obj, 1e-4, 1e-3, 3, 0);
    if (!s) s = run_step(&f, &m);
    if (!s) {
        loss = compare_losses(&f, &m);
        grad = compare_gradients(&f, &f.nets, INFINITY);
    }
    close_fixture(&f);
    CHECK_MSG(!s, "%s", err.text);
    printf("# seen with %.3g of what is allowed\n", grad / tolerance);
    CHECK(loss <= 1e-3);
    CHECK(grad > tolerance);
}

TEST(a_slightly_wrong_weight_is_seen) {
    const dr_objective identity = {.w_gan = 1, .w_nce = 2, .w_idt = 1.01, .dual = true, .g_gan = DR_GAN_HINGE_REAL};
    check_seen(&golden_released, &identity, 1);
    dr_objective full = {.w_gan = 1,
                         .w_nce = 2,
                         .w_idt = 1,
                         .w_cycle = 20,
                         .w_nce_extra = 2,
                         .w_color = 10,
                         .w_freq = 0.3, /* 0.2 is right */
                         .dual = true,
                         .g_gan = DR_GAN_HINGE_REAL};
    check_seen(&golden_full, &full, 2);
    full.w_freq = 0.2;
    full.w_color = 10.05;
    check_seen(&golden_full, &full, 2);
}
