/* training.c - see training.h. One request type for all writes: which of its fields count depends on `run`. */
#include "db/training.h"
#include "core/base/alloc.h"
#include "db/internal.h"
#include <stdio.h>
#include <string.h>

typedef struct train_req {
    db_req base;
    char id[DB_ID];
    int64_t epoch, step, skipped;
    const db_training_note *note;
    const db_checkpoint *checkpoint;
    double value;
    bool flag;
    db_state state;
    const char *problem;
    db_job job; /* people's: out */
    db_job_done done;
    void *arg;
} train_req;

/* Was the row this claim's? The UPDATE before changed none. */
static dr_status not_mine(db_conn *c, const train_req *r, dr_error *err) {
    db_job j = {0};
    dr_status s = db_job_load(c, r->id, &j, err);
    if (s) return s;
    s = dr_fail_as(err, DR_CONFLICT, "stale_epoch", "job %s is %s in epoch %lld: this claim is over", r->id,
                   db_state_name(j.state), (long long)j.epoch);
    db_job_clear(&j);
    return s;
}

static dr_status call(db_store *db, train_req *r, const char *id, int64_t epoch,
                      dr_status (*run)(db_store *, db_conn *, db_req *, dr_error *), dr_error *err) {
    snprintf(r->id, sizeof r->id, "%s", id);
    r->epoch = epoch;
    r->base.run = run;
    return db_call(db, &r->base, err);
}

/* Fence of every write of the trainer: touches the row of a held job of this epoch. */
static dr_status touch(db_conn *c, const train_req *r, dr_error *err) {
    db_stmt q = db_sql(c,
                       "UPDATE jobs SET lease_until = " DB_NOW " + 120000, revision = revision + 1"
                       " WHERE id = ?1 AND epoch = ?2 AND state IN " DB_HELD,
                       err);
    db_bind_text(&q, 1, r->id);
    db_bind_i64(&q, 2, r->epoch);
    dr_status s = db_run(&q);
    return s ? s : db_changes(c) == 1 ? DR_OK : not_mine(c, r, err);
}

static dr_status add_event(db_conn *c, const char *id, const char *type, const char *data, dr_error *err) {
    db_stmt q = db_sql(
        c, "INSERT INTO events SELECT ?1, coalesce(max(seq), 0) + 1, " DB_NOW ", ?2, ?3 FROM events WHERE job_id = ?1",
        err);
    db_bind_text(&q, 1, id);
    db_bind_text(&q, 2, type);
    db_bind_text(&q, 3, data);
    return db_run(&q);
}

/* --- the trainer's writes --- */

static dr_status progress_run(db_store *db, db_conn *c, db_req *base, dr_error *err) {
    (void)db;
    train_req *r = (train_req *)base;
    const db_training_note *n = r->note;
    dr_status s = touch(c, r, err);
    if (!s && n->metrics_json) s = db_check_object(c, n->metrics_json, err);
    if (s) return s;
    db_stmt q = db_sql(c, "UPDATE jobs SET progress = min(1.0, ?2) WHERE id = ?1", err);
    db_bind_text(&q, 1, r->id);
    db_bind_f64(&q, 2, n->steps > 0 ? (double)n->step / (double)n->steps : 0);
    if ((s = db_run(&q))) return s;
    q = db_sql(c,
               "UPDATE trainings SET step = ?2, steps = ?3, seconds = ?4, seconds_per_step = ?5, skipped = ?6"
               " WHERE job_id = ?1",
               err);
    db_bind_text(&q, 1, r->id);
    db_bind_i64(&q, 2, n->step);
    db_bind_i64(&q, 3, n->steps);
    db_bind_f64(&q, 4, n->seconds);
    db_bind_f64(&q, 5, n->seconds_per_step);
    db_bind_i64(&q, 6, n->skipped);
    if ((s = db_run(&q)) || !n->metrics_json) return s;
    q = db_sql(c, "INSERT OR REPLACE INTO train_metrics VALUES (?1, ?2, " DB_NOW ", ?3)", err);
    db_bind_text(&q, 1, r->id);
    db_bind_i64(&q, 2, n->step);
    db_bind_text(&q, 3, n->metrics_json);
    if ((s = db_run(&q))) return s;
    return add_event(c, r->id, "metric", n->metrics_json, err);
}

