/* stmt.c - connections with the pragmas of this store, and the mapping of SQLite's result codes to causes. */
#include "db/stmt.h"
#include "core/base/alloc.h"
#include "core/base/log.h"
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static dr_status status_of(int rc, int sys_errno, const char **ret_what) {
    *ret_what = "db_failed";
    switch (rc & 0xff) {
    case SQLITE_FULL:
        *ret_what = "disk_full";
        return DR_NOSPACE;
    case SQLITE_NOMEM:
        *ret_what = "out_of_memory";
        return DR_NOMEM;
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_CANTOPEN:
        *ret_what = "data_not_writable";
        return DR_IO;
    case SQLITE_IOERR:
        if (sys_errno == ENOSPC || sys_errno == EDQUOT) {
            *ret_what = "disk_full";
            return DR_NOSPACE;
        }
        return rc == SQLITE_IOERR_NOMEM ? DR_NOMEM : DR_IO;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        *ret_what = "db_corrupt";
        return DR_CORRUPT;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        *ret_what = "db_busy";
        return DR_BUSY;
    case SQLITE_TOOBIG:
        *ret_what = "row_too_large";
        return DR_TOO_LARGE;
    case SQLITE_CONSTRAINT:
        if (rc == SQLITE_CONSTRAINT_CHECK || rc == SQLITE_CONSTRAINT_NOTNULL || rc == SQLITE_CONSTRAINT_DATATYPE) {
            *ret_what = "invalid_row";
            return DR_INVALID;
        }
        *ret_what = "row_conflict";
        return DR_CONFLICT;
    default:
        return DR_INTERNAL;
    }
}

dr_status db_fail(db_conn *c, int rc, dr_error *err) {
    const char *what;
    int ext = c && c->h ? sqlite3_extended_errcode(c->h) : rc;
    if ((ext & 0xff) != (rc & 0xff)) ext = rc;
    dr_status s = status_of(ext, c && c->h ? sqlite3_system_errno(c->h) : 0, &what);
    if (c && c->h) dr_log(DR_LOG_DEBUG, NULL, "sqlite %d: %s", ext, sqlite3_errmsg(c->h));
    return dr_fail_as(err, s, what, "database: %s (%d)", sqlite3_errstr(ext), ext);
}

