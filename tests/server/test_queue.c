/* test_queue.c - doorbell, running slots, estimates. */
#include "core/base/clock.h"
#include "server/queue.h"
#include "tests/t.h"
#include <pthread.h>

static void *ringer(void *arg) {
    srv_queue_ring(arg);
    return NULL;
}

TEST(a_ring_wakes_also_when_it_came_before_the_wait) {
    srv_queue *q = NULL;
    pthread_t t;
    CHECK(!srv_queue_open(1, &q, NULL));
    uint64_t seen = srv_queue_rings(q);
    srv_queue_ring(q);
    int64_t t0 = dr_clock_ns();
    srv_queue_wait(q, seen, 20000);
    seen = srv_queue_rings(q);
    CHECK(!pthread_create(&t, NULL, ringer, q));
    srv_queue_wait(q, seen, 20000);
    pthread_join(t, NULL);
    CHECK(dr_clock_ns() - t0 < INT64_C(10000000000));
    t0 = dr_clock_ns();
    srv_queue_wait(q, srv_queue_rings(q), 30);
    CHECK(dr_clock_ns() - t0 >= 30000000);
    srv_queue_stop(q);
    srv_queue_wait(q, srv_queue_rings(q), 20000);
    CHECK(srv_queue_stopping(q));
    srv_queue_close(q);
}

static int seen_jobs;
static void see(void *arg, const char *id, int64_t epoch, double progress) {
    (void)arg;
    seen_jobs += !strcmp(id, "job_b") && epoch == 7 && progress == 0.5;
}

TEST(running_jobs_are_found_cancelled_and_put_back) {
    srv_queue *q = NULL;
    double p = 0;
    CHECK(!srv_queue_open(2, &q, NULL));
    srv_running *a = srv_queue_start(q, "job_a", 1), *b = srv_queue_start(q, "job_b", 7);
    CHECK(a != b && srv_queue_n_running(q) == 2);
    CHECK(srv_queue_cancel(q, "job_a") && atomic_load(&a->cancel) && !atomic_load(&a->put_back) &&
          !atomic_load(&b->cancel));
    CHECK(!srv_queue_cancel(q, "job_c"));
    atomic_store(&b->progress, 0.5f);
    CHECK(srv_queue_progress(q, "job_b", &p) && p == 0.5 && !srv_queue_progress(q, "job_c", &p));
    srv_queue_each(q, see, NULL);
    CHECK(seen_jobs == 1);
    srv_queue_put_back(q);
    CHECK(atomic_load(&b->cancel) && atomic_load(&b->put_back));
    srv_queue_end(q, a);
    CHECK(srv_queue_n_running(q) == 1 && !srv_queue_cancel(q, "job_a"));
    srv_running *c = srv_queue_start(q, "job_c", 2);
    CHECK(c == a && !atomic_load(&c->cancel) && !atomic_load(&c->put_back) && atomic_load(&c->progress) == 0);
    srv_queue_close(q);
}

TEST(retry_after_follows_measured_times_and_spreads) {
    srv_queue *q = NULL;
    int lo = 1 << 30, hi = 0;
    CHECK(!srv_queue_open(2, &q, NULL));
    CHECK(srv_queue_retry_after(q, 0) >= 1 && srv_queue_job_seconds(q) == 0);
    for (int i = 0; i < 100; i++) srv_queue_learn(q, 10, 2);
    CHECK(fabs(srv_queue_job_seconds(q) - 10) < 1e-9 && fabs(srv_queue_mpix_seconds(q) - 5) < 1e-9);
    for (int i = 0; i < 200; i++) {
        int n = srv_queue_retry_after(q, 20); /* 20 jobs of 10 s on 2 workers: 100 s */
        lo = n < lo ? n : lo;
        hi = n > hi ? n : hi;
    }
    CHECK_MSG(lo >= 80 && hi <= 121 && hi - lo > 20, "%d..%d", lo, hi);
    CHECK(srv_queue_retry_after(q, 1000000) == 3600);
    srv_queue_close(q);
}

TEST(the_count_never_shows_less_than_nothing) {
    srv_queue *q = NULL;
    CHECK(!srv_queue_open(1, &q, NULL));
    srv_queue_count_add(q, -3);
    CHECK(srv_queue_count(q) == 0);
    srv_queue_count_set(q, 5);
    srv_queue_count_add(q, 1);
    CHECK(srv_queue_count(q) == 6);
    srv_queue_close(q);
}
