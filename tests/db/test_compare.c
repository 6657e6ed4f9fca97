/* test_compare.c - comparisons in the store: what a job holds stays, what an erased job held goes, and a database of
 * the time before comparisons comes along with its data sets. */
#include "core/base/alloc.h"
#include "db/compare.h"
#include "db/internal.h"
#include "tests/db/util.h"
#include "tests/t.h"

static char dir[256];
static db_store *db;

static bool up(void) {
    scratch_make(dir, sizeof dir);
    dr_error err = {0};
    if (!db_open(dir, NULL, &db, &err)) return true;
    printf("# %s\n", err.text);
    return false;
}
static void down(void) {
    db_close(db);
    scratch_rm(dir);
}

static const char *sha(char c) { /* in one of a few static buffers */
    static char text[8][DB_SHA];
    static int at;
    char *p = text[at++ % 8];
    memset(p, c, 64);
    return p;
}

static bool is_free(const char *blob) {
    db_blob b = {0};
    return !db_blob_get(db, blob, &b, NULL) && b.free_since_ms > 0;
}

static db_picture picture(const char *name, char blob, char clean) {
    db_picture p = {0};
    snprintf(p.name, sizeof p.name, "%s", name);
    memset(p.sha256, blob, 64);
    if (clean) memset(p.clean, clean, 64);
    return p;
}

static dr_status make(const db_picture *list, size_t n, const char *key, char id[DB_ID], dr_error *err) {
    db_job p = sample_job(), j = {0};
    snprintf(p.type, sizeof p.type, "compare");
    p.class_ = DB_EVAL;
    dr_status s = db_job_create(
        db, &(db_job_new){.job = &p, .pictures = list, .n_pictures = n, .idem_key = key, .idem_hash = key ? "h" : NULL},
        &j, NULL, err);
    snprintf(id, DB_ID, "%s", s ? "" : j.id);
    db_job_clear(&j);
    return s;
}

TEST(a_comparison_holds_its_pictures_until_it_is_erased) {
    CHECK(up());
    char id[DB_ID], other[DB_ID];
    dr_error err = {0};
    for (int c = 'a'; c <= 'd'; c++) CHECK(!db_blob_put(db, sha((char)c), 10, NULL, NULL));
    db_picture two[] = {picture("one.png", 'a', 'b'), picture("two.png", 'c', 0)}, one[] = {picture("x", 'b', 'a')};
    CHECK(!make(two, 2, NULL, id, &err));
    CHECK(!is_free(sha('a')) && !is_free(sha('b')) && !is_free(sha('c')) && is_free(sha('d')));
    CHECK(!make(one, 1, NULL, other, &err));
    for (int c = 'a'; c <= 'c'; c++) {
        err = (dr_error){0};
        CHECK(db_blob_delete(db, sha((char)c), &err) == DR_CONFLICT && !strcmp(err.what, "blob_in_use"));
    }
    char taken[DB_BLOBS_MAX][DB_SHA];
    size_t n = 9;
    CHECK(!db_blobs_take_free(db, 0, taken, &n, NULL) && n == 1 && !strcmp(taken[0], sha('d')));
    db_picture *list = NULL;
    CHECK(!db_compare_pictures(db, id, &list, &n, NULL) && n == 2);
    CHECK(!strcmp(list[0].name, "one.png") && !strcmp(list[0].sha256, sha('a')) && !strcmp(list[0].clean, sha('b')));
    CHECK(!strcmp(list[1].name, "two.png") && !*list[1].clean);
    dr_free(list);
    CHECK(!db_job_cancel(db, id, NULL, NULL, NULL, NULL) && !is_free(sha('c'))); /* cancelled is not erased */
    CHECK(!db_job_delete(db, id, NULL));
    CHECK(is_free(sha('c')) && !is_free(sha('a')) && !is_free(sha('b'))); /* the other one names these two */
    CHECK(!db_job_cancel(db, other, NULL, NULL, NULL, NULL) && !db_job_delete(db, other, NULL));
    CHECK(is_free(sha('a')) && is_free(sha('b')));
    err = (dr_error){0};
    CHECK(db_compare_pictures(db, id, &list, &n, &err) == DR_NOT_FOUND && !strcmp(err.what, "job_gone"));
    CHECK(!db_blobs_take_free(db, 0, taken, &n, NULL) && n == 3);
    down();
}

