/* add.c - sums: a + b, a + s*b with a one-channel b, scaling, clamping. */
#include "core/grad/exec.h"

static dr_status add_forward(dr_exec *x, dr_node *n, dr_error *err) {
    return dr_be_add(x->be, dr_in(x, n, 0), dr_in(x, n, 1), n->out, err);
}

/* backward.c moves dy instead of copying it twice; this is the plain form for whoever calls the row. */
static dr_status add_backward(dr_exec *x, dr_node *n, dr_tensor dy, dr_tensor dx[DR_OP_MAX_IN], dr_error *err) {
    (void)n;
    dr_status s = dx[0].data ? dr_be_copy(x->be, dy, dx[0], err) : DR_OK;
    if (!s && dx[1].data) s = dr_be_copy(x->be, dy, dx[1], err);
    return s;
}

static dr_status bcast_forward(dr_exec *x, dr_node *n, dr_error *err) {
    return dr_be_add_bcast(x->be, dr_in(x, n, 0), n->u.factor, dr_in(x, n, 1), n->out, err);
}

static dr_status bcast_backward(dr_exec *x, dr_node *n, dr_tensor dy, dr_tensor dx[DR_OP_MAX_IN], dr_error *err) {
    dr_status s = dx[0].data ? dr_be_copy(x->be, dy, dx[0], err) : DR_OK;
    if (!s && dx[1].data) s = dr_be_add_bcast_bwd(x->be, n->u.factor, dy, dx[1], err);
    return s;
}

static dr_status scale_forward(dr_exec *x, dr_node *n, dr_error *err) {
    return dr_be_scale(x->be, n->u.factor, dr_in(x, n, 0), n->out, err);
}

static dr_status scale_backward(dr_exec *x, dr_node *n, dr_tensor dy, dr_tensor dx[DR_OP_MAX_IN], dr_error *err) {
    return dx[0].data ? dr_be_scale(x->be, n->u.factor, dy, dx[0], err) : DR_OK;
}

static dr_status clamp_forward(dr_exec *x, dr_node *n, dr_error *err) {
    return dr_be_clamp(x->be, n->u.clamp.lo, n->u.clamp.hi, dr_in(x, n, 0), n->out, err);
}

static dr_status clamp_backward(dr_exec *x, dr_node *n, dr_tensor dy, dr_tensor dx[DR_OP_MAX_IN], dr_error *err) {
    if (!dx[0].data) return DR_OK;
    return dr_be_clamp_bwd(x->be, n->u.clamp.lo, n->u.clamp.hi, dr_in(x, n, 0), dy, dx[0], err);
}

const dr_op dr_op_add = {.name = "add", .n_in = 2, .forward = add_forward, .backward = add_backward};
const dr_op dr_op_add_bcast = {.name = "add_bcast", .n_in = 2, .forward = bcast_forward, .backward = bcast_backward};
const dr_op dr_op_scale = {.name = "scale", .n_in = 1, .forward = scale_forward, .backward = scale_backward};
const dr_op dr_op_clamp = {.name = "clamp", .n_in = 1, .forward = clamp_forward, .backward = clamp_backward};

static void same(dr_graph *g, const char *op, dr_shape a, dr_shape b) {
    char s[48], t[48];
    if (!g->err.code && !dr_shape_eq(a, b))
        dr_graph_fail(g, DR_INTERNAL, "%s: %s and %s differ", op, dr_shape_text(a, s), dr_shape_text(b, t));
}

dr_var dr_add(dr_graph *g, dr_var a, dr_var b) {
    same(g, "add", dr_var_shape(g, a), dr_var_shape(g, b));
    return dr_graph_append(g, (dr_node){.op = &dr_op_add, .in = {a, b}, .shape = dr_var_shape(g, a)});
}

dr_var dr_add_bcast(dr_graph *g, dr_var a, float s, dr_var b) {
    dr_shape sa = dr_var_shape(g, a), sb = dr_var_shape(g, b);
    if (sb.c == 1) sb.c = sa.c;
    same(g, "add_bcast", sa, sb);
    return dr_graph_append(g, (dr_node){.op = &dr_op_add_bcast, .in = {a, b}, .shape = sa, .u.factor = s});
}

dr_var dr_scale(dr_graph *g, dr_var x, float s) {
    return dr_graph_append(g, (dr_node){.op = &dr_op_scale, .in = {x, -1}, .shape = dr_var_shape(g, x), .u.factor = s});
}

dr_var dr_clamp(dr_graph *g, dr_var x, float lo, float hi) {
    return dr_graph_append(
        g, (dr_node){.op = &dr_op_clamp, .in = {x, -1}, .shape = dr_var_shape(g, x), .u.clamp = {lo, hi}});
}
