/* trainer.c - implements core/trainer.h: options, nets, data and steps put together. */
#include "core/trainer.h"
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/rng.h"
#include "core/train/feed.h"
#include "core/train/plan.h"
#include "core/train/sheet.h"
#include "core/train/state.h"
#include "core/train/step.h"
#include "core/tune.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHEET_ROWS = 6 };

struct dr_trainer {
    dr_train_opts o; /* resolved; its texts belong to the caller of open and are not used after it, but preset */
    char preset[32], terms[512];
    dr_objective obj;
    dr_backend *be;
    dr_nets nets;
    dr_step step;
    dr_image_pool pool_a, pool_b;
    dr_feed *feed;
    dr_state_info info;
    char describe[2048];
    /* the last pictures of the stream, for the sheet */
    float *rainy, *clean;
    int kept;
    double spread;
    bool broken; /* a step was broken off half-way */
};

/* A device that has no room for it: known before the first step, or found out in one. need: in all, what it holds
 * already included; 0 = not known. */
static dr_status no_room(const dr_trainer *t, uint64_t need, const dr_device_info *d, dr_error *err) {
    char wants[64] = "";
    if (need) snprintf(wants, sizeof wants, "it needs about %llu MB in all; ", (unsigned long long)(need >> 20));
    return dr_fail_limit(err, "training_too_large", "", (int64_t)d->memory_free, (int64_t)need,
                         "the GPU has no room for a step of this training (crop %d, ngf %d, one picture of a batch of "
                         "%d at a time): %s%llu of %llu MB are free. A smaller crop or ngf does, or bf16",
                         t->o.crop, t->o.ngf, t->o.batch, wants, (unsigned long long)(d->memory_free >> 20),
                         (unsigned long long)(d->memory_all >> 20));
}

/* As many pictures at a time as its memory takes by the plan. Which is an estimate from above in the workspace alone:
 * one picture is tried where only that speaks against it. */
static dr_status fit_device(dr_trainer *t, dr_error *err) {
    dr_device_info d;
    dr_device_need need;
    int at_once = dr_trainer_at_once(t);
    if (!dr_be_info(t->be, &d)) return DR_OK; /* the CPU */
    for (;; at_once = (at_once + 1) / 2) {
        dr_status s = dr_plan_device(&t->o, &t->obj, at_once, &need, err);
        if (s) return s;
        if (need.most <= d.memory_free || at_once == 1) break;
    }
    if (need.least > d.memory_free) return no_room(t, need.least, &d, err);
    if (at_once < t->o.batch) t->o.micro_batch = at_once;
    return DR_OK;
}

/* With the precision that the device trains in, where none was asked for; a checkpoint asks for its own. */
static dr_status open_backend(dr_trainer *t, dr_error *err) {
    const char *name = t->o.backend ? t->o.backend : "auto";
    const bool either = !strcmp(name, "auto") && !t->o.precision, gpu = either || strcmp(name, "cpu") != 0;
    dr_backend_opts bo = {.threads = t->o.threads,
                          .precision = dr_trains_in_bf16(&t->o, gpu) ? DR_PREC_BF16 : DR_PREC_F32,
                          .plan_cache = t->o.plan_cache,
                          .background = true};
    dr_status s = dr_backend_open(either ? "cuda" : name, &bo, &t->be, NULL, either ? NULL : err);
    if (s && either) {
        bo.precision = DR_PREC_F32;
        s = dr_backend_open("cpu", &bo, &t->be, NULL, err);
    }
    if (!s && !t->o.precision) t->o.precision = bo.precision == DR_PREC_BF16 ? "bf16" : "f32";
    return s;
}

static dr_status open_nets(dr_trainer *t, dr_error *err) {
    dr_nets_config c = {
        .g = {t->o.ngf, t->o.blocks, t->o.residual}, .d = {t->o.ndf, t->o.d_layers}, .ema = t->o.ema_decay > 0};
    dr_status s = open_backend(t, err);
    if (!s) s = fit_device(t, err);
    if (!s) s = dr_nets_init(&t->nets, &c, t->be, err);
    if (s) return s;
    dr_step_init(&t->step, &t->nets, &t->obj);
    t->step.micro = t->o.micro_batch;
    t->step.lr = t->o.lr;
    t->step.lr_f = t->o.lr_f;
    t->step.ema_decay = t->o.ema_decay;
    t->step.ema_age = t->o.ema_age;
    t->step.warmup = t->o.warmup;
    t->step.seed = t->o.seed;
    size_t image = 3 * (size_t)t->o.crop * (size_t)t->o.crop;
    s = dr_image_pool_init(&t->pool_a, t->o.pool, image, t->o.seed ^ 0xa, err);
    if (!s) s = dr_image_pool_init(&t->pool_b, t->o.pool, image, t->o.seed ^ 0xb, err);
    t->step.pool_a = &t->pool_a;
    t->step.pool_b = &t->pool_b;
    return s;
}

