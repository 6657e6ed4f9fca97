/* run.c - decoded pictures through a network: the plan that there is memory for, the block that it works in.
 *
 * Pixels -> planes of floats, mirrored to the padded size -> plan -> planes -> pixels of the same picture struct (alpha
 * and metadata stay). A backend that takes pixels makes the planes itself, beyond the bus. The activations' block is
 * kept between runs, since fresh pages cost as much as the network's cheap layers.
 *
 * A picture that does not fit as a whole, into mem_budget or into what is free on the device, goes in bands (fit.h).
 * What is free on a device is only a guess, others share it: where memory runs out on the way, what is kept for speed
 * is given back and the run repeated, then with plans for less and less, until one gets through or none is left. The
 * picture stays as it was until the output is there. */
#include "core/base/alloc.h"
#include "core/base/log.h"
#include "core/image/convert.h"
#include "core/model/engine.h"
#include "core/model/fit.h"
#include "core/model/range.h"

enum {
    PAD_TO = 4,     /* two halvings */
    SIDE_MIN = 16,  /* so that every reflect pad is smaller than its grid */
    REST = 1 << 20, /* lists, headers, the plan itself */
    SMALL_RUNS = 16 /* that many in a row give a block back that is more than twice too large */
};

int dr_padded_side(int side) {
    return dr_round_up(side, PAD_TO);
}

/* Host memory beside the plan's: planes; the picture at 16 bits with alpha; its file; and the rest. */
static uint64_t picture_bytes(int pw, int ph) {
    return (uint64_t)pw * (uint64_t)ph * (12 + 8 + 8);
}
static uint64_t beside(int pw, int ph) {
    return picture_bytes(pw, ph) + REST;
}

/* ---- plans ------------------------------------------------------------------------------------------------------ */

/* The best plan within limit, NULL if there is none. */
static dr_status fit(const dr_model *m, int n, int pw, int ph, uint64_t limit, dr_plan **ret, uint64_t *ret_least,
                     dr_error *err) {
    dr_graph g;
    dr_generator *net = (dr_generator *)(uintptr_t)&m->g; /* recording only reads it */
    dr_graph_init(&g, NULL, NULL, DR_MODE_PLAN);
    dr_var x = dr_input(&g, (dr_tensor){.shape = {n, 3, ph, pw}}, false), y = dr_generator_forward(&g, net, x, NULL);
    dr_status s = dr_plan_fit(&g, x, y, m->e->be, net->params.p, net->params.n, m->slots, limit, ret, ret_least, err);
    dr_graph_done(&g);
    return s;
}

static int find_plan(const dr_model *m, int n, int pw, int ph, uint64_t limit) {
    for (int i = 0; i < DR_PLANS_MAX; i++)
        if (m->plans[i].plan && m->plans[i].n == n && m->plans[i].w == pw && m->plans[i].h == ph &&
            m->plans[i].limit == limit)
            return i;
    return -1;
}

/* The plan for n pictures of a padded size and so much memory, from the few that are remembered; the one unused for
 * longest makes room. *ret NULL: none fits, not even in bands, and *ret_least says what the smallest takes. */
static dr_status plan_for(dr_model *m, int n, int pw, int ph, uint64_t limit, dr_plan **ret, uint64_t *ret_least,
                          dr_error *err) {
    int at = find_plan(m, n, pw, ph, UINT64_MAX), oldest = 0;
    if (at < 0 || dr_plan_need(m->plans[at].plan) > limit) at = find_plan(m, n, pw, ph, limit);
    if (at < 0) {
        dr_plan *p = NULL;
        for (int i = 0; i < DR_PLANS_MAX; i++)
            if (m->plans[i].used < m->plans[oldest].used) oldest = i;
        dr_status s = fit(m, n, pw, ph, limit, &p, ret_least, err);
        if (s) return s;
        if (!p) {
            *ret = NULL;
            return DR_OK;
        }
        dr_plan_destroy(m->plans[at = oldest].plan);
        m->plans[at].plan = p;
        m->plans[at].n = n;
        m->plans[at].w = pw;
        m->plans[at].h = ph;
        m->plans[at].limit = dr_plan_is_banded(p) ? limit : UINT64_MAX;
    }
    m->plans[at].used = ++m->clock;
    *ret = m->plans[at].plan;
    return DR_OK;
}

