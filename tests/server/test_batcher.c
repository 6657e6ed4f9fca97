/* test_batcher.c - who runs with whom and when, with a run that only notes what it was given and lasts as long as the
 * test wants. */
#include "core/base/clock.h"
#include "server/batcher.h"
#include "tests/t.h"
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>

enum { MOST = 32, RUNS = 512 };

typedef struct scene {
    srv_batcher *b;
    srv_hist waits;
    _Atomic uint64_t batches, pictures;
    pthread_mutex_t mu; /* guards what follows */
    int n;              /* runs begun */
    struct {
        int n, engine;
        char who[MOST + 1];
        bool mixed;
    } run[RUNS];
    int active, most_active;
    bool engine_taken[4], overlap;
    dr_status fail;     /* of the next runs */
    bool hold;          /* runs wait for `go` */
    atomic_int last_ms; /* a run lasts, where it does not wait */
    sem_t go;
} scene;

typedef struct client {
    scene *s;
    srv_batch_item item;
    char who;
    atomic_bool cancel;
    pthread_t thread;
    dr_status status;
    dr_error err;
    double ms; /* in the offer */
} client;

static dr_status run(void *arg, int engine, srv_batch_item *const *items, int n, dr_error *err) {
    scene *s = arg;
    pthread_mutex_lock(&s->mu);
    int i = s->n++ % RUNS;
    s->run[i].n = n;
    s->run[i].engine = engine;
    s->run[i].mixed = false;
    for (int k = 0; k < n; k++) {
        const client *c = items[k]->picture;
        s->run[i].who[k] = c->who;
        const srv_batch_key *x = &items[0]->key, *y = &items[k]->key;
        if (x->w != y->w || x->h != y->h || x->version != y->version || strcmp(x->name, y->name))
            s->run[i].mixed = true;
    }
    s->run[i].who[n] = 0;
    if (s->engine_taken[engine]) s->overlap = true;
    s->engine_taken[engine] = true;
    if (++s->active > s->most_active) s->most_active = s->active;
    dr_status fail = s->fail;
    bool hold = s->hold;
    pthread_mutex_unlock(&s->mu);
    if (hold)
        while (sem_wait(&s->go)) {
        }
    else
        poll(NULL, 0, atomic_load(&s->last_ms));
    pthread_mutex_lock(&s->mu);
    s->active--;
    s->engine_taken[engine] = false;
    pthread_mutex_unlock(&s->mu);
    return fail ? dr_fail(err, fail, "the run failed") : DR_OK;
}

static bool begin(scene *s, int engines, int batch, int64_t window_ms) {
    *s = (scene){0};
    pthread_mutex_init(&s->mu, NULL);
    sem_init(&s->go, 0, 0);
    const srv_batcher_opts o = {.engines = engines,
                                .batch = batch,
                                .window_ms = window_ms,
                                .run = run,
                                .arg = s,
                                .waits = &s->waits,
                                .batches = &s->batches,
                                .pictures = &s->pictures};
    return !srv_batcher_open(&o, &s->b, NULL);
}

static void end(scene *s) {
    srv_batcher_close(s->b);
    sem_destroy(&s->go);
    pthread_mutex_destroy(&s->mu);
}

static void prepare(scene *s, client *c, char who, int w) {
    *c = (client){.s = s, .who = who, .item = {.key = {.name = "net", .w = w, .h = 64}}};
    c->item.picture = c;
    c->item.cancel = &c->cancel;
}

static void *offer(void *arg) {
    client *c = arg;
    int64_t t = dr_clock_ns();
    c->status = srv_batcher_offer(c->s->b, &c->item, &c->err);
    c->ms = (double)(dr_clock_ns() - t) / 1e6;
    return NULL;
}

static bool start(client *c) {
    return !pthread_create(&c->thread, NULL, offer, c);
}
static void join(client *c) {
    pthread_join(c->thread, NULL);
}

static int runs(scene *s) {
    pthread_mutex_lock(&s->mu);
    int n = s->n;
    pthread_mutex_unlock(&s->mu);
    return n;
}
static void hold(scene *s, bool on) {
    pthread_mutex_lock(&s->mu);
    s->hold = on;
    pthread_mutex_unlock(&s->mu);
}

/* At most two seconds for what another thread is to do. */
static bool until_runs(scene *s, int n) {
    for (int i = 0; i < 2000 && runs(s) < n; i++) poll(NULL, 0, 1);
    return runs(s) == n;
}
static bool until_waiting(scene *s, int n) {
    for (int i = 0; i < 2000 && srv_batcher_waiting(s->b) != n; i++) poll(NULL, 0, 1);
    return srv_batcher_waiting(s->b) == n;
}

