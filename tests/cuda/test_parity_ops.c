/* test_parity_ops.c - every entry of the module's table against the CPU backend's, in f32, bf16 and f16.
 *
 * Shapes: planar (channels not a multiple of 8), wide, one pixel wide, several images. */
#include "tests/cuda/parity.h"

typedef void computation(party *s, dr_shape x);

#define SHAPE(...) ((dr_shape){__VA_ARGS__})

static dr_shape sized(dr_shape x, int h, int w) {
    return SHAPE(x.n, x.c, h, w);
}

static void elementwise(party *s, dr_shape x) {
    dr_tensor a = input(s, x), b = input(s, x), y = blank(s, x);
    note(s, dr_be_add(s->be, a, b, y, &s->err));
    keep(s, y);
    note(s, dr_be_axpy(s->be, -0.7f, a, y, &s->err));
    keep(s, y);
    note(s, dr_be_scale(s->be, 1.5f, a, y, &s->err));
    keep(s, y);
    note(s, dr_be_copy(s->be, b, y, &s->err));
    keep(s, y);
    note(s, dr_be_clamp(s->be, -0.5f, 0.25f, a, y, &s->err));
    keep(s, y);
    note(s, dr_be_clamp_bwd(s->be, -0.5f, 0.25f, a, b, y, &s->err));
    keep(s, y);
    for (int act = DR_ACT_RELU; act <= DR_ACT_TANH; act++) {
        note(s, dr_be_act(s->be, (dr_act)act, a, y, &s->err));
        keep(s, y);
        note(s, dr_be_act_bwd(s->be, (dr_act)act, a, b, y, &s->err)); /* a serves as an output */
        keep(s, y);
    }
    note(s, dr_be_fill(s->be, 0.25f, y, &s->err));
    keep(s, y);
}

static void broadcast(party *s, dr_shape x) {
    dr_tensor a = input(s, x), y = blank(s, x);
    for (int c = 0; c < 2; c++) {
        dr_tensor b = input(s, SHAPE(x.n, c ? x.c : 1, x.h, x.w)), db = blank(s, b.shape);
        note(s, dr_be_add_bcast(s->be, a, -0.5f, b, y, &s->err));
        keep(s, y);
        note(s, dr_be_add_bcast_bwd(s->be, -0.5f, a, db, &s->err));
        keep(s, db);
    }
}

static void convolution(party *s, dr_shape x, int o, int k, int pad, bool bias) {
    dr_conv2d_desc d = {.k = k, .pad = pad};
    int h = x.h + 2 * pad - k + 1, w = x.w + 2 * pad - k + 1;
    if (h < 1 || w < 1) return;
    size_t n_w = (size_t)(o * x.c * k * k);
    float *wt = flat(s, n_w, -0.2, 0.2), *b = bias ? flat(s, (size_t)o, -1, 1) : NULL;
    dr_tensor tx = input(s, x), y = blank(s, SHAPE(x.n, o, h, w)), dy = input(s, SHAPE(x.n, o, h, w)), dx = blank(s, x);
    note(s, dr_be_conv2d(s->be, d, tx, wt, b, y, NULL, &s->err));
    keep(s, y);
    note(s, dr_be_conv2d_dx(s->be, d, dy, wt, dx, NULL, &s->err));
    keep(s, dx);
    float *dw = flat(s, n_w, -1, 1), *db = bias ? flat(s, (size_t)o, -1, 1) : NULL;
    note(s, dr_be_conv2d_dw(s->be, d, tx, dy, dw, db, NULL, &s->err));
    keep_flat(s, dw, n_w);
    if (bias) keep_flat(s, db, (size_t)o);
    d.frozen = true;
    dr_slot slot = {0};
    for (int i = 0; i < 2; i++) { /* the second time from the slot */
        note(s, dr_be_conv2d(s->be, d, tx, wt, b, y, &slot, &s->err));
        keep(s, y);
    }
    dr_slot_clear(&slot);
}
/* A strip of x into the middle of another height, whose other rows stay. */
static void rows(party *s, dr_shape x) {
    dr_tensor a = input(s, x), y = input(s, sized(x, x.h + 3, x.w));
    note(s, dr_be_copy_rows(s->be, a, x.h / 2, y, 2, x.h - x.h / 2, &s->err));
    keep(s, y);
    note(s, dr_be_copy_rows(s->be, y, 0, a, x.h - 1, 1, &s->err));
    keep(s, a);
}
static void conv_3x3(party *s, dr_shape x) {
    convolution(s, x, 16, 3, 1, true);
}
static void conv_7x7(party *s, dr_shape x) {
    convolution(s, x, 3, 7, 0, true);
}
static void conv_7x7_one(party *s, dr_shape x) {
    convolution(s, x, 1, 7, 0, false);
}
static void conv_4x4(party *s, dr_shape x) {
    convolution(s, x, 1, 4, 1, false);
}

