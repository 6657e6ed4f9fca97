/* test_files.c - whole files, atomic writes, folders; hashes, hex and base64; the log's escaping. */
#include "core/base/alloc.h"
#include "core/base/fs.h"
#include "core/base/hash.h"
#include "core/base/log.h"
#include "tests/t.h"
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64];

static const char *in_dir(const char *name) {
    static char path[2][160];
    static int turn;
    turn ^= 1;
    snprintf(path[turn], sizeof path[turn], "%s/%s", dir, name);
    return path[turn];
}

static int fresh(void) {
    snprintf(dir, sizeof dir, "/tmp/derain-files-XXXXXX");
    return mkdtemp(dir) != NULL;
}

TEST(what_is_written_is_read) {
    CHECK(fresh());
    dr_error e = {0};
    char *d;
    size_t n;
    CHECK(!dr_fs_write_atomic(in_dir("a"), "one", 3, &e));
    CHECK(!dr_fs_write_atomic(in_dir("a"), "twotwo", 6, &e));
    CHECK(!dr_fs_read(in_dir("a"), 6, &d, &n, &e));
    CHECK(n == 6 && !strcmp(d, "twotwo"));
    dr_free(d);
    CHECK(dr_fs_read(in_dir("a"), 5, &d, &n, &e) == DR_TOO_LARGE);
    e.code = DR_OK;
    CHECK(dr_fs_read(in_dir("none"), 5, &d, &n, &e) == DR_NOT_FOUND);
    e.code = DR_OK;
    CHECK(dr_fs_read(dir, 5, &d, &n, &e) == DR_INVALID);
    CHECK(dr_fs_read("/proc/self/status", 1 << 20, &d, &n, NULL) == DR_OK && n > 100); /* size 0 in stat */
    dr_free(d);
    struct stat st;
    mode_t mask = umask(022);
    CHECK(!dr_fs_write_atomic(in_dir("m"), "x", 1, NULL));
    umask(mask);
    CHECK(!stat(in_dir("m"), &st) && (st.st_mode & 0777) == 0644);
}

static dr_status half(int fd, void *arg, dr_error *err) {
    (void)arg;
    dr_status s = dr_fs_write_all(fd, "half", 4, err);
    return s ? s : dr_fail(err, DR_CANCELLED, "stopped in the middle");
}

TEST(a_failed_write_keeps_the_old_file) {
    CHECK(fresh());
    dr_error e = {0};
    char *d, **names;
    size_t n;
    CHECK(!dr_fs_write_atomic(in_dir("a"), "old", 3, &e));
    CHECK(dr_fs_write_atomic_fn(in_dir("a"), half, NULL, &e) == DR_CANCELLED);
    CHECK(!dr_fs_read(in_dir("a"), 10, &d, &n, NULL) && !strcmp(d, "old"));
    dr_free(d);
    CHECK(!dr_fs_list(dir, &names, &n, NULL) && n == 1 && !strcmp(names[0], "a")); /* nothing left behind */
    dr_fs_list_free(names, n);
    CHECK(dr_fs_write_atomic(in_dir("none/a"), "x", 1, NULL) == DR_NOT_FOUND);
    int full = open("/dev/full", O_WRONLY);
    if (full >= 0) {
        CHECK(dr_fs_write_all(full, "x", 1, NULL) == DR_NOSPACE);
        close(full);
    }
}

TEST(folders) {
    CHECK(fresh());
    dr_error e = {0};
    CHECK(!dr_fs_mkdirs(in_dir("x/y/z"), 0700, &e) && !dr_fs_mkdirs(in_dir("x/y/z"), 0700, &e));
    CHECK(dr_fs_is_dir(in_dir("x/y")) && !dr_fs_exists(in_dir("x/q")));
    CHECK(!dr_fs_write_atomic(in_dir("x/b"), "", 0, &e) && !dr_fs_write_atomic(in_dir("x/a"), "", 0, &e));
    CHECK(!dr_fs_write_atomic(in_dir("x/.hidden"), "", 0, &e));
    CHECK(!symlink("a", in_dir("x/link")));
    char **names;
    size_t n;
    CHECK(!dr_fs_list(in_dir("x"), &names, &n, &e) && n == 3);
    CHECK(!strcmp(names[0], "a") && !strcmp(names[1], "b") && !strcmp(names[2], "link"));
    dr_fs_list_free(names, n);
    CHECK(dr_fs_mkdirs(in_dir("x/a/under-a-file"), 0700, NULL) != DR_OK);
    CHECK(dr_fs_list(in_dir("nope"), &names, &n, NULL) == DR_NOT_FOUND);
    uint64_t space, total;
    CHECK(!dr_fs_space(dir, &space, &total, &e) && total >= space && total > 0);
    char *p = dr_fs_join("a//", "b"), *q = dr_fs_join("/", "b");
    bool joined = p && q && !strcmp(p, "a/b") && !strcmp(q, "/b");
    dr_free(p);
    dr_free(q);
    CHECK(joined);
}