/* One after the other into the queue, so that their order is known; a run holds the engine meanwhile. */
static bool queue_up(scene *s, client *c, const char *who, const int *w) {
    for (int i = 0; who[i]; i++) {
        prepare(s, &c[i], who[i], w[i]);
        if (!start(&c[i]) || !until_waiting(s, i + 1)) return false;
    }
    return true;
}

/* The first run, which keeps the only engine until sem_post. */
static bool occupy(scene *s, client *c) {
    hold(s, true);
    prepare(s, c, '0', 8);
    return start(c) && until_runs(s, 1);
}

/* --- company --- */

TEST(one_alone_does_not_wait) {
    static scene s;
    static client c, other;
    CHECK(begin(&s, 2, 8, 1000));
    prepare(&s, &c, 'a', 64);
    prepare(&s, &other, 'x', 128); /* another size that is coming is no company */
    srv_batcher_expect(s.b, &other.item);
    srv_batcher_expect(s.b, &c.item);
    offer(&c);
    CHECK_MSG(!c.status && c.ms < 300 && s.n == 1 && s.run[0].n == 1, "%g ms", c.ms);
    srv_batcher_forget(s.b, &other.item);
    CHECK(s.batches == 1 && s.pictures == 1 && s.waits.count == 1);
    end(&s);
}

TEST(the_window_is_for_company_that_is_on_its_way) {
    static scene s;
    static client c[2];
    CHECK(begin(&s, 2, 8, 5000));
    for (int i = 0; i < 2; i++) {
        prepare(&s, &c[i], (char)('a' + i), 64);
        srv_batcher_expect(s.b, &c[i].item);
    }
    CHECK(start(&c[0]) && until_waiting(&s, 1));
    poll(NULL, 0, 30);
    CHECK(runs(&s) == 0); /* it waits */
    CHECK(start(&c[1]));
    for (int i = 0; i < 2; i++) join(&c[i]);
    CHECK_MSG(s.n == 1 && s.run[0].n == 2 && !strcmp(s.run[0].who, "ab"), "%d runs, '%s'", s.n, s.run[0].who);
    CHECK_MSG(c[0].ms < 2000 && s.batches == 1 && s.pictures == 2, "%g ms", c[0].ms);
    end(&s);
}

TEST(the_window_closes_when_the_company_does_not_come) {
    static scene s;
    static client c[2];
    for (int gone = 0; gone < 2; gone++) {
        CHECK(begin(&s, 2, 8, gone ? 5000 : 60));
        for (int i = 0; i < 2; i++) {
            prepare(&s, &c[i], (char)('a' + i), 64);
            srv_batcher_expect(s.b, &c[i].item);
        }
        CHECK(start(&c[0]) && until_waiting(&s, 1));
        if (gone) srv_batcher_forget(s.b, &c[1].item); /* a damaged picture */
        join(&c[0]);
        CHECK_MSG(s.n == 1 && s.run[0].n == 1 && (gone ? c[0].ms < 2000 : c[0].ms >= 59), "%g ms", c[0].ms);
        if (!gone) srv_batcher_forget(s.b, &c[1].item);
        end(&s);
    }
}

TEST(a_window_of_0_or_batches_of_1_never_wait) {
    static scene s;
    static client c[2];
    for (int k = 0; k < 2; k++) {
        CHECK(begin(&s, 2, k ? 1 : 8, k ? 5000 : 0));
        prepare(&s, &c[0], 'a', 64);
        prepare(&s, &c[1], 'b', 64);
        srv_batcher_expect(s.b, &c[1].item);
        offer(&c[0]);
        CHECK_MSG(c[0].ms < 300 && s.n == 1, "%g ms", c[0].ms);
        offer(&c[1]);
        CHECK(s.n == 2 && !c[1].status);
        end(&s);
    }
}

TEST(a_full_batch_does_not_wait_for_more) {
    static scene s;
    static client c[3];
    CHECK(begin(&s, 1, 2, 5000));
    for (int i = 0; i < 3; i++) {
        prepare(&s, &c[i], (char)('a' + i), 64);
        srv_batcher_expect(s.b, &c[i].item);
    }
    CHECK(start(&c[0]) && until_waiting(&s, 1) && start(&c[1]));
    join(&c[0]);
    join(&c[1]);
    CHECK(s.n == 1 && s.run[0].n == 2 && c[0].ms < 2000);
    srv_batcher_forget(s.b, &c[2].item);
    end(&s);
}

