/* test_training.c - trainings of a tiny network in a real daemon: made, watched, paused, killed, to the same bits. */
#include "core/tensor/backend.h"
#include "db/datasets.h"
#include "db/training.h"
#include "tests/core/train_fixture.h"
#include "tests/server/daemon.h"
#include "tests/t.h"

static daemon_child d;
static fixture pictures;
static char set_id[DB_ID];

/* Puts a picture into the data folder as a blob; its name. */
static bool put_blob(db_store *db, const char *file, char sha[DB_SHA], int64_t *ret_bytes) {
    char *data = NULL, path[700], dir[600];
    size_t n = 0;
    if (dr_fs_read(file, 1 << 20, &data, &n, NULL)) return false;
    dr_sha256_hex(data, n, sha);
    snprintf(dir, sizeof dir, "%s/data/blobs/%.2s", d.dir, sha);
    snprintf(path, sizeof path, "%s/%s", dir, sha);
    bool ok = !dr_fs_mkdirs(dir, 0700, NULL) && !dr_fs_write_atomic(path, data, n, NULL) &&
              !db_blob_put(db, sha, (int64_t)n, NULL, NULL);
    *ret_bytes = (int64_t)n;
    dr_free(data);
    return ok;
}

/* A data folder with a sealed data set of a few pictures a side; state as asked for. */
static bool make_set(bool ready, bool pairs) {
    static const char *const part[] = {"rainy", "clean", "paired/rainy", "paired/clean"};
    char data[300], name[64], sha[DB_SHA];
    db_entry_new e[12] = {0};
    db_store *db = NULL;
    db_dataset set = {0};
    size_t n = 0;
    if (!fixture_init(&pictures)) return false;
    snprintf(data, sizeof data, "%s/data", d.dir);
    if (db_open(data, NULL, &db, NULL)) return false;
    bool ok = true;
    for (int p = 0; p < (pairs ? 4 : 2); p++)
        for (int i = 0; i < 3 && ok; i++) {
            snprintf(name, sizeof name, "%d_%d.png", p, i);
            ok = fixture_picture(&pictures, name, 80, 72, 3, 100 * p + i + 1) &&
                 put_blob(db, fixture_path(&pictures, name), sha, &e[n].bytes);
            e[n].part = (db_part)p;
            snprintf(e[n].name, sizeof e[n].name, "%d.png", i);
            memcpy(e[n++].sha256, sha, sizeof sha);
            (void)part;
        }
    const db_dataset_new in = {.entries = e, .n_entries = n};
    ok = ok && !db_dataset_create(db, &in, &set, NULL, NULL);
    snprintf(set_id, sizeof set_id, "%s", set.id);
    db_dataset_clear(&set);
    ok = ok && !db_dataset_seal(db, set_id, false, &set, NULL);
    db_dataset_clear(&set);
    if (ready) ok = ok && !db_dataset_finish(db, set_id, true, "[]", NULL, 0, NULL);
    db_close(db);
    fixture_done(&pictures);
    return ok;
}

static bool begin(bool pairs) {
    daemon_dir(&d);
    char data[300];
    snprintf(data, sizeof data, "%s/data", d.dir);
    return !dr_fs_mkdirs(data, 0700, NULL) && make_set(true, pairs) && daemon_start(&d, NULL);
}
static void end(void) {
    CHECK(daemon_stop(&d, SIGTERM) == 0);
    scratch_rm(d.dir);
}

/* Makes a tiny training with further members; its id, in a static buffer. */
static const char *make(const char *more, int want) {
    static char id[64];
    char body[600];
    snprintf(
        body, sizeof body,
        "{\"type\":\"train\",\"dataset\":\"%s\",\"parent\":\"none\",\"crop\":64,\"ngf\":16,\"blocks\":5,\"ndf\":16,"
        "\"threads\":1%s}",
        set_id, more);
    answer a = ask(d.port, "POST", "/v1/jobs", NULL, body, strlen(body));
    if (a.status != want) printf("# %d: %s\n", a.status, a.body);
    snprintf(id, sizeof id, "%.40s", a.status == want ? member(&a, "id") : "");
    answer_done(&a);
    return id;
}

