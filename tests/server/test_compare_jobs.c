/* test_compare_jobs.c - comparisons in a real daemon with the engine double: what is refused, what is made and erased,
 * cancel, an orderly stop and a kill in the middle, and requests that do not wait for it. */
#include "core/base/fs.h"
#include "db/models.h"
#include "server/model_files.h"
#include "tests/server/daemon.h"
#include "tests/t.h"

static daemon_child d;
static uint8_t png[4096];

/* A data folder that knows other/1, with weights, and gone/1, without. */
static bool prepare(void) {
    static char empty[] = "{}";
    char path[400];
    db_store *db = NULL;
    daemon_dir(&d);
    snprintf(path, sizeof path, "%s/data", d.dir);
    if (dr_fs_mkdirs(path, 0700, NULL) || db_open(path, NULL, &db, NULL)) return false;
    db_model m = {.version = 1, .bytes = 1, .origin = DB_IMPORTED, .arch_json = empty, .about_json = empty};
    memset(m.sha256, 'a', 64);
    snprintf(m.name, sizeof m.name, "other");
    bool ok = !db_model_add(db, &m, NULL);
    snprintf(m.name, sizeof m.name, "gone");
    ok = ok && !db_model_add(db, &m, NULL);
    db_close(db);
    snprintf(path, sizeof path, "%s/data/models/other/1", d.dir);
    ok = ok && !dr_fs_mkdirs(path, 0700, NULL);
    snprintf(path, sizeof path, "%s/data/models/other/1/%s", d.dir, SRV_MODEL_WEIGHTS);
    return ok && !dr_fs_write_atomic(path, "w", 1, NULL);
}

static bool begin(void) {
    return prepare() && daemon_start(&d, NULL);
}
static void end(void) {
    CHECK(daemon_stop(&d, SIGTERM) == 0);
    scratch_rm(d.dir);
}

/* Uploads a picture; its blob in a few static buffers. */
static const char *blob(const char *comment) {
    static char sha[8][DR_SHA256_HEX];
    static int at;
    char *s = sha[at++ % 8], path[128];
    size_t n = make_png(png, 64, 48, 2, 500, comment);
    dr_sha256_hex(png, n, s);
    snprintf(path, sizeof path, "/v1/blobs/%s", s);
    answer a = ask(d.port, "PUT", path, NULL, png, n);
    if (a.status != 201 && a.status != 200) printf("# PUT blob: %d %s\n", a.status, a.body);
    answer_done(&a);
    return s;
}

static answer post(const char *body, const char *headers) {
    return ask(d.port, "POST", "/v1/jobs", headers, body, strlen(body));
}

/* A comparison of n copies of pictures; its id. */
static const char *make(const char *versions, const char *const *blobs, int n, const char *headers) {
    static char id[64], body[8000];
    int len = snprintf(body, sizeof body, "{\"type\":\"compare\",\"versions\":%s,\"pictures\":[", versions);
    for (int i = 0; i < n; i++)
        len +=
            snprintf(body + len, sizeof body - (size_t)len, "%s{\"name\":\"p%d.png\",\"blob\":\"%s\",\"clean\":\"%s\"}",
                     i ? "," : "", i, blobs[i], blobs[0]);
    snprintf(body + len, sizeof body - (size_t)len, "]}");
    answer a = post(body, headers);
    if (a.status != 201) printf("# %d %s\n", a.status, a.body);
    snprintf(id, sizeof id, "%.40s", a.status == 201 ? member(&a, "id") : "");
    answer_done(&a);
    return id;
}
#define BOTH "[\"derain/1\",\"other/1\"]"

static answer job(const char *id, const char *tail) {
    char path[160];
    snprintf(path, sizeof path, "/v1/jobs/%s%s", id, tail);
    return get(d.port, path);
}

static bool ends_as(const char *id, const char *state) {
    answer a = {0};
    for (int i = 0; i < 20; i++) {
        answer_done(&a);
        a = job(id, "?wait=2");
        if (!strcmp(member(&a, "state"), "queued") || !strcmp(member(&a, "state"), "running")) continue;
        break;
    }
    bool is = !strcmp(member(&a, "state"), state);
    if (!is) printf("# %s\n", a.body);
    answer_done(&a);
    return is;
}

static bool running_past(const char *id, int events) {
    for (int i = 0; i < 500; i++) {
        answer a = job(id, "/events");
        int n = 0;
        for (const char *p = a.body; p && (p = strstr(p, "\"type\":\"progress\"")); p++) n++;
        answer_done(&a);
        if (n >= events) return true;
        poll(NULL, 0, 10);
    }
    return false;
}

static int files_in(const char *sub) {
    char path[400], **names = NULL;
    size_t n = 0;
    snprintf(path, sizeof path, "%s/data/%s", d.dir, sub);
    if (dr_fs_list(path, &names, &n, NULL)) return -1;
    dr_fs_list_free(names, n);
    return (int)n;
}

