/* test_ops.c - every op row, seen from the graph: its gradient against finite differences, to inputs and parameters.
 *
 * The kernels behind the rows are compared with double loops elsewhere (test_cpu_ops.c, test_conv.c); here each op
 * stands between an input and a smooth loss, and the derivative along a random direction must be what two forward runs
 * say. The list of cases is compared with the list of ops: an op without a case fails. */
#include "core/base/rng.h"
#include "core/grad/graph.h"
#include "core/nn/params.h"
#include "tests/t.h"

typedef struct fixture {
    dr_backend *be;
    dr_pool pool;
    dr_graph g;
    dr_params ps;
    int32_t *idx;
} fixture;

enum { GATHER = 7 };

typedef struct op_case {
    const char *op;
    dr_shape x, other;                                   /* other: second input or nothing (n = 0) */
    dr_shape w;                                          /* weights (n = 0: none); a bias of w.n follows */
    dr_var (*build)(fixture *f, dr_var x, dr_var other); /* ends in a loss */
    bool kinked;                                         /* has points without derivative: looser */
} op_case;

/* Smooth scalar of any tensor: mean (v-1)^2. */
static dr_var smooth(fixture *f, dr_var v) {
    return dr_loss_gan(&f->g, v, DR_GAN_LSGAN_REAL);
}

static dr_var conv(fixture *f, dr_var x, dr_var o) {
    (void)o;
    return smooth(f, dr_conv2d(&f->g, x, &f->ps.p[0], &f->ps.p[1], (dr_conv2d_desc){.k = 3, .pad = 1}));
}
static dr_var norm(fixture *f, dr_var x, dr_var o) {
    (void)o;
    return smooth(f, dr_instance_norm(&f->g, x, 1e-5f, DR_ACT_LRELU));
}
static dr_var act(fixture *f, dr_var x, dr_var o) {
    (void)o;
    return smooth(f, dr_activation(&f->g, x, DR_ACT_TANH));
}
static dr_var relu(fixture *f, dr_var x, dr_var o) {
    (void)o;
    return smooth(f, dr_activation(&f->g, x, DR_ACT_RELU));
}
static dr_var pad(fixture *f, dr_var x, dr_var o) {
    (void)o;
    return smooth(f, dr_pad_reflect(&f->g, x, 3));
}
static dr_var down(fixture *f, dr_var x, dr_var o) {
    (void)o;
    return smooth(f, dr_blur_down(&f->g, x));
}
static dr_var up(fixture *f, dr_var x, dr_var o) {
    (void)o;
    return smooth(f, dr_blur_up(&f->g, x));
}
/* x three times: as both inputs and once more, so that gradients are handed on, copied and added */
static dr_var add(fixture *f, dr_var x, dr_var o) {
    dr_var y = dr_add(&f->g, x, dr_add(&f->g, dr_activation(&f->g, x, DR_ACT_TANH), o));
    return smooth(f, dr_add(&f->g, dr_add(&f->g, y, x), y));
}
static dr_var bcast(fixture *f, dr_var x, dr_var o) {
    return smooth(f, dr_add_bcast(&f->g, x, -0.7f, o));
}
/* the gradient of the input with one channel */
static dr_var bcast_b(fixture *f, dr_var x, dr_var o) {
    return smooth(f, dr_add_bcast(&f->g, o, -0.7f, x));
}
static dr_var scale(fixture *f, dr_var x, dr_var o) {
    (void)o;
    return smooth(f, dr_scale(&f->g, x, -1.5f));
}
static dr_var clamp(fixture *f, dr_var x, dr_var o) {
    (void)o;
    return smooth(f, dr_clamp(&f->g, x, -0.5f, 0.5f));
}
static dr_var gather(fixture *f, dr_var x, dr_var o) {
    (void)o;
    return smooth(f, dr_gather_patches(&f->g, x, f->idx, GATHER));
}
static dr_var linear(fixture *f, dr_var x, dr_var o) {
    (void)o;
    return smooth(f, dr_linear(&f->g, x, &f->ps.p[0], &f->ps.p[1]));
}
static dr_var l2(fixture *f, dr_var x, dr_var o) {
    (void)o;
    return smooth(f, dr_l2_normalize(&f->g, x));
}
static dr_var nce(fixture *f, dr_var x, dr_var o) {
    return dr_loss_nce(&f->g, dr_l2_normalize(&f->g, x), dr_l2_normalize(&f->g, o), 2, 0.3f);
}
static dr_var gan(fixture *f, dr_var x, dr_var o) {
    (void)o;
    return dr_loss_gan(&f->g, x, DR_GAN_HINGE_FAKE);
}
static dr_var l1(fixture *f, dr_var x, dr_var o) {
    return dr_loss_l1(&f->g, x, o);
}

