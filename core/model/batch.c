/* batch.c - decoded pictures through a model, several at once where there are several.
 *
 * n pictures of one grid are the images of one plan (n,3,ph,pw). Nothing in the network mixes images: a convolution
 * sums over channels and its window, an instance norm over one plane. So a batch computes what its pictures get alone,
 * and only fills a device better that one small picture leaves mostly idle.
 *
 * A batch is only a better way to the same end, so no failure of one is a failure of its pictures: whatever goes wrong
 * together is tried again, in halves where memory was missing, else one by one. What fails alone as well is what the
 * picture gets, or sends it to the CPU (fallback.h). A device that is lost answers at once, so that the way there is
 * short; and its first error is kept, since that is the one which tells why. */
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/image/convert.h"
#include "core/model/fallback.h"
#include "core/model/picture.h"
#include "core/model/range.h"
#include <stdio.h>

static const float FROM = 0.02f, TO = 0.96f; /* of a picture's progress */

static void end(dr_picture *p, dr_status s, const dr_error *err) {
    p->status = s;
    p->state = DR_PICTURE_RUN;
    if (s && err) p->err = *err;
}

static double ms_since(int64_t t) {
    return (double)(dr_clock_ns() - t) / 1e6;
}

/* ---- one ----------------------------------------------------------------------------------------------------------
 */

/* Through m, or through its twin on the CPU where the device has failed. A failed run may have left half of its output
 * in the picture, so that the CPU starts from the bytes again. */
static dr_status run_somewhere(dr_model *m, dr_picture *p, const dr_error *before, dr_error *err) {
    const dr_plan_watch watch = {.cancel = p->opts.cancel, .progress = p->opts.progress, .from = FROM, .to = TO};
    dr_model *twin;
    dr_error first = {0};
    dr_status s;
    if (!dr_fallback_wanted(m)) {
        s = dr_picture_restore(p, err);
        if (s) return s;
        p->spoiled = true;
        s = dr_model_run_image(m, &p->img, p->opts.depth, p->limits.mem_budget, &watch, &first);
        if (!s) return DR_OK;
        if (!dr_fallback_after(m, s, s == DR_BACKEND && before ? before : &first)) {
            if (err && !err->code) *err = first;
            return s;
        }
    }
    p->stats.on_cpu = true;
    s = dr_fallback_model(m, &twin, err);
    if (!s) s = dr_picture_restore(p, err);
    return s ? s : dr_model_run_image(twin, &p->img, p->opts.depth, p->limits.mem_budget, &watch, err);
}

/* before: why its batch failed, NULL if it was in none or that tells nothing. */
static void run_alone(dr_model *m, dr_picture *p, const dr_error *before) {
    const uint64_t reruns = m->n_reruns;
    int64_t t = dr_clock_ns();
    dr_error err = {0};
    end(p, run_somewhere(m, p, before, &err), &err);
    p->stats.infer_ms += ms_since(t);
    p->stats.reran = m->n_reruns > reruns;
    snprintf(p->stats.lost, sizeof p->stats.lost, "%s", m->e->lost);
}

/* ---- several ------------------------------------------------------------------------------------------------------
 */

typedef struct party {
    dr_model *m;
    dr_picture *const *p;
    int n;
    _Atomic float progress; /* of the run */
} party;

static bool all_cancelled(const party *b) {
    for (int i = 0; i < b->n; i++)
        if (!dr_picture_cancelled(b->p[i])) return false;
    return true;
}

static void tell(const party *b) {
    float now = atomic_load_explicit(&b->progress, memory_order_relaxed);
    for (int i = 0; i < b->n; i++)
        if (b->p[i]->opts.progress) atomic_store_explicit(b->p[i]->opts.progress, now, memory_order_relaxed);
}

/* Between two steps. */
static bool go_on(void *arg) {
    const party *b = arg;
    tell(b);
    return !all_cancelled(b) && (!b->m->between || b->m->between(b->m->between_arg));
}

/* Image i of a tensor of pictures: they are planar on every backend, one behind the other. */
static dr_tensor image_of(dr_tensor t, int i) {
    dr_shape one = {1, t.shape.c, t.shape.h, t.shape.w};
    return (dr_tensor){one, (float *)t.data + (size_t)i * dr_shape_count(one)};
}

static dr_status put_in(dr_backend *be, const dr_picture *p, dr_tensor x, float *planes, dr_error *err) {
    const dr_pixel_view v = dr_pixels_of(&p->img);
    if (dr_be_takes_pixels(be)) return dr_be_pixels_in(be, &v, x, err);
    dr_planar_from_image(&p->img, planes, x.shape.w, x.shape.h);
    return dr_be_upload(be, planes, x, err);
}

static dr_status take_out(dr_backend *be, dr_picture *p, dr_tensor y, float *planes, dr_error *err) {
    const bool pixels = dr_be_takes_pixels(be);
    dr_status s = pixels ? DR_OK : dr_be_download(be, y, planes, err);
    p->spoiled = true;
    if (!s && p->opts.depth && p->opts.depth != p->img.depth) s = dr_image_set_depth(&p->img, p->opts.depth, err);
    const dr_pixel_view v = dr_pixels_of(&p->img);
    if (!s && pixels) s = dr_be_pixels_out(be, y, &v, err);
    if (!s && !pixels) dr_planar_to_image(planes, y.shape.w, y.shape.h, &p->img);
    return s;
}

/* Which images' values did the engine hold (range.h)? All of them, as a rule: that is asked first. */
static dr_status check_range(const party *b, dr_tensor y, bool *ret_fits, dr_error *err) {
    bool all = true;
    dr_status s = dr_range_check(b->m, y, &all, err);
    for (int i = 0; i < b->n && !s; i++) {
        ret_fits[i] = true;
        if (!all) s = dr_range_check(b->m, image_of(y, i), &ret_fits[i], err);
    }
    return s;
}

