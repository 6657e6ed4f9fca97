/* test_store.c - opening, locking, migrating, damaged, read-only and full data folders, backup, threads and group
 * commit. */
#include "core/base/alloc.h"
#include "core/base/fs.h"
#include "db/internal.h"
#include "db/models.h"
#include "tests/db/util.h"
#include "tests/t.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

static char dir[256];
static void sleep_ms(long ms) {
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

TEST(opens_a_new_folder_privately_and_again) {
    scratch_make(dir, sizeof dir);
    char deep[300], path[400];
    snprintf(deep, sizeof deep, "%s/a/b", dir);
    db_store *db = NULL;
    dr_error err = {0};
    struct stat st;
    char id[DB_ID];
    CHECK(db_open(deep, NULL, &db, &err) == DR_OK);
    CHECK(stat(deep, &st) == 0 && (st.st_mode & 0777) == 0700);
    CHECK(add_job(db, NULL, id) == DR_OK);
    const char *files[] = {"derain.db", "derain.db-wal", "derain.lock"};
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", deep, files[i]);
        CHECK_MSG(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600, "%s", path);
    }
    CHECK(db_ping(db, NULL) == DR_OK);
    db_close(db);
    for (int i = 0; i < 3; i++) { /* migrations are done once */
        db_job j = {0};
        CHECK(db_open(deep, NULL, &db, &err) == DR_OK);
        CHECK(db_job_get(db, id, &j, NULL) == DR_OK && j.state == DB_QUEUED);
        db_job_clear(&j);
        db_close(db);
    }
    db_close(NULL);
    scratch_rm(dir);
}

TEST(a_second_daemon_is_refused) {
    scratch_make(dir, sizeof dir);
    db_store *db = NULL, *other = NULL;
    dr_error err = {0};
    CHECK(db_open(dir, NULL, &db, NULL) == DR_OK);
    CHECK(db_open(dir, NULL, &other, &err) == DR_BUSY && strcmp(err.what, "data_in_use") == 0 && !other);
    db_close(db);
    CHECK(db_open(dir, NULL, &other, NULL) == DR_OK);
    db_close(other);
    scratch_rm(dir);
}

static void raw_sql(const char *sql) {
    char path[300];
    sqlite3 *h;
    snprintf(path, sizeof path, "%s/derain.db", dir);
    if (sqlite3_open(path, &h) != SQLITE_OK || sqlite3_exec(h, sql, NULL, NULL, NULL) != SQLITE_OK)
        printf("# sql: %s\n", sqlite3_errmsg(h));
    sqlite3_close(h);
}

TEST(a_newer_database_is_refused) {
    scratch_make(dir, sizeof dir);
    db_store *db = NULL;
    dr_error err = {0};
    CHECK(db_open(dir, NULL, &db, NULL) == DR_OK);
    db_close(db);
    raw_sql("PRAGMA user_version = 99");
    db = NULL;
    CHECK(db_open(dir, NULL, &db, &err) == DR_UNSUPPORTED && strcmp(err.what, "db_newer") == 0 && !db);
    scratch_rm(dir);
}

TEST(a_damaged_database_is_refused) {
    scratch_make(dir, sizeof dir);
    db_store *db = NULL;
    dr_error err = {0};
    char path[300], id[DB_ID];
    CHECK(db_open(dir, NULL, &db, NULL) == DR_OK);
    for (int i = 0; i < 200; i++) CHECK(add_job(db, NULL, id) == DR_OK);
    db_close(db);
    snprintf(path, sizeof path, "%s/derain.db", dir);
    char junk[3000];
    memset(junk, 0xa5, sizeof junk);
    int fd = open(path, O_WRONLY);
    CHECK(fd >= 0 && pwrite(fd, junk, sizeof junk, 5 * 4096) == sizeof junk &&
          pwrite(fd, junk, sizeof junk, 9 * 4096) == sizeof junk);
    close(fd);
    db = NULL;
    CHECK(db_open(dir, NULL, &db, &err) == DR_CORRUPT && !db);
    CHECK(dr_fs_write_atomic(path, "this is no database at all, only words", 38, NULL) == DR_OK);
    err = (dr_error){0};
    CHECK(db_open(dir, NULL, &db, &err) == DR_CORRUPT && strcmp(err.what, "db_corrupt") == 0 && !db);
    scratch_rm(dir);
}