static dr_var freq(fixture *f, dr_var x, dr_var o) {
    return dr_loss_freq(&f->g, x, o);
}

static const op_case cases[] = {
    {"conv2d", {2, 16, 9, 7}, {0}, {32, 16, 3, 3}, conv, false},
    {"instance_norm", {2, 16, 9, 7}, {0}, {0}, norm, true},
    {"activation", {1, 16, 5, 7}, {0}, {0}, act, false},
    {"activation", {1, 3, 5, 7}, {0}, {0}, relu, true},
    {"pad_reflect", {2, 16, 5, 6}, {0}, {0}, pad, false},
    {"blur_down", {1, 16, 7, 6}, {0}, {0}, down, false},
    {"blur_up", {1, 16, 7, 6}, {0}, {0}, up, false},
    {"add", {1, 16, 4, 5}, {1, 16, 4, 5}, {0}, add, false},
    {"add_bcast", {2, 3, 4, 5}, {2, 1, 4, 5}, {0}, bcast, false},
    {"add_bcast", {2, 1, 4, 5}, {2, 3, 4, 5}, {0}, bcast_b, false},
    {"scale", {1, 3, 4, 5}, {0}, {0}, scale, false},
    {"clamp", {1, 3, 9, 9}, {0}, {0}, clamp, true},
    {"gather_patches", {2, 16, 5, 4}, {0}, {0}, gather, false},
    {"linear", {6, 32, 1, 1}, {0}, {16, 32, 1, 1}, linear, false},
    {"l2_normalize", {5, 16, 1, 1}, {0}, {0}, l2, false},
    {"loss_nce", {8, 16, 1, 1}, {8, 16, 1, 1}, {0}, nce, false},
    {"loss_gan", {2, 1, 5, 6}, {0}, {0}, gan, true},
    {"loss_l1", {2, 3, 5, 6}, {2, 3, 5, 6}, {0}, l1, true},
    {"loss_freq", {2, 3, 7, 6}, {2, 3, 7, 6}, {0}, freq, true},
};
enum { N_CASES = sizeof cases / sizeof *cases, MOST = 8192 };

static double at(fixture *f, const op_case *c, const float *x, const float *other, double *ret_grad_dot,
                 const float *dir, dr_error *err) {
    double value = NAN;
    dr_graph_clear(&f->g);
    dr_pool_reset(&f->pool);
    dr_tensor tx, to = {0};
    if (dr_pool_tensor(&f->pool, c->x, &tx, err) || dr_be_upload(f->be, x, tx, err)) return value;
    if (c->other.n && (dr_pool_tensor(&f->pool, c->other, &to, err) || dr_be_upload(f->be, other, to, err)))
        return value;
    dr_var vx = dr_input(&f->g, tx, true), vo = c->other.n ? dr_input(&f->g, to, false) : -1;
    dr_var loss = c->build(f, vx, vo);
    float v;
    if (dr_graph_status(&f->g, err) || dr_be_download(f->be, dr_var_tensor(&f->g, loss), &v, err)) return value;
    value = (double)v;
    if (ret_grad_dot) {
        static float dx[MOST];
        const float w = 2.0f; /* a weight that is not 1 */
        if ((f->ps.n && dr_params_zero_grad(&f->ps, err)) || dr_backward(&f->g, &loss, &w, 1, err) ||
            dr_be_download(f->be, dr_var_grad(&f->g, vx), dx, err))
            return NAN;
        *ret_grad_dot = 0;
        for (size_t i = 0; i < dr_shape_count(c->x); i++) *ret_grad_dot += (double)dx[i] * (double)dir[i] / 2;
    }
    return value;
}

static void fill(dr_rng *r, float *v, size_t n, double amp) {
    for (size_t i = 0; i < n; i++) v[i] = (float)dr_rng_range(r, -amp, amp);
}