TEST(no_memory_is_an_error_everywhere) {
    CHECK(fresh());
    for (long n = 1; n < 20; n++) {
        char *d, **names;
        size_t len;
        dr_alloc_fail_after(n, false);
        dr_status w = dr_fs_write_atomic(in_dir("a"), "x", 1, NULL);
        dr_status r = dr_fs_read(in_dir("a"), 10, &d, &len, NULL);
        if (!r) dr_free(d);
        dr_status l = dr_fs_list(dir, &names, &len, NULL);
        if (!l) dr_fs_list_free(names, len);
        long used = dr_alloc_count();
        dr_alloc_fail_after(0, false);
        if (used < n) return; /* every allocation had its turn */
        CHECK(w == DR_NOMEM || r == DR_NOMEM || r == DR_NOT_FOUND || l == DR_NOMEM);
    }
    CHECK(!"the loop must end by itself");
}

TEST(hashes) {
    char hex[DR_SHA256_HEX];
    dr_sha256_hex("abc", 3, hex);
    CHECK(!strcmp(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
    CHECK(dr_crc32(0, "123456789", 9) == 0xcbf43926u);
    CHECK(dr_crc32(dr_crc32(0, "1234", 4), "56789", 5) == 0xcbf43926u);
    uint8_t mac[32], raw[4];
    dr_hmac_sha256("key", 3, "The quick brown fox jumps over the lazy dog", 43, mac);
    dr_hex(mac, 32, hex);
    CHECK(!strncmp(hex, "f7bc83f430538424b13298e6aa6fb143", 32));
    CHECK(dr_unhex("00ffA0", 3, raw) && raw[1] == 0xff && raw[2] == 0xa0);
    CHECK(!dr_unhex("00f", 2, raw) && !dr_unhex("00fg", 2, raw) && !dr_unhex("00ff00", 2, raw));
    char b64[16];
    uint8_t back[16];
    size_t n;
    dr_base64((const uint8_t *)"hello", 5, b64);
    CHECK(!strcmp(b64, "aGVsbG8="));
    CHECK(dr_unbase64(b64, 8, back, sizeof back, &n) && n == 5 && !memcmp(back, "hello", 5));
    CHECK(!dr_unbase64("a$Vs", 4, back, sizeof back, &n) && !dr_unbase64(b64, 8, back, 2, &n));
    CHECK(dr_equal_ct("same", "same", 4) && !dr_equal_ct("same", "sane", 4));
}

/* Nobody forges a log line through a name. */
TEST(log_lines_stay_one_line) {
    CHECK(fresh());
    int keep = dup(2), fd = open(in_dir("log"), O_RDWR | O_CREAT, 0600);
    CHECK(keep >= 0 && fd >= 0);
    dup2(fd, 2);
    dr_log_setup(DR_LOG_INFO, false);
    dr_log(DR_LOG_DEBUG, NULL, "not shown");
    dr_log(DR_LOG_WARN, "req1", "a\nb\x1b[31m");
    dr_log_setup(DR_LOG_INFO, true);
    dr_log(DR_LOG_ERROR, NULL, "quote \" and \\ and \n");
    dr_log_setup(DR_LOG_INFO, false);
    dup2(keep, 2);
    close(keep);
    close(fd);
    char *d;
    size_t n;
    CHECK(!dr_fs_read(in_dir("log"), 1 << 16, &d, &n, NULL));
    int lines = 0;
    for (size_t i = 0; i < n; i++) lines += d[i] == '\n';
    bool good = lines == 2 && strstr(d, "req1 a\\x0ab\\x1b[31m") && strstr(d, "quote \\\" and \\\\ and \\u000a") &&
                !strstr(d, "not shown");
    dr_free(d);
    CHECK(good);
    dr_log_level l;
    CHECK(dr_log_level_parse("Warn", &l) && l == DR_LOG_WARN && !dr_log_level_parse("loud", &l));
}
