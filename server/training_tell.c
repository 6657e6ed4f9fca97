/* training_tell.c - see training_run_in.h. What the store cannot take is left out, but a `log` event: it is kept until
 * the store can take it, since a full disk is the store's disk too. */
#include "core/base/log.h"
#include "server/training_run_in.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- rows --- */

void srv_run_note_failed(srv_run *r, const char *doing, dr_status s, const dr_error *err) {
    if (s == DR_CONFLICT || s == DR_NOT_FOUND) r->lost = true;
    if (r->mute && !r->lost) return;
    r->mute = true;
    dr_log(DR_LOG_WARN, r->job->request_id, "job %s: %s: %s", r->job->id, doing, err->text);
}

void srv_run_event(srv_run *r, const char *type, json_t *o) {
    dr_error err = {0};
    char *text = o ? json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(o);
    if (!text) return;
    dr_status s = db_event_append(r->app->db, r->job->id, r->job->epoch, type, text, NULL, &err);
    if (s) srv_run_note_failed(r, "event", s, &err);
    if (s && !strcmp(type, "log")) {
        free(r->owed);
        r->owed = text;
        text = NULL;
    }
    free(text);
    srv_park_wake_key(r->app->watch, r->job->id);
}

void srv_run_tell(srv_run *r, const char *level, const char *code, const char *text) {
    dr_log(!strcmp(level, "info") ? DR_LOG_INFO : DR_LOG_WARN, r->job->request_id, "job %s: %s", r->job->id, text);
    srv_run_event(r, "log",
                  json_pack("{s:s, s:s, s:s, s:I}", "level", level, "code", code, "message", text, "step",
                            (json_int_t)(r->t ? dr_trainer_at(r->t) : 0)));
}

void srv_run_tell_failure(srv_run *r, const char *doing, dr_status s, const dr_error *err) {
    char text[300];
    dr_log(DR_LOG_WARN, r->job->request_id, "job %s: %s: %s", r->job->id, doing, err->text);
    if (s == DR_NOSPACE && r->saved > 0)
        snprintf(text, sizeof text, "%s: the disk is full; the last good checkpoint is that of step %lld", doing,
                 (long long)r->saved);
    else if (s == DR_NOSPACE)
        snprintf(text, sizeof text, "%s: the disk is full, and there is no checkpoint yet", doing);
    else
        snprintf(text, sizeof text, "%s: %s", doing, dr_status_text(s));
    srv_run_event(r, "log",
                  json_pack("{s:s, s:s, s:s, s:I}", "level", "warn", "code",
                            s == DR_NOSPACE ? "disk_full" : "not_written", "message", text, "step",
                            (json_int_t)(r->t ? dr_trainer_at(r->t) : 0)));
}

void srv_run_tell_parts(srv_run *r, int before) {
    char text[160];
    int now = dr_trainer_at_once(r->t);
    if (now == before) return; /* what it began with is in its description */
    snprintf(text, sizeof text, "the GPU's memory is short: from here on %d of a batch at a time, not %d", now, before);
    srv_run_tell(r, "warn", "micro_batch", text);
}

/* --- metrics --- */

void srv_run_note(srv_run *r, const dr_train_metrics *m, bool with_metrics) {
    dr_error err = {0};
    json_t *o = with_metrics ? json_object() : NULL;
    char *text = NULL;
    if (o) {
        json_object_set_new(o, "step", json_integer(m->step));
        json_object_set_new(o, "lr_factor", json_real(m->lr_factor));
        json_object_set_new(o, "seconds_per_step", json_real(r->n_sum ? r->sum.seconds / (double)r->n_sum : r->pace));
        for (int i = 0; i < r->sum.n && r->n_sum; i++)
            json_object_set_new(o, r->sum.name[i], json_real(r->sum.value[i] / (double)r->n_sum));
        json_object_set_new(o, "skipped", json_integer(m->n_skipped));
        text = json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(9));
        json_decref(o);
        r->n_sum = 0;
    }
    const db_training_note n = {.step = m->step,
                                .steps = m->steps,
                                .skipped = m->n_skipped,
                                .seconds = r->seconds,
                                .seconds_per_step = r->pace,
                                .metrics_json = text};
    dr_status s = db_training_progress(r->app->db, r->job->id, r->job->epoch, &n, &err);
    free(text);
    if (s) {
        srv_run_note_failed(r, "progress", s, &err);
        return;
    }
    r->mute = false;
    if (r->owed && !db_event_append(r->app->db, r->job->id, r->job->epoch, "log", r->owed, NULL, NULL)) {
        free(r->owed);
        r->owed = NULL;
    }
    srv_park_wake_key(r->app->watch, r->job->id);
}

/* The first, and whenever there are twice as many: at worst a quarter of all steps. */
static void tell_skipped(srv_run *r, const dr_train_metrics *m) {
    char text[200];
    if (m->n_skipped & (m->n_skipped - 1)) return;
    snprintf(text, sizeof text,
             "step %lld was left out: %s is not finite there; %lld of %lld so far. Too many of them end the training",
             (long long)m->step, m->not_finite, (long long)m->n_skipped, (long long)m->step);
    srv_run_tell(r, "warn", "step_skipped", text);
}

void srv_run_add_up(srv_run *r, const dr_train_metrics *m) {
    const char *code = NULL;
    char text[400];
    if (m->skipped) {
        tell_skipped(r, m);
    } else if (r->n_sum == 0 || r->sum.n != m->n) {
        r->sum = *m;
        r->n_sum = 1;
    } else {
        r->sum.seconds += m->seconds;
        for (int i = 0; i < m->n; i++) r->sum.value[i] += m->value[i];
        r->n_sum++;
    }
    r->seconds += m->seconds;
    r->pace = r->pace > 0 ? 0.95 * r->pace + 0.05 * m->seconds : m->seconds;
    r->steps = m->steps;
    if (!m->skipped && srv_training_watch_step(&r->watch, m, &code, text)) srv_run_tell(r, "warn", code, text);
}
