/* plan.c - see plan.h. fuse.c says which calls there are; here they get memory and are run.
 *
 * Values are numbered: v is node v's tensor, n + v the statistics of instance norm v. */
#include "core/model/plan.h"

#include "core/base/alloc.h"
#include "core/base/log.h"
#include "core/grad/exec.h"
#include "core/model/fuse.h"
#include "core/model/pack.h"
#include <string.h>

struct dr_plan {
    dr_backend *be;
    dr_node *nodes; /* copied from the graph */
    int n;
    size_t *offset; /* of each of the 2n values in the block */
    dr_step *steps;
    struct {
        dr_slot *slot; /* of its convolution; NULL = none */
        double cost;   /* its share of the progress */
    } * extra;         /* of each step */
    double total_cost;
    int n_steps;
    dr_var input, output;
    size_t bytes, conv_bytes;
    dr_pool pool; /* for what op rows keep during a run */
    struct {
        dr_slot slot;   /* a run, for replaying; filled or not */
        void *block;    /* the block it works on, or that of the last plain run */
        int n_failures; /* in a row; at FAILURES_MAX no more tries */
    } recording;
};

enum {
    RECORD_PIXELS_MAX = 1 << 20, /* above it, launching costs little and a run should hear of being cancelled */
    FAILURES_MAX = 3
};

/* ---- memory --------------------------------------------------------------------------------------------------- */

enum { READS_MAX = 3 };

static int reads_of(const dr_plan *p, const dr_step *s, int ret[READS_MAX]) {
    int n = 0;
    if (s->kind == DR_STEP_OP) {
        for (int k = 0; k < p->nodes[s->node].op->n_in; k++) ret[n++] = p->nodes[s->node].in[k];
        return n;
    }
    ret[n++] = s->x;
    if (s->resid >= 0) ret[n++] = s->resid;
    if (s->norm >= 0) ret[n++] = p->n + s->norm;
    return n;
}

static size_t bytes_of(const dr_plan *p, int value) {
    if (value < p->n) return dr_be_tensor_bytes(p->be, p->nodes[value].shape);
    dr_shape s = p->nodes[value - p->n].shape;
    return ((size_t)s.n * (size_t)s.c * 2 * sizeof(float) + 63) / 64 * 64;
}

/* May the step write its result over an input of the same shape? */
static bool works_in_place(const dr_plan *p, const dr_step *s) {
    if (s->kind == DR_STEP_APPLY) return s->then == DR_THEN_NONE || (s->then == DR_THEN_ADD && s->pad == 0);
    if (s->kind != DR_STEP_OP) return false;
    const dr_op *op = p->nodes[s->node].op;
    return op == &dr_op_activation || op == &dr_op_add || op == &dr_op_add_bcast || op == &dr_op_scale ||
           op == &dr_op_clamp;
}

/* Lifetimes (a value lives from the step that makes it to the last one that reads it), sharing, offsets. */
static dr_status place(dr_plan *p, dr_error *err) {
    size_t n = 2 * (size_t)p->n;
    dr_span *span = dr_calloc(n, sizeof *span); /* of the value that owns the memory */
    int *owner = dr_calloc(n, sizeof *owner), *last = dr_calloc(n, sizeof *last), in[READS_MAX];
    dr_status st = DR_OK;
    if (!span || !owner || !last) {
        st = dr_fail(err, DR_NOMEM, "no memory to plan %d nodes", p->n);
        goto out;
    }
    for (int i = 0; i < p->n_steps; i++)
        for (int k = reads_of(p, &p->steps[i], in); k-- > 0;) last[in[k]] = i;
    last[p->output] = p->n_steps;
    for (size_t v = 0; v < n; v++) owner[v] = (int)v;
    span[p->input] = (dr_span){.bytes = bytes_of(p, p->input), .last = last[p->input]};
    for (int i = 0; i < p->n_steps; i++) {
        const dr_step *s = &p->steps[i];
        int made[] = {s->y, s->out_norm >= 0 ? p->n + s->out_norm : -1}, from = -1;
        for (int k = works_in_place(p, s) ? reads_of(p, s, in) : 0; k-- > 0;)
            if (in[k] < p->n && last[in[k]] == i && dr_shape_eq(p->nodes[in[k]].shape, p->nodes[s->y].shape))
                from = in[k];
        for (int k = 0; k < 2; k++) {
            if (made[k] < 0) continue;
            int end = last[made[k]] > i ? last[made[k]] : i;
            if (k == 0 && from >= 0) {
                owner[made[k]] = owner[from];
                span[owner[from]].last = end;
            } else {
                span[made[k]] = (dr_span){.bytes = bytes_of(p, made[k]), .first = i, .last = end};
            }
        }
    }
    p->bytes = dr_pack(span, (int)n);
    for (size_t v = 0; v < n; v++) p->offset[v] = span[owner[v]].offset;
out:
    dr_free(span);
    dr_free(owner);
    dr_free(last);
    return st;
}