dr_status dr_model_plan(dr_model *m, int n, int pw, int ph, dr_plan **ret, dr_error *err) {
    return plan_for(m, n, pw, ph, UINT64_MAX, ret, NULL, err);
}

/* What the whole plan of one picture takes. False: no address counts it, or there is no memory to find out. */
static bool whole_bytes(const dr_model *m, int pw, int ph, uint64_t *ret_need, uint64_t *ret_block,
                        uint64_t *ret_conv) {
    dr_plan *fresh = NULL;
    const int at = find_plan(m, 1, pw, ph, UINT64_MAX);
    if (at < 0 && fit(m, 1, pw, ph, UINT64_MAX, &fresh, NULL, NULL)) return false;
    const dr_plan *p = at < 0 ? fresh : m->plans[at].plan;
    *ret_need = dr_plan_need(p);
    *ret_block = dr_plan_bytes(p);
    *ret_conv = dr_plan_conv_bytes(p);
    dr_plan_destroy(fresh);
    return true;
}

uint64_t dr_model_run_bytes(const dr_model *m, int width, int height) {
    int pw = dr_padded_side(width), ph = dr_padded_side(height);
    uint64_t need, block, conv;
    if (width < SIDE_MIN || height < SIDE_MIN) return 0;
    return whole_bytes(m, pw, ph, &need, &block, &conv) ? need + beside(pw, ph) : UINT64_MAX;
}

/* All but the rest grows with the pictures; so does a device's scratch memory, which works in no pieces. */
int dr_model_room(const dr_model *m, int n, int pw, int ph, uint64_t budget) {
    uint64_t need, block, conv;
    dr_device_info dev;
    if (n == 1 || !whole_bytes(m, pw, ph, &need, &block, &conv)) return 1;
    while (n > 1 && (block + conv + picture_bytes(pw, ph)) * (uint64_t)n + REST > budget) n--;
    if (n > 1 && block * (uint64_t)n > m->e->block_bytes && dr_be_info(m->e->be, &dev))
        while (n > 1 && (block + conv) * (uint64_t)n > dev.memory_free + m->e->block_bytes) n--;
    return n;
}

uint64_t dr_model_run_bytes_min(const dr_model *m, int width, int height) {
    int pw = dr_padded_side(width), ph = dr_padded_side(height);
    dr_plan *p = NULL;
    uint64_t least = 0;
    if (width < SIDE_MIN || height < SIDE_MIN) return 0;
    if (fit(m, 1, pw, ph, 0, &p, &least, NULL)) return UINT64_MAX;
    dr_plan_destroy(p);
    return least + beside(pw, ph);
}

dr_status dr_model_check_budget(const dr_model *m, int w, int h, uint64_t budget, dr_error *err) {
    if (dr_model_run_bytes(m, w, h) <= budget) return DR_OK;
    const uint64_t need = dr_model_run_bytes_min(m, w, h);
    if (need <= budget) return DR_OK;
    return dr_fail_limit(err, "memory", "mem_budget", (int64_t)budget, need > INT64_MAX ? INT64_MAX : (int64_t)need,
                         "%d x %d pixels need at least %.1f GB of memory, the budget is %.1f GB", w, h,
                         (double)need / 1e9, (double)budget / 1e9);
}

/* ---- memory ----------------------------------------------------------------------------------------------------- */

void dr_engine_release(dr_engine *e) {
    dr_be_free(e->be, e->block);
    e->block = NULL;
    e->block_bytes = 0;
    e->n_small = 0;
}

/* The block with at least `bytes`, and no more than `most` where it is larger than that. Freed before it is taken anew:
 * the two together could be too much. */
static dr_status take_block(dr_engine *e, size_t bytes, uint64_t most, dr_error *err) {
    e->n_small = bytes < e->block_bytes / 2 ? e->n_small + 1 : 0;
    if (bytes <= e->block_bytes && e->block_bytes <= most && e->n_small <= SMALL_RUNS) return DR_OK;
    dr_engine_release(e);
    dr_status s = dr_be_alloc(e->be, bytes, &e->block, err);
    if (!s) e->block_bytes = bytes;
    return s;
}

dr_status dr_engine_block(dr_engine *e, size_t bytes, dr_error *err) {
    return take_block(e, bytes, UINT64_MAX, err);
}

/* All that is kept for speed, the backend's and ours. */
void dr_engine_trim(dr_engine *e) {
    dr_engine_release(e);
    dr_be_trim(e->be);
    if (e->be->ops->trim) e->scratch = 0;
}