dr_status db_training_progress(db_store *db, const char *id, int64_t epoch, const db_training_note *in, dr_error *err) {
    train_req r = {.note = in};
    return call(db, &r, id, epoch, progress_run, err);
}

static dr_status move_run(db_store *db, db_conn *c, db_req *base, dr_error *err) {
    (void)db;
    train_req *r = (train_req *)base;
    dr_status s = touch(c, r, err);
    if (s) return s;
    db_stmt q = db_sql(c, "UPDATE jobs SET state = ?2 WHERE id = ?1 AND state <> ?2", err);
    db_bind_text(&q, 1, r->id);
    db_bind_text(&q, 2, db_state_name(r->state));
    return db_run(&q);
}

dr_status db_training_move(db_store *db, const char *id, int64_t epoch, db_state to, dr_error *err) {
    if (!db_state_held(to)) return dr_fail(err, DR_INVALID, "a trainer does not hold a job as %s", db_state_name(to));
    train_req r = {.state = to};
    return call(db, &r, id, epoch, move_run, err);
}

static dr_status checkpoint_run(db_store *db, db_conn *c, db_req *base, dr_error *err) {
    (void)db;
    train_req *r = (train_req *)base;
    const db_checkpoint *k = r->checkpoint;
    char data[96];
    dr_status s = touch(c, r, err);
    if (s) return s;
    db_stmt q = db_sql(c,
                       "INSERT INTO train_checkpoints VALUES (?1, ?2, " DB_NOW ", ?3, ?4, NULL)"
                       " ON CONFLICT DO UPDATE SET at = excluded.at, bytes = excluded.bytes",
                       err);
    db_bind_text(&q, 1, r->id);
    db_bind_i64(&q, 2, k->step);
    db_bind_i64(&q, 3, k->bytes);
    db_bind_f64(&q, 4, k->seconds);
    if ((s = db_run(&q))) return s;
    q = db_sql(c,
               "UPDATE jobs SET attempt = 1, bytes = (SELECT sum(bytes) FROM train_checkpoints WHERE job_id = ?1)"
               " WHERE id = ?1",
               err);
    db_bind_text(&q, 1, r->id);
    if ((s = db_run(&q))) return s;
    snprintf(data, sizeof data, "{\"step\":%lld,\"bytes\":%lld}", (long long)k->step, (long long)k->bytes);
    return add_event(c, r->id, "checkpoint", data, err);
}

dr_status db_training_checkpoint(db_store *db, const char *id, int64_t epoch, const db_checkpoint *in, dr_error *err) {
    train_req r = {.checkpoint = in};
    return call(db, &r, id, epoch, checkpoint_run, err);
}

static dr_status drop_run(db_store *db, db_conn *c, db_req *base, dr_error *err) {
    (void)db;
    train_req *r = (train_req *)base;
    dr_status s = touch(c, r, err);
    if (s) return s;
    db_stmt q = db_sql(c, "DELETE FROM train_checkpoints WHERE job_id = ?1 AND step = ?2", err);
    db_bind_text(&q, 1, r->id);
    db_bind_i64(&q, 2, r->step);
    return db_run(&q);
}

dr_status db_training_checkpoint_drop(db_store *db, const char *id, int64_t epoch, int64_t step, dr_error *err) {
    train_req r = {.step = step};
    return call(db, &r, id, epoch, drop_run, err);
}

