/* job_rows.c - whole jobs out of the database: one job, a page of them, counts. */
#include "core/base/alloc.h"
#include "core/base/parse.h"
#include "db/internal.h"
#include <stdio.h>
#include <string.h>

static const char *const state_names[DB_N_STATES] = {"queued", "running",    "validating", "yielding",
                                                     "paused", "evaluating", "gated",      "succeeded",
                                                     "failed", "cancelled",  "expired"};

const char *db_state_name(db_state s) {
    return state_names[s];
}

bool db_state_parse(const char *name, db_state *ret) {
    for (int i = 0; i < DB_N_STATES; i++)
        if (strcmp(name, state_names[i]) == 0) {
            *ret = (db_state)i;
            return true;
        }
    return false;
}

void db_job_clear(db_job *job) {
    if (!job) return;
    dr_free(job->params_json);
    dr_free(job->labels_json);
    dr_free(job->problem_json);
    *job = (db_job){0};
}

dr_status db_job_dup(const db_job *in, db_job *ret, dr_error *err) {
    db_job j = *in;
    j.params_json = dr_strdup(in->params_json ? in->params_json : "{}");
    j.labels_json = dr_strdup(in->labels_json ? in->labels_json : "{}");
    j.problem_json = in->problem_json ? dr_strdup(in->problem_json) : NULL;
    if (!j.params_json || !j.labels_json || (in->problem_json && !j.problem_json)) {
        db_job_clear(&j);
        return dr_fail(err, DR_NOMEM, "no memory for a job");
    }
    *ret = j;
    return DR_OK;
}

/* Column numbers below follow this list. */
#define JOB_COLUMNS                                                                                                    \
    "j.id, j.type, j.state, j.class, j.priority, j.created_at, j.started_at, j.finished_at, j.deadline,"               \
    " j.model_name, j.model_version, d.model_sha256, d.in_format, d.in_width, d.in_height, d.in_bytes,"                \
    " d.in_bit_depth, d.in_channels, d.in_sha256, d.out_format, d.out_bytes, d.out_width, d.out_height, d.out_sha256," \
    " j.progress, j.attempt, j.epoch, j.cancel_requested, j.revision, d.ms_queue, d.ms_decode, d.ms_infer,"            \
    " d.ms_encode, d.request_id, d.traceparent, d.params, d.labels, d.problem, "
#define FROM_JOBS " FROM jobs j CROSS JOIN job_details d ON d.job_id = j.id "
/* The place in the queue, as the last column: counted for one job, numbered once for a whole page. Each type queues on
 * its own: pictures, trainings and comparisons have threads of their own and do not wait for each other. */
#define POSITION_OF_ONE                                                                                                \
    "CASE j.state WHEN 'queued' THEN (SELECT count(*) FROM jobs q WHERE q.state = 'queued'"                            \
    " AND q.type = j.type AND (q.rank, q.id) <= (j.rank, j.id)) ELSE 0 END"
#define POSITION_OF_MANY "coalesce(p.n, 0)"
#define WITH_POSITIONS                                                                                                 \
    "WITH p AS MATERIALIZED (SELECT id, row_number() OVER (PARTITION BY type ORDER BY rank, id) AS n FROM "            \
    "jobs WHERE state = 'queued') "

static void read_row(db_stmt *q, db_job *j) {
    char state[16];
    *j = (db_job){0};
    int i = 0;
    db_text(q, i++, j->id, sizeof j->id);
    db_text(q, i++, j->type, sizeof j->type);
    db_text(q, i++, state, sizeof state);
    if (!db_state_parse(state, &j->state) && !q->status)
        q->status = dr_fail(q->err, DR_UNSUPPORTED, "job %s is in a state this program does not know", j->id);
    j->class_ = (db_class)db_i64(q, i++);
    j->priority = (int)db_i64(q, i++);
    j->created_ms = db_i64(q, i++);
    j->started_ms = db_i64(q, i++);
    j->finished_ms = db_i64(q, i++);
    j->deadline_ms = db_i64(q, i++);
    db_text(q, i++, j->model.name, sizeof j->model.name);
    j->model.version = db_i64(q, i++);
    db_text(q, i++, j->model.sha256, sizeof j->model.sha256);
    db_text(q, i++, j->input.format, sizeof j->input.format);
    j->input.width = db_i64(q, i++);
    j->input.height = db_i64(q, i++);
    j->input.bytes = db_i64(q, i++);
    j->input.bit_depth = (int)db_i64(q, i++);
    j->input.channels = (int)db_i64(q, i++);
    db_text(q, i++, j->input.sha256, sizeof j->input.sha256);
    db_text(q, i++, j->result.format, sizeof j->result.format);
    j->result.bytes = db_i64(q, i++);
    j->result.width = db_i64(q, i++);
    j->result.height = db_i64(q, i++);
    db_text(q, i++, j->result.sha256, sizeof j->result.sha256);
    j->has_result = j->result.sha256[0] != 0;
    j->progress = db_f64(q, i++);
    j->attempt = (int)db_i64(q, i++);
    j->epoch = db_i64(q, i++);
    j->cancel_requested = db_i64(q, i++) != 0;
    j->revision = db_i64(q, i++);
    for (int t = 0; t < DB_N_TIMINGS; t++) j->timings_ms[t] = db_f64(q, i++);
    db_text(q, i++, j->request_id, sizeof j->request_id);
    db_text(q, i++, j->traceparent, sizeof j->traceparent);
    j->params_json = db_text_dup(q, i++);
    j->labels_json = db_text_dup(q, i++);
    j->problem_json = db_text_dup(q, i++);
    j->queue_position = db_i64(q, i++);
}

