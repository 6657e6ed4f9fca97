/* compare.c - one picture through several models, measured (core/compare.h). The networks run one after the other over
 * the same planes; their outputs are kept at 8 bits until the last one is there, since the difference needs them all.
 */
#include "core/compare.h"
#include "core/base/alloc.h"
#include "core/image/codec.h"
#include "core/image/convert.h"
#include "core/image/metrics.h"
#include "core/image/rainscore.h"
#include "core/image/strip.h"
#include "core/model/engine.h"
#include <math.h>
#include <stdio.h>

enum { SIDE_MIN = 16, SCORE_BYTES = 48 /* a pixel, while two pictures are compared */ };

static dr_status stopped(dr_error *err) {
    return dr_fail(err, DR_CANCELLED, "broken off");
}

/* Before what takes long; pairs with leave(). */
static dr_status enter(const dr_compare_opts *o, dr_error *err) {
    if (o->cancel && atomic_load(o->cancel)) return stopped(err);
    if (!o->before || o->before(o->arg)) return DR_OK;
    o->after(o->arg);
    return stopped(err);
}
static void leave(const dr_compare_opts *o) {
    if (o->after) o->after(o->arg);
}

/* Measurements run beside others on one processor: they wait for their turn and then keep nobody from his. */
static dr_status ask(const dr_compare_opts *o, dr_error *err) {
    dr_status s = enter(o, err);
    if (!s) leave(o);
    return s;
}

/* *ret_run: what the budget leaves for a run, beside the pictures that are kept. */
static dr_status check_memory(dr_model *const *models, int n, const dr_picture_info *info, uint64_t budget,
                              uint64_t *ret_run, dr_error *err) {
    uint64_t pixels = (uint64_t)info->width * (uint64_t)info->height, most = 0;
    for (int i = 0; i < n; i++) {
        uint64_t run = dr_model_run_bytes_min(models[i], info->width, info->height);
        if (run > most) most = run;
    }
    uint64_t kept = pixels * ((uint64_t)info->channels * (uint64_t)(n + 3) + SCORE_BYTES),
             need = most > UINT64_MAX - kept ? UINT64_MAX : most + kept;
    if (need <= budget) {
        *ret_run = budget - kept;
        return DR_OK;
    }
    return dr_fail_limit(err, "memory", "mem_budget", (int64_t)budget, need > INT64_MAX ? INT64_MAX : (int64_t)need,
                         "to compare at %d x %d pixels takes %.1f GB of memory, the budget is %.1f GB", info->width,
                         info->height, (double)need / 1e9, (double)budget / 1e9);
}

static dr_status load(const void *data, size_t len, const dr_limits *lim, dr_image *ret, dr_error *err) {
    dr_status s = dr_image_decode(data, len, lim, ret, err);
    if (!s) dr_image_meta_done(&ret->meta);
    return s ? s : dr_image_set_depth(ret, 8, err);
}

/* out is a copy of the input and becomes what the network makes of it. */
static dr_status run(dr_model *m, dr_image *out, uint64_t mem_budget, const dr_compare_opts *o, bool *ret_finite,
                     dr_error *err) {
    const dr_plan_watch watch = {.cancel = o->cancel};
    const int pw = dr_padded_side(out->width), ph = dr_padded_side(out->height);
    const size_t n = (size_t)3 * (size_t)pw * (size_t)ph;
    float *p = dr_malloc(n * sizeof *p);
    if (!p) return dr_fail(err, DR_NOMEM, "no memory for %d x %d pixels", pw, ph);
    dr_planar_from_image(out, p, pw, ph);
    dr_status s = enter(o, err);
    if (!s) {
        s = dr_model_run_planes(m, p, pw, ph, mem_budget, &watch, err);
        leave(o);
    }
    *ret_finite = true;
    for (size_t i = 0; i < n && *ret_finite && !s; i++) *ret_finite = isfinite(p[i]);
    if (!s) dr_planar_to_image(p, pw, ph, out);
    dr_free(p);
    return s;
}

static dr_status measure(const dr_image *img, const dr_image *input, const dr_image *truth, const dr_compare_opts *o,
                         dr_compare_column *ret, dr_error *err) {
    dr_status s = ask(o, err);
    if (!s) s = dr_rain_score_image(img, &ret->rain, err);
    if (!s && input) s = ask(o, err);
    if (!s && input) s = dr_score_images(img, input, &ret->change, err);
    if (!s && truth) s = ask(o, err);
    if (!s && truth) s = dr_score_images(img, truth, &ret->truth, err);
    return s;
}

static dr_status load_truth(const void *clean, size_t len, const dr_limits *lim, const dr_image *in, dr_image *ret,
                            dr_error *err) {
    dr_picture_info info;
    dr_status s = dr_probe(clean, len, len, lim, &info, err);
    if (!s && (info.width != in->width || info.height != in->height))
        s = dr_fail_as(err, DR_INVALID, "size_differs", "%d x %d pixels where the picture has %d x %d", info.width,
                       info.height, in->width, in->height);
    if (!s) s = load(clean, len, lim, ret, err);
    return s ? dr_wrap(err, s, "its clean picture") : DR_OK;
}

dr_status dr_compare_picture(dr_model *const *models, int n, const void *data, size_t len, const void *clean,
                             size_t clean_len, const dr_compare_opts *opts, dr_compare_row *ret, dr_error *err) {
    static const dr_compare_opts none = {0};
    const dr_compare_opts *o = opts ? opts : &none;
    dr_limits lim = o->limits ? *o->limits : (dr_limits){0};
    dr_image in = {0}, truth = {0}, out[DR_COMPARE_MAX] = {{0}};
    dr_compare_row row = {.n = n, .has_truth = clean != NULL};
    dr_picture_info info;
    uint64_t run_bytes = 0;
    if (n < 1 || n > DR_COMPARE_MAX) return dr_fail(err, DR_INVALID, "%d versions to compare", n);
    dr_limits_fill(&lim);
    dr_status s = dr_probe(data, len, len, &lim, &info, err);
    if (!s && (info.width < SIDE_MIN || info.height < SIDE_MIN))
        s = dr_fail_as(err, DR_INVALID, "image_too_small", "%d x %d pixels: a side is below %d", info.width,
                       info.height, SIDE_MIN);
    if (!s) s = check_memory(models, n, &info, lim.mem_budget, &run_bytes, err);
    if (!s) s = ask(o, err);
    if (!s) s = load(data, len, &lim, &in, err);
    if (!s && clean) s = load_truth(clean, clean_len, &lim, &in, &truth, err);
    const dr_image *against = clean ? &truth : NULL;
    if (!s) s = measure(&in, NULL, against, o, &row.col[0], err);
    for (int i = 0; i < n && !s; i++) {
        s = dr_image_copy(&in, &out[i], err);
        if (!s) s = run(models[i], &out[i], run_bytes, o, &row.col[i + 1].finite, err);
        if (!s) s = measure(&out[i], &in, against, o, &row.col[i + 1], err);
    }
    row.width = in.width;
    row.height = in.height;
    if (!s) s = dr_strip_make(&in, out, n, against, o->side, &row.strip, &row.spread, err);
    dr_image_done(&in);
    dr_image_done(&truth);
    for (int i = 0; i < n; i++) dr_image_done(&out[i]);
    if (!s) *ret = row;
    return s;
}
