/* test_datasets.c - blobs and data sets over real sockets: uploads in every form, what is refused and leaves nothing,
 * the planted faults that a validation must find, and what a kill -9 or a client that leaves must not spoil. */
#include "tests/core/scenes.h"
#include "tests/server/archives.h"
#include "tests/server/daemon.h"
#include "tests/t.h"
#include <dirent.h>

static const char *const none[] = {NULL};

static daemon_child shared;
static bool up(void) {
    if (shared.pid) return true;
    daemon_dir(&shared);
    return daemon_start(&shared, none);
}

static scene_file pic(uint64_t seed) {
    return scene_encoded(seed, 64, 48, 3, 8, DR_FORMAT_PNG, 0);
}
static const char *sha_of(const scene_file *f) {
    static char hex[DR_SHA256_HEX];
    dr_sha256_hex(f->p, f->n, hex);
    return hex;
}

/* How many regular files are under a folder of the daemon's data. */
static int n_found;
static int count_one(const char *path, const struct stat *st, int flag, struct FTW *f) {
    (void)path, (void)st, (void)f;
    n_found += flag == FTW_F;
    return 0;
}
static int files_in(const daemon_child *d, const char *folder) {
    char path[400];
    snprintf(path, sizeof path, "%s/data/%s", d->dir, folder);
    n_found = 0;
    nftw(path, count_one, 16, FTW_PHYS);
    return n_found;
}
static bool soon(const daemon_child *d, const char *folder, int want) {
    for (int i = 0; i < 500 && files_in(d, folder) != want; i++) poll(NULL, 0, 10);
    return files_in(d, folder) == want;
}

static bool says(int port, const char *method, const char *path, const char *headers, const void *body, size_t len,
                 int status, const char *text) {
    answer a = ask(port, method, path, headers, body, len);
    bool ok = a.status == status && (!*text || has(&a, text));
    if (!ok) printf("# %s %s: %d %s\n", method, path, a.status, a.body ? a.body : "");
    answer_done(&a);
    return ok;
}

static bool new_set(int port, char id[64]) {
    answer a = ask(port, "POST", "/v1/datasets", NULL, "{\"name\":\"mine\",\"labels\":{\"a\":\"b\"}}", 34);
    snprintf(id, 64, "%.63s", member(&a, "id"));
    bool ok = a.status == 201 && strstr(header_of(&a, "Location"), id) && has(&a, "\"labels\":{\"a\":\"b\"}");
    if (!ok) printf("# %d %s\n", a.status, a.body);
    answer_done(&a);
    return ok && *id;
}

static const char *path_in(const char *id, const char *tail) {
    static char path[8][700];
    static int at;
    char *p = path[at++ % 8];
    snprintf(p, sizeof path[0], "/v1/datasets/%s%s", id, tail);
    return p;
}

static bool put_picture(int port, const char *id, const char *tail, uint64_t seed, int status) {
    scene_file f = pic(seed);
    bool ok = says(port, "PUT", path_in(id, tail), NULL, f.p, f.n, status, "");
    dr_free(f.p);
    return ok;
}

/* --- blobs --- */