/* What the device has for a run, in coarse steps, so that equal pictures get equal plans; UINT64_MAX: it does not say.
 */
static uint64_t room_of(const dr_engine *e) {
    dr_device_info info;
    if (!dr_be_info(e->be, &info)) return UINT64_MAX;
    uint64_t room = info.memory_free + e->block_bytes + e->scratch, step = 1;
    while (step < room / 64) step *= 2;
    return room / step * step;
}

/* The plan for within `most` bytes and what the device has; the whole one where the block has room for it already. */
static dr_status plan_in_room(dr_model *m, int pw, int ph, uint64_t most, dr_plan **ret, uint64_t *ret_least,
                              dr_error *err) {
    dr_plan *p = NULL;
    dr_status s = plan_for(m, 1, pw, ph, most, &p, ret_least, err);
    if (!s && p && dr_plan_bytes(p) > m->e->block_bytes) {
        const uint64_t room = room_of(m->e);
        if (dr_plan_need(p) > room) s = plan_for(m, 1, pw, ph, room < most ? room : most, &p, ret_least, err);
    }
    if (!s) *ret = p;
    return s;
}

typedef struct task {
    dr_status (*go)(struct task *t, dr_plan *p, dr_error *err);
    dr_model *m;
    const dr_plan_watch *watch;
    float *planes; /* a run of planes */
    dr_image *img; /* a run of pixels */
    int depth;
    bool touched; /* what came in is no longer there: no second try */
    bool fits;    /* the output; else it is to be made in another way (range.h), and is not there */
} task;

/* After a run with p (NULL: there was no plan) did not get the memory that it wanted: what the next one may take at
 * most; 0: there is no next one. The first time that is not known to be too little. */
static uint64_t less(const dr_plan *p, uint64_t most, uint64_t least, uint64_t tried, bool first) {
    if (first) return most;
    if (p) return dr_plan_need(p) / 4 * 3;
    return least < tried ? least : 0; /* a quarter less was too large a step */
}

/* The task with the best plan that the budget and the device have room for. */
static dr_status run_in_room(task *t, int pw, int ph, uint64_t budget, dr_error *err) {
    dr_engine *e = t->m->e;
    uint64_t most = budget > beside(pw, ph) ? budget - beside(pw, ph) : 0, tried = 0;
    dr_error why = {0};
    for (bool first = true; most; first = false) {
        dr_plan *p = NULL;
        uint64_t least = 0;
        dr_error now = {0};
        dr_status s = plan_in_room(t->m, pw, ph, most, &p, &least, &now);
        if (!s && p) {
            tried = dr_plan_need(p);
            s = take_block(e, dr_plan_bytes(p), most - (tried - dr_plan_bytes(p)), &now); /* scratch beside it */
            if (!s) s = t->go(t, p, &now);
            if (!s && tried - dr_plan_bytes(p) > e->scratch) e->scratch = tried - dr_plan_bytes(p);
            if (!s) return DR_OK;
        }
        if (s) why = now; /* the last one says it best */
        if (s && (s != DR_NOMEM || t->touched)) break;
        most = less(p, most, least, tried, first);
        dr_engine_trim(e);
        dr_log(DR_LOG_DEBUG, NULL, "%d x %d pixels: %s", pw, ph, s ? now.text : "no room, asked once more");
    }
    if (!why.code) dr_fail(&why, DR_NOMEM, "%s: no room for %d x %d pixels", e->be->ops->name, pw, ph);
    if (err && !err->code) *err = why;
    return why.code;
}

/* And where the values do not fit into what m's engine computes in, once more in what holds them. */
static dr_status run_task(task *t, int pw, int ph, uint64_t budget, dr_error *err) {
    dr_model *m = t->m, *wide = NULL;
    dr_status s = run_in_room(t, pw, ph, budget, err);
    if (s || t->fits) return s;
    s = dr_range_enter(m, &wide, err);
    if (!s) {
        t->m = wide;
        s = run_in_room(t, pw, ph, budget, err);
    }
    dr_range_leave(m);
    return s;
}

/* ---- running ---------------------------------------------------------------------------------------------------- */

dr_status dr_model_run_plan(dr_model *m, dr_plan *p, const dr_plan_watch *watch, dr_error *err) {
    dr_plan_watch w = watch ? *watch : (dr_plan_watch){0};
    w.gives_way = m->between != NULL;
    if (!w.between) {
        w.between = m->between;
        w.between_arg = m->between_arg;
    }
    return dr_plan_run(p, m->e->block, &w, err);
}

