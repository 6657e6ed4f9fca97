/* fuse.c - see fuse.h. The walk goes down the list, so that all who need a value have spoken before it is chosen how it
 * is made; the steps are then written going up. */
#include "core/model/fuse.h"

#include "core/base/alloc.h"
#include "core/grad/exec.h"

typedef struct fuser {
    const dr_node *nodes;
    int n;
    dr_backend *be;
    const bool *whole; /* NULL: all values are */
    bool norms;        /* the backend has norm_stats and norm_apply, and they are wanted */
    dr_step *how;
    bool *need;       /* has to exist */
    bool *need_stats; /* instance norms: their statistics have to exist */
    dr_var *skipped;  /* first sum that reads the value as its skip, -1 = none: the padded form would do for it */
    dr_var *padded;   /* value whose inner part it is, -1 = none */
    dr_var *made_by;  /* instance norms: convolution that leaves their statistics, -1 = none */
} fuser;

static bool is(const fuser *f, dr_var v, const dr_op *op) {
    return v >= 0 && f->nodes[v].op == op;
}

static dr_norm_then blur_of(const fuser *f, dr_var v) {
    return is(f, v, &dr_op_blur_down) ? DR_THEN_BLUR_DOWN : is(f, v, &dr_op_blur_up) ? DR_THEN_BLUR_UP : DR_THEN_NONE;
}

/* r = add(skip, norm), the norm recorded after the skip. */
static bool is_norm_sum(const fuser *f, dr_var r, dr_var *ret_norm, dr_var *ret_skip) {
    if (!is(f, r, &dr_op_add)) return false;
    dr_var u = f->nodes[r].in[0], v = f->nodes[r].in[1];
    *ret_norm = u > v ? u : v;
    *ret_skip = u > v ? v : u;
    return *ret_norm != *ret_skip && is(f, *ret_norm, &dr_op_instance_norm);
}

/* Does anybody but its fusing reader want v? */
static bool wanted(const fuser *f, dr_var v) {
    return f->need[v] || f->skipped[v] >= 0;
}

/* ---- convolutions ----------------------------------------------------------------------------------------------- */

/* Ask for a convolution `s` of node i; with_stats: that also leaves the statistics for the norm behind it. */
static bool takes(const fuser *f, dr_var i, const dr_step *s, bool with_stats) {
    float there[2];
    const dr_conv_fuse q = {.in_stats = s->norm >= 0 ? there : NULL,
                            .in_act = s->norm >= 0 ? f->nodes[s->norm].u.norm.act : DR_ACT_NONE,
                            .in_then = s->then,
                            .reflect = s->reflect,
                            .out_stats = with_stats ? there : NULL,
                            .eps = s->out_norm >= 0 ? f->nodes[s->out_norm].u.norm.eps : 0};
    dr_conv2d_desc d = f->nodes[i].u.conv;
    d.pad = s->pad;
    d.frozen = true;
    return dr_be_conv2d_fuses(f->be, d, &q, f->nodes[s->x].shape, f->nodes[i].shape);
}

/* How much of what lies before node i can go into it: ways[0] is the bare convolution, each further one takes one more.
 */
static int ways_of(const fuser *f, dr_var i, dr_step ways[4]) {
    const dr_node *c = &f->nodes[i];
    int n = 0;
    dr_step s = {.kind = DR_STEP_CONV,
                 .node = i,
                 .y = i,
                 .x = c->in[0],
                 .resid = -1,
                 .norm = -1,
                 .out_norm = -1,
                 .pad = c->u.conv.pad};
    ways[n++] = s;
    if (is(f, s.x, &dr_op_pad_reflect) && s.pad == 0 && !wanted(f, s.x)) {
        s.pad = f->nodes[s.x].u.pad;
        s.reflect = true;
        s.x = f->nodes[s.x].in[0];
        ways[n++] = s;
    }
    if (blur_of(f, s.x) != DR_THEN_NONE && !wanted(f, s.x)) {
        s.then = blur_of(f, s.x);
        s.x = f->nodes[s.x].in[0];
        ways[n++] = s;
    }
    if (is(f, s.x, &dr_op_instance_norm) && !wanted(f, s.x)) {
        s.norm = s.x;
        s.x = f->nodes[s.x].in[0];
        ways[n++] = s;
    }
    return n;
}

static void choose_conv(fuser *f, dr_var i) {
    dr_step ways[4], *best = &ways[0];
    int n = ways_of(f, i, ways);
    dr_var out = -1; /* a norm that reads i and whose statistics are needed */
    for (int k = i + 1; k < f->n && out < 0; k++)
        if (f->need_stats[k] && f->nodes[k].in[0] == i) out = k;
    for (int k = f->norms ? n - 1 : -1; k >= 0; k--) {
        ways[k].out_norm = out;
        bool is_whole = !f->whole || (f->whole[i] && f->whole[ways[k].x]);
        bool stats = out >= 0 && is_whole && takes(f, i, &ways[k], true);
        if (!stats) ways[k].out_norm = -1;
        if (stats || (k > 0 && takes(f, i, &ways[k], false))) {
            best = &ways[k];
            best->fused = true;
            break;
        }
    }
    f->how[i] = *best;
    f->need[best->x] = true;
    if (best->norm >= 0) f->need_stats[best->norm] = true;
    if (best->out_norm >= 0) f->made_by[best->out_norm] = i;
}

