/* test_lost.c - a job that counts as running though nobody works on it is found by the running daemon and done; one
 * that somebody works on is left alone, however old its lease looks. */
#include "tests/t.h"
#include "tests/server/daemon.h"
#include <sqlite3.h>

static daemon_child d;

/* A write behind the daemon's back. */
static bool meddle(const char *sql, const char *id) {
    char path[400];
    sqlite3 *h = NULL;
    sqlite3_stmt *q = NULL;
    snprintf(path, sizeof path, "%s/data/derain.db", d.dir);
    bool ok = sqlite3_open_v2(path, &h, SQLITE_OPEN_READWRITE, NULL) == SQLITE_OK &&
              sqlite3_busy_timeout(h, 5000) == SQLITE_OK && sqlite3_prepare_v2(h, sql, -1, &q, NULL) == SQLITE_OK &&
              sqlite3_bind_text(q, 1, id, -1, SQLITE_STATIC) == SQLITE_OK && sqlite3_step(q) == SQLITE_DONE &&
              sqlite3_changes(h) == 1;
    if (!ok) printf("# %s\n", sqlite3_errmsg(h));
    sqlite3_finalize(q);
    sqlite3_close(h);
    return ok;
}

static bool hand_in(char id[64]) {
    uint8_t png[4096];
    size_t n = make_png(png, 64, 48, 2, 200, NULL);
    answer a = ask(d.port, "POST", "/v1/derain", "Prefer: respond-async\r\n", png, n);
    snprintf(id, 64, "%.40s", member(&a, "id"));
    bool ok = a.status == 202;
    answer_done(&a);
    return ok;
}

static bool job_says(const char *id, const char *text) {
    char path[128];
    snprintf(path, sizeof path, "/v1/jobs/%s", id);
    answer a = get(d.port, path);
    bool is = has(&a, text);
    answer_done(&a);
    return is;
}

static bool wait_job(const char *id, const char *text, int seconds) {
    for (int i = 0; i < seconds * 20; i++) {
        if (job_says(id, text)) return true;
        poll(NULL, 0, 50);
    }
    return false;
}

TEST(a_job_that_nobody_works_on_is_done_after_all) {
    char held[64], lost[64];
    setenv("DERAIN_DOUBLE_MS", "16000", 1); /* longer than a round of the janitor */
    daemon_dir(&d);
    CHECK(daemon_start(&d, NULL));
    CHECK(hand_in(held) && wait_job(held, "\"state\":\"running\"", 10));
    CHECK(hand_in(lost) && job_says(lost, "\"state\":\"queued\""));
    CHECK(meddle(
        "UPDATE jobs SET state = 'running', epoch = epoch + 1, attempt = attempt + 1, boot = 'x', lease_until = 1"
        " WHERE id = ?1",
        lost));
    CHECK(meddle("UPDATE jobs SET lease_until = 1 WHERE id = ?1", held));
    CHECK(wait_job(lost, "\"state\":\"queued\"", 15)); /* claimed back while the only worker is busy */
    CHECK(job_says(held, "\"state\":\"running\"") && job_says(held, "\"attempt\":1"));
    char *log = daemon_log(&d);
    char said[2][128];
    snprintf(said[0], sizeof said[0], "job %s had been lost: it is queued", lost);
    snprintf(said[1], sizeof said[1], "job %s had been lost", held);
    CHECK_MSG(strstr(log, said[0]) && !strstr(log, said[1]), "%s", log);
    free(log);
    CHECK(wait_job(held, "\"state\":\"succeeded\"", 30) && job_says(held, "\"attempt\":1"));
    CHECK(wait_job(lost, "\"state\":\"running\"", 10) && job_says(lost, "\"attempt\":2"));
    CHECK(daemon_stop(&d, SIGKILL) == -1);
    scratch_rm(d.dir);
}
