/* devices.c - see devices.h. A leaf lock; it is held while one is asked, so that nobody closes it meanwhile. */
#include "server/devices.h"
#include "core/base/alloc.h"
#include <pthread.h>

typedef struct place {
    const dr_engine *engine; /* one of the two */
    const dr_trainer *trainer;
} place;

static struct {
    pthread_mutex_t mu; /* guards the rest */
    place *at;
    size_t n, cap;
    uint64_t recorded, replayed; /* by those that were removed */
} all = {.mu = PTHREAD_MUTEX_INITIALIZER};

static bool ask(const place *p, dr_device_state *ret) {
    return p->engine ? dr_engine_device(p->engine, ret) : dr_trainer_device(p->trainer, ret);
}

static void add(place p) {
    pthread_mutex_lock(&all.mu);
    if (all.n == all.cap) {
        size_t cap = all.cap ? 2 * all.cap : 16;
        place *more = dr_realloc(all.at, cap * sizeof *more);
        if (more) {
            all.at = more;
            all.cap = cap;
        }
    }
    if (all.n < all.cap) all.at[all.n++] = p;
    pthread_mutex_unlock(&all.mu);
}

void srv_devices_add_engine(const dr_engine *e) {
    if (e) add((place){.engine = e});
}
void srv_devices_add_trainer(const dr_trainer *t) {
    if (t) add((place){.trainer = t});
}

void srv_devices_remove(const void *p) {
    dr_device_state s;
    pthread_mutex_lock(&all.mu);
    for (size_t i = 0; i < all.n; i++)
        if (p && (all.at[i].engine == p || all.at[i].trainer == p)) {
            if (ask(&all.at[i], &s)) {
                all.recorded += s.recorded;
                all.replayed += s.replayed;
            }
            all.at[i] = all.at[--all.n];
            break;
        }
    if (!all.n) { /* nobody is left: so that leak checkers see nothing */
        dr_free(all.at);
        all.at = NULL;
        all.cap = 0;
    }
    pthread_mutex_unlock(&all.mu);
}

bool srv_devices_read(dr_device_state *ret) {
    bool some = false;
    pthread_mutex_lock(&all.mu);
    dr_device_state sum = {.recorded = all.recorded, .replayed = all.replayed}, s;
    for (size_t i = 0; i < all.n; i++) {
        if (!ask(&all.at[i], &s)) continue;
        some = true;
        sum.memory_used += s.memory_used;
        sum.memory_free = s.memory_free; /* of the one device, whoever tells it */
        sum.memory_all = s.memory_all;
        sum.plans += s.plans;
        sum.plans_tuned += s.plans_tuned;
        sum.recorded += s.recorded;
        sum.replayed += s.replayed;
    }
    pthread_mutex_unlock(&all.mu);
    *ret = sum;
    return some;
}
