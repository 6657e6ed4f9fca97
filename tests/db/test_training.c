/* test_training.c - a training's states, metrics, checkpoints; what a crash, a pause and a cancel make of them. */
#include "core/base/alloc.h"
#include "db/training.h"
#include "tests/db/util.h"
#include "tests/t.h"

static char dir[256];
static db_store *db;

static bool open_store(void) {
    scratch_make(dir, sizeof dir);
    return !db_open(dir, NULL, &db, NULL);
}
static bool reopen(void) { /* as after a crash: what was held is put back */
    db_close(db);
    db = NULL;
    return !db_open(dir, NULL, &db, NULL);
}
static void shut(void) {
    db_close(db);
    db = NULL;
    scratch_rm(dir);
}

static bool add_training(db_state state, char id[DB_ID]) {
    static char params[] = "{\"dataset\":\"ds_1\",\"steps\":100}";
    db_job j = sample_job();
    snprintf(j.type, sizeof j.type, "train");
    j.class_ = DB_TRAIN;
    j.state = state;
    j.params_json = params;
    return !add_job(db, &j, id);
}

static db_state state_of(const char *id) {
    db_job j = {0};
    db_state s = db_job_get(db, id, &j, NULL) ? DB_N_STATES : j.state;
    db_job_clear(&j);
    return s;
}

static int64_t claim(const char *id) {
    db_job j = {0};
    dr_status s = db_job_claim(db, &(db_claim){.type = "train"}, &j, NULL);
    int64_t epoch = !s && !strcmp(j.id, id) ? j.epoch : 0;
    db_job_clear(&j);
    return epoch;
}

static bool step(const char *id, int64_t epoch, int64_t at) {
    char json[64];
    snprintf(json, sizeof json, "{\"step\":%lld,\"nce_1\":%d.5}", (long long)at, (int)at);
    const db_training_note n = {.step = at,
                                .steps = 100,
                                .skipped = at / 2,
                                .seconds = (double)at,
                                .seconds_per_step = 1,
                                .metrics_json = json};
    return !db_training_progress(db, id, epoch, &n, NULL);
}

static int events_of(const char *id, const char *type, const char *text) {
    db_event_page p = {0};
    int n = 0;
    if (db_event_list(db, id, 0, 1000, &p, NULL)) return -1;
    for (size_t i = 0; i < p.n; i++) {
        if (p.events[i].seq != (int64_t)i + 1) n = -1000;
        n += !strcmp(p.events[i].type, type) && strstr(p.events[i].data_json, text);
    }
    db_event_page_clear(&p);
    return n;
}

static size_t n_metrics(const char *id) {
    db_metric_page p = {0};
    size_t n = db_training_metrics(db, id, 0, 0, &p, NULL) ? 999 : p.n;
    db_metric_page_clear(&p);
    return n;
}

typedef struct people {
    dr_status status;
    bool flag, called;
    char what[48];
} people;
static void on_people(void *arg, dr_status s, const db_job *job, bool flag, const dr_error *err) {
    people *p = arg;
    (void)job;
    p->status = s;
    p->flag = flag;
    snprintf(p->what, sizeof p->what, "%s", s ? err->what : "");
    p->called = true;
}
static people ask(void (*call)(db_store *, const char *, db_job_done, void *), const char *id) {
    static people p; /* the store's thread writes it before the ping below is answered: one FIFO */
    p = (people){0};
    call(db, id, on_people, &p);
    db_job j = {0};
    if (!db_job_cancel(db, "job_00000000000000000000000000", NULL, &j, NULL, NULL)) printf("# there is such a job\n");
    db_job_clear(&j);
    return p;
}