TEST(a_blob_is_put_found_read_and_erased) {
    CHECK(up());
    int p = shared.port, before = files_in(&shared, "blobs");
    scene_file f = pic(1), g = pic(2);
    char path[120];
    snprintf(path, sizeof path, "/v1/blobs/%s", sha_of(&f));
    CHECK(says(p, "GET", path, NULL, NULL, 0, 404, "blob_not_found"));
    CHECK(says(p, "PUT", path, NULL, g.p, g.n, 422, "digest_mismatch") && soon(&shared, "blobs", before));
    CHECK(says(p, "PUT", path, NULL, f.p, f.n, 201, sha_of(&f)));
    CHECK(says(p, "PUT", path, NULL, f.p, f.n, 200, sha_of(&f)));
    answer a = get(p, path);
    CHECK(a.status == 200 && a.body && f.p && a.len == f.n && !memcmp(a.body, f.p, f.n) &&
          strstr(header_of(&a, "ETag"), sha_of(&f)));
    CHECK(!strcmp(header_of(&a, "Content-Type"), "image/png") && strstr(header_of(&a, "Content-Digest"), "sha-256=:"));
    answer_done(&a);
    a = ask(p, "HEAD", path, NULL, NULL, 0);
    CHECK(a.status == 200 && (size_t)strtol(header_of(&a, "Content-Length"), NULL, 10) == f.n);
    answer_done(&a);
    CHECK(soon(&shared, "blobs", before + 1));
    CHECK(says(p, "DELETE", path, NULL, NULL, 0, 204, "") &&
          says(p, "DELETE", path, NULL, NULL, 0, 404, "blob_not_found"));
    CHECK(soon(&shared, "blobs", before));
    CHECK(says(p, "GET", "/v1/blobs/ABCDEF", NULL, NULL, 0, 422, "invalid_parameter"));
    CHECK(says(p, "PUT", path, NULL,
               "plain text, no picture at all, but long enough to be looked at by its first bytes", 80, 415,
               "unsupported_format"));
    dr_free(f.p);
    dr_free(g.p);
    CHECK(soon(&shared, "spool", 0));
}

/* --- sets --- */

TEST(a_set_is_made_filled_and_shown) {
    CHECK(up());
    int p = shared.port;
    char id[64], body[100];
    CHECK(new_set(p, id));
    CHECK(put_picture(p, id, "/rainy/a%20b.png", 3, 201) && put_picture(p, id, "/rainy/a%20b.png", 3, 200));
    CHECK(put_picture(p, id, "/paired/clean/\xC3\xBC.png", 4, 201));
    scene_file f = pic(5);
    snprintf(body, sizeof body, "{\"blob\":\"%s\"}", sha_of(&f));
    CHECK(says(p, "PUT", path_in(id, "/clean/c.png"), NULL, body, strlen(body), 404, "blob_not_found"));
    CHECK(put_picture(p, id, "/clean/d.png", 5, 201));
    CHECK(says(p, "PUT", path_in(id, "/clean/c.png"), NULL, body, strlen(body), 201, "\"name\":\"c.png\""));
    dr_free(f.p);
    CHECK(says(p, "PUT", path_in(id, "/clean/x.png"), NULL, "{\"blob\":\"zz\"}", 13, 422, "invalid_member"));
    CHECK(says(p, "PUT", path_in(id, "/clean/x.png"), NULL, "{\"bolb\":1}", 10, 422, "unknown_member"));
    CHECK(says(p, "PUT", path_in(id, "/clean/x.png"), NULL,
               "text, which is no picture as anybody can see from its first "
               "bytes",
               65, 415, "unsupported_format"));
    CHECK(says(p, "PUT", path_in(id, "/clean/.x"), NULL, "x", 1, 422, "bad_entry_name"));
    CHECK(says(p, "PUT", path_in(id, "/other/x.png"), NULL, "x", 1, 404, "not_found"));
    CHECK(says(p, "PUT", path_in("ds_00000000000000000000000000", "/clean/x.png"), NULL, "x", 1, 404,
               "dataset_not_found"));
    answer a = get(p, path_in(id, ""));
    CHECK_MSG(a.status == 200 && has(&a, "\"files\":4,") && has(&a, "\"rainy\":{\"files\":1,") &&
                  has(&a, "\"clean\":{\"files\":2,") && has(&a, "\"paired/clean\":{\"files\":1,"),
              "%s", a.body);
    answer_done(&a);
    CHECK(says(p, "DELETE", path_in(id, "/clean/c.png"), NULL, NULL, 0, 204, ""));
    CHECK(says(p, "DELETE", path_in(id, "/clean/c.png"), NULL, NULL, 0, 404, "entry_not_found"));
    CHECK(says(p, "GET", "/v1/datasets?limit=1", NULL, NULL, 0, 200, id));
    CHECK(says(p, "GET", "/v1/datasets?state=nonsense", NULL, NULL, 0, 422, "invalid_parameter"));
    CHECK(says(p, "GET", path_in(id, "/report"), NULL, NULL, 0, 409, "dataset_not_validated"));
    CHECK(says(p, "DELETE", path_in(id, ""), NULL, NULL, 0, 204, ""));
    CHECK(says(p, "GET", path_in(id, ""), NULL, NULL, 0, 410, "dataset_gone"));
    CHECK(says(p, "POST", "/v1/datasets", NULL, "{\"nmae\":1}", 10, 422, "unknown_member"));
    CHECK(says(p, "POST", "/v1/datasets", NULL, "{\"name\":7}", 10, 422, "invalid_member"));
    CHECK(says(p, "POST", "/v1/datasets", NULL, "{\"labels\":[]}", 13, 422, "invalid_member"));
    CHECK(says(p, "POST", "/v1/datasets", NULL, "{", 1, 400, "bad_json"));
}

