/* conv2d.c - stride-1 convolution with zero padding; weights (O,I,k,k), optional bias. */
#include "core/grad/exec.h"

static dr_status forward(dr_exec *x, dr_node *n, dr_error *err) {
    return dr_be_conv2d(x->be, n->u.conv, dr_in(x, n, 0), n->w->value, n->b ? n->b->value : NULL, n->out, NULL, err);
}

static dr_status backward(dr_exec *x, dr_node *n, dr_tensor dy, dr_tensor dx[DR_OP_MAX_IN], dr_error *err) {
    dr_status s = DR_OK;
    if (n->grads_params)
        s = dr_be_conv2d_dw(x->be, n->u.conv, dr_in(x, n, 0), dy, n->w->grad, n->b ? n->b->grad : NULL, NULL, err);
    if (!s && dx[0].data) s = dr_be_conv2d_dx(x->be, n->u.conv, dy, n->w->value, dx[0], NULL, err);
    return s;
}

const dr_op dr_op_conv2d = {.name = "conv2d", .n_in = 1, .forward = forward, .backward = backward};

dr_var dr_conv2d(dr_graph *g, dr_var x, dr_param *w, dr_param *b, dr_conv2d_desc d) {
    dr_shape s = dr_var_shape(g, x);
    if (!g->err.code && (w->shape.c != s.c || w->shape.h != d.k || w->shape.w != d.k)) {
        char a[48], c[48];
        dr_graph_fail(g, DR_INTERNAL, "conv2d %s: weights %s do not fit input %s", w->name, dr_shape_text(w->shape, a),
                      dr_shape_text(s, c));
    }
    dr_shape out = {s.n, w->shape.n, s.h + 2 * d.pad - d.k + 1, s.w + 2 * d.pad - d.k + 1};
    return dr_graph_append(g, (dr_node){.op = &dr_op_conv2d, .in = {x, -1}, .shape = out, .w = w, .b = b, .u.conv = d});
}
