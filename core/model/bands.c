/* bands.c - see bands.h.
 *
 * Rows are made by walking up from the value that is wanted: a step says which rows of its input it needs (need()), the
 * input is made the same way, and what comes back is a piece, a tensor that holds some rows of which a part is right.
 * The step runs on the whole piece and says which of its own rows came out right (extend()). So nothing is copied on
 * the way, and rows beyond the right ones cost a little work but no trouble.
 *
 * Working memory is one area that is used from both ends: a step's input lies at the one and its output at the other,
 * and the end with the input is free again after the call. How large it has to be is found by going through all bands
 * once without calling anything. */
#include "core/model/bands.h"

#include "core/base/alloc.h"
#include "core/grad/exec.h"
#include <math.h>

enum {
    ALIGN = 2,      /* rows of kept values are taken from even ones on, as blur_down wants them in the end */
    BAND_ALIGN = 4, /* heights of bands: Winograd's tiles fill them */
    MAPS_MAX = 3
};

typedef struct rows {
    int from, to;
} rows;

typedef struct piece {
    dr_tensor t;
    rows at;   /* the rows of the value that t holds */
    rows good; /* those of them that are right */
} piece;

/* How rows of the result lie to rows of the input. */
typedef struct map {
    enum { MAP_REFLECT, MAP_CONV, MAP_DOWN, MAP_UP } kind;
    int pad, k;
} map;

typedef struct work {
    dr_plan *p;
    dr_plan_run_state *run; /* NULL: nothing is called, only counted */
    char *area;
    size_t bytes;         /* of the area */
    size_t used[2], peak; /* from its low end, from its high end; the most of both together */
    double cost, cost_max;
    int step;  /* whose pass it is */
    int *last; /* while counting */
} work;

/* ---- which rows ------------------------------------------------------------------------------------------------- */

/* In the order in which they apply; -1: an op that has no such maps. */
static int maps_of(const dr_plan *p, const dr_step *s, map ret[MAPS_MAX]) {
    const dr_node *n = &p->nodes[s->node];
    dr_norm_then then = s->kind == DR_STEP_OP ? DR_THEN_NONE : s->then;
    int k = 0;
    if (then == DR_THEN_BLUR_DOWN || n->op == &dr_op_blur_down) ret[k++] = (map){MAP_DOWN, 0, 0};
    if (then == DR_THEN_BLUR_UP || n->op == &dr_op_blur_up) ret[k++] = (map){MAP_UP, 0, 0};
    if (s->kind == DR_STEP_CONV) {
        if (s->reflect) ret[k++] = (map){MAP_REFLECT, s->pad, 0};
        ret[k++] = (map){MAP_CONV, s->reflect ? 0 : s->pad, n->u.conv.k};
    } else if (s->kind == DR_STEP_APPLY) {
        if (s->pad) ret[k++] = (map){MAP_REFLECT, s->pad, 0};
    } else if (n->op == &dr_op_pad_reflect) {
        ret[k++] = (map){MAP_REFLECT, n->u.pad, 0};
    } else if (!k && n->op != &dr_op_activation && n->op != &dr_op_add && n->op != &dr_op_add_bcast &&
               n->op != &dr_op_scale && n->op != &dr_op_clamp) {
        return -1;
    }
    return k;
}

static int height_after(map m, int h) {
    switch (m.kind) {
    case MAP_REFLECT:
        return h + 2 * m.pad;
    case MAP_CONV:
        return h + 2 * m.pad - m.k + 1;
    case MAP_DOWN:
        return dr_blur_down_side(h);
    case MAP_UP:
        return dr_blur_up_side(h);
    }
    return h;
}