static dr_status score_run(db_store *db, db_conn *c, db_req *base, dr_error *err) {
    (void)db;
    train_req *r = (train_req *)base;
    char data[128];
    dr_status s = touch(c, r, err);
    if (s) return s;
    db_stmt q = db_sql(c, "UPDATE train_checkpoints SET score = ?3 WHERE job_id = ?1 AND step = ?2", err);
    db_bind_text(&q, 1, r->id);
    db_bind_i64(&q, 2, r->step);
    db_bind_f64(&q, 3, r->value);
    if ((s = db_run(&q))) return s;
    if (r->flag) {
        q = db_sql(c, "UPDATE trainings SET best_step = ?2, best_score = ?3 WHERE job_id = ?1", err);
        db_bind_text(&q, 1, r->id);
        db_bind_i64(&q, 2, r->step);
        db_bind_f64(&q, 3, r->value);
        if ((s = db_run(&q))) return s;
    }
    snprintf(data, sizeof data, "{\"step\":%lld,\"psnr_y\":%.6f,\"best\":%s}", (long long)r->step, r->value,
             r->flag ? "true" : "false");
    return add_event(c, r->id, "progress", data, err);
}

dr_status db_training_score(db_store *db, const char *id, int64_t epoch, int64_t step, double score, bool better,
                            dr_error *err) {
    train_req r = {.step = step, .value = score, .flag = better};
    return call(db, &r, id, epoch, score_run, err);
}

static dr_status rewind_run(db_store *db, db_conn *c, db_req *base, dr_error *err) {
    (void)db;
    train_req *r = (train_req *)base;
    dr_status s = touch(c, r, err);
    if (s) return s;
    db_stmt q = db_sql(c, "DELETE FROM train_metrics WHERE job_id = ?1 AND step > ?2", err);
    db_bind_text(&q, 1, r->id);
    db_bind_i64(&q, 2, r->step);
    if ((s = db_run(&q))) return s;
    q = db_sql(c, "DELETE FROM train_checkpoints WHERE job_id = ?1 AND step > ?2", err);
    db_bind_text(&q, 1, r->id);
    db_bind_i64(&q, 2, r->step);
    if ((s = db_run(&q))) return s;
    q = db_sql(c,
               "UPDATE trainings SET step = ?2, seconds = ?3, skipped = ?4,"
               " (best_step, best_score) = (SELECT coalesce(max(step), -1), coalesce(score, 0) FROM ("
               "SELECT step, score FROM train_checkpoints WHERE job_id = ?1 AND score IS NOT NULL"
               " ORDER BY score DESC, step LIMIT 1)) WHERE job_id = ?1",
               err);
    db_bind_text(&q, 1, r->id);
    db_bind_i64(&q, 2, r->step);
    db_bind_f64(&q, 3, r->value);
    db_bind_i64(&q, 4, r->skipped);
    return db_run(&q);
}

dr_status db_training_rewind(db_store *db, const char *id, int64_t epoch, int64_t step, int64_t skipped, double seconds,
                             dr_error *err) {
    train_req r = {.step = step, .skipped = skipped, .value = seconds};
    return call(db, &r, id, epoch, rewind_run, err);
}

static dr_status made_run(db_store *db, db_conn *c, db_req *base, dr_error *err) {
    (void)db;
    train_req *r = (train_req *)base;
    dr_status s = touch(c, r, err);
    if (s) return s;
    db_stmt q = db_sql(c, "UPDATE trainings SET version = ?2 WHERE job_id = ?1", err);
    db_bind_text(&q, 1, r->id);
    db_bind_i64(&q, 2, r->step);
    return db_run(&q);
}

dr_status db_training_made(db_store *db, const char *id, int64_t epoch, int64_t version, dr_error *err) {
    train_req r = {.step = version};
    return call(db, &r, id, epoch, made_run, err);
}

