/* batcher.c - see batcher.h. One mutex, a leaf, guards the two lists and the engines; runs are made without it.
 *
 * All who wait sleep on one condition and look for themselves whether it is their turn: there are no more of them than
 * workers, and whose turn it is depends on everybody else. */
#include "server/batcher.h"
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include <assert.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#define MS INT64_C(1000000)

typedef struct list {
    srv_batch_item *head, **tail;
} list;

struct srv_batcher {
    srv_batcher_opts o;
    pthread_mutex_t mu;
    pthread_cond_t cond;
    list coming, waiting; /* the oldest first */
    int n_waiting;
    int busy; /* engines that run */
    bool stop;
    bool taken[]; /* engine i runs */
};

static void append(list *l, srv_batch_item *item) {
    item->next = NULL;
    *l->tail = item;
    l->tail = &item->next;
}

static void take_off(list *l, srv_batch_item *item) {
    srv_batch_item **at = &l->head;
    while (*at && *at != item) at = &(*at)->next;
    assert(*at == item);
    *at = item->next;
    if (!*at) l->tail = at;
    item->next = NULL;
}

static bool same_key(const srv_batch_item *a, const srv_batch_item *b) {
    return a->key.w == b->key.w && a->key.h == b->key.h && a->key.version == b->key.version &&
           !strcmp(a->key.name, b->key.name);
}

static bool is_cancelled(const srv_batcher *b, const srv_batch_item *item) {
    return b->stop || (item->cancel && atomic_load(item->cancel));
}

/* --- open and close --- */

dr_status srv_batcher_open(const srv_batcher_opts *opts, srv_batcher **ret, dr_error *err) {
    assert(opts->engines > 0 && opts->batch > 0 && opts->batch <= SRV_BATCH_MOST);
    srv_batcher *b = dr_calloc(1, sizeof *b + (size_t)opts->engines * sizeof b->taken[0]);
    pthread_condattr_t attr;
    if (!b) return dr_fail(err, DR_NOMEM, "out of memory");
    b->o = *opts;
    b->coming.tail = &b->coming.head;
    b->waiting.tail = &b->waiting.head;
    pthread_mutex_init(&b->mu, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&b->cond, &attr);
    pthread_condattr_destroy(&attr);
    *ret = b;
    return DR_OK;
}

void srv_batcher_close(srv_batcher *b) {
    if (!b) return;
    assert(!b->coming.head && !b->waiting.head && !b->busy);
    pthread_cond_destroy(&b->cond);
    pthread_mutex_destroy(&b->mu);
    dr_free(b);
}

/* --- whose turn it is --- */

/* The window: the first of its key waits for company that is on its way. Returns when it has waited enough, 0 = it need
 * not wait. */
static int64_t waits_until(const srv_batcher *b, const srv_batch_item *first) {
    int here = 0;
    bool coming = false;
    if (b->busy || b->o.batch < 2 || !b->o.window_ms) return 0;
    for (const srv_batch_item *i = first; i; i = i->next) here += same_key(i, first);
    for (const srv_batch_item *i = b->coming.head; i && !coming; i = i->next) coming = same_key(i, first);
    int64_t end = first->offered_ns + b->o.window_ms * MS;
    return coming && here < b->o.batch && dr_clock_ns() < end ? end : 0;
}

static bool is_first_of_key(const srv_batcher *b, const srv_batch_item *item) {
    const srv_batch_item *i = b->waiting.head;
    while (!same_key(i, item)) i = i->next;
    return i == item;
}

/* Is `item` the oldest that need not wait? *ret_until: if not, when it is worth another look, 0 = when somebody says
 * so.
 */
static bool leads(const srv_batcher *b, const srv_batch_item *item, int64_t *ret_until) {
    *ret_until = 0;
    if (b->busy == b->o.engines || !is_first_of_key(b, item)) return false;
    if ((*ret_until = waits_until(b, item))) return false;
    for (const srv_batch_item *i = b->waiting.head; i != item; i = i->next)
        if (is_first_of_key(b, i) && !waits_until(b, i)) return false; /* an older one, whose thread is awake */
    return true;
}

/* --- a run --- */

/* The leader and those of its key, in their order; who was cancelled stays and leaves by himself. */
static int take_batch(srv_batcher *b, srv_batch_item *leader, srv_batch_item **ret) {
    int n = 0;
    for (srv_batch_item *i = b->waiting.head, *next; i && n < b->o.batch; i = next) {
        next = i->next;
        if (!same_key(i, leader) || (i != leader && is_cancelled(b, i))) continue;
        take_off(&b->waiting, i);
        i->state = SRV_BATCH_TAKEN;
        ret[n++] = i;
    }
    b->n_waiting -= n;
    return n;
}

static int take_engine(srv_batcher *b) {
    int e = 0;
    while (b->taken[e]) e++;
    b->taken[e] = true;
    b->busy++;
    return e;
}