dr_status db_exec(db_conn *c, const char *sql, dr_error *err) {
    int rc = sqlite3_exec(c->h, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? DR_OK : db_fail(c, rc, err);
}

void db_try(db_conn *c, const char *sql) {
    (void)sqlite3_exec(c->h, sql, NULL, NULL, NULL);
}

/* cache_size is in KiB when negative. A reader may not checkpoint: with this version of SQLite two connections that
 * do may corrupt the file (sqlite.org/wal.html, the WAL-reset bug), so the writer alone does. No memory map. */
static const char common_pragmas[] = "PRAGMA busy_timeout=5000; PRAGMA foreign_keys=ON; PRAGMA temp_store=MEMORY;"
                                     "PRAGMA cache_size=-16000; PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON;"
                                     "PRAGMA mmap_size=0;";
static const char writer_pragmas[] = "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=1000;"
                                     "PRAGMA journal_size_limit=67108864;";
static const char reader_pragmas[] = "PRAGMA wal_autocheckpoint=0; PRAGMA query_only=ON;";

dr_status db_conn_open(const char *path, bool writer, db_conn **ret, dr_error *err) {
    db_conn *c = dr_calloc(1, sizeof *c);
    if (!c) return dr_fail(err, DR_NOMEM, "no memory for a database connection");
    int flags = SQLITE_OPEN_NOMUTEX | (writer ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE : SQLITE_OPEN_READONLY);
    int rc = sqlite3_open_v2(path, &c->h, flags, NULL);
    dr_status s = DR_OK;
    if (rc != SQLITE_OK) s = db_fail(c, rc, err);
    if (!s) {
        sqlite3_extended_result_codes(c->h, 1);
        s = db_exec(c, common_pragmas, err);
    }
    if (!s) s = db_exec(c, writer ? writer_pragmas : reader_pragmas, err);
    if (s) {
        db_conn_close(c);
        return s;
    }
    *ret = c;
    return DR_OK;
}

void db_conn_close(db_conn *c) {
    if (!c) return;
    for (int i = 0; i < c->n_cached; i++) sqlite3_finalize(c->cache[i].st);
    sqlite3_close(c->h);
    dr_free(c);
}

db_stmt db_sql(db_conn *c, const char *sql, dr_error *err) {
    db_stmt q = {.c = c, .err = err};
    for (int i = 0; i < c->n_cached; i++)
        if (c->cache[i].sql == sql) {
            q.st = c->cache[i].st;
            assert(!sqlite3_stmt_busy(q.st));
            return q;
        }
    assert(c->n_cached < (int)(sizeof c->cache / sizeof c->cache[0]));
    int rc = sqlite3_prepare_v3(c->h, sql, -1, SQLITE_PREPARE_PERSISTENT, &q.st, NULL);
    if (rc != SQLITE_OK) {
        q.status = db_fail(c, rc, err);
        return q;
    }
    c->cache[c->n_cached].sql = sql;
    c->cache[c->n_cached++].st = q.st;
    return q;
}

static void check(db_stmt *q, int rc) {
    if (rc != SQLITE_OK) q->status = db_fail(q->c, rc, q->err);
}

void db_bind_i64(db_stmt *q, int i, int64_t v) {
    if (!q->status) check(q, sqlite3_bind_int64(q->st, i, v));
}

void db_bind_f64(db_stmt *q, int i, double v) {
    if (!q->status) check(q, v >= 0 ? sqlite3_bind_double(q->st, i, v) : sqlite3_bind_null(q->st, i));
}

void db_bind_text(db_stmt *q, int i, const char *text) {
    if (!q->status) check(q, sqlite3_bind_text(q->st, i, text, -1, SQLITE_STATIC));
}

bool db_row(db_stmt *q) {
    if (q->status) return false;
    int rc = sqlite3_step(q->st);
    if (rc == SQLITE_ROW) return true;
    if (rc != SQLITE_DONE) q->status = db_fail(q->c, rc, q->err);
    return false;
}

int64_t db_i64(db_stmt *q, int col) {
    return sqlite3_column_int64(q->st, col);
}

double db_f64(db_stmt *q, int col) {
    return sqlite3_column_type(q->st, col) == SQLITE_NULL ? -1 : sqlite3_column_double(q->st, col);
}

void db_text(db_stmt *q, int col, char *ret, size_t cap) {
    const char *t = (const char *)sqlite3_column_text(q->st, col);
    snprintf(ret, cap, "%s", t ? t : "");
}

char *db_text_dup(db_stmt *q, int col) {
    if (sqlite3_column_type(q->st, col) == SQLITE_NULL) return NULL;
    const char *t = (const char *)sqlite3_column_text(q->st, col);
    char *s = t ? dr_strdup(t) : NULL;
    if (!s && !q->status) q->status = dr_fail(q->err, DR_NOMEM, "no memory for a row");
    return s;
}

dr_status db_end(db_stmt *q) {
    if (q->st) {
        sqlite3_reset(q->st);
        sqlite3_clear_bindings(q->st);
    }
    return q->status;
}

dr_status db_run(db_stmt *q) {
    while (db_row(q)) {
    }
    return db_end(q);
}

dr_status db_check_object(db_conn *c, const char *json, dr_error *err) {
    db_stmt q = db_sql(c, "SELECT iif(json_valid(?1), json_type(?1) = 'object', 0)", err);
    db_bind_text(&q, 1, json);
    bool good = db_row(&q) && db_i64(&q, 0);
    dr_status s = db_end(&q);
    return s || good ? s
                     : dr_fail_as(err, DR_INVALID, "invalid_row", "this is no JSON object: %.60s", json ? json : "");
}

int db_changes(db_conn *c) {
    return sqlite3_changes(c->h);
}