/* Slots, costs, and the largest convolution. */
static void prepare(dr_plan *p, const dr_param *params, int n_params, dr_slot *slots) {
    for (int i = 0; i < p->n_steps; i++) {
        const dr_step *s = &p->steps[i];
        const dr_node *n = &p->nodes[s->node];
        p->extra[i].cost = 20.0 * (double)dr_shape_count(n->shape); /* a pass over memory against a multiply-add */
        if (s->kind == DR_STEP_CONV) {
            dr_shape w = n->w->shape;
            size_t bytes = bytes_of(p, s->x) + bytes_of(p, s->y);
            p->extra[i].cost += (double)dr_shape_count(n->shape) * w.c * w.h * w.w;
            if (bytes > p->conv_bytes) p->conv_bytes = bytes;
            if (slots && n->w >= params && n->w < params + n_params) p->extra[i].slot = &slots[n->w - params];
        }
        p->total_cost += p->extra[i].cost;
    }
}

/* ---- build ------------------------------------------------------------------------------------------------------ */

dr_status dr_plan_build(const dr_graph *g, dr_var input, dr_var output, dr_backend *be, bool fuse,
                        const dr_param *params, int n_params, dr_slot *slots, dr_plan **ret, dr_error *err) {
    dr_status st = dr_graph_status(g, err);
    if (st) return st;
    if (input < 0 || output <= input || output >= g->n)
        return dr_fail(err, DR_INTERNAL, "plan: no way from input to output");
    size_t n = (size_t)g->n;
    dr_plan *p = dr_calloc(1, sizeof *p);
    if (!p) return dr_fail(err, DR_NOMEM, "no memory to plan %d nodes", g->n);
    *p = (dr_plan){.be = be, .n = g->n, .input = input, .output = output};
    dr_pool_init(&p->pool, be, 1 << 16);
    p->nodes = dr_calloc(n, sizeof *p->nodes);
    p->offset = dr_calloc(2 * n, sizeof *p->offset);
    p->steps = dr_calloc(2 * n, sizeof *p->steps);
    p->extra = dr_calloc(2 * n, sizeof *p->extra);
    if (!p->nodes || !p->offset || !p->steps || !p->extra) {
        st = dr_fail(err, DR_NOMEM, "no memory to plan %d nodes", g->n);
        goto out;
    }
    memcpy(p->nodes, g->nodes, n * sizeof *p->nodes);
    if ((st = dr_fuse(p->nodes, p->n, input, output, be, fuse, p->steps, &p->n_steps, err))) goto out;
    prepare(p, params, n_params, slots);
    st = place(p, err);
out:
    if (st)
        dr_plan_destroy(p);
    else
        *ret = p;
    return st;
}