static bool state_is(const char *id, const char *state) {
    char path[128];
    snprintf(path, sizeof path, "/v1/jobs/%s", id);
    answer a = get(d.port, path);
    bool is = !strcmp(member(&a, "state"), state);
    answer_done(&a);
    return is;
}

static bool wait_state(const char *id, const char *state) {
    for (int i = 0; i < 4000; i++) {
        if (state_is(id, state)) return true;
        if (strcmp(state, "failed") && state_is(id, "failed")) break;
        poll(NULL, 0, 30);
    }
    char path[128];
    snprintf(path, sizeof path, "/v1/jobs/%s", id);
    answer a = get(d.port, path);
    printf("# not %s: %s\n", state, a.body);
    answer_done(&a);
    return false;
}

/* Steps done. */
static long steps_of(const char *id) {
    char path[128];
    snprintf(path, sizeof path, "/v1/jobs/%s", id);
    answer a = get(d.port, path);
    const char *p = a.body ? strstr(a.body, "\"step\":") : NULL;
    long n = p ? strtol(p + 7, NULL, 10) : -1;
    answer_done(&a);
    return n;
}
static bool wait_steps(const char *id, long n) {
    for (int i = 0; i < 4000 && steps_of(id) < n; i++) poll(NULL, 0, 10);
    return steps_of(id) >= n;
}

static bool file_hash(const char *id, const char *name, char ret[DR_SHA256_HEX]) {
    char path[700], *data = NULL;
    size_t n = 0;
    snprintf(path, sizeof path, "%s/data/training/%s/%s", d.dir, id, name);
    if (dr_fs_read(path, 1 << 28, &data, &n, NULL)) return false;
    dr_sha256_hex(data, n, ret);
    dr_free(data);
    return true;
}

static bool same_files(const char *a, const char *b) {
    static const char *const names[] = {"latest.safetensors", "best.safetensors", "train.safetensors"};
    char x[DR_SHA256_HEX], y[DR_SHA256_HEX];
    for (size_t i = 0; i < 3; i++)
        if (!file_hash(a, names[i], x) || !file_hash(b, names[i], y) || strcmp(x, y)) {
            printf("# %s differs\n", names[i]);
            return false;
        }
    return true;
}

/* Files named step_* and unfinished ones in the job's folder. */
static int checkpoints_on_disk(const char *id, int *ret_tmp) {
    char path[600];
    int n = 0;
    *ret_tmp = 0;
    snprintf(path, sizeof path, "%s/data/training/%s", d.dir, id);
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        n += !strncmp(e->d_name, "step_", 5);
        *ret_tmp += strstr(e->d_name, ".tmp") != NULL;
    }
    if (dir) closedir(dir);
    return n;
}

