/* test_parity_net.c - whole networks on the CUDA module against the CPU backend: the generator as it is served, and a
 * training step with its losses and every gradient tensor by name.
 *
 * The emulated module (build/cusim) computes with the real kernels' sources, bf16 storage included; only convolutions
 * are plain loops. Where DERAIN_GPU_TEST is set, the module of DERAIN_MODULE_DIR runs on its device. */
#include "core/derain.h"
#include "core/model/engine.h"
#include "core/model/weights.h"
#include "core/train/step.h"
#include "tests/cuda/parity.h"

#include <unistd.h>

static dr_error err;

/* ---- inference -------------------------------------------------------------------------------------------------- */

static dr_status model_file(const char *path, int blocks, int residual) {
    dr_backend *be;
    dr_generator g;
    dr_status s = dr_backend_open("cpu", &(dr_backend_opts){.threads = 1}, &be, NULL, &err);
    if (s) return s;
    s = dr_generator_init(&g, (dr_generator_config){16, blocks, residual}, be, false, &err);
    if (!s) s = dr_params_init_xavier(&g.params, 21, "x", 1.0, &err);
    dr_st_writer *w = dr_st_writer_create();
    dr_st_writer_metaf(w, "derain.residual", "%d", residual);
    dr_weights_save(w, "", &g.params, NULL, DR_ST_F32);
    if (!s) s = dr_st_writer_save(w, path, &err);
    dr_st_writer_destroy(w);
    dr_generator_done(&g);
    dr_backend_close(be);
    return s;
}

static dr_status forward(const char *backend, bool f32, const char *path, const float *x, int w, int h, float *y) {
    dr_engine *e = NULL;
    dr_model *m = NULL;
    dr_engine_opts o = {.backend = backend, .threads = 1, .full_f32 = f32};
    dr_status s = dr_engine_open(&o, &e, &err);
    if (!s) s = dr_model_open(e, path, &m, &err);
    for (int i = 0; i < 2 && !s; i++) s = dr_model_forward(m, x, w, h, y, &err); /* the second from prepared weights */
    dr_model_close(m);
    dr_engine_close(e);
    return s;
}

/* Largest difference, and that of 8-bit pixels with their PSNR. */
static void compare(int w, int h, int residual, bool f32) {
    char path[64];
    size_t n = 3 * (size_t)w * (size_t)h;
    float *x = malloc(3 * n * sizeof *x), *a = x + n, *b = x + 2 * n;
    dr_rng r;
    dr_rng_seed(&r, 9, 9);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)fmin(1, fmax(-1, 0.7 * sin((double)i * 0.013) + dr_rng_range(&r, -0.3, 0.3)));
    snprintf(path, sizeof path, "/tmp/test_parity_%ld", (long)getpid());
    err = (dr_error){0};
    dr_status s = model_file(path, 3, residual);
    if (!s) s = forward("cpu", true, path, x, w, h, a);
    if (!s) s = forward("cuda", f32, path, x, w, h, b);
    unlink(path);
    double most = 0, square = 0;
    int levels = 0;
    for (size_t i = 0; i < n && !s; i++) {
        int u = (int)lround(fmin(1, fmax(-1, (double)a[i])) * 127.5),
            v = (int)lround(fmin(1, fmax(-1, (double)b[i])) * 127.5);
        most = fmax(most, fabs((double)a[i] - (double)b[i]));
        levels = abs(u - v) > levels ? abs(u - v) : levels;
        square += (double)((u - v) * (u - v)) / (double)n;
    }
    free(x);
    CHECK_MSG(!s, "%s", err.text);
    double psnr = square > 0 ? 10 * log10(255.0 * 255.0 / square) : 99;
    if (f32)
        CHECK_MSG(most <= 1e-4, "%dx%d residual %d: largest difference %g", w, h, residual, most);
    else
        CHECK_MSG(levels <= 2 && psnr >= 48, "%dx%d residual %d: %d grey levels, %.1f dB", w, h, residual, levels,
                  psnr);
    printf("# %dx%d residual %d %s: %.2g, %d levels, %.1f dB\n", w, h, residual, f32 ? "f32" : "bf16", most, levels,
           psnr);
}

TEST(generator_equals_the_cpu_in_f32) {
    compare(16, 16, 0, true);
    if (!t_bad) compare(37, 22, 1, true);
    if (!t_bad) compare(40, 24, 3, true);
}

TEST(generator_is_within_two_levels_in_bf16) {
    compare(16, 16, 1, false);
    if (!t_bad) compare(48, 40, 0, false);
    if (!t_bad) compare(64, 48, 3, false);
}

/* ---- training --------------------------------------------------------------------------------------------------- */

typedef struct training {
    dr_backend *be;
    dr_nets nets;
    dr_step step;
    dr_train_metrics m;
} training;