static void norm(party *s, dr_shape x) {
    dr_tensor a = input_in(s, x, 2, 4), dy = input(s, x), y = blank(s, x), dx = blank(s, x);
    size_t n_stats = 2 * (size_t)x.n * (size_t)x.c;
    float *stats = flat(s, n_stats, 0, 0);
    for (int act = DR_ACT_NONE; act <= DR_ACT_LRELU; act++) {
        note(s, dr_be_norm_act(s->be, 1e-5f, (dr_act)act, a, stats, y, &s->err));
        keep(s, y);
        keep_flat(s, stats, n_stats);
        note(s, dr_be_norm_act_bwd(s->be, (dr_act)act, a, stats, dy, dx, &s->err));
        keep(s, dx);
    }
}

static void norm_fused(party *s, dr_shape x) {
    dr_tensor a = input(s, x), none = {0}, resid = input(s, sized(x, x.h + 2, x.w + 2));
    float *stats = flat(s, 2 * (size_t)x.n * (size_t)x.c, 0, 0);
    note(s, dr_be_norm_stats(s->be, 1e-5f, a, stats, &s->err));
    int p = x.h > 3 && x.w > 3 ? 3 : 1;
    dr_tensor wide = blank(s, sized(x, x.h + 2 * p, x.w + 2 * p)), up = blank(s, sized(x, 2 * x.h, 2 * x.w)),
              down = blank(s, sized(x, (x.h + 1) / 2, (x.w + 1) / 2)), same = blank(s, x);
    note(s, dr_be_norm_apply(s->be, a, stats, DR_ACT_RELU, DR_THEN_REFLECT, p, none, wide, &s->err));
    keep(s, wide);
    note(s, dr_be_norm_apply(s->be, a, stats, DR_ACT_NONE, DR_THEN_ADD, p, resid, wide, &s->err));
    keep(s, wide);
    note(s, dr_be_norm_apply(s->be, a, stats, DR_ACT_RELU, DR_THEN_BLUR_UP, 0, none, up, &s->err));
    keep(s, up);
    note(s, dr_be_norm_apply(s->be, a, stats, DR_ACT_RELU, DR_THEN_BLUR_DOWN, 0, none, down, &s->err));
    keep(s, down);
    note(s, dr_be_norm_apply(s->be, a, stats, DR_ACT_NONE, DR_THEN_ADD, 0, resid, same, &s->err));
    keep(s, same);
}

static void resampling(party *s, dr_shape x) {
    dr_tensor a = input(s, x), dx = blank(s, x);
    int p = x.h > 3 && x.w > 3 ? 3 : 1;
    dr_shape shapes[3] = {sized(x, x.h + 2 * p, x.w + 2 * p), sized(x, (x.h + 1) / 2, (x.w + 1) / 2),
                          sized(x, 2 * x.h, 2 * x.w)};
    for (int i = 0; i < 3; i++) {
        dr_tensor y = blank(s, shapes[i]), dy = input(s, shapes[i]);
        note(s, i == 0   ? dr_be_pad_reflect(s->be, p, a, y, &s->err)
                : i == 1 ? dr_be_blur_down(s->be, a, y, &s->err)
                         : dr_be_blur_up(s->be, a, y, &s->err));
        keep(s, y);
        note(s, i == 0   ? dr_be_pad_reflect_bwd(s->be, p, dy, dx, &s->err)
                : i == 1 ? dr_be_blur_down_bwd(s->be, dy, dx, &s->err)
                         : dr_be_blur_up_bwd(s->be, dy, dx, &s->err));
        keep(s, dx);
    }
}