/* Who waits for company keeps nobody else; and once the device is busy, waiting serves nothing. */
TEST(other_sizes_pass_one_in_its_window) {
    static scene s;
    static client a, b, late;
    CHECK(begin(&s, 2, 8, 5000));
    prepare(&s, &a, 'a', 64);
    prepare(&s, &late, 'l', 64);
    prepare(&s, &b, 'b', 128);
    srv_batcher_expect(s.b, &late.item);
    hold(&s, true);
    CHECK(start(&a) && until_waiting(&s, 1));
    poll(NULL, 0, 20);
    CHECK(runs(&s) == 0 && start(&b) && until_runs(&s, 2));
    const int one = s.run[0].engine; /* the first to take an engine got 0; who notes first, is chance */
    CHECK(one + s.run[1].engine == 1 && !strcmp(s.run[one].who, "b") && !strcmp(s.run[!one].who, "a"));
    sem_post(&s.go);
    sem_post(&s.go);
    join(&a);
    join(&b);
    CHECK_MSG(a.ms < 2000 && b.ms < 2000, "%g %g", a.ms, b.ms);
    srv_batcher_forget(s.b, &late.item);
    end(&s);
}

/* Two in their windows: when the first one runs, the second has no reason to wait any more. */
TEST(a_run_ends_the_windows_of_others) {
    static scene s;
    static client a, b, late[2];
    CHECK(begin(&s, 2, 8, 800));
    atomic_store(&s.last_ms, 300);
    prepare(&s, &a, 'a', 64);
    prepare(&s, &late[0], 'l', 64);
    prepare(&s, &b, 'b', 128);
    prepare(&s, &late[1], 'm', 128);
    for (int i = 0; i < 2; i++) srv_batcher_expect(s.b, &late[i].item);
    CHECK(start(&a) && until_waiting(&s, 1));
    poll(NULL, 0, 500);
    CHECK(runs(&s) == 0 && start(&b));
    join(&a);
    join(&b);
    CHECK_MSG(s.n == 2 && b.ms < 300 + 600, "%g ms", b.ms); /* 300 of the first window, not 800 of its own */
    for (int i = 0; i < 2; i++) srv_batcher_forget(s.b, &late[i].item);
    end(&s);
}

/* --- batches --- */

TEST(what_comes_while_the_device_is_busy_is_one_batch) {
    static scene s;
    static client first, c[5];
    static const int w[] = {64, 64, 64, 64, 64};
    CHECK(begin(&s, 1, 8, 0) && occupy(&s, &first) && queue_up(&s, c, "abcde", w));
    hold(&s, false);
    sem_post(&s.go);
    join(&first);
    for (int i = 0; i < 5; i++) join(&c[i]);
    CHECK_MSG(s.n == 2 && !strcmp(s.run[1].who, "abcde"), "%d runs, '%s'", s.n, s.run[1].who);
    CHECK(s.batches == 2 && s.pictures == 6 && s.waits.count == 6);
    end(&s);
}

TEST(a_batch_has_its_limit_and_the_oldest_go_first) {
    static scene s;
    static client first, c[5];
    static const int w[] = {64, 64, 64, 64, 64};
    CHECK(begin(&s, 1, 2, 0) && occupy(&s, &first) && queue_up(&s, c, "abcde", w));
    hold(&s, false);
    sem_post(&s.go);
    join(&first);
    for (int i = 0; i < 5; i++) join(&c[i]);
    CHECK_MSG(s.n == 4 && !strcmp(s.run[1].who, "ab") && !strcmp(s.run[2].who, "cd") && !strcmp(s.run[3].who, "e"),
              "%d runs: %s %s %s", s.n, s.run[1].who, s.run[2].who, s.run[3].who);
    end(&s);
}

TEST(sizes_never_mix_and_the_oldest_decides) {
    static scene s;
    static client first, c[7];
    static const int w[] = {64, 128, 64, 128, 32, 64, 128};
    CHECK(begin(&s, 1, 8, 0) && occupy(&s, &first) && queue_up(&s, c, "aAbBxcC", w));
    hold(&s, false);
    sem_post(&s.go);
    join(&first);
    for (int i = 0; i < 7; i++) join(&c[i]);
    CHECK_MSG(s.n == 4 && !strcmp(s.run[1].who, "abc") && !strcmp(s.run[2].who, "ABC") && !strcmp(s.run[3].who, "x"),
              "%d runs: %s %s %s", s.n, s.run[1].who, s.run[2].who, s.run[3].who);
    end(&s);
}

