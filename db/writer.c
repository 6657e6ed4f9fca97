/* writer.c - group commit.
 *
 * The thread takes everything that waits in the FIFO (at most BATCH_MAX), runs each request in a savepoint of one
 * IMMEDIATE transaction, commits once, and only then tells the callers: an answer that was given is on disk. While the
 * disk syncs, the next requests gather, so the batches grow by themselves under load and are of size one without it.
 * If the transaction as a whole is lost (full disk), every request of the batch is tried again alone, so that a small
 * one or a delete still gets through where a large one cannot.
 *
 * Progress of running jobs needs no durability: the newest value of each job is kept in memory and written every
 * PROGRESS_MS in a transaction with whatever else there is. After IDLE_MS without work the WAL is truncated. */
#include "db/writer.h"
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include <pthread.h>
#include <string.h>
#include <time.h>

enum { BATCH_MAX = 256, PROGRESS_MAX = 64, PROGRESS_MS = 250, IDLE_MS = 2000 };
#define OPTIMIZE_NS (24 * 3600 * INT64_C(1000000000))

struct db_writer {
    db_store *db;
    db_conn *c;
    pthread_t thread;

    pthread_mutex_t mu; /* leaf: guards all below */
    pthread_cond_t wake;
    db_req *head, **tail;
    int64_t n_waiting, n_commits, n_requests;
    bool stop;
    db_progress progress[PROGRESS_MAX];
    size_t n_progress;
    int64_t progress_due_ns;
    dr_status health;
    dr_error health_err;
};

static void set_health(db_writer *w, dr_status s, const dr_error *err) {
    pthread_mutex_lock(&w->mu);
    w->health = s;
    w->health_err = *err;
    if (!s) w->n_commits++;
    pthread_mutex_unlock(&w->mu);
}

static bool in_transaction(db_writer *w) {
    return !sqlite3_get_autocommit(w->c->h);
}

static dr_status end(db_writer *w, dr_status s, dr_error *err) {
    if (!s) s = db_exec(w->c, "COMMIT", err);
    if (s && in_transaction(w)) db_try(w->c, "ROLLBACK");
    set_health(w, s, err);
    return s;
}

static void run_one(db_writer *w, db_req *r) {
    r->err = (dr_error){0};
    r->status = db_exec(w->c, "SAVEPOINT r", &r->err);
    if (r->status) return;
    r->status = r->run(w->db, w->c, r, &r->err);
    if (!in_transaction(w)) { /* SQLite gave up the whole transaction */
        if (!r->status) r->status = dr_fail(&r->err, DR_INTERNAL, "database: the transaction was lost");
        return;
    }
    if (r->status) db_try(w->c, "ROLLBACK TO r");
    dr_error err = {0};
    dr_status s = db_exec(w->c, "RELEASE r", &err);
    if (s && !r->status) {
        r->err = err;
        r->status = s;
    }
}

/* One transaction for the n requests from `batch` on. False: nothing of it was committed and it should be taken apart.
 */
static bool run_batch(db_writer *w, db_req *batch, size_t n, const db_progress *progress, size_t n_progress) {
    dr_error err = {0};
    dr_status s = db_exec(w->c, "BEGIN IMMEDIATE", &err);
    db_req *r = batch;
    for (size_t i = 0; !s && i < n; i++, r = r->next) {
        run_one(w, r);
        if (!in_transaction(w)) {
            s = r->status;
            err = r->err;
        }
    }
    if (!s && n_progress) s = db_progress_write(w->c, progress, n_progress, &err);
    s = end(w, s, &err);
    if (!s) return true;
    if (n > 1 || (n == 1 && n_progress)) return false;
    if (n == 1 && !batch->status) { /* its own part was fine, the commit was not */
        batch->status = s;
        batch->err = err;
    }
    return true;
}

static void work(db_writer *w, db_req *batch, size_t n, const db_progress *progress, size_t n_progress) {
    for (db_req *r = batch; r; r = r->next) r->status = DR_OK;
    if (!run_batch(w, batch, n, progress, n_progress))
        for (db_req *r = batch; r; r = r->next) {
            r->status = DR_OK;
            (void)run_batch(w, r, 1, NULL, 0);
        }
    for (db_req *r = batch, *next; r; r = next) {
        next = r->next; /* r is gone once it is answered */
        if (r->done)
            r->done(r);
        else
            sem_post(&r->sem);
    }
}

static bool wait_until(db_writer *w, int64_t ns) {
    struct timespec ts = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
    return pthread_cond_timedwait(&w->wake, &w->mu, &ts) == 0;
}

