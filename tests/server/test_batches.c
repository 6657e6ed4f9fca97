/* test_batches.c - the daemon on what it takes for a GPU: jobs that wait at the same time share runs, a cancel and a
 * stop reach those that wait for one, and on the CPU there is none of it. */
#include "tests/server/daemon.h"
#include "tests/t.h"

static daemon_child d;

static void device(const char *backend, const char *run_ms) {
    setenv("DERAIN_DOUBLE_BACKEND", backend, 1);
    setenv("DERAIN_DOUBLE_MS", run_ms, 1);
}

static bool hand_in(unsigned w, unsigned h, char id[64]) {
    uint8_t png[4096];
    size_t n = make_png(png, w, h, 2, 200, NULL);
    answer a = ask(d.port, "POST", "/v1/derain", "Prefer: respond-async\r\n", png, n);
    snprintf(id, 64, "%.40s", member(&a, "id"));
    bool ok = a.status == 202;
    answer_done(&a);
    return ok;
}

/* Waits as long as the job is `from`, at most so many seconds: is it `to` then? */
static bool comes_to(const char *id, const char *from, const char *to, int seconds) {
    char path[160], text[64];
    snprintf(path, sizeof path, "/v1/jobs/%.63s?wait=%d&if_state_not=%s", id, seconds, from);
    snprintf(text, sizeof text, "\"state\":\"%s\"", to);
    answer a = get(d.port, path);
    bool is = has(&a, text);
    answer_done(&a);
    return is;
}

static bool ends_well(const char *id) {
    return comes_to(id, "queued", "succeeded", 20) || comes_to(id, "running", "succeeded", 20);
}

static double metric(const char *name) {
    char key[80];
    snprintf(key, sizeof key, "\n%s ", name);
    answer a = get(d.port, "/metrics");
    char *at = a.body ? strstr(a.body, key) : NULL;
    double v = at ? strtod(at + strlen(key), NULL) : -1;
    answer_done(&a);
    return v;
}

TEST(jobs_that_wait_together_run_together) {
    static const char *const flags[] = {"--backend=auto", "--workers=8", "--batch-window-ms=0", NULL};
    char id[12][64];
    device("cuda", "500");
    daemon_dir(&d);
    CHECK(daemon_start(&d, flags));
    for (int i = 0; i < 12; i++) CHECK(hand_in(i % 4 ? 64 : 63, 48, id[i])); /* one grid */
    for (int i = 0; i < 12; i++) CHECK(ends_well(id[i]));
    double runs = metric("derain_batches_total"), pictures = metric("derain_batch_pictures_total");
    CHECK_MSG(pictures == 12 && runs >= 2 && runs <= 8, "%g pictures in %g runs", pictures, runs);
    CHECK(metric("derain_batch_wait_seconds_count") == 12 && metric("derain_batch_wait_seconds_sum") > 0.2);
    CHECK(metric("derain_workers") == 8 && metric("derain_jobs_succeeded_total") == 12);
    CHECK(daemon_stop(&d, SIGTERM) == 0);
    scratch_rm(d.dir);
}

TEST(batches_of_one_and_other_sizes_do_not) {
    static const char *const off[] = {"--workers=8", "--batch=1", NULL};
    static const char *const on[] = {"--workers=8", NULL};
    char id[6][64];
    for (int k = 0; k < 2; k++) {
        device("cuda", "50");
        daemon_dir(&d);
        CHECK(daemon_start(&d, k ? on : off));
        for (unsigned i = 0; i < 6; i++) CHECK(hand_in(64 + (k ? 4 * i : 0), 48, id[i]));
        for (int i = 0; i < 6; i++) CHECK(ends_well(id[i]));
        CHECK(metric("derain_batches_total") == 6 && metric("derain_batch_pictures_total") == 6);
        CHECK(daemon_stop(&d, SIGTERM) == 0);
        scratch_rm(d.dir);
    }
}

TEST(a_cancel_reaches_a_picture_that_waits_for_its_run) {
    static const char *const flags[] = {"--workers=4", "--batch-window-ms=0", NULL};
    char id[4][64], path[128];
    device("cuda", "4000");
    daemon_dir(&d);
    CHECK(daemon_start(&d, flags));
    for (int i = 0; i < 4; i++) CHECK(hand_in(64, 48, id[i]) && comes_to(id[i], "queued", "running", 10));
    snprintf(path, sizeof path, "/v1/jobs/%s/cancel", id[3]);
    int64_t t = dr_clock_ns();
    answer a = ask(d.port, "POST", path, NULL, NULL, 0);
    CHECK(a.status == 202 || a.status == 200);
    answer_done(&a);
    CHECK(comes_to(id[3], "running", "cancelled", 10) && (double)(dr_clock_ns() - t) / 1e9 < 2);
    for (int i = 0; i < 3; i++) CHECK(comes_to(id[i], "running", "succeeded", 20));
    CHECK(metric("derain_batch_pictures_total") == 3 && metric("derain_jobs_cancelled_total") == 1);
    CHECK(daemon_stop(&d, SIGTERM) == 0);
    scratch_rm(d.dir);
}

TEST(a_stop_puts_back_what_waits_and_the_next_life_does_it) {
    static const char *const flags[] = {"--workers=6", "--batch-window-ms=0", "--drain-s=0", NULL};
    char id[6][64];
    device("cuda", "8000");
    daemon_dir(&d);
    CHECK(daemon_start(&d, flags));
    for (int i = 0; i < 6; i++) CHECK(hand_in(64, 48, id[i]) && comes_to(id[i], "queued", "running", 10));
    int64_t t = dr_clock_ns();
    CHECK(daemon_stop(&d, SIGTERM) == 0);
    CHECK_MSG((double)(dr_clock_ns() - t) / 1e9 < 5, "%g s", (double)(dr_clock_ns() - t) / 1e9);
    device("cuda", "50");
    CHECK(daemon_start(&d, flags));
    for (int i = 0; i < 6; i++) CHECK(ends_well(id[i]));
    CHECK(metric("derain_jobs_succeeded_total") == 6);
    CHECK(daemon_stop(&d, SIGTERM) == 0);
    scratch_rm(d.dir);
}

TEST(the_number_of_workers_follows_the_device) {
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    char id[64];
    for (int gpu = 0; gpu < 2; gpu++) {
        device(gpu ? "cuda" : "cpu", "1");
        daemon_dir(&d);
        CHECK(daemon_start(&d, NULL) && hand_in(64, 48, id) && ends_well(id));
        double want = !gpu ? 1 : cores > 8 ? 8 : (double)cores;
        CHECK_MSG(metric("derain_workers") == want, "%g, not %g", metric("derain_workers"), want);
        CHECK(metric("derain_batches_total") == gpu && metric("derain_batch_wait_seconds_count") == gpu);
        CHECK(daemon_stop(&d, SIGTERM) == 0);
        scratch_rm(d.dir);
    }
}