static dr_status open_weights(dr_trainer *t, const dr_st *resume, const dr_st *init, int *ret_nets, dr_error *err) {
    *ret_nets = 0;
    dr_status s;
    if (resume) {
        s = dr_state_load(resume, &t->nets, err);
        if (!s) s = dr_state_load_pools(resume, &t->pool_a, &t->pool_b, err);
        return s;
    }
    s = dr_nets_random(&t->nets, t->o.seed, t->obj.gain, err);
    return s || !init ? s : dr_state_init(init, &t->nets, ret_nets, err);
}

static void describe(dr_trainer *t, const dr_state_info *from, int nets_from_init) {
    int n = snprintf(
        t->describe, sizeof t->describe,
        "preset %s, ngf %d, %d blocks, %s output, ndf %d, crop %d, batch %d, %lld steps, seed %llu; %s; %s", t->preset,
        t->o.ngf, t->o.blocks, t->o.residual ? t->o.residual == 1 ? "one-channel residual" : "residual" : "tanh",
        t->o.ndf, t->o.crop, t->o.batch, (long long)t->o.steps, (unsigned long long)t->o.seed, t->info.device,
        dr_feed_describe(t->feed));
    if (n < 0 || (size_t)n >= sizeof t->describe) return;
    if (dr_trainer_at_once(t) < t->o.batch)
        n += snprintf(t->describe + n, sizeof t->describe - (size_t)n, "; %d of a batch at a time",
                      dr_trainer_at_once(t));
    if ((size_t)n >= sizeof t->describe) return;
    char *at = t->describe + n;
    size_t left = sizeof t->describe - (size_t)n;
    if (nets_from_init)
        snprintf(at, left, "; starts from %d net%s of a file", nets_from_init, nets_from_init > 1 ? "s" : "");
    else if (from->step && strcmp(from->fingerprint, t->info.fingerprint))
        snprintf(at, left, "; NOTE: the pictures are not those of the checkpoint, so the run goes on differently");
    else if (from->step && strcmp(from->device, t->info.device))
        snprintf(at, left, "; NOTE: the checkpoint comes from '%s': other bits than an unbroken run", from->device);
}

static dr_status trainer_open(dr_trainer *t, const dr_st *resume, const dr_st *init, dr_error *err) {
    dr_state_info from = {0};
    dr_status s = DR_OK;
    if (resume) s = dr_state_options(resume, &t->o, t->preset, &from, err);
    if (!s && init) dr_state_sizes(init, &t->o);
    if (!s) s = dr_preset_fill(&t->o, &t->obj, err);
    if (s) return s;
    if (t->o.preset != t->preset) snprintf(t->preset, sizeof t->preset, "%s", t->o.preset);
    t->o.preset = t->preset;
    /* Whoever trains on from somebody's weights is bound by their terms, so they travel along. */
    const char *terms = t->o.terms ? t->o.terms
                        : resume   ? dr_st_meta(resume, "derain.terms")
                        : init     ? dr_st_meta(init, "derain.terms")
                                   : NULL;
    snprintf(t->terms, sizeof t->terms, "%s", terms ? terms : "");
    t->o.terms = t->terms;
    int nets = 0;
    if ((s = open_nets(t, err))) return s;
    if ((s = open_weights(t, resume, init, &nets, err))) return s;
    t->info.step = from.step;
    t->info.skips = from.skips;
    if ((s = dr_feed_open(&t->o, from.step, &t->feed, err))) return s;
    snprintf(t->info.fingerprint, sizeof t->info.fingerprint, "%s", dr_feed_fingerprint(t->feed));
    snprintf(t->info.device, sizeof t->info.device, "%s", dr_be_describe(t->be));
    size_t image = 3 * (size_t)t->o.crop * (size_t)t->o.crop;
    t->rainy = dr_calloc(SHEET_ROWS * image, sizeof(float));
    t->clean = dr_calloc(SHEET_ROWS * image, sizeof(float));
    if (!t->rainy || !t->clean) return dr_fail(err, DR_NOMEM, "no memory for the sample sheet");
    describe(t, &from, nets);
    return DR_OK;
}