/* The rows of an input of height h that rows r of the result depend on, and as many more as the call itself wants. */
static rows need(map m, int h, rows r) {
    rows q = r;
    int least = 1;
    switch (m.kind) {
    case MAP_REFLECT:
        least = m.pad + 1;
        q = (rows){r.from - m.pad, r.to - m.pad};
        if (r.from < m.pad && q.to < m.pad - r.from + 1) q.to = m.pad - r.from + 1; /* mirrored at the top */
        if (r.to > h + m.pad && q.from > 2 * h - 1 - (r.to - m.pad)) q.from = 2 * h - 1 - (r.to - m.pad);
        break;
    case MAP_CONV:
        least = m.k - 2 * m.pad;
        q = (rows){r.from - m.pad, r.to - m.pad + m.k - 1};
        break;
    case MAP_DOWN: /* from an even row on, as the filter's middle */
        least = 2;
        q = (rows){(2 * r.from - 1) & ~1, 2 * r.to};
        break;
    case MAP_UP:
        q = (rows){(r.from + 1) / 2 - 1, r.to / 2 + 1};
        break;
    }
    if (q.from < 0) q.from = 0;
    if (q.to > h) q.to = h;
    if (q.to - q.from < least) q.to = q.from + least < h ? q.from + least : h;
    if (q.to - q.from < least) q.from = q.to - least > 0 ? q.to - least : 0;
    return q;
}

/* The rows `at` of an input of height h, of which `good` are right, become rows of the result. A piece's first and last
 * row are edges to the call; right at them is only what lies at a true edge. */
static void extend(map m, int h, rows *at, rows *good) {
    const bool top = good->from == 0, bottom = good->to == h;
    const int out = height_after(m, h);
    switch (m.kind) {
    case MAP_REFLECT:
        *at = (rows){at->from, at->to + 2 * m.pad};
        *good = (rows){good->from + m.pad, good->to + m.pad};
        break;
    case MAP_CONV:
        *at = (rows){at->from, at->to + 2 * m.pad - m.k + 1};
        *good = (rows){good->from + m.pad, good->to + m.pad - m.k + 1};
        break;
    case MAP_DOWN:
        *at = (rows){at->from / 2, at->from / 2 + (at->to - at->from + 1) / 2};
        *good = (rows){(good->from + 2) / 2, good->to / 2};
        break;
    case MAP_UP:
        *at = (rows){2 * at->from, 2 * at->to};
        *good = (rows){2 * good->from + 1, 2 * good->to - 1};
        break;
    }
    if (top) good->from = 0;
    if (bottom) good->to = out;
}

/* ---- working memory and calls ------------------------------------------------------------------------------------ */

static dr_shape shape_of(const dr_plan *p, dr_var v, rows r) {
    dr_shape s = p->nodes[v].shape;
    s.h = r.to - r.from;
    return s;
}

static dr_status take(work *w, int end, dr_shape s, dr_tensor *ret, dr_error *err) {
    size_t bytes = dr_be_tensor_bytes(w->p->be, s), at = w->used[end];
    w->used[end] += bytes;
    if (w->used[0] + w->used[1] > w->peak) w->peak = w->used[0] + w->used[1];
    if (w->run && w->peak > w->bytes) return dr_fail(err, DR_INTERNAL, "bands: more memory than was planned");
    *ret = (dr_tensor){s, w->run ? w->area + (end ? w->bytes - w->used[1] : at) : NULL};
    return DR_OK;
}

/* Before each call; *ret_go: it is to be made. */
static dr_status begin(work *w, double cost, bool *ret_go, dr_error *err) {
    w->cost += cost;
    *ret_go = w->run != NULL;
    if (w->run) return dr_plan_ask(w->p, w->run->watch, err);
    return w->cost <= w->cost_max ? DR_OK : dr_fail(err, DR_TOO_LARGE, "bands: too much work");
}

static void did(work *w, double cost) {
    if (w->run) dr_plan_did(w->p, w->run, cost);
}

static dr_status copy_rows(work *w, dr_tensor x, int from_x, dr_tensor y, int from_y, int n, dr_error *err) {
    dr_shape part = y.shape;
    bool go = false;
    part.h = n;
    const double cost = 20.0 * (double)dr_shape_count(part);
    dr_status s = begin(w, cost, &go, err);
    if (!s && go) s = dr_be_copy_rows(w->p->be, x, from_x, y, from_y, n, err);
    if (!s) did(w, cost);
    return s;
}

static dr_status call(work *w, int step, const dr_tensor in[2], dr_tensor y, dr_error *err) {
    dr_plan *p = w->p;
    const dr_step *s = &p->steps[step];
    const double cost = dr_plan_cost(p, step, y.shape);
    bool go = false;
    dr_status st = begin(w, cost, &go, err);
    if (st) return st;
    if (go) {
        if ((st = dr_plan_call(p, step, w->run->block, in, y, err))) return st;
    } else {
        size_t bytes = dr_be_tensor_bytes(p->be, in[0].shape) + dr_be_tensor_bytes(p->be, y.shape);
        if (s->kind == DR_STEP_CONV && bytes > p->conv_bytes) p->conv_bytes = bytes;
        if (s->norm >= 0) w->last[p->n + s->norm] = w->step;
    }
    did(w, cost);
    return DR_OK;
}