TEST(versions_and_names_and_heights_never_mix) {
    static scene s;
    static client first, c[5];
    CHECK(begin(&s, 1, 8, 0) && occupy(&s, &first));
    for (int i = 0; i < 5; i++) {
        prepare(&s, &c[i], (char)('a' + i), 64);
        if (i == 1) c[i].item.key.version = 2;
        if (i == 2) c[i].item.key.h = 68;
        if (i == 3) strcpy(c[i].item.key.name, "ne");
        CHECK(start(&c[i]) && until_waiting(&s, i + 1));
    }
    hold(&s, false);
    sem_post(&s.go);
    join(&first);
    for (int i = 0; i < 5; i++) join(&c[i]);
    CHECK_MSG(s.n == 5 && !strcmp(s.run[1].who, "ae"), "%d runs, '%s'", s.n, s.run[1].who);
    end(&s);
}

TEST(one_by_one_after_the_device_is_lost) {
    static scene s;
    static client first, c[3];
    static const int w[] = {64, 64, 64};
    CHECK(begin(&s, 1, 8, 0) && occupy(&s, &first) && queue_up(&s, c, "abc", w));
    srv_batcher_one_by_one(s.b);
    hold(&s, false);
    sem_post(&s.go);
    join(&first);
    for (int i = 0; i < 3; i++) join(&c[i]);
    CHECK(s.n == 4 && s.run[1].n == 1 && s.run[2].n == 1 && s.run[3].n == 1);
    end(&s);
}

/* --- ends --- */

TEST(who_is_cancelled_leaves_at_once_and_alone) {
    static scene s;
    static client first, c[4];
    static const int w[] = {64, 64, 64, 128};
    CHECK(begin(&s, 1, 8, 0) && occupy(&s, &first) && queue_up(&s, c, "abcX", w));
    atomic_store(&c[0].cancel, true); /* the oldest */
    atomic_store(&c[2].cancel, true);
    srv_batcher_wake(s.b);
    join(&c[0]);
    join(&c[2]);
    CHECK(runs(&s) == 1 && c[0].status == DR_CANCELLED && c[2].status == DR_CANCELLED); /* the device is still busy */
    CHECK(c[0].err.code == DR_CANCELLED && srv_batcher_waiting(s.b) == 2);
    hold(&s, false);
    sem_post(&s.go);
    join(&first);
    join(&c[1]);
    join(&c[3]);
    CHECK(!c[1].status && !c[3].status && s.n == 3 && !strcmp(s.run[1].who, "b") && !strcmp(s.run[2].who, "X"));
    end(&s);
}

/* Nobody has woken it yet when a leader looks round. */
TEST(who_is_cancelled_is_not_taken_along) {
    static scene s;
    static client first, c[3];
    static const int w[] = {64, 64, 64};
    for (int round = 0; round < 40; round++) {
        CHECK(begin(&s, 1, 8, 0) && occupy(&s, &first) && queue_up(&s, c, "abc", w));
        hold(&s, false);
        atomic_store(&c[1].cancel, true);
        sem_post(&s.go);
        join(&first);
        for (int i = 0; i < 3; i++) join(&c[i]);
        CHECK_MSG(s.n == 2 && !strcmp(s.run[1].who, "ac") && c[1].status == DR_CANCELLED, "'%s'", s.run[1].who);
        end(&s);
    }
}

TEST(cancelled_before_the_offer_is_cancelled) {
    static scene s;
    static client c;
    CHECK(begin(&s, 1, 8, 0));
    prepare(&s, &c, 'a', 64);
    srv_batcher_expect(s.b, &c.item);
    atomic_store(&c.cancel, true);
    offer(&c);
    CHECK(c.status == DR_CANCELLED && s.n == 0 && srv_batcher_waiting(s.b) == 0);
    end(&s);
}

TEST(the_error_of_a_run_is_that_of_all_its_pictures) {
    static scene s;
    static client first, c[3];
    static const int w[] = {64, 64, 64};
    CHECK(begin(&s, 1, 8, 0) && occupy(&s, &first) && queue_up(&s, c, "abc", w));
    pthread_mutex_lock(&s.mu);
    s.hold = false;
    s.fail = DR_BACKEND;
    pthread_mutex_unlock(&s.mu);
    sem_post(&s.go);
    join(&first);
    for (int i = 0; i < 3; i++) join(&c[i]);
    CHECK(!first.status && s.n == 2 && s.run[1].n == 3);
    for (int i = 0; i < 3; i++) CHECK(c[i].status == DR_BACKEND && !strcmp(c[i].err.text, "the run failed"));
    s.fail = DR_OK;
    prepare(&s, &c[0], 'd', 64); /* and the next one is none of it */
    offer(&c[0]);
    CHECK(!c[0].status);
    end(&s);
}