TEST(a_read_only_folder_says_so) {
    if (geteuid() == 0) { /* root writes everywhere: try it as somebody else */
        scratch_make(dir, sizeof dir);
        chmod(dir, 0555);
        int p[2];
        CHECK(pipe(p) == 0);
        pid_t pid = fork();
        if (pid == 0) {
            dr_error err = {0};
            db_store *db = NULL;
            if (setgid(65534) != 0 || setuid(65534) != 0) _exit(9);
            dr_status s = db_open(dir, NULL, &db, &err);
            _exit(s == DR_IO && strcmp(err.what, "data_not_writable") == 0 && !db ? 0 : 1);
        }
        int rc = 0;
        waitpid(pid, &rc, 0);
        scratch_rm(dir);
        if (WIFEXITED(rc) && WEXITSTATUS(rc) == 9) SKIP("cannot become another user");
        CHECK(WIFEXITED(rc) && WEXITSTATUS(rc) == 0);
        return;
    }
    scratch_make(dir, sizeof dir);
    chmod(dir, 0555);
    dr_error err = {0};
    db_store *db = NULL;
    CHECK(db_open(dir, NULL, &db, &err) == DR_IO && strcmp(err.what, "data_not_writable") == 0 && !db);
    chmod(dir, 0755);
    scratch_rm(dir);
}

typedef struct page_limit {
    db_req base;
    int64_t pages;
} page_limit;
static dr_status set_pages(db_store *db, db_conn *c, db_req *r, dr_error *err) {
    (void)db;
    char sql[64];
    snprintf(sql, sizeof sql, "PRAGMA max_page_count=%lld", (long long)((page_limit *)r)->pages);
    return db_exec(c, sql, err);
}

TEST(a_full_disk_refuses_new_work_and_keeps_the_old) {
    scratch_make(dir, sizeof dir);
    db_store *db = NULL;
    char id[DB_ID], last[DB_ID] = "";
    CHECK(db_open(dir, NULL, &db, NULL) == DR_OK);
    db_job p = sample_job(), j = {0};
    char *big = malloc(40000);
    CHECK(big);
    memset(big, 'x', 40000);
    memcpy(big, "{\"k\":\"", 6);
    memcpy(big + 39997, "\"}", 3);
    p.params_json = big;
    page_limit lim = {.base = {.run = set_pages}, .pages = 100};
    CHECK(db_call(db, &lim.base, NULL) == DR_OK);
    int made = 0;
    dr_status s = DR_OK;
    dr_error err = {0};
    while (made < 200) {
        s = db_job_create(db, &(db_job_new){.job = &p}, &j, NULL, &err);
        if (s) break;
        memcpy(last, j.id, sizeof last);
        db_job_clear(&j);
        made++;
    }
    CHECK(s == DR_NOSPACE && strcmp(err.what, "disk_full") == 0 && made > 2);
    CHECK(db_job_get(db, last, &j, NULL) == DR_OK);
    db_job_clear(&j);
    /* deleting still works, and gives room again */
    CHECK(db_job_delete(db, last, NULL) == DR_OK);
    CHECK(add_job(db, NULL, id) == DR_OK);
    db_counts n;
    CHECK(db_job_counts(db, &n, NULL) == DR_OK && n.state[DB_QUEUED] == made);
    free(big);
    db_close(db);
    CHECK(db_open(dir, NULL, &db, NULL) == DR_OK && db_job_get(db, id, &j, NULL) == DR_OK);
    db_job_clear(&j);
    db_close(db);
    scratch_rm(dir);
}

