/* instance_norm.c - instance norm without affine parameters, with the activation that follows it (biased variance, eps
 * inside the root). */
#include "core/grad/exec.h"

static dr_status forward(dr_exec *x, dr_node *n, dr_error *err) {
    void *stats;
    dr_status s = dr_pool_raw(x->pool, (size_t)n->shape.n * (size_t)n->shape.c * 2 * sizeof(float), &stats, err);
    if (s) return s;
    n->u.norm.stats = stats;
    return dr_be_norm_act(x->be, n->u.norm.eps, n->u.norm.act, dr_in(x, n, 0), n->u.norm.stats, n->out, err);
}

static dr_status backward(dr_exec *x, dr_node *n, dr_tensor dy, dr_tensor dx[DR_OP_MAX_IN], dr_error *err) {
    if (!dx[0].data) return DR_OK;
    return dr_be_norm_act_bwd(x->be, n->u.norm.act, dr_in(x, n, 0), n->u.norm.stats, dy, dx[0], err);
}

const dr_op dr_op_instance_norm = {.name = "instance_norm", .n_in = 1, .forward = forward, .backward = backward};

dr_var dr_instance_norm(dr_graph *g, dr_var x, float eps, dr_act act) {
    return dr_graph_append(g, (dr_node){.op = &dr_op_instance_norm,
                                        .in = {x, -1},
                                        .shape = dr_var_shape(g, x),
                                        .u.norm = {.eps = eps, .act = act}});
}
