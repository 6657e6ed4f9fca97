/* fit.c - see fit.h.
 *
 * Two choices make a plan in bands: how large a value may be to be kept as a whole, and how high a band is. Sizes of
 * values halve from layer to layer, so the bound halves too, from a little above half of the largest (for a generator:
 * only what is widest at full size is not kept) down to where so much is made anew that it is no use; heights halve
 * from 512 rows on. All pairs are tried, which is a matter of milliseconds, and the cheapest that fits is taken. */
#include "core/model/fit.h"

#include "core/base/alloc.h"

enum {
    SCRATCH_MAX = 256 << 20, /* a backend works on large pictures in pieces of bounded size */
    ROWS_MAX = 512,
    ROWS_MIN = 16,
    BANDS_MAX = 256, /* more of them save next to nothing */
    WORK_MAX = 3     /* times that of the whole plan */
};

uint64_t dr_plan_need(const dr_plan *p) {
    uint64_t scratch = dr_plan_conv_bytes(p);
    return dr_plan_bytes(p) + (scratch < SCRATCH_MAX ? scratch : SCRATCH_MAX);
}

typedef struct search {
    const dr_graph *g;
    dr_var input, output;
    dr_backend *be;
    const dr_param *params;
    int n_params;
    dr_slot *slots;
    uint64_t limit, least;
    dr_plan *best;
} search;

static dr_status build(const search *f, const dr_plan_bands *b, dr_plan **ret, dr_error *err) {
    return dr_plan_build(f->g, f->input, f->output, f->be, true, f->params, f->n_params, f->slots, b, ret, err);
}

/* Keeps p if it is the best so far. */
static void consider(search *f, dr_plan *p) {
    const uint64_t need = dr_plan_need(p);
    if (need < f->least) f->least = need;
    if (need > f->limit || (f->best && dr_plan_total_cost(f->best) <= dr_plan_total_cost(p))) {
        dr_plan_destroy(p);
        return;
    }
    dr_plan_destroy(f->best);
    f->best = p;
}

/* All heights of bands for one bound; *ret_any: some are possible. */
static dr_status try_bound(search *f, size_t kept_max, double cost_max, bool *ret_any, dr_error *err) {
    const int h = dr_var_shape(f->g, f->input).h;
    for (int rows = ROWS_MAX; rows >= ROWS_MIN && (int64_t)rows * BANDS_MAX >= h; rows /= 2) {
        const dr_plan_bands b = {.kept_max = kept_max, .rows = rows, .cost_max = cost_max};
        dr_error why = {0};
        dr_plan *p = NULL;
        if (rows / 2 >= h && rows / 2 >= ROWS_MIN) continue; /* one band, as with half of it */
        dr_status s = build(f, &b, &p, &why);
        if (s == DR_TOO_LARGE) break;          /* and lower bands are more work */
        if (s == DR_UNSUPPORTED) return DR_OK; /* then there is only the whole one */
        if (s) {
            if (err && !err->code) *err = why;
            return s;
        }
        *ret_any = true;
        consider(f, p);
    }
    return DR_OK;
}

dr_status dr_plan_fit(const dr_graph *g, dr_var input, dr_var output, dr_backend *be, const dr_param *params,
                      int n_params, dr_slot *slots, uint64_t limit, dr_plan **ret, uint64_t *ret_least, dr_error *err) {
    search f = {g, input, output, be, params, n_params, slots, limit, UINT64_MAX, NULL};
    dr_plan *whole = NULL;
    dr_status s = build(&f, NULL, &whole, err);
    if (s) return s;
    const double cost_max = WORK_MAX * dr_plan_total_cost(whole);
    const size_t largest = dr_plan_largest(whole);
    consider(&f, whole);
    bool any = !f.best && dr_be_is_fused(be);
    for (size_t kept = largest / 8 * 5; any && kept; kept /= 2) {
        any = false;
        s = try_bound(&f, kept, cost_max, &any, err);
        if (s) {
            dr_plan_destroy(f.best);
            return s;
        }
    }
    *ret = f.best;
    if (ret_least) *ret_least = f.least;
    return DR_OK;
}