/* The real thing at the level of write(2): files may not grow any more. */
TEST(failing_writes_are_reported_and_ping_recovers) {
    scratch_make(dir, sizeof dir);
    db_store *db = NULL;
    char id[DB_ID] = "";
    CHECK(db_open(dir, NULL, &db, NULL) == DR_OK && add_job(db, NULL, id) == DR_OK);
    db_stats st;
    db_stats_get(db, &st);
    struct rlimit old, small;
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = (rlim_t)st.wal_bytes;
    signal(SIGXFSZ, SIG_IGN);
    CHECK(setrlimit(RLIMIT_FSIZE, &small) == 0);
    db_job p = sample_job(), j = {0};
    dr_error err = {0};
    dr_status s = db_job_create(db, &(db_job_new){.job = &p}, &j, NULL, &err);
    dr_status health = db_ping(db, NULL);
    setrlimit(RLIMIT_FSIZE, &old);
    CHECK_MSG(s == DR_IO || s == DR_NOSPACE, "%d %s", s, err.text);
    CHECK(health == s);
    for (int i = 0; i < 50 && db_ping(db, NULL); i++) sleep_ms(20);
    CHECK(db_ping(db, NULL) == DR_OK);
    CHECK(db_job_get(db, id, &j, NULL) == DR_OK && add_job(db, NULL, id) == DR_OK);
    db_job_clear(&j);
    db_counts n;
    CHECK(db_job_counts(db, &n, NULL) == DR_OK && n.state[DB_QUEUED] == 2);
    db_close(db);
    scratch_rm(dir);
}

TEST(without_memory_open_fails_cleanly) {
    scratch_make(dir, sizeof dir);
    int failed = 0;
    for (long n = 1; n < 60; n++) {
        db_store *db = NULL;
        dr_alloc_fail_after(n, true);
        dr_status s = db_open(dir, NULL, &db, NULL);
        dr_alloc_fail_after(0, false);
        failed += s == DR_NOMEM;
        CHECK((s == DR_OK) == (db != NULL) && (s == DR_OK || s == DR_NOMEM));
        db_close(db);
    }
    CHECK(failed > 3);
    scratch_rm(dir);
}

TEST(backup_is_a_whole_database) {
    scratch_make(dir, sizeof dir);
    char copy[300], path[400], id[DB_ID];
    db_store *db = NULL;
    snprintf(copy, sizeof copy, "%s/copy", dir);
    CHECK(db_open(dir, NULL, &db, NULL) == DR_OK && add_job(db, NULL, id) == DR_OK && mkdir(copy, 0700) == 0);
    snprintf(path, sizeof path, "%s/derain.db", copy);
    dr_error err = {0};
    CHECK_MSG(db_backup(db, path, &err) == DR_OK, "%s", err.text);
    CHECK(db_backup(db, "/nonexistent/x.db", NULL) != DR_OK);
    db_close(db);
    db_job j = {0};
    CHECK(db_open(copy, NULL, &db, NULL) == DR_OK && db_job_get(db, id, &j, NULL) == DR_OK && j.state == DB_QUEUED);
    db_job_clear(&j);
    db_close(db);
    scratch_rm(dir);
}

