/* derain.c - the engine behind derain.h: a backend, and resident generators. Decoded pictures through them are run.c's,
 * several at once batch.c's, encoded ones picture.c's. */
#include "core/base/alloc.h"
#include "core/model/engine.h"
#include "core/model/fallback.h"
#include "core/model/range.h"
#include "core/model/spec.h"
#include "core/model/weights.h"
#include <stdio.h>
#include <string.h>

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
bool dr_engine_device(const dr_engine *e, dr_device_state *ret) {
    return dr_be_state(e->be, ret);
}
void dr_engine_drain(dr_engine *e) {
    dr_status s = dr_be_sync(e->be, NULL);
    (void)s; /* what the device says to it, the next call hears too */
}
const char *dr_engine_note(const dr_engine *e) {
    return e->note;
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
