/* derain.c - the engine behind derain.h: a backend, resident generators, and pictures through them.
 *
 * A run: header and limits -> predicted memory against the budget -> decode -> planes of floats, mirrored to the padded
 * size -> plan -> planes -> pixels of the same picture struct (alpha and metadata stay) -> encode. A backend that takes
 * pixels makes the planes itself, beyond the bus. The activations'
 * block is kept between runs, since fresh pages cost as much as the network's cheap layers. */
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/image/codec.h"
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
    if (e->block) dr_be_free(e->be, e->block);
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

/* The block with at least `bytes`. Freed before it is taken anew: the two together could be too much. */
static dr_status engine_block(dr_engine *e, size_t bytes, dr_error *err) {
    e->n_small = bytes < e->block_bytes / 2 ? e->n_small + 1 : 0;
    if (bytes <= e->block_bytes && e->n_small <= SMALL_RUNS) return DR_OK;
    dr_be_free(e->be, e->block);
    e->block = NULL;
    e->block_bytes = 0;
    e->n_small = 0;
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

static dr_status build_plan(const dr_model *m, int pw, int ph, dr_plan **ret, dr_error *err) {
    dr_graph g;
    dr_generator *net = (dr_generator *)(uintptr_t)&m->g; /* recording only reads it */
    dr_graph_init(&g, NULL, NULL, DR_MODE_PLAN);
    dr_var x = dr_input(&g, (dr_tensor){.shape = {1, 3, ph, pw}}, false), y = dr_generator_forward(&g, net, x, NULL);
    dr_status s = dr_plan_build(&g, x, y, m->e->be, true, net->params.p, net->params.n, m->slots, ret, err);
    dr_graph_done(&g);
    return s;
}

/* The plan for a padded size, from the few that are remembered; the one unused for longest makes room. */
static dr_status plan_for(dr_model *m, int pw, int ph, dr_plan **ret, dr_error *err) {
    int oldest = 0;
    for (int i = 0; i < DR_PLANS_MAX; i++) {
        if (m->plans[i].plan && m->plans[i].w == pw && m->plans[i].h == ph) {
            m->plans[i].used = ++m->clock;
            *ret = m->plans[i].plan;
            return DR_OK;
        }
        if (m->plans[i].used < m->plans[oldest].used) oldest = i;
    }
    dr_plan *p;
    dr_status s = build_plan(m, pw, ph, &p, err);
    if (s) return s;
    dr_plan_destroy(m->plans[oldest].plan);
    m->plans[oldest].plan = *ret = p;
    m->plans[oldest].w = pw;
    m->plans[oldest].h = ph;
    m->plans[oldest].used = ++m->clock;
    return DR_OK;
}

uint64_t dr_model_run_bytes(const dr_model *m, int width, int height) {
    int pw = dr_padded_side(width), ph = dr_padded_side(height);
    dr_plan *p = NULL, *fresh = NULL;
    if (width < SIDE_MIN || height < SIDE_MIN) return 0;
    for (int i = 0; i < DR_PLANS_MAX && !p; i++)
        if (m->plans[i].w == pw && m->plans[i].h == ph) p = m->plans[i].plan;
    if (!p && build_plan(m, pw, ph, &fresh, NULL)) return UINT64_MAX; /* sizes that no address counts, or no memory */
    if (!p) p = fresh;
    uint64_t scratch = dr_plan_conv_bytes(p) < SCRATCH_MAX ? dr_plan_conv_bytes(p) : SCRATCH_MAX;
    uint64_t pixels = (uint64_t)pw * (uint64_t)ph, bytes = dr_plan_bytes(p) + scratch;
    dr_plan_destroy(fresh);
    return bytes + pixels * (12 + 8 + 8) +
           (1u << 20); /* planes; the picture at 16 bits with alpha; its file; the rest */
}

/* ---- running ---------------------------------------------------------------------------------------------------- */

/* *ret_fits: false if the output is to be made in another way (range.h). */
static dr_status run_plan(dr_model *m, dr_plan *p, const dr_plan_watch *watch, bool *ret_fits, dr_error *err) {
    dr_plan_watch w = watch ? *watch : (dr_plan_watch){0};
    w.between = m->between;
    w.between_arg = m->between_arg;
    dr_status s = dr_plan_run(p, m->e->block, &w, err);
    return s ? s : dr_range_check(m, dr_plan_output(p, m->e->block), ret_fits, err);
}

dr_status dr_model_run_planes(dr_model *m, float *planes, int pw, int ph, const dr_plan_watch *watch, dr_error *err) {
    dr_plan *p = NULL;
    dr_model *wide;
    bool fits = true;
    dr_backend *be = m->e->be;
    dr_status s = plan_for(m, pw, ph, &p, err);
    if (!s) s = engine_block(m->e, dr_plan_bytes(p), err);
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

static dr_pixel_view view_of(const dr_image *img) {
    return (dr_pixel_view){img->width, img->height, img->channels, img->depth, img->stride, img->pixels};
}

/* The same with pixels in and pixels out, where the backend takes them. */
static dr_status run_pixels(dr_model *m, dr_image *img, int depth, const dr_plan_watch *watch, dr_error *err) {
    dr_plan *p = NULL;
    dr_model *wide;
    bool fits = true;
    dr_backend *be = m->e->be;
    dr_pixel_view v = view_of(img);
    dr_status s = plan_for(m, dr_padded_side(img->width), dr_padded_side(img->height), &p, err);
    if (!s) s = engine_block(m->e, dr_plan_bytes(p), err);
    if (!s) s = dr_be_pixels_in(be, &v, dr_plan_input(p, m->e->block), err);
    if (!s) s = run_plan(m, p, watch, &fits, err);
    if (!s && !fits) {
        s = dr_range_enter(m, &wide, err);
        if (!s) s = run_pixels(wide, img, depth, watch, err);
        dr_range_leave(m);
        return s;
    }
    if (!s && depth && depth != img->depth) s = dr_image_set_depth(img, depth, err); /* alpha too; then the colours */
    v = view_of(img);
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

static dr_status check_budget(const dr_model *m, int w, int h, uint64_t budget, dr_error *err) {
    uint64_t need = dr_model_run_bytes(m, w, h);
    if (need <= budget) return DR_OK;
    return dr_fail_limit(err, "memory", "mem_budget", (int64_t)budget, need > INT64_MAX ? INT64_MAX : (int64_t)need,
                         "%d x %d pixels need %.1f GB of memory, the budget is %.1f GB", w, h, (double)need / 1e9,
                         (double)budget / 1e9);
}

dr_status dr_model_run_image(dr_model *m, dr_image *img, int depth, uint64_t mem_budget, const dr_plan_watch *watch,
                             dr_error *err) {
    planes x = {0};
    dr_status s = check_budget(m, img->width, img->height, mem_budget, err);
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

static double ms_since(int64_t *t) {
    int64_t now = dr_clock_ns(), before = *t;
    *t = now;
    return (double)(now - before) / 1e6;
}

/* The picture through m, or through its twin on the CPU where the device has failed. A failed run may have left half of
 * its output in img, so that the CPU starts from the bytes again. */
static dr_status run_somewhere(dr_model *m, const void *data, size_t len, const dr_limits *lim, int depth,
                               const dr_plan_watch *watch, dr_image *img, bool *ret_on_cpu, dr_error *err) {
    dr_model *twin;
    dr_error first = {0};
    dr_status s = DR_BACKEND;
    if (!dr_fallback_wanted(m)) {
        s = dr_model_run_image(m, img, depth, lim->mem_budget, watch, &first);
        if (!s) return DR_OK;
        if (!dr_fallback_after(m, s, &first)) {
            if (err && !err->code) *err = first;
            return s;
        }
    }
    dr_image_done(img);
    *img = (dr_image){0};
    *ret_on_cpu = true;
    s = dr_fallback_model(m, &twin, err);
    if (!s) s = dr_image_decode(data, len, lim, img, err);
    return s ? s : dr_model_run_image(twin, img, depth, lim->mem_budget, watch, err);
}

dr_status dr_derain(dr_model *m, const void *data, size_t len, const dr_run_opts *opts, void **ret_data,
                    size_t *ret_len, dr_run_stats *ret_stats, dr_error *err) {
    static const dr_run_opts none = {0};
    if (!opts) opts = &none;
    dr_limits lim = opts->limits ? *opts->limits : (dr_limits){0};
    dr_limits_fill(&lim);
    dr_format format = opts->format == DR_FORMAT_NONE ? DR_FORMAT_PNG : opts->format;
    dr_run_stats stats = {0};
    dr_image img = {0};
    const dr_plan_watch watch = {.cancel = opts->cancel, .progress = opts->progress, .from = 0.02f, .to = 0.96f};
    if (opts->depth && opts->depth != 8 && opts->depth != 16)
        return dr_fail(err, DR_INVALID, "output depth %d: it must be 8 or 16", opts->depth);
    const uint64_t reruns = m->n_reruns;
    int64_t t = dr_clock_ns();
    dr_status s = dr_probe(data, len, 0, &lim, &stats.input, err);
    if (s) return s;
    if (format == DR_FORMAT_JPEG && stats.input.channels % 2 == 0)
        return dr_fail_as(err, DR_UNSUPPORTED, "alpha_jpeg", "the picture has transparency, which JPEG cannot hold");
    if ((s = check_budget(m, stats.input.width, stats.input.height, lim.mem_budget, err))) return s;
    if ((s = dr_image_decode(data, len, &lim, &img, err))) return s;
    stats.decode_ms = ms_since(&t);
    s = run_somewhere(m, data, len, &lim, opts->depth, &watch, &img, &stats.on_cpu, err);
    stats.infer_ms = ms_since(&t);
    stats.lost = m->e->lost;
    stats.reran = m->n_reruns > reruns;
    void *out = NULL;
    size_t out_len = 0;
    if (!s && opts->cancel && atomic_load(opts->cancel)) s = dr_fail(err, DR_CANCELLED, "cancelled");
    if (!s) s = dr_image_encode(&img, format, 0, opts->strip_metadata, &out, &out_len, err);
    dr_image_done(&img);
    if (s) return s;
    stats.encode_ms = ms_since(&t);
    if (opts->progress) atomic_store(opts->progress, 1.0f);
    *ret_data = out;
    *ret_len = out_len;
    if (ret_stats) *ret_stats = stats;
    return DR_OK;
}