TEST(a_missing_blob_leaves_nothing_behind) {
    CHECK(up());
    char id[DB_ID];
    dr_error err = {0};
    CHECK(!db_blob_put(db, sha('a'), 10, NULL, NULL));
    db_picture list[] = {picture("one.png", 'a', 0), picture("two.png", 'a', 'f')};
    CHECK(make(list, 2, "key", id, &err) == DR_NOT_FOUND && !strcmp(err.what, "blob_not_found"));
    CHECK_MSG(strstr(err.text, "two.png"), "%s", err.text);
    db_counts counts;
    CHECK(!db_job_counts(db, &counts, NULL) && counts.state[DB_QUEUED] == 0 && is_free(sha('a')));
    CHECK(!db_blob_put(db, sha('f'), 10, NULL, NULL)); /* the key was not used up */
    CHECK(!make(list, 2, "key", id, &err) && *id && !is_free(sha('f')));
    char again[DB_ID];
    CHECK(!make(list, 2, "key", again, &err) && !strcmp(again, id)); /* replayed: held once */
    db_picture *held = NULL;
    size_t n = 0;
    CHECK(!db_compare_pictures(db, id, &held, &n, NULL) && n == 2);
    dr_free(held);
    down();
}

TEST(a_set_and_a_comparison_hold_the_same_blob) {
    CHECK(up());
    char id[DB_ID];
    dr_error err = {0};
    db_dataset d = {0};
    CHECK(!db_blob_put(db, sha('a'), 10, NULL, NULL) && !db_blob_put(db, sha('b'), 10, NULL, NULL));
    CHECK(!db_dataset_create(db, &(db_dataset_new){.name = "s"}, &d, NULL, NULL));
    CHECK(!db_dataset_put(db, d.id, DB_PAIRED_RAINY, "p", sha('a'), 10, 1000, NULL, NULL));
    CHECK(!db_dataset_put(db, d.id, DB_PAIRED_CLEAN, "p", sha('b'), 10, 1000, NULL, NULL));
    db_picture list[] = {picture("p", 'a', 'b')};
    db_job p = sample_job(), j = {0};
    char params[80];
    snprintf(params, sizeof params, "{\"dataset\":\"%s\"}", d.id);
    snprintf(p.type, sizeof p.type, "compare");
    p.params_json = params;
    CHECK(!db_job_create(db, &(db_job_new){.job = &p, .pictures = list, .n_pictures = 1}, &j, NULL, &err));
    snprintf(id, sizeof id, "%s", j.id);
    db_job_clear(&j);
    CHECK(!db_dataset_delete(db, d.id, &err)); /* the job does not need it */
    CHECK(!is_free(sha('a')) && !is_free(sha('b')));
    db_dataset_clear(&d);
    CHECK(!db_dataset_create(db, &(db_dataset_new){.name = "t"}, &d, NULL, NULL));
    CHECK(!db_dataset_put(db, d.id, DB_RAINY, "p", sha('a'), 10, 1000, NULL, NULL));
    CHECK(!db_job_cancel(db, id, NULL, NULL, NULL, NULL) && !db_job_delete(db, id, NULL));
    CHECK(!is_free(sha('a')) && is_free(sha('b')));
    CHECK(!db_dataset_delete(db, d.id, NULL) && is_free(sha('a')));
    db_dataset_clear(&d);
    down();
}

TEST(pruning_frees_them_too_and_the_report_counts) {
    CHECK(up());
    char id[DB_ID], got[DB_SHA];
    dr_error err = {0};
    db_job j = {0};
    int64_t bytes = 0;
    CHECK(!db_blob_put(db, sha('a'), 10, NULL, NULL));
    db_picture list[] = {picture("p", 'a', 0)};
    CHECK(!make(list, 1, NULL, id, &err));
    CHECK(db_job_report(db, id, &bytes, got, &err) == DR_NOT_FOUND && !strcmp(err.what, "no_report"));
    CHECK(!db_job_claim(db, &(db_claim){.type = "compare"}, &j, NULL) && !strcmp(j.id, id));
    db_finish f = good_result();
    f.report_bytes = 500;
    CHECK(db_job_finish(db, id, j.epoch, &f, NULL, NULL) == DR_INVALID);
    f.report_sha256 = sha('e');
    CHECK(!db_job_finish(db, id, j.epoch, &f, NULL, NULL));
    db_job_clear(&j);
    CHECK(!db_job_report(db, id, &bytes, got, NULL) && bytes == 500 && !strcmp(got, sha('e')));
    db_counts counts;
    CHECK(!db_job_counts(db, &counts, NULL) && counts.spool_bytes == 1000 + 2000 + 500);
    db_ids ids = {0};
    CHECK(!db_jobs_prune(db, 0, 3500, &ids, NULL) && ids.n == 0);
    db_ids_clear(&ids);
    CHECK(!db_jobs_prune(db, 0, 3499, &ids, NULL) && ids.n == 1); /* the report's bytes tipped it */
    db_ids_clear(&ids);
    CHECK(is_free(sha('a')));
    CHECK(db_job_report(db, id, &bytes, got, &err) == DR_NOT_FOUND);
    down();
}

