/* util.h - a scratch folder and a typical job for the tests of the store. */
#ifndef TESTS_DB_UTIL_H
#define TESTS_DB_UTIL_H
#include "db/jobs.h"
#include "db/store.h"
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static inline int scratch_rm_one(const char *path, const struct stat *st, int flag, struct FTW *f) {
    (void)st, (void)flag, (void)f;
    return remove(path);
}
static inline void scratch_rm(const char *dir) {
    nftw(dir, scratch_rm_one, 16, FTW_DEPTH | FTW_PHYS);
}
static inline void scratch_make(char *ret, size_t cap) {
    const char *t = getenv("TMPDIR");
    snprintf(ret, cap, "%s/derain-test-XXXXXX", t && *t ? t : "/tmp");
    if (!mkdtemp(ret)) perror("mkdtemp");
}

static inline db_job sample_job(void) {
    static char params[] = "{\"format\":\"png\"}", labels[] = "{}";
    db_job j = {.type = "derain", .class_ = DB_INTERACTIVE, .params_json = params, .labels_json = labels};
    snprintf(j.model.name, sizeof j.model.name, "derain");
    j.model.version = 1;
    memset(j.model.sha256, 'a', 64);
    snprintf(j.input.format, sizeof j.input.format, "png");
    j.input.width = 64, j.input.height = 48, j.input.bytes = 1000, j.input.bit_depth = 8, j.input.channels = 3;
    memset(j.input.sha256, 'b', 64);
    snprintf(j.request_id, sizeof j.request_id, "req-1");
    return j;
}

/* Make a job and return its id; "" on failure. */
static inline dr_status add_job(db_store *db, const db_job *proto, char id[DB_ID]) {
    db_job j = {0}, p = proto ? *proto : sample_job();
    dr_error err = {0};
    dr_status s = db_job_create(db, &(db_job_new){.job = &p}, &j, NULL, &err);
    if (s) printf("# create: %s\n", err.text);
    snprintf(id, DB_ID, "%s", s ? "" : j.id);
    db_job_clear(&j);
    return s;
}

static inline db_finish good_result(void) {
    static const char sha[] = "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc";
    return (db_finish){.state = DB_SUCCEEDED,
                       .result_format = "png",
                       .result_sha256 = sha,
                       .result_bytes = 2000,
                       .result_width = 64,
                       .result_height = 48,
                       .timings_ms = {-1, 1.5, 20, 3}};
}
#endif