/* Those that have their output are ended; the others are as they were, or spoiled. OK with some that are not ended:
 * they are to be run alone, which knows what to do with values that are too large. */
static dr_status run_together(party *b, int pw, int ph, dr_error *err) {
    dr_engine *e = b->m->e;
    dr_plan *plan = NULL;
    float *planes = NULL;
    bool fits[DR_BATCH_MAX];
    const dr_plan_watch watch = {.progress = &b->progress, .from = FROM, .to = TO, .between = go_on, .between_arg = b};
    if (!dr_be_takes_pixels(e->be) && !(planes = dr_malloc((size_t)3 * (size_t)pw * (size_t)ph * sizeof *planes)))
        return dr_fail(err, DR_NOMEM, "no memory for %d x %d pixels", pw, ph);
    dr_status s = dr_model_plan(b->m, b->n, pw, ph, &plan, err);
    if (!s) s = dr_engine_block(e, dr_plan_bytes(plan), err);
    for (int i = 0; i < b->n && !s; i++)
        s = put_in(e->be, b->p[i], image_of(dr_plan_input(plan, e->block), i), planes, err);
    if (!s) s = dr_model_run_plan(b->m, plan, &watch, err);
    if (!s) s = check_range(b, dr_plan_output(plan, e->block), fits, err);
    for (int i = 0; i < b->n && !s; i++) {
        if (!fits[i]) continue;
        s = take_out(e->be, b->p[i], image_of(dr_plan_output(plan, e->block), i), planes, err);
        if (!s) end(b->p[i], DR_OK, NULL);
    }
    if (!s) tell(b);
    dr_free(planes);
    return s;
}

/* How many of them run together: what the smallest budget and the device leave room for, in equal parts. */
static int part_of(const dr_model *m, dr_picture *const *p, int n, int pw, int ph) {
    uint64_t budget = UINT64_MAX;
    for (int i = 0; i < n; i++)
        if (p[i]->limits.mem_budget < budget) budget = p[i]->limits.mem_budget;
    int most = dr_model_room(m, n, pw, ph, budget), parts = (n + most - 1) / most;
    return (n + parts - 1) / parts;
}

static void run_group(dr_model *m, dr_picture *const *p, int n, int pw, int ph);

/* The pictures that have no output yet, in halves or one by one. */
static void try_again(dr_model *m, dr_picture *const *p, int n, dr_status s, const dr_error *err, int pw, int ph) {
    dr_picture *left[DR_BATCH_MAX];
    int n_left = 0;
    for (int i = 0; i < n; i++)
        if (p[i]->state != DR_PICTURE_RUN) left[n_left++] = p[i];
    const int half = s == DR_NOMEM ? (n_left + 1) / 2 : 1;
    if (s == DR_NOMEM) dr_engine_trim(m->e); /* the block of the larger batch would be in the way */
    if (half > 1) {
        run_group(m, left, half, pw, ph);
        run_group(m, left + half, n_left - half, pw, ph);
        return;
    }
    for (int i = 0; i < n_left; i++) run_alone(m, left[i], s == DR_BACKEND ? err : NULL);
}

static void run_group(dr_model *m, dr_picture *const *p, int n, int pw, int ph) {
    party b = {.m = m, .p = p, .n = n};
    dr_error err = {0};
    int64_t t = dr_clock_ns();
    dr_status s = DR_OK;
    if (n == 1 || dr_fallback_wanted(m)) {
        for (int i = 0; i < n; i++) run_alone(m, p[i], NULL);
        return;
    }
    for (int i = 0; i < n && !s; i++) s = dr_picture_restore(p[i], &err);
    if (!s) s = run_together(&b, pw, ph, &err);
    const double ms = ms_since(t);
    for (int i = 0; i < n; i++) p[i]->stats.infer_ms += ms;
    if (s == DR_CANCELLED)
        for (int i = 0; i < n; i++) end(p[i], s, &err);
    else
        try_again(m, p, n, s, &err, pw, ph);
}

static dr_status check(dr_picture *const *p, int n, int *ret_w, int *ret_h, dr_error *err) {
    if (n < 1 || n > DR_BATCH_MAX)
        return dr_fail(err, DR_INVALID, "%d pictures at once: 1 to %d are possible", n, DR_BATCH_MAX);
    dr_picture_grid(p[0], ret_w, ret_h);
    for (int i = 0; i < n; i++) {
        int w, h;
        dr_picture_grid(p[i], &w, &h);
        if (w != *ret_w || h != *ret_h)
            return dr_fail(err, DR_INVALID, "pictures of %d x %d and %d x %d in one batch", *ret_w, *ret_h, w, h);
        if (p[i]->state != DR_PICTURE_DECODED) return dr_fail(err, DR_INVALID, "a picture that is not decoded");
    }
    return DR_OK;
}

dr_status dr_model_run_pictures(dr_model *m, dr_picture *const *p, int n, dr_error *err) {
    dr_picture *left[DR_BATCH_MAX];
    int pw, ph, n_left = 0;
    dr_status s = check(p, n, &pw, &ph, err);
    if (s) return s;
    for (int i = 0; i < n; i++) {
        dr_error gone = {0};
        if (dr_picture_cancelled(p[i]))
            end(p[i], dr_fail(&gone, DR_CANCELLED, "cancelled"), &gone);
        else
            left[n_left++] = p[i];
    }
    for (int i = 0; i < n_left;) {
        const int k = part_of(m, left + i, n_left - i, pw, ph);
        run_group(m, left + i, k, pw, ph);
        i += k;
    }
    return DR_OK;
}