TEST(a_key_makes_one_set) {
    CHECK(up());
    answer a = ask(shared.port, "POST", "/v1/datasets", "Idempotency-Key: set-1\r\n", "{}", 2);
    char id[64];
    snprintf(id, sizeof id, "%.63s", member(&a, "id"));
    CHECK(a.status == 201 && !*header_of(&a, "Idempotent-Replayed"));
    answer_done(&a);
    a = ask(shared.port, "POST", "/v1/datasets", "Idempotency-Key: set-1\r\n", "{}", 2);
    CHECK(a.status == 201 && !strcmp(member(&a, "id"), id) && !strcmp(header_of(&a, "Idempotent-Replayed"), "true"));
    answer_done(&a);
    CHECK(says(shared.port, "POST", "/v1/datasets", "Idempotency-Key: set-1\r\n", "{\"name\":\"x\"}", 12, 422,
               "idempotency_key_reused"));
}

/* --- archives --- */

static void tar_picture(tar_file *t, const char *name, scene_file f) {
    tar_add(t, name, '0', NULL, f.p, f.n, -1);
    dr_free(f.p);
}

static void good_set(tar_file *t, int n) { /* n rainy, n clean, 2 pairs, all different */
    char name[64];
    for (int i = 0; i < n; i++) {
        snprintf(name, sizeof name, "rainy/r%03d.png", i);
        tar_picture(t, name, pic(1000 + (uint64_t)i));
        snprintf(name, sizeof name, "clean/c%03d.png", i);
        tar_picture(t, name, pic(5000 + (uint64_t)i));
    }
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "paired/rainy/p%d.png", i);
        tar_picture(t, name, pic(8000 + (uint64_t)i));
        snprintf(name, sizeof name, "paired/clean/p%d.png", i);
        tar_picture(t, name, pic(9000 + (uint64_t)i));
    }
}

static bool send_set(int port, const tar_file *t, char id[64]) {
    answer a = ask(port, "POST", "/v1/datasets?name=from-tar", NULL, t->p, t->n);
    bool ok = a.status == 201;
    if (!ok) printf("# %d %s\n", a.status, a.body);
    snprintf(id, 64, "%.63s", member(&a, "id"));
    answer_done(&a);
    return ok;
}

static answer validated(int port, const char *id) {
    answer a = ask(port, "POST", path_in(id, "/seal"), NULL, "", 0);
    answer_done(&a);
    a = get(port, path_in(id, "?wait=60"));
    return a;
}