static dr_status release_run(db_store *db, db_conn *c, db_req *base, dr_error *err) {
    (void)db;
    train_req *r = (train_req *)base;
    db_stmt q = db_sql(c,
                       "UPDATE jobs SET state = iif(cancel_requested, 'cancelled', ?3),"
                       " finished_at = iif(cancel_requested, " DB_NOW ", 0), attempt = attempt - 1, boot = NULL,"
                       " lease_until = 0, revision = revision + 1"
                       " WHERE id = ?1 AND epoch = ?2 AND state IN " DB_HELD,
                       err);
    db_bind_text(&q, 1, r->id);
    db_bind_i64(&q, 2, r->epoch);
    db_bind_text(&q, 3, db_state_name(r->state));
    dr_status s = db_run(&q);
    if (s) return s;
    if (db_changes(c) != 1) return not_mine(c, r, err);
    if (r->state != DB_PAUSED) return DR_OK;
    q = db_sql(c, "UPDATE trainings SET pause_requested = 0 WHERE job_id = ?1", err);
    db_bind_text(&q, 1, r->id);
    return db_run(&q);
}

dr_status db_training_release(db_store *db, const char *id, int64_t epoch, db_state to, dr_error *err) {
    if (to != DB_QUEUED && to != DB_PAUSED) return dr_fail(err, DR_INVALID, "a job is handed back queued or paused");
    train_req r = {.state = to};
    return call(db, &r, id, epoch, release_run, err);
}

static dr_status finish_run(db_store *db, db_conn *c, db_req *base, dr_error *err) {
    (void)db;
    train_req *r = (train_req *)base;
    dr_status s = DR_OK;
    if (r->problem && (s = db_check_object(c, r->problem, err))) return s;
    db_stmt q = db_sql(c, "UPDATE job_details SET problem = ?2 WHERE job_id = ?1", err);
    db_bind_text(&q, 1, r->id);
    db_bind_text(&q, 2, r->problem);
    if ((s = db_run(&q))) return s;
    q = db_sql(c,
               "UPDATE jobs SET state = ?3, finished_at = " DB_NOW ", lease_until = 0, revision = revision + 1,"
               " progress = iif(?3 = 'succeeded', 1, progress) WHERE id = ?1 AND epoch = ?2 AND state IN " DB_HELD,
               err);
    db_bind_text(&q, 1, r->id);
    db_bind_i64(&q, 2, r->epoch);
    db_bind_text(&q, 3, db_state_name(r->state));
    if ((s = db_run(&q))) return s;
    return db_changes(c) == 1 ? DR_OK : not_mine(c, r, err); /* the whole request is rolled back then */
}

dr_status db_training_finish(db_store *db, const char *id, int64_t epoch, db_state state, const char *problem_json,
                             dr_error *err) {
    if (!db_state_final(state)) return dr_fail(err, DR_INVALID, "a job does not end as %s", db_state_name(state));
    train_req r = {.state = state, .problem = problem_json};
    return call(db, &r, id, epoch, finish_run, err);
}

/* --- people's writes --- */

static dr_status pause_run(db_store *db, db_conn *c, db_req *base, dr_error *err) {
    (void)db;
    train_req *r = (train_req *)base;
    db_job_clear(&r->job);
    db_stmt q = db_sql(c,
                       "UPDATE jobs SET state = 'paused', revision = revision + 1 WHERE id = ?1 AND type = 'train'"
                       " AND state IN ('queued', 'validating')",
                       err);
    db_bind_text(&q, 1, r->id);
    dr_status s = db_run(&q);
    if (s) return s;
    if (!db_changes(c)) {
        q = db_sql(c,
                   "UPDATE trainings SET pause_requested = 1 WHERE job_id = ?1 AND EXISTS (SELECT 1 FROM jobs"
                   " WHERE id = ?1 AND state IN ('running', 'yielding'))",
                   err);
        db_bind_text(&q, 1, r->id);
        if ((s = db_run(&q))) return s;
    }
    int changed = db_changes(c);
    if ((s = db_job_load(c, r->id, &r->job, err))) return s;
    r->flag = r->job.state == DB_PAUSED;
    if (!changed && !r->flag)
        return dr_fail_as(err, DR_CONFLICT, "not_pausable", "a job of type %s that is %s cannot be paused", r->job.type,
                          db_state_name(r->job.state));
    return DR_OK;
}

