/* losses.c - scalars that end a chain: PatchNCE, adversarial, L1, L1 of spectra. Keys and targets get no gradient. */
#include "core/grad/exec.h"

static dr_status nce_forward(dr_exec *x, dr_node *n, dr_error *err) {
    return dr_be_nce(x->be, n->u.nce.groups, n->u.nce.temperature, dr_in(x, n, 0), dr_in(x, n, 1), n->out, err);
}

static dr_status nce_backward(dr_exec *x, dr_node *n, dr_tensor dy, dr_tensor dx[DR_OP_MAX_IN], dr_error *err) {
    (void)dy;
    if (!dx[0].data) return DR_OK;
    return dr_be_nce_bwd(x->be, n->u.nce.groups, n->u.nce.temperature, dr_in(x, n, 0), dr_in(x, n, 1), n->loss_weight,
                         dx[0], err);
}

static dr_status gan_forward(dr_exec *x, dr_node *n, dr_error *err) {
    return dr_be_gan(x->be, n->u.gan, dr_in(x, n, 0), n->out, err);
}

static dr_status gan_backward(dr_exec *x, dr_node *n, dr_tensor dy, dr_tensor dx[DR_OP_MAX_IN], dr_error *err) {
    (void)dy;
    return dx[0].data ? dr_be_gan_bwd(x->be, n->u.gan, dr_in(x, n, 0), n->loss_weight, dx[0], err) : DR_OK;
}

static dr_status l1_forward(dr_exec *x, dr_node *n, dr_error *err) {
    return dr_be_l1(x->be, dr_in(x, n, 0), dr_in(x, n, 1), n->out, err);
}

static dr_status l1_backward(dr_exec *x, dr_node *n, dr_tensor dy, dr_tensor dx[DR_OP_MAX_IN], dr_error *err) {
    (void)dy;
    if (!dx[0].data) return DR_OK;
    return dr_be_l1_bwd(x->be, dr_in(x, n, 0), dr_in(x, n, 1), n->loss_weight, dx[0], err);
}

static dr_status freq_forward(dr_exec *x, dr_node *n, dr_error *err) {
    return dr_be_freq(x->be, dr_in(x, n, 0), dr_in(x, n, 1), n->out, err);
}

static dr_status freq_backward(dr_exec *x, dr_node *n, dr_tensor dy, dr_tensor dx[DR_OP_MAX_IN], dr_error *err) {
    (void)dy;
    if (!dx[0].data) return DR_OK;
    return dr_be_freq_bwd(x->be, dr_in(x, n, 0), dr_in(x, n, 1), n->loss_weight, dx[0], err);
}

const dr_op dr_op_loss_nce = {
    .name = "loss_nce", .n_in = 2, .is_loss = true, .forward = nce_forward, .backward = nce_backward};
const dr_op dr_op_loss_gan = {
    .name = "loss_gan", .n_in = 1, .is_loss = true, .forward = gan_forward, .backward = gan_backward};
const dr_op dr_op_loss_l1 = {
    .name = "loss_l1", .n_in = 2, .is_loss = true, .forward = l1_forward, .backward = l1_backward};

const dr_op dr_op_loss_freq = {
    .name = "loss_freq", .n_in = 2, .is_loss = true, .forward = freq_forward, .backward = freq_backward};

/* The second input is a constant to backward, whatever made it. */
static dr_var constant(dr_graph *g, dr_var v) {
    return !g->err.code && v >= 0 && v < g->n && g->nodes[v].needs_grad ? dr_detach(g, v) : v;
}

static const dr_shape scalar = {1, 1, 1, 1};

dr_var dr_loss_nce(dr_graph *g, dr_var q, dr_var k, int groups, float temperature) {
    dr_shape s = dr_var_shape(g, q);
    if (!g->err.code && (!dr_shape_eq(s, dr_var_shape(g, k)) || groups < 1 || s.n % groups))
        dr_graph_fail(g, DR_INTERNAL, "loss_nce: queries, keys and groups do not fit");
    return dr_graph_append(g, (dr_node){.op = &dr_op_loss_nce,
                                        .in = {q, constant(g, k)},
                                        .shape = scalar,
                                        .u.nce = {.groups = groups, .temperature = temperature}});
}

dr_var dr_loss_gan(dr_graph *g, dr_var scores, dr_gan_loss mode) {
    return dr_graph_append(g, (dr_node){.op = &dr_op_loss_gan, .in = {scores, -1}, .shape = scalar, .u.gan = mode});
}

dr_var dr_loss_l1(dr_graph *g, dr_var a, dr_var target) {
    if (!g->err.code && !dr_shape_eq(dr_var_shape(g, a), dr_var_shape(g, target)))
        dr_graph_fail(g, DR_INTERNAL, "loss_l1: shapes differ");
    return dr_graph_append(g, (dr_node){.op = &dr_op_loss_l1, .in = {a, constant(g, target)}, .shape = scalar});
}

dr_var dr_loss_freq(dr_graph *g, dr_var a, dr_var target) {
    dr_shape s = dr_var_shape(g, a);
    if (!g->err.code && (!dr_shape_eq(s, dr_var_shape(g, target)) || s.c >= 8))
        dr_graph_fail(g, DR_INTERNAL, "loss_freq: these are no pictures of one shape");
    return dr_graph_append(g, (dr_node){.op = &dr_op_loss_freq, .in = {a, constant(g, target)}, .shape = scalar});
}
