/* jobs.c - the writes that move a job: create, claim, finish, requeue, cancel, delete.
 *
 * Each is a request for the writer's thread; the asynchronous forms are the same request on the heap with copies of all
 * texts. The order of the queue is one number, `rank`: creation time plus class x class_age_ms minus priority/100 of
 * that, so that ageing costs nothing: a batch job older than class_age_ms stands before a new interactive one. */
#include "db/jobs.h"
#include "core/base/alloc.h"
#include "db/compare.h"
#include "db/internal.h"
#include <stdio.h>
#include <string.h>

/* --- create
 * -------------------------------------------------------------------------------------------------------------- */

typedef struct create_req {
    db_req base;
    db_job in;
    int64_t queue_max;
    char *idem_key, *idem_hash;
    db_picture *pictures;
    size_t n_pictures;
    db_job job; /* out */
    bool replayed;
    db_job_done done;
    void *arg;
} create_req;

/* NOT_FOUND with an empty `what`: the key is free. */
static dr_status idem_find(db_conn *c, const char *key, const char *hash, char ret_id[DB_ID], dr_error *err) {
    char old_hash[130] = "", id[DB_ID] = "";
    db_stmt q = db_sql(c, "SELECT hash, job_id FROM idempotency WHERE key = ?1 AND expires_at > " DB_NOW, err);
    db_bind_text(&q, 1, key);
    bool found = db_row(&q);
    if (found) {
        db_text(&q, 0, old_hash, sizeof old_hash);
        db_text(&q, 1, id, sizeof id);
    }
    dr_status s = db_end(&q);
    if (s) return s;
    if (!found) return DR_NOT_FOUND;
    if (hash && strcmp(hash, old_hash) != 0)
        return dr_fail_as(err, DR_CONFLICT, "idempotency_key_reused",
                          "this Idempotency-Key belongs to another request of the last day");
    memcpy(ret_id, id, sizeof id);
    return DR_OK;
}

static dr_status check_queue(db_conn *c, int64_t queue_max, dr_error *err) {
    int64_t n = 0;
    db_stmt q = db_sql(c, "SELECT count(*) FROM jobs WHERE state = 'queued'", err);
    if (db_row(&q)) n = db_i64(&q, 0);
    dr_status s = db_end(&q);
    if (s || n < queue_max) return s;
    s = dr_fail_limit(err, "queue_full", "queue_max", queue_max, n, "the queue is full (%lld jobs)", (long long)n);
    (void)s; /* the words and numbers of a limit, but the caller is to come again: BUSY */
    if (err) err->code = DR_BUSY;
    return DR_BUSY;
}

static dr_status check_id_free(db_conn *c, const char *id, dr_error *err) {
    db_stmt q = db_sql(c,
                       "SELECT 1 FROM jobs WHERE id = ?1"
                       " UNION ALL SELECT 1 FROM tombstones WHERE job_id = ?1 AND expires_at > " DB_NOW,
                       err);
    db_bind_text(&q, 1, id);
    bool taken = db_row(&q);
    dr_status s = db_end(&q);
    if (!s && taken) s = dr_fail_as(err, DR_CONFLICT, "job_exists", "the id %s is taken", id);
    return s;
}

