/* janitor.c - see janitor.h. A round a second; retention every ten. */
#include "server/janitor.h"
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/log.h"
#include "server/blobs.h"
#include "server/problem.h"
#include "server/trainer.h"
#include "server/training_files.h"
#include <errno.h>
#include <pthread.h>
#include <time.h>

#define ROUND_MS    1000
#define PRUNE_EVERY 10
#define BATCH       500

struct srv_janitor {
    srv_app *app;
    pthread_t thread;
    pthread_mutex_t mu; /* guards stop */
    pthread_cond_t cond;
    bool stop;
    char *expired; /* problem of jobs whose deadline passed */
};

static bool known(void *arg, const char *id) {
    srv_app *app = arg;
    db_job job = {0};
    dr_status s = db_job_get(app->db, id, &job, NULL);
    db_job_clear(&job);
    return s != DR_NOT_FOUND; /* when in doubt, keep */
}

dr_status srv_janitor_sweep(srv_app *app, dr_error *err) {
    size_t n = 0;
    dr_status s = srv_spool_sweep(app->spool, known, app, &n, err);
    if (!s && n) dr_log(DR_LOG_INFO, NULL, "erased %zu files that no job names", n);
    return s;
}

static void sign_of_life(void *arg, const char *id, int64_t epoch, double progress) {
    db_job_progress(arg, id, epoch, progress);
}

static void prune(srv_app *app) {
    db_ids ids = {0};
    dr_error err = {0};
    size_t n = BATCH;
    while (n == BATCH) {
        dr_status s = db_jobs_prune(app->db, app->cfg->result_ttl * 1000, app->cfg->spool_max_bytes, &ids, &err);
        if (s) {
            dr_log(DR_LOG_ERROR, NULL, "retention: %s", err.text);
            return;
        }
        n = ids.n;
        for (size_t i = 0; i < n; i++) srv_spool_erase(app->spool, ids.ids[i]);
        srv_count(&app->tele, SRV_JOBS_PRUNED, n);
        db_ids_clear(&ids);
    }
}

static void expire(srv_janitor *j) {
    srv_app *app = j->app;
    db_ids ids = {0};
    dr_error err = {0};
    if (db_jobs_expire(app->db, j->expired, &ids, &err)) {
        dr_log(DR_LOG_ERROR, NULL, "expiry: %s", err.text);
        return;
    }
    for (size_t i = 0; i < ids.n; i++) srv_park_wake_key(app->watch, ids.ids[i]);
    db_ids_clear(&ids);
}

/* A row that says that somebody works on the job, and nobody here does: a claim whose commit failed and was durable all
 * the same, or a job that could not be put back. Whoever works on one is in the queue's table or is the trainer, from
 * its first moment on but for the time between the claim and the entry, which is shorter than a lease. */
static void reclaim(srv_app *app) {
    db_lapsed lost[32];
    size_t n = 0;
    dr_error err = {0};
    dr_status s = db_jobs_lapsed(app->db, lost, sizeof lost / sizeof *lost, &n, &err);
    for (size_t i = 0; i < n && !s; i++) {
        db_state state;
        double progress;
        if (srv_queue_progress(app->queue, lost[i].id, &progress) || srv_trainer_holds(app->trainer, lost[i].id))
            continue;
        s = db_job_reclaim(app->db, lost[i].id, lost[i].epoch, &state, &err);
        if (s == DR_CONFLICT) { /* it has ended, or somebody has it */
            s = DR_OK;
            continue;
        }
        if (s) break;
        dr_log(DR_LOG_WARN, NULL, "job %s had been lost: it is %s", lost[i].id, db_state_name(state));
        if (state == DB_QUEUED) {
            srv_count(&app->tele, SRV_JOBS_REQUEUED, 1);
            srv_queue_count_add(app->queue, 1);
            srv_queue_ring(app->queue);
        }
        srv_park_wake_key(app->watch, lost[i].id);
    }
    if (s) dr_log(DR_LOG_ERROR, NULL, "looking for lost jobs: %s", err.text);
}

static void *run(void *arg) {
    srv_janitor *j = arg;
    srv_app *app = j->app;
    for (int round = 0;; round++) {
        int64_t end = dr_clock_ns() + ROUND_MS * INT64_C(1000000);
        struct timespec ts = {.tv_sec = end / 1000000000, .tv_nsec = end % 1000000000};
        pthread_mutex_lock(&j->mu);
        while (!j->stop && pthread_cond_timedwait(&j->cond, &j->mu, &ts) != ETIMEDOUT) {
        }
        bool stop = j->stop;
        pthread_mutex_unlock(&j->mu);
        if (stop) return NULL;
        db_counts counts;
        srv_queue_each(app->queue, sign_of_life, app->db);
        expire(j);
        if (round % PRUNE_EVERY) continue;
        reclaim(app);
        prune(app);
        srv_training_sweep(app);
        srv_blobs_prune(app->blobs, app->cfg->blob_ttl);
        if (!db_job_counts(app->db, &counts, NULL)) srv_queue_count_set(app->queue, counts.state[DB_QUEUED]);
    }
}

dr_status srv_janitor_start(srv_app *app, srv_janitor **ret, dr_error *err) {
    srv_janitor *j = dr_calloc(1, sizeof *j);
    pthread_condattr_t attr;
    srv_problem p;
    if (!j) return dr_fail(err, DR_NOMEM, "out of memory");
    srv_problem_make(&p, "job_expired", "the job's deadline passed before it was its turn");
    j->app = app;
    j->expired = srv_problem_text(&p, NULL);
    pthread_mutex_init(&j->mu, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&j->cond, &attr);
    pthread_condattr_destroy(&attr);
    if (!j->expired || pthread_create(&j->thread, NULL, run, j)) {
        pthread_cond_destroy(&j->cond);
        pthread_mutex_destroy(&j->mu);
        dr_free(j->expired);
        dr_free(j);
        return dr_fail(err, DR_NOMEM, "cannot start the janitor");
    }
    *ret = j;
    return DR_OK;
}

void srv_janitor_stop(srv_janitor *j) {
    if (!j) return;
    pthread_mutex_lock(&j->mu);
    j->stop = true;
    pthread_cond_signal(&j->cond);
    pthread_mutex_unlock(&j->mu);
    pthread_join(j->thread, NULL);
    pthread_cond_destroy(&j->cond);
    pthread_mutex_destroy(&j->mu);
    dr_free(j->expired);
    dr_free(j);
}