TEST(a_training_from_claim_to_end) {
    char id[DB_ID];
    db_training t;
    CHECK(open_store() && add_training(DB_VALIDATING, id));
    CHECK(state_of(id) == DB_VALIDATING && !claim(id));
    CHECK(!db_training_validated(db, id, NULL, NULL) && state_of(id) == DB_QUEUED);
    CHECK(!db_training_validated(db, id, "{\"code\":\"late\"}", NULL) && state_of(id) == DB_QUEUED); /* once */
    int64_t e = claim(id);
    CHECK(e > 0 && step(id, e, 1) && step(id, e, 2));
    CHECK(!db_training_get(db, id, &t, NULL) && t.step == 2 && t.steps == 100 && t.seconds == 2 && t.best_step == -1);
    CHECK(!strcmp(t.dataset, "ds_1"));
    db_checkpoint k = {.step = 2, .bytes = 500, .seconds = 2}, got[4];
    size_t n = 0;
    CHECK(!db_training_checkpoint(db, id, e, &k, NULL));
    CHECK(!db_training_score(db, id, e, 2, 25.5, true, NULL));
    CHECK(!db_training_checkpoints(db, id, got, 4, &n, NULL) && n == 1 && got[0].step == 2 && got[0].bytes == 500 &&
          got[0].has_score && got[0].score == 25.5);
    CHECK(!db_training_move(db, id, e, DB_EVALUATING, NULL) && state_of(id) == DB_EVALUATING);
    CHECK(!db_training_move(db, id, e, DB_GATED, NULL));
    CHECK(db_training_move(db, id, e, DB_PAUSED, NULL) == DR_INVALID);
    CHECK(!db_training_finish(db, id, e, DB_SUCCEEDED, NULL, NULL) && state_of(id) == DB_SUCCEEDED);
    dr_error err = {0};
    CHECK(db_training_finish(db, id, e, DB_FAILED, "{}", &err) == DR_CONFLICT && !strcmp(err.what, "stale_epoch"));
    CHECK(!step(id, e, 3) && n_metrics(id) == 2);
    CHECK(events_of(id, "metric", "nce_1") == 2 && events_of(id, "checkpoint", "\"step\":2") == 1);
    CHECK(events_of(id, "state", "gated") == 2 && events_of(id, "end", "succeeded") == 1);
    CHECK(!db_job_delete(db, id, NULL) && n_metrics(id) == 0);
    shut();
}

TEST(a_crash_puts_every_held_state_back_and_checkpoints_forgive_attempts) {
    static const db_state held[] = {DB_RUNNING, DB_YIELDING, DB_EVALUATING, DB_GATED};
    char id[DB_ID];
    CHECK(open_store() && add_training(DB_QUEUED, id));
    db_checkpoint k = {.step = 1, .bytes = 5};
    for (int i = 0; i < 12; i++) { /* more often than job_attempts_max */
        int64_t e = claim(id);
        CHECK(e > 0 && !db_training_checkpoint(db, id, e, &k, NULL));
        CHECK(!db_training_move(db, id, e, held[i % 4], NULL));
        CHECK(reopen() && state_of(id) == DB_QUEUED);
        CHECK(db_training_move(db, id, e, DB_RUNNING, NULL) == DR_CONFLICT);
    }
    for (int i = 0; i < 4; i++) { /* no headway: attempts 2 to 5 */
        CHECK(state_of(id) == DB_QUEUED && claim(id) > 0);
        CHECK(reopen());
    }
    db_job j = {0};
    CHECK(!db_job_get(db, id, &j, NULL) && j.state == DB_FAILED && strstr(j.problem_json, "crashed_repeatedly"));
    db_job_clear(&j);
    shut();
}

TEST(going_on_from_a_checkpoint_forgets_what_came_after) {
    char id[DB_ID];
    db_training t;
    db_checkpoint got[4];
    size_t n = 0;
    CHECK(open_store() && add_training(DB_QUEUED, id));
    int64_t e = claim(id);
    for (int i = 1; i <= 6; i++) {
        db_checkpoint k = {.step = i, .bytes = 5, .seconds = i};
        CHECK(step(id, e, i) && (i % 2 || !db_training_checkpoint(db, id, e, &k, NULL)));
    }
    CHECK(!db_training_score(db, id, e, 2, 20, true, NULL) && !db_training_score(db, id, e, 6, 30, true, NULL));
    CHECK(!db_training_get(db, id, &t, NULL) && t.step == 6 && t.skipped == 3);
    CHECK(!db_training_rewind(db, id, e, 4, 2, 4, NULL));
    CHECK(n_metrics(id) == 4);
    CHECK(!db_training_checkpoints(db, id, got, 4, &n, NULL) && n == 2 && got[0].step == 4 && got[1].step == 2);
    CHECK(!db_training_get(db, id, &t, NULL) && t.step == 4 && t.seconds == 4 && t.best_step == 2 &&
          t.best_score == 20 && t.skipped == 2);
    CHECK(!db_training_rewind(db, id, e, 0, 0, 0, NULL));
    CHECK(!db_training_get(db, id, &t, NULL) && t.step == 0 && t.skipped == 0 && t.best_step == -1 &&
          n_metrics(id) == 0);
    shut();
}