void dr_plan_destroy(dr_plan *p) {
    if (!p) return;
    dr_slot_clear(&p->recording.slot);
    dr_pool_done(&p->pool);
    dr_free(p->nodes);
    dr_free(p->offset);
    dr_free(p->steps);
    dr_free(p->extra);
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

/* ---- run -------------------------------------------------------------------------------------------------------- */

static dr_tensor tensor_of(const dr_plan *p, dr_var v, void *block) {
    return (dr_tensor){p->nodes[v].shape, (char *)block + p->offset[v]};
}

dr_tensor dr_plan_input(const dr_plan *p, void *block) {
    return tensor_of(p, p->input, block);
}
dr_tensor dr_plan_output(const dr_plan *p, void *block) {
    return tensor_of(p, p->output, block);
}

static float *stats_of(const dr_plan *p, dr_var norm, void *block) {
    return norm < 0 ? NULL : (float *)(void *)((char *)block + p->offset[p->n + norm]);
}

static dr_status run_conv(const dr_plan *p, const dr_step *s, dr_slot *slot, void *block, dr_error *err) {
    const dr_node *n = &p->nodes[s->node];
    const float *b = n->b ? n->b->value : NULL;
    const dr_conv2d_desc d = {.k = n->u.conv.k, .pad = s->pad, .frozen = true};
    if (!s->fused) return dr_be_conv2d(p->be, d, p->nodes[s->x].out, n->w->value, b, n->out, slot, err);
    const dr_conv_fuse f = {.in_stats = stats_of(p, s->norm, block),
                            .in_act = s->norm >= 0 ? p->nodes[s->norm].u.norm.act : DR_ACT_NONE,
                            .in_then = s->then,
                            .reflect = s->reflect,
                            .out_stats = stats_of(p, s->out_norm, block),
                            .eps = s->out_norm >= 0 ? p->nodes[s->out_norm].u.norm.eps : 0};
    return dr_be_conv2d_fused(p->be, d, &f, p->nodes[s->x].out, n->w->value, b, n->out, slot, err);
}

static dr_status run_step(dr_plan *p, const dr_step *s, dr_slot *slot, void *block, dr_error *err) {
    dr_node *n = &p->nodes[s->node];
    switch (s->kind) {
    case DR_STEP_OP: {
        dr_exec x = {p->be, &p->pool, p->nodes};
        return n->op->forward(&x, n, err);
    }
    case DR_STEP_CONV:
        return run_conv(p, s, slot, block, err);
    case DR_STEP_STATS:
        return dr_be_norm_stats(p->be, n->u.norm.eps, p->nodes[s->x].out, stats_of(p, s->out_norm, block), err);
    case DR_STEP_APPLY:
        return dr_be_norm_apply(p->be, p->nodes[s->x].out, stats_of(p, s->norm, block), n->u.norm.act, s->then, s->pad,
                                s->resid >= 0 ? p->nodes[s->resid].out : (dr_tensor){0}, p->nodes[s->y].out, err);
    }
    return DR_INTERNAL;
}

static void tell(const dr_plan_watch *watch, double part) {
    if (watch && watch->progress)
        atomic_store_explicit(watch->progress, watch->from + (watch->to - watch->from) * (float)part,
                              memory_order_relaxed);
}

/* Is the run wanted still? Asked between steps, and before a recorded run. */
static dr_status ask(const dr_plan_watch *watch, dr_error *err) {
    if (watch && watch->cancel && atomic_load_explicit(watch->cancel, memory_order_relaxed))
        return dr_fail(err, DR_CANCELLED, "cancelled");
    if (watch && watch->between && !watch->between(watch->between_arg)) return dr_fail(err, DR_CANCELLED, "broken off");
    return DR_OK;
}

static dr_status run_steps(dr_plan *p, void *block, const dr_plan_watch *watch, dr_error *err) {
    double done = 0;
    dr_status st = DR_OK;
    for (int i = 0; i < p->n_steps && !st; i++) {
        st = ask(watch, err);
        if (!st) st = run_step(p, &p->steps[i], p->extra[i].slot, block, err);
        done += p->extra[i].cost;
        if (!st) tell(watch, done / p->total_cost);
    }
    dr_pool_reset(&p->pool);
    return st;
}

/* ---- recorded runs ---------------------------------------------------------------------------------------------- */

static bool is_recordable(const dr_plan *p) {
    dr_shape s = p->nodes[p->input].shape;
    return dr_be_records(p->be) && (int64_t)s.n * s.h * s.w <= RECORD_PIXELS_MAX &&
           p->recording.n_failures < FAILURES_MAX;
}

/* Replay the recording if there is one that still holds, else make one. *ret_done: the run is on its way. Whatever goes
 * wrong while recording or on the way to it has done nothing: the plain run that follows tells if it was more. */
static void run_recorded(dr_plan *p, void *block, bool *ret_done) {
    dr_error err = {0};
    dr_slot *r = &p->recording.slot;
    dr_status s = DR_OK;
    if (r->p && p->recording.block == block) {
        s = dr_be_replay(p->be, r, ret_done, &err);
        if (s || *ret_done) goto out;
    }
    dr_slot_clear(r);
    if (p->recording.block != block) return; /* a first run with it takes what memory it needs */
    s = dr_be_record_begin(p->be, &err);
    if (!s) {
        s = run_steps(p, block, NULL, &err);
        dr_status end = dr_be_record_end(p->be, s ? NULL : r, s ? NULL : &err);
        s = s ? s : end;
    }
    if (!s && dr_be_replay(p->be, r, ret_done, &err)) *ret_done = false;
out:
    if (*ret_done) {
        p->recording.n_failures = 0;
        return;
    }
    dr_slot_clear(r);
    p->recording.n_failures++;
    dr_log(DR_LOG_DEBUG, NULL, "a recorded run failed, going on without: %s", err.text);
}

dr_status dr_plan_run(dr_plan *p, void *block, const dr_plan_watch *watch, dr_error *err) {
    for (int v = 0; v < p->n; v++) p->nodes[v].out = tensor_of(p, v, block);
    bool done = false;
    if (is_recordable(p)) {
        dr_status s = ask(watch, err);
        if (s) return s;
        run_recorded(p, block, &done);
        if (done) tell(watch, 1);
    }
    if (done) return DR_OK;
    dr_status s = run_steps(p, block, watch, err);
    p->recording.block = s ? NULL : block;
    return s;
}
