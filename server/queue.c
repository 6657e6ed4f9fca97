/* queue.c - see queue.h. One mutex, a leaf, guards slots and doorbell. */
#include "server/queue.h"
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

struct srv_queue {
    pthread_mutex_t mu;
    pthread_cond_t cond;
    uint64_t rings;
    bool stop;
    int workers;
    srv_running *slots;
    double job_seconds, mpix_seconds;
    uint64_t jitter;
    _Atomic int64_t count;
};

dr_status srv_queue_open(int workers, srv_queue **ret, dr_error *err) {
    srv_queue *q = dr_calloc(1, sizeof *q);
    pthread_condattr_t attr;
    if (!q || !(q->slots = dr_calloc((size_t)workers, sizeof *q->slots))) {
        dr_free(q);
        return dr_fail(err, DR_NOMEM, "out of memory");
    }
    q->workers = workers;
    q->jitter = (uint64_t)dr_clock_ns();
    pthread_mutex_init(&q->mu, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&q->cond, &attr);
    pthread_condattr_destroy(&attr);
    *ret = q;
    return DR_OK;
}

void srv_queue_close(srv_queue *q) {
    if (!q) return;
    pthread_cond_destroy(&q->cond);
    pthread_mutex_destroy(&q->mu);
    dr_free(q->slots);
    dr_free(q);
}

void srv_queue_ring(srv_queue *q) {
    pthread_mutex_lock(&q->mu);
    q->rings++;
    pthread_cond_broadcast(&q->cond);
    pthread_mutex_unlock(&q->mu);
}

uint64_t srv_queue_rings(srv_queue *q) {
    pthread_mutex_lock(&q->mu);
    uint64_t n = q->rings;
    pthread_mutex_unlock(&q->mu);
    return n;
}

void srv_queue_wait(srv_queue *q, uint64_t rings_seen, int64_t timeout_ms) {
    int64_t end = dr_clock_ns() + timeout_ms * 1000000;
    struct timespec ts = {.tv_sec = end / 1000000000, .tv_nsec = end % 1000000000};
    pthread_mutex_lock(&q->mu);
    while (q->rings == rings_seen && !q->stop)
        if (pthread_cond_timedwait(&q->cond, &q->mu, &ts) == ETIMEDOUT) break;
    pthread_mutex_unlock(&q->mu);
}

srv_running *srv_queue_start(srv_queue *q, const char *id, int64_t epoch) {
    srv_running *slot = NULL;
    pthread_mutex_lock(&q->mu);
    for (int i = 0; i < q->workers && !slot; i++)
        if (!q->slots[i].used) slot = &q->slots[i];
    assert(slot); /* a worker runs one job at a time */
    snprintf(slot->id, sizeof slot->id, "%s", id);
    slot->epoch = epoch;
    atomic_store(&slot->cancel, false);
    atomic_store(&slot->put_back, false);
    atomic_store(&slot->progress, 0);
    slot->used = true;
    pthread_mutex_unlock(&q->mu);
    return slot;
}

void srv_queue_end(srv_queue *q, srv_running *slot) {
    pthread_mutex_lock(&q->mu);
    slot->used = false;
    pthread_mutex_unlock(&q->mu);
}

static srv_running *find(srv_queue *q, const char *id) {
    for (int i = 0; i < q->workers; i++)
        if (q->slots[i].used && !strcmp(q->slots[i].id, id)) return &q->slots[i];
    return NULL;
}

bool srv_queue_cancel(srv_queue *q, const char *id) {
    pthread_mutex_lock(&q->mu);
    srv_running *slot = find(q, id);
    if (slot) atomic_store(&slot->cancel, true);
    pthread_mutex_unlock(&q->mu);
    return slot != NULL;
}

bool srv_queue_progress(srv_queue *q, const char *id, double *ret) {
    pthread_mutex_lock(&q->mu);
    srv_running *slot = find(q, id);
    if (slot) *ret = (double)atomic_load(&slot->progress);
    pthread_mutex_unlock(&q->mu);
    return slot != NULL;
}

int srv_queue_n_running(srv_queue *q) {
    int n = 0;
    pthread_mutex_lock(&q->mu);
    for (int i = 0; i < q->workers; i++) n += q->slots[i].used;
    pthread_mutex_unlock(&q->mu);
    return n;
}

void srv_queue_each(srv_queue *q, void (*see)(void *arg, const char *id, int64_t epoch, double progress), void *arg) {
    for (int i = 0; i < q->workers; i++) {
        char id[DB_ID];
        pthread_mutex_lock(&q->mu);
        bool used = q->slots[i].used;
        int64_t epoch = q->slots[i].epoch;
        double progress = (double)atomic_load(&q->slots[i].progress);
        memcpy(id, q->slots[i].id, sizeof id);
        pthread_mutex_unlock(&q->mu);
        if (used) see(arg, id, epoch, progress);
    }
}

void srv_queue_stop(srv_queue *q) {
    pthread_mutex_lock(&q->mu);
    q->stop = true;
    pthread_cond_broadcast(&q->cond);
    pthread_mutex_unlock(&q->mu);
}

void srv_queue_put_back(srv_queue *q) {
    pthread_mutex_lock(&q->mu);
    for (int i = 0; i < q->workers; i++) {
        if (!q->slots[i].used) continue;
        atomic_store(&q->slots[i].put_back, true);
        atomic_store(&q->slots[i].cancel, true);
    }
    pthread_mutex_unlock(&q->mu);
}

bool srv_queue_stopping(srv_queue *q) {
    pthread_mutex_lock(&q->mu);
    bool stop = q->stop;
    pthread_mutex_unlock(&q->mu);
    return stop;
}

static void blend(double *avg, double x) {
    *avg = *avg > 0 ? 0.8 * *avg + 0.2 * x : x;
}

void srv_queue_learn(srv_queue *q, double seconds, double mpix) {
    pthread_mutex_lock(&q->mu);
    blend(&q->job_seconds, seconds);
    if (mpix > 0) blend(&q->mpix_seconds, seconds / mpix);
    pthread_mutex_unlock(&q->mu);
}

double srv_queue_job_seconds(srv_queue *q) {
    pthread_mutex_lock(&q->mu);
    double s = q->job_seconds;
    pthread_mutex_unlock(&q->mu);
    return s;
}

double srv_queue_mpix_seconds(srv_queue *q) {
    pthread_mutex_lock(&q->mu);
    double s = q->mpix_seconds;
    pthread_mutex_unlock(&q->mu);
    return s;
}

int srv_queue_retry_after(srv_queue *q, int64_t ahead) {
    pthread_mutex_lock(&q->mu);
    double s = (q->job_seconds > 0 ? q->job_seconds : 1) * (double)(ahead > 0 ? ahead : 1) / q->workers;
    q->jitter = q->jitter * UINT64_C(6364136223846793005) + 1;
    double spread = 0.8 + 0.4 * (double)(q->jitter >> 40) / (double)(1 << 24);
    pthread_mutex_unlock(&q->mu);
    s = s * spread + 0.5;
    return s < 1 ? 1 : s > 3600 ? 3600 : (int)s;
}

void srv_queue_count_add(srv_queue *q, int64_t n) {
    atomic_fetch_add(&q->count, n);
}
void srv_queue_count_set(srv_queue *q, int64_t n) {
    atomic_store(&q->count, n);
}
int64_t srv_queue_count(srv_queue *q) {
    int64_t n = atomic_load(&q->count);
    return n > 0 ? n : 0;
}