TEST(types_queue_on_their_own) {
    CHECK(up());
    char derain[DB_ID], id[DB_ID];
    db_job j = {0};
    CHECK(!add_job(db, NULL, derain) && !db_blob_put(db, sha('a'), 10, NULL, NULL));
    db_picture list[] = {picture("p", 'a', 0)};
    CHECK(!make(list, 1, NULL, id, NULL) && !db_job_get(db, id, &j, NULL) && j.queue_position == 1);
    db_job_clear(&j);
    db_job_page page = {0};
    CHECK(!db_job_list(db, &(db_job_filter){0}, &page, NULL) && page.n == 2);
    CHECK(page.jobs[0].queue_position == 1 && page.jobs[1].queue_position == 1);
    db_job_page_clear(&page);
    CHECK(!db_job_claim(db, &(db_claim){.type = "derain"}, &j, NULL) && !strcmp(j.id, derain));
    db_job_clear(&j);
    down();
}

/* The schema as it was before comparisons, with a set in it: nothing is lost, and the set's blobs follow the new rules.
 */
TEST(an_older_database_comes_along) {
    char path[300];
    int at = 0;
    db_conn *c = NULL;
    scratch_make(dir, sizeof dir);
    snprintf(path, sizeof path, "%s/derain.db", dir);
    while (at < db_n_migrations && !strstr(db_migrations[at], "compare_pictures")) at++;
    CHECK(at > 0 && at < db_n_migrations);
    CHECK(!db_conn_open(path, true, &c, NULL));
    char version[64];
    for (int i = 0; i < at; i++) CHECK(!db_exec(c, db_migrations[i], NULL));
    snprintf(version, sizeof version, "PRAGMA user_version = %d", at);
    CHECK(!db_exec(c, version, NULL));
    CHECK(!db_exec(c,
                   "INSERT INTO blobs VALUES (printf('%064d', 1), 10, 1, 1), (printf('%064d', 2), 10, 1, 1);"
                   "INSERT INTO datasets (id, name, state, created_at, labels)"
                   " VALUES ('ds_00000000000000000000000000', 'old', 'open', 1, '{}');"
                   "INSERT INTO dataset_entries VALUES ('ds_00000000000000000000000000', 0, 'p', printf('%064d', 1), "
                   "NULL);",
                   NULL));
    db_conn_close(c);
    dr_error err = {0};
    CHECK_MSG(!db_open(dir, NULL, &db, &err), "%s", err.text);
    char one[DB_SHA], two[DB_SHA], id[DB_ID];
    snprintf(one, sizeof one, "%064d", 1);
    snprintf(two, sizeof two, "%064d", 2);
    CHECK(!is_free(one) && is_free(two));
    db_picture p = {.name = "p"};
    memcpy(p.sha256, one, sizeof one);
    CHECK(!make(&p, 1, NULL, id, &err));
    CHECK(!db_dataset_delete(db, "ds_00000000000000000000000000", NULL) && !is_free(one));
    db_close(db);
    CHECK(!db_conn_open(path, true, &c, NULL)); /* what a job named stays so, whoever writes */
    CHECK(db_exec(c, "UPDATE compare_pictures SET sha256 = printf('%064d', 2)", NULL));
    CHECK(db_exec(c, "DELETE FROM blobs", NULL));
    db_conn_close(c);
    CHECK(!db_open(dir, NULL, &db, NULL));
    CHECK(!db_job_cancel(db, id, NULL, NULL, NULL, NULL) && !db_job_delete(db, id, NULL) && is_free(one));
    down();
}
