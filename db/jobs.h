/* jobs.h - jobs: the queue, its states, results, events and idempotency keys. A job exists because its row exists.
 *
 * queued -> running -> succeeded | failed | cancelled | expired, and queued -> cancelled | expired. Every change bumps
 * `revision` (for ETag) and appends a `state` event with the next number of the job's own sequence.
 * A claim raises `epoch`; each write of a worker names the epoch it was given and is refused (CONFLICT, "stale_epoch")
 * once another claim, cancel or recovery has overtaken it.
 *
 * NOT_FOUND always says in err->what which of the two it is: "job_not_found" (404) or "job_gone" (erased, 410).
 * Rows hold no pictures: files are the caller's, named by job id, written and synced before the row that needs them
 * (db_job_create, db_job_finish) and erased after the row has gone. */
#ifndef DB_JOBS_H
#define DB_JOBS_H

#include "db/store.h"
#include "db/ulid.h"

typedef enum db_state {
    DB_QUEUED,
    DB_RUNNING,
    DB_VALIDATING, /* trainings only, down to GATED (training.h) */
    DB_YIELDING,
    DB_PAUSED,
    DB_EVALUATING,
    DB_GATED,
    DB_SUCCEEDED,
    DB_FAILED,
    DB_CANCELLED,
    DB_EXPIRED,
    DB_N_STATES
} db_state;

const char *db_state_name(db_state s); /* "queued" ... */
bool db_state_parse(const char *name, db_state *ret);
static inline bool db_state_final(db_state s) {
    return s >= DB_SUCCEEDED;
}

/* Somebody works on it under its epoch. */
static inline bool db_state_held(db_state s) {
    return s == DB_RUNNING || s == DB_YIELDING || s == DB_EVALUATING || s == DB_GATED;
}

/* Better classes go first; see db_options.class_age_ms for how a waiting one catches up. */
typedef enum db_class { DB_INTERACTIVE, DB_BATCH, DB_EVAL, DB_TRAIN } db_class;

enum { DB_T_QUEUE, DB_T_DECODE, DB_T_INFER, DB_T_ENCODE, DB_N_TIMINGS };

typedef struct db_job {
    char id[DB_ID];
    char type[16]; /* derain, eval, compare, train, export */
    db_state state;
    db_class class_;
    int priority;                                             /* -100..100 within the class, higher first */
    int64_t created_ms, started_ms, finished_ms, deadline_ms; /* 0 = none */
    struct {
        char name[64];
        int64_t version;
        char sha256[65];
    } model;
    struct {
        char format[16];
        int64_t width, height, bytes;
        int bit_depth, channels;
        char sha256[65];
    } input;
    struct { /* bytes 0 and empty strings while there is none */
        char format[16];
        int64_t bytes, width, height;
        char sha256[65];
    } result;
    bool has_result;
    double progress;        /* 0..1 */
    int64_t queue_position; /* 1 = next; 0 = not queued */
    int attempt;
    int64_t epoch;
    bool cancel_requested;
    int64_t revision;
    double timings_ms[DB_N_TIMINGS]; /* negative = not known */
    char request_id[72], traceparent[64];
    char *params_json, *labels_json; /* objects, never NULL ("{}") */
    char *problem_json;              /* problem+json of a job that failed, else NULL */
} db_job;

void db_job_clear(db_job *job); /* frees the three texts; fine on a zeroed or cleared struct */

/* --- making a job
 * ------------------------------------------------------------------------------------------------------- */

typedef struct db_picture db_picture; /* compare.h */

typedef struct db_job_new {
    const db_job *job;     /* read: id ("" = made here), type, state (VALIDATING, else it is queued), class_, priority,
                              deadline_ms, model, input, request_id,     traceparent, params_json, labels_json (flat object
                              of     strings); the rest is ignored */
    int64_t queue_max;     /* refuse (BUSY, "queue_full", limit and actual set) when so many are queued; 0 = no limit */
    const char *idem_key;  /* NULL = none; at most 255 bytes */
    const char *idem_hash; /* hash of method + path + body, hex; required with a key */
    const db_picture *pictures; /* of a comparison (compare.h): NOT_FOUND "blob_not_found" where one is not here */
    size_t n_pictures;
} db_job_new;