static void heads(party *s, dr_shape x) {
    enum { OUT = 24 };
    int at[64], n = x.h * x.w < 5 ? x.h * x.w : 5, rows = x.n * n;
    for (int i = 0; i < n; i++) at[i] = (i * 7 + 3) % (x.h * x.w);
    if (x.h * x.w % 7 == 0) /* those would meet */
        for (int i = 0; i < n; i++) at[i] = n - 1 - i;
    void *idx = NULL;
    note(s, dr_pool_raw(&s->pool, sizeof at, &idx, &s->err));
    if (!s->status) note(s, dr_be_upload_raw(s->be, at, idx, sizeof at, &s->err));
    dr_shape in = SHAPE(rows, x.c, 1, 1), out = SHAPE(rows, OUT, 1, 1);
    dr_tensor a = input(s, x), r = blank(s, in), dr = input(s, in), da = blank(s, x);
    note(s, dr_be_gather(s->be, a, idx, n, r, &s->err));
    keep(s, r);
    note(s, dr_be_gather_bwd(s->be, dr, idx, n, da, &s->err));
    keep(s, da);
    size_t n_w = OUT * (size_t)x.c;
    float *w = flat(s, n_w, -1, 1), *b = flat(s, OUT, -1, 1), *dw = flat(s, n_w, -1, 1), *db = flat(s, OUT, -1, 1);
    dr_tensor y = blank(s, out), dy = input(s, out), unit = blank(s, out), dv = blank(s, out);
    note(s, dr_be_linear(s->be, dr, w, b, y, &s->err));
    keep(s, y);
    note(s, dr_be_linear_dx(s->be, dy, w, r, &s->err));
    keep(s, r);
    note(s, dr_be_linear_dw(s->be, dr, dy, dw, db, &s->err));
    keep_flat(s, dw, n_w);
    keep_flat(s, db, OUT);
    float *norms = flat(s, (size_t)rows, 0, 0);
    note(s, dr_be_l2norm(s->be, dy, norms, unit, &s->err));
    keep(s, unit);
    keep_flat(s, norms, (size_t)rows);
    note(s, dr_be_l2norm_bwd(s->be, unit, norms, y, dv, &s->err));
    keep(s, dv);
    dr_tensor loss = blank(s, SHAPE(1, 1, 1, 1)), other = blank(s, out);
    note(s, dr_be_l2norm(s->be, y, norms, other, &s->err));
    note(s, dr_be_nce(s->be, x.n, 0.07f, unit, other, loss, &s->err));
    keep(s, loss);
    note(s, dr_be_nce_bwd(s->be, x.n, 0.07f, unit, other, 1.5f, dv, &s->err));
    keep(s, dv);
}

static void losses(party *s, dr_shape x) {
    dr_tensor a = input_in(s, x, -2, 2), b = input_in(s, x, -2, 2), d = blank(s, x), loss = blank(s, SHAPE(1, 1, 1, 1));
    for (int m = DR_GAN_HINGE_REAL; m <= DR_GAN_NEG_MEAN; m++) {
        note(s, dr_be_gan(s->be, (dr_gan_loss)m, a, loss, &s->err));
        keep(s, loss);
        note(s, dr_be_gan_bwd(s->be, (dr_gan_loss)m, a, 3.0f, d, &s->err));
        keep(s, d);
    }
    note(s, dr_be_l1(s->be, a, b, loss, &s->err));
    keep(s, loss);
    note(s, dr_be_l1_bwd(s->be, a, b, 3.0f, d, &s->err));
    keep(s, d);
}

/* Pictures only. */
static void spectra(party *s, dr_shape x) {
    dr_shape picture = SHAPE(x.n, x.c < 8 ? x.c : 3, x.h, x.w);
    dr_tensor a = input(s, picture), b = input(s, picture), d = blank(s, picture), loss = blank(s, SHAPE(1, 1, 1, 1));
    note(s, dr_be_freq(s->be, a, b, loss, &s->err));
    keep(s, loss);
    note(s, dr_be_freq_bwd(s->be, a, b, 3.0f, d, &s->err));
    keep(s, d);
}

