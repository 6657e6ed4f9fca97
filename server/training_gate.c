/* training_gate.c - see training_gate.h. */
#include "server/training_gate.h"
#include "core/base/alloc.h"
#include "core/base/log.h"
#include "server/made_pairs.h"
#include "server/model_files.h"
#include "server/picture_paths.h"
#include "server/training_files.h"
#include <stdio.h>
#include <string.h>

void srv_training_gate_limits(const json_t *gate, bool policy, srv_verdict_limits *ret, bool *ret_make_default) {
    *ret = srv_verdict_defaults;
    const struct {
        const char *name;
        double *to;
    } reals[] = {{"rain_drop_min", &ret->rain_fall_min},   {"detail_min", &ret->detail_min},
                 {"clean_psnr_min", &ret->clean_psnr_min}, {"psnr_drop_max", &ret->psnr_loss_max},
                 {"ssim_drop_max", &ret->ssim_loss_max},   {"color_shift_max", &ret->shift_max}};
    for (size_t i = 0; i < sizeof reals / sizeof reals[0]; i++) {
        const json_t *v = json_object_get(gate, reals[i].name);
        if (json_is_number(v)) *reals[i].to = json_number_value(v);
    }
    const json_t *wish = json_object_get(gate, "make_default");
    *ret_make_default = json_is_boolean(wish) ? json_is_true(wish) : policy;
}

/* --- verdict --- */

static srv_picture_list as_pictures(const srv_paths *l) {
    return (srv_picture_list){(const char *const *)l->path, l->n};
}

static dr_status judge(srv_app *app, const db_job *job, int64_t version, const srv_training_params *p,
                       const srv_verdict_limits *limits, bool (*yield)(void *, dr_engine *), void *arg,
                       srv_verdict *ret, dr_error *err) {
    char dir[SRV_PATH], weights[SRV_PATH], parent[SRV_PATH] = "";
    srv_paths l[6] = {{0}};
    srv_training_path(app, job->id, "", dir);
    dr_status s = srv_paths_read(dir, SRV_HELD_RAINY, &l[0], err);
    if (!s) s = srv_paths_read(dir, SRV_HELD_CLEAN, &l[1], err);
    if (!s) s = srv_paths_folder(dir, "pairs/rainy", &l[2], err);
    if (!s) s = srv_paths_folder(dir, "pairs/clean", &l[3], err);
    if (!s && !l[2].n) s = srv_paths_folder(dir, SRV_MADE_RAINY, &l[4], err);
    if (!s && !l[2].n) s = srv_paths_folder(dir, SRV_MADE_CLEAN, &l[5], err);
    if (!s) s = srv_registry_weights(app->registry, job->model.name, version, weights, sizeof weights, err);
    if (!s && job->model.version)
        s = srv_registry_weights(app->registry, job->model.name, job->model.version, parent, sizeof parent, err);
    const srv_verdict_in in = {.weights = weights,
                               .parent = *parent ? parent : NULL,
                               .rainy = as_pictures(&l[0]),
                               .clean = as_pictures(&l[1]),
                               .pair_rainy = as_pictures(&l[2]),
                               .pair_clean = as_pictures(&l[3]),
                               .made_rainy = as_pictures(&l[4]),
                               .made_clean = as_pictures(&l[5]),
                               .limits = limits,
                               .backend = app->cfg->backend,
                               .precision = app->cfg->precision,
                               .plan_cache = app->cfg->plan_cache,
                               .threads = (int)p->threads,
                               .before = srv_gate_begin_arg,
                               .after = srv_gate_end_arg,
                               .around = app->gate,
                               .yield = yield,
                               .arg = arg};
    if (!s) s = srv_verdict_run(&in, ret, err);
    for (int i = 0; i < 6; i++) srv_paths_done(&l[i]);
    return s;
}

/* The default moves only from the parent: who has chosen another version meanwhile is not overruled. */
static bool promote(srv_app *app, const db_job *job, int64_t version) {
    srv_model_id now;
    dr_error err = {0};
    srv_registry_served(app->registry, &now);
    if (strcmp(now.name, job->model.name) || now.version != job->model.version) return false;
    dr_status s = srv_registry_set_default(app->registry, job->model.name, version, 0, false, NULL, NULL, &err);
    if (s)
        dr_log(DR_LOG_ERROR, job->request_id, "job %s: %s version %lld cannot become the default: %s", job->id,
               job->model.name, (long long)version, err.text);
    return !s;
}

/* The gate's object with what became of it. */
static json_t *event_of(const char *gate_json, int64_t version, bool is_default) {
    json_t *o = gate_json ? json_loads(gate_json, 0, NULL) : NULL;
    if (!json_is_object(o)) {
        json_decref(o);
        o = json_pack("{s:n, s:[s]}", "verdict", "reasons", "no pictures were held out of the training");
    }
    if (o) json_object_set_new(o, "version", json_integer(version));
    if (o) json_object_set_new(o, "default", json_boolean(is_default));
    return o;
}

dr_status srv_training_gate(struct srv_app *app, const struct db_job *job, const srv_training_params *p,
                            int64_t version, bool (*yield)(void *arg, dr_engine *e), void *arg, json_t **ret_event,
                            dr_error *err) {
    srv_verdict_limits limits;
    srv_verdict v = {0};
    db_model m = {0};
    bool wished, made = false;
    srv_training_gate_limits(p->gate, !strcmp(app->cfg->gate_promote, "auto"), &limits, &wished);
    dr_status s = db_model_get(app->db, job->model.name, version, &m, err);
    if (s) return s;
    bool accepted = m.verdict == DB_ACCEPTED;
    char *text = m.gate_json ? dr_strdup(m.gate_json) : NULL;
    bool judged = m.verdict != DB_NOT_JUDGED, serves = m.is_default;
    db_model_clear(&m);
    if (!judged) {
        s = judge(app, job, version, p, &limits, yield, arg, &v, err);
        if (s == DR_INVALID && err && !strcmp(err->what, "nothing_held_out")) {
            *err = (dr_error){0};
            *ret_event = event_of(NULL, version, serves);
            return *ret_event ? DR_OK : dr_fail(err, DR_NOMEM, "out of memory");
        }
        if (!s)
            s = db_model_judge(app->db, job->model.name, version, v.accepted ? DB_ACCEPTED : DB_REJECTED, v.json, NULL,
                               err);
        if (s) {
            srv_verdict_done(&v);
            return s;
        }
        accepted = v.accepted;
        text = v.json;
        v.json = NULL;
        srv_verdict_done(&v);
    }
    if (accepted && wished && !serves) made = promote(app, job, version);
    *ret_event = event_of(text, version, serves || made);
    dr_free(text);
    return *ret_event ? DR_OK : dr_fail(err, DR_NOMEM, "out of memory");
}