/* ---- pieces ------------------------------------------------------------------------------------------------------ */

static dr_status make(work *w, dr_var v, rows r, int end, piece *ret, dr_error *err);

/* Rows r of a kept value. */
static dr_status fetch(work *w, dr_var v, rows r, int end, dr_tensor *ret, dr_error *err) {
    dr_plan *p = w->p;
    if (w->last) w->last[v] = w->step;
    dr_status s = take(w, end, shape_of(p, v, r), ret, err);
    dr_tensor all = {p->nodes[v].shape, NULL};
    if (w->run) all = dr_plan_tensor(p, v, w->run->block);
    return s ? s : copy_rows(w, all, r.from, *ret, 0, r.to - r.from, err);
}

/* Rows r of a piece, as a tensor of their own. */
static dr_status cut(work *w, const piece *x, rows r, int end, dr_tensor *ret, dr_error *err) {
    const dr_tensor from = x->t; /* ret may be this */
    dr_shape s = from.shape;
    s.h = r.to - r.from;
    dr_status st = take(w, end, s, ret, err);
    return st ? st : copy_rows(w, from, r.from - x->at.from, *ret, 0, s.h, err);
}

/* Rows r of v and no others. */
static dr_status make_exact(work *w, dr_var v, rows r, int end, dr_tensor *ret, dr_error *err) {
    if (w->p->kept[v]) return fetch(w, v, r, end, ret, err);
    const size_t mark = w->used[!end];
    piece x;
    dr_status s = make(w, v, r, !end, &x, err);
    if (!s) s = cut(w, &x, r, end, ret, err);
    w->used[!end] = mark;
    return s;
}

/* The inputs of a step that has two: rows q of the first, and those that belong to them of the second, which may be a
 * skip with a padding around it. */
static dr_status make_both(work *w, const dr_step *s, rows q, int end, int other, dr_tensor ret[2], dr_error *err) {
    const dr_node *nodes = w->p->nodes;
    const bool is_op = s->kind == DR_STEP_OP;
    const dr_var a = is_op ? nodes[s->node].in[0] : s->x, b = is_op ? nodes[s->node].in[1] : s->resid;
    const int margin = nodes[b].shape.h - nodes[a].shape.h;
    dr_status st = make_exact(w, a, q, end, &ret[0], err);
    return st ? st : make_exact(w, b, (rows){q.from, q.to + margin}, other, &ret[1], err);
}

/* Rows r of the step's value (at least), at this end of the area. */
static dr_status compute(work *w, int step, rows r, int end, piece *ret, dr_error *err) {
    dr_plan *p = w->p;
    const dr_step *s = &p->steps[step];
    const bool is_op = s->kind == DR_STEP_OP, has_two = is_op ? p->nodes[s->node].op->n_in == 2 : s->resid >= 0;
    const dr_var x = is_op ? p->nodes[s->node].in[0] : s->x;
    const size_t mark = w->used[!end];
    map m[MAPS_MAX];
    int n = maps_of(p, s, m), h[MAPS_MAX + 1] = {p->nodes[x].shape.h};
    if (n < 0) return dr_fail(err, DR_UNSUPPORTED, "bands: no rows of %s", p->nodes[s->node].op->name);
    rows q = r;
    for (int i = 0; i < n; i++) h[i + 1] = height_after(m[i], h[i]);
    for (int i = n - 1; i >= 0; i--) q = need(m[i], h[i], q);
    const int in_end = n ? !end : end; /* without maps the result is written over the input */
    dr_tensor in[2] = {{{0}, NULL}, {{0}, NULL}};
    piece y = {.at = q, .good = q};
    dr_status st;
    if (has_two) {
        st = make_both(w, s, q, in_end, !end, in, err);
    } else {
        st = make(w, x, q, in_end, &y, err);
        if (!st && n && m[0].kind == MAP_DOWN && y.at.from % 2) {
            const rows even = {y.at.from + 1, y.at.to};
            st = cut(w, &y, even, in_end, &y.t, err);
            y.at.from = even.from;
            if (y.good.from < even.from) y.good.from = even.from;
        }
        in[0] = y.t;
    }
    if (st) return st;
    for (int i = 0; i < n; i++) extend(m[i], h[i], &y.at, &y.good);
    if (y.good.from > r.from || y.good.to < r.to)
        return dr_fail(err, DR_INTERNAL, "bands: rows %d to %d of %d are not right", r.from, r.to, h[n]);
    y.t = (dr_tensor){shape_of(p, s->y, y.at), in[0].data};
    if (n) st = take(w, end, y.t.shape, &y.t, err);
    if (!st) st = call(w, step, in, y.t, err);
    w->used[!end] = mark;
    *ret = y;
    return st;
}

