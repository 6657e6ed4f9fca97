/* test_models.c - versions of models in the store: numbers, verdicts, the default's stack, revisions. */
#include "db/jobs.h"
#include "db/models.h"
#include "tests/db/util.h"
#include "tests/t.h"

static char dir[256];

static db_model version(int v, char sha) {
    db_model m = {.name = "derain", .version = v, .bytes = 10, .origin = DB_TRAINED, .parent = v - 1};
    memset(m.sha256, sha, 64);
    return m;
}

static db_store *with_three(void) {
    db_store *db = NULL;
    scratch_make(dir, sizeof dir);
    if (db_open(dir, NULL, &db, NULL)) return NULL;
    db_model a = version(1, 'a'), b = version(2, 'b'), c = version(3, 'c');
    a.is_default = true;
    a.path = (char[]){"/models/one.safetensors"};
    if (db_model_put(db, &a, false, NULL) || db_model_add(db, &b, NULL) || db_model_add(db, &c, NULL)) return NULL;
    return db;
}

static int64_t top(db_store *db) {
    db_model m = {0};
    if (db_model_get(db, "derain", 0, &m, NULL)) return -1;
    int64_t v = m.version;
    db_model_clear(&m);
    return v;
}

TEST(a_version_keeps_what_it_was_made_from) {
    db_store *db = with_three();
    CHECK(db != NULL);
    db_model m = version(4, 'd'), got = {0};
    snprintf(m.dataset, sizeof m.dataset, "ds_01ARZ3NDEKTSV4RRFFQ69G5FAV");
    snprintf(m.job, sizeof m.job, "job_01ARZ3NDEKTSV4RRFFQ69G5FAV");
    m.measures_json = (char[]){"{\"psnr\":30}"};
    m.about_json = (char[]){"{\"dtype\":\"F16\"}"};
    CHECK(db_model_add(db, &m, NULL) == DR_OK);
    dr_error err = {0};
    CHECK(db_model_add(db, &m, &err) == DR_CONFLICT && !strcmp(err.what, "model_version_exists"));
    CHECK(db_model_get(db, "derain", 4, &got, NULL) == DR_OK);
    CHECK(got.origin == DB_TRAINED && got.verdict == DB_NOT_JUDGED && got.parent == 3 && !got.is_default);
    CHECK(!strcmp(got.dataset, m.dataset) && !strcmp(got.job, m.job) && !strcmp(got.measures_json, m.measures_json));
    CHECK(!strcmp(got.about_json, m.about_json) && !got.gate_json);
    db_model_clear(&got);
    CHECK(db_model_judge(db, "derain", 4, DB_REJECTED, "{\"why\":\"blurs\"}", NULL, NULL) == DR_OK);
    CHECK(db_model_judge(db, "derain", 9, DB_REJECTED, NULL, NULL, NULL) == DR_NOT_FOUND);
    CHECK(db_model_judge(db, "derain", 4, DB_REJECTED, "no object", NULL, NULL) == DR_INVALID);
    CHECK(db_model_get(db, "derain", 4, &got, NULL) == DR_OK && got.verdict == DB_REJECTED);
    CHECK(!strcmp(got.gate_json, "{\"why\":\"blurs\"}") && !strcmp(got.measures_json, m.measures_json));
    db_model_clear(&got);
    CHECK(db_model_get(db, "derain", 1, &got, NULL) == DR_OK && !strcmp(got.path, "/models/one.safetensors"));
    CHECK(got.origin == DB_CONFIGURED);
    db_model_clear(&got);
    db_close(db);
    scratch_rm(dir);
}

/* What a job makes at its end and what was published of it on the way are versions of their own. */
TEST(a_checkpoint_has_one_version) {
    db_store *db = with_three();
    CHECK(db != NULL);
    const char *const job = "job_01ARZ3NDEKTSV4RRFFQ69G5FAV";
    int64_t v = 0;
    db_model m = version(4, 'd'), got = {0};
    snprintf(m.job, sizeof m.job, "%s", job);
    CHECK(db_model_of_job(db, "derain", job, 20, &v, NULL) == DR_NOT_FOUND && v == 0);
    m.step = 20;
    CHECK(db_model_add(db, &m, NULL) == DR_OK);
    CHECK(db_model_of_job(db, "derain", job, 20, &v, NULL) == DR_OK && v == 4);
    CHECK(db_model_of_job(db, "derain", job, 0, &v, NULL) == DR_NOT_FOUND); /* not its end */
    CHECK(db_model_of_job(db, "derain", job, 30, &v, NULL) == DR_NOT_FOUND);
    CHECK(db_model_of_job(db, "other", job, 20, &v, NULL) == DR_NOT_FOUND);
    CHECK(db_model_get(db, "derain", 4, &got, NULL) == DR_OK && got.step == 20);
    db_model_clear(&got);
    m = version(5, 'e');
    snprintf(m.job, sizeof m.job, "%s", job);
    m.step = 20;
    CHECK(db_model_add(db, &m, NULL) != DR_OK); /* the second from the same one */
    m.step = 0;
    CHECK(db_model_add(db, &m, NULL) == DR_OK);
    CHECK(db_model_of_job(db, "derain", job, 0, &v, NULL) == DR_OK && v == 5);
    CHECK(db_model_of_job(db, "derain", job, 20, &v, NULL) == DR_OK && v == 4);
    db_close(db);
    scratch_rm(dir);
}