static dr_status insert_job(db_store *db, db_conn *c, const db_job *j, dr_error *err) {
    int64_t age = db_opts(db)->class_age_ms;
    dr_status s = db_check_object(c, j->params_json, err);
    if (!s) s = db_check_object(c, j->labels_json, err);
    if (s) return s;
    db_stmt q =
        db_sql(c,
               "INSERT INTO jobs (id, type, state, class, priority, rank, deadline, created_at, model_name,"
               " model_version, bytes) VALUES (?1, ?2, ?10, ?3, ?4, " DB_NOW " + ?5, ?6, " DB_NOW ", ?7, ?8, ?9)",
               err);
    db_bind_text(&q, 1, j->id);
    db_bind_text(&q, 2, j->type);
    db_bind_i64(&q, 3, j->class_);
    db_bind_i64(&q, 4, j->priority);
    db_bind_i64(&q, 5, (int64_t)j->class_ * age - j->priority * age / 100);
    db_bind_i64(&q, 6, j->deadline_ms);
    db_bind_text(&q, 7, j->model.name);
    db_bind_i64(&q, 8, j->model.version);
    db_bind_i64(&q, 9, j->input.bytes);
    db_bind_text(&q, 10, db_state_name(j->state == DB_VALIDATING ? DB_VALIDATING : DB_QUEUED));
    if ((s = db_run(&q))) return s;
    q = db_sql(c,
               "INSERT INTO job_details (job_id, request_id, traceparent, model_sha256, in_format, in_width, in_height,"
               " in_bit_depth, in_channels, in_bytes, in_sha256, params, labels)"
               " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
               err);
    db_bind_text(&q, 1, j->id);
    db_bind_text(&q, 2, j->request_id);
    db_bind_text(&q, 3, j->traceparent);
    db_bind_text(&q, 4, j->model.sha256);
    db_bind_text(&q, 5, j->input.format);
    db_bind_i64(&q, 6, j->input.width);
    db_bind_i64(&q, 7, j->input.height);
    db_bind_i64(&q, 8, j->input.bit_depth);
    db_bind_i64(&q, 9, j->input.channels);
    db_bind_i64(&q, 10, j->input.bytes);
    db_bind_text(&q, 11, j->input.sha256);
    db_bind_text(&q, 12, j->params_json);
    db_bind_text(&q, 13, j->labels_json);
    if ((s = db_run(&q))) return s;
    if (strcmp(j->type, "train") == 0) {
        q = db_sql(
            c, "INSERT INTO trainings (job_id, dataset) VALUES (?1, coalesce(json_extract(?2, '$.dataset'), ''))", err);
        db_bind_text(&q, 1, j->id);
        db_bind_text(&q, 2, j->params_json);
        if ((s = db_run(&q))) return s;
    }
    if (strcmp(j->labels_json, "{}") == 0) return DR_OK;
    q = db_sql(c, "INSERT INTO job_labels SELECT ?1, key, value FROM json_each(?2)", err);
    db_bind_text(&q, 1, j->id);
    db_bind_text(&q, 2, j->labels_json);
    return db_run(&q);
}

static dr_status idem_put(db_store *db, db_conn *c, const create_req *r, dr_error *err) {
    db_stmt q = db_sql(c, "INSERT OR REPLACE INTO idempotency VALUES (?1, ?2, ?3, " DB_NOW " + ?4)", err);
    db_bind_text(&q, 1, r->idem_key);
    db_bind_text(&q, 2, r->idem_hash);
    db_bind_text(&q, 3, r->in.id);
    db_bind_i64(&q, 4, db_opts(db)->idempotency_ms);
    return db_run(&q);
}

static dr_status create_run(db_store *db, db_conn *c, db_req *base, dr_error *err) {
    create_req *r = (create_req *)base;
    db_job_clear(&r->job);
    r->replayed = false;
    dr_status s;
    if (r->idem_key) {
        char id[DB_ID];
        s = idem_find(c, r->idem_key, r->idem_hash, id, err);
        if (s == DR_OK) {
            r->replayed = true;
            return db_job_load(c, id, &r->job, err);
        }
        if (s != DR_NOT_FOUND) return s;
    }
    if (r->queue_max > 0 && (s = check_queue(c, r->queue_max, err))) return s;
    if ((s = check_id_free(c, r->in.id, err))) return s;
    if ((s = insert_job(db, c, &r->in, err))) return s;
    if ((s = db_compare_hold(c, r->in.id, r->pictures, r->n_pictures, err))) return s;
    if (r->idem_key && (s = idem_put(db, c, r, err))) return s;
    return db_job_load(c, r->in.id, &r->job, err);
}

static void create_free(create_req *r) {
    db_job_clear(&r->in);
    db_job_clear(&r->job);
    dr_free(r->idem_key);
    dr_free(r->idem_hash);
    dr_free(r->pictures);
}