static dr_status make(work *w, dr_var v, rows r, int end, piece *ret, dr_error *err) {
    if (!w->p->kept[v]) return compute(w, w->p->made_by[v], r, end, ret, err);
    r.from -= r.from % ALIGN;
    piece x = {.at = r, .good = r};
    dr_status s = fetch(w, v, r, end, &x.t, err);
    *ret = x;
    return s;
}

/* ---- passes ------------------------------------------------------------------------------------------------------ */

/* So many rows of v make a band: equal ones, that prepared convolutions serve most of them. */
static int band_of(const dr_plan *p, dr_var v) {
    const int64_t h = p->nodes[v].shape.h, all = p->nodes[p->input].shape.h;
    int64_t most = p->band_rows * h / all / BAND_ALIGN * BAND_ALIGN;
    if (most < BAND_ALIGN) most = BAND_ALIGN;
    const int64_t n = (h + most - 1) / most;
    return (int)(((h + n - 1) / n + BAND_ALIGN - 1) / BAND_ALIGN * BAND_ALIGN);
}

/* The statistics of one band, n*c pairs (mean, 1/sqrt(variance + eps)), to those of the rows before: Chan's formula. */
static void add_band(dr_plan *p, size_t pairs, float eps, double before, double more) {
    for (size_t i = 0; i < pairs; i++) {
        const double rstd = (double)p->pairs[2 * i + 1], var = 1 / (rstd * rstd) - (double)eps;
        const double d = (double)p->pairs[2 * i] - p->moments[2 * i], all = before + more;
        p->moments[2 * i] += d * more / all;
        p->moments[2 * i + 1] += (var < 0 ? 0 : var) * more + d * d * before * more / all;
    }
}

static dr_status band_stats(work *w, dr_var norm, rows r, const piece *x, dr_error *err) {
    dr_plan *p = w->p;
    dr_tensor t = x->t;
    const double cost = 20.0 * (double)dr_shape_count(shape_of(p, p->nodes[norm].in[0], r));
    bool go = false;
    dr_status s = DR_OK;
    if (x->at.from != r.from || x->at.to != r.to) s = cut(w, x, r, 1, &t, err);
    if (!s) s = begin(w, cost, &go, err);
    if (s || !go) return s;
    const size_t pairs = (size_t)t.shape.n * (size_t)t.shape.c;
    const float eps = p->nodes[norm].u.norm.eps;
    float *stats = dr_plan_stats(p, norm, w->run->block);
    s = dr_be_norm_stats(p->be, eps, t, stats, err);
    if (!s) s = dr_be_download_raw(p->be, stats, p->pairs, 2 * pairs * sizeof *p->pairs, err);
    if (s) return s;
    add_band(p, pairs, eps, (double)r.from * t.shape.w, (double)t.shape.h * t.shape.w);
    did(w, cost);
    return DR_OK;
}

static dr_status finish_stats(work *w, dr_var norm, dr_error *err) {
    dr_plan *p = w->p;
    const dr_shape s = p->nodes[norm].shape;
    const size_t pairs = (size_t)s.n * (size_t)s.c;
    for (size_t i = 0; i < pairs; i++) {
        const double var = p->moments[2 * i + 1] / ((double)s.h * s.w);
        p->pairs[2 * i] = (float)p->moments[2 * i];
        p->pairs[2 * i + 1] = (float)(1 / sqrt(var + (double)p->nodes[norm].u.norm.eps));
    }
    return dr_be_upload_raw(p->be, p->pairs, dr_plan_stats(p, norm, w->run->block), 2 * pairs * sizeof *p->pairs, err);
}