TEST(a_training_runs_and_shows_itself) {
    CHECK(begin(true));
    char id[64], path[160];
    snprintf(id, sizeof id, "%s",
             make(",\"steps\":8,\"save_every\":2,\"eval_every\":3,\"sample_every\":4,\"labels\":{\"a\":\"b\"}", 201));
    CHECK(*id && wait_state(id, "succeeded"));
    snprintf(path, sizeof path, "/v1/jobs/%s", id);
    answer a = get(d.port, path);
    CHECK(has(&a, "\"type\":\"train\"") && has(&a, "\"step\":8") && has(&a, "\"steps\":8") &&
          has(&a, "\"result\":null"));
    CHECK(has(&a, "\"input\":null") && has(&a, "\"a\":\"b\"") && has(&a, "\"psnr_y\"") && has(&a, "\"progress\":1.0"));
    answer_done(&a);
    snprintf(path, sizeof path, "/v1/jobs/%s/metrics", id);
    a = get(d.port, path);
    CHECK(a.status == 200 && has(&a, "\"step\":8") && has(&a, "transplant") && has(&a, "\"more\":false"));
    answer_done(&a);
    a = ask(d.port, "GET", path, "Accept: text/csv\r\n", NULL, 0);
    CHECK(a.status == 200 && !strncmp(a.body, "step,lr_factor,seconds_per_step,", 32) && has(&a, "\r\n8,"));
    answer_done(&a);
    snprintf(path, sizeof path, "/v1/jobs/%s/curves.svg", id);
    a = get(d.port, path);
    CHECK(a.status == 200 && has(&a, "<svg") && has(&a, "polyline") && has(&a, "transplant"));
    CHECK(!strcmp(header_of(&a, "Content-Type"), "image/svg+xml"));
    answer_done(&a);
    snprintf(path, sizeof path, "/v1/jobs/%s/samples/4.png", id);
    a = get(d.port, path);
    CHECK(a.status == 200 && a.len > 100 && !memcmp(a.body, "\x89PNG", 4));
    answer_done(&a);
    snprintf(path, sizeof path, "/v1/jobs/%s/samples/5.png", id);
    a = get(d.port, path);
    CHECK(a.status == 404);
    answer_done(&a);
    snprintf(path, sizeof path, "/v1/jobs/%s/checkpoints", id);
    a = get(d.port, path);
    CHECK(a.status == 200 && has(&a, "\"step\":8") && has(&a, "\"best\":true"));
    answer_done(&a);
    int tmp = 0, n = checkpoints_on_disk(id, &tmp);
    CHECK_MSG(n >= 3 && n <= 4 && !tmp, "%d checkpoints, %d unfinished", n, tmp);
    snprintf(path, sizeof path, "/v1/jobs/%s/events?after=0", id);
    a = get(d.port, path);
    CHECK(a.status == 200 && has(&a, "\"type\":\"metric\"") && has(&a, "\"type\":\"sample\"") &&
          has(&a, "\"type\":\"checkpoint\"") && has(&a, "\"to\":\"evaluating\"") && has(&a, "\"type\":\"end\""));
    answer_done(&a);
    snprintf(path, sizeof path, "/v1/jobs/%s", id);
    a = ask(d.port, "DELETE", path, NULL, NULL, 0);
    CHECK(a.status == 204);
    answer_done(&a);
    end();
}

/* The daemon inherits what is asked for here. How a training counts losses does not matter: also sizes are worked out
 * by a step, on a backend that computes nothing. */
TEST(a_step_that_is_not_finite_is_left_out_and_told) {
    dr_backend_poison(120, 1);
    bool begun = begin(false);
    dr_backend_poison(0, 0);
    CHECK(begun);
    char id[64], path[160];
    snprintf(id, sizeof id, "%s", make(",\"steps\":10,\"metric_every\":1", 201));
    CHECK(*id && wait_state(id, "succeeded"));
    snprintf(path, sizeof path, "/v1/jobs/%s", id);
    answer a = get(d.port, path);
    CHECK_MSG(has(&a, "\"step\":10") && has(&a, "\"skipped\":1"), "%s", a.body);
    answer_done(&a);
    snprintf(path, sizeof path, "/v1/jobs/%s/metrics", id);
    a = get(d.port, path);
    CHECK_MSG(has(&a, "\"step\":10") && has(&a, "\"skipped\":0") && has(&a, "\"skipped\":1"), "%s", a.body);
    answer_done(&a);
    snprintf(path, sizeof path, "/v1/jobs/%s/curves.svg", id);
    a = get(d.port, path);
    CHECK(has(&a, ">skipped<"));
    answer_done(&a);
    snprintf(path, sizeof path, "/v1/jobs/%s/events?after=0", id);
    a = get(d.port, path);
    CHECK(has(&a, "\"code\":\"step_skipped\"") && has(&a, "was left out: "));
    answer_done(&a);
    a = get(d.port, "/metrics");
    CHECK(has(&a, "\nderain_training_steps_skipped_total 1\n") && has(&a, "\nderain_training_steps_total 10\n"));
    answer_done(&a);
    end();
}