static dr_status create_fill(create_req *r, const db_job_new *in, dr_error *err) {
    r->base.run = create_run;
    r->queue_max = in->queue_max;
    if (in->idem_key && (!in->idem_hash || !*in->idem_key || strlen(in->idem_key) > 255))
        return dr_fail_as(err, DR_INVALID, "bad_idempotency_key", "an Idempotency-Key has 1 to 255 characters");
    if (in->job->id[0] && !db_id_valid("job_", in->job->id))
        return dr_fail_as(err, DR_INVALID, "bad_job_id", "'%.40s' is no job id", in->job->id);
    dr_status s = db_job_dup(in->job, &r->in, err);
    if (s) return s;
    if (!r->in.id[0]) db_id_new("job_", r->in.id);
    if (in->n_pictures) {
        if (!(r->pictures = dr_calloc(in->n_pictures, sizeof *r->pictures)))
            return dr_fail(err, DR_NOMEM, "no memory for a request");
        memcpy(r->pictures, in->pictures, in->n_pictures * sizeof *r->pictures);
        r->n_pictures = in->n_pictures;
    }
    if (in->idem_key) {
        r->idem_key = dr_strdup(in->idem_key);
        r->idem_hash = dr_strdup(in->idem_hash);
        if (!r->idem_key || !r->idem_hash) return dr_fail(err, DR_NOMEM, "no memory for a request");
    }
    return DR_OK;
}

dr_status db_job_create(db_store *db, const db_job_new *in, db_job *ret_job, bool *ret_replayed, dr_error *err) {
    create_req r = {0};
    dr_status s = create_fill(&r, in, err);
    if (!s) s = db_call(db, &r.base, err);
    if (!s) {
        *ret_job = r.job;
        r.job = (db_job){0};
        if (ret_replayed) *ret_replayed = r.replayed;
    }
    create_free(&r);
    return s;
}

static void create_done(db_req *base) {
    create_req *r = (create_req *)base;
    r->done(r->arg, r->base.status, r->base.status ? NULL : &r->job, r->replayed, &r->base.err);
    create_free(r);
    dr_free(r);
}

void db_job_create_async(db_store *db, const db_job_new *in, db_job_done done, void *arg) {
    dr_error err = {0};
    create_req *r = dr_calloc(1, sizeof *r);
    dr_status s = DR_NOMEM;
    if (!r) dr_fail(&err, s, "no memory for a request");
    if (!r || (s = create_fill(r, in, &err))) {
        if (r) create_free(r);
        dr_free(r);
        done(arg, s, NULL, false, &err);
        return;
    }
    r->base.done = create_done;
    r->done = done;
    r->arg = arg;
    db_submit(db, &r->base);
}

dr_status db_idem_lookup(db_store *db, const char *idem_key, const char *idem_hash, char *ret_id, dr_error *err) {
    db_conn *c;
    char id[DB_ID];
    dr_status s = db_reader_take(db, &c, err);
    if (s) return s;
    s = idem_find(c, idem_key, idem_hash, id, err);
    if (!s) {
        db_stmt q = db_sql(c, "SELECT 1 FROM jobs WHERE id = ?1", err);
        db_bind_text(&q, 1, id);
        bool there = db_row(&q);
        s = db_end(&q);
        if (!s && !there) s = dr_fail_as(err, DR_NOT_FOUND, "job_gone", "job %s was erased", id);
    }
    db_reader_give(db, c);
    if (!s) memcpy(ret_id, id, sizeof id);
    return s;
}

/* --- claim, finish, requeue
 * ------------------------------------------------------------------------------------------------ */

typedef struct claim_req {
    db_req base;
    const db_claim *in;
    db_job job;
} claim_req;

static dr_status claim_run(db_store *db, db_conn *c, db_req *base, dr_error *err) {
    claim_req *r = (claim_req *)base;
    char id[DB_ID] = "";
    db_job_clear(&r->job);
    db_stmt q = db_sql(c,
                       "UPDATE jobs SET state = 'running', attempt = attempt + 1, epoch = epoch + 1, boot = ?1,"
                       " lease_until = " DB_NOW
                       " + ?2, started_at = iif(type = 'train' AND started_at > 0, started_at, " DB_NOW "),"
                       " progress = iif(type = 'train', progress, 0), revision = revision + 1"
                       " WHERE id = (SELECT id FROM jobs WHERE state = 'queued' AND (?3 IS NULL OR type = ?3)"
                       " AND not_before <= " DB_NOW " AND (deadline = 0 OR deadline > " DB_NOW ")"
                       " ORDER BY rank, id LIMIT 1) RETURNING id",
                       err);
    db_bind_text(&q, 1, db_boot(db));
    db_bind_i64(&q, 2, r->in->lease_ms > 0 ? r->in->lease_ms : 60000);
    db_bind_text(&q, 3, r->in->type);
    if (db_row(&q)) db_text(&q, 0, id, sizeof id);
    dr_status s = db_run(&q);
    if (s) return s;
    if (!id[0]) return dr_fail_as(err, DR_NOT_FOUND, "queue_empty", "no job is waiting");
    return db_job_load(c, id, &r->job, err);
}

