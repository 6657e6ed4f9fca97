/* compare.h - comparisons: the pictures that a job of type `compare` holds, and the row of a job's report.
 *
 * The pictures are named when the job is made (db_job_new.pictures, one transaction with its row) and never change.
 * While the job's row is there its blobs are not free; when it goes, they begin their time of grace like those of an
 * erased data set. */
#ifndef DB_COMPARE_H
#define DB_COMPARE_H

#include "db/datasets.h"
#include "db/jobs.h"

struct db_picture {
    char name[DB_DS_NAME]; /* 1..128 characters */
    char sha256[DB_SHA];
    char clean[DB_SHA]; /* its truth; "" = none */
};

/* In their order, caller frees with dr_free. NOT_FOUND as db_job_get. */
DR_MUSTUSE dr_status db_compare_pictures(db_store *db, const char *id, db_picture **ret, size_t *ret_n, dr_error *err);

/* The report that a job has made (db_finish.report_*). NOT_FOUND "no_report". */
DR_MUSTUSE dr_status db_job_report(db_store *db, const char *id, int64_t *ret_bytes, char ret_sha256[DB_SHA],
                                   dr_error *err);

#endif
