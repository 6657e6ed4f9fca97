/* upkeep.c - what keeps the tables in order: recovery after a crash, deadlines, pruning, batched progress. */
#include "core/base/alloc.h"
#include "db/internal.h"
#include <string.h>

void db_ids_clear(db_ids *ids) {
    dr_free(ids->ids);
    *ids = (db_ids){0};
}

enum { IDS_MAX = 500 };

/* --- recovery
 * --------------------------------------------------------------------------------------------------------------- */

/* The folder is locked, so whatever is `running` belongs to a life that has ended. The attempt was counted when it was
 * claimed. */
#define BACK                                                                                                           \
    "UPDATE jobs SET state = CASE WHEN cancel_requested THEN 'cancelled' WHEN attempt >= ?1 THEN 'failed'"             \
    " WHEN EXISTS (SELECT 1 FROM trainings WHERE job_id = id AND pause_requested) THEN 'paused' ELSE 'queued' END,"    \
    " finished_at = CASE WHEN cancel_requested OR attempt >= ?1 THEN " DB_NOW " ELSE 0 END,"                           \
    " boot = NULL, lease_until = 0, progress = iif(type = 'train', progress, 0), revision = revision + 1"
static const char recover_sql[] = BACK " WHERE state IN " DB_HELD " RETURNING state, id";
/* One that was lost in this life. */
static const char reclaim_sql[] = BACK ", epoch = epoch + 1 WHERE id = ?2 AND epoch = ?3 AND state IN " DB_HELD
                                       " AND lease_until > 0 AND lease_until <= " DB_NOW " RETURNING state";

static const char crashed_problem[] =
    "{\"type\":\"/errors/crashed-repeatedly\",\"title\":\"The service ended while it worked on this job, again and "
    "again\","
    "\"status\":500,\"detail\":\"The job was started as often as is allowed and each time the service ended before the "
    "job "
    "did.\",\"code\":\"crashed_repeatedly\",\"retryable\":false,\"setting\":\"job_attempts_max\"}";

dr_status db_recover(db_conn *c, int attempts_max, db_recovered *ret, dr_error *err) {
    db_recovered n = {0};
    dr_status s = db_exec(c, "BEGIN IMMEDIATE", err);
    if (s) return s;
    db_stmt q = db_sql(c, recover_sql, err);
    db_bind_i64(&q, 1, attempts_max);
    while (db_row(&q)) {
        char state[16];
        db_text(&q, 0, state, sizeof state);
        n.requeued += strcmp(state, "queued") == 0;
        n.failed += strcmp(state, "failed") == 0;
    }
    s = db_end(&q);
    if (!s && n.failed) {
        q = db_sql(c,
                   "UPDATE job_details SET problem = ?1 WHERE problem IS NULL AND job_id IN"
                   " (SELECT id FROM jobs WHERE state = 'failed')",
                   err);
        db_bind_text(&q, 1, crashed_problem);
        s = db_run(&q);
    }
    if (!s) s = db_exec(c, "UPDATE trainings SET pause_requested = 0 WHERE pause_requested = 1", err);
    if (!s) s = db_exec(c, "COMMIT", err);
    if (s && !sqlite3_get_autocommit(c->h)) db_try(c, "ROLLBACK");
    if (!s) *ret = n;
    return s;
}

/* --- lost ones --- */

dr_status db_jobs_lapsed(db_store *db, db_lapsed *ret, size_t max, size_t *ret_n, dr_error *err) {
    db_conn *c;
    size_t n = 0;
    dr_status s = db_reader_take(db, &c, err);
    if (s) return s;
    db_stmt q = db_sql(c,
                       "SELECT id, epoch FROM jobs WHERE state IN " DB_HELD " AND type IN ('derain', 'train')"
                       " AND lease_until > 0 AND lease_until <= " DB_NOW " ORDER BY lease_until LIMIT ?1",
                       err);
    db_bind_i64(&q, 1, (int64_t)max);
    while (n < max && db_row(&q)) {
        db_text(&q, 0, ret[n].id, sizeof ret[n].id);
        ret[n++].epoch = db_i64(&q, 1);
    }
    s = db_end(&q);
    db_reader_give(db, c);
    if (!s) *ret_n = n;
    return s;
}

typedef struct reclaim_req {
    db_req base;
    const char *id;
    int64_t epoch;
    char state[16];
} reclaim_req;

static dr_status reclaim_run(db_store *db, db_conn *c, db_req *base, dr_error *err) {
    reclaim_req *r = (reclaim_req *)base;
    *r->state = 0;
    db_stmt q = db_sql(c, reclaim_sql, err);
    db_bind_i64(&q, 1, db_opts(db)->job_attempts_max);
    db_bind_text(&q, 2, r->id);
    db_bind_i64(&q, 3, r->epoch);
    if (db_row(&q)) db_text(&q, 0, r->state, sizeof r->state);
    dr_status s = db_run(&q);
    if (s) return s;
    if (!*r->state) return dr_fail_as(err, DR_CONFLICT, "stale_epoch", "job %s is not lost", r->id);
    if (!strcmp(r->state, "failed")) {
        q = db_sql(c, "UPDATE job_details SET problem = ?2 WHERE job_id = ?1", err);
        db_bind_text(&q, 1, r->id);
        db_bind_text(&q, 2, crashed_problem);
        s = db_run(&q);
    }
    if (s) return s;
    q = db_sql(c, "UPDATE trainings SET pause_requested = 0 WHERE job_id = ?1", err);
    db_bind_text(&q, 1, r->id);
    return db_run(&q);
}

