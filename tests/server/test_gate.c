/* test_gate.c - tickets wait for one op of the training at most; the training is not starved; nothing is lost. */
#include "core/base/clock.h"
#include "server/gate.h"
#include "tests/t.h"
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>

enum { OP_MS = 10 };

typedef struct scene {
    srv_gate *g;
    srv_hist waits;
    _Atomic uint64_t preempted;
    atomic_bool stop, computing;
    atomic_int ops, beside; /* ops done; those that ran beside a ticket */
    atomic_int held;
} scene;

/* A device whose ops take a known time. */
static void *train(void *arg) {
    scene *s = arg;
    while (!atomic_load(&s->stop)) {
        srv_gate_begin(s->g);
        for (int i = 0; i < 20 && !atomic_load(&s->stop); i++) {
            srv_gate_pass(s->g, NULL, NULL);
            atomic_store(&s->computing, true);
            if (atomic_load(&s->held)) atomic_fetch_add(&s->beside, 1);
            poll(NULL, 0, OP_MS);
            atomic_fetch_add(&s->ops, 1);
            atomic_store(&s->computing, false);
        }
        srv_gate_end(s->g);
    }
    return NULL;
}

static void open_scene(scene *s, pthread_t *t) {
    CHECK(!srv_gate_open(&s->waits, &s->preempted, &s->g, NULL));
    CHECK(!pthread_create(t, NULL, train, s));
}
static void close_scene(scene *s, pthread_t t) {
    atomic_store(&s->stop, true);
    pthread_join(t, NULL);
    srv_gate_close(s->g);
}

TEST(a_ticket_waits_for_one_op_and_keeps_the_training_out) {
    static scene s;
    pthread_t t;
    double worst = 0;
    open_scene(&s, &t);
    for (int i = 0; i < 40; i++) {
        poll(NULL, 0, 7 + i % 5);
        int64_t t0 = dr_clock_ns();
        srv_gate_enter(s.g);
        double ms = (double)(dr_clock_ns() - t0) / 1e6;
        if (ms > worst) worst = ms;
        CHECK(!atomic_load(&s.computing));
        int before = atomic_load(&s.ops);
        poll(NULL, 0, 15);
        CHECK(atomic_load(&s.ops) == before && !atomic_load(&s.computing)); /* it stands still */
        srv_gate_leave(s.g);
    }
    int ops = atomic_load(&s.ops);
    close_scene(&s, t);
    CHECK_MSG(worst < 10 * OP_MS, "waited %.1f ms", worst); /* one op and what a busy machine adds */
    CHECK_MSG(ops >= 10, "%d ops", ops);
    CHECK(atomic_load(&s.preempted) >= 10 && atomic_load(&s.waits.count) >= 10);
}

typedef struct client {
    scene *s;
    double worst;
    int n;
} client;

static void *tickets(void *arg) {
    client *c = arg;
    while (!atomic_load(&c->s->stop)) {
        int64_t t0 = dr_clock_ns();
        srv_gate_enter(c->s->g);
        double ms = (double)(dr_clock_ns() - t0) / 1e6;
        if (ms > c->worst) c->worst = ms;
        atomic_fetch_add(&c->s->held, 1);
        poll(NULL, 0, 60);
        atomic_fetch_sub(&c->s->held, 1);
        srv_gate_leave(c->s->g);
        c->n++;
    }
    return NULL;
}

TEST(under_constant_load_training_gets_its_share_and_tickets_still_pass) {
    static scene s;
    pthread_t t = 0, w[2];
    client c[2] = {{.s = &s}, {.s = &s}};
    open_scene(&s, &t);
    for (int i = 0; i < 2; i++) CHECK(!pthread_create(&w[i], NULL, tickets, &c[i]));
    poll(NULL, 0, 4500);
    atomic_store(&s.stop, true);
    for (int i = 0; i < 2; i++) pthread_join(w[i], NULL); /* they use the gate */
    close_scene(&s, t);
    int beside = atomic_load(&s.beside), ops = atomic_load(&s.ops);
    CHECK_MSG(beside >= 8, "%d ops beside tickets", beside); /* at least a turn or two of about ten */
    CHECK_MSG(ops < 150, "%d ops", ops);                     /* a share, not all */
    for (int i = 0; i < 2; i++) CHECK_MSG(c[i].n > 20 && c[i].worst < 10 * OP_MS, "%d, %.1f ms", c[i].n, c[i].worst);
}

