/* plan.c - see plan.h. fuse.c says which calls there are; here they get memory and are run.
 *
 * What lies in the block is numbered: v is node v's tensor, n + v the statistics of instance norm v, 2n + i the working
 * memory of step i. */
#include "core/base/alloc.h"
#include "core/base/log.h"
#include "core/grad/exec.h"
#include "core/model/bands.h"
#include "core/model/pack.h"
#include <math.h>
#include <string.h>

enum {
    RECORD_PIXELS_MAX = 1 << 20, /* above it, launching costs little and a run should hear of being cancelled */
    FAILURES_MAX = 3
};

/* ---- memory --------------------------------------------------------------------------------------------------- */

int dr_plan_reads(const dr_plan *p, const dr_step *s, int ret[DR_READS_MAX]) {
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

bool dr_plan_in_place(const dr_plan *p, const dr_step *s) {
    if (s->kind == DR_STEP_APPLY) return s->then == DR_THEN_NONE || (s->then == DR_THEN_ADD && s->pad == 0);
    if (s->kind != DR_STEP_OP) return false;
    const dr_op *op = p->nodes[s->node].op;
    return op == &dr_op_activation || op == &dr_op_add || op == &dr_op_add_bcast || op == &dr_op_scale ||
           op == &dr_op_clamp;
}

double dr_plan_cost(const dr_plan *p, int i, dr_shape y) {
    double n = (double)dr_shape_count(y), cost = 20.0 * n;
    if (p->steps[i].kind == DR_STEP_CONV) {
        dr_shape w = p->nodes[p->steps[i].node].w->shape;
        cost += n * w.c * w.h * w.w;
    }
    return cost;
}

/* Lifetimes (a value lives from the step that makes it to the last one that reads it), sharing, offsets. */
static void place(dr_plan *p, const int *last, dr_span *span, int *owner) {
    int in[DR_READS_MAX];
    for (int v = 0; v < 2 * p->n + p->n_steps; v++) owner[v] = v;
    span[p->input] = (dr_span){.bytes = bytes_of(p, p->input), .last = last[p->input]};
    for (int i = 0; i < p->n_steps; i++) {
        const dr_step *s = &p->steps[i];
        if (p->extra[i].pass == DR_PASS_NONE) continue;
        const bool in_place = p->extra[i].pass == DR_PASS_WHOLE && dr_plan_in_place(p, s);
        int made[] = {s->y, s->out_norm >= 0 ? p->n + s->out_norm : -1}, from = -1;
        for (int k = in_place ? dr_plan_reads(p, s, in) : 0; k-- > 0;)
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
        span[2 * p->n + i] = (dr_span){.bytes = p->extra[i].area, .first = i, .last = i};
    }
    p->bytes = dr_pack(span, 2 * p->n + p->n_steps);
    for (int v = 0; v < 2 * p->n + p->n_steps; v++) p->offset[v] = span[owner[v]].offset;
}

/* What becomes of each step, and where in the block everything lies. */
static dr_status arrange(dr_plan *p, double cost_max, dr_error *err) {
    size_t n = 2 * (size_t)p->n, all = n + (size_t)p->n_steps;
    dr_span *span = dr_calloc(all, sizeof *span); /* of the value that owns the memory */
    int *owner = dr_calloc(all, sizeof *owner), *last = dr_calloc(n, sizeof *last);
    p->offset = dr_calloc(all, sizeof *p->offset);
    dr_status st = DR_OK;
    if (!span || !owner || !last || !p->offset) st = dr_fail(err, DR_NOMEM, "no memory to plan %d nodes", p->n);
    if (!st) st = dr_bands_measure(p, cost_max, last, err);
    if (!st) {
        last[p->output] = p->n_steps;
        place(p, last, span, owner);
    }
    dr_free(span);
    dr_free(owner);
    dr_free(last);
    return st;
}

/* Is v made of kept values with little work, so that its rows may as well be made when they are read? */
static bool is_cheap(const dr_plan *p, dr_var v, const bool *near) {
    const dr_op *op = p->nodes[v].op;
    return (op == &dr_op_instance_norm || op == &dr_op_activation || op == &dr_op_pad_reflect ||
            op == &dr_op_blur_down || op == &dr_op_blur_up || op == &dr_op_scale || op == &dr_op_clamp) &&
           near[p->nodes[v].in[0]];
}

/* Which values are kept, before it is known which of them are made: those within the bound, of cheap ones those within
 * half of it. */
static dr_status choose_kept(dr_plan *p, const dr_plan_bands *b, dr_error *err) {
    bool *near = dr_calloc((size_t)p->n, sizeof *near); /* kept, or cheap to make of what is */
    if (!near) return dr_fail(err, DR_NOMEM, "no memory to plan %d nodes", p->n);
    for (int v = 0; v < p->n; v++) {
        const size_t bytes = dr_be_tensor_bytes(p->be, p->nodes[v].shape);
        const bool cheap = is_cheap(p, v, near);
        p->kept[v] = !b || v == p->input || v == p->output || bytes <= (cheap ? b->kept_max / 2 : b->kept_max);
        near[v] = p->kept[v] || cheap;
    }
    dr_free(near);
    return DR_OK;
}

dr_status dr_plan_build(const dr_graph *g, dr_var input, dr_var output, dr_backend *be, bool fuse,
                        const dr_param *params, int n_params, dr_slot *slots, const dr_plan_bands *bands, dr_plan **ret,
                        dr_error *err) {
    dr_status st = dr_graph_status(g, err);
    if (st) return st;
    if (input < 0 || output <= input || output >= g->n)
        return dr_fail(err, DR_INTERNAL, "plan: no way from input to output");
    if (bands && !(fuse && dr_be_is_fused(be)))
        return dr_fail(err, DR_UNSUPPORTED, "%s: no bands without entries for statistics", be->ops->name);
    size_t n = (size_t)g->n;
    dr_plan *p = dr_calloc(1, sizeof *p);
    if (!p) return dr_fail(err, DR_NOMEM, "no memory to plan %d nodes", g->n);
    *p = (dr_plan){.be = be, .n = g->n, .input = input, .output = output, .band_rows = bands ? bands->rows : 0};
    dr_pool_init(&p->pool, be, 1 << 16);
    p->nodes = dr_calloc(n, sizeof *p->nodes);
    p->kept = dr_calloc(n, sizeof *p->kept);
    p->made_by = dr_calloc(n, sizeof *p->made_by);
    p->steps = dr_calloc(2 * n, sizeof *p->steps);
    p->extra = dr_calloc(2 * n, sizeof *p->extra);
    if (!p->nodes || !p->kept || !p->made_by || !p->steps || !p->extra) {
        st = dr_fail(err, DR_NOMEM, "no memory to plan %d nodes", g->n);
        goto out;
    }
    memcpy(p->nodes, g->nodes, n * sizeof *p->nodes);
    if ((st = choose_kept(p, bands, err))) goto out;
    if ((st = dr_fuse(p->nodes, p->n, input, output, be, fuse, p->kept, p->steps, &p->n_steps, err))) goto out;
    for (int v = 0; v < p->n; v++) p->made_by[v] = -1;
    for (int i = 0; i < p->n_steps; i++) {
        const dr_param *w = p->nodes[p->steps[i].node].w;
        if (p->steps[i].y >= 0) p->made_by[p->steps[i].y] = i;
        if (p->steps[i].kind == DR_STEP_CONV && slots && w >= params && w < params + n_params)
            p->extra[i].slot = &slots[w - params];
    }
    st = arrange(p, bands ? bands->cost_max : HUGE_VAL, err);
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
    dr_free(p->kept);
    dr_free(p->made_by);
    dr_free(p->pairs);
    dr_free(p->moments);
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
double dr_plan_total_cost(const dr_plan *p) {
    return p->total_cost;
}
bool dr_plan_is_banded(const dr_plan *p) {
    return p->band_rows > 0;
}
size_t dr_plan_largest(const dr_plan *p) {
    size_t most = 0;
    for (int v = 0; v < p->n; v++) {
        size_t bytes = p->made_by[v] < 0 ? 0 : dr_be_tensor_bytes(p->be, p->nodes[v].shape);
        if (bytes > most) most = bytes;
    }
    return most;
}

/* ---- run -------------------------------------------------------------------------------------------------------- */

dr_tensor dr_plan_tensor(const dr_plan *p, dr_var v, void *block) {
    return (dr_tensor){p->nodes[v].shape, (char *)block + p->offset[v]};
}

dr_tensor dr_plan_input(const dr_plan *p, void *block) {
    return dr_plan_tensor(p, p->input, block);
}
dr_tensor dr_plan_output(const dr_plan *p, void *block) {
    return dr_plan_tensor(p, p->output, block);
}

float *dr_plan_stats(const dr_plan *p, dr_var norm, void *block) {
    return norm < 0 ? NULL : (float *)(void *)((char *)block + p->offset[p->n + norm]);
}

static dr_status call_conv(const dr_plan *p, int i, void *block, dr_tensor x, dr_tensor y, dr_error *err) {
    const dr_step *s = &p->steps[i];
    const dr_node *n = &p->nodes[s->node];
    const float *b = n->b ? n->b->value : NULL;
    const dr_conv2d_desc d = {.k = n->u.conv.k, .pad = s->pad, .frozen = true};
    if (!s->fused) return dr_be_conv2d(p->be, d, x, n->w->value, b, y, p->extra[i].slot, err);
    const dr_conv_fuse f = {.in_stats = dr_plan_stats(p, s->norm, block),
                            .in_act = s->norm >= 0 ? p->nodes[s->norm].u.norm.act : DR_ACT_NONE,
                            .in_then = s->then,
                            .reflect = s->reflect,
                            .out_stats = dr_plan_stats(p, s->out_norm, block),
                            .eps = s->out_norm >= 0 ? p->nodes[s->out_norm].u.norm.eps : 0};
    return dr_be_conv2d_fused(p->be, d, &f, x, n->w->value, b, y, p->extra[i].slot, err);
}

/* An op row reads its inputs from the nodes that it names. */
static dr_status call_op(dr_plan *p, const dr_node *n, const dr_tensor in[2], dr_tensor y, dr_error *err) {
    dr_node t[3] = {{.out = in[0]}, {.out = in[1]}, *n};
    dr_exec x = {p->be, &p->pool, t};
    t[2].in[0] = 0;
    t[2].in[1] = 1;
    t[2].out = y;
    return n->op->forward(&x, &t[2], err);
}

dr_status dr_plan_call(dr_plan *p, int i, void *block, const dr_tensor in[2], dr_tensor y, dr_error *err) {
    const dr_step *s = &p->steps[i];
    const dr_node *n = &p->nodes[s->node];
    switch (s->kind) {
    case DR_STEP_OP:
        return call_op(p, n, in, y, err);
    case DR_STEP_CONV:
        return call_conv(p, i, block, in[0], y, err);
    case DR_STEP_STATS:
        return dr_be_norm_stats(p->be, n->u.norm.eps, in[0], dr_plan_stats(p, s->out_norm, block), err);
    case DR_STEP_APPLY:
        return dr_be_norm_apply(p->be, in[0], dr_plan_stats(p, s->norm, block), n->u.norm.act, s->then, s->pad, in[1],
                                y, err);
    }
    return DR_INTERNAL;
}

static dr_status call_whole(dr_plan *p, int i, void *block, dr_error *err) {
    const dr_step *s = &p->steps[i];
    const dr_node *n = &p->nodes[s->node];
    dr_tensor in[2] = {{{0}, NULL}, {{0}, NULL}}, y = {{0}, NULL};
    const bool is_op = s->kind == DR_STEP_OP;
    const dr_var a = is_op ? n->in[0] : s->x, b = !is_op ? s->resid : n->op->n_in > 1 ? n->in[1] : -1;
    in[0] = dr_plan_tensor(p, a, block);
    if (b >= 0) in[1] = dr_plan_tensor(p, b, block);
    if (s->y >= 0) y = dr_plan_tensor(p, s->y, block);
    return dr_plan_call(p, i, block, in, y, err);
}

static void tell(const dr_plan_watch *watch, double part) {
    if (watch && watch->progress)
        atomic_store_explicit(watch->progress, watch->from + (watch->to - watch->from) * (float)part,
                              memory_order_relaxed);
}

/* Is the run wanted still? Where others may pass, the device's queue is kept short, so that they need not wait for the
 * whole run. */
dr_status dr_plan_ask(const dr_plan *p, const dr_plan_watch *watch, dr_error *err) {
    if (watch && watch->cancel && atomic_load_explicit(watch->cancel, memory_order_relaxed))
        return dr_fail(err, DR_CANCELLED, "cancelled");
    if (!watch || !watch->between) return DR_OK;
    dr_status s = watch->gives_way ? dr_be_pace(p->be, err) : DR_OK;
    if (s) return s;
    return watch->between(watch->between_arg) ? DR_OK : dr_fail(err, DR_CANCELLED, "broken off");
}

void dr_plan_did(const dr_plan *p, dr_plan_run_state *r, double cost) {
    r->done += cost;
    tell(r->watch, r->done / p->total_cost);
}

static dr_status run_steps(dr_plan *p, void *block, const dr_plan_watch *watch, dr_error *err) {
    dr_plan_run_state run = {.block = block, .watch = watch};
    dr_status st = DR_OK;
    for (int i = 0; i < p->n_steps && !st; i++) {
        if (p->extra[i].pass == DR_PASS_NONE) continue;
        if (p->extra[i].pass == DR_PASS_BANDS) {
            st = dr_bands_run(p, i, &run, err);
            continue;
        }
        st = dr_plan_ask(p, watch, err);
        if (!st) st = call_whole(p, i, block, err);
        if (!st) dr_plan_did(p, &run, p->extra[i].cost);
    }
    dr_pool_reset(&p->pool);
    return st;
}

/* ---- recorded runs ---------------------------------------------------------------------------------------------- */

/* A recorded run is one piece that nobody can pass. */
static bool is_recordable(const dr_plan *p, const dr_plan_watch *watch) {
    if (watch && watch->gives_way) return false;
    dr_shape s = p->nodes[p->input].shape;
    return dr_be_records(p->be) && !p->band_rows && (int64_t)s.n * s.h * s.w <= RECORD_PIXELS_MAX &&
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
    bool done = false;
    if (is_recordable(p, watch)) {
        dr_status s = dr_plan_ask(p, watch, err);
        if (s) return s;
        run_recorded(p, block, &done);
        if (done) tell(watch, 1);
    }
    if (done) return DR_OK;
    dr_status s = run_steps(p, block, watch, err);
    p->recording.block = s ? NULL : block;
    return s;
}