TEST(models_are_remembered) {
    scratch_make(dir, sizeof dir);
    db_store *db = NULL;
    CHECK(db_open(dir, NULL, &db, NULL) == DR_OK);
    db_model m = {.name = "derain",
                  .version = 1,
                  .bytes = 10,
                  .is_default = true,
                  .arch_json = (char[]){"{\"ngf\":32}"}},
             got = {0};
    memset(m.sha256, 'a', 64);
    dr_error err = {0};
    CHECK(db_model_get(db, "derain", 0, &got, &err) == DR_NOT_FOUND && strcmp(err.what, "model_not_found") == 0);
    CHECK(db_model_put(db, &m, false, NULL) == DR_OK && db_model_put(db, &m, false, NULL) == DR_OK);
    m.version = 2;
    CHECK(db_model_put(db, &m, false, NULL) == DR_OK);
    memset(m.sha256, 'b', 64);
    CHECK(db_model_put(db, &m, false, NULL) == DR_CONFLICT && db_model_put(db, &m, true, NULL) == DR_OK);
    CHECK(db_model_get(db, "derain", 0, &got, NULL) == DR_OK && got.version == 2 && got.sha256[0] == 'b' &&
          strcmp(got.arch_json, m.arch_json) == 0);
    db_model_clear(&got);
    CHECK(db_model_get(db, "derain", 1, &got, NULL) == DR_OK && !got.is_default && !got.card);
    db_model_clear(&got);
    db_model *list = NULL;
    size_t n = 0;
    CHECK(db_model_list(db, NULL, 0, &list, &n, NULL) == DR_OK && n == 2 && list[0].version == 2);
    db_model_list_clear(list, n);
    m.arch_json = (char[]){"nonsense"};
    CHECK(db_model_put(db, &m, false, NULL) == DR_INVALID);
    db_close(db);
    scratch_rm(dir);
}

/* --- threads
 * -------------------------------------------------------------------------------------------------------------- */

enum { THREADS = 8, EACH = 40, LIMIT = 100 };
typedef struct crowd {
    db_store *db;
    atomic_int ok, full, other;
} crowd;

static void *crowd_main(void *arg) {
    crowd *w = arg;
    for (int i = 0; i < EACH; i++) {
        db_job p = sample_job(), j = {0};
        dr_status s = db_job_create(w->db, &(db_job_new){.job = &p, .queue_max = LIMIT}, &j, NULL, NULL);
        if (s == DR_OK)
            atomic_fetch_add(&w->ok, 1);
        else if (s == DR_BUSY)
            atomic_fetch_add(&w->full, 1);
        else
            atomic_fetch_add(&w->other, 1);
        db_job_clear(&j);
        db_job_page page = {0};
        if (db_job_list(w->db, &(db_job_filter){.limit = 3}, &page, NULL)) atomic_fetch_add(&w->other, 1);
        db_job_page_clear(&page);
    }
    return NULL;
}

TEST(the_queue_limit_holds_in_a_crowd_and_commits_are_shared) {
    scratch_make(dir, sizeof dir);
    crowd w = {0};
    CHECK(db_open(dir, NULL, &w.db, NULL) == DR_OK);
    pthread_t t[THREADS];
    for (int i = 0; i < THREADS; i++) CHECK(pthread_create(&t[i], NULL, crowd_main, &w) == 0);
    for (int i = 0; i < THREADS; i++) pthread_join(t[i], NULL);
    db_counts n;
    db_stats st;
    CHECK(db_job_counts(w.db, &n, NULL) == DR_OK);
    db_stats_get(w.db, &st);
    CHECK_MSG(atomic_load(&w.ok) == LIMIT && atomic_load(&w.other) == 0, "%d ok, %d full, %d other", w.ok, w.full,
              w.other);
    CHECK(n.state[DB_QUEUED] == LIMIT && w.full == THREADS * EACH - LIMIT);
    CHECK(st.requests == THREADS * EACH && st.fifo == 0);
    CHECK_MSG(st.commits < st.requests, "%lld commits for %lld requests", (long long)st.commits,
              (long long)st.requests);
    CHECK(st.readers <= THREADS + 1);
    db_close(w.db);
    scratch_rm(dir);
}

static void *claim_main(void *arg) {
    crowd *w = arg;
    db_job j = {0};
    db_finish f = good_result();
    while (db_job_claim(w->db, &(db_claim){0}, &j, NULL) == DR_OK) {
        atomic_fetch_add(&w->ok, 1);
        db_job_progress(w->db, j.id, j.epoch, 0.5);
        if (db_job_finish(w->db, j.id, j.epoch, &f, NULL, NULL)) atomic_fetch_add(&w->other, 1);
        db_job_clear(&j);
    }
    return NULL;
}