TEST(a_stop_sends_those_away_who_wait) {
    static scene s;
    static client first, c[4];
    static const int w[] = {64, 128, 64};
    CHECK(begin(&s, 1, 8, 0) && occupy(&s, &first) && queue_up(&s, c, "aXb", w));
    srv_batcher_stop(s.b);
    for (int i = 0; i < 3; i++) join(&c[i]);
    for (int i = 0; i < 3; i++) CHECK(c[i].status == DR_CANCELLED);
    CHECK(runs(&s) == 1); /* it goes on */
    sem_post(&s.go);
    join(&first);
    CHECK(!first.status);
    prepare(&s, &c[3], 'z', 64);
    offer(&c[3]);
    CHECK(c[3].status == DR_CANCELLED && s.n == 1);
    end(&s);
}

TEST(a_stop_ends_the_window_too) {
    static scene s;
    static client c, other;
    CHECK(begin(&s, 1, 8, 10000));
    prepare(&s, &c, 'a', 64);
    prepare(&s, &other, 'b', 64);
    srv_batcher_expect(s.b, &other.item);
    CHECK(start(&c) && until_waiting(&s, 1));
    srv_batcher_stop(s.b);
    join(&c);
    CHECK(c.status == DR_CANCELLED && c.ms < 2000);
    srv_batcher_forget(s.b, &other.item);
    end(&s);
}

/* --- all of it at once --- */

enum { CLIENTS = 16, ROUNDS = 60 };
static _Atomic int done_ok, done_cancelled;

static void *busy_client(void *arg) {
    client *c = arg;
    for (int i = 0; i < ROUNDS; i++) {
        client one;
        prepare(c->s, &one, c->who, 64 + 64 * ((c->who + i) % 3));
        unsigned r = (unsigned)(c->who * 7919 + i * 104729) % 11;
        if (r < 8) srv_batcher_expect(c->s->b, &one.item);
        if (r % 3 == 0) poll(NULL, 0, 1);
        if (r == 5) {
            srv_batcher_forget(c->s->b, &one.item);
            continue;
        }
        if (r == 6) { /* cancelled somewhere on the way */
            pthread_t t;
            if (pthread_create(&t, NULL, offer, &one)) abort();
            atomic_store(&one.cancel, true);
            srv_batcher_wake(c->s->b);
            pthread_join(t, NULL);
        } else {
            offer(&one);
        }
        atomic_fetch_add(one.status == DR_CANCELLED ? &done_cancelled : &done_ok, 1);
        if (one.status && one.status != DR_CANCELLED) abort();
    }
    return NULL;
}

TEST(a_crowd_is_served_whole) {
    static scene s;
    static client c[CLIENTS];
    int n = 0, batched = 0;
    CHECK(begin(&s, 2, 4, 1));
    atomic_store(&s.last_ms, 1);
    for (int i = 0; i < CLIENTS; i++) {
        prepare(&s, &c[i], (char)('A' + i), 64);
        CHECK(!pthread_create(&c[i].thread, NULL, busy_client, &c[i]));
    }
    for (int i = 0; i < CLIENTS; i++) join(&c[i]);
    for (int i = 0; i < s.n && i < RUNS; i++) {
        CHECK(s.run[i].n >= 1 && s.run[i].n <= 4 && !s.run[i].mixed);
        n += s.run[i].n;
        batched += s.run[i].n > 1;
    }
    if (s.n <= RUNS) CHECK_MSG(n == (int)s.pictures, "%d pictures ran, %d were counted", n, (int)s.pictures);
    CHECK_MSG((int)s.pictures >= done_ok && (int)s.pictures <= done_ok + done_cancelled, "%d of %d", (int)s.pictures,
              done_ok);
    CHECK_MSG(s.most_active == 2 && !s.overlap && batched > 0, "%d runs at a time, %d batches", s.most_active, batched);
    CHECK(s.batches == (uint64_t)s.n && s.waits.count == s.pictures && srv_batcher_waiting(s.b) == 0);
    printf("# %d pictures in %d runs\n", (int)s.pictures, s.n);
    end(&s);
}