TEST(too_many_steps_that_are_not_finite_end_it) {
    dr_backend_poison(1, 1 << 20);
    bool begun = begin(false);
    dr_backend_poison(0, 0);
    CHECK(begun);
    char id[64], path[160];
    snprintf(id, sizeof id, "%s", make(",\"steps\":100", 201));
    CHECK(*id && wait_state(id, "failed"));
    snprintf(path, sizeof path, "/v1/jobs/%s", id);
    answer a = get(d.port, path);
    CHECK_MSG(has(&a, "\"code\":\"diverged\"") && has(&a, "\"skipped\":10") &&
                  has(&a, "10 steps in a row were left out, 10 of 10 in all") && has(&a, "try a lower lr"),
              "%s", a.body);
    answer_done(&a);
    a = get(d.port, "/metrics");
    CHECK(has(&a, "\nderain_training_steps_skipped_total 10\n"));
    answer_done(&a);
    end();
}

TEST(what_is_wrong_is_refused) {
    CHECK(begin(false));
    static const struct {
        const char *body, *code;
        int status;
    } bad[] = {{"{\"type\":\"train\"}", "invalid_member", 422},
               {"{\"type\":\"dance\"}", "invalid_member", 422},
               {"[1]", "bad_json", 400},
               {"{\"type\":\"train\",\"dataset\":\"ds_01ARZ3NDEKTSV4RRFFQ69G5FAV\"}", "invalid_member", 422},
               {"{\"type\":\"train\",\"dataset\":\"%s\",\"step\":5}", "unknown_member", 422},
               {"{\"type\":\"train\",\"dataset\":\"%s\",\"steps\":0}", "invalid_member", 422},
               {"{\"type\":\"train\",\"dataset\":\"%s\",\"steps\":1.5}", "invalid_member", 422},
               {"{\"type\":\"train\",\"dataset\":\"%s\",\"crop\":66}", "invalid_member", 422},
               {"{\"type\":\"train\",\"dataset\":\"%s\",\"preset\":\"best\"}", "invalid_member", 422},
               {"{\"type\":\"train\",\"dataset\":\"%s\",\"parent\":\"derain/9\"}", "invalid_member", 422},
               {"{\"type\":\"train\",\"dataset\":\"%s\",\"gate\":{\"x\":1}}", "unknown_member", 422},
               {"{\"type\":\"train\",\"dataset\":\"%s\",\"labels\":{\"x\":1}}", "invalid_member", 422}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char body[300];
        const char *at = strstr(bad[i].body, "%s");
        snprintf(body, sizeof body, "%.*s%s%s", at ? (int)(at - bad[i].body) : (int)strlen(bad[i].body), bad[i].body,
                 at ? set_id : "", at ? at + 2 : "");
        answer a = ask(d.port, "POST", "/v1/jobs", NULL, body, strlen(body));
        CHECK_MSG(a.status == bad[i].status && !strcmp(member(&a, "code"), bad[i].code), "%s: %d %s", body, a.status,
                  a.body);
        answer_done(&a);
    }
    end();
}

TEST(killed_at_random_it_ends_with_the_same_bits) {
    CHECK(begin(true));
    char whole[64], broken[64];
    const char *more = ",\"steps\":14,\"save_every\":2,\"eval_every\":4,\"seed\":5";
    snprintf(whole, sizeof whole, "%s", make(more, 201));
    CHECK(*whole && wait_state(whole, "succeeded"));
    static const char *const flags[] = {"--job-attempts-max=100", NULL};
    snprintf(broken, sizeof broken, "%s", make(more, 201));
    srand(4);
    int kills = 0;
    for (; kills < 8 && !state_is(broken, "succeeded"); kills++) {
        poll(NULL, 0, 50 + rand() % 500);
        CHECK(daemon_stop(&d, SIGKILL) == -1);
        CHECK(daemon_start(&d, flags));
    }
    CHECK(wait_state(broken, "succeeded") && same_files(whole, broken));
    CHECK_MSG(kills >= 2, "killed %d times only", kills);
    printf("# killed %d times\n", kills);
    int tmp = 0, n = checkpoints_on_disk(broken, &tmp);
    CHECK_MSG(n >= 3 && n <= 4 && !tmp, "%d checkpoints, %d unfinished", n, tmp);
    end();
}

