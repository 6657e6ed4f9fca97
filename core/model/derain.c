/* derain.c - the engine behind derain.h: a backend, resident generators, and decoded pictures through them.
 *
 * A run: predicted memory against the budget -> planes of floats, mirrored to the padded size -> plan -> planes ->
 * pixels of the same picture struct (alpha and metadata stay). A backend that takes pixels makes the planes itself,
 * beyond the bus. The activations' block is kept between runs, since fresh pages cost as much as the network's cheap
 * layers. Encoded pictures are picture.c's, several at once batch.c's. */
#include "core/base/alloc.h"
#include "core/image/convert.h"
#include "core/model/engine.h"
#include "core/model/fallback.h"
#include "core/model/range.h"
#include "core/model/spec.h"
#include "core/model/weights.h"
#include <stdio.h>
#include <string.h>

enum {
    PAD_TO = 4,             /* two halvings */
    SIDE_MIN = 16,          /* so that every reflect pad is smaller than its grid */
    SMALL_RUNS = 16,        /* that many in a row give a block back that is more than twice too large */
    SCRATCH_MAX = 256 << 20 /* a backend works on large pictures in pieces of bounded size */
};

/* ---- engine ----------------------------------------------------------------------------------------------------- */

void dr_engine_release(dr_engine *e) {
    dr_be_free(e->be, e->block);
    e->block = NULL;
    e->block_bytes = 0;
    e->n_small = 0;
}

dr_status dr_engine_open(const dr_engine_opts *opts, dr_engine **ret, dr_error *err) {
    static const dr_engine_opts none = {0};
    if (!opts) opts = &none;
    dr_engine *e = dr_calloc(1, sizeof *e);
    if (!e) return dr_fail(err, DR_NOMEM, "no memory for the engine");
    dr_backend_opts o = {.threads = opts->threads, .background = opts->background, .plan_cache = opts->plan_cache};
    const char *note = NULL;
    dr_status s = DR_OK;
    if (!dr_precision_from_name(opts->precision, &o.precision))
        s = dr_fail_as(err, DR_INVALID, "unknown_precision", "precision '%.40s' is none of auto, f32, f16 and bf16",
                       opts->precision);
    if (!s && opts->plan_cache && *opts->plan_cache && !(e->plan_cache = dr_strdup(opts->plan_cache)))
        s = dr_fail(err, DR_NOMEM, "no memory for the engine");
    if (!s) s = dr_backend_open(opts->backend ? opts->backend : "auto", &o, &e->be, &note, err);
    if (s) {
        dr_free(e->plan_cache);
        dr_free(e);
        return s;
    }
    snprintf(e->note, sizeof e->note, "%s", note ? note : "");
    e->threads = opts->threads;
    e->fallback = opts->fallback;
    e->background = opts->background;
    e->precision = o.precision;
    if (!strcmp(dr_engine_backend(e), "cpu"))
        e->precision = o.precision == DR_PREC_BF16 ? DR_PREC_BF16 : DR_PREC_F32;
    else if (o.precision == DR_PREC_AUTO)
        e->precision = DR_PREC_F16;
    *ret = e;
    return DR_OK;
}

void dr_engine_close(dr_engine *e) {
    if (!e) return;
    dr_range_close(e);
    dr_engine_release(e);
    dr_backend_close(e->be);
    dr_free(e->plan_cache);
    dr_free(e);
}

const char *dr_engine_backend(const dr_engine *e) {
    return e->be->ops->name;
}
const char *dr_engine_describe(const dr_engine *e) {
    return dr_be_describe(e->be);
}
const char *dr_engine_note(const dr_engine *e) {
    return e->note;
}

void dr_engine_trim(dr_engine *e) {
    dr_engine_release(e);
    dr_be_trim(e->be);
}

/* Freed before it is taken anew: the two together could be too much. */
dr_status dr_engine_block(dr_engine *e, size_t bytes, dr_error *err) {
    e->n_small = bytes < e->block_bytes / 2 ? e->n_small + 1 : 0;
    if (bytes <= e->block_bytes && e->n_small <= SMALL_RUNS) return DR_OK;
    dr_engine_release(e);
    dr_status s = dr_be_alloc(e->be, bytes, &e->block, err);
    if (!s) e->block_bytes = bytes;
    return s;
}

