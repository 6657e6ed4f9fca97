/* verdict.c - see verdict.h. First the numbers of both versions, picture by picture; then the checks over the means. */
#include "server/verdict.h"
#include "core/base/alloc.h"
#include "core/base/fs.h"
#include "server/devices.h"
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const srv_verdict_limits srv_verdict_defaults = {.psnr_loss_max = 0.1,
                                                 .ssim_loss_max = 0.002,
                                                 .transplant_loss_max = 0.3,
                                                 .rain_fall_min = 1.0,
                                                 .rain_loss_max = 1.0,
                                                 .detail_min = 0.5,
                                                 .clean_psnr_min = 30.0,
                                                 .shift_max = 4.0};

enum { PICTURES_MAX = 24 };

void srv_verdict_done(srv_verdict *v) {
    if (!v) return;
    dr_free(v->json);
    dr_free(v->reason);
    *v = (srv_verdict){0};
}

/* --- measuring --- */

typedef struct means { /* over one kind of pictures through one version */
    size_t n;
    bool finite;
    double rain_in, rain_out, detail_in, detail_out, change, shift[3];
    double psnr_in, psnr_out, ssim_in, ssim_out;
} means;

enum { RAINY, CLEAN, PAIRS, MADE, N_KINDS };

typedef struct numbers {
    means kind[N_KINDS];
} numbers;

static dr_status check_one(const srv_verdict_in *in, dr_model *m, const char *path, const char *truth, dr_check *ret,
                           dr_error *err) {
    char *data = NULL, *clean = NULL;
    size_t len = 0, clean_len = 0;
    dr_limits lim = in->image_limits ? *in->image_limits : (dr_limits){0};
    dr_limits_fill(&lim);
    const dr_check_opts o = {
        .limits = &lim, .side_max = in->side_max ? in->side_max : SRV_VERDICT_SIDE, .cancel = in->cancel};
    dr_status s = dr_fs_read(path, (size_t)lim.body_max_bytes, &data, &len, err);
    if (!s && truth) s = dr_fs_read(truth, (size_t)lim.body_max_bytes, &clean, &clean_len, err);
    if (!s) s = dr_model_check(m, data, len, clean, clean_len, &o, ret, err);
    dr_free(data);
    dr_free(clean);
    return s;
}

static void add(means *a, const dr_check *c, double f) {
    a->finite = a->finite && c->finite;
    a->rain_in += f * c->rain_in;
    a->rain_out += f * c->rain_out;
    a->detail_in += f * c->detail_in;
    a->detail_out += f * c->detail_out;
    a->change += f * c->change.psnr_rgb;
    for (int i = 0; i < 3; i++) a->shift[i] += f * c->shift[i];
    a->psnr_in += f * c->input.psnr_y;
    a->psnr_out += f * c->output.psnr_y;
    a->ssim_in += f * c->input.ssim_y;
    a->ssim_out += f * c->output.ssim_y;
}

static dr_status measure_kind(const srv_verdict_in *in, dr_model *m, const srv_picture_list *list,
                              const srv_picture_list *truth, means *ret, dr_error *err) {
    size_t max = in->pictures_max ? (size_t)in->pictures_max : PICTURES_MAX;
    means a = {.n = list->n < max ? list->n : max, .finite = true};
    dr_status s = DR_OK;
    for (size_t i = 0; i < a.n && !s; i++) {
        size_t k = i * list->n / a.n; /* evenly spread, always the same */
        dr_check c = {0};
        if (in->cancel && atomic_load(in->cancel)) return dr_fail(err, DR_CANCELLED, "cancelled");
        if (in->before) in->before(in->around);
        s = check_one(in, m, list->path[k], truth ? truth->path[k] : NULL, &c, err);
        if (in->after) in->after(in->around);
        if (!s) add(&a, &c, 1.0 / (double)a.n);
    }
    if (!s) *ret = a;
    return s;
}

/* Who computes, for the yield. */
typedef struct computing {
    const srv_verdict_in *in;
    dr_engine *engine;
} computing;

static bool between_layers(void *arg) {
    const computing *c = arg;
    return c->in->yield(c->in->arg, c->engine);
}

static dr_status measure(const srv_verdict_in *in, dr_engine *e, const char *weights, bool with_clean, numbers *ret,
                         dr_error *err) {
    dr_model *m;
    /* a paired hold-out alone stands for both of its sides */
    const srv_picture_list *rainy = in->rainy.n ? &in->rainy : &in->pair_rainy,
                           *clean = in->clean.n ? &in->clean : &in->pair_clean;
    dr_status s = dr_model_open(e, weights, &m, err);
    if (s) return s;
    computing c = {in, e};
    if (in->yield) dr_model_set_yield(m, between_layers, &c);
    s = measure_kind(in, m, rainy, NULL, &ret->kind[RAINY], err);
    if (!s && with_clean) s = measure_kind(in, m, clean, NULL, &ret->kind[CLEAN], err);
    if (!s) s = measure_kind(in, m, &in->pair_rainy, &in->pair_clean, &ret->kind[PAIRS], err);
    if (!s) s = measure_kind(in, m, &in->made_rainy, &in->made_clean, &ret->kind[MADE], err);
    dr_model_close(m);
    return s;
}

