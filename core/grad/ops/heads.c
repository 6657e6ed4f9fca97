/* heads.c - what the projection heads need: sampled positions as rows, linear layers, unit rows. */
#include "core/grad/exec.h"

static dr_status gather_forward(dr_exec *x, dr_node *n, dr_error *err) {
    return dr_be_gather(x->be, dr_in(x, n, 0), n->u.gather.idx, n->u.gather.count, n->out, err);
}

static dr_status gather_backward(dr_exec *x, dr_node *n, dr_tensor dy, dr_tensor dx[DR_OP_MAX_IN], dr_error *err) {
    return dx[0].data ? dr_be_gather_bwd(x->be, dy, n->u.gather.idx, n->u.gather.count, dx[0], err) : DR_OK;
}

static dr_status linear_forward(dr_exec *x, dr_node *n, dr_error *err) {
    return dr_be_linear(x->be, dr_in(x, n, 0), n->w->value, n->b->value, n->out, err);
}

static dr_status linear_backward(dr_exec *x, dr_node *n, dr_tensor dy, dr_tensor dx[DR_OP_MAX_IN], dr_error *err) {
    dr_status s = DR_OK;
    if (n->grads_params) s = dr_be_linear_dw(x->be, dr_in(x, n, 0), dy, n->w->grad, n->b->grad, err);
    if (!s && dx[0].data) s = dr_be_linear_dx(x->be, dy, n->w->value, dx[0], err);
    return s;
}

static dr_status l2_forward(dr_exec *x, dr_node *n, dr_error *err) {
    void *norms;
    dr_status s = dr_pool_raw(x->pool, (size_t)n->shape.n * sizeof(float), &norms, err);
    if (s) return s;
    n->u.norms = norms;
    return dr_be_l2norm(x->be, dr_in(x, n, 0), n->u.norms, n->out, err);
}

static dr_status l2_backward(dr_exec *x, dr_node *n, dr_tensor dy, dr_tensor dx[DR_OP_MAX_IN], dr_error *err) {
    return dx[0].data ? dr_be_l2norm_bwd(x->be, n->out, n->u.norms, dy, dx[0], err) : DR_OK;
}

const dr_op dr_op_gather_patches = {
    .name = "gather_patches", .n_in = 1, .forward = gather_forward, .backward = gather_backward};
const dr_op dr_op_linear = {.name = "linear", .n_in = 1, .forward = linear_forward, .backward = linear_backward};
const dr_op dr_op_l2_normalize = {.name = "l2_normalize", .n_in = 1, .forward = l2_forward, .backward = l2_backward};

dr_var dr_gather_patches(dr_graph *g, dr_var x, const int32_t *idx_device, int count) {
    dr_shape s = dr_var_shape(g, x), out = {s.n * count, s.c, 1, 1};
    return dr_graph_append(g, (dr_node){.op = &dr_op_gather_patches,
                                        .in = {x, -1},
                                        .shape = out,
                                        .u.gather = {.idx = idx_device, .count = count}});
}

dr_var dr_linear(dr_graph *g, dr_var x, dr_param *w, dr_param *b) {
    dr_shape s = dr_var_shape(g, x), out = {s.n, w->shape.n, 1, 1};
    if (!g->err.code && (s.h != 1 || s.w != 1 || w->shape.c != s.c))
        dr_graph_fail(g, DR_INTERNAL, "linear %s: weights do not fit the rows", w->name);
    return dr_graph_append(g, (dr_node){.op = &dr_op_linear, .in = {x, -1}, .shape = out, .w = w, .b = b});
}

dr_var dr_l2_normalize(dr_graph *g, dr_var x) {
    return dr_graph_append(g, (dr_node){.op = &dr_op_l2_normalize, .in = {x, -1}, .shape = dr_var_shape(g, x)});
}
