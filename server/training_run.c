/* training_run.c - see training_run.h.
 *
 * prepare   lists of pictures, the newest checkpoint that opens (else the parent's weights), rows behind it forgotten
 * steps     each between two calls of the gate; metrics, sheets, evaluations and checkpoints when they are due
 * end       final checkpoint, `evaluating`: last evaluation, weights for the registry; then the gate's word
 *
 * What can be done without (a sheet, a row, a checkpoint on a full disk) is told in a `log` event and the training goes
 * on; only a save that the end needs pauses it. Evaluations come right after the checkpoint of their step, so that a
 * score always belongs to weights that are there. */
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/log.h"
#include "server/devices.h"
#include "server/made_pairs.h"
#include "server/model_files.h"
#include "server/problem.h"
#include "server/training_files.h"
#include "server/training_memory.h"
#include "server/training_run_in.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- giving way --- */

static bool is_told(const atomic_bool *sig) {
    return atomic_load_explicit(sig, memory_order_relaxed);
}
static void drain_trainer(void *arg) {
    dr_trainer_drain(arg);
}
static void drain_engine(void *arg) {
    dr_engine_drain(arg);
}

static bool between_ops(void *arg) {
    srv_run *r = arg;
    if (is_told(&r->sig->cancel)) return false;
    srv_gate_pass(r->app->gate, drain_trainer, r->t);
    return true;
}

/* An evaluation may also be put off: the next life makes it up. */
bool srv_run_between_layers(void *arg, dr_engine *e) {
    srv_run *r = arg;
    if (is_told(&r->sig->put_back) || is_told(&r->sig->cancel)) return false;
    srv_gate_pass(r->app->gate, drain_engine, e);
    return true;
}

static bool between_layers(void *arg) {
    return srv_run_between_layers(arg, ((srv_run *)arg)->engine);
}

static bool ends(const srv_run *r) {
    return r->lost || atomic_load(&r->sig->cancel) || atomic_load(&r->sig->pause) || atomic_load(&r->sig->put_back);
}

/* --- prepare --- */

/* Room in mem_budget: taken first, so that no further large picture is let in and no run takes more than what is left,
 * then those that were let in and those that took more are waited for. */
static dr_status take_memory(srv_run *r, dr_train_opts *o, dr_error *err) {
    uint64_t need = 0;
    dr_limits lim;
    int64_t largest = 0;
    bool told = false;
    if (r->reserved) return DR_OK;
    dr_status s = srv_training_size(r->app, r->p.dataset, o, &need, err);
    if (s) return s;
    atomic_store(&r->app->memory.training, need);
    r->reserved = true;
    srv_memory_limits(r->app, &lim);
    for (;;) {
        uint64_t rings = srv_queue_rings(r->app->queue);
        if (ends(r)) return dr_fail(err, DR_CANCELLED, "told to end");
        if (db_jobs_largest(r->app->db, &largest, NULL)) return DR_OK;
        if ((uint64_t)largest <= lim.pixels_max && srv_memory_largest_run(r->app) <= srv_memory_for_run(r->app))
            return DR_OK;
        if (!told)
            srv_run_tell(r, "info", "waits_for_pictures",
                         "it begins when the large pictures that were let in are done");
        told = true;
        srv_queue_wait(r->app->queue, rings, 500);
    }
}

static dr_status read_params(srv_run *r, dr_error *err) {
    srv_problem p;
    json_t *o = json_loads(r->job->params_json, 0, NULL);
    bool ok = json_is_object(o) && srv_training_params_read(o, &r->p, &p);
    json_decref(o);
    return ok ? DR_OK : dr_fail(err, DR_INTERNAL, "the job's parameters cannot be read");
}

