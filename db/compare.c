/* compare.c - the tables compare_pictures and job_reports. */
#include "db/compare.h"
#include "core/base/alloc.h"
#include "db/internal.h"
#include <string.h>

/* --- inside the transactions of jobs.c --- */

static dr_status hold_one(db_conn *c, const char *job, size_t place, const db_picture *p, dr_error *err) {
    db_stmt q = db_sql(c,
                       "INSERT INTO compare_pictures SELECT ?1, ?2, ?3, ?4, nullif(?5, '')"
                       " WHERE EXISTS (SELECT 1 FROM blobs WHERE sha256 = ?4)"
                       " AND (?5 = '' OR EXISTS (SELECT 1 FROM blobs WHERE sha256 = ?5))",
                       err);
    db_bind_text(&q, 1, job);
    db_bind_i64(&q, 2, (int64_t)place);
    db_bind_text(&q, 3, p->name);
    db_bind_text(&q, 4, p->sha256);
    db_bind_text(&q, 5, p->clean);
    dr_status s = db_run(&q);
    if (s || db_changes(c)) return s;
    return dr_fail_as(err, DR_NOT_FOUND, "blob_not_found",
                      "picture %zu, '%.60s', names a blob that is not here: upload it first", place + 1, p->name);
}

dr_status db_compare_hold(db_conn *c, const char *job, const db_picture *list, size_t n, dr_error *err) {
    dr_status s = DR_OK;
    for (size_t i = 0; i < n && !s; i++) s = hold_one(c, job, i, &list[i], err);
    return s;
}

dr_status db_report_put(db_conn *c, const char *job, int64_t bytes, const char *sha256, dr_error *err) {
    db_stmt q = db_sql(c, "INSERT OR REPLACE INTO job_reports VALUES (?1, ?2, ?3)", err);
    db_bind_text(&q, 1, job);
    db_bind_i64(&q, 2, bytes);
    db_bind_text(&q, 3, sha256);
    return db_run(&q);
}

/* --- reads --- */

static dr_status job_there(db_conn *c, const char *id, dr_error *err) {
    db_stmt q = db_sql(c, "SELECT 1 FROM jobs WHERE id = ?1", err);
    db_bind_text(&q, 1, id);
    bool there = db_row(&q);
    dr_status s = db_end(&q);
    return s || there ? s : db_job_missing(c, id, err);
}

static dr_status count(db_conn *c, const char *id, int64_t *ret, dr_error *err) {
    dr_status s = job_there(c, id, err);
    if (s) return s;
    db_stmt q = db_sql(c, "SELECT count(*) FROM compare_pictures WHERE job_id = ?1", err);
    db_bind_text(&q, 1, id);
    if (db_row(&q)) *ret = db_i64(&q, 0);
    return db_end(&q);
}

dr_status db_compare_pictures(db_store *db, const char *id, db_picture **ret, size_t *ret_n, dr_error *err) {
    db_conn *c;
    db_picture *list = NULL;
    int64_t all = 0;
    size_t n = 0;
    dr_status s = db_reader_take(db, &c, err);
    if (s) return s;
    s = count(c, id, &all, err); /* they never change while the job is there */
    if (!s && !(list = dr_calloc((size_t)all + 1, sizeof *list))) s = dr_fail(err, DR_NOMEM, "no memory for a list");
    if (!s) {
        db_stmt q = db_sql(c,
                           "SELECT name, sha256, coalesce(clean, '') FROM compare_pictures WHERE job_id = ?1"
                           " ORDER BY place",
                           err);
        db_bind_text(&q, 1, id);
        while (n < (size_t)all && db_row(&q)) {
            db_text(&q, 0, list[n].name, sizeof list[n].name);
            db_text(&q, 1, list[n].sha256, sizeof list[n].sha256);
            db_text(&q, 2, list[n].clean, sizeof list[n].clean);
            n++;
        }
        s = db_end(&q);
    }
    db_reader_give(db, c);
    if (s) {
        dr_free(list);
        return s;
    }
    *ret = list;
    *ret_n = n;
    return DR_OK;
}

dr_status db_job_report(db_store *db, const char *id, int64_t *ret_bytes, char ret_sha256[DB_SHA], dr_error *err) {
    db_conn *c;
    int64_t bytes = 0;
    char sha[DB_SHA] = "";
    dr_status s = db_reader_take(db, &c, err);
    if (s) return s;
    s = job_there(c, id, err);
    if (!s) {
        db_stmt q = db_sql(c, "SELECT bytes, sha256 FROM job_reports WHERE job_id = ?1", err);
        db_bind_text(&q, 1, id);
        bool found = db_row(&q);
        if (found) {
            bytes = db_i64(&q, 0);
            db_text(&q, 1, sha, sizeof sha);
        }
        s = db_end(&q);
        if (!s && !found) s = dr_fail_as(err, DR_NOT_FOUND, "no_report", "job %.40s has no report", id);
    }
    db_reader_give(db, c);
    if (s) return s;
    *ret_bytes = bytes;
    memcpy(ret_sha256, sha, sizeof sha);
    return DR_OK;
}
