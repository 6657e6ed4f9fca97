/* test_archive.c - what an archive may hold and what is refused, by name: paths, links, names, bombs by count, size and
 * ratio, damage, foreign formats. Zip and gzip files are written with libarchive itself. */
#include "server/archive.h"
#include "tests/server/archives.h"
#include "tests/t.h"
#include <archive.h>
#include <archive_entry.h>
#include <sys/mman.h>
#include <unistd.h>

typedef struct seen {
    char text[2000]; /* "part:name=bytes " of each whole file */
    char name[600];
    int part;
    size_t bytes;
} seen;

static dr_status on_begin(void *arg, int part, const char *name, dr_error *err) {
    seen *s = arg;
    (void)err;
    s->part = part;
    s->bytes = 0;
    snprintf(s->name, sizeof s->name, "%s", name);
    return DR_OK;
}
static dr_status on_data(void *arg, const void *data, size_t len, dr_error *err) {
    (void)data, (void)err;
    ((seen *)arg)->bytes += len;
    return DR_OK;
}
static dr_status on_end(void *arg, dr_error *err) {
    seen *s = arg;
    size_t n = strlen(s->text);
    (void)err;
    snprintf(s->text + n, sizeof s->text - n, "%d:%s=%zu ", s->part, s->name, s->bytes);
    return DR_OK;
}

static srv_archive_limits lim = {.files_max = 10, .bytes_max = 100 << 20, .file_max = 50 << 20, .ratio_max = 100};

static dr_status read_bytes(const void *p, size_t n, seen *ret, dr_error *err) {
    int fd = memfd_create("archive", MFD_CLOEXEC);
    seen s = {0};
    *err = (dr_error){0};
    if (fd < 0 || write(fd, p, n) != (ssize_t)n) return DR_IO;
    const srv_archive_sink sink = {&s, on_begin, on_data, on_end};
    dr_status st = srv_archive_read(fd, &lim, &sink, err);
    close(fd);
    if (ret) *ret = s;
    return st;
}

/* A tar with one good file and then this entry. */
static bool refused(const char *name, char type, const char *link, const char *why) {
    tar_file t = {0};
    dr_error err;
    tar_add(&t, "rainy/a.png", '0', NULL, "abc", 3, -1);
    tar_add(&t, name, type, link, "x", type == '0' ? 1 : 0, -1);
    tar_end(&t);
    dr_status s = read_bytes(t.p, t.n, NULL, &err);
    tar_done(&t);
    bool ok = s == DR_INVALID && !strcmp(err.what, "archive_entry") && strstr(err.text, why);
    if (!ok) printf("# %s: %d %s %s\n", name, s, err.what, err.text);
    return ok;
}

TEST(a_tar_is_read) {
    tar_file t = {0};
    seen s;
    dr_error err;
    tar_add(&t, "./", '5', NULL, NULL, 0, -1);
    tar_add(&t, "./rainy/", '5', NULL, NULL, 0, -1);
    tar_add(&t, "./rainy/a.png", '0', NULL, "abc", 3, -1);
    tar_add(&t, "paired/clean/\xC3\xBC.jpg", '0', NULL, "abcd", 4, -1);
    tar_add(&t, "clean/b c.png", '0', NULL, "ab", 2, -1);
    tar_end(&t);
    CHECK_MSG(!read_bytes(t.p, t.n, &s, &err), "%s", err.text);
    CHECK_MSG(!strcmp(s.text, "0:a.png=3 3:\xC3\xBC.jpg=4 1:b c.png=2 "), "%s", s.text);
    tar_done(&t);
}

TEST(paths_that_lead_elsewhere_are_refused) {
    CHECK(refused("../evil.png", '0', NULL, "'..'"));
    CHECK(refused("rainy/../../evil.png", '0', NULL, "entry 'rainy/../../evil.png'"));
    CHECK(refused("rainy/..", '0', NULL, "'..'"));
    CHECK(refused("/etc/passwd", '0', NULL, "absolute"));
    CHECK(refused("C:\\x", '0', NULL, "absolute"));
    CHECK(refused("other/x.png", '0', NULL, "outside"));
    CHECK(refused("x.png", '0', NULL, "outside"));
    CHECK(refused("paired/x.png", '0', NULL, "outside"));
    CHECK(refused("other/", '5', NULL, "outside"));
    CHECK(refused("rainy/sub/x.png", '0', NULL, "folders inside"));
    CHECK(refused("rainy/.hidden", '0', NULL, "dot in front"));
    CHECK(refused("rainy/a\nb", '0', NULL, "control"));
    CHECK(refused("rainy/a\\b", '0', NULL, "name"));
    CHECK(refused("rainy/\xFF\xFE", '0', NULL, "name"));
}