/* A paused job whose data set was still being validated is looked at again by whoever validates. */
static dr_status resume_run(db_store *db, db_conn *c, db_req *base, dr_error *err) {
    (void)db;
    train_req *r = (train_req *)base;
    db_job_clear(&r->job);
    db_stmt q = db_sql(c,
                       "UPDATE jobs SET state = iif(started_at > 0, 'queued', 'validating'), revision = revision + 1"
                       " WHERE id = ?1 AND state = 'paused'",
                       err);
    db_bind_text(&q, 1, r->id);
    dr_status s = db_run(&q);
    if (s) return s;
    int changed = db_changes(c);
    if (!changed) {
        q = db_sql(c, "UPDATE trainings SET pause_requested = 0 WHERE job_id = ?1 AND pause_requested = 1", err);
        db_bind_text(&q, 1, r->id);
        if ((s = db_run(&q))) return s;
        changed = db_changes(c);
    }
    if ((s = db_job_load(c, r->id, &r->job, err))) return s;
    r->flag = r->job.state == DB_QUEUED || r->job.state == DB_VALIDATING;
    if (!changed && !r->flag && !(db_state_held(r->job.state) && !strcmp(r->job.type, "train")))
        return dr_fail_as(err, DR_CONFLICT, "not_resumable", "a job of type %s that is %s cannot be resumed",
                          r->job.type, db_state_name(r->job.state));
    return DR_OK;
}

static void people_done(db_req *base) {
    train_req *r = (train_req *)base;
    r->done(r->arg, r->base.status, r->base.status ? NULL : &r->job, r->flag, &r->base.err);
    db_job_clear(&r->job);
    dr_free(r);
}

static void people_async(db_store *db, const char *id, dr_status (*run)(db_store *, db_conn *, db_req *, dr_error *),
                         db_job_done done, void *arg) {
    dr_error err = {0};
    train_req *r = dr_calloc(1, sizeof *r);
    if (!r) {
        dr_status s = dr_fail(&err, DR_NOMEM, "no memory for a request");
        done(arg, s, NULL, false, &err);
        return;
    }
    snprintf(r->id, sizeof r->id, "%s", id);
    r->base.run = run;
    r->base.done = people_done;
    r->done = done;
    r->arg = arg;
    db_submit(db, &r->base);
}

void db_training_pause_async(db_store *db, const char *id, db_job_done done, void *arg) {
    people_async(db, id, pause_run, done, arg);
}
void db_training_resume_async(db_store *db, const char *id, db_job_done done, void *arg) {
    people_async(db, id, resume_run, done, arg);
}

static dr_status validated_run(db_store *db, db_conn *c, db_req *base, dr_error *err) {
    (void)db;
    train_req *r = (train_req *)base;
    dr_status s = DR_OK;
    if (r->problem && (s = db_check_object(c, r->problem, err))) return s;
    db_stmt q = db_sql(c,
                       "UPDATE jobs SET state = iif(?2 IS NULL, 'queued', 'failed'), revision = revision + 1,"
                       " finished_at = iif(?2 IS NULL, 0, " DB_NOW ") WHERE id = ?1 AND state = 'validating'",
                       err);
    db_bind_text(&q, 1, r->id);
    db_bind_text(&q, 2, r->problem);
    if ((s = db_run(&q)) || !db_changes(c) || !r->problem) return s;
    q = db_sql(c, "UPDATE job_details SET problem = ?2 WHERE job_id = ?1", err);
    db_bind_text(&q, 1, r->id);
    db_bind_text(&q, 2, r->problem);
    return db_run(&q);
}

dr_status db_training_validated(db_store *db, const char *id, const char *problem_json, dr_error *err) {
    train_req r = {.problem = problem_json};
    return call(db, &r, id, 0, validated_run, err);
}

/* --- reads --- */

