/* writer.h - the thread that owns the only writing connection: FIFO, group commit, checkpoints, batched progress. */
#ifndef DB_WRITER_H
#define DB_WRITER_H

#include "db/internal.h"

typedef struct db_writer db_writer;

/* Takes the connection over on success. */
DR_MUSTUSE dr_status db_writer_start(db_store *db, db_conn *c, db_writer **ret, dr_error *err);
void db_writer_stop(db_writer *w); /* answers all that waits, checkpoints, closes the connection; NULL is fine */
void db_writer_submit(db_writer *w, db_req *r);
void db_writer_progress(db_writer *w, const char *id, int64_t epoch, double value);
void db_writer_stats(db_writer *w, db_stats *ret);           /* commits, requests, fifo */
dr_status db_writer_health(db_writer *w, dr_error *ret_err); /* of the last commit */

#endif
