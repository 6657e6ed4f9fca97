/* plan.c - see plan.h. Values are the graph's nodes by index; a step makes one of them.
 *
 * Fusing instance norm i with its only reader r:
 *   i -> pad_reflect, blur_down, blur_up    one norm_apply that makes r
 *   i -> add(skip, i) = r                   one norm_apply that makes r; and if r is read by one pad_reflect P and
 * otherwise only as the skip of further fused adds, one that makes P, whose inner part is r Everything else runs its op
 * row. A convolution is a step of its own kind because it has a slot. */
#include "core/model/plan.h"

#include "core/base/alloc.h"
#include "core/grad/exec.h"
#include "core/model/pack.h"
#include <string.h>

typedef enum step_kind { STEP_OP, STEP_CONV, STEP_STATS, STEP_APPLY } step_kind;

typedef struct step {
    step_kind kind;
    dr_var node;        /* whose op row, weights or norm settings it takes */
    dr_var x, resid, y; /* values read and made; -1 = none. STEP_OP reads node's inputs, STEP_STATS makes none */
    dr_norm_then then;  /* STEP_APPLY */
    int pad;
    dr_slot *slot; /* STEP_CONV */
    double cost;   /* share of the progress */
} step;

struct dr_plan {
    dr_backend *be;
    dr_node *nodes; /* copied from the graph */
    size_t *offset; /* of each value in the block */
    int n;
    step *steps;
    int n_steps;
    dr_var input, output;
    size_t bytes, stats_offset, conv_bytes;
    double cost;
    dr_pool pool; /* for what op rows keep during a run */
};

/* Working state of a build. */
typedef struct builder {
    dr_plan *p;
    bool fuse;
    int *n_readers;
    dr_var *reader;   /* the last one found; the only one where n_readers is 1 */
    dr_var *fused_by; /* add nodes: the norm that makes them, -1 = none */
    dr_var *skip_of;  /* add nodes with fused_by: the other operand */
    dr_var *inner_of; /* values whose inner part this padded value holds, -1 = none */
    bool *absorbed;   /* made by an earlier step */
} builder;

static bool is(const dr_plan *p, dr_var v, const dr_op *op) {
    return v >= 0 && p->nodes[v].op == op;
}

static step *add_step(dr_plan *p, step_kind kind, dr_var node, dr_var x, dr_var y) {
    step *s = &p->steps[p->n_steps++];
    *s = (step){.kind = kind, .node = node, .x = x, .resid = -1, .y = y};
    const dr_node *n = &p->nodes[node];
    s->cost = 20.0 * (double)dr_shape_count(n->shape); /* a pass over memory against a multiply-add */
    if (kind == STEP_CONV) {
        dr_shape w = n->w->shape;
        s->cost += (double)dr_shape_count(n->shape) * w.c * w.h * w.w;
    }
    p->cost += s->cost;
    return s;
}

/* ---- finding patterns ----------------------------------------------------------------------------------------- */

static void find_readers(builder *b) {
    dr_plan *p = b->p;
    for (int i = 0; i < p->n; i++)
        for (int k = 0; p->nodes[i].op && k < p->nodes[i].op->n_in; k++) {
            b->n_readers[p->nodes[i].in[k]]++;
            b->reader[p->nodes[i].in[k]] = i;
        }
    b->n_readers[p->output]++; /* the caller */
    for (int i = 0; i < p->n; i++) b->fused_by[i] = b->skip_of[i] = b->inner_of[i] = -1;
    for (int i = 0; b->fuse && i < p->n; i++) {
        if (!is(p, i, &dr_op_add)) continue;
        dr_var u = p->nodes[i].in[0], v = p->nodes[i].in[1], late = u > v ? u : v, early = u > v ? v : u;
        if (early == late || !is(p, late, &dr_op_instance_norm) || b->n_readers[late] != 1) continue;
        b->fused_by[i] = late;
        b->skip_of[i] = early;
    }
}