TEST(a_good_archive_becomes_a_ready_set) {
    CHECK(up());
    int p = shared.port;
    tar_file t = {0};
    char id[64];
    good_set(&t, 8);
    tar_end(&t);
    CHECK(send_set(p, &t, id));
    tar_done(&t);
    CHECK(soon(&shared, "blobs/tmp", 0));
    answer a = validated(p, id);
    CHECK_MSG(a.status == 200 && has(&a, "\"state\":\"ready\"") && has(&a, "\"reasons\":[]") && has(&a, "\"files\":20"),
              "%s", a.body);
    answer_done(&a);
    a = get(p, path_in(id, "/report"));
    CHECK_MSG(a.status == 200 && has(&a, "\"findings\":[]") && has(&a, "\"usable\":8") &&
                  has(&a, "{\"width\":64,\"height\":48,\"count\":8}"),
              "%s", a.body);
    answer_done(&a);
    a = get(p, path_in(id, "/contact-sheet.png"));
    dr_image sheet = {0};
    CHECK(a.status == 200 && !dr_image_decode(a.body, a.len, NULL, &sheet, NULL) && sheet.width > 900);
    dr_image_done(&sheet);
    answer_done(&a);
    CHECK(says(p, "PUT", path_in(id, "/rainy/more.png"), NULL, "x", 1, 409, "dataset_sealed"));
    CHECK(says(p, "DELETE", path_in(id, "/rainy/r001.png"), NULL, NULL, 0, 409, "dataset_sealed"));
    CHECK(says(p, "POST", path_in(id, "/seal"), NULL, "", 0, 200, "ready"));
    CHECK(says(p, "DELETE", path_in(id, ""), NULL, NULL, 0, 204, "") && soon(&shared, "datasets", 0));
}

TEST(a_bad_archive_leaves_nothing) {
    CHECK(up());
    int p = shared.port, before = files_in(&shared, "blobs");
    answer sets = get(p, "/v1/datasets?limit=500");
    tar_file t = {0};
    good_set(&t, 3);
    tar_add(&t, "rainy/../../../etc/cron.d/x", '0', NULL, "x", 1, -1);
    tar_end(&t);
    CHECK(says(p, "POST", "/v1/datasets", NULL, t.p, t.n, 422, "rainy/../../../etc/cron.d/x"));
    tar_done(&t);
    good_set(&t, 3);
    tar_picture(&t, "rainy/r001.png", pic(77)); /* twice */
    tar_end(&t);
    CHECK(says(p, "POST", "/v1/datasets", NULL, t.p, t.n, 422, "'rainy/r001.png' is there twice"));
    CHECK(says(p, "POST", "/v1/datasets", NULL, t.p, t.n / 2, 422, "archive_corrupt"));
    tar_done(&t);
    CHECK(says(p, "POST", "/v1/datasets", NULL, "neither JSON nor an archive", 27, 415, "unsupported_archive"));
    CHECK(soon(&shared, "blobs", before));
    answer after = get(p, "/v1/datasets?limit=500");
    CHECK(!strcmp(sets.body, after.body));
    answer_done(&sets);
    answer_done(&after);
}

/* --- planted faults --- */

static bool finding(const answer *a, const char *code, const char *grade, const char *file, const char *other) {
    char text[400], tail[200] = "";
    snprintf(text, sizeof text, "{\"code\":\"%s\",\"grade\":\"%s\",\"file\":\"%s\",\"other\":", code, grade, file);
    if (other)
        snprintf(tail, sizeof tail, "\"%s\"", other);
    else
        snprintf(tail, sizeof tail, "null");
    snprintf(text + strlen(text), sizeof text - strlen(text), "%s", tail);
    if (has(a, text)) return true;
    printf("# missing: %s\n", text);
    return false;
}

