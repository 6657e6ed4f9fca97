/* pad_reflect.c - reflection padding on all four sides (the edge pixel is not repeated). */
#include "core/grad/exec.h"

static dr_status forward(dr_exec *x, dr_node *n, dr_error *err) {
    return dr_be_pad_reflect(x->be, n->u.pad, dr_in(x, n, 0), n->out, err);
}

static dr_status backward(dr_exec *x, dr_node *n, dr_tensor dy, dr_tensor dx[DR_OP_MAX_IN], dr_error *err) {
    return dx[0].data ? dr_be_pad_reflect_bwd(x->be, n->u.pad, dy, dx[0], err) : DR_OK;
}

const dr_op dr_op_pad_reflect = {.name = "pad_reflect", .n_in = 1, .forward = forward, .backward = backward};

dr_var dr_pad_reflect(dr_graph *g, dr_var x, int p) {
    dr_shape s = dr_var_shape(g, x);
    if (!g->err.code && (s.h <= p || s.w <= p))
        dr_graph_fail(g, DR_INVALID, "pad_reflect: %dx%d is too small for a pad of %d", s.w, s.h, p);
    dr_shape out = {s.n, s.c, s.h + 2 * p, s.w + 2 * p};
    return dr_graph_append(g, (dr_node){.op = &dr_op_pad_reflect, .in = {x, -1}, .shape = out, .u.pad = p});
}