dr_status db_training_get(db_store *db, const char *id, db_training *ret, dr_error *err) {
    db_conn *c;
    db_training t = {0};
    dr_status s = db_reader_take(db, &c, err);
    if (s) return s;
    db_stmt q = db_sql(c,
                       "SELECT dataset, step, steps, seconds, seconds_per_step, pause_requested, best_step, best_score,"
                       " version, skipped"
                       " FROM trainings WHERE job_id = ?1",
                       err);
    db_bind_text(&q, 1, id);
    bool found = db_row(&q);
    if (found) {
        db_text(&q, 0, t.dataset, sizeof t.dataset);
        t.step = db_i64(&q, 1);
        t.steps = db_i64(&q, 2);
        t.seconds = db_f64(&q, 3);
        t.seconds_per_step = db_f64(&q, 4);
        t.pause_requested = db_i64(&q, 5) != 0;
        t.best_step = db_i64(&q, 6);
        t.best_score = db_f64(&q, 7);
        t.version = db_i64(&q, 8);
        t.skipped = db_i64(&q, 9);
    }
    s = db_end(&q);
    if (!s && !found) s = db_job_missing(c, id, err);
    db_reader_give(db, c);
    if (!s) *ret = t;
    return s;
}

dr_status db_training_metrics(db_store *db, const char *id, int64_t step_from, int limit, db_metric_page *ret,
                              dr_error *err) {
    db_conn *c;
    db_metric_page p = {0};
    if (limit < 1 || limit > DB_METRICS_MAX) limit = DB_METRICS_MAX;
    p.rows = dr_calloc((size_t)limit, sizeof *p.rows);
    if (!p.rows) return dr_fail(err, DR_NOMEM, "no memory for %d rows", limit);
    dr_status s = db_reader_take(db, &c, err);
    if (!s) {
        db_stmt q = db_sql(c,
                           "SELECT step, at, data FROM train_metrics WHERE job_id = ?1 AND step >= ?2"
                           " ORDER BY step LIMIT ?3",
                           err);
        db_bind_text(&q, 1, id);
        db_bind_i64(&q, 2, step_from);
        db_bind_i64(&q, 3, limit);
        while (db_row(&q)) {
            db_metric *m = &p.rows[p.n++];
            m->step = db_i64(&q, 0);
            m->at_ms = db_i64(&q, 1);
            m->data_json = db_text_dup(&q, 2);
        }
        s = db_end(&q);
        db_reader_give(db, c);
    }
    if (s)
        db_metric_page_clear(&p);
    else
        *ret = p;
    return s;
}

void db_metric_page_clear(db_metric_page *p) {
    if (!p) return;
    for (size_t i = 0; i < p->n; i++) dr_free(p->rows[i].data_json);
    dr_free(p->rows);
    *p = (db_metric_page){0};
}

dr_status db_training_checkpoints(db_store *db, const char *id, db_checkpoint *ret, size_t max, size_t *ret_n,
                                  dr_error *err) {
    db_conn *c;
    size_t n = 0;
    dr_status s = db_reader_take(db, &c, err);
    if (s) return s;
    db_stmt q = db_sql(c,
                       "SELECT step, at, bytes, seconds, score IS NOT NULL, score FROM train_checkpoints"
                       " WHERE job_id = ?1 ORDER BY step DESC LIMIT ?2",
                       err);
    db_bind_text(&q, 1, id);
    db_bind_i64(&q, 2, (int64_t)max);
    while (n < max && db_row(&q)) {
        ret[n++] = (db_checkpoint){.step = db_i64(&q, 0),
                                   .at_ms = db_i64(&q, 1),
                                   .bytes = db_i64(&q, 2),
                                   .seconds = db_f64(&q, 3),
                                   .has_score = db_i64(&q, 4) != 0,
                                   .score = db_f64(&q, 5)};
    }
    s = db_end(&q);
    db_reader_give(db, c);
    if (!s) *ret_n = n;
    return s;
}