TEST(links_and_devices_are_refused) {
    CHECK(refused("rainy/l.png", '2', "/etc/passwd", "symbolic"));
    CHECK(refused("rainy/l.png", '1', "rainy/a.png", "hard links"));
    CHECK(refused("rainy/dev", '3', NULL, "only files and folders"));
    CHECK(refused("rainy/pipe", '6', NULL, "only files and folders"));
}

TEST(names_have_limits) {
    char name[160];
    memset(name, 'n', sizeof name);
    name[128] = 0;
    CHECK(srv_entry_name_ok(name));
    name[128] = 'n', name[129] = 0;
    CHECK(!srv_entry_name_ok(name) && !srv_entry_name_ok("") && !srv_entry_name_ok("."));
    CHECK(!srv_entry_name_ok("\xC0\x80") && !srv_entry_name_ok("\xED\xA0\x80") && !srv_entry_name_ok("a\xC3"));
    CHECK(!srv_entry_name_ok("\xF4\x90\x80\x80") && srv_entry_name_ok("\xF0\x9F\x8C\xA7.png") &&
          !srv_entry_name_ok("\xC2\x85"));
}

TEST(bombs_by_count_and_size_are_refused_with_the_limit) {
    tar_file t = {0};
    dr_error err;
    char name[40], *zeros = calloc(1, 2 << 20);
    for (int i = 0; i <= 10; i++) {
        snprintf(name, sizeof name, "rainy/%d.png", i);
        tar_add(&t, name, '0', NULL, "abc", 3, -1);
    }
    tar_end(&t);
    CHECK(read_bytes(t.p, t.n, NULL, &err) == DR_TOO_LARGE && !strcmp(err.what, "archive_too_large"));
    CHECK_MSG(err.limit == 10 && err.actual == 11 && !strcmp(err.setting, "dataset_files_max") &&
                  strstr(err.text, "rainy/10.png"),
              "%s", err.text);
    tar_done(&t);
    tar_add(&t, "rainy/big.png", '0', NULL, zeros, 1000, 60LL << 20); /* only claims its size */
    tar_end(&t);
    CHECK(read_bytes(t.p, t.n, NULL, &err) == DR_TOO_LARGE && !strcmp(err.setting, "body_max_bytes") &&
          err.actual == 60LL << 20);
    tar_done(&t);
    const srv_archive_limits before = lim;
    lim.bytes_max = 3 << 20;
    tar_add(&t, "rainy/1.png", '0', NULL, zeros, 2 << 20, -1);
    tar_add(&t, "rainy/2.png", '0', NULL, zeros, 2 << 20, -1);
    tar_end(&t);
    CHECK(read_bytes(t.p, t.n, NULL, &err) == DR_TOO_LARGE && !strcmp(err.setting, "dataset_bytes_max") &&
          strstr(err.text, "rainy/2.png"));
    lim = before;
    tar_done(&t);
    for (int i = 0; i < 1200; i++) tar_add(&t, "rainy/", '5', NULL, NULL, 0, -1);
    tar_end(&t);
    CHECK(read_bytes(t.p, t.n, NULL, &err) == DR_TOO_LARGE && strstr(err.text, "too many entries"));
    tar_done(&t);
    free(zeros);
}

