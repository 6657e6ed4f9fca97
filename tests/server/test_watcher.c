/* test_watcher.c - parks are woken exactly once whoever comes first, and slow peers are cut off. Connections are stood
 * in for by a counter, sockets by socket pairs. */
#include "core/base/clock.h"
#include "server/watcher.h"
#include "tests/t.h"
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

static _Atomic int resumed[64], slow;

static void on_resume(void *conn) {
    atomic_fetch_add((_Atomic int *)conn, 1);
}
static void on_slow(void *arg, int fd) {
    (void)arg, (void)fd;
    atomic_fetch_add(&slow, 1);
}

static srv_watch *open_watch(void) {
    const srv_watch_opts o = {.header_ms = 200,
                              .idle_ms = 400,
                              .body_grace_ms = 200,
                              .body_max_ms = 5000,
                              .body_rate_min = 1000,
                              .resume = on_resume,
                              .too_slow = on_slow};
    srv_watch *w = NULL;
    dr_error err = {0};
    for (int i = 0; i < 64; i++) atomic_store(&resumed[i], 0);
    atomic_store(&slow, 0);
    return srv_watch_open(&o, &w, &err) ? NULL : w;
}

static bool wait_for(_Atomic int *n, int value, int ms) {
    for (int i = 0; i < ms && atomic_load(n) < value; i++) poll(NULL, 0, 1);
    return atomic_load(n) == value;
}

TEST(an_event_wakes_those_of_its_key_only) {
    srv_watch *w = open_watch();
    srv_park p[3] = {0};
    CHECK(w);
    for (int i = 0; i < 3; i++) {
        srv_park_arm(w, &p[i], i < 2 ? "job_a" : "job_b");
        srv_park_wait(w, &p[i], &resumed[i], -1, 0);
    }
    CHECK(srv_park_waiting(w) == 3);
    srv_park_wake_key(w, "job_a");
    srv_park_wake_key(w, "job_a");
    CHECK(resumed[0] == 1 && resumed[1] == 1 && resumed[2] == 0 && srv_park_waiting(w) == 1);
    CHECK(srv_park_why(w, &p[0]) == SRV_WAKE_EVENT);
    srv_park_wake(w, &p[2]);
    CHECK(resumed[2] == 1 && srv_park_waiting(w) == 0);
    srv_watch_close(w);
}

TEST(a_wake_between_arm_and_wait_is_not_lost) {
    srv_watch *w = open_watch();
    srv_park p = {0};
    srv_park_arm(w, &p, "job_a");
    srv_park_wake_key(w, "job_a");
    CHECK(resumed[0] == 0);
    srv_park_wait(w, &p, &resumed[0], -1, 0);
    CHECK(resumed[0] == 1 && srv_park_waiting(w) == 0);
    srv_park_arm(w, &p, "job_a");
    CHECK(!srv_park_disarm(w, &p));
    srv_park_wake_key(w, "job_a");
    CHECK(resumed[0] == 1);
    srv_watch_close(w);
}

TEST(deadlines_wake_in_time) {
    srv_watch *w = open_watch();
    srv_park late = {0}, soon = {0};
    int64_t now = dr_clock_ns();
    srv_park_arm(w, &late, "job_a");
    srv_park_wait(w, &late, &resumed[0], -1, now + INT64_C(600000000));
    srv_park_arm(w, &soon, "job_b");
    srv_park_wait(w, &soon, &resumed[1], -1, now + INT64_C(50000000)); /* nearer than what the thread sleeps for */
    CHECK(wait_for(&resumed[1], 1, 2000) && srv_park_why(w, &soon) == SRV_WAKE_TIMEOUT);
    CHECK(dr_clock_ns() - now >= 50000000 && resumed[0] == 0);
    CHECK(wait_for(&resumed[0], 1, 5000));
    srv_watch_close(w);
}

TEST(a_client_that_leaves_is_seen_while_waiting) {
    srv_watch *w = open_watch();
    srv_park p = {0}, q = {0};
    int fd[2], gone[2];
    CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, fd) && !socketpair(AF_UNIX, SOCK_STREAM, 0, gone));
    srv_park_arm(w, &p, "job_a");
    srv_park_wait(w, &p, &resumed[0], fd[0], 0);
    close(fd[1]);
    CHECK(wait_for(&resumed[0], 1, 5000) && srv_park_why(w, &p) == SRV_WAKE_GONE);
    close(gone[1]); /* left before the wait began */
    srv_park_arm(w, &q, "job_a");
    srv_park_wait(w, &q, &resumed[1], gone[0], 0);
    CHECK(wait_for(&resumed[1], 1, 5000));
    srv_watch_close(w);
    close(fd[0]);
    close(gone[0]);
}