/* The one pad_reflect that reads v, if every other reader is a fused add that takes v as its skip; else -1. */
static dr_var padded_form(const builder *b, dr_var v) {
    const dr_plan *p = b->p;
    dr_var pad = -1;
    if (v == p->output) return -1;
    for (int i = v + 1; i < p->n; i++)
        for (int k = 0; p->nodes[i].op && k < p->nodes[i].op->n_in; k++) {
            if (p->nodes[i].in[k] != v) continue;
            if (is(p, i, &dr_op_pad_reflect) && pad < 0)
                pad = i;
            else if (b->fused_by[i] < 0 || b->skip_of[i] != v)
                return -1;
        }
    return pad;
}

/* Instance norm `i` as statistics and one pass that also does what follows. */
static void fuse_norm(builder *b, dr_var i) {
    dr_plan *p = b->p;
    dr_var x = p->nodes[i].in[0], r = b->n_readers[i] == 1 && i != p->output ? b->reader[i] : -1;
    add_step(p, STEP_STATS, i, x, -1);
    step *s = add_step(p, STEP_APPLY, i, x, i);
    if (is(p, r, &dr_op_pad_reflect)) {
        s->then = DR_THEN_REFLECT;
        s->pad = p->nodes[r].u.pad;
    } else if (is(p, r, &dr_op_blur_down)) {
        s->then = DR_THEN_BLUR_DOWN;
    } else if (is(p, r, &dr_op_blur_up)) {
        s->then = DR_THEN_BLUR_UP;
    } else if (is(p, r, &dr_op_add) && b->fused_by[r] == i) {
        s->then = DR_THEN_ADD;
        dr_var skip = b->skip_of[r], pad = padded_form(b, r);
        s->resid = b->inner_of[skip] >= 0 ? b->inner_of[skip] : skip;
        if (pad >= 0) {
            s->pad = p->nodes[pad].u.pad;
            b->absorbed[r] = true;
            b->inner_of[r] = pad;
            r = pad;
        }
    } else {
        return;
    }
    s->y = r;
    b->absorbed[r] = true;
}

static dr_status make_steps(builder *b, const dr_param *params, int n_params, dr_slot *slots, dr_error *err) {
    dr_plan *p = b->p;
    for (int i = 0; i < p->n; i++) {
        const dr_node *n = &p->nodes[i];
        if (!n->op) {
            if (i != p->input) return dr_fail(err, DR_INTERNAL, "plan: node %d is a second input", i);
            continue;
        }
        if (b->absorbed[i]) continue;
        if (b->fuse && n->op == &dr_op_instance_norm) {
            fuse_norm(b, i);
        } else if (n->op == &dr_op_conv2d) {
            step *s = add_step(p, STEP_CONV, i, n->in[0], i);
            p->nodes[i].u.conv.frozen = true;
            if (slots && n->w >= params && n->w < params + n_params) s->slot = &slots[n->w - params];
            size_t bytes = dr_be_tensor_bytes(p->be, n->shape) + dr_be_tensor_bytes(p->be, p->nodes[n->in[0]].shape);
            if (bytes > p->conv_bytes) p->conv_bytes = bytes;
        } else {
            add_step(p, STEP_OP, i, n->in[0], i);
            if (n->op == &dr_op_pad_reflect) b->inner_of[n->in[0]] = i; /* lets the unpadded value die earlier */
        }
    }
    return DR_OK;
}

/* ---- memory --------------------------------------------------------------------------------------------------- */

static int inputs_of(const dr_plan *p, const step *s, dr_var ret[2]) {
    int n = 0;
    if (s->kind == STEP_OP) {
        for (int k = 0; k < p->nodes[s->node].op->n_in; k++) ret[n++] = p->nodes[s->node].in[k];
        return n;
    }
    ret[n++] = s->x;
    if (s->resid >= 0) ret[n++] = s->resid;
    return n;
}