static void optimizer(party *s, dr_shape x) {
    size_t n = dr_shape_count(x);
    float *p = flat(s, n, -1, 1), *g = flat(s, n, -1, 1), *m = flat(s, n, -0.1, 0.1), *v = flat(s, n, 0, 0.1);
    float *e = flat(s, n, -1, 1);
    dr_adam_desc d = {2e-4f, 0.5f, 0.999f, 1e-8f, 3};
    note(s, dr_be_adam(s->be, &d, n, p, g, m, v, &s->err));
    note(s, dr_be_ema(s->be, 0.999f, n, p, e, &s->err));
    float *all[] = {p, m, v, e};
    for (int i = 0; i < 4; i++) keep_flat(s, all[i], n);
}

static const struct entry_case {
    const char *name;
    computation *fn;
    bool wide_only;
} cases[] = {
    {"elementwise", elementwise, false},
    {"broadcast", broadcast, false},
    {"rows", rows, false},
    {"3x3", conv_3x3, false},
    {"7x7", conv_7x7, false},
    {"7x7 to one", conv_7x7_one, false},
    {"4x4", conv_4x4, false},
    {"norm", norm, false},
    {"fused norm", norm_fused, false},
    {"resampling", resampling, false},
    {"heads", heads, false},
    {"losses", losses, false},
    {"spectra", spectra, false},
    {"optimizer", optimizer, false},
};

static const dr_shape shapes[] = {{2, 3, 9, 7},  {1, 1, 8, 12}, {2, 16, 9, 7},
                                  {1, 32, 8, 8}, {3, 48, 2, 5}, {1, 64, 12, 20}};

static void compare(const struct entry_case *c, dr_shape x, dr_precision p, double tol) {
    party cpu, gpu;
    side_open(&cpu, "cpu", DR_PREC_F32);
    side_open(&gpu, "cuda", p);
    CHECK_MSG(!cpu.status && !gpu.status, "%s %s", cpu.err.text, gpu.err.text);
    cpu.round = gpu.round = p;
    c->fn(&cpu, x);
    c->fn(&gpu, x);
    char text[48];
    CHECK_MSG(!cpu.status && !gpu.status, "%s %s: %s %s", c->name, dr_shape_text(x, text), cpu.err.text, gpu.err.text);
    int at;
    double d = worst(&cpu, &gpu, &at);
    CHECK_MSG(d <= tol, "%s %s: relative distance %g at output %d", c->name, dr_shape_text(x, text), d, at);
    side_close(&cpu);
    side_close(&gpu);
}

static void all(dr_precision p, double tol) {
    for (size_t i = 0; i < sizeof cases / sizeof *cases && !t_bad; i++)
        for (size_t k = 0; k < sizeof shapes / sizeof *shapes && !t_bad; k++) compare(&cases[i], shapes[k], p, tol);
}

TEST(every_entry_equals_the_cpu_in_f32) {
    all(DR_PREC_F32, 1e-5);
}
TEST(every_entry_is_near_the_cpu_in_bf16) {
    all(DR_PREC_BF16, 4e-3);
}
TEST(every_entry_is_near_the_cpu_in_f16) {
    all(DR_PREC_F16, 5e-4);
}

TEST(tells_what_it_holds) {
    dr_backend *be;
    dr_device_info before, with, after;
    void *p = NULL, *q = NULL;
    CHECK(!dr_backend_open("cuda", &(dr_backend_opts){0}, &be, NULL, &(dr_error){0}));
    bool ok = dr_be_info(be, &before) && !dr_be_alloc(be, 3 << 20, &p, NULL) && !dr_be_alloc(be, 5 << 20, &q, NULL);
    ok = ok && dr_be_info(be, &with);
    dr_be_free(be, p);
    dr_be_free(be, q);
    ok = ok && dr_be_info(be, &after);
    dr_backend_close(be);
    CHECK(ok && with.memory_used == before.memory_used + (8 << 20) && after.memory_used == before.memory_used);
    CHECK(before.memory_all >= before.memory_free && with.memory_free + (8 << 20) <= before.memory_free);
    CHECK(!dr_backend_open("cpu", &(dr_backend_opts){0}, &be, NULL, &(dr_error){0}));
    CHECK(!dr_be_info(be, &after) && !dr_be_tunes(be) && !dr_be_pace(be, NULL));
    dr_be_trim(be);
    dr_backend_close(be);
}
