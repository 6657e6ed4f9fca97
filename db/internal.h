/* internal.h - what the files of this room share: write requests, the reader pool, the embedded schema. */
#ifndef DB_INTERNAL_H
#define DB_INTERNAL_H

#include "db/jobs.h"
#include "db/stmt.h"
#include "db/store.h"
#include <semaphore.h>

/* db_state_held() in SQL. */
#define DB_HELD "('running', 'yielding', 'evaluating', 'gated')"

/* One write. `run` works on the writer's connection inside a savepoint; it may be called again after a rollback, so
 * it begins by clearing its results. `done` NULL: somebody waits on `sem`. Otherwise it is called after the commit (or
 * the failure) on the writer's thread and owns the request from then on. */
typedef struct db_req {
    struct db_req *next;
    dr_status (*run)(db_store *db, db_conn *c, struct db_req *r, dr_error *err);
    void (*done)(struct db_req *r);
    dr_status status;
    dr_error err;
    sem_t sem;
} db_req;

DR_MUSTUSE dr_status db_call(db_store *db, db_req *r,
                             dr_error *err); /* submit and wait; r lives on the caller's stack */
void db_submit(db_store *db, db_req *r);     /* r->done is set */

/* A read-only connection for this thread, for the time between the two calls. */
DR_MUSTUSE dr_status db_reader_take(db_store *db, db_conn **ret, dr_error *err);
void db_reader_give(db_store *db, db_conn *c);

const db_options *db_opts(const db_store *db); /* defaults filled in */
const char *db_boot(const db_store *db);       /* names this life of the process */

/* jobs.c: called by the store. */
typedef struct db_progress {
    char id[DB_ID];
    int64_t epoch;
    double value;
} db_progress;
DR_MUSTUSE dr_status db_progress_write(db_conn *c, const db_progress *list, size_t n, dr_error *err);
DR_MUSTUSE dr_status db_recover(db_conn *c, int attempts_max, db_recovered *ret, dr_error *err);

/* job_rows.c: reading whole jobs, from any connection. */
DR_MUSTUSE dr_status db_job_load(db_conn *c, const char *id, db_job *ret, dr_error *err);
DR_MUSTUSE dr_status db_job_dup(const db_job *in, db_job *ret, dr_error *err);
DR_MUSTUSE dr_status db_job_missing(db_conn *c, const char *id, dr_error *err); /* NOT_FOUND, not found or gone */

/* compare.c: parts of a job's transactions. */
DR_MUSTUSE dr_status db_compare_hold(db_conn *c, const char *job, const db_picture *list, size_t n, dr_error *err);
DR_MUSTUSE dr_status db_report_put(db_conn *c, const char *job, int64_t bytes, const char *sha256, dr_error *err);

/* Made by the build from db/schema/NNNN_*.sql, in order. */
extern const char *const db_migrations[];
extern const int db_n_migrations;

#endif