dr_status db_job_claim(db_store *db, const db_claim *in, db_job *ret_job, dr_error *err) {
    claim_req r = {.base = {.run = claim_run}, .in = in};
    dr_status s = db_call(db, &r.base, err);
    if (s)
        db_job_clear(&r.job);
    else
        *ret_job = r.job;
    return s;
}

/* Why did an update that names an epoch change nothing? */
static dr_status stale(db_conn *c, const char *id, dr_error *err) {
    db_job j = {0};
    dr_status s = db_job_load(c, id, &j, err);
    if (s) return s;
    s = dr_fail_as(err, DR_CONFLICT, "stale_epoch", "job %s is %s in epoch %lld: this claim is over", id,
                   db_state_name(j.state), (long long)j.epoch);
    db_job_clear(&j);
    return s;
}

typedef struct finish_req {
    db_req base;
    const char *id;
    int64_t epoch;
    const db_finish *in;
    bool want_job;
    db_job job;
} finish_req;

static dr_status finish_run(db_store *db, db_conn *c, db_req *base, dr_error *err) {
    (void)db;
    finish_req *r = (finish_req *)base;
    const db_finish *in = r->in;
    bool good = in->state == DB_SUCCEEDED;
    dr_status s;
    db_job_clear(&r->job);
    if (!good && in->problem_json && (s = db_check_object(c, in->problem_json, err))) return s;
    db_stmt q = db_sql(c,
                       "UPDATE jobs SET state = ?3, finished_at = " DB_NOW ", progress = CASE ?3 WHEN 'succeeded'"
                       " THEN 1 ELSE progress END, lease_until = 0, revision = revision + 1, bytes = bytes + ?4,"
                       " model_version = iif(?5 > 0, ?5, model_version)"
                       " WHERE id = ?1 AND epoch = ?2 AND state = 'running'",
                       err);
    db_bind_text(&q, 1, r->id);
    db_bind_i64(&q, 2, r->epoch);
    db_bind_text(&q, 3, db_state_name(in->state));
    db_bind_i64(&q, 4, good ? in->result_bytes + in->report_bytes : 0);
    db_bind_i64(&q, 5, in->model_version);
    if ((s = db_run(&q))) return s;
    if (db_changes(c) != 1) return stale(c, r->id, err);
    q = db_sql(c,
               "UPDATE job_details SET out_format = ?2, out_bytes = ?3, out_width = ?4, out_height = ?5,"
               " out_sha256 = ?6, ms_queue = (SELECT max(0, started_at - created_at) FROM jobs WHERE id = ?1),"
               " ms_decode = ?7, ms_infer = ?8, ms_encode = ?9, problem = ?10,"
               " model_sha256 = coalesce(?11, model_sha256) WHERE job_id = ?1",
               err);
    db_bind_text(&q, 1, r->id);
    if (good) {
        db_bind_text(&q, 2, in->result_format);
        db_bind_i64(&q, 3, in->result_bytes);
        db_bind_i64(&q, 4, in->result_width);
        db_bind_i64(&q, 5, in->result_height);
        db_bind_text(&q, 6, in->result_sha256);
    }
    db_bind_f64(&q, 7, in->timings_ms[DB_T_DECODE]);
    db_bind_f64(&q, 8, in->timings_ms[DB_T_INFER]);
    db_bind_f64(&q, 9, in->timings_ms[DB_T_ENCODE]);
    db_bind_text(&q, 10, good ? NULL : in->problem_json);
    db_bind_text(&q, 11, in->model_version ? in->model_sha256 : NULL);
    if ((s = db_run(&q))) return s;
    if (good && in->report_bytes && (s = db_report_put(c, r->id, in->report_bytes, in->report_sha256, err))) return s;
    return r->want_job ? db_job_load(c, r->id, &r->job, err) : DR_OK;
}