/* Derivative along dir of the loss, to x or to parameter block `param` (-1: x). */
static void check_case(fixture *f, const op_case *c, dr_rng *r, dr_error *err) {
    static float x[MOST], other[MOST], dir[MOST], moved[MOST], w[MOST], wdir[MOST];
    size_t n = dr_shape_count(c->x), m = c->other.n ? dr_shape_count(c->other) : 0;
    CHECK(n <= MOST && m <= MOST);
    fill(r, x, n, 1);
    fill(r, other, m, 1);
    fill(r, dir, n, 1);
    f->ps = (dr_params){0};
    if (c->w.n) {
        CHECK(dr_params_declare(&f->ps, c->w, "w.weight") == 0 &&
              dr_params_declare(&f->ps, (dr_shape){c->w.n, 1, 1, 1}, "w.bias") == 1);
        CHECK(!dr_params_make(&f->ps, f->be, true, err));
        CHECK(!dr_params_init_xavier(&f->ps, 3, "t", 1, err));
    }
    double dot, eps = c->kinked ? 2e-3 : 1e-2, tol = c->kinked ? 3e-2 : 4e-3;
    double value = at(f, c, x, other, &dot, dir, err);
    CHECK_MSG(isfinite(value), "%s: %s", c->op, err->text);
    double side[2];
    for (int s = 0; s < 2; s++) {
        for (size_t i = 0; i < n; i++) moved[i] = x[i] + (float)(s ? -eps : eps) * dir[i];
        side[s] = at(f, c, moved, other, NULL, NULL, err);
    }
    double want = (side[0] - side[1]) / (2 * eps);
    CHECK_MSG(fabs(dot - want) <= tol * (fabs(want) + 0.02), "%s: gradient %g, finite difference %g", c->op, dot, want);
    for (int p = 0; p < f->ps.n; p++) { /* parameters: weights, then bias */
        size_t k = dr_param_count(&f->ps.p[p]);
        CHECK(k <= MOST);
        CHECK(isfinite(at(f, c, x, other, &dot, dir, err)));
        CHECK(!dr_be_download_raw(f->be, f->ps.p[p].grad, moved, k * sizeof(float), err));
        CHECK(!dr_params_download(&f->ps, p, w, err));
        fill(r, wdir, k, 1);
        dot = 0;
        for (size_t i = 0; i < k; i++) dot += (double)moved[i] * (double)wdir[i] / 2;
        for (int s = 0; s < 2; s++) {
            for (size_t i = 0; i < k; i++) moved[i] = w[i] + (float)(s ? -eps : eps) * wdir[i];
            CHECK(!dr_params_upload(&f->ps, p, moved, err));
            side[s] = at(f, c, x, other, NULL, NULL, err);
        }
        CHECK(!dr_params_upload(&f->ps, p, w, err));
        want = (side[0] - side[1]) / (2 * eps);
        CHECK_MSG(fabs(dot - want) <= tol * (fabs(want) + 0.02), "%s parameter %d: gradient %g, finite difference %g",
                  c->op, p, dot, want);
    }
}

static void run_all(dr_precision precision) {
    fixture f = {0};
    dr_error err = {0};
    dr_backend_opts o = {.threads = 2, .precision = precision};
    CHECK_MSG(!dr_backend_open("cpu", &o, &f.be, NULL, &err), "%s", err.text);
    dr_pool_init(&f.pool, f.be, 1 << 20);
    dr_graph_init(&f.g, f.be, &f.pool, DR_MODE_TRAIN);
    static const int32_t idx[GATHER] = {3, 0, 19, 7, 12, 11, 1};
    void *p;
    CHECK(!dr_be_alloc(f.be, sizeof idx, &p, &err));
    f.idx = p;
    CHECK(!dr_be_upload_raw(f.be, idx, f.idx, sizeof idx, &err));
    dr_rng r;
    dr_rng_seed(&r, 11, 1);
    for (int i = 0; i < N_CASES && !t_bad; i++) {
        check_case(&f, &cases[i], &r, &err);
        dr_params_done(&f.ps);
    }
    dr_be_free(f.be, p);
    dr_graph_done(&f.g);
    dr_pool_done(&f.pool);
    dr_backend_close(f.be);
}

TEST(gradients_match_finite_differences) {
    run_all(DR_PREC_F32);
}

TEST(every_op_has_a_case) {
    for (int i = 0; dr_ops[i]; i++) {
        int found = 0;
        for (int k = 0; k < N_CASES; k++) found += !strcmp(cases[k].op, dr_ops[i]->name);
        CHECK_MSG(found, "%s", dr_ops[i]->name);
    }
}