static dr_status open_trainer(srv_run *r, dr_error *err) {
    char rainy[SRV_PATH], clean[SRV_PATH], resume[SRV_PATH], init[SRV_PATH];
    const char *rainy_list[1] = {rainy}, *clean_list[1] = {clean};
    db_checkpoint rows[64];
    size_t n = 0;
    bool lone = false;
    dr_train_opts o;
    srv_training_path(r->app, r->job->id, "rainy.txt", rainy);
    srv_training_path(r->app, r->job->id, "clean.txt", clean);
    dr_train_opts_init(&o);
    o.rainy = rainy_list, o.n_rainy = 1;
    o.clean = clean_list, o.n_clean = 1;
    o.backend = r->app->cfg->backend;
    o.plan_cache = r->app->cfg->plan_cache;
    o.threads = (int)r->p.threads;
    dr_status s = db_training_checkpoints(r->app->db, r->job->id, rows, 64, &n, err);
    for (size_t i = 0; i < n && !s; i++) {
        dr_error why = {0};
        srv_training_checkpoint_path(r->app, r->job->id, rows[i].step, resume);
        o.resume = resume;
        s = take_memory(r, &o, &why);
        if (!s) s = dr_trainer_open(&o, &r->t, &why);
        if (!s) {
            r->seconds = rows[i].seconds;
            r->saved = rows[i].step;
            r->evaluated = rows[i].has_score ? rows[i].step : -1;
            r->owes_evaluation = r->n_pairs && rows[i].step % r->p.eval_every == 0 && !rows[i].has_score;
            return DR_OK;
        }
        if (s != DR_CORRUPT && s != DR_NOT_FOUND) { /* not the file's fault */
            *err = why;
            return s;
        }
        dr_log(DR_LOG_WARN, r->job->request_id, "job %s: checkpoint of step %lld: %s", r->job->id,
               (long long)rows[i].step, why.text);
        s = DR_OK;
    }
    o.resume = NULL;
    if (!s) s = srv_training_parent(r->app, r->p.parent, r->job, init, &lone, err);
    if (s) return s;
    if (*init) o.init = init;
    srv_training_params_apply(&r->p, &o);
    if (r->p.warmup < 0) o.warmup = *init && lone ? (double)srv_training_warmup(&r->p) : 0;
    s = take_memory(r, &o, err);
    return s ? s : dr_trainer_open(&o, &r->t, err);
}

/* Without pairs in the data set: pairs made of what is held out, by the parent. A training can do without. */
static dr_status make_pairs(srv_run *r, dr_error *err) {
    char dir[SRV_PATH], weights[SRV_PATH];
    dr_error why = {0};
    if (!strcmp(r->p.parent, "none") || !r->job->model.version) return DR_OK;
    dr_status s = srv_registry_weights(r->app->registry, r->job->model.name, r->job->model.version, weights,
                                       sizeof weights, &why);
    if (s == DR_CONFLICT) return DR_OK; /* what is missing is told by whoever cannot do without */
    if (s) {
        *err = why;
        return s;
    }
    srv_training_path(r->app, r->job->id, "", dir);
    const srv_made_in in = {.dir = dir,
                            .weights = weights,
                            .pairs_max = r->p.eval_pictures,
                            .backend = r->app->cfg->backend,
                            .precision = r->app->cfg->precision,
                            .plan_cache = r->app->cfg->plan_cache,
                            .threads = (int)r->p.threads,
                            .limits = &r->app->limits,
                            .before = srv_gate_begin_arg,
                            .after = srv_gate_end_arg,
                            .around = r->app->gate,
                            .yield = srv_run_between_layers,
                            .arg = r};
    s = srv_made_pairs(&in, &r->n_pairs, &why);
    r->made = !s && r->n_pairs > 0;
    if (s == DR_CANCELLED) {
        *err = why;
        return s;
    }
    if (s) srv_run_tell_failure(r, "no pairs could be made to measure with", s, &why);
    return DR_OK;
}

