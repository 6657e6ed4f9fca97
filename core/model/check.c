/* check.c - one picture through a model, measured where a served picture would only be encoded: is the output finite,
 * how far is it from its input and from the truth, did the rain go, did the fine structure and the colours stay. */
#include "core/base/alloc.h"
#include "core/image/codec.h"
#include "core/image/convert.h"
#include "core/image/crop.h"
#include "core/image/detail.h"
#include "core/image/metrics.h"
#include "core/image/rainscore.h"
#include "core/model/engine.h"
#include <math.h>

enum { SIDE_MIN = 16 };

dr_status dr_rain_score(const void *data, size_t len, const dr_limits *lim, double *ret, dr_error *err) {
    dr_image img = {0};
    dr_status s = dr_image_decode(data, len, lim, &img, err);
    if (!s) s = dr_rain_score_image(&img, ret, err);
    dr_image_done(&img);
    return s;
}

static dr_status load(const void *data, size_t len, const dr_check_opts *o, dr_image *ret, dr_error *err) {
    dr_status s = dr_image_decode(data, len, o->limits, ret, err);
    if (!s && o->side_max) s = dr_image_crop_middle(ret, o->side_max, o->side_max, err);
    if (!s) s = dr_image_set_depth(ret, 8, err);
    return s;
}

/* Mean of each plane's upper left w x h, on the scale 0..255. */
static void plane_means(const float *p, int pw, int ph, int w, int h, double ret[3]) {
    for (int c = 0; c < 3; c++) {
        double sum = 0;
        for (int y = 0; y < h; y++)
            for (int x = 0; x < w; x++) sum += (double)p[((size_t)c * (size_t)ph + (size_t)y) * (size_t)pw + (size_t)x];
        ret[c] = (sum / ((double)w * (double)h) + 1) * 127.5;
    }
}

static bool all_finite(const float *p, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!isfinite(p[i])) return false;
    return true;
}

/* img becomes the output; the numbers that need the floats are made here. */
static dr_status run(dr_model *m, dr_image *img, const dr_check_opts *o, dr_check *c, dr_error *err) {
    const dr_plan_watch watch = {.cancel = o->cancel};
    dr_limits lim = o->limits ? *o->limits : (dr_limits){0};
    dr_limits_fill(&lim);
    int pw = dr_padded_side(img->width), ph = dr_padded_side(img->height);
    size_t n = (size_t)3 * (size_t)pw * (size_t)ph;
    double before[3], after[3];
    float *p = dr_malloc(n * sizeof *p);
    if (!p) return dr_fail(err, DR_NOMEM, "no memory for %d x %d pixels", pw, ph);
    dr_planar_from_image(img, p, pw, ph);
    plane_means(p, pw, ph, img->width, img->height, before);
    dr_status s = dr_model_run_planes(m, p, pw, ph, lim.mem_budget, &watch, err);
    if (!s) {
        c->finite = all_finite(p, n);
        plane_means(p, pw, ph, img->width, img->height, after);
        for (int i = 0; i < 3; i++) c->shift[i] = c->finite ? after[i] - before[i] : 0;
        dr_planar_to_image(p, pw, ph, img);
    }
    dr_free(p);
    return s;
}

dr_status dr_model_check(dr_model *m, const void *data, size_t len, const void *clean, size_t clean_len,
                         const dr_check_opts *opts, dr_check *ret, dr_error *err) {
    static const dr_check_opts none = {0};
    const dr_check_opts *o = opts ? opts : &none;
    dr_image in = {0}, out = {0}, truth = {0};
    dr_check c = {0};
    dr_status s = load(data, len, o, &in, err);
    if (!s && clean) s = load(clean, clean_len, o, &truth, err);
    if (!s && clean && (truth.width != in.width || truth.height != in.height))
        s = dr_fail(err, DR_INVALID, "the pictures of a pair are %d x %d and %d x %d", in.width, in.height, truth.width,
                    truth.height);
    if (!s && (in.width < SIDE_MIN || in.height < SIDE_MIN))
        s = dr_fail_as(err, DR_INVALID, "image_too_small", "%d x %d pixels: a side is below %d", in.width, in.height,
                       SIDE_MIN);
    if (!s) s = dr_image_copy(&in, &out, err);
    c.width = in.width;
    c.height = in.height;
    if (!s) s = run(m, &out, o, &c, err);
    if (!s) s = dr_rain_score_image(&in, &c.rain_in, err);
    if (!s) s = dr_rain_score_image(&out, &c.rain_out, err);
    if (!s) {
        c.detail_in = dr_detail_image(&in);
        c.detail_out = dr_detail_image(&out);
    }
    if (!s) s = dr_score_images(&out, &in, &c.change, err);
    if (!s && clean) s = dr_score_images(&in, &truth, &c.input, err);
    if (!s && clean) s = dr_score_images(&out, &truth, &c.output, err);
    dr_image_done(&in);
    dr_image_done(&out);
    dr_image_done(&truth);
    if (!s) *ret = c;
    return s;
}