TEST(the_default_is_a_stack) {
    db_store *db = with_three();
    CHECK(db != NULL);
    int64_t rev = 0, back = 0;
    dr_error err = {0};
    CHECK(db_model_previous(db, "derain", &back, &err) == DR_CONFLICT && !strcmp(err.what, "no_previous_version"));
    CHECK(db_model_previous(db, "other", &back, NULL) == DR_NOT_FOUND);
    CHECK(db_model_set_default(db, "derain", 2, 0, false, NULL, NULL) == DR_OK && top(db) == 2);
    CHECK(db_model_set_default(db, "derain", 3, 0, false, NULL, NULL) == DR_OK && top(db) == 3);
    CHECK(db_model_set_default(db, "derain", 3, 0, false, NULL, NULL) == DR_OK); /* twice is once */
    CHECK(db_model_previous(db, "derain", &back, NULL) == DR_OK && back == 2);
    CHECK(db_model_judge(db, "derain", 2, DB_REJECTED, NULL, NULL, NULL) == DR_OK);
    CHECK(db_model_previous(db, "derain", &back, NULL) == DR_OK && back == 1); /* not to a bad one */
    CHECK(db_model_set_default(db, "derain", 1, 0, true, &rev, NULL) == DR_OK && top(db) == 1);
    CHECK(db_model_previous(db, "derain", &back, &err) == DR_CONFLICT);
    db_close(db);
    CHECK(db_open(dir, NULL, &db, NULL) == DR_OK && top(db) == 1); /* a restart keeps it */
    db_model m = version(1, 'a');
    m.is_default = true;
    CHECK(db_model_set_default(db, "derain", 3, 0, false, NULL, NULL) == DR_OK);
    CHECK(db_model_put(db, &m, false, NULL) == DR_OK && top(db) == 1);
    CHECK(db_model_previous(db, "derain", &back, NULL) == DR_OK && back == 3);
    db_close(db);
    scratch_rm(dir);
}

TEST(a_revision_that_is_not_the_last_is_refused) {
    db_store *db = with_three();
    CHECK(db != NULL);
    int64_t rev = 0, after = 0;
    dr_error err = {0};
    CHECK(db_model_revision(db, "derain", &rev, NULL) == DR_OK && rev > 0);
    CHECK(db_model_set_default(db, "derain", 2, rev, false, &after, NULL) == DR_OK && after == rev + 1);
    CHECK(db_model_set_default(db, "derain", 3, rev, false, NULL, &err) == DR_CONFLICT);
    CHECK(!strcmp(err.what, "revision_changed") && err.actual == after && top(db) == 2);
    CHECK(db_model_set_default(db, "derain", 9, after, false, NULL, NULL) == DR_NOT_FOUND);
    CHECK(db_model_revision(db, "derain", &rev, NULL) == DR_OK && rev == after); /* a failure changes nothing */
    CHECK(db_model_revision(db, "other", &rev, NULL) == DR_NOT_FOUND);
    db_model m = version(1, 'a');
    CHECK(db_model_put(db, &m, false, NULL) == DR_OK);
    CHECK(db_model_revision(db, "derain", &rev, NULL) == DR_OK && rev == after); /* nor does an equal start */
    db_close(db);
    scratch_rm(dir);
}

TEST(lists_go_by_name_and_page_by_version) {
    db_store *db = with_three();
    CHECK(db != NULL);
    db_model other = version(1, 'x'), *list = NULL;
    size_t n = 0;
    snprintf(other.name, sizeof other.name, "other");
    CHECK(db_model_add(db, &other, NULL) == DR_OK);
    CHECK(db_model_list(db, NULL, 0, &list, &n, NULL) == DR_OK && n == 4 && list[0].version == 3);
    db_model_list_clear(list, n);
    CHECK(db_model_list(db, "derain", 3, &list, &n, NULL) == DR_OK && n == 2 && list[0].version == 2);
    db_model_list_clear(list, n);
    db_close(db);
    scratch_rm(dir);
}

TEST(a_job_ends_with_the_version_that_it_ran_with) {
    db_store *db = with_three();
    CHECK(db != NULL);
    db_job in = sample_job(), job = {0}, done = {0};
    bool replayed;
    char sha[65] = "";
    memset(sha, 'c', 64);
    const db_job_new wish = {.job = &in};
    const db_claim claim = {.type = "derain"};
    CHECK(db_job_create(db, &wish, &job, &replayed, NULL) == DR_OK);
    db_job_clear(&job);
    CHECK(db_job_claim(db, &claim, &job, NULL) == DR_OK);
    const db_finish f = {.state = DB_SUCCEEDED,
                         .result_format = "png",
                         .result_sha256 = sha,
                         .result_bytes = 1,
                         .result_width = 1,
                         .result_height = 1,
                         .model_version = 3,
                         .model_sha256 = sha};
    CHECK(db_job_finish(db, job.id, job.epoch, &f, &done, NULL) == DR_OK);
    CHECK(done.model.version == 3 && !strcmp(done.model.sha256, sha) && !strcmp(done.model.name, in.model.name));
    db_job_clear(&job);
    db_job_clear(&done);
    db_close(db);
    scratch_rm(dir);
}