static dr_status prepare(srv_run *r, dr_error *err) {
    srv_app *app = r->app;
    db_training row;
    dr_status s = read_params(r, err);
    if (!s) s = srv_training_prepare(app, r->job->id, r->p.dataset, r->p.eval_pictures, &r->n_pairs, err);
    if (!s && !r->n_pairs) s = make_pairs(r, err);
    if (!s) s = open_trainer(r, err);
    if (!s)
        s = db_training_rewind(app->db, r->job->id, r->job->epoch, dr_trainer_at(r->t), dr_trainer_skipped(r->t),
                               r->seconds, err);
    if (!s) s = db_training_get(app->db, r->job->id, &row, err);
    if (s) return s;
    srv_devices_add_trainer(r->t);
    srv_training_tidy(app, r->job->id);
    r->best_step = row.best_step;
    r->best = row.best_score;
    r->pace = row.seconds_per_step;
    r->saved_ns = dr_clock_ns();
    dr_trainer_set_yield(r->t, between_ops, r);
    srv_run_tell(r, "info", dr_trainer_at(r->t) ? "resumed" : "started", dr_trainer_describe(r->t));
    if (r->made && !dr_trainer_at(r->t)) {
        char text[200];
        snprintf(text, sizeof text,
                 "it is measured on %zu pairs made of held-out pictures: rain that the parent takes off, laid over "
                 "clean ones",
                 r->n_pairs);
        srv_run_tell(r, "info", "pairs_made", text);
    }
    return DR_OK;
}

/* --- sheets --- */

static void sheet(srv_run *r) {
    char path[SRV_PATH], text[400];
    const char *code = NULL;
    dr_error err = {0};
    int64_t at = dr_trainer_at(r->t);
    srv_training_sample_path(r->app, r->job->id, at, path);
    srv_gate_begin(r->app->gate);
    dr_status s = dr_trainer_sheet(r->t, path, &err);
    srv_gate_end(r->app->gate);
    if (s == DR_CANCELLED) return;
    if (s) {
        srv_run_tell_failure(r, "sample sheet", s, &err);
        return;
    }
    srv_run_event(r, "sample",
                  json_pack("{s:I, s:o}", "step", (json_int_t)at, "url",
                            json_sprintf("/v1/jobs/%s/samples/%lld.png", r->job->id, (long long)at)));
    if (srv_training_watch_spread(&r->watch, dr_trainer_spread(r->t), at, &code, text))
        srv_run_tell(r, "warn", code, text);
}

/* --- checkpoints and evaluations --- */

/* The last ones and the best stay; a row goes before its file. */
static void drop_old(srv_run *r) {
    db_checkpoint rows[64];
    size_t n = 0;
    dr_error err = {0};
    char path[SRV_PATH];
    if (db_training_checkpoints(r->app->db, r->job->id, rows, 64, &n, &err)) return;
    for (size_t i = SRV_CHECKPOINTS; i < n; i++) {
        if (rows[i].step == r->best_step) continue;
        if (db_training_checkpoint_drop(r->app->db, r->job->id, r->job->epoch, rows[i].step, &err)) return;
        srv_training_checkpoint_path(r->app, r->job->id, rows[i].step, path);
        (void)unlink(path);
    }
}

static dr_status save(srv_run *r, dr_error *err) {
    char path[SRV_PATH];
    struct stat st;
    int64_t at = dr_trainer_at(r->t);
    if (r->saved == at) return DR_OK;
    srv_training_checkpoint_path(r->app, r->job->id, at, path);
    r->saved_ns = dr_clock_ns(); /* of the try: a full disk is not asked again at once */
    dr_status s = dr_trainer_save(r->t, path, err);
    if (!s && stat(path, &st)) s = dr_fail(err, DR_IO, "the checkpoint vanished");
    if (s) return s;
    const db_checkpoint row = {.step = at, .bytes = st.st_size, .seconds = r->seconds};
    if ((s = db_training_checkpoint(r->app->db, r->job->id, r->job->epoch, &row, err))) {
        (void)unlink(path);
        return s;
    }
    r->saved = at;
    srv_park_wake_key(r->app->watch, r->job->id);
    drop_old(r);
    return DR_OK;
}

