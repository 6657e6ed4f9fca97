/* watcher.c - see watcher.h.
 *
 * One mutex guards two lists; it is held for list work and at most a scan of them (a thousand entries). Peers publish
 * their phase through atomics, so that the many calls of an upload take no lock. The thread sleeps in epoll_wait until
 * a client leaves (EPOLLRDHUP), the doorbell rings (a nearer deadline, a stop), the nearest deadline comes, or, while
 * any peer is in a timed phase, a quarter of a second has passed. shutdown() is made under the mutex: srv_peer_close()
 * takes it too, so the descriptor cannot have been given to another connection. */
#include "server/watcher.h"
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { OFF, ARMED, PARKED };
#define MS        INT64_C(1000000)
#define TICK_NS   (250 * MS)
#define LINGER_NS (2000 * MS)

struct srv_watch {
    srv_watch_opts o;
    int epoll, bell;
    pthread_t thread;
    bool started;
    pthread_mutex_t mu;
    srv_peer peers;
    srv_park parks; /* list heads */
    int64_t sleeping_until;
    uint64_t serial;
    bool stop, stop_waiting;
};

static void ring(srv_watch *w) {
    uint64_t one = 1;
    while (write(w->bell, &one, sizeof one) < 0 && errno == EINTR) {
    }
}

/* --- parks --- */

static void unlist(srv_park *p) {
    p->prev->next = p->next;
    p->next->prev = p->prev;
    p->prev = p->next = NULL;
}

/* Under the mutex. A parked one moves to the chain of those to resume; an armed one is only marked. */
static void fire(srv_watch *w, srv_park *p, srv_wake why, srv_park **chain) {
    if (p->state == ARMED && !p->fired) p->fired = true, p->why = why;
    if (p->state != PARKED) return;
    if (p->fd >= 0) epoll_ctl(w->epoll, EPOLL_CTL_DEL, p->fd, NULL);
    p->state = OFF;
    p->why = why;
    unlist(p);
    p->chain = *chain;
    *chain = p;
}

/* Without the mutex. A resumed request may be gone before the next line: read its link first. */
static void resume_all(srv_watch *w, srv_park *chain) {
    while (chain) {
        srv_park *p = chain;
        chain = p->chain;
        w->o.resume(p->conn);
    }
}

void srv_park_arm(srv_watch *w, srv_park *p, const char *key) {
    *p = (srv_park){.state = ARMED, .interruptible = *key != 0, .fd = -1};
    snprintf(p->key, sizeof p->key, "%s", key);
    pthread_mutex_lock(&w->mu);
    p->serial = ++w->serial;
    p->next = w->parks.next;
    p->prev = &w->parks;
    p->next->prev = w->parks.next = p;
    if (p->interruptible && w->stop_waiting) p->fired = true, p->why = SRV_WAKE_STOP;
    pthread_mutex_unlock(&w->mu);
}

bool srv_park_disarm(srv_watch *w, srv_park *p) {
    pthread_mutex_lock(&w->mu);
    bool fired = p->fired;
    if (p->state != OFF) unlist(p);
    p->state = OFF;
    pthread_mutex_unlock(&w->mu);
    return fired;
}

void srv_park_wait(srv_watch *w, srv_park *p, void *conn, int fd, int64_t deadline_ns) {
    srv_park *chain = NULL;
    bool nearer = false;
    pthread_mutex_lock(&w->mu);
    p->conn = conn;
    p->deadline_ns = deadline_ns;
    p->state = PARKED;
    if (p->fired)
        fire(w, p, p->why, &chain);
    else {
        struct epoll_event ev = {.events = EPOLLRDHUP | EPOLLET, .data.u64 = p->serial};
        if (fd >= 0 && p->interruptible && !epoll_ctl(w->epoll, EPOLL_CTL_ADD, fd, &ev)) p->fd = fd;
        nearer = deadline_ns && (!w->sleeping_until || deadline_ns < w->sleeping_until);
    }
    pthread_mutex_unlock(&w->mu);
    if (nearer) ring(w);
    resume_all(w, chain);
}

srv_wake srv_park_why(srv_watch *w, const srv_park *p) {
    pthread_mutex_lock(&w->mu);
    srv_wake why = p->why;
    pthread_mutex_unlock(&w->mu);
    return why;
}

