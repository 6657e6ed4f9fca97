/* trainer.c - see trainer.h. */
#include "server/trainer.h"
#include "core/base/alloc.h"
#include "core/base/log.h"
#include "db/datasets.h"
#include "db/training.h"
#include "server/problem.h"
#include "server/training_files.h"
#include "server/training_run.h"
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define LEASE_MS 120000
#define IDLE_MS  2000 /* a look at the store even if nobody rang: data sets become ready without a ring */

struct srv_trainer {
    srv_app *app;
    pthread_t thread;
    pthread_mutex_t mu; /* a leaf: guards id */
    char id[DB_ID];     /* "" = none */
    srv_training_signals sig;
};

/* Jobs that wait for their data set: those whose set has been judged move on. */
static void look_at_validating(srv_app *app) {
    const db_job_filter f = {.states = 1u << DB_VALIDATING, .type = "train", .limit = DB_LIST_MAX};
    db_job_page page = {0};
    if (db_job_list(app->db, &f, &page, NULL)) return;
    for (size_t i = 0; i < page.n; i++) {
        db_job *j = &page.jobs[i];
        db_training t;
        db_dataset set = {0};
        dr_error err = {0};
        char *problem = NULL;
        if (db_training_get(app->db, j->id, &t, NULL)) continue;
        dr_status s = db_dataset_get(app->db, t.dataset, &set, &err);
        bool judged = s == DR_NOT_FOUND || (!s && (set.state == DB_DS_READY || set.state == DB_DS_REJECTED));
        if (judged && (s || set.state == DB_DS_REJECTED)) {
            srv_problem p;
            srv_problem_make(&p, "dataset_unusable", s ? "the data set %s is gone" : "the data set %s was rejected",
                             t.dataset);
            problem = srv_problem_text(&p, j->request_id);
        }
        if (judged && (problem || !s)) {
            s = db_training_validated(app->db, j->id, problem, &err);
            if (s) dr_log(DR_LOG_WARN, j->request_id, "job %s: %s", j->id, err.text);
            srv_park_wake_key(app->watch, j->id);
        }
        dr_free(problem);
        db_dataset_clear(&set);
    }
    db_job_page_clear(&page);
}

/* A look by a reader: a claim is a write, and there is none to be made every two seconds for nothing. */
static bool any_queued(srv_app *app) {
    const db_job_filter f = {.states = 1u << DB_QUEUED, .type = "train", .limit = 1};
    db_job_page page = {0};
    bool some = db_job_list(app->db, &f, &page, NULL) || page.n > 0; /* when in doubt, try */
    db_job_page_clear(&page);
    return some;
}

static void set_id(srv_trainer *t, const char *id) {
    pthread_mutex_lock(&t->mu);
    snprintf(t->id, sizeof t->id, "%s", id);
    pthread_mutex_unlock(&t->mu);
}

/* A cancel or pause that came between the claim and set_id() has only reached the rows. */
static void early_signals(srv_trainer *t, const char *id) {
    db_job now = {0};
    db_training tr;
    if (!db_job_get(t->app->db, id, &now, NULL) && now.cancel_requested) atomic_store(&t->sig.cancel, true);
    if (!db_training_get(t->app->db, id, &tr, NULL) && tr.pause_requested) atomic_store(&t->sig.pause, true);
    db_job_clear(&now);
}

static void *run(void *arg) {
    srv_trainer *t = arg;
    srv_app *app = t->app;
    const db_claim claim = {.type = "train", .lease_ms = LEASE_MS};
    while (!srv_queue_stopping(app->queue)) {
        db_job job = {0};
        dr_error err = {0};
        uint64_t rings = srv_queue_rings(app->queue); /* before the look, so that no ring is missed */
        bool may = !atomic_load(&app->draining) && !atomic_load(&t->sig.put_back);
        if (may) look_at_validating(app);
        dr_status s = may && any_queued(app) ? db_job_claim(app->db, &claim, &job, &err) : DR_NOT_FOUND;
        if (s) {
            if (s != DR_NOT_FOUND) dr_log(DR_LOG_ERROR, NULL, "cannot claim a training: %s", err.text);
            srv_queue_wait(app->queue, rings, IDLE_MS);
            continue;
        }
        atomic_store(&t->sig.cancel, false);
        atomic_store(&t->sig.pause, false);
        set_id(t, job.id);
        early_signals(t, job.id);
        srv_queue_count_add(app->queue, -1);
        srv_park_wake_key(app->watch, job.id); /* queued -> running */
        srv_training_run(app, &job, &t->sig);
        set_id(t, "");
        srv_park_wake_key(app->watch, job.id);
        db_job_clear(&job);
    }
    return NULL;
}

dr_status srv_trainer_start(srv_app *app, srv_trainer **ret, dr_error *err) {
    srv_trainer *t = dr_calloc(1, sizeof *t);
    if (!t) return dr_fail(err, DR_NOMEM, "out of memory");
    t->app = app;
    pthread_mutex_init(&t->mu, NULL);
    if (pthread_create(&t->thread, NULL, run, t)) {
        pthread_mutex_destroy(&t->mu);
        dr_free(t);
        return dr_fail(err, DR_NOMEM, "cannot start the trainer's thread");
    }
    *ret = t;
    return DR_OK;
}

void srv_trainer_put_back(srv_trainer *t) {
    if (!t) return;
    atomic_store(&t->sig.put_back, true);
    srv_gate_hurry(t->app->gate, true);
    srv_queue_ring(t->app->queue);
}

bool srv_trainer_busy(srv_trainer *t) {
    if (!t) return false;
    pthread_mutex_lock(&t->mu);
    bool busy = *t->id != 0;
    pthread_mutex_unlock(&t->mu);
    return busy;
}

bool srv_trainer_holds(srv_trainer *t, const char *id) {
    if (!t) return false;
    pthread_mutex_lock(&t->mu);
    bool mine = !strcmp(t->id, id);
    pthread_mutex_unlock(&t->mu);
    return mine;
}

void srv_trainer_join(srv_trainer *t) {
    if (!t) return;
    srv_trainer_put_back(t);
    pthread_join(t->thread, NULL);
    pthread_mutex_destroy(&t->mu);
    dr_free(t);
}

static bool tell(srv_trainer *t, const char *id, atomic_bool *flag, bool on) {
    if (!t) return false;
    pthread_mutex_lock(&t->mu);
    bool mine = !strcmp(t->id, id);
    if (mine) atomic_store(flag, on);
    pthread_mutex_unlock(&t->mu);
    return mine;
}

bool srv_trainer_cancel(srv_trainer *t, const char *id) {
    return tell(t, id, t ? &t->sig.cancel : NULL, true);
}
bool srv_trainer_pause(srv_trainer *t, const char *id, bool on) {
    return tell(t, id, t ? &t->sig.pause : NULL, on);
}