dr_status db_job_finish(db_store *db, const char *id, int64_t epoch, const db_finish *in, db_job *ret_job,
                        dr_error *err) {
    if (!db_state_final(in->state))
        return dr_fail(err, DR_INVALID, "a job does not end as %s", db_state_name(in->state));
    if (in->state == DB_SUCCEEDED && (!in->result_format || !in->result_sha256 || strlen(in->result_sha256) != 64))
        return dr_fail(err, DR_INVALID, "a job that succeeded has a result with a sha-256");
    if (in->report_bytes && (!in->report_sha256 || strlen(in->report_sha256) != 64))
        return dr_fail(err, DR_INVALID, "a report has a sha-256");
    finish_req r = {.base = {.run = finish_run}, .id = id, .epoch = epoch, .in = in, .want_job = ret_job != NULL};
    dr_status s = db_call(db, &r.base, err);
    if (s)
        db_job_clear(&r.job);
    else if (ret_job)
        *ret_job = r.job;
    return s;
}

typedef struct requeue_req {
    db_req base;
    const char *id;
    int64_t epoch;
} requeue_req;

static dr_status requeue_run(db_store *db, db_conn *c, db_req *base, dr_error *err) {
    (void)db;
    requeue_req *r = (requeue_req *)base;
    /* A cancel that the worker did not get to see takes effect now. */
    db_stmt q = db_sql(c,
                       "UPDATE jobs SET state = iif(cancel_requested, 'cancelled', 'queued'),"
                       " finished_at = iif(cancel_requested, " DB_NOW ", 0), attempt = attempt - 1, boot = NULL,"
                       " lease_until = 0, started_at = iif(cancel_requested, started_at, 0), progress = 0,"
                       " revision = revision + 1 WHERE id = ?1 AND epoch = ?2 AND state = 'running'",
                       err);
    db_bind_text(&q, 1, r->id);
    db_bind_i64(&q, 2, r->epoch);
    dr_status s = db_run(&q);
    if (!s && db_changes(c) != 1) s = stale(c, r->id, err);
    return s;
}

dr_status db_job_requeue(db_store *db, const char *id, int64_t epoch, dr_error *err) {
    requeue_req r = {.base = {.run = requeue_run}, .id = id, .epoch = epoch};
    return db_call(db, &r.base, err);
}

dr_status db_jobs_largest(db_store *db, int64_t *ret_pixels, dr_error *err) {
    db_conn *c;
    int64_t px = 0;
    dr_status s = db_reader_take(db, &c, err);
    if (s) return s;
    db_stmt q =
        db_sql(c,
               "SELECT coalesce(max(d.in_width * d.in_height), 0) FROM jobs j JOIN job_details d ON d.job_id = j.id"
               " WHERE j.state IN ('queued', 'running') AND j.type <> 'train'",
               err);
    if (db_row(&q)) px = db_i64(&q, 0);
    s = db_end(&q);
    db_reader_give(db, c);
    if (!s) *ret_pixels = px;
    return s;
}

/* --- cancel, delete
 * -------------------------------------------------------------------------------------------------------- */

/* Nobody works on it, so that a word is enough. */
#define WAITING "('queued', 'validating', 'paused')"

typedef struct person_req {
    db_req base;
    char id[DB_ID + 8];
    char *reason; /* cancel only; owned */
    db_job job;
    bool flag;
    db_job_done done;
    void *arg;
} person_req;

static dr_status cancel_run(db_store *db, db_conn *c, db_req *base, dr_error *err) {
    (void)db;
    person_req *r = (person_req *)base;
    db_job_clear(&r->job);
    r->flag = false;
    db_stmt q = db_sql(c,
                       "UPDATE jobs SET cancel_requested = 1, revision = revision + 1,"
                       " finished_at = iif(state IN " WAITING ", " DB_NOW ", 0),"
                       " state = iif(state IN " WAITING ", 'cancelled', state)"
                       " WHERE id = ?1 AND (state IN " WAITING " OR (state IN " DB_HELD " AND cancel_requested = 0))",
                       err);
    db_bind_text(&q, 1, r->id);
    dr_status s = db_run(&q);
    if (s) return s;
    if (db_changes(c) == 1 && r->reason) {
        q = db_sql(c,
                   "INSERT INTO events SELECT ?1, coalesce(max(seq), 0) + 1, " DB_NOW
                   ", 'log', json_object('cancel_reason', ?2) FROM events WHERE job_id = ?1",
                   err);
        db_bind_text(&q, 1, r->id);
        db_bind_text(&q, 2, r->reason);
        if ((s = db_run(&q))) return s;
    }
    s = db_job_load(c, r->id, &r->job, err);
    if (!s) r->flag = r->job.state == DB_CANCELLED || (db_state_held(r->job.state) && r->job.cancel_requested);
    return s;
}