/* ---- model ------------------------------------------------------------------------------------------------------ */

dr_status dr_model_open(dr_engine *e, const char *path, dr_model **ret, dr_error *err) {
    dr_st *f = NULL;
    dr_spec spec = {0};
    dr_model *m = dr_calloc(1, sizeof *m);
    if (!m) return dr_fail(err, DR_NOMEM, "no memory for the model");
    m->e = e;
    dr_status s = dr_st_open(path, &f, err);
    if (s) goto out;
    if (!(m->path = dr_strdup(path))) s = dr_fail(err, DR_NOMEM, "no memory for the model");
    if (!s) s = dr_spec_check_file(f, &spec, err);
    if (!s) s = dr_spec_info(f, &spec, path, &m->info, err);
    if (!s) s = dr_range_engine(e, f, spec.cfg, &m->e, m->note, sizeof m->note, err);
    if (!s) s = dr_generator_init(&m->g, spec.cfg, m->e->be, false, err);
    if (!s) s = dr_weights_load(f, "", &m->g.params, NULL, err);
    if (!s && !(m->slots = dr_calloc((size_t)m->g.params.n, sizeof *m->slots)))
        s = dr_fail(err, DR_NOMEM, "no memory for the model");
    if (s) dr_wrap(err, s, "%s", path);
out:
    dr_st_close(f);
    if (s)
        dr_model_close(m);
    else
        *ret = m;
    return s;
}

void dr_model_close(dr_model *m) {
    if (!m) return;
    dr_fallback_done(m);
    dr_range_done(m);
    dr_free(m->path);
    for (int i = 0; i < DR_PLANS_MAX; i++) dr_plan_destroy(m->plans[i].plan);
    for (int i = 0; m->slots && i < m->g.params.n; i++) dr_slot_clear(&m->slots[i]);
    dr_free(m->slots);
    dr_generator_done(&m->g);
    dr_model_info_done(&m->info);
    dr_free(m);
}

void dr_model_set_yield(dr_model *m, bool (*between)(void *), void *arg) {
    m->between = between;
    m->between_arg = arg;
}
const dr_model_info *dr_model_get_info(const dr_model *m) {
    return &m->info;
}

const char *dr_model_device(const dr_model *m) {
    return dr_engine_describe(m->e);
}
const char *dr_model_precision(const dr_model *m) {
    return dr_precision_name(m->e->precision);
}
const char *dr_model_note(const dr_model *m) {
    return m->note;
}

int dr_padded_side(int side) {
    return dr_round_up(side, PAD_TO);
}

static dr_status build_plan(const dr_model *m, int n, int pw, int ph, dr_plan **ret, dr_error *err) {
    dr_graph g;
    dr_generator *net = (dr_generator *)(uintptr_t)&m->g; /* recording only reads it */
    dr_graph_init(&g, NULL, NULL, DR_MODE_PLAN);
    dr_var x = dr_input(&g, (dr_tensor){.shape = {n, 3, ph, pw}}, false), y = dr_generator_forward(&g, net, x, NULL);
    dr_status s = dr_plan_build(&g, x, y, m->e->be, true, net->params.p, net->params.n, m->slots, ret, err);
    dr_graph_done(&g);
    return s;
}

/* From those that are remembered; the one unused for longest makes room. */
dr_status dr_model_plan(dr_model *m, int n, int pw, int ph, dr_plan **ret, dr_error *err) {
    int oldest = 0;
    for (int i = 0; i < DR_PLANS_MAX; i++) {
        if (m->plans[i].plan && m->plans[i].n == n && m->plans[i].w == pw && m->plans[i].h == ph) {
            m->plans[i].used = ++m->clock;
            *ret = m->plans[i].plan;
            return DR_OK;
        }
        if (m->plans[i].used < m->plans[oldest].used) oldest = i;
    }
    dr_plan *p;
    dr_status s = build_plan(m, n, pw, ph, &p, err);
    if (s) return s;
    dr_plan_destroy(m->plans[oldest].plan);
    m->plans[oldest].plan = *ret = p;
    m->plans[oldest].n = n;
    m->plans[oldest].w = pw;
    m->plans[oldest].h = ph;
    m->plans[oldest].used = ++m->clock;
    return DR_OK;
}