dr_status dr_trainer_open(const dr_train_opts *o, dr_trainer **ret, dr_error *err) {
    dr_st *resume = NULL, *init = NULL;
    dr_trainer *t = dr_calloc(1, sizeof *t);
    if (!t) return dr_fail(err, DR_NOMEM, "no memory for a trainer");
    t->o = *o;
    t->spread = -1;
    dr_status s = DR_OK;
    if (o->resume && (s = dr_st_open(o->resume, &resume, err))) dr_wrap(err, s, "checkpoint '%s'", o->resume);
    if (!s && o->init && !o->resume && (s = dr_st_open(o->init, &init, err))) dr_wrap(err, s, "weights '%s'", o->init);
    if (!s && (s = trainer_open(t, resume, init, err)) && (resume || init) && s == DR_CORRUPT)
        dr_wrap(err, s, "'%s'", resume ? o->resume : o->init);
    dr_st_close(resume);
    dr_st_close(init);
    if (s) {
        dr_trainer_close(t);
        return s;
    }
    *ret = t;
    return DR_OK;
}

void dr_trainer_close(dr_trainer *t) {
    if (!t) return;
    dr_feed_close(t->feed);
    if (t->step.nets) dr_step_done(&t->step);
    dr_image_pool_done(&t->pool_a);
    dr_image_pool_done(&t->pool_b);
    dr_nets_done(&t->nets);
    if (t->be) dr_backend_close(t->be);
    dr_free(t->rainy);
    dr_free(t->clean);
    dr_free(t);
}

/* Newest pictures first in, oldest out: the sheet shows what the net has just seen. */
static void keep_for_sheet(dr_trainer *t, const dr_batch *b) {
    size_t image = 3 * (size_t)b->crop * (size_t)b->crop;
    for (int i = 0; i < b->n; i++) {
        int at = (int)((b->k * b->n + i) % SHEET_ROWS);
        memcpy(t->rainy + (size_t)at * image, b->rainy + (size_t)i * image, image * sizeof(float));
        memcpy(t->clean + (size_t)at * image, b->clean + (size_t)i * image, image * sizeof(float));
        if (t->kept < SHEET_ROWS && at >= t->kept) t->kept = at + 1;
    }
}

/* Too much was left out: m is the last of these steps. */
static dr_status diverged(dr_trainer *t, const dr_train_metrics *m, dr_error *err) {
    const dr_skips *k = &t->info.skips;
    const int row = dr_skips_row(k);
    char how[64];
    if (row >= DR_SKIPS_ROW)
        snprintf(how, sizeof how, "%d steps in a row", row);
    else
        snprintf(how, sizeof how, "%d of the last 64 steps", dr_skips_lately(k));
    t->broken = true;
    return dr_fail_as(err, DR_CORRUPT, "diverged",
                      "%s were left out, %lld of %lld in all, since losses or gradients were not finite, the last by "
                      "%s: try a lower lr (and lr_f), f32 in place of bf16, or an earlier checkpoint",
                      how, (long long)k->all, (long long)t->info.step, m->not_finite);
}

/* Why a step failed, where the device had no room for one picture at a time. */
static dr_status explained(const dr_trainer *t, dr_status s, dr_error *err) {
    dr_device_info d;
    dr_device_need need = {0};
    if (s != DR_NOMEM || !dr_be_info(t->be, &d)) return s;
    if (dr_plan_device(&t->o, &t->obj, 1, &need, NULL)) need.least = 0;
    if (err) *err = (dr_error){0};
    return no_room(t, need.least, &d, err);
}

dr_status dr_trainer_step(dr_trainer *t, dr_train_metrics *ret, dr_error *err) {
    if (t->broken) return dr_fail(err, DR_CONFLICT, "a step was broken off: nothing goes on from here");
    if (dr_trainer_finished(t)) return dr_fail(err, DR_CONFLICT, "the training is finished");
    int64_t start = dr_clock_ns();
    dr_batch b;
    dr_train_metrics m = {.steps = t->o.steps};
    dr_status s = dr_feed_next(t->feed, &b, err);
    if (s) return s;
    m.lr_factor = dr_schedule(t->info.step, t->o.steps, t->obj.decay_part);
    s = dr_step_run(&t->step, t->info.step, m.lr_factor, b.n, b.crop, b.rainy, b.clean, &m, err);
    t->o.micro_batch = t->step.micro; /* it may have become smaller */
    if (s) {
        t->broken = true;
        return explained(t, s, err);
    }
    keep_for_sheet(t, &b);
    m.step = ++t->info.step;
    dr_skips_note(&t->info.skips, m.skipped);
    m.n_skipped = t->info.skips.all;
    m.seconds = (double)(dr_clock_ns() - start) * 1e-9;
    *ret = m;
    return m.skipped && dr_skips_too_many(&t->info.skips) ? diverged(t, &m, err) : DR_OK;
}