/* One pass of w->step: all bands of the value, which is kept, or of the input of the norm whose statistics it makes. */
static dr_status pass(work *w, dr_error *err) {
    dr_plan *p = w->p;
    const dr_step *s = &p->steps[w->step];
    const bool stats = s->kind == DR_STEP_STATS;
    const dr_var v = stats ? s->x : s->y;
    const int h = p->nodes[v].shape.h, band = band_of(p, v);
    dr_tensor all = {p->nodes[v].shape, NULL};
    if (w->run && !stats) all = dr_plan_tensor(p, v, w->run->block);
    if (w->run && stats)
        for (size_t i = 0; i < 2 * (size_t)all.shape.n * (size_t)all.shape.c; i++) p->moments[i] = 0;
    dr_status st = DR_OK;
    for (rows r = {0, band}; r.from < h && !st; r = (rows){r.from + band, r.to + band}) {
        piece x;
        if (r.to > h) r.to = h;
        st = compute(w, stats ? p->made_by[v] : w->step, r, 0, &x, err);
        if (!st && stats) st = band_stats(w, s->out_norm, r, &x, err);
        if (!st && !stats) st = copy_rows(w, x.t, r.from - x.at.from, all, r.from, r.to - r.from, err);
        w->used[0] = w->used[1] = 0;
    }
    return st || !stats || !w->run ? st : finish_stats(w, s->out_norm, err);
}

/* What whole calls cost and read. */
static void measure_whole(dr_plan *p, int i, int *last) {
    const dr_step *s = &p->steps[i];
    const dr_var y = s->y >= 0 ? s->y : s->x;
    int in[DR_READS_MAX];
    for (int k = dr_plan_reads(p, s, in); k-- > 0;) last[in[k]] = i;
    p->extra[i].cost = dr_plan_cost(p, i, p->nodes[y].shape);
    if (s->kind != DR_STEP_CONV) return;
    size_t bytes = dr_be_tensor_bytes(p->be, p->nodes[s->x].shape) + dr_be_tensor_bytes(p->be, p->nodes[y].shape);
    if (bytes > p->conv_bytes) p->conv_bytes = bytes;
}

static dr_pass pass_of(const dr_plan *p, const dr_step *s) {
    int in[DR_READS_MAX];
    if (s->y >= 0 && !p->kept[s->y]) return DR_PASS_NONE;
    for (int k = dr_plan_reads(p, s, in); k-- > 0;)
        if (in[k] < p->n && !p->kept[in[k]]) return DR_PASS_BANDS;
    return DR_PASS_WHOLE;
}

dr_status dr_bands_measure(dr_plan *p, double cost_max, int *last, dr_error *err) {
    size_t pairs = 0;
    for (int i = 0; i < p->n_steps; i++) {
        p->extra[i].pass = pass_of(p, &p->steps[i]);
        if (p->extra[i].pass == DR_PASS_WHOLE) measure_whole(p, i, last);
        if (p->extra[i].pass == DR_PASS_BANDS) {
            work w = {.p = p, .cost_max = cost_max - p->total_cost, .step = i, .last = last};
            dr_status s = pass(&w, err);
            if (s) return s;
            p->extra[i].area = w.peak;
            p->extra[i].cost = w.cost;
            const dr_shape x = p->nodes[p->steps[i].node].shape;
            if ((size_t)x.n * (size_t)x.c > pairs) pairs = (size_t)x.n * (size_t)x.c;
        }
        p->total_cost += p->extra[i].cost;
    }
    if (!pairs) return DR_OK;
    p->pairs = dr_calloc(2 * pairs, sizeof *p->pairs);
    p->moments = dr_calloc(2 * pairs, sizeof *p->moments);
    return p->pairs && p->moments ? DR_OK : dr_fail(err, DR_NOMEM, "no memory for the statistics of bands");
}

dr_status dr_bands_run(dr_plan *p, int i, dr_plan_run_state *run, dr_error *err) {
    work w = {
        .p = p, .run = run, .area = (char *)run->block + p->offset[2 * p->n + i], .bytes = p->extra[i].area, .step = i};
    return pass(&w, err);
}
