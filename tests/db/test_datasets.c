/* test_datasets.c - blobs and data sets in the store: who holds what, what a sealed set refuses, limits, pages, facts,
 * and what is left after everything was deleted. */
#include "core/base/alloc.h"
#include "db/datasets.h"
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

static bool make_set(char id[DB_ID]) {
    db_dataset d = {0};
    dr_status s = db_dataset_create(db, &(db_dataset_new){.name = "a set"}, &d, NULL, NULL);
    snprintf(id, DB_ID, "%s", d.id);
    db_dataset_clear(&d);
    return !s;
}

static dr_status put(const char *id, db_part part, const char *name, const char *blob, bool *ret_new, dr_error *err) {
    return db_dataset_put(db, id, part, name, blob, 1000, 1000000, ret_new, err);
}

static bool is_free(const char *blob) {
    db_blob b = {0};
    return !db_blob_get(db, blob, &b, NULL) && b.free_since_ms > 0;
}

TEST(blobs_come_and_go) {
    CHECK(up());
    dr_error err = {0};
    db_blob b = {0};
    bool made = false;
    CHECK(db_blob_get(db, sha('a'), &b, &err) == DR_NOT_FOUND && !strcmp(err.what, "blob_not_found"));
    CHECK(!db_blob_put(db, sha('a'), 100, &made, NULL) && made);
    CHECK(!db_blob_put(db, sha('a'), 100, &made, NULL) && !made);
    CHECK(!db_blob_get(db, sha('a'), &b, NULL) && b.bytes == 100 && b.free_since_ms > 0 && b.created_ms > 0);
    CHECK(db_blob_put(db, "ABC", 1, NULL, NULL) == DR_INVALID &&
          db_blob_put(db, sha('A'), 1, NULL, NULL) == DR_INVALID);
    CHECK(!db_blob_delete(db, sha('a'), NULL));
    CHECK(db_blob_delete(db, sha('a'), NULL) == DR_NOT_FOUND);
    down();
}

TEST(a_set_holds_its_blobs_and_lets_them_go) {
    CHECK(up());
    char id[DB_ID], other[DB_ID];
    dr_error err = {0};
    bool fresh = false;
    db_dataset d = {0};
    CHECK(make_set(id) && make_set(other));
    CHECK(!db_blob_put(db, sha('a'), 100, NULL, NULL) && !db_blob_put(db, sha('b'), 30, NULL, NULL));
    CHECK(put(id, DB_RAINY, "x", sha('c'), NULL, &err) == DR_NOT_FOUND && !strcmp(err.what, "blob_not_found"));
    CHECK(!put(id, DB_RAINY, "x", sha('a'), &fresh, NULL) && fresh && !is_free(sha('a')));
    CHECK(!put(id, DB_PAIRED_CLEAN, "x", sha('a'), &fresh, NULL) && fresh);
    CHECK(!put(other, DB_CLEAN, "y", sha('a'), NULL, NULL));
    CHECK(!put(id, DB_RAINY, "x", sha('a'), &fresh, NULL) && !fresh); /* again: no change */
    CHECK(!db_dataset_get(db, id, &d, NULL) && d.files[DB_RAINY] == 1 && d.files[DB_PAIRED_CLEAN] == 1 &&
          d.bytes == 200);
    db_dataset_clear(&d);
    err = (dr_error){0};
    CHECK(db_blob_delete(db, sha('a'), &err) == DR_CONFLICT && !strcmp(err.what, "blob_in_use"));
    CHECK(!put(id, DB_RAINY, "x", sha('b'), &fresh, NULL) && !fresh); /* replaced */
    CHECK(!db_dataset_get(db, id, &d, NULL) && d.files[DB_RAINY] == 1 && d.bytes == 130 && !is_free(sha('b')));
    db_dataset_clear(&d);
    CHECK(!db_dataset_drop(db, id, DB_RAINY, "x", NULL) && is_free(sha('b')));
    err = (dr_error){0};
    CHECK(db_dataset_drop(db, id, DB_RAINY, "x", &err) == DR_NOT_FOUND && !strcmp(err.what, "entry_not_found"));
    CHECK(!db_dataset_delete(db, id, NULL) && !is_free(sha('a')));
    CHECK(!db_dataset_delete(db, other, NULL) && is_free(sha('a')));
    err = (dr_error){0};
    CHECK(db_dataset_get(db, id, &d, &err) == DR_NOT_FOUND && !strcmp(err.what, "dataset_gone"));
    err = (dr_error){0};
    CHECK(db_dataset_get(db, "ds_00000000000000000000000000", &d, &err) == DR_NOT_FOUND &&
          !strcmp(err.what, "dataset_not_found"));
    char taken[DB_BLOBS_MAX][DB_SHA];
    size_t n = 9;
    CHECK(!db_blobs_take_free(db, 3600000, taken, &n, NULL) && n == 0);
    CHECK(!db_blobs_take_free(db, 0, taken, &n, NULL) && n == 2);
    int64_t blobs = -1, bytes = -1;
    CHECK(!db_blob_totals(db, &blobs, &bytes, NULL) && blobs == 0 && bytes == 0);
    down();
}