void dr_trainer_set_yield(dr_trainer *t, bool (*between)(void *arg), void *arg) {
    t->step.graph.between = between;
    t->step.graph.between_arg = arg;
}

bool dr_trainer_device(const dr_trainer *t, dr_device_state *ret) {
    return dr_be_state(t->be, ret);
}

void dr_trainer_drain(dr_trainer *t) {
    dr_status s = dr_be_sync(t->be, NULL);
    (void)s; /* what the device says to it, the next call hears too */
}

bool dr_trainer_finished(const dr_trainer *t) {
    return t->info.step >= t->o.steps;
}
int64_t dr_trainer_at(const dr_trainer *t) {
    return t->info.step;
}
int64_t dr_trainer_skipped(const dr_trainer *t) {
    return t->info.skips.all;
}
int dr_trainer_at_once(const dr_trainer *t) {
    return t->o.micro_batch > 0 && t->o.micro_batch < t->o.batch ? t->o.micro_batch : t->o.batch;
}
const char *dr_trainer_describe(const dr_trainer *t) {
    return t->describe;
}

/* Half a step is in the weights: no file may be made of them. */
static dr_status whole(const dr_trainer *t, dr_error *err) {
    return t->broken ? dr_fail(err, DR_CONFLICT, "a step was broken off: these weights are no state of a training")
                     : DR_OK;
}

dr_status dr_trainer_save(dr_trainer *t, const char *path, dr_error *err) {
    dr_status s = whole(t, err);
    if (s) return s;
    return dr_state_save(&t->nets, &t->pool_a, &t->pool_b, &t->o, &t->info, path, err);
}

dr_status dr_trainer_export(dr_trainer *t, const char *path, const char *dtype, dr_error *err) {
    dr_st_dtype d;
    if (!dr_st_dtype_parse(dtype, &d) || !dr_st_dtype_is_float(d))
        return dr_fail(err, DR_INVALID, "dtype '%s': it must be F32, F16 or BF16", dtype);
    dr_status s = whole(t, err);
    if (s) return s;
    return dr_state_export(&t->nets, &t->o, t->info.step, d, path, err);
}

dr_status dr_trainer_export_all(dr_trainer *t, const char *path, dr_error *err) {
    dr_status s = whole(t, err);
    if (s) return s;
    return dr_state_export_all(&t->nets, &t->o, t->info.step, path, err);
}

/* n pictures through the generator to serve. */
static dr_status through(dr_trainer *t, int n, const float *x, float *y, dr_error *err) {
    dr_graph g;
    dr_pool pool;
    dr_pool_init(&pool, t->be, (size_t)16 << 20);
    dr_graph_init(&g, t->be, &pool, DR_MODE_EVAL);
    g.between = t->step.graph.between;
    g.between_arg = t->step.graph.between_arg;
    dr_shape shape = {n, 3, t->o.crop, t->o.crop};
    dr_tensor in;
    dr_nets_use_ema(&t->nets, true);
    dr_status s = dr_pool_tensor(&pool, shape, &in, err);
    if (!s) s = dr_be_upload(t->be, x, in, err);
    if (!s) {
        dr_var out = dr_generator_forward(&g, &t->nets.g[0], dr_input(&g, in, false), NULL);
        s = dr_graph_run(&g, out, err);
        if (!s) s = dr_be_download(t->be, dr_var_tensor(&g, out), y, err);
    }
    dr_nets_use_ema(&t->nets, false);
    dr_graph_done(&g);
    dr_pool_done(&pool);
    return s;
}

static double deviation(const float *x, size_t n) {
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)x[i];
        squares += (double)x[i] * (double)x[i];
    }
    double mean = sum / (double)n, var = squares / (double)n - mean * mean;
    return var > 0 ? sqrt(var) : 0;
}

double dr_trainer_spread(const dr_trainer *t) {
    return t->spread;
}

dr_status dr_trainer_sheet(dr_trainer *t, const char *path, dr_error *err) {
    if (!t->kept) return dr_fail(err, DR_CONFLICT, "no step was made yet");
    size_t image = 3 * (size_t)t->o.crop * (size_t)t->o.crop;
    float *out = dr_malloc(2 * (size_t)t->kept * image * sizeof *out);
    if (!out) return dr_fail(err, DR_NOMEM, "no memory for the sample sheet");
    float *clean_out = out + (size_t)t->kept * image;
    dr_status s = through(t, t->kept, t->rainy, out, err);
    if (!s) t->spread = deviation(out, (size_t)t->kept * image) / (deviation(t->rainy, (size_t)t->kept * image) + 1e-9);
    if (!s) s = through(t, t->kept, t->clean, clean_out, err);
    if (!s) s = dr_sheet_training(t->kept, t->o.crop, t->o.crop, t->rainy, out, t->clean, clean_out, path, err);
    dr_free(out);
    return s;
}