/* Export, load and score what would be served now. *ret_path is the export. */
static dr_status score(srv_run *r, const char *path, double *ret, dr_error *err) {
    char rainy[SRV_PATH], clean[SRV_PATH];
    dr_model *m = NULL;
    dr_eval e = {0};
    dr_status s = DR_OK;
    srv_training_path(r->app, r->job->id, r->made ? SRV_MADE_RAINY : "pairs/rainy", rainy);
    srv_training_path(r->app, r->job->id, r->made ? SRV_MADE_CLEAN : "pairs/clean", clean);
    if (!r->engine) {
        const dr_engine_opts eo = {.backend = r->app->cfg->backend,
                                   .threads = (int)r->p.threads,
                                   .precision = r->app->cfg->precision,
                                   .plan_cache = r->app->cfg->plan_cache,
                                   .background = true};
        s = dr_engine_open(&eo, &r->engine, err);
        if (!s) srv_devices_add_engine(r->engine);
    }
    if (!s) s = dr_trainer_export(r->t, path, "F16", err);
    if (!s) s = dr_model_open(r->engine, path, &m, err);
    if (!s) {
        dr_model_set_yield(m, between_layers, r);
        srv_gate_begin(r->app->gate);
        s = dr_evaluate(m, rainy, clean, NULL, NULL, &e, err);
        srv_gate_end(r->app->gate);
    }
    dr_model_close(m);
    if (s) return s;
    *ret = e.mean_output.psnr_y;
    dr_eval_done(&e);
    return DR_OK;
}

/* After the checkpoint of this step. */
static dr_status evaluate(srv_run *r, dr_error *err) {
    char path[SRV_PATH], old[SRV_PATH];
    int64_t at = dr_trainer_at(r->t);
    double psnr = 0;
    r->evaluated = at;
    srv_training_best_path(r->app, r->job->id, at, path);
    dr_status s = score(r, path, &psnr, err);
    bool better = !s && (r->best_step < 0 || psnr > r->best);
    if (!s) s = db_training_score(r->app->db, r->job->id, r->job->epoch, at, psnr, better, err);
    if ((s || !better) && at != r->best_step) (void)unlink(path);
    if (s) return s;
    srv_park_wake_key(r->app->watch, r->job->id);
    if (!better) return DR_OK;
    if (r->best_step >= 0) {
        srv_training_best_path(r->app, r->job->id, r->best_step, old);
        (void)unlink(old);
    }
    r->best_step = at;
    r->best = psnr;
    return DR_OK;
}

/* --- steps --- */

/* Is it over before its planned end? A function of rows and step, so that it ends at the same step after a restart. */
static bool early_end(srv_run *r) {
    char text[200];
    int64_t worse = r->best_step >= 0 ? dr_trainer_at(r->t) / r->p.eval_every - r->best_step / r->p.eval_every : 0;
    if (r->p.time_budget_s && r->seconds >= (double)r->p.time_budget_s) {
        snprintf(text, sizeof text, "the time budget of %lld s is spent", (long long)r->p.time_budget_s);
        srv_run_tell(r, "info", "time_budget", text);
        return true;
    }
    if (r->p.early_stop > 0 && worse >= r->p.early_stop) {
        snprintf(text, sizeof text, "%lld evaluations in a row were not better than that of step %lld: it ends early",
                 (long long)worse, (long long)r->best_step);
        srv_run_tell(r, "info", "early_stop", text);
        return true;
    }
    return false;
}