/* Of one picture. False: no address counts it, or there is no memory to find out. */
static bool plan_bytes(const dr_model *m, int pw, int ph, uint64_t *ret_block, uint64_t *ret_conv) {
    dr_plan *p = NULL, *fresh = NULL;
    for (int i = 0; i < DR_PLANS_MAX && !p; i++)
        if (m->plans[i].n == 1 && m->plans[i].w == pw && m->plans[i].h == ph) p = m->plans[i].plan;
    if (!p && build_plan(m, 1, pw, ph, &fresh, NULL)) return false;
    if (!p) p = fresh;
    *ret_block = dr_plan_bytes(p);
    *ret_conv = dr_plan_conv_bytes(p);
    dr_plan_destroy(fresh);
    return true;
}

/* Planes; a picture at 16 bits with alpha; its file. */
static uint64_t picture_bytes(int pw, int ph) {
    return (uint64_t)pw * (uint64_t)ph * (12 + 8 + 8);
}

uint64_t dr_model_run_bytes(const dr_model *m, int width, int height) {
    int pw = dr_padded_side(width), ph = dr_padded_side(height);
    uint64_t block, conv;
    if (width < SIDE_MIN || height < SIDE_MIN) return 0;
    if (!plan_bytes(m, pw, ph, &block, &conv)) return UINT64_MAX;
    return block + (conv < SCRATCH_MAX ? conv : SCRATCH_MAX) + picture_bytes(pw, ph) + (1u << 20); /* the rest */
}

/* All but the rest grows with the pictures; so does a device's scratch memory, which works in no pieces. */
int dr_model_room(const dr_model *m, int n, int pw, int ph, uint64_t budget) {
    uint64_t block, conv;
    dr_device_info dev;
    if (n == 1 || !plan_bytes(m, pw, ph, &block, &conv)) return 1;
    while (n > 1 && (block + conv + picture_bytes(pw, ph)) * (uint64_t)n + (1u << 20) > budget) n--;
    if (n > 1 && block * (uint64_t)n > m->e->block_bytes && dr_be_info(m->e->be, &dev))
        while (n > 1 && (block + conv) * (uint64_t)n > dev.memory_free + m->e->block_bytes) n--;
    return n;
}

/* ---- running ---------------------------------------------------------------------------------------------------- */

dr_status dr_model_run_plan(dr_model *m, dr_plan *p, const dr_plan_watch *watch, dr_error *err) {
    dr_plan_watch w = watch ? *watch : (dr_plan_watch){0};
    if (!w.between) {
        w.between = m->between;
        w.between_arg = m->between_arg;
    }
    return dr_plan_run(p, m->e->block, &w, err);
}

/* *ret_fits: false if the output is to be made in another way (range.h). */
static dr_status run_plan(dr_model *m, dr_plan *p, const dr_plan_watch *watch, bool *ret_fits, dr_error *err) {
    dr_status s = dr_model_run_plan(m, p, watch, err);
    return s ? s : dr_range_check(m, dr_plan_output(p, m->e->block), ret_fits, err);
}

dr_status dr_model_run_planes(dr_model *m, float *planes, int pw, int ph, const dr_plan_watch *watch, dr_error *err) {
    dr_plan *p = NULL;
    dr_model *wide;
    bool fits = true;
    dr_backend *be = m->e->be;
    dr_status s = dr_model_plan(m, 1, pw, ph, &p, err);
    if (!s) s = dr_engine_block(m->e, dr_plan_bytes(p), err);
    if (!s) s = dr_be_upload(be, planes, dr_plan_input(p, m->e->block), err);
    if (!s) s = run_plan(m, p, watch, &fits, err);
    if (!s && !fits) {
        s = dr_range_enter(m, &wide, err);
        if (!s) s = dr_model_run_planes(wide, planes, pw, ph, watch, err);
        dr_range_leave(m);
        return s;
    }
    if (!s) s = dr_be_download(be, dr_plan_output(p, m->e->block), planes, err);
    return s;
}

dr_pixel_view dr_pixels_of(const dr_image *img) {
    return (dr_pixel_view){img->width, img->height, img->channels, img->depth, img->stride, img->pixels};
}