TEST(a_hurry_ends_every_wait) {
    static scene s;
    CHECK(!srv_gate_open(&s.waits, &s.preempted, &s.g, NULL));
    srv_gate_enter(s.g);
    srv_gate_hurry(s.g, true);
    int64_t t0 = dr_clock_ns();
    srv_gate_begin(s.g);
    srv_gate_pass(s.g, NULL, NULL);
    srv_gate_end(s.g);
    CHECK(dr_clock_ns() - t0 < INT64_C(500000000));
    srv_gate_leave(s.g);
    srv_gate_close(s.g);
    srv_gate_enter(NULL); /* no training in this daemon */
    srv_gate_leave(NULL);
}

/* --- a device with a queue --- */

enum { SLICE_MS = 10, QUEUED_OPS = 40 };

/* Does what it is given in order, in real time; ops only queue, and whoever queues stays within a slice (dr_be_pace).
 */
typedef struct device {
    scene s;
    _Atomic int64_t end_ns; /* of what is queued */
    atomic_int drains;
    bool drains_first;
} device;

static void sleep_until(int64_t ns) {
    for (int64_t left; (left = ns - dr_clock_ns()) > 0;) poll(NULL, 0, (int)(left / 1000000) + 1);
}

static void drain_device(void *arg) {
    device *d = arg;
    atomic_fetch_add(&d->drains, 1);
    sleep_until(atomic_load(&d->end_ns));
}

static void *queue_ops(void *arg) {
    device *d = arg;
    while (!atomic_load(&d->s.stop)) {
        srv_gate_begin(d->s.g);
        for (int i = 0; i < QUEUED_OPS && !atomic_load(&d->s.stop); i++) {
            int64_t now = dr_clock_ns(), end = atomic_load(&d->end_ns);
            atomic_store(&d->end_ns, (end > now ? end : now) + INT64_C(2000000)); /* an op of 2 ms, queued at once */
            sleep_until(atomic_load(&d->end_ns) - SLICE_MS * INT64_C(1000000));
            srv_gate_pass(d->s.g, d->drains_first ? drain_device : NULL, d);
            atomic_fetch_add(&d->s.ops, 1);
        }
        drain_device(d);
        srv_gate_end(d->s.g);
    }
    return NULL;
}

/* A tickets' longest wait, and how often the device was not free when it was let in. */
static void tickets_at_a_device(device *d, double *ret_worst, int *ret_taken) {
    *ret_worst = 0;
    *ret_taken = 0;
    for (int i = 0; i < 30; i++) {
        poll(NULL, 0, 11 + i % 7);
        int64_t t0 = dr_clock_ns();
        srv_gate_enter(d->s.g);
        int64_t now = dr_clock_ns();
        double ms = (double)(now - t0) / 1e6;
        if (ms > *ret_worst) *ret_worst = ms;
        *ret_taken += atomic_load(&d->end_ns) > now;
        poll(NULL, 0, 5);
        *ret_taken += atomic_load(&d->end_ns) > dr_clock_ns(); /* and it stays so */
        srv_gate_leave(d->s.g);
    }
}

TEST(a_ticket_waits_for_one_slice_and_has_the_device_alone) {
    for (int drains = 0; drains < 2; drains++) {
        static device d[2];
        device *at = &d[drains];
        pthread_t t;
        double worst;
        int taken;
        at->drains_first = drains;
        CHECK(!srv_gate_open(&at->s.waits, &at->s.preempted, &at->s.g, NULL));
        CHECK(!pthread_create(&t, NULL, queue_ops, at));
        tickets_at_a_device(at, &worst, &taken);
        atomic_store(&at->s.stop, true);
        pthread_join(t, NULL);
        srv_gate_close(at->s.g);
        printf("# %s: waited %.1f ms at most, the device was taken %d of 60 times\n",
               drains ? "drained" : "not drained", worst, taken);
        if (!drains) CHECK_MSG(taken > 10, "%d: the test sees nothing", taken);
        if (drains) CHECK_MSG(!taken, "%d times", taken);
        if (drains) CHECK_MSG(worst < 4 * SLICE_MS, "waited %.1f ms", worst); /* one slice, on a busy machine */
        CHECK_MSG(atomic_load(&at->s.ops) > 20, "%d ops", atomic_load(&at->s.ops));
    }
}