static void checkpoint(db_writer *w) {
    sqlite3_wal_checkpoint_v2(w->c->h, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
}

static void *writer_main(void *arg) {
    db_writer *w = arg;
    db_progress progress[PROGRESS_MAX];
    bool dirty = true;
    int64_t idle_since = dr_clock_ns(), optimized = idle_since;
    pthread_mutex_lock(&w->mu);
    for (;;) {
        int64_t now = dr_clock_ns();
        bool flush = w->n_progress && (w->progress_due_ns <= now || w->stop || w->head);
        if (!w->head && !flush) {
            if (w->stop) break;
            if (w->n_progress) {
                (void)wait_until(w, w->progress_due_ns);
            } else if (dirty) {
                if (now < idle_since + IDLE_MS * INT64_C(1000000)) {
                    (void)wait_until(w, idle_since + IDLE_MS * INT64_C(1000000));
                } else {
                    pthread_mutex_unlock(&w->mu);
                    checkpoint(w);
                    if (now - optimized > OPTIMIZE_NS) {
                        db_try(w->c, "PRAGMA optimize");
                        optimized = now;
                    }
                    dirty = false;
                    pthread_mutex_lock(&w->mu);
                }
            } else {
                pthread_cond_wait(&w->wake, &w->mu);
            }
            continue;
        }
        db_req *batch = w->head, *last = NULL;
        size_t n = 0;
        for (db_req *r = batch; r && n < BATCH_MAX; r = r->next, n++) last = r;
        w->head = last ? last->next : NULL;
        if (last) last->next = NULL;
        if (!w->head) w->tail = &w->head;
        w->n_waiting -= (int64_t)n;
        w->n_requests += (int64_t)n;
        size_t n_progress = flush ? w->n_progress : 0;
        memcpy(progress, w->progress, n_progress * sizeof *progress);
        if (flush) w->n_progress = 0;
        pthread_mutex_unlock(&w->mu);
        work(w, batch, n, progress, n_progress);
        pthread_mutex_lock(&w->mu);
        dirty = true;
        idle_since = dr_clock_ns();
    }
    pthread_mutex_unlock(&w->mu);
    checkpoint(w);
    return NULL;
}

dr_status db_writer_start(db_store *db, db_conn *c, db_writer **ret, dr_error *err) {
    db_writer *w = dr_calloc(1, sizeof *w);
    if (!w) return dr_fail(err, DR_NOMEM, "no memory for the store's thread");
    w->db = db;
    w->c = c;
    w->tail = &w->head;
    pthread_mutex_init(&w->mu, NULL);
    pthread_condattr_t a;
    pthread_condattr_init(&a);
    pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
    pthread_cond_init(&w->wake, &a);
    pthread_condattr_destroy(&a);
    int rc = pthread_create(&w->thread, NULL, writer_main, w);
    if (rc) {
        pthread_cond_destroy(&w->wake);
        pthread_mutex_destroy(&w->mu);
        dr_free(w);
        return dr_fail(err, DR_UNAVAILABLE, "the store's thread does not start (error %d)", rc);
    }
    *ret = w;
    return DR_OK;
}

void db_writer_stop(db_writer *w) {
    if (!w) return;
    pthread_mutex_lock(&w->mu);
    w->stop = true;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->mu);
    pthread_join(w->thread, NULL);
    pthread_cond_destroy(&w->wake);
    pthread_mutex_destroy(&w->mu);
    db_conn_close(w->c);
    dr_free(w);
}

void db_writer_submit(db_writer *w, db_req *r) {
    r->next = NULL;
    pthread_mutex_lock(&w->mu);
    *w->tail = r;
    w->tail = &r->next;
    w->n_waiting++;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->mu);
}

void db_writer_progress(db_writer *w, const char *id, int64_t epoch, double value) {
    if (!(value >= 0)) value = 0;
    if (value > 1) value = 1;
    pthread_mutex_lock(&w->mu);
    size_t i = 0;
    while (i < w->n_progress && strcmp(w->progress[i].id, id) != 0) i++;
    if (i < PROGRESS_MAX) { /* more running jobs than this do not exist; the surplus waits for the next call */
        db_progress *p = &w->progress[i];
        if (i == w->n_progress) {
            if (!w->n_progress++) w->progress_due_ns = dr_clock_ns() + PROGRESS_MS * INT64_C(1000000);
            size_t len = strnlen(id, DB_ID - 1);
            memcpy(p->id, id, len);
            p->id[len] = 0;
        }
        p->epoch = epoch;
        p->value = value;
        pthread_cond_signal(&w->wake);
    }
    pthread_mutex_unlock(&w->mu);
}

void db_writer_stats(db_writer *w, db_stats *ret) {
    pthread_mutex_lock(&w->mu);
    ret->commits = w->n_commits;
    ret->requests = w->n_requests;
    ret->fifo = w->n_waiting;
    pthread_mutex_unlock(&w->mu);
}

dr_status db_writer_health(db_writer *w, dr_error *ret_err) {
    pthread_mutex_lock(&w->mu);
    dr_status s = w->health;
    *ret_err = w->health_err;
    pthread_mutex_unlock(&w->mu);
    return s;
}
