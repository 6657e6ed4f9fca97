#include "core/model/range.h"

#include "core/base/alloc.h"
#include "core/model/fallback.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const double SUM_MAX = 4096, MOST_MIN = 0x1p-14;

/* ---- engines ---------------------------------------------------------------------------------------------------- */

static dr_status wide_engine(dr_engine *e, dr_error *err) {
    const dr_engine_opts o = {.backend = dr_engine_backend(e),
                              .threads = e->threads,
                              .fallback = e->fallback,
                              .precision = dr_precision_name(DR_PREC_BF16),
                              .background = e->background,
                              .plan_cache = e->plan_cache};
    return e->wide ? DR_OK : dr_engine_open(&o, &e->wide, err);
}

void dr_range_close(dr_engine *e) {
    if (e->probe) dr_be_free(e->be, e->probe);
    dr_engine_close(e->wide);
    e->probe = NULL;
    e->wide = NULL;
}

/* ---- weights ---------------------------------------------------------------------------------------------------- */

typedef struct extent {
    double sum, most; /* the largest sum over the weights of one output, the largest weight; magnitudes */
} extent;

/* w is (O,I,k,k). */
static extent extent_of(const float *w, dr_shape s) {
    const size_t each = (size_t)s.c * (size_t)s.h * (size_t)s.w;
    extent r = {0};
    for (size_t o = 0; o < (size_t)s.n; o++) {
        double sum = 0;
        for (size_t i = 0; i < each; i++) {
            const double v = fabs((double)w[o * each + i]);
            sum += v;
            if (v > r.most) r.most = v;
        }
        if (sum > r.sum) r.sum = sum;
    }
    return r;
}

static bool is_conv(const dr_param *p) {
    size_t n = strlen(p->name);
    return n > 7 && !strcmp(p->name + n - 7, ".weight");
}

/* note stays "" if all of them fit. */
static dr_status look(const dr_st *f, const dr_generator *g, char *note, size_t cap, dr_error *err) {
    dr_status s = DR_OK;
    for (int i = 0; i < g->params.n && !s && !*note; i++) {
        const dr_param *p = &g->params.p[i];
        const dr_st_tensor *t = is_conv(p) ? dr_st_find(f, p->name) : NULL;
        if (!t || t->count != dr_param_count(p)) continue; /* a bias, or a file that dr_weights_load will refuse */
        float *w = dr_malloc(t->count * sizeof *w);
        s = w ? dr_st_read_f32(t, w, err) : dr_fail(err, DR_NOMEM, "no memory for %zu weights", (size_t)t->count);
        extent x = {0};
        if (!s) x = extent_of(w, p->shape);
        if (x.sum > SUM_MAX)
            snprintf(note, cap, "computed in bf16: the weights of an output of %s add up to %.3g, f16 takes %.0f",
                     p->name, x.sum, SUM_MAX);
        else if (i != g->conv_out && x.most > 0 && x.most < MOST_MIN)
            snprintf(note, cap, "computed in bf16: no weight of %s is above %.2g, f16 is coarse below %.2g", p->name,
                     x.most, MOST_MIN);
        dr_free(w);
    }
    return s;
}

dr_status dr_range_engine(dr_engine *e, const dr_st *f, dr_generator_config cfg, dr_engine **ret, char *note,
                          size_t cap, dr_error *err) {
    dr_generator g;
    *note = 0;
    *ret = e;
    if (e->precision != DR_PREC_F16) return DR_OK;
    dr_status s = dr_generator_init(&g, cfg, NULL, false, err); /* names and shapes */
    if (s) return s;
    s = look(f, &g, note, cap, err);
    dr_generator_done(&g);
    if (!s && *note) s = wide_engine(e, err);
    if (!s && *note) *ret = e->wide;
    return s;
}

/* ---- runs ------------------------------------------------------------------------------------------------------- */

/* The mean of |y - y| is 0 unless something in y is not a number or infinite. */
dr_status dr_range_check(dr_model *m, dr_tensor y, bool *ret_fits, dr_error *err) {
    dr_engine *e = m->e;
    float mean = 0;
    *ret_fits = true;
    if (e->precision != DR_PREC_F16) return DR_OK;
    const dr_shape one = {1, 1, 1, 1};
    dr_status s = e->probe ? DR_OK : dr_be_alloc(e->be, dr_be_tensor_bytes(e->be, one), &e->probe, err);
    const dr_tensor to = {one, e->probe};
    if (!s) s = dr_be_l1(e->be, y, y, to, err);
    if (!s) s = dr_be_download(e->be, to, &mean, err);
    if (!s) *ret_fits = mean == 0;
    return s;
}

dr_status dr_range_enter(dr_model *m, dr_model **ret, dr_error *err) {
    dr_engine_release(m->e);
    dr_status s = wide_engine(m->e, err);
    if (!s && !m->wide) s = dr_fallback_open(m, m->e->wide, &m->wide, err);
    if (s) return s;
    dr_model_set_yield(m->wide, m->between, m->between_arg);
    m->n_reruns++;
    *ret = m->wide;
    return DR_OK;
}

void dr_range_leave(dr_model *m) {
    if (m->wide) dr_engine_release(m->wide->e);
}

void dr_range_done(dr_model *m) {
    dr_model_close(m->wide);
    m->wide = NULL;
}