/* The same with pixels in and pixels out, where the backend takes them. */
static dr_status run_pixels(dr_model *m, dr_image *img, int depth, const dr_plan_watch *watch, dr_error *err) {
    dr_plan *p = NULL;
    dr_model *wide;
    bool fits = true;
    dr_backend *be = m->e->be;
    dr_pixel_view v = dr_pixels_of(img);
    dr_status s = dr_model_plan(m, 1, dr_padded_side(img->width), dr_padded_side(img->height), &p, err);
    if (!s) s = dr_engine_block(m->e, dr_plan_bytes(p), err);
    if (!s) s = dr_be_pixels_in(be, &v, dr_plan_input(p, m->e->block), err);
    if (!s) s = run_plan(m, p, watch, &fits, err);
    if (!s && !fits) {
        s = dr_range_enter(m, &wide, err);
        if (!s) s = run_pixels(wide, img, depth, watch, err);
        dr_range_leave(m);
        return s;
    }
    if (!s && depth && depth != img->depth) s = dr_image_set_depth(img, depth, err); /* alpha too; then the colours */
    v = dr_pixels_of(img);
    if (!s) s = dr_be_pixels_out(be, dr_plan_output(p, m->e->block), &v, err);
    return s;
}

/* (3,h,w) floats, sides padded. */
typedef struct planes {
    float *p;
    int w, h;
} planes;

static dr_status check_sides(int w, int h, dr_error *err) {
    if (w >= SIDE_MIN && h >= SIDE_MIN) return DR_OK;
    return dr_fail_as(err, DR_INVALID, "image_too_small", "%d x %d pixels: a side is below %d", w, h, SIDE_MIN);
}

static dr_status take_planes(int w, int h, planes *ret, dr_error *err) {
    dr_status s = check_sides(w, h, err);
    if (s) return s;
    planes x = {.w = dr_padded_side(w), .h = dr_padded_side(h)};
    size_t n, bytes;
    if (dr_mul_size((size_t)x.w, (size_t)x.h, &n) && dr_mul_size(n, 3 * sizeof *x.p, &bytes)) x.p = dr_malloc(bytes);
    if (!x.p) return dr_fail(err, DR_NOMEM, "no memory for %d x %d pixels", w, h);
    *ret = x;
    return DR_OK;
}

dr_status dr_model_forward(dr_model *m, const float *rgb, int width, int height, float *ret, dr_error *err) {
    planes x = {0};
    dr_status s = take_planes(width, height, &x, err);
    if (s) return s;
    dr_planar_pad(rgb, 3, height, width, x.p, x.h, x.w);
    s = dr_model_run_planes(m, x.p, x.w, x.h, NULL, err);
    if (!s) dr_planar_crop(x.p, 3, x.h, x.w, ret, height, width);
    dr_free(x.p);
    return s;
}

dr_status dr_model_check_budget(const dr_model *m, int w, int h, uint64_t budget, dr_error *err) {
    uint64_t need = dr_model_run_bytes(m, w, h);
    if (need <= budget) return DR_OK;
    return dr_fail_limit(err, "memory", "mem_budget", (int64_t)budget, need > INT64_MAX ? INT64_MAX : (int64_t)need,
                         "%d x %d pixels need %.1f GB of memory, the budget is %.1f GB", w, h, (double)need / 1e9,
                         (double)budget / 1e9);
}

dr_status dr_model_run_image(dr_model *m, dr_image *img, int depth, uint64_t mem_budget, const dr_plan_watch *watch,
                             dr_error *err) {
    planes x = {0};
    dr_status s = dr_model_check_budget(m, img->width, img->height, mem_budget, err);
    if (!s) s = check_sides(img->width, img->height, err);
    if (!s && dr_be_takes_pixels(m->e->be)) return run_pixels(m, img, depth, watch, err);
    if (!s) s = take_planes(img->width, img->height, &x, err);
    if (s) return s;
    dr_planar_from_image(img, x.p, x.w, x.h);
    s = dr_model_run_planes(m, x.p, x.w, x.h, watch, err);
    if (!s && depth && depth != img->depth) s = dr_image_set_depth(img, depth, err); /* alpha too; then the colours */
    if (!s) dr_planar_to_image(x.p, x.w, x.h, img);
    dr_free(x.p);
    return s;
}