/* May the step write its result over an input of the same shape? */
static bool works_in_place(const dr_plan *p, const step *s) {
    if (s->kind == STEP_APPLY) return s->then == DR_THEN_NONE || (s->then == DR_THEN_ADD && s->pad == 0);
    if (s->kind != STEP_OP) return false;
    const dr_op *op = p->nodes[s->node].op;
    return op == &dr_op_activation || op == &dr_op_add || op == &dr_op_add_bcast || op == &dr_op_scale ||
           op == &dr_op_clamp;
}

/* Lifetimes (a value lives from the step that makes it to the last one that reads it), sharing, offsets. */
static dr_status place(dr_plan *p, dr_error *err) {
    dr_span *span = dr_calloc((size_t)p->n, sizeof *span); /* of the value that owns the memory */
    dr_var *owner = dr_calloc((size_t)p->n, sizeof *owner);
    int *last = dr_calloc((size_t)p->n, sizeof *last);
    dr_status st = DR_OK;
    if (!span || !owner || !last) {
        st = dr_fail(err, DR_NOMEM, "no memory to plan %d nodes", p->n);
        goto out;
    }
    dr_var in[2];
    size_t stats = 0, total;
    for (int i = 0; i < p->n_steps; i++)
        for (int k = inputs_of(p, &p->steps[i], in); k-- > 0;) last[in[k]] = i;
    last[p->output] = p->n_steps;
    for (int v = 0; v < p->n; v++) owner[v] = v;
    span[p->input] = (dr_span){.bytes = dr_be_tensor_bytes(p->be, p->nodes[p->input].shape), .last = last[p->input]};
    for (int i = 0; i < p->n_steps; i++) {
        const step *s = &p->steps[i];
        if (s->kind == STEP_STATS) {
            dr_shape x = p->nodes[s->x].shape;
            size_t bytes = ((size_t)x.n * (size_t)x.c * 2 * sizeof(float) + 63) / 64 * 64;
            if (bytes > stats) stats = bytes;
            continue;
        }
        dr_var y = s->y, from = -1;
        for (int k = works_in_place(p, s) ? inputs_of(p, s, in) : 0; k-- > 0;)
            if (span[owner[in[k]]].last == i && last[in[k]] == i &&
                dr_shape_eq(p->nodes[in[k]].shape, p->nodes[y].shape))
                from = in[k];
        int end = last[y] > i ? last[y] : i;
        if (from >= 0) {
            owner[y] = owner[from];
            span[owner[y]].last = end;
        } else {
            span[y] = (dr_span){.bytes = dr_be_tensor_bytes(p->be, p->nodes[y].shape), .first = i, .last = end};
        }
    }
    total = dr_pack(span, p->n);
    for (int v = 0; v < p->n; v++) p->offset[v] = span[owner[v]].offset;
    p->stats_offset = total;
    p->bytes = total + stats;
out:
    dr_free(span);
    dr_free(owner);
    dr_free(last);
    return st;
}

/* ---- public --------------------------------------------------------------------------------------------------- */

