/* training_end.c - see training_run_in.h. */
#include "server/model_files.h"
#include "server/training_files.h"
#include "server/training_gate.h"
#include "server/training_run_in.h"
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* All nets, to go on from: those of the step whose generator is served, not what became of them afterwards. */
static dr_status export_nets(srv_run *r, dr_error *err) {
    char path[SRV_PATH], best[SRV_PATH];
    srv_training_path(r->app, r->job->id, "train.safetensors", path);
    if (r->best_step < 0 || r->best_step == dr_trainer_at(r->t)) return dr_trainer_export_all(r->t, path, err);
    srv_training_checkpoint_path(r->app, r->job->id, r->best_step, best);
    return dr_checkpoint_export(best, NULL, path, err);
}

dr_status srv_run_export_all(srv_run *r, dr_error *err) {
    char path[SRV_PATH], best[SRV_PATH];
    srv_training_path(r->app, r->job->id, "latest.safetensors", path);
    dr_status s = dr_trainer_export(r->t, path, "F16", err);
    if (!s) s = export_nets(r, err);
    if (s) return s;
    srv_training_path(r->app, r->job->id, "best.safetensors", path);
    if (r->best_step < 0) return dr_trainer_export(r->t, path, "F16", err);
    srv_training_best_path(r->app, r->job->id, r->best_step, best);
    (void)unlink(path);
    if (link(best, path)) return dr_fail(err, DR_IO, "the weights of the best evaluation are gone");
    return DR_OK;
}

dr_status srv_run_hand_over(srv_run *r, int64_t *ret_version, dr_error *err) {
    char best[SRV_PATH], all[SRV_PATH], measures[160], text[200];
    const db_job *j = r->job;
    bool made = false;
    int64_t version = 0;
    srv_training_path(r->app, j->id, "best.safetensors", best);
    srv_training_path(r->app, j->id, "train.safetensors", all);
    snprintf(measures, sizeof measures, "{\"steps\":%lld,\"best_step\":%lld", (long long)dr_trainer_at(r->t),
             (long long)(r->best_step < 0 ? dr_trainer_at(r->t) : r->best_step));
    size_t n = strlen(measures);
    if (r->best_step >= 0)
        snprintf(measures + n, sizeof measures - n, ",\"psnr_y\":%.6f,\"pairs\":%zu,\"made\":%s}", r->best, r->n_pairs,
                 r->made ? "true" : "false");
    else
        snprintf(measures + n, sizeof measures - n, "}");
    const srv_version_new in = {.name = j->model.name,
                                .origin = DB_TRAINED,
                                .verdict = DB_NOT_JUDGED,
                                .parent = j->model.version,
                                .dataset = r->p.dataset,
                                .job = j->id,
                                .weights = best,
                                .train = all,
                                .measures_json = measures};
    dr_status s = srv_registry_add(r->app->registry, &in, &version, &made, err);
    if (!s) s = db_training_made(r->app->db, j->id, j->epoch, version, err);
    if (s) return s;
    snprintf(text, sizeof text, "the weights are version %lld of %s", (long long)version, j->model.name);
    srv_run_tell(r, "info", "registered", text);
    *ret_version = version;
    return DR_OK;
}

dr_status srv_run_pass_gate(srv_run *r, int64_t version, dr_error *err) {
    json_t *said = NULL;
    dr_error why = {0};
    dr_status s = srv_training_gate(r->app, r->job, &r->p, version, srv_run_between_layers, r, &said, &why);
    if (s == DR_CANCELLED) {
        *err = why;
        return s;
    }
    if (s)
        srv_run_tell_failure(r, "the gate could not judge it", s, &why);
    else
        srv_run_event(r, "gate", said);
    s = db_training_move(r->app->db, r->job->id, r->job->epoch, DB_GATED, err);
    if (!s) srv_park_wake_key(r->app->watch, r->job->id);
    return s;
}
