/* blobs.c - the tables of blobs and of the facts about them. */
#include "db/blobs.h"
#include "core/base/alloc.h"
#include "db/internal.h"
#include <string.h>

bool db_sha_valid(const char *sha256) {
    return strspn(sha256, "0123456789abcdef") == 64 && !sha256[64];
}

/* --- writes --- */

typedef struct blob_req {
    db_req base;
    const char *sha256;
    int64_t bytes, ttl_ms;
    bool made;
    char (*list)[DB_SHA];
    size_t n;
} blob_req;

static dr_status put_run(db_store *db, db_conn *c, db_req *base, dr_error *err) {
    (void)db;
    blob_req *r = (blob_req *)base;
    r->made = false;
    db_stmt q = db_sql(c, "INSERT INTO blobs VALUES (?1, ?2, " DB_NOW ", " DB_NOW ") ON CONFLICT DO NOTHING", err);
    db_bind_text(&q, 1, r->sha256);
    db_bind_i64(&q, 2, r->bytes);
    dr_status s = db_run(&q);
    if (s) return s;
    if (db_changes(c)) {
        r->made = true;
        return DR_OK;
    }
    q = db_sql(c, "UPDATE blobs SET free_since = " DB_NOW " WHERE sha256 = ?1 AND free_since > 0", err);
    db_bind_text(&q, 1, r->sha256);
    return db_run(&q);
}

dr_status db_blob_put(db_store *db, const char *sha256, int64_t bytes, bool *ret_new, dr_error *err) {
    blob_req r = {.base = {.run = put_run}, .sha256 = sha256, .bytes = bytes};
    if (!db_sha_valid(sha256)) return dr_fail_as(err, DR_INVALID, "bad_sha256", "'%.70s' is no SHA-256", sha256);
    dr_status s = db_call(db, &r.base, err);
    if (!s && ret_new) *ret_new = r.made;
    return s;
}

static dr_status missing(dr_error *err) {
    return dr_fail_as(err, DR_NOT_FOUND, "blob_not_found", "no such blob is here");
}

static dr_status delete_run(db_store *db, db_conn *c, db_req *base, dr_error *err) {
    (void)db;
    const blob_req *r = (const blob_req *)base;
    db_stmt q = db_sql(c, "DELETE FROM blobs WHERE sha256 = ?1 AND free_since > 0", err);
    db_bind_text(&q, 1, r->sha256);
    dr_status s = db_run(&q);
    if (s || db_changes(c)) return s;
    q = db_sql(c, "SELECT 1 FROM blobs WHERE sha256 = ?1", err);
    db_bind_text(&q, 1, r->sha256);
    bool there = db_row(&q);
    if ((s = db_end(&q))) return s;
    if (!there) return missing(err);
    return dr_fail_as(err, DR_CONFLICT, "blob_in_use", "a data set or a comparison holds this picture");
}

dr_status db_blob_delete(db_store *db, const char *sha256, dr_error *err) {
    blob_req r = {.base = {.run = delete_run}, .sha256 = sha256};
    return db_call(db, &r.base, err);
}

static dr_status take_run(db_store *db, db_conn *c, db_req *base, dr_error *err) {
    (void)db;
    blob_req *r = (blob_req *)base;
    r->n = 0;
    db_stmt q = db_sql(c,
                       "DELETE FROM blobs WHERE sha256 IN (SELECT sha256 FROM blobs WHERE free_since > 0"
                       " AND free_since <= " DB_NOW " - ?1 LIMIT ?2) RETURNING sha256",
                       err);
    db_bind_i64(&q, 1, r->ttl_ms);
    db_bind_i64(&q, 2, DB_BLOBS_MAX);
    while (db_row(&q)) db_text(&q, 0, r->list[r->n++], DB_SHA);
    return db_end(&q);
}

dr_status db_blobs_take_free(db_store *db, int64_t ttl_ms, char (*ret)[DB_SHA], size_t *ret_n, dr_error *err) {
    blob_req r = {.base = {.run = take_run}, .ttl_ms = ttl_ms, .list = ret};
    dr_status s = db_call(db, &r.base, err);
    if (!s) *ret_n = r.n;
    return s;
}

typedef struct facts_req {
    db_req base;
    const db_facts *list;
    size_t n;
} facts_req;

static dr_status facts_run(db_store *db, db_conn *c, db_req *base, dr_error *err) {
    (void)db;
    const facts_req *r = (const facts_req *)base;
    dr_status s = DR_OK;
    for (size_t i = 0; i < r->n && !s; i++) {
        const db_facts *f = &r->list[i];
        db_stmt q = db_sql(c,
                           "INSERT OR REPLACE INTO blob_facts (sha256, edition, code, detail, format, width, height,"
                           " bit_depth, channels, grey, pixels, look, rain)"
                           " SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13"
                           " WHERE EXISTS (SELECT 1 FROM blobs WHERE sha256 = ?1)",
                           err);
        db_bind_text(&q, 1, f->sha256);
        db_bind_i64(&q, 2, DB_FACTS_EDITION);
        db_bind_text(&q, 3, *f->code ? f->code : NULL);
        db_bind_text(&q, 4, *f->code ? f->detail : NULL);
        db_bind_text(&q, 5, f->format);
        db_bind_i64(&q, 6, f->width);
        db_bind_i64(&q, 7, f->height);
        db_bind_i64(&q, 8, f->bit_depth);
        db_bind_i64(&q, 9, f->channels);
        db_bind_i64(&q, 10, f->grey);
        db_bind_text(&q, 11, f->pixels);
        db_bind_text(&q, 12, *f->look ? f->look : NULL);
        db_bind_f64(&q, 13, f->rain);
        s = db_run(&q);
    }
    return s;
}

dr_status db_facts_put(db_store *db, const db_facts *list, size_t n, dr_error *err) {
    facts_req r = {.base = {.run = facts_run}, .list = list, .n = n};
    return n ? db_call(db, &r.base, err) : DR_OK;
}

/* --- reads --- */

dr_status db_blob_get(db_store *db, const char *sha256, db_blob *ret, dr_error *err) {
    db_conn *c;
    db_blob b = {0};
    dr_status s = db_reader_take(db, &c, err);
    if (s) return s;
    db_stmt q = db_sql(c, "SELECT sha256, bytes, created_at, free_since FROM blobs WHERE sha256 = ?1", err);
    db_bind_text(&q, 1, sha256);
    bool found = db_row(&q);
    if (found) {
        db_text(&q, 0, b.sha256, sizeof b.sha256);
        b.bytes = db_i64(&q, 1);
        b.created_ms = db_i64(&q, 2);
        b.free_since_ms = db_i64(&q, 3);
    }
    s = db_end(&q);
    db_reader_give(db, c);
    if (!s && !found) s = missing(err);
    if (!s) *ret = b;
    return s;
}

dr_status db_blob_totals(db_store *db, int64_t *ret_n, int64_t *ret_bytes, dr_error *err) {
    db_conn *c;
    int64_t n = 0, bytes = 0;
    dr_status s = db_reader_take(db, &c, err);
    if (s) return s;
    db_stmt q = db_sql(c, "SELECT count(*), coalesce(sum(bytes), 0) FROM blobs", err);
    if (db_row(&q)) {
        n = db_i64(&q, 0);
        bytes = db_i64(&q, 1);
    }
    s = db_end(&q);
    db_reader_give(db, c);
    if (!s) {
        *ret_n = n;
        *ret_bytes = bytes;
    }
    return s;
}
