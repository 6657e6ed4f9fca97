/* gate.c - see gate.h. One mutex, a leaf. While nobody wants to compute but the training, pass is one atomic load. */
#include "server/gate.h"
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#define MS INT64_C(1000000)

/* Adds up the time of n things that go on at once. */
typedef struct meter {
    int64_t sum_ns, since_ns;
    int n;
} meter;

struct srv_gate {
    srv_hist *waits;
    _Atomic uint64_t *preemptions;
    _Atomic int wanted; /* waiting + active, to be read without the mutex */
    atomic_bool hurry;
    pthread_mutex_t mu;
    pthread_cond_t cond;
    bool computing;           /* the training is in an op */
    int waiting, active;      /* tickets */
    int64_t turn_end_ns;      /* the training may go on beside tickets until then */
    bool side_active;         /* the comparison is in a layer */
    bool side_ready;          /* only the training is in its way */
    int64_t side_turn_end_ns; /* as turn_end_ns */
    meter busy[SRV_GATE_USERS], waiters[SRV_GATE_USERS];
};

dr_status srv_gate_open(srv_hist *waits, _Atomic uint64_t *preemptions, srv_gate **ret, dr_error *err) {
    srv_gate *g = dr_calloc(1, sizeof *g);
    pthread_condattr_t attr;
    if (!g) return dr_fail(err, DR_NOMEM, "out of memory");
    g->waits = waits;
    g->preemptions = preemptions;
    pthread_mutex_init(&g->mu, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&g->cond, &attr);
    pthread_condattr_destroy(&attr);
    *ret = g;
    return DR_OK;
}

void srv_gate_close(srv_gate *g) {
    if (!g) return;
    pthread_cond_destroy(&g->cond);
    pthread_mutex_destroy(&g->mu);
    dr_free(g);
}

/* --- what became of the time; under the mutex --- */

static void count(meter *m, int more) {
    int64_t now = dr_clock_ns();
    m->sum_ns += m->n * (now - m->since_ns);
    m->since_ns = now;
    m->n += more;
}

void srv_gate_read(srv_gate *g, srv_gate_times *ret) {
    pthread_mutex_lock(&g->mu);
    for (int i = 0; i < SRV_GATE_USERS; i++) {
        count(&g->busy[i], 0);
        count(&g->waiters[i], 0);
        ret->busy[i] = (double)g->busy[i].sum_ns / 1e9;
        ret->waited[i] = (double)g->waiters[i].sum_ns / 1e9;
    }
    pthread_mutex_unlock(&g->mu);
}

/* --- tickets --- */

void srv_gate_enter(srv_gate *g) {
    if (!g) return;
    int64_t start = dr_clock_ns();
    atomic_fetch_add(&g->wanted, 1);
    pthread_mutex_lock(&g->mu);
    bool waited = g->computing || g->side_active;
    g->waiting++;
    count(&g->waiters[SRV_GATE_DERAIN], 1);
    while (g->computing || g->side_active) pthread_cond_wait(&g->cond, &g->mu);
    count(&g->waiters[SRV_GATE_DERAIN], -1);
    count(&g->busy[SRV_GATE_DERAIN], 1);
    g->waiting--;
    g->active++;
    if (!g->waiting) pthread_cond_broadcast(&g->cond); /* a turn goes on when all have passed */
    pthread_mutex_unlock(&g->mu);
    if (waited) srv_hist_add(g->waits, (double)(dr_clock_ns() - start) / 1e9);
}

void srv_gate_leave(srv_gate *g) {
    if (!g) return;
    pthread_mutex_lock(&g->mu);
    g->active--;
    count(&g->busy[SRV_GATE_DERAIN], -1);
    pthread_cond_broadcast(&g->cond);
    pthread_mutex_unlock(&g->mu);
    atomic_fetch_sub(&g->wanted, 1);
}

/* Under the mutex, which is let go meanwhile: still computing, so that everybody waits until the device is free. */
static void drained(srv_gate *g, srv_gate_drain *drain, void *arg) {
    if (!drain) return;
    pthread_mutex_unlock(&g->mu);
    drain(arg);
    pthread_mutex_lock(&g->mu);
}

/* --- the comparison --- */

/* Under the mutex, not active: until it may compute. */
static bool side_turn(srv_gate *g, const atomic_bool *stop) {
    int64_t end = dr_clock_ns() + SRV_GATE_PARKED_MS * MS;
    bool late = false;
    while (!atomic_load(stop)) {
        bool may = !g->waiting && (!g->active || dr_clock_ns() < g->side_turn_end_ns);
        if (!may && !g->waiting && (late || dr_clock_ns() >= end)) {
            g->side_turn_end_ns = dr_clock_ns() + SRV_GATE_TURN_MS * MS;
            may = true;
        }
        g->side_ready = may && g->computing;
        if (may && !g->computing) {
            g->side_active = true;
            return true;
        }
        if (late || g->side_ready) {
            pthread_cond_wait(&g->cond, &g->mu);
        } else {
            struct timespec ts = {.tv_sec = end / 1000000000, .tv_nsec = end % 1000000000};
            late = pthread_cond_timedwait(&g->cond, &g->mu, &ts) == ETIMEDOUT;
        }
    }
    g->side_ready = false;
    pthread_cond_broadcast(&g->cond); /* the training need not stand aside any more */
    return false;
}