/* An archive of n bytes of zeros in one file, through libarchive. */
static size_t pack(bool zip, bool gz, const char *name, size_t n, mode_t type, uint8_t *ret, size_t cap) {
    struct archive *a = archive_write_new();
    struct archive_entry *e = archive_entry_new();
    size_t used = 0;
    uint8_t *zeros = calloc(1, n + 1);
    if (zip) {
        archive_write_set_format_zip(a);
        if (n < 10000) archive_write_zip_set_compression_store(a);
    } else
        archive_write_set_format_ustar(a);
    if (gz) archive_write_add_filter_gzip(a);
    archive_write_open_memory(a, ret, cap, &used);
    archive_entry_set_pathname(e, name);
    archive_entry_set_filetype(e, type);
    archive_entry_set_perm(e, 0644);
    if (type == AE_IFLNK)
        archive_entry_set_symlink(e, "/etc/passwd");
    else
        archive_entry_set_size(e, (la_int64_t)n);
    archive_write_header(a, e);
    if (type == AE_IFREG) archive_write_data(a, zeros, n);
    archive_entry_free(e);
    archive_write_close(a);
    archive_write_free(a);
    free(zeros);
    return used;
}

static uint8_t packed[1 << 20];

TEST(zip_and_gzip_are_read) {
    seen s;
    dr_error err;
    size_t n = pack(true, false, "clean/z.png", 5000, AE_IFREG, packed, sizeof packed);
    CHECK_MSG(!read_bytes(packed, n, &s, &err) && !strcmp(s.text, "1:z.png=5000 "), "%s %s", err.text, s.text);
    n = pack(false, true, "rainy/z.png", 5000, AE_IFREG, packed, sizeof packed);
    CHECK_MSG(!read_bytes(packed, n, &s, &err) && !strcmp(s.text, "0:z.png=5000 "), "%s %s", err.text, s.text);
}

TEST(bombs_by_ratio_are_refused) {
    dr_error err;
    for (int zip = 0; zip < 2; zip++) {
        size_t n = pack(zip != 0, !zip, "rainy/bomb.png", 40 << 20, AE_IFREG, packed, sizeof packed);
        CHECK(read_bytes(packed, n, NULL, &err) == DR_TOO_LARGE);
        CHECK_MSG(!strcmp(err.setting, "archive_ratio_max") && err.limit == 100 && err.actual > 100 &&
                      strstr(err.text, "rainy/bomb.png"),
                  "%s", err.text);
    }
}

TEST(links_in_a_zip_are_refused) {
    dr_error err;
    size_t n = pack(true, false, "rainy/l.png", 0, AE_IFLNK, packed, sizeof packed);
    CHECK(read_bytes(packed, n, NULL, &err) == DR_INVALID);
    CHECK_MSG(strstr(err.text, "symbolic"), "%s", err.text);
    n = pack(true, false, "../l.png", 10, AE_IFREG, packed, sizeof packed);
    CHECK(read_bytes(packed, n, NULL, &err) == DR_INVALID && strstr(err.text, "'..'"));
}

TEST(damage_and_foreign_formats_are_told_apart) {
    dr_error err;
    tar_file t = {0};
    CHECK(read_bytes("this is no archive at all", 25, NULL, &err) == DR_UNSUPPORTED &&
          !strcmp(err.what, "unsupported_archive"));
    CHECK(read_bytes("", 0, NULL, &err) != DR_OK);
    size_t n = pack(true, false, "clean/z.png", 5000, AE_IFREG, packed, sizeof packed);
    packed[2000] ^= 0x5A; /* in the data: the checksum tells */
    dr_status s = read_bytes(packed, n, NULL, &err);
    CHECK_MSG(s == DR_CORRUPT && !strcmp(err.what, "archive_corrupt"), "%d %s", s, err.text);
    tar_add(&t, "rainy/a.png", '0', NULL, "abc", 3, -1);
    tar_add(&t, "rainy/b.png", '0', NULL, "abc", 3, 9000); /* cut off */
    CHECK(read_bytes(t.p, t.n, NULL, &err) == DR_CORRUPT && strstr(err.text, "rainy/b.png"));
    tar_done(&t);
    tar_end(&t);
    CHECK(read_bytes(t.p, t.n, NULL, &err) != DR_OK); /* no pictures */
    tar_done(&t);
    tar_add(&t, "rainy/a.png", '0', NULL, NULL, 0, -1);
    tar_end(&t);
    CHECK(read_bytes(t.p, t.n, NULL, &err) == DR_INVALID && strstr(err.text, "empty"));
    tar_done(&t);
}
