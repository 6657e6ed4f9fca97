/* store.h - the daemon's memory on disk: one SQLite file, hidden behind db_* calls that take and return plain structs.
 *
 * One thread of the store owns the only writing connection. Every write is a small request in its FIFO; the requests
 * that wait together share one transaction and one fsync (group commit, synchronous=FULL), and each runs inside a
 * savepoint of its own, so that one that fails leaves the others alone. Writes come in two forms:
 *   db_x()        blocks until the commit is on disk. For workers and for start-up.
 *   db_x_async()  returns at once; `done` is called on the store's thread after the commit. For HTTP threads, which
 * must never wait for an fsync. `done` must be short and must not call a blocking db_ write. Reads (db_job_get,
 * db_job_list ...) run on the calling thread over read-only connections that the store pools; they never wait for the
 * writer and they see everything that was committed before they began.
 *
 * All calls are thread-safe. Times are milliseconds since 1970 from the database's clock; 0 stands for "none". */
#ifndef DB_STORE_H
#define DB_STORE_H

#include "core/base/status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct db_store db_store;

typedef struct db_options {
    int job_attempts_max;   /* a job that was running in this many crashed lives fails as crashed_repeatedly; 0 = 5 */
    int64_t idempotency_ms; /* how long an Idempotency-Key is remembered; 0 = 24 h */
    int64_t tombstone_ms;   /* how long an erased job is still answered with "gone"; 0 = 30 days */
    int64_t class_age_ms;   /* waiting this long lifts a job over newer ones of the next better class; 0 = 60 s */
    bool allow_network_fs;  /* tests only: WAL needs shared memory of one host, so network file systems are refused */
} db_options;

/* Open (and make, mode 0700) the data folder, lock it against a second daemon, migrate the schema, check the file
 * (PRAGMA quick_check), and put back what a crashed life left running. `opt` may be NULL.
 * Errors by err->what: data_in_use (BUSY), data_not_writable (IO), data_network_fs (UNSUPPORTED), db_newer
 * (UNSUPPORTED: made by a newer program), db_corrupt (CORRUPT), disk_full (NOSPACE). */
DR_MUSTUSE dr_status db_open(const char *data_dir, const db_options *opt, db_store **ret, dr_error *err);

/* Finish all requests that are in the FIFO (their `done` is called), checkpoint, close. NULL is fine. No other
 * db_ call may be running or start. */
void db_close(db_store *db);

typedef struct db_recovered {
    int64_t requeued, failed; /* running rows of an earlier life: back in the queue / crashed_repeatedly */
} db_recovered;
void db_recovery(const db_store *db, db_recovered *ret); /* what db_open() found */

typedef struct db_stats {
    int64_t db_bytes, wal_bytes;        /* sizes of the files */
    int64_t commits, requests, readers; /* commits < requests shows group commit at work */
    int64_t fifo;                       /* requests waiting now */
} db_stats;
void db_stats_get(db_store *db, db_stats *ret);

/* The database's clock, for deadlines. */
DR_MUSTUSE dr_status db_now(db_store *db, int64_t *ret_ms, dr_error *err);

/* A consistent copy of the database in a new file (VACUUM INTO), while the daemon runs. */
DR_MUSTUSE dr_status db_backup(db_store *db, const char *path, dr_error *err);

/* Cheap test that the store answers and can write (for /health/ready): a read, and the status of the last commit. */
DR_MUSTUSE dr_status db_ping(db_store *db, dr_error *err);

#endif