static dr_status delete_run(db_store *db, db_conn *c, db_req *base, dr_error *err) {
    person_req *r = (person_req *)base;
    db_stmt q = db_sql(c, "DELETE FROM jobs WHERE id = ?1 AND state NOT IN " DB_HELD, err);
    db_bind_text(&q, 1, r->id);
    dr_status s = db_run(&q);
    if (s) return s;
    if (db_changes(c) == 0) {
        db_job j = {0};
        if ((s = db_job_load(c, r->id, &j, err))) return s;
        db_job_clear(&j);
        return dr_fail_as(err, DR_CONFLICT, "job_running", "job %s is running: cancel it first", r->id);
    }
    q = db_sql(c, "INSERT OR REPLACE INTO tombstones VALUES (?1, " DB_NOW " + ?2)", err);
    db_bind_text(&q, 1, r->id);
    db_bind_i64(&q, 2, db_opts(db)->tombstone_ms);
    return db_run(&q);
}

static void person_free(person_req *r) {
    db_job_clear(&r->job);
    dr_free(r->reason);
}

static dr_status person_fill(person_req *r, dr_status (*run)(db_store *, db_conn *, db_req *, dr_error *),
                             const char *id, const char *reason, dr_error *err) {
    r->base.run = run;
    snprintf(r->id, sizeof r->id, "%s", id);
    if (reason && !(r->reason = dr_strdup(reason))) return dr_fail(err, DR_NOMEM, "no memory for a request");
    return DR_OK;
}

dr_status db_job_cancel(db_store *db, const char *id, const char *reason, db_job *ret_job, bool *ret_cancelled,
                        dr_error *err) {
    person_req r = {0};
    dr_status s = person_fill(&r, cancel_run, id, reason, err);
    if (!s) s = db_call(db, &r.base, err);
    if (!s && ret_job) {
        *ret_job = r.job;
        r.job = (db_job){0};
    }
    if (!s && ret_cancelled) *ret_cancelled = r.flag;
    person_free(&r);
    return s;
}

dr_status db_job_delete(db_store *db, const char *id, dr_error *err) {
    person_req r = {0};
    dr_status s = person_fill(&r, delete_run, id, NULL, err);
    if (!s) s = db_call(db, &r.base, err);
    person_free(&r);
    return s;
}

static void person_done(db_req *base) {
    person_req *r = (person_req *)base;
    r->done(r->arg, r->base.status, r->base.status || !r->job.id[0] ? NULL : &r->job, r->flag, &r->base.err);
    person_free(r);
    dr_free(r);
}

static void person_async(db_store *db, dr_status (*run)(db_store *, db_conn *, db_req *, dr_error *), const char *id,
                         const char *reason, db_job_done done, void *arg) {
    dr_error err = {0};
    person_req *r = dr_calloc(1, sizeof *r);
    dr_status s = DR_NOMEM;
    if (!r) dr_fail(&err, s, "no memory for a request");
    if (!r || (s = person_fill(r, run, id, reason, &err))) {
        dr_free(r);
        done(arg, s, NULL, false, &err);
        return;
    }
    r->base.done = person_done;
    r->done = done;
    r->arg = arg;
    db_submit(db, &r->base);
}

void db_job_cancel_async(db_store *db, const char *id, const char *reason, db_job_done done, void *arg) {
    person_async(db, cancel_run, id, reason, done, arg);
}

void db_job_delete_async(db_store *db, const char *id, db_job_done done, void *arg) {
    person_async(db, delete_run, id, NULL, done, arg);
}