TEST(the_stop_wakes_all_with_a_key_and_those_that_come_later) {
    srv_watch *w = open_watch();
    srv_park a = {0}, call = {0}, later = {0};
    srv_park_arm(w, &a, "job_a");
    srv_park_wait(w, &a, &resumed[0], -1, 0);
    srv_park_arm(w, &call, "");
    srv_park_wait(w, &call, &resumed[1], -1, 0);
    srv_watch_stop_waiting(w);
    CHECK(resumed[0] == 1 && srv_park_why(w, &a) == SRV_WAKE_STOP);
    CHECK(resumed[1] == 0); /* a call-back will surely come */
    srv_park_arm(w, &later, "job_b");
    srv_park_wait(w, &later, &resumed[2], -1, 0);
    CHECK(resumed[2] == 1 && srv_park_why(w, &later) == SRV_WAKE_STOP);
    srv_park_wake(w, &call);
    CHECK(resumed[1] == 1);
    srv_watch_close(w);
}

TEST(owners) {
    srv_watch *w = open_watch();
    srv_park a = {0}, b = {0};
    srv_park_arm(w, &a, "job_a");
    srv_park_own(w, &a);
    srv_park_wait(w, &a, &resumed[0], -1, 0);
    srv_park_arm(w, &b, "job_a");
    CHECK(srv_park_owned(w, &b, "job_a") && !srv_park_owned(w, &a, "job_a") && !srv_park_owned(w, &b, "job_b"));
    srv_park_disarm(w, &b);
    srv_park_wake(w, &a);
    CHECK(!srv_park_owned(w, &b, "job_a"));
    srv_watch_close(w);
}

/* Many threads wake the same parks while deadlines strike: each is resumed exactly once a round. */
static srv_watch *race_watch;
static void *race(void *arg) {
    for (int i = 0; i < 200; i++) srv_park_wake_key(race_watch, arg);
    return NULL;
}
TEST(many_wakers_resume_once) {
    pthread_t t[3];
    static char key[] = "job_r";
    srv_park p[32] = {0};
    race_watch = open_watch();
    CHECK(race_watch);
    for (int i = 0; i < 3; i++) CHECK(!pthread_create(&t[i], NULL, race, key));
    for (int i = 0; i < 32; i++) {
        srv_park_arm(race_watch, &p[i], key);
        srv_park_wait(race_watch, &p[i], &resumed[i], -1, dr_clock_ns() + (i % 4) * 1000000 + 1);
    }
    for (int i = 0; i < 3; i++) pthread_join(t[i], NULL);
    srv_park_wake_key(race_watch, key);
    for (int i = 0; i < 32; i++) CHECK(wait_for(&resumed[i], 1, 2000));
    srv_watch_close(race_watch);
}

static bool cut(int fd, int ms) {
    struct pollfd p = {.fd = fd, .events = POLLIN | POLLRDHUP};
    char c;
    return poll(&p, 1, ms) == 1 && recv(fd, &c, 1, MSG_DONTWAIT) == 0;
}

TEST(slow_peers_are_cut_off_and_busy_ones_are_not) {
    srv_watch *w = open_watch();
    static srv_peer peer[4];
    int fd[4][2];
    for (int i = 0; i < 4; i++) {
        CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, fd[i]));
        srv_peer_open(w, &peer[i], fd[i][0]);
    }
    CHECK(srv_peer_phase(&peer[1], SRV_PHASE_BUSY));
    CHECK(srv_peer_phase(&peer[2], SRV_PHASE_BODY)); /* too slow */
    CHECK(srv_peer_phase(&peer[3], SRV_PHASE_BODY));
    atomic_fetch_add(&peer[3].bytes, 100000); /* fast enough for a long time */
    CHECK(cut(fd[0][1], 5000) && cut(fd[2][1], 5000));
    CHECK(!cut(fd[1][1], 300) && !cut(fd[3][1], 0));
    CHECK(slow == 1);
    CHECK(!srv_peer_phase(&peer[0], SRV_PHASE_BUSY) && !srv_peer_phase(&peer[2], SRV_PHASE_BUSY));
    CHECK(srv_peer_phase(&peer[3], SRV_PHASE_BUSY));
    for (int i = 0; i < 4; i++) {
        srv_peer_close(w, &peer[i]);
        close(fd[i][0]);
        close(fd[i][1]);
    }
    srv_watch_close(w);
}