/* --- deciding --- */

typedef struct decision {
    json_t *checks, *reasons;
    bool accepted, ok; /* ok: memory was there */
    char *first;
} decision;

static void skip(decision *d, const char *name, const char *why) {
    d->ok =
        !json_array_append_new(d->checks, json_pack("{s:s, s:n, s:s}", "name", name, "ok", "skipped", why)) && d->ok;
}

/* Takes `more`, the measured values. reason: what is wrong when it does not hold. */
static void decide(decision *d, const char *name, bool holds, json_t *more, const char *fmt, ...) DR_PRINTF(5, 6);
static void decide(decision *d, const char *name, bool holds, json_t *more, const char *fmt, ...) {
    char text[240];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    json_t *o = json_pack("{s:s, s:b}", "name", name, "ok", (int)holds);
    d->ok = o && more && !json_object_update(o, more) && d->ok;
    json_decref(more);
    d->ok = !json_array_append_new(d->checks, o) && d->ok;
    if (holds) return;
    d->ok = !json_array_append_new(d->reasons, json_string(text)) && d->ok;
    d->accepted = false;
    if (!d->first) d->first = dr_strdup(text);
}

static void decide_finite(decision *d, const numbers *v) {
    bool holds = true;
    for (int k = 0; k < N_KINDS; k++) holds = holds && (!v->kind[k].n || v->kind[k].finite);
    decide(d, "finite", holds, json_object(), "the network answers with values that are no numbers");
}

static void decide_pairs(decision *d, const means *now, const means *parent, const srv_verdict_limits *l) {
    if (!now->n) {
        skip(d, "pairs", "no paired hold-out");
        return;
    }
    double psnr = parent ? parent->psnr_out : now->psnr_in, ssim = parent ? parent->ssim_out : now->ssim_in;
    bool holds = now->psnr_out >= psnr - l->psnr_loss_max && now->ssim_out >= ssim - l->ssim_loss_max;
    decide(d, "pairs", holds,
           json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:s, s:f, s:f}", "psnr_y", now->psnr_out, "ssim_y", now->ssim_out,
                     "psnr_y_before", psnr, "ssim_y_before", ssim, "psnr_y_input", now->psnr_in, "ssim_y_input",
                     now->ssim_in, "before", parent ? "parent" : "input", "psnr_loss_max", l->psnr_loss_max,
                     "ssim_loss_max", l->ssim_loss_max),
           "on pairs PSNR is %.2f dB and SSIM %.4f, against %.2f dB and %.4f of %s", now->psnr_out, now->ssim_out, psnr,
           ssim, parent ? "its parent" : "the rainy pictures themselves");
}

static void decide_transplant(decision *d, const means *now, const means *parent, const srv_verdict_limits *l) {
    if (!now->n || !parent) {
        skip(d, "transplant", parent ? "no pairs were made" : "no parent");
        return;
    }
    decide(
        d, "transplant", now->psnr_out >= parent->psnr_out - l->transplant_loss_max,
        json_pack("{s:f, s:f, s:f, s:f}", "psnr_y", now->psnr_out, "psnr_y_before", parent->psnr_out, "psnr_y_input",
                  now->psnr_in, "loss_max", l->transplant_loss_max),
        "clean pictures with the rain of held-out ones laid over come back at %.2f dB, through its parent at %.2f dB",
        now->psnr_out, parent->psnr_out);
}

static void decide_rain(decision *d, const means *now, const means *parent, bool pairs, const srv_verdict_limits *l) {
    if (!now->n) {
        skip(d, "rain", "no rainy pictures held out");
        return;
    }
    double fall = now->rain_in - now->rain_out, before = parent ? parent->rain_in - parent->rain_out : 0;
    bool falls = fall >= l->rain_fall_min, keeps = pairs || !parent || fall >= before - l->rain_loss_max;
    json_t *o = json_pack("{s:f, s:f, s:f, s:o, s:f, s:f}", "rain_input", now->rain_in, "rain_output", now->rain_out,
                          "fall", fall, "fall_parent", parent ? json_real(before) : json_null(), "fall_min",
                          l->rain_fall_min, "loss_max", l->rain_loss_max);
    if (falls)
        decide(d, "rain", keeps, o, "the rain score falls by %.2f points, its parent's by %.2f", fall, before);
    else
        decide(d, "rain", false, o, "the rain score falls by %.2f points, less than the %.2f that are asked for", fall,
               l->rain_fall_min);
}

/* Means, not the mean of shares: a picture without structure has no share worth counting. */
static void decide_detail(decision *d, const means *now, bool pairs, const srv_verdict_limits *l) {
    if (!now->n || pairs) {
        skip(d, "detail", pairs ? "pairs say more" : "no rainy pictures held out");
        return;
    }
    double kept = now->detail_in > 0 ? now->detail_out / now->detail_in : 1;
    decide(
        d, "detail", kept >= l->detail_min,
        json_pack("{s:f, s:f, s:f, s:f}", "kept", kept, "kept_min", l->detail_min, "detail_input", now->detail_in,
                  "detail_output", now->detail_out),
        "of the fine structure of rainy pictures %.0f %% is left, less than the %.0f %% that are asked for: it blurs",
        100 * kept, 100 * l->detail_min);
}