TEST(no_job_is_claimed_twice) {
    scratch_make(dir, sizeof dir);
    crowd w = {0};
    char id[DB_ID];
    CHECK(db_open(dir, NULL, &w.db, NULL) == DR_OK);
    for (int i = 0; i < 60; i++) CHECK(add_job(w.db, NULL, id) == DR_OK);
    pthread_t t[4];
    for (int i = 0; i < 4; i++) CHECK(pthread_create(&t[i], NULL, claim_main, &w) == 0);
    for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
    db_counts n;
    CHECK(db_job_counts(w.db, &n, NULL) == DR_OK);
    CHECK(w.ok == 60 && w.other == 0 && n.state[DB_SUCCEEDED] == 60);
    db_close(w.db);
    scratch_rm(dir);
}

typedef struct waiter {
    atomic_int done, bad;
    char id[DB_ID];
} waiter;
static void on_done(void *arg, dr_status s, const db_job *job, bool flag, const dr_error *err) {
    waiter *w = arg;
    if (s || flag || err->code || !job) atomic_fetch_add(&w->bad, 1);
    atomic_fetch_add(&w->done, 1);
}
static void on_cancel(void *arg, dr_status s, const db_job *job, bool flag, const dr_error *err) {
    (void)err;
    waiter *w = arg;
    if (s || !flag || !job || job->state != DB_CANCELLED) atomic_fetch_add(&w->bad, 1);
    atomic_fetch_add(&w->done, 1);
}
static void on_delete(void *arg, dr_status s, const db_job *job, bool flag, const dr_error *err) {
    (void)flag;
    waiter *w = arg;
    if (s || job || err->code) atomic_fetch_add(&w->bad, 1);
    atomic_fetch_add(&w->done, 1);
}
static void on_missing(void *arg, dr_status s, const db_job *job, bool flag, const dr_error *err) {
    (void)flag;
    waiter *w = arg;
    if (s != DR_NOT_FOUND || job || strcmp(err->what, "job_gone") != 0) atomic_fetch_add(&w->bad, 1);
    atomic_fetch_add(&w->done, 1);
}

TEST(asynchronous_writes_call_back_after_the_commit) {
    scratch_make(dir, sizeof dir);
    db_store *db = NULL;
    waiter w = {0};
    CHECK(db_open(dir, NULL, &db, NULL) == DR_OK);
    for (int i = 0; i < 100; i++) {
        db_job p = sample_job();
        char labels[32]; /* gone before the write happens: everything is copied */
        snprintf(labels, sizeof labels, "{\"n\":\"%d\"}", i);
        p.labels_json = labels;
        db_id_new("job_", p.id);
        if (i == 7) memcpy(w.id, p.id, sizeof w.id);
        db_job_create_async(db, &(db_job_new){.job = &p, .queue_max = 1000}, on_done, &w);
        memset(labels, 0, sizeof labels);
    }
    db_job_cancel_async(db, w.id, "because", on_cancel, &w);
    db_job_delete_async(db, w.id, on_delete, &w);
    db_job_delete_async(db, w.id, on_missing, &w);
    dr_alloc_fail_after(1, true);
    waiter nomem = {0};
    db_job_cancel_async(db, w.id, NULL, on_done, &nomem);
    dr_alloc_fail_after(0, false);
    CHECK(nomem.done == 1 && nomem.bad == 1);
    db_close(db); /* answers all that waits */
    CHECK_MSG(w.done == 103 && w.bad == 0, "%d done, %d bad", w.done, w.bad);
    CHECK(db_open(dir, NULL, &db, NULL) == DR_OK);
    db_counts n;
    CHECK(db_job_counts(db, &n, NULL) == DR_OK && n.state[DB_QUEUED] == 99);
    db_close(db);
    scratch_rm(dir);
}