static void count(const srv_batcher *b, srv_batch_item *const *items, int n) {
    int64_t now = dr_clock_ns();
    for (int i = 0; i < n && b->o.waits; i++) srv_hist_add(b->o.waits, (double)(now - items[i]->offered_ns) / 1e9);
    if (b->o.batches) atomic_fetch_add_explicit(b->o.batches, 1, memory_order_relaxed);
    if (b->o.pictures) atomic_fetch_add_explicit(b->o.pictures, (uint64_t)n, memory_order_relaxed);
}

/* Under the mutex, which is open while it runs. */
static void lead(srv_batcher *b, srv_batch_item *leader) {
    srv_batch_item *items[SRV_BATCH_MOST];
    dr_error err = {0};
    int n = take_batch(b, leader, items), engine = take_engine(b);
    pthread_cond_broadcast(&b->cond); /* another one may be the oldest now, for another engine */
    pthread_mutex_unlock(&b->mu);
    count(b, items, n);
    dr_status s = b->o.run(b->o.arg, engine, items, n, &err);
    pthread_mutex_lock(&b->mu);
    b->taken[engine] = false;
    b->busy--;
    for (int i = 0; i < n; i++) {
        items[i]->status = s;
        items[i]->err = err;
        items[i]->state = SRV_BATCH_DONE;
    }
    pthread_cond_broadcast(&b->cond);
}

/* --- items --- */

void srv_batcher_expect(srv_batcher *b, srv_batch_item *item) {
    assert(item->state == SRV_BATCH_NEW);
    pthread_mutex_lock(&b->mu);
    append(&b->coming, item);
    item->state = SRV_BATCH_COMING;
    pthread_mutex_unlock(&b->mu);
}

static void no_longer_coming(srv_batcher *b, srv_batch_item *item) {
    if (item->state == SRV_BATCH_COMING) take_off(&b->coming, item);
    item->state = SRV_BATCH_NEW;
}

void srv_batcher_forget(srv_batcher *b, srv_batch_item *item) {
    pthread_mutex_lock(&b->mu);
    no_longer_coming(b, item);
    pthread_cond_broadcast(&b->cond); /* somebody may have waited for it */
    pthread_mutex_unlock(&b->mu);
}

static void sleep_until(srv_batcher *b, int64_t ns) {
    if (ns) {
        struct timespec ts = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
        (void)pthread_cond_timedwait(&b->cond, &b->mu, &ts);
    } else {
        pthread_cond_wait(&b->cond, &b->mu);
    }
}

dr_status srv_batcher_offer(srv_batcher *b, srv_batch_item *item, dr_error *err) {
    int64_t until;
    bool gone = false;
    pthread_mutex_lock(&b->mu);
    no_longer_coming(b, item);
    append(&b->waiting, item);
    b->n_waiting++;
    item->state = SRV_BATCH_WAITING;
    item->offered_ns = dr_clock_ns();
    pthread_cond_broadcast(&b->cond); /* company for one in its window */
    while (item->state != SRV_BATCH_DONE && !gone) {
        if (item->state == SRV_BATCH_WAITING && is_cancelled(b, item)) {
            take_off(&b->waiting, item);
            b->n_waiting--;
            gone = true;
            pthread_cond_broadcast(&b->cond); /* it may have been the oldest */
        } else if (item->state == SRV_BATCH_TAKEN) {
            sleep_until(b, 0);
        } else if (leads(b, item, &until)) {
            lead(b, item);
        } else {
            sleep_until(b, until);
        }
    }
    pthread_mutex_unlock(&b->mu);
    if (gone) return dr_fail(err, DR_CANCELLED, "cancelled");
    if (item->status && err && !err->code) *err = item->err;
    return item->status;
}

/* --- from outside --- */

void srv_batcher_wake(srv_batcher *b) {
    if (!b) return;
    pthread_mutex_lock(&b->mu); /* so that no sleeper has looked before and sleeps after */
    pthread_cond_broadcast(&b->cond);
    pthread_mutex_unlock(&b->mu);
}

void srv_batcher_one_by_one(srv_batcher *b) {
    pthread_mutex_lock(&b->mu);
    b->o.batch = 1;
    pthread_cond_broadcast(&b->cond);
    pthread_mutex_unlock(&b->mu);
}

void srv_batcher_stop(srv_batcher *b) {
    if (!b) return;
    pthread_mutex_lock(&b->mu);
    b->stop = true;
    pthread_cond_broadcast(&b->cond);
    pthread_mutex_unlock(&b->mu);
}

int srv_batcher_waiting(srv_batcher *b) {
    pthread_mutex_lock(&b->mu);
    int n = b->n_waiting;
    pthread_mutex_unlock(&b->mu);
    return n;
}