static dr_status open_training(training *t, const char *backend, dr_precision p, const dr_objective *obj,
                               const dr_train_opts *o) {
    *t = (training){0};
    dr_nets_config c = {.g = {o->ngf, o->blocks, o->residual}, .d = {o->ndf, o->d_layers}, .ema = true};
    dr_status s = dr_backend_open(backend, &(dr_backend_opts){.threads = 1, .precision = p}, &t->be, NULL, &err);
    if (!s) s = dr_nets_init(&t->nets, &c, t->be, &err);
    if (!s) s = dr_nets_random(&t->nets, 3, 1.0, &err);
    if (s) return s;
    /* a last layer of zeros would leave most gradients at zero */
    s = dr_params_init_xavier(&t->nets.g[0].params, 4, "G_A", 1.0, &err);
    dr_step_init(&t->step, &t->nets, obj);
    t->step.lr = o->lr;
    t->step.lr_f = o->lr_f;
    t->step.ema_decay = 0.999;
    t->step.seed = 6;
    return s;
}

static void close_training(training *t) {
    if (t->step.nets) dr_step_done(&t->step);
    if (t->nets.be) dr_nets_done(&t->nets);
    if (t->be) dr_backend_close(t->be);
}

/* Smooth pictures: with noise, ReLUs and hinges switch by rounding alone. */
static void pictures(float *x, int n, int crop, double phase) {
    for (int i = 0; i < n * 3; i++)
        for (int y = 0; y < crop; y++)
            for (int k = 0; k < crop; k++)
                *x++ = (float)(0.5 * sin(0.13 * k + phase + i) + 0.4 * cos(0.09 * y * (1 + 0.1 * i) - phase));
}

/* Does the gradient of this parameter mean anything? Biases before an instance norm have none. */
static void compare_gradients(training *a, training *b, dr_net net, double tol) {
    dr_params *pa = dr_nets_params(&a->nets, net), *pb = dr_nets_params(&b->nets, net);
    double most = 0;
    const char *name = "";
    for (int i = 0; i < pa->n; i++) {
        size_t n = dr_param_count(&pa->p[i]);
        float *ga = malloc(2 * n * sizeof *ga), *gb = ga + n;
        dr_status s = dr_be_download_raw(a->be, pa->p[i].grad, ga, n * sizeof *ga, &err);
        if (!s) s = dr_be_download_raw(b->be, pb->p[i].grad, gb, n * sizeof *gb, &err);
        double d = s ? INFINITY : distance(ga, gb, n);
        free(ga);
        if (d > most) {
            most = d;
            name = pa->p[i].name;
        }
    }
    printf("# %s: gradients within %.2g (%s)\n", dr_net_name(net), most, name);
    CHECK_MSG(most <= tol, "%s.%s: relative distance %g", dr_net_name(net), name, most);
}

static void one_step(const char *preset, int batch, dr_precision p, double tol_loss, double tol_grad) {
    dr_train_opts o;
    dr_objective obj;
    dr_train_opts_init(&o);
    o.preset = preset;
    o.ngf = o.ndf = 16;
    o.blocks = 5;
    o.crop = 64;
    o.d_layers = 2;
    o.batch = batch;
    o.steps = 100;
    err = (dr_error){0};
    CHECK_MSG(!dr_preset_fill(&o, &obj, &err), "%s", err.text);
    training a, b;
    size_t n = (size_t)batch * 3 * 64 * 64;
    float *x = malloc(2 * n * sizeof *x);
    pictures(x, batch, 64, 0.3);
    pictures(x + n, batch, 64, 1.1);
    dr_status s = open_training(&a, "cpu", DR_PREC_F32, &obj, &o);
    if (!s) s = open_training(&b, "cuda", p, &obj, &o);
    if (!s) s = dr_step_run(&a.step, 0, 1.0, batch, 64, x, x + n, &a.m, &err);
    if (!s) s = dr_step_run(&b.step, 0, 1.0, batch, 64, x, x + n, &b.m, &err);
    free(x);
    CHECK_MSG(!s, "%s", err.text);
    CHECK(a.m.n == b.m.n && a.m.n > 3);
    for (int i = 0; i < a.m.n; i++) {
        double d = fabs(a.m.value[i] - b.m.value[i]) / (fabs(a.m.value[i]) + 1e-3);
        CHECK_MSG(d <= tol_loss, "%s: %g, cpu %g", a.m.name[i], b.m.value[i], a.m.value[i]);
    }
    for (dr_net k = 0; k < DR_NETS && !t_bad; k++) {
        bool head = k == DR_NET_F1 || k == DR_NET_F2, second = k == DR_NET_G_B;
        if ((second && !obj.dual) || (head && !(obj.w_nce > 0))) continue;
        compare_gradients(&a, &b, k, tol_grad);
    }
    close_training(&a);
    close_training(&b);
}

TEST(step_of_product_equals_the_cpu_in_f32) {
    one_step("product", 2, DR_PREC_F32, 1e-3, 1e-3);
}
TEST(step_of_released_equals_the_cpu_in_f32) {
    one_step("released", 1, DR_PREC_F32, 1e-3, 1e-3);
}
TEST(step_of_product_is_near_the_cpu_in_bf16) {
    one_step("product", 2, DR_PREC_BF16, 2e-2, 2e-2);
}
TEST(step_of_released_is_near_the_cpu_in_bf16) {
    one_step("released", 1, DR_PREC_BF16, 2e-2, 2e-2);
}