/* --- what became of the time --- */

TEST(the_time_is_accounted_for) {
    static scene s;
    static struct { atomic_bool stop; } sig;
    srv_gate_times a, b;
    CHECK(!srv_gate_open(&s.waits, &s.preempted, &s.g, NULL));
    srv_gate_read(s.g, &a);
    for (int i = 0; i < SRV_GATE_USERS; i++) CHECK(a.busy[i] == 0 && a.waited[i] == 0);
    srv_gate_enter(s.g);
    srv_gate_enter(s.g);
    poll(NULL, 0, 100);
    srv_gate_read(s.g, &a); /* two tickets that are held */
    CHECK_MSG(a.busy[SRV_GATE_DERAIN] > 0.19 && a.busy[SRV_GATE_DERAIN] < 1, "%f", a.busy[SRV_GATE_DERAIN]);
    srv_gate_leave(s.g);
    srv_gate_leave(s.g);
    srv_gate_read(s.g, &a);
    srv_gate_begin(s.g);
    poll(NULL, 0, 60);
    srv_gate_pass(s.g, NULL, NULL);
    srv_gate_end(s.g);
    CHECK(srv_gate_side_begin(s.g, &sig.stop));
    poll(NULL, 0, 60);
    CHECK(srv_gate_side_pass(s.g, &sig.stop, NULL, NULL));
    srv_gate_side_end(s.g);
    srv_gate_read(s.g, &b);
    CHECK_MSG(b.busy[SRV_GATE_TRAINING] > 0.055 && b.busy[SRV_GATE_TRAINING] < 1, "%f", b.busy[SRV_GATE_TRAINING]);
    CHECK_MSG(b.busy[SRV_GATE_COMPARISON] > 0.055, "%f", b.busy[SRV_GATE_COMPARISON]);
    CHECK(b.busy[SRV_GATE_DERAIN] == a.busy[SRV_GATE_DERAIN] && b.waited[SRV_GATE_TRAINING] < 0.05);
    poll(NULL, 0, 60);
    srv_gate_read(s.g, &a);
    for (int i = 0; i < SRV_GATE_USERS; i++) CHECK(a.busy[i] == b.busy[i] && a.waited[i] == b.waited[i]);
    srv_gate_close(s.g);
}

TEST(what_is_waited_for_counts_for_who_waits) {
    static scene s;
    pthread_t t;
    srv_gate_times v;
    open_scene(&s, &t);
    srv_gate_enter(s.g);
    poll(NULL, 0, 300); /* the training stands still */
    srv_gate_leave(s.g);
    for (int i = 0; i < 20; i++) {
        poll(NULL, 0, 3 + i);
        srv_gate_enter(s.g);
        srv_gate_leave(s.g);
    }
    srv_gate_read(s.g, &v);
    close_scene(&s, t);
    double sum = (double)atomic_load(&s.waits.sum_us) / 1e6;
    CHECK_MSG(v.waited[SRV_GATE_TRAINING] > 0.25 && v.waited[SRV_GATE_TRAINING] < 2, "%f", v.waited[SRV_GATE_TRAINING]);
    CHECK_MSG(fabs(v.waited[SRV_GATE_DERAIN] - sum) < 0.01 + 0.1 * sum, "%f, %f", v.waited[SRV_GATE_DERAIN], sum);
    CHECK_MSG(v.busy[SRV_GATE_TRAINING] > 0.1 && v.waited[SRV_GATE_COMPARISON] == 0, "%f", v.busy[SRV_GATE_TRAINING]);
}

/* --- the comparison, between the two --- */

typedef struct side_scene {
    scene *s;
    atomic_bool stop, in_layer;
    atomic_int layers, beside_training, refused;
} side_scene;