static void faulty_set(tar_file *t) {
    good_set(t, 6);
    scene_file f = pic(20);
    if (f.p) ((uint8_t *)f.p)[f.n / 2] ^= 0x55;
    tar_picture(t, "rainy/corrupt.png", f);
    tar_add(t, "rainy/text.png", '0', NULL, "this is only a text file", 24, -1);
    tar_picture(t, "rainy/deep.png", scene_encoded(21, 64, 48, 3, 16, DR_FORMAT_PNG, 0));
    tar_picture(t, "clean/grey.png", scene_encoded(22, 64, 48, 1, 8, DR_FORMAT_PNG, 0));
    tar_picture(t, "clean/c000-again.png", pic(5000));
    tar_picture(t, "rainy/r001-near.jpg", scene_encoded(1001, 64, 48, 3, 8, DR_FORMAT_JPEG, 60));
    tar_picture(t, "clean/r002.png", pic(1002));       /* in both sets */
    tar_picture(t, "rainy/leak.png", pic(8001));       /* of the hold-out */
    tar_picture(t, "paired/rainy/alone.png", pic(30)); /* no partner */
    tar_picture(t, "paired/rainy/size.png", pic(31));
    tar_picture(t, "paired/clean/size.png", scene_encoded(32, 80, 48, 3, 8, DR_FORMAT_PNG, 0));
    tar_picture(t, "rainy/small.png", scene_encoded(33, 15, 48, 3, 8, DR_FORMAT_PNG, 0));
    tar_end(t);
}

TEST(every_planted_fault_is_found) {
    CHECK(up());
    int p = shared.port;
    tar_file t = {0};
    char id[64];
    faulty_set(&t);
    CHECK(send_set(p, &t, id));
    answer a = validated(p, id);
    CHECK_MSG(has(&a, "\"state\":\"rejected\"") && has(&a, "image_corrupt: 1") && has(&a, "holdout_leak: 1"), "%s",
              a.body);
    answer_done(&a);
    a = get(p, path_in(id, "/report"));
    CHECK(a.status == 200);
    CHECK(finding(&a, "image_corrupt", "error", "rainy/corrupt.png", NULL));
    CHECK(finding(&a, "unsupported_format", "error", "rainy/text.png", NULL));
    CHECK(finding(&a, "image_too_small", "error", "rainy/small.png", NULL));
    CHECK(finding(&a, "sixteen_bit", "note", "rainy/deep.png", NULL));
    CHECK(finding(&a, "grey", "warning", "clean/grey.png", NULL));
    CHECK(finding(&a, "duplicate", "warning", "clean/c000.png", "clean/c000-again.png"));
    CHECK(finding(&a, "near_duplicate", "warning", "rainy/r001.png", "rainy/r001-near.jpg"));
    CHECK(finding(&a, "in_both_sets", "error", "clean/r002.png", "rainy/r002.png"));
    CHECK(finding(&a, "holdout_leak", "error", "rainy/leak.png", "paired/rainy/p1.png"));
    CHECK(finding(&a, "no_partner", "error", "paired/rainy/alone.png", NULL));
    CHECK(finding(&a, "size_differs", "error", "paired/rainy/size.png", "paired/clean/size.png"));
    CHECK_MSG(has(&a, "\"findings_total\":11"), "%s", a.body); /* and nothing else */
    answer_done(&a);
    /* the same, with what is bad left out */
    CHECK(send_set(p, &t, id));
    tar_done(&t);
    CHECK(says(p, "POST", path_in(id, "/seal"), NULL, "{\"set_aside\":true}", 18, 202, "validating"));
    a = get(p, path_in(id, "?wait=60"));
    CHECK_MSG(has(&a, "\"state\":\"ready\"") && has(&a, "\"rainy\":{\"files\":12,\"set_aside\":5}") &&
                  has(&a, "\"clean\":{\"files\":9,\"set_aside\":2}") &&
                  has(&a, "\"paired/rainy\":{\"files\":4,\"set_aside\":2}") &&
                  has(&a, "\"paired/clean\":{\"files\":3,\"set_aside\":1}"),
              "%s", a.body);
    answer_done(&a);
}

TEST(a_set_without_one_side_is_rejected_and_an_empty_one_not_sealed) {
    CHECK(up());
    int p = shared.port;
    char id[64];
    CHECK(new_set(p, id) && says(p, "POST", path_in(id, "/seal"), NULL, "", 0, 422, "dataset_empty"));
    CHECK(put_picture(p, id, "/rainy/a.png", 40, 201));
    CHECK(says(p, "POST", path_in(id, "/seal"), NULL, "{\"set_asid\":true}", 17, 422, "unknown_member"));
    answer a = validated(p, id);
    CHECK_MSG(has(&a, "\"state\":\"rejected\"") && has(&a, "too_few_pictures: no usable picture in clean"), "%s",
              a.body);
    answer_done(&a);
}