void srv_park_wake(srv_watch *w, srv_park *p) {
    srv_park *chain = NULL;
    pthread_mutex_lock(&w->mu);
    fire(w, p, SRV_WAKE_EVENT, &chain);
    pthread_mutex_unlock(&w->mu);
    resume_all(w, chain);
}

void srv_park_wake_key(srv_watch *w, const char *key) {
    srv_park *chain = NULL;
    pthread_mutex_lock(&w->mu);
    for (srv_park *p = w->parks.next, *next; p != &w->parks; p = next) {
        next = p->next;
        if (p->interruptible && !strcmp(p->key, key)) fire(w, p, SRV_WAKE_EVENT, &chain);
    }
    pthread_mutex_unlock(&w->mu);
    resume_all(w, chain);
}

size_t srv_park_waiting(srv_watch *w) {
    size_t n = 0;
    pthread_mutex_lock(&w->mu);
    for (const srv_park *p = w->parks.next; p != &w->parks; p = p->next)
        n += p->interruptible && !p->looks_on && p->state == PARKED;
    pthread_mutex_unlock(&w->mu);
    return n;
}

void srv_park_own(srv_watch *w, srv_park *p) {
    pthread_mutex_lock(&w->mu);
    p->owner = true;
    pthread_mutex_unlock(&w->mu);
}

void srv_park_looks_on(srv_watch *w, srv_park *p) {
    pthread_mutex_lock(&w->mu);
    p->looks_on = true;
    pthread_mutex_unlock(&w->mu);
}

bool srv_park_owned(srv_watch *w, const srv_park *but, const char *key) {
    bool owned = false;
    pthread_mutex_lock(&w->mu);
    for (const srv_park *p = w->parks.next; p != &w->parks; p = p->next)
        owned = owned || (p != but && p->owner && !strcmp(p->key, key));
    pthread_mutex_unlock(&w->mu);
    return owned;
}

void srv_watch_stop_waiting(srv_watch *w) {
    srv_park *chain = NULL;
    pthread_mutex_lock(&w->mu);
    w->stop_waiting = true;
    for (srv_park *p = w->parks.next, *next; p != &w->parks; p = next) {
        next = p->next;
        if (p->interruptible) fire(w, p, SRV_WAKE_STOP, &chain);
    }
    pthread_mutex_unlock(&w->mu);
    resume_all(w, chain);
}

/* --- peers --- */

void srv_peer_open(srv_watch *w, srv_peer *p, int fd) {
    p->fd = fd;
    atomic_store(&p->bytes, 0);
    atomic_store(&p->since_ns, dr_clock_ns());
    atomic_store(&p->phase, SRV_PHASE_HEADER);
    pthread_mutex_lock(&w->mu);
    bool first = w->peers.next == &w->peers;
    p->next = w->peers.next;
    p->prev = &w->peers;
    p->next->prev = w->peers.next = p;
    pthread_mutex_unlock(&w->mu);
    if (first) ring(w); /* it may be asleep without a tick */
}

void srv_peer_close(srv_watch *w, srv_peer *p) {
    pthread_mutex_lock(&w->mu);
    p->prev->next = p->next;
    p->next->prev = p->prev;
    pthread_mutex_unlock(&w->mu);
}

bool srv_peer_phase(srv_peer *p, srv_phase phase) {
    int old = atomic_load(&p->phase);
    do {
        if (old == SRV_PHASE_CUT) return false;
        if (old == (int)phase) return true;
        if (phase == SRV_PHASE_BODY) atomic_store(&p->bytes, 0);
        atomic_store(&p->since_ns, dr_clock_ns());
    } while (!atomic_compare_exchange_weak(&p->phase, &old, (int)phase));
    return true;
}

/* Has this phase lasted too long? */
static bool overdue(const srv_watch *w, srv_peer *p, int phase, int64_t now) {
    int64_t age = now - atomic_load(&p->since_ns);
    uint64_t bytes = atomic_load(&p->bytes);
    switch (phase) {
    case SRV_PHASE_IDLE:
        return age > w->o.idle_ms * MS;
    case SRV_PHASE_HEADER:
        return age > w->o.header_ms * MS;
    case SRV_PHASE_LINGER:
        return age > LINGER_NS;
    case SRV_PHASE_BODY:
        if (age > w->o.body_max_ms * MS) return true;
        return age > w->o.body_grace_ms * MS &&
               (double)bytes < (double)w->o.body_rate_min * (double)(age - w->o.body_grace_ms * MS) / 1e9;
    default:
        return false;
    }
}

