/* test_crash.c - the process is killed in the middle of writing, again and again: what was acknowledged is there. */
#include "tests/db/util.h"
#include "tests/t.h"
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

static char dir[256];
static void sleep_us(long us) {
    nanosleep(&(struct timespec){.tv_nsec = us * 1000}, NULL);
}

/* A child that creates, claims and finishes, and writes one line per acknowledged change to the pipe. */
static void life(int out) {
    db_store *db = NULL;
    db_finish f = good_result();
    if (db_open(dir, &(db_options){.job_attempts_max = 1000000}, &db, NULL)) _exit(1);
    for (int i = 0;; i++) {
        char id[DB_ID], line[64];
        db_job j = {0};
        if (add_job(db, NULL, id)) _exit(2);
        int n = snprintf(line, sizeof line, "Q%s\n", id);
        if (write(out, line, (size_t)n) != n) _exit(3);
        if (i % 2 && db_job_claim(db, &(db_claim){0}, &j, NULL) == DR_OK) {
            if (db_job_finish(db, j.id, j.epoch, &f, NULL, NULL)) _exit(4);
            n = snprintf(line, sizeof line, "F%s\n", j.id);
            if (write(out, line, (size_t)n) != n) _exit(5);
            db_job_clear(&j);
        }
    }
}

static bool is_line(const char *s) {
    return (s[0] == 'Q' || s[0] == 'F') && strlen(s) == 31 && db_id_valid("job_", s + 1);
}

TEST(acknowledged_rows_survive_sigkill) {
    enum { LIVES = 25 };
    int queued = 0, finished = 0;
    scratch_make(dir, sizeof dir);
    for (int k = 0; k < LIVES; k++) {
        int p[2];
        CHECK(pipe(p) == 0);
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            close(p[0]);
            life(p[1]);
        }
        close(p[1]);
        FILE *in = fdopen(p[0], "r");
        CHECK(in);
        char line[64], (*seen)[32] = malloc(20000 * sizeof *seen);
        int n = 0;
        CHECK(seen && fgets(line, sizeof line, in)); /* it has begun */
        line[strcspn(line, "\n")] = 0;
        if (is_line(line)) memcpy(seen[n++], line, 32);
        sleep_us(1000 + (k * 7919) % 40000);
        kill(pid, SIGKILL);
        while (fgets(line, sizeof line, in) && n < 20000) {
            line[strcspn(line, "\n")] = 0;
            if (is_line(line)) memcpy(seen[n++], line, 32);
        }
        fclose(in);
        waitpid(pid, NULL, 0);

        db_store *db = NULL;
        dr_error err = {0};
        CHECK_MSG(db_open(dir, &(db_options){.job_attempts_max = 1000000}, &db, &err) == DR_OK, "%s", err.text);
        for (int i = 0; i < n; i++) {
            db_job j = {0};
            CHECK_MSG(db_job_get(db, seen[i] + 1, &j, NULL) == DR_OK, "life %d lost %s", k, seen[i]);
            CHECK(seen[i][0] == 'Q' || (j.state == DB_SUCCEEDED && j.has_result));
            CHECK(j.state != DB_RUNNING);
            queued += seen[i][0] == 'Q';
            finished += seen[i][0] == 'F';
            db_job_clear(&j);
        }
        db_counts c;
        CHECK(db_job_counts(db, &c, NULL) == DR_OK && c.state[DB_RUNNING] == 0 && c.state[DB_FAILED] == 0);
        db_close(db);
        free(seen);
    }
    CHECK_MSG(queued > LIVES && finished > 0, "%d queued, %d finished", queued, finished);
    scratch_rm(dir);
}

/* Claim everything that waits, then die. */
static int die_running(bool cancel) {
    pid_t pid = fork();
    if (pid == 0) {
        db_store *db = NULL;
        db_job j = {0};
        if (db_open(dir, &(db_options){.job_attempts_max = 3}, &db, NULL)) _exit(1);
        while (db_job_claim(db, &(db_claim){0}, &j, NULL) == DR_OK) {
            if (cancel && db_job_cancel(db, j.id, NULL, NULL, NULL, NULL)) _exit(2);
            db_job_clear(&j);
        }
        kill(getpid(), SIGKILL);
    }
    int rc = 0;
    waitpid(pid, &rc, 0);
    return rc;
}

TEST(running_jobs_return_to_the_queue_but_not_for_ever) {
    scratch_make(dir, sizeof dir);
    db_store *db = NULL;
    char id[DB_ID];
    db_job j = {0};
    db_recovered r;
    const db_options opt = {.job_attempts_max = 3};
    CHECK(db_open(dir, &opt, &db, NULL) == DR_OK && add_job(db, NULL, id) == DR_OK);
    db_recovery(db, &r);
    CHECK(r.requeued == 0 && r.failed == 0);
    db_close(db);
    for (int life_no = 1; life_no <= 3; life_no++) {
        int rc = die_running(false);
        CHECK(WIFSIGNALED(rc));
        CHECK(db_open(dir, &opt, &db, NULL) == DR_OK);
        db_recovery(db, &r);
        CHECK(db_job_get(db, id, &j, NULL) == DR_OK && j.attempt == life_no);
        if (life_no < 3) {
            CHECK(r.requeued == 1 && r.failed == 0 && j.state == DB_QUEUED && j.finished_ms == 0);
        } else {
            CHECK(r.requeued == 0 && r.failed == 1 && j.state == DB_FAILED && j.finished_ms > 0);
            CHECK(j.problem_json && strstr(j.problem_json, "crashed_repeatedly"));
        }
        /* the dead claim's epoch is worth nothing */
        db_finish f = good_result();
        CHECK(db_job_finish(db, id, j.epoch, &f, NULL, NULL) == DR_CONFLICT);
        db_job_clear(&j);
        db_close(db);
    }
    scratch_rm(dir);
}

TEST(a_cancel_survives_the_crash) {
    scratch_make(dir, sizeof dir);
    db_store *db = NULL;
    char id[DB_ID];
    db_job j = {0};
    CHECK(db_open(dir, NULL, &db, NULL) == DR_OK && add_job(db, NULL, id) == DR_OK);
    db_close(db);
    CHECK(WIFSIGNALED(die_running(true)));
    CHECK(db_open(dir, NULL, &db, NULL) == DR_OK);
    CHECK(db_job_get(db, id, &j, NULL) == DR_OK && j.state == DB_CANCELLED);
    db_job_clear(&j);
    db_close(db);
    scratch_rm(dir);
}