static dr_status run_plan(task *t, dr_plan *p, dr_error *err) {
    dr_status s = dr_model_run_plan(t->m, p, t->watch, err);
    return s ? s : dr_range_check(t->m, dr_plan_output(p, t->m->e->block), &t->fits, err);
}

static dr_status go_planes(task *t, dr_plan *p, dr_error *err) {
    dr_backend *be = t->m->e->be;
    void *block = t->m->e->block;
    dr_status s = dr_be_upload(be, t->planes, dr_plan_input(p, block), err);
    if (!s) s = run_plan(t, p, err);
    if (s || !t->fits) return s;
    t->touched = true;
    return dr_be_download(be, dr_plan_output(p, block), t->planes, err);
}

static dr_status check_sides(int w, int h, dr_error *err) {
    if (w >= SIDE_MIN && h >= SIDE_MIN) return DR_OK;
    return dr_fail_as(err, DR_INVALID, "image_too_small", "%d x %d pixels: a side is below %d", w, h, SIDE_MIN);
}

dr_status dr_model_run_planes(dr_model *m, float *planes, int pw, int ph, uint64_t mem_budget,
                              const dr_plan_watch *watch, dr_error *err) {
    task t = {.go = go_planes, .m = m, .watch = watch, .planes = planes};
    dr_status s = dr_model_check_budget(m, pw, ph, mem_budget, err);
    return s ? s : run_task(&t, pw, ph, mem_budget, err);
}

dr_pixel_view dr_pixels_of(const dr_image *img) {
    return (dr_pixel_view){img->width, img->height, img->channels, img->depth, img->stride, img->pixels};
}

/* The same with pixels in and pixels out, where the backend takes them. */
static dr_status go_pixels(task *t, dr_plan *p, dr_error *err) {
    dr_backend *be = t->m->e->be;
    void *block = t->m->e->block;
    dr_image *img = t->img;
    dr_pixel_view v = dr_pixels_of(img);
    dr_status s = dr_be_pixels_in(be, &v, dr_plan_input(p, block), err);
    if (!s) s = run_plan(t, p, err);
    if (s || !t->fits) return s;
    t->touched = true;
    if (t->depth && t->depth != img->depth) s = dr_image_set_depth(img, t->depth, err); /* alpha too; then colours */
    if (s) return s;
    dr_error why = {0};
    v = dr_pixels_of(img);
    s = dr_be_pixels_out(be, dr_plan_output(p, block), &v, &why);
    if (s == DR_NOMEM) { /* for its scratch memory; the output is there, so that only that is tried again */
        dr_be_trim(be);
        return dr_be_pixels_out(be, dr_plan_output(p, block), &v, err);
    }
    if (s && err && !err->code) *err = why;
    return s;
}

/* (3,h,w) floats, sides padded. */
typedef struct planes {
    float *p;
    int w, h;
} planes;

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
    s = dr_model_run_planes(m, x.p, x.w, x.h, UINT64_MAX, NULL, err);
    if (!s) dr_planar_crop(x.p, 3, x.h, x.w, ret, height, width);
    dr_free(x.p);
    return s;
}

dr_status dr_model_run_image(dr_model *m, dr_image *img, int depth, uint64_t mem_budget, const dr_plan_watch *watch,
                             dr_error *err) {
    planes x = {0};
    dr_status s = dr_model_check_budget(m, img->width, img->height, mem_budget, err);
    if (!s) s = check_sides(img->width, img->height, err);
    if (s) return s;
    if (dr_be_takes_pixels(m->e->be)) {
        task t = {.go = go_pixels, .m = m, .watch = watch, .img = img, .depth = depth};
        return run_task(&t, dr_padded_side(img->width), dr_padded_side(img->height), mem_budget, err);
    }
    if ((s = take_planes(img->width, img->height, &x, err))) return s;
    dr_planar_from_image(img, x.p, x.w, x.h);
    task t = {.go = go_planes, .m = m, .watch = watch, .planes = x.p};
    s = run_task(&t, x.w, x.h, mem_budget, err);
    if (!s && depth && depth != img->depth) s = dr_image_set_depth(img, depth, err); /* alpha too; then the colours */
    if (!s) dr_planar_to_image(x.p, x.w, x.h, img);
    dr_free(x.p);
    return s;
}