/* --- limits --- */

TEST(settings_limit_a_set) {
    daemon_child d;
    static const char *const flags[] = {"--dataset-files-max=3", "--dataset-bytes-max=40000", NULL};
    char id[64];
    daemon_dir(&d);
    CHECK(daemon_start(&d, flags));
    CHECK(new_set(d.port, id));
    CHECK(put_picture(d.port, id, "/rainy/1.png", 1, 201) && put_picture(d.port, id, "/rainy/2.png", 2, 201));
    scene_file f = scene_encoded(3, 400, 300, 3, 8, DR_FORMAT_PNG, 0);
    CHECK(f.n > 40000 && says(d.port, "PUT", path_in(id, "/rainy/3.png"), NULL, f.p, f.n, 413, "dataset_bytes_max"));
    CHECK(put_picture(d.port, id, "/rainy/3.png", 3, 201));
    scene_file g = pic(4);
    CHECK(says(d.port, "PUT", path_in(id, "/rainy/4.png"), NULL, g.p, g.n, 413, "dataset_files_max"));
    tar_file t = {0};
    good_set(&t, 2);
    tar_end(&t);
    CHECK(says(d.port, "POST", "/v1/datasets", NULL, t.p, t.n, 413, "archive_too_large"));
    tar_done(&t);
    tar_picture(&t, "rainy/large.png", f);
    tar_end(&t);
    CHECK(says(d.port, "POST", "/v1/datasets", NULL, t.p, t.n, 413, "archive_too_large") && soon(&d, "blobs/tmp", 0));
    tar_done(&t);
    dr_free(g.p);
    CHECK(daemon_stop(&d, SIGTERM) == 0);
    scratch_rm(d.dir);
}

/* --- clients that leave, daemons that die --- */

static bool leaves_half_way(const char *method, const char *path, const void *body, size_t len) {
    char head[700];
    int fd = dial(shared.port);
    int n = snprintf(head, sizeof head, "%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %zu\r\n\r\n", method,
                     path, len);
    bool ok = fd >= 0 && send_all(fd, head, (size_t)n) && send_all(fd, body, len / 2);
    poll(NULL, 0, 100);
    close(fd);
    return ok;
}

TEST(a_client_that_leaves_in_mid_upload_leaves_nothing) {
    CHECK(up());
    char id[64], path[120];
    scene_file f = scene_encoded(50, 300, 200, 3, 8, DR_FORMAT_PNG, 0);
    int before = files_in(&shared, "blobs");
    tar_file t = {0};
    CHECK(new_set(shared.port, id));
    snprintf(path, sizeof path, "/v1/blobs/%s", sha_of(&f));
    CHECK(leaves_half_way("PUT", path, f.p, f.n));
    CHECK(leaves_half_way("PUT", path_in(id, "/rainy/x.png"), f.p, f.n));
    good_set(&t, 10);
    tar_end(&t);
    CHECK(leaves_half_way("POST", "/v1/datasets", t.p, t.n));
    CHECK(soon(&shared, "spool", 0) && soon(&shared, "blobs", before) && soon(&shared, "blobs/tmp", 0));
    CHECK(says(shared.port, "GET", path_in(id, ""), NULL, NULL, 0, 200, "\"files\":0,"));
    tar_done(&t);
    dr_free(f.p);
}

