/* test_jobs.c - the state machine of jobs, fencing, idempotency, paging, pruning, events. */
#include "core/base/alloc.h"
#include "tests/db/util.h"
#include "tests/t.h"
#include <time.h>

static char dir[256];
static db_store *open_store(const db_options *opt) {
    db_store *db = NULL;
    dr_error err = {0};
    scratch_make(dir, sizeof dir);
    if (db_open(dir, opt, &db, &err)) printf("# open: %s\n", err.text);
    return db;
}
static void shut(db_store *db) {
    db_close(db);
    scratch_rm(dir);
}
static void sleep_ms(long ms) {
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

TEST(create_and_get_keep_every_field) {
    db_store *db = open_store(NULL);
    CHECK(db);
    db_job in = sample_job(), out = {0}, got = {0};
    in.labels_json = (char[]){"{\"camera\":\"north\",\"run\":\"7\"}"};
    in.class_ = DB_BATCH, in.priority = 5, in.deadline_ms = INT64_C(99999999999999);
    snprintf(in.traceparent, sizeof in.traceparent, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    bool replayed = true;
    CHECK(db_job_create(db, &(db_job_new){.job = &in}, &out, &replayed, NULL) == DR_OK);
    CHECK(!replayed && db_id_valid("job_", out.id));
    CHECK(db_job_get(db, out.id, &got, NULL) == DR_OK);
    CHECK(strcmp(got.id, out.id) == 0 && got.state == DB_QUEUED && got.queue_position == 1 && got.revision == 1);
    CHECK(got.class_ == DB_BATCH && got.priority == 5 && got.deadline_ms == in.deadline_ms &&
          got.created_ms > 1600000000000);
    CHECK(strcmp(got.model.sha256, in.model.sha256) == 0 && got.model.version == 1 &&
          strcmp(got.input.sha256, in.input.sha256) == 0);
    CHECK(got.input.width == 64 && got.input.height == 48 && got.input.bytes == 1000 && got.input.bit_depth == 8 &&
          got.input.channels == 3);
    CHECK(strcmp(got.traceparent, in.traceparent) == 0 && strcmp(got.request_id, "req-1") == 0);
    CHECK(strcmp(got.params_json, in.params_json) == 0 && strcmp(got.labels_json, in.labels_json) == 0 &&
          !got.problem_json);
    CHECK(!got.has_result && got.started_ms == 0 && got.finished_ms == 0 && got.attempt == 0 &&
          got.timings_ms[DB_T_INFER] < 0);
    db_job_clear(&out);
    db_job_clear(&got);
    shut(db);
}

TEST(claim_and_finish) {
    db_store *db = open_store(NULL);
    char id[DB_ID];
    db_job j = {0};
    dr_error err = {0};
    CHECK(db_job_claim(db, &(db_claim){0}, &j, &err) == DR_NOT_FOUND && strcmp(err.what, "queue_empty") == 0);
    CHECK(add_job(db, NULL, id) == DR_OK);
    CHECK(db_job_claim(db, &(db_claim){.type = "train"}, &j, NULL) == DR_NOT_FOUND);
    CHECK(db_job_claim(db, &(db_claim){.type = "derain"}, &j, NULL) == DR_OK);
    CHECK(strcmp(j.id, id) == 0 && j.state == DB_RUNNING && j.attempt == 1 && j.epoch == 1 &&
          j.started_ms >= j.created_ms && j.queue_position == 0);
    db_finish f = good_result();
    db_job done = {0};
    CHECK(db_job_finish(db, id, j.epoch, &f, &done, NULL) == DR_OK);
    CHECK(done.state == DB_SUCCEEDED && done.has_result && done.result.bytes == 2000 && done.progress == 1 &&
          done.finished_ms >= done.started_ms);
    CHECK(strcmp(done.result.sha256, f.result_sha256) == 0 && strcmp(done.result.format, "png") == 0 &&
          done.result.width == 64);
    CHECK(done.timings_ms[DB_T_QUEUE] >= 0 && done.timings_ms[DB_T_DECODE] == 1.5 && done.timings_ms[DB_T_INFER] == 20);
    CHECK(done.revision > j.revision);
    /* a job that has ended stays as it ended */
    err = (dr_error){0};
    CHECK(db_job_finish(db, id, j.epoch, &f, NULL, &err) == DR_CONFLICT && strcmp(err.what, "stale_epoch") == 0);
    CHECK(db_job_requeue(db, id, j.epoch, NULL) == DR_CONFLICT);
    bool cancelled = true;
    db_job after = {0};
    CHECK(db_job_cancel(db, id, NULL, &after, &cancelled, NULL) == DR_OK && !cancelled && after.state == DB_SUCCEEDED);
    CHECK(after.revision == done.revision);
    db_job_clear(&j);
    db_job_clear(&done);
    db_job_clear(&after);
    shut(db);
}

TEST(finish_checks_its_arguments) {
    db_store *db = open_store(NULL);
    char id[DB_ID];
    db_job j = {0};
    CHECK(add_job(db, NULL, id) == DR_OK && db_job_claim(db, &(db_claim){0}, &j, NULL) == DR_OK);
    db_finish f = good_result();
    f.state = DB_RUNNING;
    CHECK(db_job_finish(db, id, j.epoch, &f, NULL, NULL) == DR_INVALID);
    f = good_result();
    f.result_sha256 = "short";
    CHECK(db_job_finish(db, id, j.epoch, &f, NULL, NULL) == DR_INVALID);
    f = (db_finish){.state = DB_FAILED, .problem_json = "not json", .timings_ms = {-1, -1, -1, -1}};
    CHECK(db_job_finish(db, id, j.epoch, &f, NULL, NULL) == DR_INVALID);
    f.problem_json = "{\"code\":\"image_corrupt\"}";
    CHECK(db_job_finish(db, "job_01ARZ3NDEKTSV4RRFFQ69G5FAV", 1, &f, NULL, NULL) == DR_NOT_FOUND);
    db_job done = {0};
    CHECK(db_job_finish(db, id, j.epoch, &f, &done, NULL) == DR_OK);
    CHECK(done.state == DB_FAILED && !done.has_result && strcmp(done.problem_json, f.problem_json) == 0);
    CHECK(done.timings_ms[DB_T_INFER] < 0);
    db_job_clear(&j);
    db_job_clear(&done);
    shut(db);
}

TEST(fencing_refuses_an_old_claim) {
    db_store *db = open_store(NULL);
    char id[DB_ID];
    db_job first = {0}, second = {0};
    CHECK(add_job(db, NULL, id) == DR_OK && db_job_claim(db, &(db_claim){0}, &first, NULL) == DR_OK);
    CHECK(db_job_requeue(db, id, first.epoch, NULL) == DR_OK);
    CHECK(db_job_claim(db, &(db_claim){0}, &second, NULL) == DR_OK);
    CHECK(second.epoch == first.epoch + 1 && second.attempt == 1); /* an orderly stop did not count */
    db_finish f = good_result();
    CHECK(db_job_finish(db, id, first.epoch, &f, NULL, NULL) == DR_CONFLICT);
    CHECK(db_job_requeue(db, id, first.epoch, NULL) == DR_CONFLICT);
    CHECK(db_event_append(db, id, first.epoch, "metric", "{}", NULL, NULL) == DR_CONFLICT);
    db_job_progress(db, id, first.epoch, 0.9);
    sleep_ms(400);
    db_job now = {0};
    CHECK(db_job_get(db, id, &now, NULL) == DR_OK && now.progress == 0 && now.state == DB_RUNNING);
    CHECK(db_job_finish(db, id, second.epoch, &f, NULL, NULL) == DR_OK);
    db_job_clear(&first);
    db_job_clear(&second);
    db_job_clear(&now);
    shut(db);
}

/* Whose lease has run out is named, and goes back only where its holder is not another by now. */
TEST(a_lost_job_is_claimed_back) {
    db_store *db = open_store(&(db_options){.job_attempts_max = 2});
    char id[DB_ID], other[DB_ID];
    db_job j = {0}, now = {0};
    db_lapsed lost[4];
    db_state state = DB_RUNNING;
    size_t n = 9;
    dr_error err = {0};
    CHECK(add_job(db, NULL, id) == DR_OK && db_job_claim(db, &(db_claim){.lease_ms = 1}, &j, NULL) == DR_OK);
    CHECK(add_job(db, NULL, other) == DR_OK && db_job_claim(db, &(db_claim){0}, &now, NULL) == DR_OK);
    db_job_clear(&now);
    sleep_ms(20);
    CHECK(db_jobs_lapsed(db, lost, 4, &n, NULL) == DR_OK && n == 1); /* the other one's lease runs */
    CHECK(!strcmp(lost[0].id, id) && lost[0].epoch == j.epoch);
    CHECK(db_job_reclaim(db, id, j.epoch + 1, &state, &err) == DR_CONFLICT && !strcmp(err.what, "stale_epoch"));
    CHECK(db_job_reclaim(db, other, 1, &state, NULL) == DR_CONFLICT);
    CHECK(db_job_reclaim(db, id, j.epoch, &state, NULL) == DR_OK && state == DB_QUEUED);
    CHECK(db_job_reclaim(db, id, j.epoch, &state, NULL) == DR_CONFLICT); /* once */
    CHECK(db_jobs_lapsed(db, lost, 4, &n, NULL) == DR_OK && n == 0);
    db_finish f = good_result();
    CHECK(db_job_finish(db, id, j.epoch, &f, NULL, NULL) == DR_CONFLICT); /* the late worker */
    int64_t old = j.epoch;
    db_job_clear(&j);
    CHECK(db_job_claim(db, &(db_claim){.lease_ms = 1}, &j, NULL) == DR_OK && j.attempt == 2 && j.epoch > old + 1);
    CHECK(db_job_finish(db, id, old, &f, NULL, NULL) == DR_CONFLICT);
    db_job_progress(db, id, j.epoch, 0.5); /* a sign of life */
    sleep_ms(400);
    CHECK(db_jobs_lapsed(db, lost, 4, &n, NULL) == DR_OK && n == 0);
    CHECK(db_job_reclaim(db, id, j.epoch, &state, NULL) == DR_CONFLICT);
    CHECK(db_job_requeue(db, id, j.epoch, NULL) == DR_OK); /* attempt 1 again */
    for (int i = 0; i < 2; i++) {
        db_job_clear(&j);
        CHECK(db_job_claim(db, &(db_claim){.lease_ms = 1}, &j, NULL) == DR_OK && !strcmp(j.id, id));
        sleep_ms(20);
        bool last = j.attempt >= 2;
        CHECK(db_job_reclaim(db, id, j.epoch, &state, NULL) == DR_OK && state == (last ? DB_FAILED : DB_QUEUED));
        if (last) break;
    }
    CHECK(db_job_get(db, id, &now, NULL) == DR_OK && now.state == DB_FAILED && now.finished_ms > 0);
    CHECK(now.problem_json && strstr(now.problem_json, "crashed_repeatedly"));
    db_job_clear(&now);
    CHECK(add_job(db, NULL, id) == DR_OK); /* a cancel that the lost worker never saw */
    db_job_clear(&j);
    CHECK(db_job_claim(db, &(db_claim){.lease_ms = 1}, &j, NULL) == DR_OK);
    CHECK(db_job_cancel(db, id, NULL, NULL, NULL, NULL) == DR_OK);
    sleep_ms(20);
    CHECK(db_job_reclaim(db, id, j.epoch, &state, NULL) == DR_OK && state == DB_CANCELLED);
    db_job_clear(&j);
    shut(db);
}

TEST(progress_is_written_in_batches) {
    db_store *db = open_store(NULL);
    char id[DB_ID];
    db_job j = {0}, now = {0};
    CHECK(add_job(db, NULL, id) == DR_OK && db_job_claim(db, &(db_claim){0}, &j, NULL) == DR_OK);
    db_stats before, after;
    db_stats_get(db, &before);
    for (int i = 0; i < 1000; i++) db_job_progress(db, id, j.epoch, i / 2000.0);
    db_job_progress(db, id, j.epoch, NAN); /* counts as 0, not as a broken row */
    db_job_progress(db, id, j.epoch, 0.5);
    for (int i = 0; i < 40 && now.progress != 0.5; i++) {
        sleep_ms(50);
        db_job_clear(&now);
        CHECK(db_job_get(db, id, &now, NULL) == DR_OK);
    }
    db_stats_get(db, &after);
    CHECK(now.progress == 0.5 && now.revision > j.revision);
    CHECK(after.commits - before.commits <= 3);
    db_job_clear(&j);
    db_job_clear(&now);
    shut(db);
}

TEST(cancel_queued_running_and_final) {
    db_store *db = open_store(NULL);
    char a[DB_ID], b[DB_ID];
    db_job j = {0}, c = {0};
    bool cancelled = false;
    dr_error err = {0};
    CHECK(add_job(db, NULL, a) == DR_OK && add_job(db, NULL, b) == DR_OK);
    CHECK(db_job_claim(db, &(db_claim){0}, &j, NULL) == DR_OK && strcmp(j.id, a) == 0);
    CHECK(db_job_cancel(db, b, "not needed", &c, &cancelled, NULL) == DR_OK && cancelled && c.state == DB_CANCELLED &&
          c.finished_ms > 0);
    int64_t revision = c.revision;
    db_job_clear(&c);
    CHECK(db_job_cancel(db, b, NULL, &c, &cancelled, NULL) == DR_OK && cancelled &&
          c.revision == revision); /* safe to repeat */
    db_job_clear(&c);
    CHECK(db_job_cancel(db, a, NULL, &c, &cancelled, NULL) == DR_OK && cancelled && c.state == DB_RUNNING &&
          c.cancel_requested);
    db_job_clear(&c);
    db_finish f = {.state = DB_CANCELLED, .timings_ms = {-1, -1, -1, -1}};
    CHECK(db_job_finish(db, a, j.epoch, &f, &c, NULL) == DR_OK && c.state == DB_CANCELLED);
    CHECK(db_job_cancel(db, "job_01ARZ3NDEKTSV4RRFFQ69G5FAV", NULL, NULL, NULL, &err) == DR_NOT_FOUND &&
          strcmp(err.what, "job_not_found") == 0);
    db_event_page ev = {0};
    CHECK(db_event_list(db, b, 0, 100, &ev, NULL) == DR_OK && ev.n == 3);
    CHECK(strstr(ev.events[1].data_json, "cancelled") && strstr(ev.events[2].data_json, "not needed"));
    db_event_page_clear(&ev);
    db_job_clear(&j);
    db_job_clear(&c);
    shut(db);
}

TEST(requeue_honours_a_cancel_and_keeps_the_place) {
    db_store *db = open_store(NULL);
    char a[DB_ID], b[DB_ID];
    db_job j = {0}, k = {0};
    CHECK(add_job(db, NULL, a) == DR_OK && add_job(db, NULL, b) == DR_OK);
    CHECK(db_job_claim(db, &(db_claim){0}, &j, NULL) == DR_OK && db_job_requeue(db, a, j.epoch, NULL) == DR_OK);
    CHECK(db_job_get(db, a, &k, NULL) == DR_OK && k.queue_position == 1 && k.state == DB_QUEUED && k.attempt == 0 &&
          k.started_ms == 0);
    db_job_clear(&j);
    db_job_clear(&k);
    CHECK(db_job_claim(db, &(db_claim){0}, &j, NULL) == DR_OK && strcmp(j.id, a) == 0);
    CHECK(db_job_cancel(db, a, NULL, NULL, NULL, NULL) == DR_OK && db_job_requeue(db, a, j.epoch, NULL) == DR_OK);
    CHECK(db_job_get(db, a, &k, NULL) == DR_OK && k.state == DB_CANCELLED);
    db_job_clear(&j);
    db_job_clear(&k);
    shut(db);
}

TEST(delete_leaves_a_tombstone) {
    db_store *db = open_store(&(db_options){.tombstone_ms = 300});
    char id[DB_ID], run[DB_ID];
    db_job j = {0};
    dr_error err = {0};
    CHECK(add_job(db, NULL, run) == DR_OK && db_job_claim(db, &(db_claim){0}, &j, NULL) == DR_OK &&
          add_job(db, NULL, id) == DR_OK);
    CHECK(db_job_delete(db, run, &err) == DR_CONFLICT && strcmp(err.what, "job_running") == 0);
    CHECK(db_job_delete(db, id, NULL) == DR_OK);
    db_job_clear(&j);
    err = (dr_error){0};
    CHECK(db_job_get(db, id, &j, &err) == DR_NOT_FOUND && strcmp(err.what, "job_gone") == 0);
    err = (dr_error){0};
    CHECK(db_job_delete(db, id, &err) == DR_NOT_FOUND && strcmp(err.what, "job_gone") == 0);
    err = (dr_error){0};
    db_event_page ev = {0};
    CHECK(db_event_list(db, id, 0, 10, &ev, &err) == DR_NOT_FOUND && strcmp(err.what, "job_gone") == 0);
    sleep_ms(400);
    err = (dr_error){0};
    CHECK(db_job_get(db, id, &j, &err) == DR_NOT_FOUND && strcmp(err.what, "job_not_found") == 0);
    shut(db);
}

TEST(queue_limit) {
    db_store *db = open_store(NULL);
    db_job in = sample_job(), out = {0};
    for (int i = 0; i < 3; i++) {
        CHECK(db_job_create(db, &(db_job_new){.job = &in, .queue_max = 3}, &out, NULL, NULL) == DR_OK);
        db_job_clear(&out);
    }
    dr_error err = {0};
    CHECK(db_job_create(db, &(db_job_new){.job = &in, .queue_max = 3}, &out, NULL, &err) == DR_BUSY);
    CHECK(err.code == DR_BUSY && strcmp(err.what, "queue_full") == 0 && err.limit == 3 && err.actual == 3 &&
          strcmp(err.setting, "queue_max") == 0);
    CHECK(db_job_claim(db, &(db_claim){0}, &out, NULL) == DR_OK); /* one runs: room for one */
    db_job_clear(&out);
    CHECK(db_job_create(db, &(db_job_new){.job = &in, .queue_max = 3}, &out, NULL, NULL) == DR_OK);
    db_job_clear(&out);
    shut(db);
}

TEST(idempotency) {
    db_store *db = open_store(&(db_options){.idempotency_ms = 400});
    db_job in = sample_job(), a = {0}, b = {0};
    bool replayed;
    char id[DB_ID];
    dr_error err = {0};
    CHECK(db_idem_lookup(db, "k", "h1", id, &err) == DR_NOT_FOUND && !err.what[0]);
    CHECK(db_job_create(db, &(db_job_new){.job = &in, .idem_key = "k", .idem_hash = "h1"}, &a, &replayed, NULL) ==
              DR_OK &&
          !replayed);
    /* the same again, even with a full queue: the old answer */
    CHECK(db_job_create(db, &(db_job_new){.job = &in, .idem_key = "k", .idem_hash = "h1", .queue_max = 1}, &b,
                        &replayed, NULL) == DR_OK);
    CHECK(replayed && strcmp(a.id, b.id) == 0);
    db_job_clear(&b);
    CHECK(db_job_create(db, &(db_job_new){.job = &in, .idem_key = "k", .idem_hash = "h2"}, &b, &replayed, &err) ==
          DR_CONFLICT);
    CHECK(strcmp(err.what, "idempotency_key_reused") == 0);
    CHECK(db_idem_lookup(db, "k", "h1", id, NULL) == DR_OK && strcmp(id, a.id) == 0);
    CHECK(db_idem_lookup(db, "k", NULL, id, NULL) == DR_OK && db_idem_lookup(db, "k", "h2", id, NULL) == DR_CONFLICT);
    CHECK(db_job_delete(db, a.id, NULL) == DR_OK);
    err = (dr_error){0};
    CHECK(db_job_create(db, &(db_job_new){.job = &in, .idem_key = "k", .idem_hash = "h1"}, &b, &replayed, &err) ==
          DR_NOT_FOUND);
    CHECK(strcmp(err.what, "job_gone") == 0);
    sleep_ms(500); /* forgotten: a new job */
    CHECK(db_job_create(db, &(db_job_new){.job = &in, .idem_key = "k", .idem_hash = "h2"}, &b, &replayed, NULL) ==
              DR_OK &&
          !replayed);
    CHECK(db_job_create(db, &(db_job_new){.job = &in, .idem_key = ""}, &b, &replayed, NULL) == DR_INVALID);
    db_job_clear(&a);
    db_job_clear(&b);
    shut(db);
}

TEST(a_refused_create_leaves_nothing) {
    db_store *db = open_store(NULL);
    db_job in = sample_job(), out = {0};
    db_counts n;
    dr_error err = {0};
    in.params_json = (char[]){"[1]"};
    CHECK(db_job_create(db, &(db_job_new){.job = &in, .idem_key = "k", .idem_hash = "h"}, &out, NULL, NULL) ==
          DR_INVALID);
    in = sample_job();
    in.labels_json = (char[]){"{\"\":\"x\"}"};
    CHECK(db_job_create(db, &(db_job_new){.job = &in, .idem_key = "k", .idem_hash = "h"}, &out, NULL, NULL) ==
          DR_INVALID);
    in = sample_job();
    snprintf(in.type, sizeof in.type, "dance");
    CHECK(db_job_create(db, &(db_job_new){.job = &in}, &out, NULL, NULL) == DR_INVALID);
    in = sample_job();
    snprintf(in.id, sizeof in.id, "job_x");
    CHECK(db_job_create(db, &(db_job_new){.job = &in}, &out, NULL, NULL) == DR_INVALID);
    CHECK(db_job_counts(db, &n, NULL) == DR_OK && n.state[DB_QUEUED] == 0);
    char id[DB_ID];
    CHECK(db_idem_lookup(db, "k", "h", id, NULL) == DR_NOT_FOUND);
    in = sample_job();
    db_id_new("job_", in.id);
    CHECK(db_job_create(db, &(db_job_new){.job = &in}, &out, NULL, NULL) == DR_OK);
    db_job_clear(&out);
    CHECK(db_job_create(db, &(db_job_new){.job = &in}, &out, NULL, &err) == DR_CONFLICT &&
          strcmp(err.what, "job_exists") == 0);
    shut(db);
}

TEST(classes_priorities_and_ageing) {
    db_store *db = open_store(&(db_options){.class_age_ms = 400});
    db_job p = sample_job(), j = {0};
    char batch[DB_ID], low[DB_ID], high[DB_ID], inter[DB_ID];
    p.class_ = DB_BATCH;
    CHECK(add_job(db, &p, batch) == DR_OK);
    p.priority = -50;
    CHECK(add_job(db, &p, low) == DR_OK);
    p.priority = 50;
    CHECK(add_job(db, &p, high) == DR_OK);
    CHECK(add_job(db, NULL, inter) == DR_OK);
    const char *order[] = {inter, high, batch};
    for (int i = 0; i < 3; i++) {
        CHECK(db_job_get(db, order[i], &j, NULL) == DR_OK);
        CHECK_MSG(j.queue_position == 1, "%d: %lld", i, (long long)j.queue_position);
        db_job_clear(&j);
        CHECK(db_job_claim(db, &(db_claim){0}, &j, NULL) == DR_OK && strcmp(j.id, order[i]) == 0);
        db_job_clear(&j);
    }
    sleep_ms(700); /* `low` has waited longer than a class and a half: before a newcomer */
    CHECK(add_job(db, NULL, inter) == DR_OK);
    CHECK(db_job_claim(db, &(db_claim){0}, &j, NULL) == DR_OK && strcmp(j.id, low) == 0);
    db_job_clear(&j);
    shut(db);
}

TEST(deadlines) {
    db_store *db = open_store(NULL);
    db_job p = sample_job(), j = {0};
    char id[DB_ID], later[DB_ID];
    int64_t now;
    CHECK(db_now(db, &now, NULL) == DR_OK);
    p.deadline_ms = now + 100;
    CHECK(add_job(db, &p, id) == DR_OK);
    p.deadline_ms = now + 60000;
    CHECK(add_job(db, &p, later) == DR_OK);
    sleep_ms(200);
    CHECK(db_job_claim(db, &(db_claim){0}, &j, NULL) == DR_OK && strcmp(j.id, later) == 0);
    db_job_clear(&j);
    CHECK(db_job_claim(db, &(db_claim){0}, &j, NULL) == DR_NOT_FOUND); /* never given out late */
    db_ids ids = {0};
    CHECK(db_jobs_expire(db, "{\"code\":\"deadline\"}", &ids, NULL) == DR_OK && ids.n == 1 &&
          strcmp(ids.ids[0], id) == 0);
    db_ids_clear(&ids);
    CHECK(db_job_get(db, id, &j, NULL) == DR_OK && j.state == DB_EXPIRED && strstr(j.problem_json, "deadline") &&
          j.finished_ms > 0);
    db_job_clear(&j);
    CHECK(db_jobs_expire(db, "{}", &ids, NULL) == DR_OK && ids.n == 0);
    db_ids_clear(&ids);
    shut(db);
}

TEST(pages_do_not_shift_under_inserts) {
    db_store *db = open_store(NULL);
    enum { N = 57 };
    char ids[N][DB_ID], extra[DB_ID];
    for (int i = 0; i < N; i++) CHECK(add_job(db, NULL, ids[i]) == DR_OK);
    char cursor[40] = "";
    int seen = 0;
    do {
        db_job_page page = {0};
        CHECK(db_job_list(db, &(db_job_filter){.limit = 10, .cursor = cursor}, &page, NULL) == DR_OK);
        for (size_t i = 0; i < page.n; i++, seen++) CHECK(seen < N && strcmp(page.jobs[i].id, ids[N - 1 - seen]) == 0);
        snprintf(cursor, sizeof cursor, "%s", page.next_cursor);
        db_job_page_clear(&page);
        CHECK(add_job(db, NULL, extra) == DR_OK);
    } while (*cursor);
    CHECK(seen == N);
    dr_error err = {0};
    db_job_page page = {0};
    db_job one = {0};
    CHECK(db_job_list(db, &(db_job_filter){.limit = 5, .states = 1u << DB_QUEUED}, &page, NULL) == DR_OK &&
          page.n == 5);
    for (size_t i = 0; i < page.n; i++) { /* the newest is last in the queue; a page and a single job agree */
        CHECK(db_job_get(db, page.jobs[i].id, &one, NULL) == DR_OK &&
              one.queue_position == page.jobs[i].queue_position);
        CHECK(one.queue_position == N + 6 - (int64_t)i);
        db_job_clear(&one);
    }
    db_job_page_clear(&page);
    CHECK(db_job_list(db, &(db_job_filter){.cursor = "p1xyz"}, &page, &err) == DR_INVALID &&
          strcmp(err.what, "bad_cursor") == 0);
    CHECK(db_job_list(db, &(db_job_filter){.cursor = "' OR 1=1"}, &page, NULL) == DR_INVALID);
    CHECK(db_job_list(db, &(db_job_filter){.limit = 501}, &page, NULL) == DR_TOO_LARGE);
    CHECK(db_job_list(db, &(db_job_filter){0}, &page, NULL) == DR_OK && page.n == 50 && page.next_cursor[0]);
    db_job_page_clear(&page);
    shut(db);
}

static size_t count(db_store *db, db_job_filter f) {
    db_job_page page = {0};
    dr_error err = {0};
    f.limit = DB_LIST_MAX;
    if (db_job_list(db, &f, &page, &err)) printf("# list: %s\n", err.text);
    size_t n = page.n;
    db_job_page_clear(&page);
    return n;
}

TEST(list_filters) {
    db_store *db = open_store(NULL);
    db_job p = sample_job(), j = {0};
    char id[DB_ID];
    p.labels_json = (char[]){"{\"camera\":\"north\"}"};
    CHECK(add_job(db, &p, id) == DR_OK);
    p.labels_json = (char[]){"{\"camera\":\"south\",\"x\":\"1\"}"};
    p.model.version = 2;
    CHECK(add_job(db, &p, id) == DR_OK);
    p = sample_job();
    snprintf(p.type, sizeof p.type, "eval");
    snprintf(p.model.name, sizeof p.model.name, "other");
    CHECK(add_job(db, &p, id) == DR_OK);
    CHECK(db_job_claim(db, &(db_claim){.type = "eval"}, &j, NULL) == DR_OK);
    db_job_clear(&j);
    CHECK(count(db, (db_job_filter){0}) == 3);
    CHECK(count(db, (db_job_filter){.label = "camera=north"}) == 1 &&
          count(db, (db_job_filter){.label = "camera"}) == 2);
    CHECK(count(db, (db_job_filter){.label = "camera="}) == 0 && count(db, (db_job_filter){.label = "y"}) == 0);
    CHECK(count(db, (db_job_filter){.type = "derain"}) == 2 && count(db, (db_job_filter){.type = "train"}) == 0);
    CHECK(count(db, (db_job_filter){.model = "derain"}) == 2 && count(db, (db_job_filter){.model = "derain:2"}) == 1);
    CHECK(count(db, (db_job_filter){.model = "other:2"}) == 0);
    CHECK(count(db, (db_job_filter){.states = 1u << DB_QUEUED}) == 2 &&
          count(db, (db_job_filter){.states = 1u << DB_RUNNING}) == 1);
    CHECK(count(db, (db_job_filter){.states = 1u << DB_RUNNING | 1u << DB_QUEUED}) == 3);
    CHECK(count(db, (db_job_filter){.states = 1u << DB_FAILED | 1u << DB_SUCCEEDED}) == 0);
    CHECK(count(db, (db_job_filter){
                        .states = 1u << DB_QUEUED, .type = "derain", .label = "x=1", .model = "derain:2"}) == 1);
    db_job_page page = {0};
    CHECK(db_job_list(db, &(db_job_filter){.model = "derain:x"}, &page, NULL) == DR_INVALID);
    CHECK(db_job_list(db, &(db_job_filter){.label = "=x"}, &page, NULL) == DR_INVALID);
    db_counts n;
    CHECK(db_job_counts(db, &n, NULL) == DR_OK && n.state[DB_QUEUED] == 2 && n.state[DB_RUNNING] == 1 &&
          n.spool_bytes == 3000 && n.oldest_queued_ms > 0);
    shut(db);
}

TEST(prune_takes_the_oldest_finished_and_nothing_else) {
    db_store *db = open_store(NULL);
    char done[4][DB_ID], waiting[DB_ID], running[DB_ID];
    db_job j = {0};
    db_finish f = good_result();
    db_ids ids = {0};
    for (int i = 0; i < 4; i++) { /* 3000 bytes each */
        CHECK(add_job(db, NULL, done[i]) == DR_OK && db_job_claim(db, &(db_claim){0}, &j, NULL) == DR_OK);
        CHECK(db_job_finish(db, done[i], j.epoch, &f, NULL, NULL) == DR_OK);
        db_job_clear(&j);
        sleep_ms(5);
    }
    CHECK(add_job(db, NULL, running) == DR_OK && db_job_claim(db, &(db_claim){0}, &j, NULL) == DR_OK &&
          add_job(db, NULL, waiting) == DR_OK);
    db_job_clear(&j);
    CHECK(db_jobs_prune(db, 3600 * 1000, 14000, &ids, NULL) == DR_OK && ids.n == 0); /* exactly at the limit */
    db_ids_clear(&ids);
    CHECK(db_jobs_prune(db, 0, 13999, &ids, NULL) == DR_OK && ids.n == 1 && strcmp(ids.ids[0], done[0]) == 0);
    db_ids_clear(&ids);
    sleep_ms(20);
    CHECK(db_jobs_prune(db, 1, 0, &ids, NULL) == DR_OK && ids.n == 3 && strcmp(ids.ids[2], done[3]) == 0);
    db_ids_clear(&ids);
    CHECK(db_jobs_prune(db, 1, 1, &ids, NULL) == DR_OK && ids.n == 0); /* unfinished ones never */
    db_ids_clear(&ids);
    dr_error err = {0};
    CHECK(db_job_get(db, done[2], &j, &err) == DR_NOT_FOUND && strcmp(err.what, "job_gone") == 0);
    CHECK(count(db, (db_job_filter){0}) == 2);
    shut(db);
}

TEST(events_are_numbered) {
    db_store *db = open_store(NULL);
    char id[DB_ID];
    db_job j = {0};
    int64_t seq = 0;
    CHECK(add_job(db, NULL, id) == DR_OK && db_job_claim(db, &(db_claim){0}, &j, NULL) == DR_OK);
    CHECK(db_event_append(db, id, j.epoch, "metric", "{\"loss\":1.5}", &seq, NULL) == DR_OK && seq == 3);
    CHECK(db_event_append(db, id, 0, "log", "{}", &seq, NULL) == DR_OK && seq == 4);
    CHECK(db_event_append(db, id, j.epoch, "nonsense", "{}", NULL, NULL) == DR_INVALID);
    CHECK(db_event_append(db, id, j.epoch, "log", "{", NULL, NULL) == DR_INVALID);
    CHECK(db_event_append(db, "job_01ARZ3NDEKTSV4RRFFQ69G5FAV", 0, "log", "{}", NULL, NULL) == DR_NOT_FOUND);
    db_event_page ev = {0};
    CHECK(db_event_list(db, id, 0, 0, &ev, NULL) == DR_OK && ev.n == 4);
    for (size_t i = 0; i < ev.n; i++) CHECK(ev.events[i].seq == (int64_t)i + 1 && ev.events[i].at_ms > 0);
    CHECK(strcmp(ev.events[0].type, "state") == 0 && strstr(ev.events[0].data_json, "\"to\":\"queued\""));
    CHECK(strstr(ev.events[1].data_json, "\"to\":\"running\"") && strstr(ev.events[2].data_json, "1.5"));
    db_event_page_clear(&ev);
    CHECK(db_event_list(db, id, 3, 10, &ev, NULL) == DR_OK && ev.n == 1 && ev.events[0].seq == 4);
    db_event_page_clear(&ev);
    CHECK(db_event_list(db, id, 4, 10, &ev, NULL) == DR_OK && ev.n == 0);
    db_event_page_clear(&ev);
    db_job_clear(&j);
    shut(db);
}

TEST(without_memory_nothing_breaks) {
    db_store *db = open_store(NULL);
    db_job in = sample_job(), out = {0};
    char id[DB_ID];
    CHECK(add_job(db, NULL, id) == DR_OK);
    int failed = 0;
    for (long n = 1; n < 40; n++) {
        dr_alloc_fail_after(n, false);
        dr_status s =
            db_job_create(db, &(db_job_new){.job = &in, .idem_key = "key", .idem_hash = "h"}, &out, NULL, NULL);
        dr_status l = s ? DR_NOMEM : DR_OK;
        db_job_page page = {0};
        if (!s) l = db_job_list(db, &(db_job_filter){.limit = 5}, &page, NULL);
        dr_alloc_fail_after(0, false);
        failed += s == DR_NOMEM || l == DR_NOMEM;
        CHECK_MSG(s == DR_OK || s == DR_NOMEM, "create gave %d", s);
        CHECK_MSG(l == DR_OK || l == DR_NOMEM, "list gave %d", l);
        db_job_clear(&out);
        db_job_page_clear(&page);
    }
    CHECK(failed > 5);
    CHECK(count(db, (db_job_filter){0}) == 2); /* the first, and one under the key however often it was tried */
    shut(db);
}

TEST(ids_grow_and_are_checked) {
    char last[DB_ID] = "", id[DB_ID];
    for (int i = 0; i < 5000; i++) {
        db_id_new("job_", id);
        CHECK(strlen(id) == 30 && db_id_valid("job_", id) && strcmp(id, last) > 0);
        memcpy(last, id, sizeof id);
    }
    CHECK(!db_id_valid("job_", NULL) && !db_id_valid("job_", "") && !db_id_valid("mdl_", id));
    CHECK(!db_id_valid("job_", "job_01ARZ3NDEKTSV4RRFFQ69G5FA") &&
          !db_id_valid("job_", "job_01ARZ3NDEKTSV4RRFFQ69G5FAU1"));
    CHECK(!db_id_valid("job_", "job_01arz3ndektsv4rrffq69g5fav") &&
          !db_id_valid("job_", "job_81ARZ3NDEKTSV4RRFFQ69G5FAV"));
    CHECK(!db_id_valid("job_", "job_01ARZ3NDEKTSV4RRFFQ69G5FAU"));
}