TEST(paused_stopped_and_resumed_it_ends_with_the_same_bits) {
    CHECK(begin(false));
    char whole[64], broken[64], path[128];
    const char *more = ",\"steps\":10,\"save_every\":100,\"seed\":7";
    snprintf(whole, sizeof whole, "%s", make(more, 201));
    CHECK(*whole && wait_state(whole, "succeeded"));
    snprintf(broken, sizeof broken, "%s", make(more, 201));
    CHECK(wait_steps(broken, 2));
    snprintf(path, sizeof path, "/v1/jobs/%s/pause", broken);
    answer a = ask(d.port, "POST", path, NULL, "", 0);
    CHECK_MSG(a.status == 202 || a.status == 200, "%d %s", a.status, a.body);
    answer_done(&a);
    CHECK(wait_state(broken, "paused"));
    long at = steps_of(broken);
    CHECK(daemon_stop(&d, SIGTERM) == 0 && daemon_start(&d, NULL));
    poll(NULL, 0, 300);
    CHECK(state_is(broken, "paused") && steps_of(broken) == at);
    snprintf(path, sizeof path, "/v1/jobs/%s/resume", broken);
    a = ask(d.port, "POST", path, NULL, "", 0);
    CHECK(a.status == 200);
    answer_done(&a);
    CHECK(wait_steps(broken, at + 2));
    CHECK(daemon_stop(&d, SIGTERM) == 0 && daemon_start(&d, NULL)); /* an orderly stop saves too */
    CHECK(steps_of(broken) >= at + 2);
    CHECK(wait_state(broken, "succeeded") && same_files(whole, broken));
    end();
}

TEST(a_running_training_is_cancelled_at_once) {
    CHECK(begin(false));
    char id[64], path[128];
    snprintf(id, sizeof id, "%s", make(",\"steps\":100000", 201));
    CHECK(wait_steps(id, 1));
    snprintf(path, sizeof path, "/v1/jobs/%s/cancel", id);
    int64_t t0 = dr_clock_ns();
    answer a = ask(d.port, "POST", path, NULL, "", 0);
    CHECK(a.status == 202);
    answer_done(&a);
    CHECK(wait_state(id, "cancelled"));
    CHECK_MSG(dr_clock_ns() - t0 < INT64_C(5000000000), "%.1f s", (double)(dr_clock_ns() - t0) / 1e9);
    snprintf(path, sizeof path, "/v1/jobs/%s/pause", id);
    a = ask(d.port, "POST", path, NULL, "", 0);
    CHECK(a.status == 409 && !strcmp(member(&a, "code"), "not_pausable"));
    answer_done(&a);
    end();
}

/* Reads a stream until `text` has come, or for ms. */
static bool stream_until(int fd, const char *text, int ms, char *buf, size_t cap) {
    size_t n = strlen(buf);
    for (int64_t end_ns = dr_clock_ns() + (int64_t)ms * 1000000; dr_clock_ns() < end_ns && !strstr(buf, text);) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, 50) < 1) continue;
        ssize_t k = recv(fd, buf + n, cap - n - 1, 0);
        if (k <= 0) break;
        n += (size_t)k;
        buf[n] = 0;
    }
    return strstr(buf, text) != NULL;
}

static int open_stream(const char *id, const char *headers) {
    char req[400];
    int fd = dial(d.port);
    snprintf(req, sizeof req,
             "GET /v1/jobs/%s/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n%s\r\n", id, headers);
    return send_all(fd, req, strlen(req)) ? fd : -1;
}

TEST(events_come_live_and_again_after_a_break) {
    static char buf[1 << 20];
    CHECK(begin(false));
    char id[64], last[64];
    snprintf(id, sizeof id, "%s", make(",\"steps\":12", 201));
    int fd = open_stream(id, "");
    *buf = 0;
    CHECK(stream_until(fd, "event: metric", 20000, buf, sizeof buf));
    CHECK(strstr(buf, "text/event-stream") && strstr(buf, "id: 1\n"));
    close(fd); /* in the middle; it comes back with the last number it saw */
    char *p = NULL;
    for (char *q = buf; (q = strstr(q, "id: ")); q++) p = q;
    CHECK(p);
    snprintf(last, sizeof last, "Last-Event-ID: %ld\r\n", strtol(p + 4, NULL, 10));
    char next[32];
    snprintf(next, sizeof next, "id: %ld\n", strtol(p + 4, NULL, 10) + 1);
    fd = open_stream(id, last);
    *buf = 0;
    CHECK(stream_until(fd, "event: end", 60000, buf, sizeof buf));
    CHECK(strstr(buf, next) && !strstr(buf, "id: 1\n") && strstr(buf, "succeeded"));
    CHECK(stream_until(fd, "0\r\n\r\n", 5000, buf, sizeof buf)); /* it ends by itself */
    close(fd);
    end();
}