/* Detached values, no_grad and frozen parameters stop gradients where they should. */
TEST(gradients_stop_where_told) {
    dr_error err = {0};
    dr_backend *be;
    dr_backend_opts o = {.threads = 1};
    CHECK(!dr_backend_open("cpu", &o, &be, NULL, &err));
    dr_pool pool;
    dr_pool_init(&pool, be, 1 << 16);
    dr_graph g;
    dr_graph_init(&g, be, &pool, DR_MODE_TRAIN);
    dr_params ps = {0};
    dr_params_declare(&ps, (dr_shape){16, 16, 1, 1}, "w.weight");
    dr_params_declare(&ps, (dr_shape){16, 1, 1, 1}, "w.bias");
    CHECK(!dr_params_make(&ps, be, true, &err) && !dr_params_init_xavier(&ps, 1, "t", 1, &err));
    float x[32], grad[256];
    dr_rng r;
    dr_rng_seed(&r, 2, 2);
    fill(&r, x, 32, 1);
    dr_tensor t;
    const float one = 1;
    for (int how = 0; how < 4; how++) { /* 0: plain, 1: detached, 2: no_grad, 3: frozen */
        dr_graph_clear(&g);
        dr_pool_reset(&pool);
        CHECK(!dr_params_zero_grad(&ps, &err));
        CHECK(!dr_pool_tensor(&pool, (dr_shape){2, 16, 1, 1}, &t, &err) && !dr_be_upload(be, x, t, &err));
        dr_var v = dr_input(&g, t, true);
        if (how == 2) g.no_grad = true;
        if (how == 3) dr_params_set_trainable(&ps, false);
        dr_var y = dr_linear(&g, v, &ps.p[0], &ps.p[1]);
        g.no_grad = false;
        if (how == 1) y = dr_detach(&g, y);
        dr_var loss = dr_loss_gan(&g, y, DR_GAN_LSGAN_REAL);
        CHECK(!dr_backward(&g, &loss, &one, 1, &err));
        dr_params_set_trainable(&ps, true);
        CHECK(!dr_be_download_raw(be, ps.p[0].grad, grad, sizeof grad, &err));
        double sum = 0;
        for (int i = 0; i < 256; i++) sum += fabs((double)grad[i]);
        CHECK_MSG((how == 0) == (sum > 0), "case %d", how);
        CHECK_MSG((how == 0 || how == 3) == (dr_var_grad(&g, v).data != NULL), "case %d", how);
    }
    dr_params_done(&ps);
    dr_graph_done(&g);
    dr_pool_done(&pool);
    dr_backend_close(be);
}

/* The first error stays and later builders do nothing. */
TEST(errors_stick) {
    dr_error err = {0}, later = {0};
    dr_backend *be;
    dr_backend_opts o = {.threads = 1};
    CHECK(!dr_backend_open("cpu", &o, &be, NULL, &err));
    dr_pool pool;
    dr_pool_init(&pool, be, 1 << 16);
    dr_graph g;
    dr_graph_init(&g, be, &pool, DR_MODE_TRAIN);
    dr_tensor t;
    CHECK(!dr_pool_tensor(&pool, (dr_shape){1, 3, 3, 3}, &t, &err) && !dr_be_fill(be, 0.5f, t, &err));
    dr_var v = dr_pad_reflect(&g, dr_input(&g, t, false), 3);
    CHECK(v == -1);
    CHECK(dr_blur_up(&g, v) == -1 && dr_activation(&g, v, DR_ACT_TANH) == -1);
    CHECK(dr_graph_status(&g, &later) == DR_INVALID && strstr(later.text, "pad"));
    dr_graph_clear(&g);
    CHECK(!dr_graph_status(&g, &err));
    dr_graph_done(&g);
    dr_pool_done(&pool);
    dr_backend_close(be);
}

/* A backend call that fails anywhere in forward or backward comes out as an error, and nothing crashes. */
TEST(faults_come_out) {
    dr_error err = {0};
    fixture f = {0};
    dr_backend_opts o = {.threads = 1};
    CHECK(!dr_backend_open("cpu", &o, &f.be, NULL, &err));
    dr_pool_init(&f.pool, f.be, 1 << 16);
    dr_graph_init(&f.g, f.be, &f.pool, DR_MODE_TRAIN);
    static float x[MOST], dir[MOST];
    int failed = 0;
    for (long n = 1; n < 60; n++) {
        err = (dr_error){0};
        dr_backend_fail_after(n);
        double dot, v = at(&f, &cases[7], x, dir, &dot, dir, &err);
        dr_backend_fail_after(0);
        if (isfinite(v)) break;
        failed++;
        CHECK_MSG(err.code != DR_OK, "call %ld", n);
    }
    CHECK(failed > 8 && failed < 59);
    dr_graph_done(&f.g);
    dr_pool_done(&f.pool);
    dr_backend_close(f.be);
}