/* `replayed`: the idempotency key was seen before with the same hash and *ret_job is the job of that time.
 * CONFLICT "idempotency_key_reused": the same key with another hash. NOT_FOUND "job_gone": the key's job was erased.
 * CONFLICT "job_exists": the id is taken. On success the row is durable. Everything in `in` is copied. */
DR_MUSTUSE dr_status db_job_create(db_store *db, const db_job_new *in, db_job *ret_job, bool *ret_replayed,
                                   dr_error *err);

/* Callback of the asynchronous writes, on the store's thread. `job` (NULL when status is not OK, and after a delete)
 * and `err` are borrowed for the call. flag: create = replayed, cancel = it is cancelled or will be. */
typedef void (*db_job_done)(void *arg, dr_status status, const db_job *job, bool flag, const dr_error *err);
void db_job_create_async(db_store *db, const db_job_new *in, db_job_done done, void *arg);

/* Does a key answer with an old job? For refusing a body before it is read. NOT_FOUND "" = key unknown or expired;
 * other errors as db_job_create. idem_hash NULL = do not compare. ret_id has DB_ID bytes. */
DR_MUSTUSE dr_status db_idem_lookup(db_store *db, const char *idem_key, const char *idem_hash, char *ret_id,
                                    dr_error *err);

/* --- workers
 * ------------------------------------------------------------------------------------------------------------ */

typedef struct db_claim {
    const char *type; /* NULL = any */
    int64_t lease_ms; /* how long without a sign of life before it is asked for (db_jobs_lapsed); 0 = 60 s. Progress
                         renews it */
} db_claim;

/* The next ready job becomes running with attempt + 1 and a new epoch. NOT_FOUND "queue_empty" when there is none.
 * Queued jobs whose deadline has passed are never given out. */
DR_MUSTUSE dr_status db_job_claim(db_store *db, const db_claim *in, db_job *ret_job, dr_error *err);

/* Remember how far it is. Returns at once: kept in memory and written with others every 250 ms; a stale epoch is
 * dropped. */
void db_job_progress(db_store *db, const char *id, int64_t epoch, double progress);

typedef struct db_finish {
    db_state state;                            /* SUCCEEDED, FAILED, CANCELLED or EXPIRED */
    const char *result_format, *result_sha256; /* SUCCEEDED only; the file is on disk already */
    int64_t result_bytes, result_width, result_height;
    double timings_ms[DB_N_TIMINGS]; /* negative = not known; the queue time is filled in by the store */
    const char *problem_json;        /* FAILED, CANCELLED, EXPIRED; may be NULL */
    int64_t model_version;           /* what it really ran with; 0 = as the row says */
    const char *model_sha256;        /* with model_version */
    int64_t report_bytes;            /* SUCCEEDED: a report lies beside the result; 0 = none */
    const char *report_sha256;       /* with report_bytes */
} db_finish;

/* ret_job may be NULL. */
DR_MUSTUSE dr_status db_job_finish(db_store *db, const char *id, int64_t epoch, const db_finish *in, db_job *ret_job,
                                   dr_error *err);

/* Give a running job back untouched (orderly stop): queued again at its old place, the attempt does not count. */
DR_MUSTUSE dr_status db_job_requeue(db_store *db, const char *id, int64_t epoch, dr_error *err);

/* Pixels of the largest picture that waits or runs; 0 = none. */
DR_MUSTUSE dr_status db_jobs_largest(db_store *db, int64_t *ret_pixels, dr_error *err);

/* --- people
 * ------------------------------------------------------------------------------------------------------------- */

/* queued, validating, paused: cancelled at once. running: cancel_requested is set, the caller tells the worker, whose
 * db_job_finish() ends it. Final: nothing changes and *ret_cancelled is false (unless it is cancelled already). Safe to
 * repeat. */
DR_MUSTUSE dr_status db_job_cancel(db_store *db, const char *id, const char *reason, db_job *ret_job,
                                   bool *ret_cancelled, dr_error *err);
void db_job_cancel_async(db_store *db, const char *id, const char *reason, db_job_done done, void *arg);

/* Forget a job and its events; a tombstone stays. CONFLICT "job_running" while it runs. Erase its files afterwards. */
DR_MUSTUSE dr_status db_job_delete(db_store *db, const char *id, dr_error *err);
void db_job_delete_async(db_store *db, const char *id, db_job_done done, void *arg);