TEST(pause_resume_cancel) {
    char id[DB_ID], pic[DB_ID];
    db_training t;
    CHECK(open_store() && add_training(DB_QUEUED, id) && !add_job(db, NULL, pic));
    people p = ask(db_training_pause_async, id);
    CHECK(p.called && !p.status && p.flag && state_of(id) == DB_PAUSED && !claim(id));
    p = ask(db_training_resume_async, id);
    CHECK(!p.status && p.flag && state_of(id) == DB_VALIDATING); /* it never ran: the data set is looked at again */
    CHECK(!db_training_validated(db, id, NULL, NULL));
    int64_t e = claim(id);
    p = ask(db_training_pause_async, id);
    CHECK(!p.status && !p.flag && state_of(id) == DB_RUNNING);
    CHECK(!db_training_get(db, id, &t, NULL) && t.pause_requested);
    p = ask(db_training_resume_async, id); /* taken back before it was made */
    CHECK(!p.status && !p.flag && !db_training_get(db, id, &t, NULL) && !t.pause_requested);
    ask(db_training_pause_async, id);
    CHECK(!db_training_release(db, id, e, DB_PAUSED, NULL) && state_of(id) == DB_PAUSED);
    CHECK(!db_training_get(db, id, &t, NULL) && !t.pause_requested);
    p = ask(db_training_resume_async, id);
    CHECK(p.flag && state_of(id) == DB_QUEUED);
    (void)claim(id);
    ask(db_training_pause_async, id);
    CHECK(reopen() && state_of(id) == DB_PAUSED); /* a crash before the pause was made */
    ask(db_training_resume_async, id);
    e = claim(id);
    bool cancelled = false;
    CHECK(!db_job_cancel(db, id, "enough", NULL, &cancelled, NULL) && cancelled && state_of(id) == DB_RUNNING);
    CHECK(db_job_delete(db, id, NULL) == DR_CONFLICT);
    CHECK(!db_training_release(db, id, e, DB_QUEUED, NULL) && state_of(id) == DB_CANCELLED);
    CHECK(events_of(id, "end", "cancelled") == 1);
    p = ask(db_training_pause_async, id);
    CHECK(p.status == DR_CONFLICT && !strcmp(p.what, "not_pausable"));
    p = ask(db_training_resume_async, id);
    CHECK(p.status == DR_CONFLICT && !strcmp(p.what, "not_resumable"));
    p = ask(db_training_pause_async, pic); /* a picture is no training */
    CHECK(p.status == DR_CONFLICT && !strcmp(p.what, "not_pausable"));
    CHECK(add_training(DB_QUEUED, id));
    ask(db_training_pause_async, id);
    CHECK(!db_job_cancel(db, id, NULL, NULL, &cancelled, NULL) && cancelled && state_of(id) == DB_CANCELLED);
    shut();
}

TEST(pictures_and_trainings_queue_on_their_own) {
    char a[DB_ID], b[DB_ID];
    db_job j = {0};
    db_job_page page = {0};
    CHECK(open_store() && add_training(DB_QUEUED, a) && !add_job(db, NULL, b));
    CHECK(!db_job_get(db, a, &j, NULL) && j.queue_position == 1);
    db_job_clear(&j);
    CHECK(!db_job_get(db, b, &j, NULL) && j.queue_position == 1);
    db_job_clear(&j);
    CHECK(
        !db_job_list(db, &(db_job_filter){.type = "train", .states = 1u << DB_QUEUED | 1u << DB_PAUSED}, &page, NULL));
    CHECK(page.n == 1 && !strcmp(page.jobs[0].id, a) && page.jobs[0].queue_position == 1);
    db_job_page_clear(&page);
    ask(db_training_pause_async, a);
    CHECK(!db_job_list(db, &(db_job_filter){.states = 1u << DB_PAUSED | 1u << DB_GATED}, &page, NULL) && page.n == 1);
    db_job_page_clear(&page);
    shut();
}