static dr_status steps(srv_run *r, dr_error *err) {
    const srv_training_params *p = &r->p;
    dr_error first = {0};
    dr_status owed = r->owes_evaluation ? evaluate(r, &first) : DR_OK;
    if (owed && owed != DR_CANCELLED) srv_run_tell_failure(r, "evaluation", owed, &first);
    while (!dr_trainer_finished(r->t) && !ends(r) && !early_end(r)) {
        dr_train_metrics m = {0};
        dr_error later = {0};
        int at_once = dr_trainer_at_once(r->t);
        srv_gate_begin(r->app->gate);
        dr_status s = dr_trainer_step(r->t, &m, err);
        srv_gate_end(r->app->gate);
        srv_count(&r->app->tele, SRV_TRAIN_STEPS, m.step > 0);
        srv_count(&r->app->tele, SRV_TRAIN_SKIPPED, m.skipped);
        if (s) {
            if (m.skipped) srv_run_note(r, &m, false); /* the last of too many */
            return s;
        }
        srv_run_tell_parts(r, at_once);
        srv_run_add_up(r, &m);
        srv_run_note(r, &m, m.step % p->metric_every == 0 || m.step == m.steps);
        if (m.step % p->sample_every == 0 || m.step == m.steps) sheet(r);
        bool eval = r->n_pairs && m.step % p->eval_every == 0;
        bool due =
            eval || m.step % p->save_every == 0 || dr_clock_ns() - r->saved_ns > p->save_every_s * INT64_C(1000000000);
        if (due && (s = save(r, &later))) srv_run_tell_failure(r, "checkpoint", s, &later);
        if (eval && !s && (s = evaluate(r, &later)) && s != DR_CANCELLED)
            srv_run_tell_failure(r, "evaluation", s, &later);
    }
    return DR_OK;
}

/* --- end --- */

static dr_status conclude(srv_run *r, dr_error *err) {
    int64_t version = 0;
    dr_error later = {0};
    dr_status s = save(r, err);
    if (!s) s = db_training_move(r->app->db, r->job->id, r->job->epoch, DB_EVALUATING, err);
    if (s) return s;
    srv_park_wake_key(r->app->watch, r->job->id);
    if (r->n_pairs && r->evaluated != dr_trainer_at(r->t) && (s = evaluate(r, &later))) {
        if (s == DR_CANCELLED) return s;
        srv_run_tell_failure(r, "evaluation", s, &later);
    }
    s = srv_run_export_all(r, err);
    if (!s) s = srv_run_hand_over(r, &version, err);
    return s ? s : srv_run_pass_gate(r, version, err);
}

static void finish(srv_run *r, dr_status s, const dr_error *why) {
    srv_app *app = r->app;
    srv_problem p;
    dr_error err = {0};
    char *problem = NULL;
    db_state state = !s ? DB_SUCCEEDED : s == DR_CANCELLED ? DB_CANCELLED : DB_FAILED;
    if (s) {
        srv_problem_from(&p, s, why);
        snprintf(p.job, sizeof p.job, "%s", r->job->id);
        problem = srv_problem_text(&p, r->job->request_id);
        if (state == DB_FAILED) dr_log(DR_LOG_ERROR, r->job->request_id, "job %s failed: %s", r->job->id, why->text);
    }
    srv_count(&app->tele, !s ? SRV_JOBS_SUCCEEDED : s == DR_CANCELLED ? SRV_JOBS_CANCELLED : SRV_JOBS_FAILED, 1);
    for (;;) { /* a store that cannot write now may do so in a moment */
        uint64_t rings = srv_queue_rings(app->queue);
        err = (dr_error){0};
        s = db_training_finish(app->db, r->job->id, r->job->epoch, state, problem, &err);
        if (!s || s == DR_CONFLICT || s == DR_NOT_FOUND || srv_queue_stopping(app->queue)) break;
        srv_queue_wait(app->queue, rings, 500);
    }
    if (s) dr_log(DR_LOG_ERROR, r->job->request_id, "job %s: cannot store how it ended: %s", r->job->id, err.text);
    dr_free(problem);
}