dr_status db_job_reclaim(db_store *db, const char *id, int64_t epoch, db_state *ret_state, dr_error *err) {
    reclaim_req r = {.base = {.run = reclaim_run}, .id = id, .epoch = epoch};
    db_state state = DB_QUEUED;
    dr_status s = db_call(db, &r.base, err);
    if (!s && !db_state_parse(r.state, &state)) s = dr_fail(err, DR_INTERNAL, "job %s in state '%s'", id, r.state);
    if (!s) *ret_state = state;
    return s;
}

dr_status db_progress_write(db_conn *c, const db_progress *list, size_t n, dr_error *err) {
    dr_status s = DR_OK;
    for (size_t i = 0; !s && i < n; i++) {
        db_stmt q = db_sql(c,
                           "UPDATE jobs SET progress = ?3, lease_until = " DB_NOW " + 60000, revision = revision + 1"
                           " WHERE id = ?1 AND epoch = ?2 AND state = 'running'",
                           err);
        db_bind_text(&q, 1, list[i].id);
        db_bind_i64(&q, 2, list[i].epoch);
        if (!q.status && sqlite3_bind_double(q.st, 3, list[i].value) != SQLITE_OK) q.status = DR_NOMEM;
        s = db_run(&q);
    }
    return s;
}

/* --- deadlines and pruning
 * -------------------------------------------------------------------------------------------------- */

typedef struct sweep_req {
    db_req base;
    const char *problem;
    int64_t ttl_ms, spool_max;
    db_ids ids; /* room for IDS_MAX */
} sweep_req;

static dr_status expire_run(db_store *db, db_conn *c, db_req *base, dr_error *err) {
    (void)db;
    sweep_req *r = (sweep_req *)base;
    r->ids.n = 0;
    dr_status s = db_check_object(c, r->problem, err);
    if (s) return s;
    db_stmt q = db_sql(c,
                       "UPDATE jobs SET state = 'expired', finished_at = " DB_NOW ", revision = revision + 1"
                       " WHERE id IN (SELECT id FROM jobs WHERE state = 'queued' AND deadline > 0"
                       " AND deadline <= " DB_NOW " LIMIT ?1) RETURNING id",
                       err);
    db_bind_i64(&q, 1, IDS_MAX);
    while (db_row(&q)) db_text(&q, 0, r->ids.ids[r->ids.n++], DB_ID);
    s = db_end(&q);
    for (size_t i = 0; !s && i < r->ids.n; i++) {
        q = db_sql(c, "UPDATE job_details SET problem = ?2 WHERE job_id = ?1", err);
        db_bind_text(&q, 1, r->ids.ids[i]);
        db_bind_text(&q, 2, r->problem);
        s = db_run(&q);
    }
    return s;
}

/* Oldest ended first: those past their time, then as many more as bring the bytes under the limit. */
static dr_status choose(db_conn *c, sweep_req *r, dr_error *err) {
    int64_t total = 0, now = 0;
    db_stmt q = db_sql(c, "SELECT coalesce(sum(bytes), 0), " DB_NOW " FROM jobs", err);
    if (db_row(&q)) {
        total = db_i64(&q, 0);
        now = db_i64(&q, 1);
    }
    dr_status s = db_end(&q);
    if (s) return s;
    q = db_sql(c, "SELECT id, finished_at, bytes FROM jobs WHERE finished_at > 0 ORDER BY finished_at, id LIMIT ?1",
               err);
    db_bind_i64(&q, 1, IDS_MAX);
    while (db_row(&q)) {
        bool old = r->ttl_ms > 0 && db_i64(&q, 1) < now - r->ttl_ms;
        if (!old && !(r->spool_max > 0 && total > r->spool_max)) break;
        db_text(&q, 0, r->ids.ids[r->ids.n++], DB_ID);
        total -= db_i64(&q, 2);
    }
    return db_end(&q);
}

static dr_status prune_run(db_store *db, db_conn *c, db_req *base, dr_error *err) {
    sweep_req *r = (sweep_req *)base;
    r->ids.n = 0;
    dr_status s = choose(c, r, err);
    for (size_t i = 0; !s && i < r->ids.n; i++) {
        db_stmt q = db_sql(c, "INSERT OR REPLACE INTO tombstones VALUES (?1, " DB_NOW " + ?2)", err);
        db_bind_text(&q, 1, r->ids.ids[i]);
        db_bind_i64(&q, 2, db_opts(db)->tombstone_ms);
        if ((s = db_run(&q))) break;
        q = db_sql(c, "DELETE FROM jobs WHERE id = ?1", err);
        db_bind_text(&q, 1, r->ids.ids[i]);
        s = db_run(&q);
    }
    if (s) return s;
    if ((s = db_exec(c, "DELETE FROM tombstones WHERE expires_at <= " DB_NOW, err))) return s;
    return db_exec(c, "DELETE FROM idempotency WHERE expires_at <= " DB_NOW, err);
}

static dr_status sweep(db_store *db, sweep_req *r, db_ids *ret, dr_error *err) {
    r->ids.ids = dr_calloc(IDS_MAX, DB_ID);
    if (!r->ids.ids) return dr_fail(err, DR_NOMEM, "no memory for a list of ids");
    dr_status s = db_call(db, &r->base, err);
    if (s)
        db_ids_clear(&r->ids);
    else
        *ret = r->ids;
    return s;
}

dr_status db_jobs_expire(db_store *db, const char *problem_json, db_ids *ret, dr_error *err) {
    sweep_req r = {.base = {.run = expire_run}, .problem = problem_json};
    return sweep(db, &r, ret, err);
}

dr_status db_jobs_prune(db_store *db, int64_t result_ttl_ms, int64_t spool_max_bytes, db_ids *ret, dr_error *err) {
    sweep_req r = {.base = {.run = prune_run}, .ttl_ms = result_ttl_ms, .spool_max = spool_max_bytes};
    return sweep(db, &r, ret, err);
}