dr_status db_job_missing(db_conn *c, const char *id, dr_error *err) {
    db_stmt q = db_sql(c, "SELECT 1 FROM tombstones WHERE job_id = ?1 AND expires_at > " DB_NOW, err);
    db_bind_text(&q, 1, id);
    bool gone = db_row(&q);
    dr_status s = db_end(&q);
    if (s) return s;
    if (gone) return dr_fail_as(err, DR_NOT_FOUND, "job_gone", "job %.40s was erased", id);
    return dr_fail_as(err, DR_NOT_FOUND, "job_not_found", "there is no job %.40s", id);
}

dr_status db_job_load(db_conn *c, const char *id, db_job *ret, dr_error *err) {
    db_job j = {0};
    db_stmt q = db_sql(c, "SELECT " JOB_COLUMNS POSITION_OF_ONE FROM_JOBS "WHERE j.id = ?1", err);
    db_bind_text(&q, 1, id);
    bool found = db_row(&q);
    if (found) read_row(&q, &j);
    dr_status s = db_end(&q);
    if (!s && !found) s = db_job_missing(c, id, err);
    if (s) {
        db_job_clear(&j);
        return s;
    }
    *ret = j;
    return DR_OK;
}

dr_status db_job_get(db_store *db, const char *id, db_job *ret_job, dr_error *err) {
    db_conn *c;
    dr_status s = db_reader_take(db, &c, err);
    if (s) return s;
    s = db_job_load(c, id, ret_job, err);
    db_reader_give(db, c);
    return s;
}

/* --- pages
 * --------------------------------------------------------------------------------------------------------------- */

/* ?1 id to stay below ('' = none), ?2 type, ?3 label key, ?4 label value, ?5 model name, ?6 model version, ?7 how many,
 * ?8 set of states (first form) or the state (second form, over the index of states). NULL = do not care. */
#define LIST_FILTERS                                                                                                   \
    " AND (?2 IS NULL OR j.type = ?2)"                                                                                 \
    " AND (?3 IS NULL OR EXISTS (SELECT 1 FROM job_labels l WHERE l.job_id = j.id AND l.key = ?3"                      \
    " AND (?4 IS NULL OR l.value = ?4)))"                                                                              \
    " AND (?5 IS NULL OR j.model_name = ?5) AND (?6 IS NULL OR j.model_version = ?6)"                                  \
    " ORDER BY j.id DESC LIMIT ?7"
static const char list_any[] = WITH_POSITIONS
    "SELECT " JOB_COLUMNS POSITION_OF_MANY FROM_JOBS
    "LEFT JOIN p ON p.id = j.id WHERE j.id < CASE ?1 WHEN '' THEN 'k' ELSE ?1 END"
    " AND (?8 >> CASE j.state WHEN 'queued' THEN 0 WHEN 'running' THEN 1 WHEN 'validating' THEN 2 WHEN 'yielding' THEN "
    "3"
    " WHEN 'paused' THEN 4 WHEN 'evaluating' THEN 5 WHEN 'gated' THEN 6 WHEN 'succeeded' THEN 7 WHEN 'failed' THEN 8"
    " WHEN 'cancelled' THEN 9 ELSE 10 END) & 1" LIST_FILTERS;
static const char list_state[] = WITH_POSITIONS
    "SELECT " JOB_COLUMNS POSITION_OF_MANY FROM_JOBS
    "LEFT JOIN p ON p.id = j.id WHERE j.state = ?8 AND j.id < CASE ?1 WHEN '' THEN 'k' ELSE ?1 END" LIST_FILTERS;

