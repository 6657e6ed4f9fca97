/* backward.c - walk the recorded list in reverse and hand gradients from node to node.
 *
 * The first gradient that reaches a node is written in place; later ones go to a spare tensor and are added. A
 * gradient that was consumed becomes spare at once, so the working set stays small. Addition hands its dy on to one
 * of its inputs instead of copying it. Gradients of inputs (dr_input with needs_grad) stay for dr_var_grad(). */
#include "core/grad/exec.h"

#include <assert.h>

/* dst.grad += t, or dst.grad = t where it has none (then t belongs to dst); t is given back otherwise. */
static dr_status merge(dr_graph *g, dr_node *dst, dr_tensor t, dr_error *err) {
    if (!dst->grad.data) {
        dst->grad = t;
        return DR_OK;
    }
    dr_status s = dr_be_axpy(g->be, 1.0f, t, dst->grad, err);
    dr_graph_give(g, t);
    return s;
}

static dr_status step_add(dr_graph *g, dr_node *n, dr_error *err) {
    dr_node *a = &g->nodes[n->in[0]], *b = &g->nodes[n->in[1]];
    if (!(a->needs_grad && b->needs_grad)) return merge(g, a->needs_grad ? a : b, n->grad, err);
    dr_status s;
    if (a->grad.data) {
        s = dr_be_axpy(g->be, 1.0f, n->grad, a->grad, err);
    } else {
        dr_tensor t;
        if (!(s = dr_graph_take(g, a->shape, &t, err)) && !(s = dr_be_copy(g->be, n->grad, t, err))) a->grad = t;
    }
    return s ? s : merge(g, b, n->grad, err);
}

static dr_status step(dr_graph *g, dr_node *n, dr_error *err) {
    dr_status s = dr_graph_give_way(g, err);
    if (s) return s;
    if (n->op == &dr_op_add) return step_add(g, n, err);
    dr_exec x = {g->be, g->pool, g->nodes};
    dr_tensor dx[DR_OP_MAX_IN] = {{{0}, NULL}, {{0}, NULL}};
    for (int i = 0; i < n->op->n_in && !s; i++)
        if (g->nodes[n->in[i]].needs_grad) s = dr_graph_take(g, g->nodes[n->in[i]].shape, &dx[i], err);
    if (!s) s = n->op->backward(&x, n, n->grad, dx, err);
    for (int i = 0; i < n->op->n_in && !s; i++)
        if (dx[i].data) s = merge(g, &g->nodes[n->in[i]], dx[i], err);
    if (!s && !n->op->is_loss) dr_graph_give(g, n->grad);
    return s ? dr_wrap(err, s, "gradient of %s", n->op->name) : DR_OK;
}

dr_status dr_backward(dr_graph *g, const dr_var *losses, const float *weights, int n, dr_error *err) {
    assert(g->mode == DR_MODE_TRAIN);
    dr_status s = dr_graph_status(g, err);
    if (s) return s;
    int from = -1;
    for (int i = 0; i < n; i++) {
        if (losses[i] < 0 || losses[i] >= g->n || !g->nodes[losses[i]].op || !g->nodes[losses[i]].op->is_loss)
            return dr_fail(err, DR_INTERNAL, "backward starts at losses only");
        g->nodes[losses[i]].loss_weight += weights[i];
        if (losses[i] > from) from = losses[i];
    }
    for (int i = from; i >= 0 && !s; i--) {
        dr_node *node = &g->nodes[i];
        if (!node->op) continue;
        if (node->needs_grad && (node->op->is_loss ? node->loss_weight != 0.0f : node->grad.data != NULL)) {
            s = step(g, node, err);
            node->grad.data = NULL;
        }
        node->loss_weight = 0.0f;
    }
    return s;
}