dr_status dr_plan_build(const dr_graph *g, dr_var input, dr_var output, dr_backend *be, bool fuse,
                        const dr_param *params, int n_params, dr_slot *slots, dr_plan **ret, dr_error *err) {
    dr_status st = dr_graph_status(g, err);
    if (st) return st;
    if (input < 0 || output <= input || output >= g->n)
        return dr_fail(err, DR_INTERNAL, "plan: no way from input to output");
    size_t n = (size_t)g->n;
    dr_plan *p = dr_calloc(1, sizeof *p);
    builder b = {.p = p, .fuse = fuse && dr_be_is_fused(be)};
    b.n_readers = dr_calloc(n, sizeof *b.n_readers);
    b.reader = dr_calloc(n, sizeof *b.reader);
    b.fused_by = dr_calloc(n, sizeof *b.fused_by);
    b.skip_of = dr_calloc(n, sizeof *b.skip_of);
    b.inner_of = dr_calloc(n, sizeof *b.inner_of);
    b.absorbed = dr_calloc(n, sizeof *b.absorbed);
    if (p) {
        *p = (dr_plan){.be = be, .n = g->n, .input = input, .output = output};
        dr_pool_init(&p->pool, be, 1 << 16);
        p->nodes = dr_calloc(n, sizeof *p->nodes);
        p->offset = dr_calloc(n, sizeof *p->offset);
        p->steps = dr_calloc(2 * n, sizeof *p->steps);
    }
    if (!p || !p->nodes || !p->offset || !p->steps || !b.n_readers || !b.reader || !b.fused_by || !b.skip_of ||
        !b.inner_of || !b.absorbed) {
        st = dr_fail(err, DR_NOMEM, "no memory to plan %d nodes", g->n);
        goto out;
    }
    memcpy(p->nodes, g->nodes, n * sizeof *p->nodes);
    find_readers(&b);
    if ((st = make_steps(&b, params, n_params, slots, err))) goto out;
    st = place(p, err);
out:
    dr_free(b.n_readers);
    dr_free(b.reader);
    dr_free(b.fused_by);
    dr_free(b.skip_of);
    dr_free(b.inner_of);
    dr_free(b.absorbed);
    if (st)
        dr_plan_destroy(p);
    else
        *ret = p;
    return st;
}

void dr_plan_destroy(dr_plan *p) {
    if (!p) return;
    dr_pool_done(&p->pool);
    dr_free(p->nodes);
    dr_free(p->offset);
    dr_free(p->steps);
    dr_free(p);
}

size_t dr_plan_bytes(const dr_plan *p) {
    return p->bytes;
}
size_t dr_plan_conv_bytes(const dr_plan *p) {
    return p->conv_bytes;
}
int dr_plan_steps(const dr_plan *p) {
    return p->n_steps;
}

static dr_tensor value(const dr_plan *p, dr_var v, void *block) {
    return (dr_tensor){p->nodes[v].shape, (char *)block + p->offset[v]};
}

dr_tensor dr_plan_input(const dr_plan *p, void *block) {
    return value(p, p->input, block);
}
dr_tensor dr_plan_output(const dr_plan *p, void *block) {
    return value(p, p->output, block);
}

static dr_status run_step(dr_plan *p, const step *s, void *block, dr_error *err) {
    dr_node *n = &p->nodes[s->node];
    float *stats = (float *)(void *)((char *)block + p->stats_offset);
    switch (s->kind) {
    case STEP_OP: {
        dr_exec x = {p->be, &p->pool, p->nodes};
        return n->op->forward(&x, n, err);
    }
    case STEP_CONV:
        return dr_be_conv2d(p->be, n->u.conv, p->nodes[s->x].out, n->w->value, n->b ? n->b->value : NULL, n->out,
                            s->slot, err);
    case STEP_STATS:
        return dr_be_norm_stats(p->be, n->u.norm.eps, p->nodes[s->x].out, stats, err);
    case STEP_APPLY:
        return dr_be_norm_apply(p->be, p->nodes[s->x].out, stats, n->u.norm.act, s->then, s->pad,
                                s->resid >= 0 ? p->nodes[s->resid].out : (dr_tensor){0}, p->nodes[s->y].out, err);
    }
    return DR_INTERNAL;
}

dr_status dr_plan_run(dr_plan *p, void *block, const dr_plan_watch *watch, dr_error *err) {
    for (int v = 0; v < p->n; v++) p->nodes[v].out = value(p, v, block);
    double done = 0;
    dr_status st = DR_OK;
    for (int i = 0; i < p->n_steps && !st; i++) {
        if (watch && watch->cancel && atomic_load_explicit(watch->cancel, memory_order_relaxed))
            st = dr_fail(err, DR_CANCELLED, "cancelled");
        if (!st) st = run_step(p, &p->steps[i], block, err);
        done += p->steps[i].cost;
        if (!st && watch && watch->progress)
            atomic_store_explicit(watch->progress, watch->from + (watch->to - watch->from) * (float)(done / p->cost),
                                  memory_order_relaxed);
    }
    dr_pool_reset(&p->pool);
    return st;
}