DR_MUSTUSE dr_status db_job_get(db_store *db, const char *id, db_job *ret_job, dr_error *err);

#define DB_LIST_MAX 500
typedef struct db_job_filter {
    unsigned states;    /* bit set of 1u << db_state; 0 = all */
    const char *type;   /* NULL = all */
    const char *label;  /* "key=value" or "key"; NULL = all */
    const char *model;  /* "name" or "name:version"; NULL = all */
    int limit;          /* 1..DB_LIST_MAX; 0 = 50 */
    const char *cursor; /* from the page before; NULL or "" = newest. INVALID "bad_cursor" */
} db_job_filter;
typedef struct db_job_page {
    db_job *jobs; /* newest first */
    size_t n;
    char next_cursor[40]; /* "" on the last page. Jobs made meanwhile never shift a page */
} db_job_page;
DR_MUSTUSE dr_status db_job_list(db_store *db, const db_job_filter *in, db_job_page *ret, dr_error *err);
void db_job_page_clear(db_job_page *page);

typedef struct db_counts {
    int64_t state[DB_N_STATES]; /* rows by state */
    int64_t spool_bytes;        /* input + result bytes of all rows */
    int64_t oldest_queued_ms;   /* creation time; 0 = none queued */
} db_counts;
DR_MUSTUSE dr_status db_job_counts(db_store *db, db_counts *ret, dr_error *err);

/* --- housekeeping
 * ------------------------------------------------------------------------------------------------------- */

typedef struct db_ids {
    char (*ids)[DB_ID];
    size_t n;
} db_ids;
void db_ids_clear(db_ids *ids);

/* Queued jobs whose deadline has passed become `expired` (problem_json stored with each). At most 500 a call. */
DR_MUSTUSE dr_status db_jobs_expire(db_store *db, const char *problem_json, db_ids *ret, dr_error *err);

/* Jobs of type derain and train that somebody is said to work on and that gave no sign of life within their lease. Most
 * are held all the same (a long step): who holds jobs has to say which. At most max. */
typedef struct db_lapsed {
    char id[DB_ID];
    int64_t epoch;
} db_lapsed;
DR_MUSTUSE dr_status db_jobs_lapsed(db_store *db, db_lapsed *ret, size_t max, size_t *ret_n, dr_error *err);
/* Nobody holds it: as after a crash it is queued again (paused, where that was asked for), cancelled, or fails as
 * crashed_repeatedly; the attempt counts. The epoch rises, so that a late worker's writes are refused. CONFLICT
 * "stale_epoch": it is another claim's by now, ended, or gave a sign of life. */
DR_MUSTUSE dr_status db_job_reclaim(db_store *db, const char *id, int64_t epoch, db_state *ret_state, dr_error *err);

/* Forget final jobs that ended more than result_ttl_ms ago (0 = keep), then the oldest final ones until all rows hold
 * at most spool_max_bytes (0 = no limit); unfinished ones never. Also drops expired tombstones, idempotency keys and
 * surplus events. Returns the ids whose files may be erased, at most 500 a call: call again while n is 500. */
DR_MUSTUSE dr_status db_jobs_prune(db_store *db, int64_t result_ttl_ms, int64_t spool_max_bytes, db_ids *ret,
                                   dr_error *err);

/* --- events
 * ------------------------------------------------------------------------------------------------------------- */

typedef struct db_event {
    int64_t seq, at_ms;
    char type[16];   /* state, progress, metric, sample, checkpoint, log, gate, end */
    char *data_json; /* owned */
} db_event;
typedef struct db_event_page {
    db_event *events; /* by rising seq */
    size_t n;
} db_event_page;

/* epoch as db_job_finish; 0 = not a worker's, no fence. */
DR_MUSTUSE dr_status db_event_append(db_store *db, const char *id, int64_t epoch, const char *type,
                                     const char *data_json, int64_t *ret_seq, dr_error *err);
DR_MUSTUSE dr_status db_event_list(db_store *db, const char *id, int64_t after_seq, int limit, db_event_page *ret,
                                   dr_error *err);
void db_event_page_clear(db_event_page *page);

#endif
