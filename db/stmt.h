/* stmt.h - one SQLite connection with its prepared statements, and a statement with a sticky error.
 *
 *   db_stmt q = db_sql(c, "SELECT x FROM t WHERE id = ?1", err);
 *   db_bind_text(&q, 1, id);
 *   if (db_row(&q)) x = db_i64(&q, 0);
 *   s = db_end(&q);
 *
 * After the first failure every call does nothing; db_end() resets the statement (so that no reader pins the WAL) and
 * says how it went. SQL texts are constants: the statement cache of a connection is keyed by their address. A
 * connection is used by one thread at a time (opened with NOMUTEX). */
#ifndef DB_STMT_H
#define DB_STMT_H

#include "core/base/status.h"
#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The database's clock in ms, to be pasted into SQL. Constant within a statement. */
#define DB_NOW "CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER)"

typedef struct db_conn {
    sqlite3 *h;
    struct {
        const char *sql;
        sqlite3_stmt *st;
    } cache[256];
    int n_cached;
    struct db_conn *next; /* the store's list of idle readers */
} db_conn;

DR_MUSTUSE dr_status db_conn_open(const char *path, bool writer, db_conn **ret, dr_error *err);
void db_conn_close(db_conn *c);
DR_MUSTUSE dr_status db_exec(db_conn *c, const char *sql, dr_error *err); /* one or more statements without results */
void db_try(db_conn *c, const char *sql); /* the same where a failure changes nothing (rolling back, housekeeping) */

/* The connection's last failure as a status with words that hold no SQL. */
dr_status db_fail(db_conn *c, int rc, dr_error *err);

typedef struct db_stmt {
    db_conn *c;
    sqlite3_stmt *st;
    dr_error *err;
    dr_status status;
} db_stmt;

db_stmt db_sql(db_conn *c, const char *sql, dr_error *err);
void db_bind_i64(db_stmt *q, int i, int64_t v);
void db_bind_f64(db_stmt *q, int i, double v);          /* negative binds NULL: all our reals are >= 0 */
void db_bind_text(db_stmt *q, int i, const char *text); /* borrowed until db_end; NULL binds NULL */
bool db_row(db_stmt *q);                                /* true: a row is there; false: done or failed */
int64_t db_i64(db_stmt *q, int col);
double db_f64(db_stmt *q, int col);                       /* NULL gives -1 */
void db_text(db_stmt *q, int col, char *ret, size_t cap); /* NULL gives ""; longer than cap - 1 is cut */
char *db_text_dup(db_stmt *q, int col); /* caller frees; NULL for NULL; without memory the statement fails */
DR_MUSTUSE dr_status db_end(db_stmt *q);
DR_MUSTUSE dr_status db_run(db_stmt *q); /* step through to the end, then db_end */
DR_MUSTUSE dr_status db_check_object(db_conn *c, const char *json, dr_error *err); /* INVALID unless a JSON object */
int db_changes(db_conn *c);                                                        /* rows the last statement changed */

#endif