static void decide_clean(decision *d, const means *now, const srv_verdict_limits *l) {
    if (!now->n) {
        skip(d, "clean", "no clean pictures held out");
        return;
    }
    decide(d, "clean", now->change >= l->clean_psnr_min,
           json_pack("{s:f, s:f}", "psnr", now->change, "psnr_min", l->clean_psnr_min),
           "clean pictures come back at %.2f dB, less than the %.2f dB that are asked for", now->change,
           l->clean_psnr_min);
}

/* How far the channels move apart, and how far they move. */
static double cast(const means *k, double *ret_move) {
    double mean = (k->shift[0] + k->shift[1] + k->shift[2]) / 3, apart = 0;
    *ret_move = 0;
    for (int i = 0; i < 3; i++) {
        apart = fmax(apart, fabs(k->shift[i] - mean));
        *ret_move = fmax(*ret_move, fabs(k->shift[i]));
    }
    return apart;
}

static void decide_colour(decision *d, const numbers *v, const srv_verdict_limits *l) {
    double apart = 0, move = 0, ignored;
    for (int k = 0; k < N_KINDS; k++) apart = fmax(apart, cast(&v->kind[k], &ignored));
    (void)cast(&v->kind[CLEAN], &move);
    decide(d, "colour", apart <= l->shift_max && move <= l->shift_max,
           json_pack("{s:f, s:f, s:f}", "cast", apart, "shift_clean", move, "shift_max", l->shift_max),
           "colours shift: channels move apart by %.1f grey levels, clean pictures by %.1f", apart, move);
}

static dr_status conclude(const srv_verdict_in *in, const numbers *now, const numbers *parent, srv_verdict *ret,
                          dr_error *err) {
    const srv_verdict_limits *l = in->limits ? in->limits : &srv_verdict_defaults;
    decision d = {.checks = json_array(), .reasons = json_array(), .accepted = true, .ok = true};
    decide_finite(&d, now);
    decide_pairs(&d, &now->kind[PAIRS], parent ? &parent->kind[PAIRS] : NULL, l);
    decide_transplant(&d, &now->kind[MADE], parent ? &parent->kind[MADE] : NULL, l);
    decide_rain(&d, &now->kind[RAINY], parent ? &parent->kind[RAINY] : NULL, now->kind[PAIRS].n > 0, l);
    decide_detail(&d, &now->kind[RAINY], now->kind[PAIRS].n > 0, l);
    decide_clean(&d, &now->kind[CLEAN], l);
    decide_colour(&d, now, l);
    json_t *o = json_pack("{s:s, s:O, s:O, s:{s:I, s:I, s:I}}", "verdict", d.accepted ? "accepted" : "rejected",
                          "reasons", d.reasons, "checks", d.checks, "pictures", "rainy", (json_int_t)now->kind[RAINY].n,
                          "clean", (json_int_t)now->kind[CLEAN].n, "pairs", (json_int_t)now->kind[PAIRS].n);
    char *text = o && d.ok ? json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(8)) : NULL;
    srv_verdict v = {.accepted = d.accepted, .json = text ? dr_strdup(text) : NULL, .reason = d.first};
    free(text);
    json_decref(o);
    json_decref(d.checks);
    json_decref(d.reasons);
    if (!v.json || (!v.accepted && !v.reason)) {
        srv_verdict_done(&v);
        return dr_fail(err, DR_NOMEM, "no memory for the verdict");
    }
    *ret = v;
    return DR_OK;
}

dr_status srv_verdict_run(const srv_verdict_in *in, srv_verdict *ret, dr_error *err) {
    const dr_engine_opts opts = {.backend = in->backend,
                                 .threads = in->threads,
                                 .precision = in->precision,
                                 .plan_cache = in->plan_cache,
                                 .background = true};
    dr_engine *e;
    numbers now = {0}, parent = {0};
    if (in->pair_rainy.n != in->pair_clean.n)
        return dr_fail(err, DR_INVALID, "%zu rainy and %zu clean pictures are no pairs", in->pair_rainy.n,
                       in->pair_clean.n);
    if (in->made_rainy.n != in->made_clean.n)
        return dr_fail(err, DR_INVALID, "%zu rainy and %zu clean pictures are no pairs", in->made_rainy.n,
                       in->made_clean.n);
    if (!in->rainy.n && !in->clean.n && !in->pair_rainy.n)
        return dr_fail_as(err, DR_INVALID, "nothing_held_out", "no pictures were held out of the training");
    dr_status s = dr_engine_open(&opts, &e, err);
    if (s) return s;
    srv_devices_add_engine(e);
    s = measure(in, e, in->weights, true, &now, err);
    if (!s && in->parent) s = measure(in, e, in->parent, false, &parent, err);
    srv_devices_remove(e);
    dr_engine_close(e);
    return s ? s : conclude(in, &now, in->parent ? &parent : NULL, ret, err);
}