TEST(a_set_has_limits) {
    CHECK(up());
    char id[DB_ID];
    dr_error err = {0};
    CHECK(make_set(id) && !db_blob_put(db, sha('a'), 100, NULL, NULL));
    CHECK(!db_dataset_put(db, id, DB_RAINY, "1", sha('a'), 2, 1000, NULL, NULL));
    CHECK(!db_dataset_put(db, id, DB_RAINY, "2", sha('a'), 2, 1000, NULL, NULL));
    CHECK(db_dataset_put(db, id, DB_RAINY, "3", sha('a'), 2, 1000, NULL, &err) == DR_TOO_LARGE && err.limit == 2 &&
          err.actual == 3 && !strcmp(err.setting, "dataset_files_max"));
    CHECK(!db_dataset_put(db, id, DB_RAINY, "2", sha('a'), 2, 1000, NULL, NULL)); /* replacing is not one more */
    err = (dr_error){0};
    CHECK(db_dataset_put(db, id, DB_RAINY, "3", sha('a'), 9, 299, NULL, &err) == DR_TOO_LARGE && err.actual == 300 &&
          !strcmp(err.setting, "dataset_bytes_max"));
    db_dataset d = {0};
    CHECK(!db_dataset_get(db, id, &d, NULL) && d.files[DB_RAINY] == 2 && d.bytes == 200); /* the refused left nothing */
    db_dataset_clear(&d);
    down();
}

TEST(a_sealed_set_is_closed_and_found_again) {
    CHECK(up());
    char id[DB_ID], next[DB_ID];
    dr_error err = {0};
    db_dataset d = {0};
    CHECK(make_set(id) && db_dataset_next(db, next, NULL) == DR_NOT_FOUND);
    CHECK(db_dataset_seal(db, id, false, &d, &err) == DR_INVALID && !strcmp(err.what, "dataset_empty"));
    CHECK(!db_blob_put(db, sha('a'), 5, NULL, NULL) && !put(id, DB_RAINY, "x", sha('a'), NULL, NULL) &&
          !put(id, DB_CLEAN, "y", sha('a'), NULL, NULL));
    CHECK(db_dataset_finish(db, id, true, "[]", NULL, 0, NULL) == DR_CONFLICT); /* not sealed yet */
    CHECK(!db_dataset_seal(db, id, true, &d, NULL) && d.state == DB_DS_VALIDATING && d.set_aside && d.sealed_ms > 0);
    db_dataset_clear(&d);
    CHECK(!db_dataset_seal(db, id, false, &d, NULL) && d.state == DB_DS_VALIDATING && d.set_aside); /* stays */
    db_dataset_clear(&d);
    err = (dr_error){0};
    CHECK(put(id, DB_RAINY, "z", sha('a'), NULL, &err) == DR_CONFLICT && !strcmp(err.what, "dataset_sealed"));
    CHECK(db_dataset_drop(db, id, DB_RAINY, "x", NULL) == DR_CONFLICT);
    db_close(db);
    CHECK(!db_open(dir, NULL, &db, NULL)); /* another life */
    CHECK(!db_dataset_next(db, next, NULL) && !strcmp(next, id));
    const db_aside aside = {DB_CLEAN, "y", "in_both_sets"};
    CHECK(!db_dataset_finish(db, id, false, "[\"one\"]", &aside, 1, NULL));
    CHECK(!db_dataset_get(db, id, &d, NULL) && d.state == DB_DS_REJECTED && !strcmp(d.reasons_json, "[\"one\"]") &&
          d.aside[DB_CLEAN] == 1 && d.aside[DB_RAINY] == 0 && d.validated_ms > 0);
    db_dataset_clear(&d);
    CHECK(db_dataset_finish(db, id, true, "[]", NULL, 0, NULL) == DR_CONFLICT); /* final */
    db_entry_list list = {0};
    CHECK(!db_dataset_entries(db, id, true, &list, NULL) && list.n == 1 && !strcmp(list.e[0].name, "x"));
    db_entry_list_clear(&list);
    CHECK(db_dataset_next(db, next, NULL) == DR_NOT_FOUND);
    down();
}

