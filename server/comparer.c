/* comparer.c - see comparer.h. */
#include "server/comparer.h"
#include "core/base/alloc.h"
#include "core/base/log.h"
#include "server/compare_run.h"
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define LEASE_MS 600000 /* each picture renews it */
#define IDLE_MS  5000   /* a look at the store even if nobody rang */

struct srv_comparer {
    srv_app *app;
    pthread_t thread;
    pthread_mutex_t mu; /* a leaf: guards id */
    char id[DB_ID];     /* "" = none */
    srv_compare_signals sig;
};

/* A look by a reader: a claim is a write, and there is none to be made for nothing. */
static bool any_queued(srv_app *app) {
    const db_job_filter f = {.states = 1u << DB_QUEUED, .type = "compare", .limit = 1};
    db_job_page page = {0};
    bool some = db_job_list(app->db, &f, &page, NULL) || page.n > 0; /* when in doubt, try */
    db_job_page_clear(&page);
    return some;
}

static void set_id(srv_comparer *c, const char *id) {
    pthread_mutex_lock(&c->mu);
    snprintf(c->id, sizeof c->id, "%s", id);
    pthread_mutex_unlock(&c->mu);
}

static void raise_flag(srv_comparer *c, atomic_bool *flag) {
    atomic_store(flag, true);
    atomic_store(&c->sig.stop, true);
    srv_gate_wake(c->app->gate);
}

/* A cancel that came between the claim and set_id() has only reached the row. */
static void early_signals(srv_comparer *c, const char *id) {
    db_job now = {0};
    if (!db_job_get(c->app->db, id, &now, NULL) && now.cancel_requested) raise_flag(c, &c->sig.cancel);
    db_job_clear(&now);
    if (atomic_load(&c->sig.put_back)) raise_flag(c, &c->sig.put_back);
}

static void *run(void *arg) {
    srv_comparer *c = arg;
    srv_app *app = c->app;
    const db_claim claim = {.type = "compare", .lease_ms = LEASE_MS};
    while (!srv_queue_stopping(app->queue)) {
        db_job job = {0};
        dr_error err = {0};
        uint64_t rings = srv_queue_rings(app->queue); /* before the look, so that no ring is missed */
        bool may = !atomic_load(&app->draining) && !atomic_load(&c->sig.put_back);
        dr_status s = may && any_queued(app) ? db_job_claim(app->db, &claim, &job, &err) : DR_NOT_FOUND;
        if (s) {
            if (s != DR_NOT_FOUND) dr_log(DR_LOG_ERROR, NULL, "cannot claim a comparison: %s", err.text);
            srv_queue_wait(app->queue, rings, s == DR_NOT_FOUND ? IDLE_MS : 1000);
            continue;
        }
        atomic_store(&c->sig.cancel, false);
        atomic_store(&c->sig.stop, false);
        set_id(c, job.id);
        early_signals(c, job.id);
        srv_queue_count_add(app->queue, -1);
        srv_park_wake_key(app->watch, job.id); /* queued -> running */
        srv_compare_run(app, &job, &c->sig);
        set_id(c, "");
        srv_park_wake_key(app->watch, job.id);
        db_job_clear(&job);
    }
    return NULL;
}

dr_status srv_comparer_start(srv_app *app, srv_comparer **ret, dr_error *err) {
    srv_comparer *c = dr_calloc(1, sizeof *c);
    if (!c) return dr_fail(err, DR_NOMEM, "out of memory");
    c->app = app;
    pthread_mutex_init(&c->mu, NULL);
    if (pthread_create(&c->thread, NULL, run, c)) {
        pthread_mutex_destroy(&c->mu);
        dr_free(c);
        return dr_fail(err, DR_NOMEM, "cannot start the comparer's thread");
    }
    *ret = c;
    return DR_OK;
}

void srv_comparer_put_back(srv_comparer *c) {
    if (!c) return;
    raise_flag(c, &c->sig.put_back);
    srv_queue_ring(c->app->queue);
}

bool srv_comparer_busy(srv_comparer *c) {
    if (!c) return false;
    pthread_mutex_lock(&c->mu);
    bool busy = *c->id != 0;
    pthread_mutex_unlock(&c->mu);
    return busy;
}

void srv_comparer_join(srv_comparer *c) {
    if (!c) return;
    srv_comparer_put_back(c);
    pthread_join(c->thread, NULL);
    pthread_mutex_destroy(&c->mu);
    dr_free(c);
}

bool srv_comparer_cancel(srv_comparer *c, const char *id) {
    if (!c) return false;
    pthread_mutex_lock(&c->mu);
    bool mine = !strcmp(c->id, id);
    if (mine) {
        atomic_store(&c->sig.cancel, true);
        atomic_store(&c->sig.stop, true);
    }
    pthread_mutex_unlock(&c->mu);
    if (mine) srv_gate_wake(c->app->gate);
    return mine;
}