/* Under the mutex: cut off what is overdue. Returns whether any peer needs another look. */
static bool look_at_peers(srv_watch *w, int64_t now) {
    bool timed = false;
    for (srv_peer *p = w->peers.next; p != &w->peers; p = p->next) {
        int phase = atomic_load(&p->phase);
        if (phase == SRV_PHASE_CUT) continue;
        timed = true;
        if (!overdue(w, p, phase, now)) continue;
        if (!atomic_compare_exchange_strong(&p->phase, &phase, SRV_PHASE_CUT)) continue; /* it moved on just now */
        if (phase == SRV_PHASE_BODY && w->o.too_slow) w->o.too_slow(w->o.arg, p->fd);
        shutdown(p->fd, SHUT_RDWR);
    }
    return timed;
}

/* --- the thread --- */

static void *run(void *arg) {
    srv_watch *w = arg;
    struct epoll_event ev[64];
    int n = 0;
    for (;;) {
        srv_park *chain = NULL;
        uint64_t count;
        pthread_mutex_lock(&w->mu);
        int64_t now = dr_clock_ns(), next = 0;
        bool stop = w->stop;
        for (srv_park *p = w->parks.next, *after; p != &w->parks; p = after) {
            after = p->next;
            bool left = false;
            for (int i = 0; i < n; i++) left = left || ev[i].data.u64 == p->serial;
            if (p->state != PARKED) continue;
            if (left)
                fire(w, p, SRV_WAKE_GONE, &chain);
            else if (p->deadline_ns && p->deadline_ns <= now)
                fire(w, p, SRV_WAKE_TIMEOUT, &chain);
            else if (p->deadline_ns && (!next || p->deadline_ns < next))
                next = p->deadline_ns;
        }
        if (look_at_peers(w, now) && (!next || next > now + TICK_NS)) next = now + TICK_NS;
        w->sleeping_until = next;
        pthread_mutex_unlock(&w->mu);
        resume_all(w, chain);
        if (stop) return NULL;
        int64_t ms = next ? (next - now + MS - 1) / MS : -1;
        n = epoll_wait(w->epoll, ev, 64, (int)(ms > 60000 ? 60000 : ms));
        for (int i = 0; i < n; i++)
            if (!ev[i].data.u64 && read(w->bell, &count, sizeof count) < 0) {
            } /* serial 0 is the doorbell */
        if (n < 0) n = 0;
    }
}

dr_status srv_watch_open(const srv_watch_opts *opts, srv_watch **ret, dr_error *err) {
    srv_watch *w = dr_calloc(1, sizeof *w);
    if (!w) return dr_fail(err, DR_NOMEM, "out of memory");
    w->o = *opts;
    w->peers.next = w->peers.prev = &w->peers;
    w->parks.next = w->parks.prev = &w->parks;
    pthread_mutex_init(&w->mu, NULL);
    w->epoll = epoll_create1(EPOLL_CLOEXEC);
    w->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event ev = {.events = EPOLLIN};
    dr_status s = DR_OK;
    if (w->epoll < 0 || w->bell < 0 || epoll_ctl(w->epoll, EPOLL_CTL_ADD, w->bell, &ev))
        s = dr_fail_errno(err, errno, "make", "epoll");
    else if (pthread_create(&w->thread, NULL, run, w))
        s = dr_fail(err, DR_NOMEM, "cannot start a thread");
    else
        w->started = true;
    if (s) {
        srv_watch_close(w);
        return s;
    }
    *ret = w;
    return DR_OK;
}

void srv_watch_close(srv_watch *w) {
    if (!w) return;
    if (w->started) {
        pthread_mutex_lock(&w->mu);
        w->stop = true;
        pthread_mutex_unlock(&w->mu);
        ring(w);
        pthread_join(w->thread, NULL);
    }
    if (w->epoll >= 0) close(w->epoll);
    if (w->bell >= 0) close(w->bell);
    pthread_mutex_destroy(&w->mu);
    dr_free(w);
}