static int status_of(answer a) {
    int status = a.status;
    answer_done(&a);
    return status;
}

TEST(what_is_refused) {
    CHECK(begin());
    char body[500];
    const char *b = blob("one");
    snprintf(body, sizeof body, "{\"type\":\"compare\",\"pictures\":[{\"name\":\"p\",\"blob\":\"%s\"}]}", b);
    answer a = post(body, NULL); /* derain has one version only */
    CHECK_MSG(a.status == 422 && has(&a, "has only one version") && has(&a, "/versions"), "%s", a.body);
    answer_done(&a);
    static const struct {
        const char *versions;
        int status;
        const char *text;
    } bad[] = {{"[\"derain/1\",\"other/9\"]", 422, "there is no version other/9"},
               {"[\"derain\",\"derain/1\"]", 422, "stands there twice"},
               {"[\"derain/1\"]", 422, "at least two"},
               {"[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\",\"g\"]", 413, "compare_too_large"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(body, sizeof body,
                 "{\"type\":\"compare\",\"versions\":%s,\"pictures\":[{\"name\":\"p\",\"blob\":\"%s\"}]}",
                 bad[i].versions, b);
        a = post(body, NULL);
        CHECK_MSG(a.status == bad[i].status && has(&a, bad[i].text), "%d %s", a.status, a.body);
        answer_done(&a);
    }
    snprintf(body, sizeof body,
             "{\"type\":\"compare\",\"versions\":" BOTH ",\"pictures\":[{\"name\":\"p\",\"blob\":\"%064d\"}]}", 7);
    a = post(body, NULL);
    CHECK_MSG(a.status == 404 && has(&a, "blob_not_found"), "%d %s", a.status, a.body);
    answer_done(&a);
    snprintf(body, sizeof body,
             "{\"type\":\"compare\",\"versions\":" BOTH ",\"dataset\":\"ds_00000000000000000000000000\"}");
    a = post(body, NULL);
    CHECK_MSG(a.status == 422 && has(&a, "no such data set"), "%s", a.body);
    answer_done(&a);
    a = post("{\"type\":\"compare\",\"labels\":7,\"dataset\":\"x\"}", NULL);
    CHECK(a.status == 422 && has(&a, "/labels"));
    answer_done(&a);
    a = get(d.port, "/v1/jobs?type=compare");
    CHECK(a.status == 200 && has(&a, "\"items\":[]")); /* nothing was made */
    answer_done(&a);
    end();
}

TEST(a_comparison_from_beginning_to_erasure) {
    CHECK(begin());
    const char *b[3] = {blob("one"), blob("fail-me"), blob("two")};
    char id[64], again[64], path[128];
    snprintf(id, sizeof id, "%s", make(BOTH, b, 3, "Idempotency-Key: k1\r\n"));
    snprintf(again, sizeof again, "%s", make(BOTH, b, 3, "Idempotency-Key: k1\r\n"));
    CHECK(*id && !strcmp(id, again));
    CHECK(ends_as(id, "succeeded"));
    answer a = job(id, "");
    CHECK_MSG(has(&a, "\"type\":\"compare\"") && has(&a, "\"pictures\":3") && has(&a, "/report\"") &&
                  has(&a, "\"progress\":1.0"),
              "%s", a.body);
    answer_done(&a);
    a = job(id, "/report");
    CHECK_MSG(a.status == 200 && has(&a, "\"compared\":2") && has(&a, "\"failed\":1") && has(&a, "image_corrupt") &&
                  has(&a, "\"psnr_y\":25.0") && has(&a, "the double was asked to fail") && has(&a, "conclusion"),
              "%s", a.body);
    char etag[128];
    snprintf(etag, sizeof etag, "If-None-Match: %.80s\r\n", header_of(&a, "ETag"));
    CHECK(strlen(etag) > 70 && *header_of(&a, "Content-Digest"));
    answer_done(&a);
    snprintf(path, sizeof path, "/v1/jobs/%s/report", id);
    CHECK(status_of(ask(d.port, "GET", path, etag, NULL, 0)) == 304);
    a = job(id, "/result");
    CHECK(a.status == 200 && a.len > 8 && !memcmp(a.body + 1, "PNG", 3));
    answer_done(&a);
    a = job(id, "/events");
    CHECK(has(&a, "\"done\":1") && has(&a, "\"done\":3") && has(&a, "\"of\":3") && has(&a, "image_corrupt"));
    answer_done(&a);
    CHECK(files_in("results") == 2);
    snprintf(path, sizeof path, "/v1/blobs/%s", b[2]);
    CHECK(status_of(ask(d.port, "DELETE", path, NULL, NULL, 0)) == 409);
    char self[128];
    snprintf(self, sizeof self, "/v1/jobs/%s", id);
    CHECK(status_of(ask(d.port, "DELETE", self, NULL, NULL, 0)) == 204);
    for (int i = 0; i < 100 && files_in("results"); i++) poll(NULL, 0, 20);
    CHECK(files_in("results") == 0 && status_of(job(id, "/report")) == 410);
    CHECK(status_of(ask(d.port, "DELETE", path, NULL, NULL, 0)) == 204);
    end();
}

TEST(what_fails_says_why) {
    CHECK(begin());
    const char *b[2] = {blob("fail-me"), blob("fail-me too")};
    char id[64];
    snprintf(id, sizeof id, "%s", make(BOTH, b, 2, NULL));
    CHECK(ends_as(id, "failed"));
    answer a = job(id, "");
    CHECK_MSG(has(&a, "nothing_compared") && has(&a, "p0.png"), "%s", a.body);
    answer_done(&a);
    a = job(id, "/report");
    CHECK(a.status == 409 && has(&a, "no_result"));
    answer_done(&a);
    b[0] = blob("good");
    snprintf(id, sizeof id, "%s", make("[\"derain\",\"gone/1\"]", b, 1, NULL));
    CHECK(ends_as(id, "failed"));
    a = job(id, "");
    CHECK_MSG(has(&a, "version_unusable") && has(&a, "gone version 1"), "%s", a.body);
    answer_done(&a);
    size_t n = make_png(png, 64, 48, 2, 500, NULL);
    a = ask(d.port, "POST", "/v1/derain", "Accept: application/json\r\n", png, n);
    snprintf(id, sizeof id, "%.40s", member(&a, "id"));
    answer_done(&a);
    CHECK(*id && status_of(job(id, "/report")) == 404); /* no comparison */
    end();
}

TEST(requests_do_not_wait_and_cancel_is_quick) {
    setenv("DERAIN_DOUBLE_MS", "200", 1);
    CHECK(begin());
    const char *b[8];
    char id[64];
    for (int i = 0; i < 8; i++) b[i] = blob("one");
    snprintf(id, sizeof id, "%s", make(BOTH, b, 8, NULL));
    CHECK(running_past(id, 1));
    size_t n = make_png(png, 64, 48, 2, 500, NULL);
    int64_t t0 = dr_clock_ns();
    CHECK(status_of(ask(d.port, "POST", "/v1/derain", NULL, png, n)) == 200);
    double ms = (double)(dr_clock_ns() - t0) / 1e6;
    CHECK_MSG(ms < 2000, "%.0f ms beside a comparison of five seconds", ms);
    CHECK(status_of(job(id, "/report")) == 409 && status_of(job(id, "/result")) == 409);
    char path[128];
    snprintf(path, sizeof path, "/v1/jobs/%s", id);
    CHECK(status_of(ask(d.port, "DELETE", path, NULL, NULL, 0)) == 409);
    snprintf(path, sizeof path, "/v1/jobs/%s/cancel", id);
    t0 = dr_clock_ns();
    CHECK(status_of(ask(d.port, "POST", path, NULL, NULL, 0)) == 202);
    CHECK(ends_as(id, "cancelled"));
    CHECK_MSG(dr_clock_ns() - t0 < INT64_C(2000000000), "%.0f ms", (double)(dr_clock_ns() - t0) / 1e6);
    CHECK(files_in("results") == 1); /* the picture's */
    end();
    unsetenv("DERAIN_DOUBLE_MS");
}

TEST(a_stop_puts_it_back_and_a_kill_does_it_again) {
    setenv("DERAIN_DOUBLE_MS", "60", 1);
    CHECK(begin());
    const char *b[6];
    char id[64];
    for (int i = 0; i < 6; i++) b[i] = blob("one");
    snprintf(id, sizeof id, "%s", make(BOTH, b, 6, NULL));
    CHECK(running_past(id, 1));
    int64_t t0 = dr_clock_ns();
    CHECK(daemon_stop(&d, SIGTERM) == 0 && dr_clock_ns() - t0 < INT64_C(5000000000));
    CHECK(daemon_start(&d, NULL));
    for (int i = 0; i < 3; i++) { /* killed at three moments */
        CHECK(running_past(id, 2 + i));
        daemon_stop(&d, SIGKILL);
        CHECK(daemon_start(&d, NULL));
    }
    CHECK(ends_as(id, "succeeded"));
    answer a = job(id, "");
    CHECK_MSG(has(&a, "\"attempt\":4"), "%s", a.body); /* the orderly stop does not count */
    answer_done(&a);
    a = job(id, "/report");
    CHECK(a.status == 200 && has(&a, "\"compared\":6"));
    answer_done(&a);
    CHECK(files_in("results") == 2);
    end();
    unsetenv("DERAIN_DOUBLE_MS");
}