static dr_status list(db_conn *c, const db_job_filter *in, const char *after, const char *key, const char *value,
                      const char *model, int64_t version, db_job_page *page, dr_error *err) {
    size_t limit = in->limit ? (size_t)in->limit : 50;
    unsigned all = (1u << DB_N_STATES) - 1, states = in->states & all ? in->states & all : all;
    bool one = (states & (states - 1)) == 0;
    page->jobs = dr_calloc(limit, sizeof *page->jobs);
    if (!page->jobs) return dr_fail(err, DR_NOMEM, "no memory for a list of %zu jobs", limit);
    db_stmt q = db_sql(c, one ? list_state : list_any, err);
    db_bind_text(&q, 1, after);
    db_bind_text(&q, 2, in->type);
    db_bind_text(&q, 3, key);
    db_bind_text(&q, 4, value);
    db_bind_text(&q, 5, model);
    if (version >= 0) db_bind_i64(&q, 6, version);
    db_bind_i64(&q, 7, (int64_t)limit + 1);
    if (one)
        db_bind_text(&q, 8, state_names[__builtin_ctz(states)]);
    else
        db_bind_i64(&q, 8, states);
    bool more = false;
    while (!more && db_row(&q)) {
        more = page->n == limit;
        if (!more) read_row(&q, &page->jobs[page->n++]);
    }
    dr_status s = db_end(&q);
    if (!s && more) snprintf(page->next_cursor, sizeof page->next_cursor, "p1%s", page->jobs[page->n - 1].id + 4);
    return s;
}

dr_status db_job_list(db_store *db, const db_job_filter *in, db_job_page *ret, dr_error *err) {
    char after[DB_ID] = "", key[128] = "", model[128] = "";
    const char *value = NULL;
    int64_t version = -1;
    if (in->limit < 0 || in->limit > DB_LIST_MAX)
        return dr_fail_limit(err, "limit_too_large", "limit", DB_LIST_MAX, in->limit, "at most %d jobs a page",
                             DB_LIST_MAX);
    if (in->cursor && *in->cursor) {
        if (strncmp(in->cursor, "p1", 2) == 0) snprintf(after, sizeof after, "job_%.27s", in->cursor + 2);
        if (!db_id_valid("job_", after))
            return dr_fail_as(err, DR_INVALID, "bad_cursor", "this cursor was not made here");
    }
    if (in->label && *in->label) {
        const char *eq = strchr(in->label, '=');
        size_t n = eq ? (size_t)(eq - in->label) : strlen(in->label);
        if (n == 0 || n >= sizeof key)
            return dr_fail_as(err, DR_INVALID, "bad_label", "a label is key=value, key 1 to 64 long");
        memcpy(key, in->label, n);
        value = eq ? eq + 1 : NULL;
    }
    if (in->model && *in->model) {
        const char *colon = strchr(in->model, ':');
        size_t n = colon ? (size_t)(colon - in->model) : strlen(in->model);
        if (n == 0 || n >= sizeof model || (colon && !dr_parse_i64(colon + 1, 0, INT32_MAX, &version)))
            return dr_fail_as(err, DR_INVALID, "bad_model", "a model is name or name:version");
        memcpy(model, in->model, n);
    }
    db_conn *c;
    db_job_page page = {0};
    dr_status s = db_reader_take(db, &c, err);
    if (s) return s;
    s = list(c, in, after, *key ? key : NULL, value, *model ? model : NULL, version, &page, err);
    db_reader_give(db, c);
    if (s)
        db_job_page_clear(&page);
    else
        *ret = page;
    return s;
}

void db_job_page_clear(db_job_page *page) {
    if (!page) return;
    for (size_t i = 0; i < page->n; i++) db_job_clear(&page->jobs[i]);
    dr_free(page->jobs);
    *page = (db_job_page){0};
}

dr_status db_job_counts(db_store *db, db_counts *ret, dr_error *err) {
    db_conn *c;
    db_counts counts = {0};
    dr_status s = db_reader_take(db, &c, err);
    if (s) return s;
    db_stmt q = db_sql(c,
                       "SELECT state, count(*), sum(bytes), coalesce((SELECT min(created_at) FROM jobs"
                       " WHERE state = 'queued'), 0) FROM jobs GROUP BY state",
                       err);
    while (db_row(&q)) {
        char name[16];
        db_state state;
        db_text(&q, 0, name, sizeof name);
        if (db_state_parse(name, &state)) counts.state[state] = db_i64(&q, 1);
        counts.spool_bytes += db_i64(&q, 2);
        counts.oldest_queued_ms = db_i64(&q, 3);
    }
    s = db_end(&q);
    db_reader_give(db, c);
    if (!s) *ret = counts;
    return s;
}
