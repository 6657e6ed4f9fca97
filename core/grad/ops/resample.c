/* resample.c - anti-aliased halving ([1,2,1]/4, reflected edges) and bilinear doubling (clamped edges). */
#include "core/grad/exec.h"

static dr_status down_forward(dr_exec *x, dr_node *n, dr_error *err) {
    return dr_be_blur_down(x->be, dr_in(x, n, 0), n->out, err);
}

static dr_status down_backward(dr_exec *x, dr_node *n, dr_tensor dy, dr_tensor dx[DR_OP_MAX_IN], dr_error *err) {
    (void)n;
    return dx[0].data ? dr_be_blur_down_bwd(x->be, dy, dx[0], err) : DR_OK;
}

static dr_status up_forward(dr_exec *x, dr_node *n, dr_error *err) {
    return dr_be_blur_up(x->be, dr_in(x, n, 0), n->out, err);
}

static dr_status up_backward(dr_exec *x, dr_node *n, dr_tensor dy, dr_tensor dx[DR_OP_MAX_IN], dr_error *err) {
    (void)n;
    return dx[0].data ? dr_be_blur_up_bwd(x->be, dy, dx[0], err) : DR_OK;
}

const dr_op dr_op_blur_down = {.name = "blur_down", .n_in = 1, .forward = down_forward, .backward = down_backward};
const dr_op dr_op_blur_up = {.name = "blur_up", .n_in = 1, .forward = up_forward, .backward = up_backward};

dr_var dr_blur_down(dr_graph *g, dr_var x) {
    dr_shape s = dr_var_shape(g, x);
    if (!g->err.code && (s.h < 2 || s.w < 2)) dr_graph_fail(g, DR_INVALID, "blur_down: %dx%d is too small", s.w, s.h);
    dr_shape out = {s.n, s.c, (s.h + 1) / 2, (s.w + 1) / 2};
    return dr_graph_append(g, (dr_node){.op = &dr_op_blur_down, .in = {x, -1}, .shape = out});
}

dr_var dr_blur_up(dr_graph *g, dr_var x) {
    dr_shape s = dr_var_shape(g, x), out = {s.n, s.c, 2 * s.h, 2 * s.w};
    return dr_graph_append(g, (dr_node){.op = &dr_op_blur_up, .in = {x, -1}, .shape = out});
}
