/* transplant.c - a pair to measure with where there is none: the rain that a network takes off one picture, laid over
 * another one, which then is the truth.
 *
 *   r = a - G(a),  p = clamp(b + r, -1, 1)
 *
 * Both pictures are cut to the middle that they have in common, and the pair is stored at 8 bits, so that all who
 * measure with it see the same. */
#include "core/base/alloc.h"
#include "core/image/codec.h"
#include "core/image/convert.h"
#include "core/image/crop.h"
#include "core/model/engine.h"
#include <string.h>

enum { SIDE_MIN = 16 };

typedef struct planes {
    int w, h, pw, ph;
    size_t n; /* floats of three planes */
    float *rainy, *out, *clean;
} planes;

static void planes_done(planes *p) {
    dr_free(p->rainy);
    dr_free(p->out);
    dr_free(p->clean);
}

static int least(int a, int b, int c) {
    int ab = a < b ? a : b;
    return c && c < ab ? c : ab;
}

static dr_status load(const void *data, size_t len, const void *clean, size_t clean_len, const dr_check_opts *o,
                      planes *ret, dr_error *err) {
    dr_image a = {0}, b = {0};
    planes p = {0};
    dr_status s = dr_image_decode(data, len, o->limits, &a, err);
    if (!s) s = dr_image_decode(clean, clean_len, o->limits, &b, err);
    p.w = least(a.width, b.width, o->side_max);
    p.h = least(a.height, b.height, o->side_max);
    if (!s && (p.w < SIDE_MIN || p.h < SIDE_MIN))
        s = dr_fail_as(err, DR_INVALID, "image_too_small", "%d x %d pixels: a side is below %d", p.w, p.h, SIDE_MIN);
    if (!s) s = dr_image_crop_middle(&a, p.w, p.h, err);
    if (!s) s = dr_image_crop_middle(&b, p.w, p.h, err);
    if (!s) {
        p.pw = dr_padded_side(p.w);
        p.ph = dr_padded_side(p.h);
        p.n = (size_t)3 * (size_t)p.pw * (size_t)p.ph;
        p.rainy = dr_malloc(p.n * sizeof *p.rainy);
        p.out = dr_malloc(p.n * sizeof *p.out);
        p.clean = dr_malloc(p.n * sizeof *p.clean);
        if (!p.rainy || !p.out || !p.clean) s = dr_fail(err, DR_NOMEM, "no memory for %d x %d pixels", p.w, p.h);
    }
    if (!s) {
        dr_planar_from_image(&a, p.rainy, p.pw, p.ph);
        dr_planar_from_image(&b, p.clean, p.pw, p.ph);
        memcpy(p.out, p.rainy, p.n * sizeof *p.out);
    }
    dr_image_done(&a);
    dr_image_done(&b);
    if (s)
        planes_done(&p);
    else
        *ret = p;
    return s;
}

static dr_status encode(const planes *p, const float *rgb, void **ret, size_t *ret_len, dr_error *err) {
    dr_image img = {0};
    dr_status s = dr_image_init(&img, p->w, p->h, 3, 8, err);
    if (s) return s;
    dr_planar_to_image(rgb, p->pw, p->ph, &img);
    s = dr_image_encode(&img, DR_FORMAT_PNG, 0, true, ret, ret_len, err);
    dr_image_done(&img);
    return s;
}

dr_status dr_model_transplant(dr_model *m, const void *data, size_t len, const void *clean, size_t clean_len,
                              const dr_check_opts *opts, void **ret_rainy, size_t *ret_rainy_len, void **ret_clean,
                              size_t *ret_clean_len, dr_error *err) {
    static const dr_check_opts none = {0};
    const dr_check_opts *o = opts ? opts : &none;
    const dr_plan_watch watch = {.cancel = o->cancel};
    dr_limits lim = o->limits ? *o->limits : (dr_limits){0};
    dr_limits_fill(&lim);
    planes p;
    void *rained = NULL;
    size_t rained_len = 0;
    dr_status s = load(data, len, clean, clean_len, o, &p, err);
    if (s) return s;
    s = dr_model_run_planes(m, p.out, p.pw, p.ph, lim.mem_budget, &watch, err);
    for (size_t i = 0; i < p.n && !s; i++) { /* over `out`: the input of the pair */
        float v = p.clean[i] + p.rainy[i] - p.out[i];
        p.out[i] = v < -1 ? -1 : v > 1 ? 1 : v;
    }
    if (!s) s = encode(&p, p.out, &rained, &rained_len, err);
    if (!s) s = encode(&p, p.clean, ret_clean, ret_clean_len, err);
    planes_done(&p);
    if (s) {
        dr_free(rained);
        return s;
    }
    *ret_rainy = rained;
    *ret_rainy_len = rained_len;
    return DR_OK;
}