/* Its row: paused, or queued again. */
static void put_row_back(srv_run *r, db_state to) {
    dr_error err = {0};
    dr_status s;
    for (;;) { /* a full disk is the store's disk too, and without its row the job would count as running */
        uint64_t rings = srv_queue_rings(r->app->queue);
        err = (dr_error){0};
        s = db_training_release(r->app->db, r->job->id, r->job->epoch, to, &err);
        if (!s || s == DR_CONFLICT || s == DR_NOT_FOUND || srv_queue_stopping(r->app->queue)) break;
        srv_run_note_failed(r, "cannot put it back yet", s, &err);
        srv_queue_wait(r->app->queue, rings, 500);
    }
    if (s) srv_run_note_failed(r, "cannot put it back", s, &err);
    if (to == DB_QUEUED) srv_count(&r->app->tele, SRV_JOBS_REQUEUED, 1);
}

/* Without a new checkpoint it goes on from the last one. */
static void release(srv_run *r, db_state to) {
    dr_error err = {0};
    dr_status s = r->t && dr_trainer_at(r->t) > 0 ? save(r, &err) : DR_OK;
    if (s) srv_run_tell_failure(r, "checkpoint", s, &err);
    put_row_back(r, to);
}

/* --- a device that failed --- */

/* Without a trainer yet: it could not be opened there, as after an earlier failure. */
static bool device_failed(const srv_run *r, dr_status s) {
    if (!strcmp(srv_registry_backend(r->app->registry), "cpu")) return false;
    return s == DR_BACKEND || (s == DR_UNAVAILABLE && !r->t);
}

/* Its context cannot be repaired in this process, and what the training holds there is gone: it waits, with its last
 * checkpoint, until somebody has looked at the GPU and resumes it. */
static void wait_for_device(srv_run *r, const dr_error *why) {
    char text[300], from[64] = "its beginning, as there was no checkpoint yet";
    if (r->saved > 0) snprintf(from, sizeof from, "the checkpoint of step %lld", (long long)r->saved);
    if (!atomic_exchange(&r->app->tele.device_lost, true))
        dr_log(DR_LOG_ERROR, r->job->request_id, "the GPU is given up, the CPU goes on: %s", why->text);
    dr_log(DR_LOG_ERROR, r->job->request_id, "job %s: %s", r->job->id, why->text);
    snprintf(text, sizeof text,
             "the GPU failed: the training is paused. Resume it after a restart of the daemon on a GPU that works; it "
             "goes on from %s",
             from);
    srv_run_tell(r, "warn", "device_lost", text);
    put_row_back(r, DB_PAUSED);
}

void srv_training_run(srv_app *app, const db_job *job, srv_training_signals *sig) {
    srv_run r = {.app = app, .job = job, .sig = sig, .evaluated = -1};
    dr_error err = {0};
    dr_status s = prepare(&r, &err);
    if (!s) s = steps(&r, &err);
    bool whole = !s && r.t && !ends(&r);
    if (whole) s = conclude(&r, &err);
    if (s == DR_CANCELLED && !atomic_load(&sig->cancel)) { /* an evaluation was put off */
        s = DR_OK;
        whole = false;
    }
    if (!s && atomic_load(&sig->cancel)) s = dr_fail(&err, DR_CANCELLED, "cancelled");
    if (r.lost) {
        dr_log(DR_LOG_WARN, job->request_id, "job %s is no longer this trainer's", job->id);
    } else if (device_failed(&r, s) && !atomic_load(&sig->cancel)) {
        wait_for_device(&r, &err);
    } else if (s == DR_NOSPACE && r.t) {
        srv_run_tell_failure(&r, "it is paused", s, &err);
        release(&r, DB_PAUSED);
    } else if (s) {
        finish(&r, s, &err);
    } else if (!whole) {
        release(&r, atomic_load(&sig->put_back) ? DB_QUEUED : DB_PAUSED);
    } else {
        finish(&r, DR_OK, &err);
    }
    srv_devices_remove(r.t);
    dr_trainer_close(r.t);
    srv_devices_remove(r.engine);
    dr_engine_close(r.engine);
    atomic_store(&app->memory.training, 0);
    srv_training_params_done(&r.p);
    free(r.owed);
}