TEST(a_killed_validation_goes_on) {
    daemon_child d;
    char id[64], path[400];
    tar_file t = {0};
    daemon_dir(&d);
    CHECK(daemon_start(&d, none));
    good_set(&t, 60);
    tar_end(&t);
    CHECK(send_set(d.port, &t, id));
    tar_done(&t);
    CHECK(says(d.port, "POST", path_in(id, "/seal"), NULL, "", 0, 202, "validating"));
    for (int i = 0; i < 4; i++) {
        poll(NULL, 0, 15 * i + 5);
        CHECK(daemon_stop(&d, SIGKILL) == -1);
        if (!i) { /* what an earlier life might leave: half-written, unnamed */
            snprintf(path, sizeof path, "%s/data/blobs/tmp/tmp.up_x", d.dir);
            close(open(path, O_CREAT | O_WRONLY, 0600));
            snprintf(path, sizeof path, "%s/data/blobs/00", d.dir);
            mkdir(path, 0700);
            snprintf(path, sizeof path, "%s/data/blobs/00/00aa", d.dir);
            close(open(path, O_CREAT | O_WRONLY, 0600));
            snprintf(path, sizeof path, "%s/data/datasets/ds_00000000000000000000000000.json", d.dir);
            close(open(path, O_CREAT | O_WRONLY, 0600));
        }
        CHECK(daemon_start(&d, none));
    }
    answer a = get(d.port, path_in(id, "?wait=60"));
    CHECK_MSG(has(&a, "\"state\":\"ready\"") && has(&a, "\"files\":124"), "%s", a.body);
    answer_done(&a);
    CHECK(says(d.port, "GET", path_in(id, "/report"), NULL, NULL, 0, 200, "\"findings\":[]"));
    CHECK(files_in(&d, "blobs") == 124 && files_in(&d, "datasets") == 2);
    CHECK(daemon_stop(&d, SIGTERM) == 0);
    scratch_rm(d.dir);
}

/* A picture that brings the service down each time: the file says so, as if it had happened. */
TEST(a_picture_that_ends_the_service_is_left_alone) {
    CHECK(up());
    int p = shared.port;
    char id[64], path[400];
    for (int attempts = 4; attempts <= 5; attempts++) {
        CHECK(new_set(p, id) && put_picture(p, id, "/clean/a.png", 60, 201));
        scene_file f = pic(600 + (uint64_t)attempts);
        CHECK(says(p, "PUT", path_in(id, "/rainy/b.png"), NULL, f.p, f.n, 201, ""));
        snprintf(path, sizeof path, "%s/data/datasets/%s.trying", shared.dir, id);
        FILE *trying = fopen(path, "w");
        CHECK(trying && fprintf(trying, "%s %06d\n", sha_of(&f), attempts) > 0 && !fclose(trying));
        dr_free(f.p);
        answer a = validated(p, id);
        CHECK_MSG(has(&a, attempts < 5 ? "\"state\":\"ready\"" : "again and again while it decoded this picture"), "%s",
                  a.body);
        answer_done(&a);
        CHECK(access(path, F_OK) != 0);
    }
}

TEST(what_no_set_holds_goes_after_its_time) {
    daemon_child d;
    static const char *const flags[] = {"--blob-ttl=1s", NULL};
    char id[64];
    daemon_dir(&d);
    CHECK(daemon_start(&d, flags));
    CHECK(new_set(d.port, id) && put_picture(d.port, id, "/rainy/1.png", 1, 201) &&
          put_picture(d.port, id, "/rainy/2.png", 2, 201) && files_in(&d, "blobs") == 2);
    CHECK(says(d.port, "DELETE", path_in(id, "/rainy/2.png"), NULL, NULL, 0, 204, ""));
    for (int i = 0; i < 1500 && files_in(&d, "blobs") != 1; i++) poll(NULL, 0, 10);
    CHECK(files_in(&d, "blobs") == 1);
    CHECK(put_picture(d.port, id, "/rainy/2.png", 2, 201) && files_in(&d, "blobs") == 2);
    CHECK(daemon_stop(&d, SIGTERM) == 0);
    scratch_rm(d.dir);
}

TEST(the_shared_daemon_ends_in_order) {
    CHECK(up() && daemon_stop(&shared, SIGTERM) == 0);
    scratch_rm(shared.dir);
}
