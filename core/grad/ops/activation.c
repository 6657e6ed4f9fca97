/* activation.c - ReLU, leaky ReLU (slope 0.2), tanh; backward works from the output. */
#include "core/grad/exec.h"

static dr_status forward(dr_exec *x, dr_node *n, dr_error *err) {
    return dr_be_act(x->be, n->u.act, dr_in(x, n, 0), n->out, err);
}

static dr_status backward(dr_exec *x, dr_node *n, dr_tensor dy, dr_tensor dx[DR_OP_MAX_IN], dr_error *err) {
    return dx[0].data ? dr_be_act_bwd(x->be, n->u.act, n->out, dy, dx[0], err) : DR_OK;
}

const dr_op dr_op_activation = {.name = "activation", .n_in = 1, .forward = forward, .backward = backward};

dr_var dr_activation(dr_graph *g, dr_var x, dr_act act) {
    return dr_graph_append(
        g, (dr_node){.op = &dr_op_activation, .in = {x, -1}, .shape = dr_var_shape(g, x), .u.act = act});
}