static bool side_wait(srv_gate *g, const atomic_bool *stop) {
    count(&g->waiters[SRV_GATE_COMPARISON], 1);
    bool go = side_turn(g, stop);
    count(&g->waiters[SRV_GATE_COMPARISON], -1);
    if (go) count(&g->busy[SRV_GATE_COMPARISON], 1);
    return go;
}

static void side_leave(srv_gate *g) {
    if (g->side_active) count(&g->busy[SRV_GATE_COMPARISON], -1);
    g->side_active = false;
    pthread_cond_broadcast(&g->cond);
}

bool srv_gate_side_begin(srv_gate *g, const atomic_bool *stop) {
    atomic_fetch_add(&g->wanted, 1);
    pthread_mutex_lock(&g->mu);
    bool go = side_wait(g, stop);
    pthread_mutex_unlock(&g->mu);
    return go;
}

bool srv_gate_side_pass(srv_gate *g, const atomic_bool *stop, srv_gate_drain *drain, void *arg) {
    bool go = true;
    if (atomic_load(stop)) return false;
    if (atomic_load(&g->wanted) <= 1) return true; /* that one is ours */
    pthread_mutex_lock(&g->mu);
    if (g->waiting || (g->active && dr_clock_ns() >= g->side_turn_end_ns)) {
        drained(g, drain, arg);
        side_leave(g);
        go = side_wait(g, stop);
    }
    pthread_mutex_unlock(&g->mu);
    return go;
}

void srv_gate_side_end(srv_gate *g) {
    pthread_mutex_lock(&g->mu);
    side_leave(g);
    pthread_mutex_unlock(&g->mu);
    atomic_fetch_sub(&g->wanted, 1);
}

void srv_gate_wake(srv_gate *g) {
    if (!g) return;
    pthread_mutex_lock(&g->mu);
    pthread_cond_broadcast(&g->cond);
    pthread_mutex_unlock(&g->mu);
}

/* --- the training --- */

/* Under the mutex, not computing: until it may compute. */
static void own_turn(srv_gate *g) {
    int64_t end = dr_clock_ns() + SRV_GATE_PARKED_MS * MS;
    bool late = false;
    for (;;) {
        if (!g->waiting && !g->side_ready) { /* else they pass first: at most as many as there are workers */
            bool held = g->active || g->side_active;
            if (atomic_load(&g->hurry) || !held || dr_clock_ns() < g->turn_end_ns) return;
            if (late || dr_clock_ns() >= end) {
                g->turn_end_ns = dr_clock_ns() + SRV_GATE_TURN_MS * MS;
                return;
            }
        }
        if (late) {
            pthread_cond_wait(&g->cond, &g->mu);
        } else {
            struct timespec ts = {.tv_sec = end / 1000000000, .tv_nsec = end % 1000000000};
            late = pthread_cond_timedwait(&g->cond, &g->mu, &ts) == ETIMEDOUT;
        }
    }
}

static void wait_turn(srv_gate *g) {
    count(&g->waiters[SRV_GATE_TRAINING], 1);
    own_turn(g);
    count(&g->waiters[SRV_GATE_TRAINING], -1);
    count(&g->busy[SRV_GATE_TRAINING], 1);
    g->computing = true;
}

static void stand_still(srv_gate *g) {
    count(&g->busy[SRV_GATE_TRAINING], -1);
    g->computing = false;
    pthread_cond_broadcast(&g->cond);
}

void srv_gate_begin(srv_gate *g) {
    pthread_mutex_lock(&g->mu);
    wait_turn(g);
    pthread_mutex_unlock(&g->mu);
}

void srv_gate_end(srv_gate *g) {
    pthread_mutex_lock(&g->mu);
    stand_still(g);
    pthread_mutex_unlock(&g->mu);
}

void srv_gate_begin_arg(void *arg) {
    srv_gate_begin(arg);
}
void srv_gate_end_arg(void *arg) {
    srv_gate_end(arg);
}

void srv_gate_pass(srv_gate *g, srv_gate_drain *drain, void *arg) {
    if (!atomic_load(&g->wanted)) return;
    pthread_mutex_lock(&g->mu);
    bool held = g->active || g->side_active;
    if (g->waiting || g->side_ready || (held && dr_clock_ns() >= g->turn_end_ns)) {
        atomic_fetch_add_explicit(g->preemptions, 1, memory_order_relaxed);
        drained(g, drain, arg);
        stand_still(g);
        wait_turn(g);
    }
    pthread_mutex_unlock(&g->mu);
}

void srv_gate_hurry(srv_gate *g, bool on) {
    if (!g) return;
    atomic_store(&g->hurry, on);
    pthread_mutex_lock(&g->mu);
    pthread_cond_broadcast(&g->cond);
    pthread_mutex_unlock(&g->mu);
}