static void *compare(void *arg) {
    side_scene *c = arg;
    while (!atomic_load(&c->stop)) {
        bool go = srv_gate_side_begin(c->s->g, &c->stop);
        for (int i = 0; i < 10 && go; i++) {
            atomic_store(&c->in_layer, true);
            if (atomic_load(&c->s->computing)) atomic_fetch_add(&c->beside_training, 1);
            poll(NULL, 0, OP_MS);
            atomic_fetch_add(&c->layers, 1);
            atomic_store(&c->in_layer, false);
            go = srv_gate_side_pass(c->s->g, &c->stop, NULL, NULL);
        }
        if (!go) atomic_fetch_add(&c->refused, 1);
        srv_gate_side_end(c->s->g);
    }
    return NULL;
}

TEST(a_ticket_waits_for_one_layer_of_a_comparison) {
    static scene s;
    static side_scene c = {.s = &s};
    pthread_t t;
    double worst = 0;
    CHECK(!srv_gate_open(&s.waits, &s.preempted, &s.g, NULL));
    CHECK(!pthread_create(&t, NULL, compare, &c));
    for (int i = 0; i < 40; i++) {
        poll(NULL, 0, 7 + i % 5);
        int64_t t0 = dr_clock_ns();
        srv_gate_enter(s.g);
        double ms = (double)(dr_clock_ns() - t0) / 1e6;
        if (ms > worst) worst = ms;
        CHECK(!atomic_load(&c.in_layer));
        int before = atomic_load(&c.layers);
        poll(NULL, 0, 15);
        CHECK(atomic_load(&c.layers) == before && !atomic_load(&c.in_layer)); /* it stands aside */
        srv_gate_leave(s.g);
    }
    atomic_store(&c.stop, true);
    srv_gate_wake(s.g);
    pthread_join(t, NULL);
    srv_gate_close(s.g);
    CHECK_MSG(worst < 10 * OP_MS, "waited %.1f ms", worst);
    CHECK_MSG(atomic_load(&c.layers) >= 10, "%d layers", atomic_load(&c.layers));
}

TEST(the_training_stands_still_for_a_comparison) {
    static scene s;
    static side_scene c = {.s = &s};
    pthread_t t = 0, side;
    open_scene(&s, &t);
    poll(NULL, 0, 100);
    int before = atomic_load(&s.ops);
    CHECK_MSG(before > 3, "%d ops alone", before);
    CHECK(!pthread_create(&side, NULL, compare, &c));
    poll(NULL, 0, 600); /* less than it takes until the training gets a turn */
    int layers = atomic_load(&c.layers), ops = atomic_load(&s.ops) - before;
    poll(NULL, 0, 3000);
    int more = atomic_load(&s.ops) - before;
    atomic_store(&c.stop, true);
    srv_gate_wake(s.g);
    pthread_join(side, NULL);
    close_scene(&s, t);
    CHECK_MSG(layers >= 20, "%d layers in 600 ms", layers);
    CHECK_MSG(ops <= layers, "%d ops of the training beside %d layers", ops, layers);
    CHECK_MSG(more > ops, "the training starved at %d ops", more);
}

TEST(a_parked_comparison_can_be_stopped_and_is_not_starved) {
    static scene s;
    static side_scene c = {.s = &s};
    pthread_t t;
    CHECK(!srv_gate_open(&s.waits, &s.preempted, &s.g, NULL));
    srv_gate_enter(s.g);
    CHECK(!pthread_create(&t, NULL, compare, &c));
    poll(NULL, 0, 400);
    CHECK(atomic_load(&c.layers) == 0);
    poll(NULL, 0, 1600);
    int turn = atomic_load(&c.layers);
    CHECK_MSG(turn >= 1 && turn < 60, "%d layers in its turns", turn);
    poll(NULL, 0, 150); /* parked again */
    int64_t t0 = dr_clock_ns();
    atomic_store(&c.stop, true);
    srv_gate_wake(s.g);
    pthread_join(t, NULL);
    CHECK_MSG(dr_clock_ns() - t0 < INT64_C(300000000), "%.0f ms", (double)(dr_clock_ns() - t0) / 1e6);
    srv_gate_leave(s.g);
    srv_gate_close(s.g);
}