TEST(facts_belong_to_the_bytes) {
    CHECK(up());
    char id[DB_ID];
    db_entry_list list = {0};
    db_facts f[2] = {
        {.format = "png", .width = 64, .height = 48, .bit_depth = 8, .channels = 3, .grey = true, .rain = 61.5},
        {.code = "image_corrupt", .detail = "it ends early", .rain = -1}};
    CHECK(make_set(id) && !db_blob_put(db, sha('a'), 5, NULL, NULL));
    snprintf(f[0].sha256, DB_SHA, "%s", sha('a'));
    snprintf(f[0].look, DB_SHA, "%s", sha('1'));
    snprintf(f[1].sha256, DB_SHA, "%s", sha('b')); /* no such blob: left out */
    CHECK(!put(id, DB_RAINY, "x", sha('a'), NULL, NULL) && !db_dataset_entries(db, id, false, &list, NULL));
    CHECK(list.n == 1 && !list.e[0].has_facts && list.e[0].bytes == 5);
    db_entry_list_clear(&list);
    CHECK(!db_facts_put(db, f, 2, NULL) && !db_dataset_entries(db, id, false, &list, NULL));
    CHECK(list.e[0].has_facts && list.e[0].facts.width == 64 && list.e[0].facts.grey && !*list.e[0].facts.code);
    CHECK(!strcmp(list.e[0].facts.look, f[0].look) && !strcmp(list.e[0].facts.format, "png"));
    CHECK(list.e[0].facts.rain == 61.5);
    db_entry_list_clear(&list);
    snprintf(f[1].sha256, DB_SHA, "%s", sha('a'));
    CHECK(!db_facts_put(db, &f[1], 1, NULL) && !db_dataset_entries(db, id, false, &list, NULL));
    CHECK(!strcmp(list.e[0].facts.code, "image_corrupt") && !strcmp(list.e[0].facts.detail, "it ends early"));
    CHECK(list.e[0].facts.rain < 0); /* none */
    db_entry_list_clear(&list);
    CHECK(!db_dataset_delete(db, id, NULL) && !db_blob_delete(db, sha('a'), NULL)); /* the facts go with it */
    down();
}

TEST(an_archive_is_all_or_nothing_and_keys_replay) {
    CHECK(up());
    db_entry_new e[3] = {{.part = DB_RAINY, .name = "a", .bytes = 10}, {.part = DB_CLEAN, .name = "b", .bytes = 20}};
    db_dataset d = {0}, again = {0};
    db_dataset_new in = {.entries = e, .n_entries = 2, .idem_key = "k", .idem_hash = sha('9')};
    bool replayed = true;
    dr_error err = {0};
    int64_t n = 0, bytes = 0;
    snprintf(e[0].sha256, DB_SHA, "%s", sha('a'));
    snprintf(e[1].sha256, DB_SHA, "%s", sha('b'));
    CHECK(!db_dataset_create(db, &in, &d, &replayed, NULL) && !replayed && d.files[0] == 1 && d.bytes == 30);
    CHECK(!db_dataset_create(db, &in, &again, &replayed, NULL) && replayed && !strcmp(again.id, d.id));
    db_dataset_clear(&again);
    in.idem_hash = sha('8');
    CHECK(db_dataset_create(db, &in, &again, &replayed, &err) == DR_CONFLICT &&
          !strcmp(err.what, "idempotency_key_reused"));
    in.idem_key = NULL;
    e[2] = e[0]; /* a name twice */
    snprintf(e[1].sha256, DB_SHA, "%s", sha('c'));
    in.n_entries = 3;
    CHECK(db_dataset_create(db, &in, &again, &replayed, NULL) != DR_OK);
    CHECK(!db_blob_totals(db, &n, &bytes, NULL) && n == 2 && bytes == 30); /* nothing of the third */
    in.n_entries = 0;
    in.labels_json = "[1]";
    CHECK(db_dataset_create(db, &in, &again, NULL, NULL) == DR_INVALID);
    db_dataset_clear(&d);
    down();
}

TEST(pages_follow_each_other) {
    CHECK(up());
    char id[5][DB_ID];
    db_dataset_page page = {0};
    for (int i = 0; i < 5; i++) CHECK(make_set(id[i]));
    db_dataset_filter f = {.limit = 2};
    CHECK(!db_dataset_list(db, &f, &page, NULL) && page.n == 2 && !strcmp(page.sets[0].id, id[4]) && *page.next_cursor);
    char cursor[40];
    snprintf(cursor, sizeof cursor, "%s", page.next_cursor);
    db_dataset_page_clear(&page);
    f.cursor = cursor;
    f.limit = 3;
    CHECK(!db_dataset_list(db, &f, &page, NULL) && page.n == 3 && !strcmp(page.sets[2].id, id[0]) &&
          !*page.next_cursor);
    db_dataset_page_clear(&page);
    f.cursor = "nonsense";
    CHECK(db_dataset_list(db, &f, &page, NULL) == DR_INVALID);
    f = (db_dataset_filter){.states = 1u << DB_DS_READY};
    CHECK(!db_dataset_list(db, &f, &page, NULL) && page.n == 0);
    db_dataset_page_clear(&page);
    down();
}

TEST(a_set_that_a_job_needs_stays) {
    CHECK(up());
    char id[DB_ID], params[80], job[DB_ID];
    dr_error err = {0};
    CHECK(make_set(id));
    snprintf(params, sizeof params, "{\"dataset\":\"%s\"}", id);
    db_job j = sample_job();
    snprintf(j.type, sizeof j.type, "train");
    j.class_ = DB_TRAIN;
    j.params_json = params;
    CHECK(!add_job(db, &j, job));
    CHECK(db_dataset_delete(db, id, &err) == DR_CONFLICT && !strcmp(err.what, "dataset_in_use"));
    db_job after = {0};
    CHECK(!db_job_cancel(db, job, NULL, &after, NULL, NULL));
    db_job_clear(&after);
    CHECK(!db_dataset_delete(db, id, NULL));
    down();
}