/* ---- the rest --------------------------------------------------------------------------------------------------- */

/* y = then(norm), in one pass over the norm's input. */
static dr_step *apply(fuser *f, dr_var y, dr_var norm, dr_norm_then then, int pad) {
    dr_step *s = &f->how[y];
    *s = (dr_step){.kind = DR_STEP_APPLY,
                   .node = norm,
                   .y = y,
                   .x = f->nodes[norm].in[0],
                   .resid = -1,
                   .norm = norm,
                   .out_norm = -1,
                   .then = then,
                   .pad = pad};
    f->need[s->x] = true;
    f->need_stats[norm] = true;
    return s;
}

static void take_skip(fuser *f, dr_step *s, dr_var skip) {
    s->resid = skip;
    if (f->skipped[skip] < 0 || s->y < f->skipped[skip]) f->skipped[skip] = s->y;
}

static void choose(fuser *f, dr_var i) {
    const dr_node *n = &f->nodes[i];
    dr_var norm, skip, in = n->in[0];
    if (n->op == &dr_op_conv2d) {
        choose_conv(f, i);
        return;
    }
    if (f->norms) {
        if (n->op == &dr_op_instance_norm) {
            apply(f, i, i, DR_THEN_NONE, 0);
            return;
        }
        if (is(f, in, &dr_op_instance_norm) && !wanted(f, in)) {
            if (n->op == &dr_op_pad_reflect) {
                apply(f, i, in, DR_THEN_REFLECT, n->u.pad);
                return;
            }
            if (blur_of(f, i) != DR_THEN_NONE) {
                apply(f, i, in, blur_of(f, i), 0);
                return;
            }
        }
        if (n->op == &dr_op_pad_reflect && !f->need[in] && is_norm_sum(f, in, &norm, &skip)) {
            take_skip(f, apply(f, i, norm, DR_THEN_ADD, n->u.pad), skip);
            f->padded[in] = i;
            return;
        }
        if (is_norm_sum(f, i, &norm, &skip) && !wanted(f, norm)) {
            take_skip(f, apply(f, i, norm, DR_THEN_ADD, 0), skip);
            return;
        }
    }
    f->how[i] = (dr_step){.kind = DR_STEP_OP, .node = i, .y = i, .x = -1, .resid = -1, .norm = -1, .out_norm = -1};
    for (int k = 0; k < n->op->n_in; k++) f->need[n->in[k]] = true;
}

dr_status dr_fuse(const dr_node *nodes, int n, dr_var input, dr_var output, dr_backend *be, bool fuse,
                  const bool *whole, dr_step *ret, int *ret_n, dr_error *err) {
    fuser f = {.nodes = nodes, .n = n, .be = be, .whole = whole, .norms = fuse && dr_be_is_fused(be)};
    size_t size = (size_t)n;
    dr_status st = DR_OK;
    f.how = dr_calloc(size, sizeof *f.how);
    f.need = dr_calloc(size, sizeof *f.need);
    f.need_stats = dr_calloc(size, sizeof *f.need_stats);
    f.skipped = dr_calloc(size, sizeof *f.skipped);
    f.padded = dr_calloc(size, sizeof *f.padded);
    f.made_by = dr_calloc(size, sizeof *f.made_by);
    if (!f.how || !f.need || !f.need_stats || !f.skipped || !f.padded || !f.made_by) {
        st = dr_fail(err, DR_NOMEM, "no memory to plan %d nodes", n);
        goto out;
    }
    for (int i = 0; i < n; i++) f.skipped[i] = f.padded[i] = f.made_by[i] = -1;
    f.need[output] = true;
    for (int i = output; i >= 0; i--) {
        /* a skip alone is content with the padded form, if that is there in time */
        if (f.skipped[i] >= 0 && (f.padded[i] < 0 || f.padded[i] >= f.skipped[i])) f.need[i] = true;
        if (!f.need[i]) continue;
        if (nodes[i].op)
            choose(&f, i);
        else if (i != input) {
            st = dr_fail(err, DR_INTERNAL, "plan: node %d is a second input", i);
            goto out;
        }
    }
    int steps = 0;
    for (int i = 0; i <= output; i++) {
        if (f.need_stats[i] && f.made_by[i] < 0)
            ret[steps++] = (dr_step){
                .kind = DR_STEP_STATS, .node = i, .y = -1, .x = nodes[i].in[0], .resid = -1, .norm = -1, .out_norm = i};
        if (!f.need[i] || !nodes[i].op) continue;
        dr_step s = f.how[i];
        if (s.resid >= 0 && !f.need[s.resid]) s.resid = f.padded[s.resid];
        ret[steps++] = s;
    }
    *ret_n = steps;
out:
    dr_free(f.how);
    dr_free(f.need);
    dr_free(f.need_stats);
    dr_free(f.skipped);
    dr_free(f.padded);
    dr_free(f.made_by);
    return st;
}
