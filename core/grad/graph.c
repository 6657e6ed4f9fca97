#include "core/grad/graph.h"
#include "core/base/alloc.h"
#include "core/grad/exec.h"

#include <assert.h>
#include <stdio.h>

/* A tensor that may be used again: gradients that were consumed, EVAL values without readers. */
typedef struct dr_spare {
    size_t bytes;
    void *data;
} dr_spare;

void dr_graph_init(dr_graph *g, dr_backend *be, dr_pool *pool, dr_mode mode) {
    *g = (dr_graph){.be = be, .pool = pool, .mode = mode};
}

void dr_graph_clear(dr_graph *g) {
    g->n = 0;
    g->n_spares = 0;
    g->no_grad = false;
    g->err = (dr_error){0};
}

void dr_graph_done(dr_graph *g) {
    dr_free(g->nodes);
    dr_free(g->spares);
    *g = (dr_graph){0};
}

dr_status dr_graph_status(const dr_graph *g, dr_error *err) {
    if (g->err.code && err && !err->code) *err = g->err;
    return g->err.code;
}

dr_status dr_graph_fail(dr_graph *g, dr_status code, const char *fmt, ...) {
    if (g->err.code) return g->err.code;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(g->err.text, sizeof g->err.text, fmt, ap);
    va_end(ap);
    return g->err.code = code;
}

static const dr_node *node_at(const dr_graph *g, dr_var v) {
    static const dr_node none;
    return v >= 0 && v < g->n ? &g->nodes[v] : &none;
}

dr_shape dr_var_shape(const dr_graph *g, dr_var v) {
    return node_at(g, v)->shape;
}
dr_tensor dr_var_tensor(const dr_graph *g, dr_var v) {
    return node_at(g, v)->out;
}
dr_tensor dr_var_grad(const dr_graph *g, dr_var v) {
    return node_at(g, v)->grad;
}

/* ---- tensors that come back ---- */

dr_status dr_graph_take(dr_graph *g, dr_shape s, dr_tensor *ret, dr_error *err) {
    size_t bytes = dr_be_tensor_bytes(g->be, s);
    for (int i = g->n_spares - 1; i >= 0; i--)
        if (g->spares[i].bytes == bytes) {
            *ret = (dr_tensor){s, g->spares[i].data};
            g->spares[i] = g->spares[--g->n_spares];
            return DR_OK;
        }
    return dr_pool_tensor(g->pool, s, ret, err);
}

void dr_graph_give(dr_graph *g, dr_tensor t) {
    if (!t.data) return;
    if (g->n_spares == g->cap_spares) {
        int cap = g->cap_spares ? g->cap_spares * 2 : 32;
        dr_spare *p = dr_realloc(g->spares, (size_t)cap * sizeof *p);
        if (!p) return;
        g->spares = p;
        g->cap_spares = cap;
    }
    g->spares[g->n_spares++] = (dr_spare){dr_be_tensor_bytes(g->be, t.shape), t.data};
}

/* ---- recording ---- */

dr_status dr_graph_give_way(dr_graph *g, dr_error *err) {
    if (!g->between) return DR_OK;
    dr_status s = dr_be_pace(g->be, err);
    if (s) return s;
    return g->between(g->between_arg) ? DR_OK : dr_fail(err, DR_CANCELLED, "broken off");
}

static dr_status compute(dr_graph *g, dr_node *n, dr_error *err) {
    dr_status s = dr_graph_give_way(g, err);
    if (s) return s;
    dr_exec x = {g->be, g->pool, g->nodes};
    s = n->op->forward(&x, n, err);
    return s ? dr_wrap(err, s, "%s", n->op->name) : DR_OK;
}

static bool make_room(dr_graph *g) {
    if (g->n < g->cap) return true;
    int cap = g->cap ? g->cap * 2 : 256;
    dr_node *p = dr_realloc(g->nodes, (size_t)cap * sizeof *p);
    if (!p) {
        dr_graph_fail(g, DR_NOMEM, "no memory for %d nodes", cap);
        return false;
    }
    g->nodes = p;
    g->cap = cap;
    return true;
}

dr_var dr_graph_append(dr_graph *g, dr_node n) {
    if (g->err.code) return -1;
    n.grads_params = n.op && n.w && n.w->trainable && !g->no_grad;
    bool wants = n.grads_params;
    for (int i = 0; n.op && i < n.op->n_in; i++) {
        if (n.in[i] < 0 || n.in[i] >= g->n) {
            dr_graph_fail(g, DR_INTERNAL, "%s: input %d is no node", n.op->name, i);
            return -1;
        }
        wants = wants || g->nodes[n.in[i]].needs_grad;
    }
    if (n.op) n.needs_grad = wants && !g->no_grad;
    if (!dr_shape_valid(n.shape)) {
        char text[48];
        dr_graph_fail(g, DR_INVALID, "%s: shape %s is not possible", n.op ? n.op->name : "input",
                      dr_shape_text(n.shape, text));
        return -1;
    }
    if (!make_room(g)) return -1;
    dr_node *at = &g->nodes[g->n++];
    *at = n;
    if (n.op && g->mode == DR_MODE_TRAIN) {
        dr_status s = dr_pool_tensor(g->pool, n.shape, &at->out, &g->err);
        if (!s) s = compute(g, at, &g->err);
        if (s) {
            dr_graph_fail(g, s, "%s: %s", n.op->name, dr_status_text(s)); /* where the callee had no words */
            return -1;
        }
    }
    return g->n - 1;
}

dr_var dr_input(dr_graph *g, dr_tensor x, bool needs_grad) {
    return dr_graph_append(g, (dr_node){.in = {-1, -1}, .shape = x.shape, .out = x, .needs_grad = needs_grad});
}

dr_var dr_detach(dr_graph *g, dr_var x) {
    assert(g->mode == DR_MODE_TRAIN);
    if (g->err.code || x < 0) return -1;
    return dr_input(g, g->nodes[x].out, false);
}

/* ---- running later ---- */

dr_status dr_graph_run(dr_graph *g, dr_var keep, dr_error *err) {
    assert(g->mode == DR_MODE_EVAL);
    dr_status s = dr_graph_status(g, err);
    if (s) return s;
    if (keep < 0 || keep >= g->n) return dr_fail(err, DR_INTERNAL, "nothing to run");
    int *last = dr_calloc((size_t)g->n, sizeof *last); /* last reader of each node, 0 = nobody */
    if (!last) return dr_fail(err, DR_NOMEM, "no memory to run %d nodes", g->n);
    last[keep] = g->n;
    for (int i = keep; i >= 0; i--)
        for (int k = 0; last[i] && g->nodes[i].op && k < g->nodes[i].op->n_in; k++)
            if (!last[g->nodes[i].in[k]]) last[g->nodes[i].in[k]] = i;
    for (int i = 0; i <= keep && !s; i++) {
        dr_node *n = &g->nodes[i];
        if (!n->op || !last[i]) continue;
        if (!(s = dr_graph_take(g, n->shape, &n->out, err))) s = compute(g, n, err);
        for (int k = 0; !s && k < n->op->n_in; k++) {
            dr_node *in = &g->nodes[n->in[k]];
            if (in->op && last[n->in[k]] == i && in->out.data) {
                dr_graph_give(g, in->out);
                in->out.data = NULL;
            }
        }
    }
    dr_free(last);
    return s;
}