TEST(a_picture_has_events_too) {
    static char buf[1 << 16];
    static uint8_t png[4096];
    CHECK(begin(false));
    size_t n = make_png(png, 64, 48, 2, 200, NULL);
    answer a = ask(d.port, "POST", "/v1/derain", "Accept: application/json\r\n", png, n);
    char id[64], path[128];
    CHECK(a.status == 200);
    snprintf(id, sizeof id, "%.40s", member(&a, "id"));
    answer_done(&a);
    int fd = open_stream(id, "");
    *buf = 0;
    CHECK(stream_until(fd, "event: end", 5000, buf, sizeof buf) && strstr(buf, "succeeded"));
    close(fd);
    snprintf(path, sizeof path, "/v1/jobs/%s/events", id);
    a = ask(d.port, "HEAD", path, "Accept: text/event-stream\r\n", NULL, 0);
    CHECK(a.status == 200);
    answer_done(&a);
    a = ask(d.port, "GET", path, "Accept: image/png\r\n", NULL, 0);
    CHECK(a.status == 406);
    answer_done(&a);
    snprintf(path, sizeof path, "/v1/jobs/%s/metrics", id);
    a = get(d.port, path);
    CHECK(a.status == 404 && has(&a, "no training"));
    answer_done(&a);
    fd = open_stream("job_01ARZ3NDEKTSV4RRFFQ69G5FAV", "");
    *buf = 0;
    CHECK(stream_until(fd, "job_not_found", 5000, buf, sizeof buf) && strstr(buf, " 404 "));
    close(fd);
    end();
}

TEST(an_idle_stream_pings_costs_nothing_and_does_not_hold_up_the_end) {
    static char buf[1 << 16];
    CHECK(begin(false));
    char id[64], path[128];
    snprintf(id, sizeof id, "%s", make(",\"steps\":100000", 201));
    snprintf(path, sizeof path, "/v1/jobs/%s/pause", id);
    answer a = ask(d.port, "POST", path, NULL, "", 0);
    answer_done(&a);
    CHECK(wait_state(id, "paused"));
    int fd = open_stream(id, "");
    *buf = 0;
    CHECK(stream_until(fd, "paused", 5000, buf, sizeof buf));
    char stat[64], line[512] = "";
    snprintf(stat, sizeof stat, "/proc/%d/stat", (int)d.pid);
    unsigned long u0 = 0, u1 = 0;
    for (int i = 0; i < 2; i++) {
        FILE *f = fopen(stat, "r");
        CHECK(f && fgets(line, sizeof line, f));
        fclose(f);
        const char *q = strrchr(line, ')');
        for (int k = 0; q && k < 12; k++) q = strchr(q + 1, ' ');
        *(i ? &u1 : &u0) = q ? strtoul(q, NULL, 10) : 0;
        if (!i) CHECK(stream_until(fd, ": ping", 14000, buf, sizeof buf));
    }
    CHECK_MSG(u1 - u0 < 100, "%lu ticks of CPU while nothing happened", u1 - u0); /* of some 1000 */
    int64_t t0 = dr_clock_ns();
    CHECK(daemon_stop(&d, SIGTERM) == 0);
    CHECK_MSG(dr_clock_ns() - t0 < INT64_C(8000000000), "%.1f s", (double)(dr_clock_ns() - t0) / 1e9);
    close(fd);
    CHECK(daemon_start(&d, NULL) && state_is(id, "paused"));
    end();
}
