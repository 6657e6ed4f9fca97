/* test_spool.c - uploads: streamed, hashed, judged early, made durable; files of jobs; the sweep. */
#include "core/base/alloc.h"
#include "core/base/fs.h"
#include "server/spool.h"
#include "tests/server/daemon.h"
#include "tests/t.h"
#include <pthread.h>

static uint8_t png[200000];
static char dir[256];
static srv_spool *sp;
static dr_limits lim;

static bool up(void) {
    dr_error err = {0};
    lim = (dr_limits){.body_max_bytes = 100000};
    dr_limits_fill(&lim);
    scratch_make(dir, sizeof dir);
    return !srv_spool_open(dir, &sp, &err);
}
static void down(void) {
    srv_spool_close(sp);
    scratch_rm(dir);
}
static size_t n_files(const char *sub) {
    char **names = NULL, *path = dr_fs_join(dir, sub);
    size_t n = 0;
    if (dr_fs_list(path, &names, &n, NULL))
        n = 999;
    else
        dr_fs_list_free(names, n);
    dr_free(path);
    return n;
}

typedef struct kept {
    pthread_mutex_t mu;
    pthread_cond_t cond;
    bool done;
    dr_status s;
} kept;
static void on_kept(void *arg, dr_status s, const dr_error *err) {
    kept *k = arg;
    (void)err;
    pthread_mutex_lock(&k->mu);
    k->s = s;
    k->done = true;
    pthread_cond_signal(&k->cond);
    pthread_mutex_unlock(&k->mu);
}
static dr_status keep(srv_upload *u, const char *id) {
    kept k = {.mu = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
    srv_spool_keep(sp, u, id, on_kept, &k);
    pthread_mutex_lock(&k.mu);
    while (!k.done) pthread_cond_wait(&k.cond, &k.mu);
    pthread_mutex_unlock(&k.mu);
    return k.s;
}

TEST(an_upload_becomes_a_file_with_its_hash) {
    CHECK(up());
    size_t n = make_png(png, 40, 30, 2, 5000, NULL), len = 0;
    char id[DB_ID], hex[DR_SHA256_HEX], want[DR_SHA256_HEX], *back = NULL;
    uint8_t sha[32];
    srv_upload *u = NULL;
    dr_picture_info info;
    dr_error err = {0};
    CHECK(!srv_upload_begin(sp, n, &lim, &u, &err));
    for (size_t i = 0; i < n; i += 100) CHECK(!srv_upload_write(u, png + i, n - i < 100 ? n - i : 100, &err));
    CHECK(!srv_upload_end(u, &info, sha, &err) && info.width == 40 && info.height == 30 && srv_upload_bytes(u) == n);
    dr_hex(sha, 32, hex);
    dr_sha256_hex(png, n, want);
    CHECK(!strcmp(hex, want));
    db_id_new("job_", id);
    CHECK(!keep(u, id));
    CHECK(!srv_spool_read_input(sp, id, 1 << 20, &back, &len, &err) && len == n && !memcmp(back, png, n));
    dr_free(back);
    CHECK(n_files("spool") == 1);
    srv_spool_erase(sp, id);
    srv_spool_close(sp); /* works off its queue */
    sp = NULL;
    CHECK(n_files("spool") == 0);
    scratch_rm(dir);
}

static dr_status upload(const void *data, size_t n, uint64_t expected, dr_error *err) {
    srv_upload *u = NULL;
    uint8_t sha[32];
    dr_picture_info info;
    *err = (dr_error){0};
    dr_status s = srv_upload_begin(sp, expected, &lim, &u, err);
    if (s) return s;
    for (size_t i = 0; i < n && !s; i += 64)
        s = srv_upload_write(u, (const char *)data + i, n - i < 64 ? n - i : 64, err);
    if (!s) s = srv_upload_end(u, &info, sha, err);
    srv_upload_discard(u);
    return s;
}

TEST(what_is_wrong_is_said_and_leaves_nothing) {
    dr_error err;
    static char text[1000];
    CHECK(up());
    memset(text, 'x', sizeof text);
    CHECK(upload("", 0, 0, &err) == DR_INVALID && !strcmp(err.what, "empty_body"));
    CHECK(upload(text, 1000, 1000, &err) == DR_UNSUPPORTED && !strcmp(err.what, "unsupported_format"));
    CHECK(upload(text, 10, 10, &err) == DR_UNSUPPORTED);
    size_t n = make_png(png, 40, 30, 2, 5000, NULL);
    CHECK(upload(png, n / 2, n / 2, &err) == DR_CORRUPT && !strcmp(err.what, "image_corrupt"));
    n = make_png(png, 60000, 60000, 2, 100, NULL);
    CHECK(upload(png, n, n, &err) == DR_TOO_LARGE && *err.setting && err.limit && err.actual > err.limit);
    n = make_png(png, 40, 30, 2, 120000, NULL);
    CHECK(upload(png, n, n, &err) == DR_TOO_LARGE && !strcmp(err.what, "body_too_large")); /* by its length */
    CHECK(upload(png, n, 0, &err) == DR_TOO_LARGE && !strcmp(err.what, "body_too_large")); /* by counting */
    CHECK(n_files("spool") == 0);
    down();
}

TEST(a_picture_is_refused_by_its_first_bytes) {
    dr_error err = {0};
    srv_upload *u = NULL;
    CHECK(up());
    size_t n = make_png(png, 60000, 60000, 2, 50000, NULL);
    CHECK(!srv_upload_begin(sp, n, &lim, &u, &err));
    dr_status s = srv_upload_write(u, png, 4096, &err);
    CHECK(s == DR_TOO_LARGE && !strcmp(err.what, "image_too_large"));
    srv_upload_discard(u);
    down();
}

TEST(results) {
    char id[DB_ID], buf[8];
    int fd = -1;
    uint64_t len = 0;
    dr_error err = {0};
    CHECK(up());
    db_id_new("job_", id);
    CHECK(srv_spool_open_result(sp, id, &fd, &len, &err) == DR_NOT_FOUND);
    CHECK(!srv_spool_write_result(sp, id, "abc", 3, &err) && !srv_spool_write_result(sp, id, "abcd", 4, &err));
    err = (dr_error){0};
    CHECK(!srv_spool_open_result(sp, id, &fd, &len, &err) && len == 4 && read(fd, buf, 8) == 4 &&
          !memcmp(buf, "abcd", 4));
    close(fd);
    down();
}

static bool known(void *arg, const char *id) {
    return !strcmp(arg, id);
}

TEST(the_sweep_keeps_what_is_known_and_a_restart_drops_halves) {
    char keep_id[DB_ID], drop[DB_ID], path[400];
    size_t n = 0;
    dr_error err = {0};
    CHECK(up());
    db_id_new("job_", keep_id);
    db_id_new("job_", drop);
    CHECK(!srv_spool_write_result(sp, keep_id, "x", 1, &err) && !srv_spool_write_result(sp, drop, "x", 1, &err));
    CHECK(!srv_spool_write_report(sp, keep_id, "{}", 2, &err) && !srv_spool_write_report(sp, drop, "{}", 2, &err));
    snprintf(path, sizeof path, "%s/spool/tmp.up_x", dir);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    snprintf(path, sizeof path, "%s/results/%s.tmp-abcdef", dir, drop);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    snprintf(path, sizeof path, "%s/results/%s.json.tmp-1-2", dir, drop);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    srv_spool_close(sp);
    CHECK(!srv_spool_open(dir, &sp, &err));
    CHECK(n_files("spool") == 0 && n_files("results") == 4);
    CHECK(!srv_spool_sweep(sp, known, keep_id, &n, &err) && n == 2 && n_files("results") == 2);
    int fd = -1;
    uint64_t len = 0;
    CHECK(!srv_spool_open_report(sp, keep_id, &fd, &len, &err) && len == 2);
    close(fd);
    CHECK(srv_spool_open_report(sp, drop, &fd, &len, NULL) == DR_NOT_FOUND);
    srv_spool_erase(sp, keep_id);
    srv_spool_close(sp); /* does what is queued */
    CHECK(!srv_spool_open(dir, &sp, &err) && n_files("results") == 0);
    down();
}

TEST(room) {
    dr_error err = {0};
    CHECK(up());
    CHECK(!srv_spool_room(sp, 1, 0, &err));
    CHECK(srv_spool_room(sp, UINT64_MAX, 0, &err) == DR_NOSPACE && !strcmp(err.what, "disk_full"));
    down();
}

TEST(no_memory_leaves_no_file) {
    CHECK(up());
    size_t n = make_png(png, 40, 30, 2, 500, NULL);
    for (long k = 1;; k++) {
        dr_error err;
        dr_alloc_fail_after(k, false);
        dr_status s = upload(png, n, n, &err);
        bool reached = dr_alloc_count() >= k;
        dr_alloc_fail_after(0, false);
        CHECK(n_files("spool") == 0);
        if (!reached) {
            CHECK(!s);
            break;
        }
        CHECK(s == DR_NOMEM);
    }
    down();
}