/* ---- steps on made-up pictures ------------------------------------------------------------------------------------
 */

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* A trainer without data; *ret_x: a batch of each side, the caller frees. */
static dr_status open_made_up(const dr_train_opts *o, dr_trainer **ret, float **ret_x, dr_error *err) {
    dr_trainer *t = dr_calloc(1, sizeof *t);
    float *x = NULL;
    if (!t) return dr_fail(err, DR_NOMEM, "no memory for a trainer");
    t->o = *o;
    dr_status s = dr_preset_fill(&t->o, &t->obj, err);
    if (!s) s = open_nets(t, err);
    if (!s) s = dr_nets_random(&t->nets, t->o.seed, t->obj.gain, err);
    const size_t n = s ? 0 : 3 * (size_t)t->o.crop * (size_t)t->o.crop * (size_t)t->o.batch;
    if (!s && !(x = dr_malloc(2 * n * sizeof *x))) s = dr_fail(err, DR_NOMEM, "no memory for the pictures");
    if (s) {
        dr_trainer_close(t);
        return s;
    }
    dr_rng rng;
    dr_rng_seed(&rng, 7, 7);
    for (size_t i = 0; i < 2 * n; i++) x[i] = (float)dr_rng_range(&rng, -1, 1);
    *ret = t;
    *ret_x = x;
    return DR_OK;
}

/* Step number *at and those behind it: `warm`, then `runs` that are timed. ms: room for them; sorted. */
static dr_status timed_steps(dr_trainer *t, const float *x, int64_t *at, int warm, int runs, double *ms,
                             dr_error *err) {
    const size_t n = 3 * (size_t)t->o.crop * (size_t)t->o.crop * (size_t)t->o.batch;
    dr_status s = DR_OK;
    for (int i = -warm; i < runs && !s; i++) {
        dr_train_metrics m = {0};
        int64_t start = dr_clock_ns();
        s = dr_step_run(&t->step, (*at)++, 1.0, t->o.batch, t->o.crop, x, x + n, &m, err);
        if (i >= 0) ms[i] = (double)(dr_clock_ns() - start) * 1e-6;
    }
    if (!s) qsort(ms, (size_t)runs, sizeof *ms, by_value);
    return s;
}

dr_status dr_trainer_bench(const dr_train_opts *o, int runs, double *ret_median_ms, double *ret_min_ms, dr_error *err) {
    dr_trainer *t = NULL;
    float *x = NULL;
    int64_t at = 0;
    double *ms = dr_calloc((size_t)runs, sizeof *ms);
    dr_status s = ms ? open_made_up(o, &t, &x, err) : dr_fail(err, DR_NOMEM, "no memory for %d runs", runs);
    if (!s) s = timed_steps(t, x, &at, 2, runs, ms, err);
    if (!s) {
        *ret_median_ms = runs % 2 ? ms[runs / 2] : (ms[runs / 2 - 1] + ms[runs / 2]) / 2;
        *ret_min_ms = ms[0];
    }
    dr_free(x);
    dr_free(ms);
    dr_trainer_close(t);
    return s;
}

dr_status dr_tune_training(const dr_train_opts *o, dr_tuned *ret, dr_error *err) {
    enum { STEPS = 3 };
    dr_trainer *t = NULL;
    float *x = NULL;
    int64_t at = 0;
    double before[STEPS], after[STEPS], unused[1];
    dr_tuned r = {0};
    dr_status s = open_made_up(o, &t, &x, err);
    if (s) return s;
    if (!dr_be_tunes(t->be))
        s = dr_fail_as(err, DR_UNSUPPORTED, "nothing_to_tune", "nothing to tune on the backend '%s'", t->be->ops->name);
    if (!s) s = timed_steps(t, x, &at, 2, STEPS, before, err);
    if (!s) s = dr_be_tune(t->be, true, NULL, err);
    if (!s) {
        s = timed_steps(t, x, &at, 0, 1, unused, err);
        dr_status end = dr_be_tune(t->be, false, &r.plans, s ? NULL : err); /* what was found stays */
        if (!s) s = end;
    }
    if (!s) s = timed_steps(t, x, &at, 1, STEPS, after, err);
    if (!s) {
        r.before_ms = before[STEPS / 2];
        r.after_ms = after[STEPS / 2];
        *ret = r;
    }
    dr_free(x);
    dr_trainer_close(t);
    return s;
}
