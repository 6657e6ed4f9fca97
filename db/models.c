/* models.c - the table of model versions. */
#include "db/models.h"
#include "core/base/alloc.h"
#include "db/internal.h"
#include <string.h>

void db_model_clear(db_model *m) {
    if (!m) return;
    dr_free(m->arch_json);
    dr_free(m->card);
    *m = (db_model){0};
}

void db_model_list_clear(db_model *list, size_t n) {
    for (size_t i = 0; list && i < n; i++) db_model_clear(&list[i]);
    dr_free(list);
}

typedef struct put_req {
    db_req base;
    const db_model *in;
    bool replace;
} put_req;

static dr_status put_run(db_store *db, db_conn *c, db_req *base, dr_error *err) {
    (void)db;
    const put_req *r = (const put_req *)base;
    const db_model *m = r->in;
    char sha[65] = "";
    dr_status s = m->arch_json ? db_check_object(c, m->arch_json, err) : DR_OK;
    if (s) return s;
    db_stmt q = db_sql(c, "SELECT sha256 FROM models WHERE name = ?1 AND version = ?2", err);
    db_bind_text(&q, 1, m->name);
    db_bind_i64(&q, 2, m->version);
    if (db_row(&q)) db_text(&q, 0, sha, sizeof sha);
    if ((s = db_end(&q))) return s;
    if (*sha && strcmp(sha, m->sha256) != 0 && !r->replace)
        return dr_fail_as(err, DR_CONFLICT, "model_version_changed",
                          "model %s version %lld is known with other weights: give the new ones a new version", m->name,
                          (long long)m->version);
    if (m->is_default) {
        q = db_sql(c, "UPDATE models SET is_default = 0 WHERE name = ?1 AND version <> ?2", err);
        db_bind_text(&q, 1, m->name);
        db_bind_i64(&q, 2, m->version);
        if ((s = db_run(&q))) return s;
    }
    q = db_sql(c,
               "INSERT INTO models VALUES (?1, ?2, ?3, ?4, " DB_NOW
               ", ?5, ?6, ?7) ON CONFLICT (name, version) DO UPDATE SET"
               " created_at = iif(sha256 = excluded.sha256, created_at, excluded.created_at), sha256 = excluded.sha256,"
               " bytes = excluded.bytes, is_default = max(is_default, excluded.is_default), arch = excluded.arch,"
               " card = excluded.card",
               err);
    db_bind_text(&q, 1, m->name);
    db_bind_i64(&q, 2, m->version);
    db_bind_text(&q, 3, m->sha256);
    db_bind_i64(&q, 4, m->bytes);
    db_bind_i64(&q, 5, m->is_default);
    db_bind_text(&q, 6, m->arch_json ? m->arch_json : "{}");
    db_bind_text(&q, 7, m->card);
    return db_run(&q);
}

dr_status db_model_put(db_store *db, const db_model *in, bool replace, dr_error *err) {
    put_req r = {.base = {.run = put_run}, .in = in, .replace = replace};
    return db_call(db, &r.base, err);
}

#define MODEL_COLUMNS "name, version, sha256, bytes, created_at, is_default, arch, card"

static void read_row(db_stmt *q, db_model *m) {
    *m = (db_model){0};
    db_text(q, 0, m->name, sizeof m->name);
    m->version = db_i64(q, 1);
    db_text(q, 2, m->sha256, sizeof m->sha256);
    m->bytes = db_i64(q, 3);
    m->created_ms = db_i64(q, 4);
    m->is_default = db_i64(q, 5) != 0;
    m->arch_json = db_text_dup(q, 6);
    m->card = db_text_dup(q, 7);
}

dr_status db_model_get(db_store *db, const char *name, int64_t version, db_model *ret, dr_error *err) {
    db_conn *c;
    db_model m = {0};
    dr_status s = db_reader_take(db, &c, err);
    if (s) return s;
    db_stmt q = db_sql(
        c, "SELECT " MODEL_COLUMNS " FROM models WHERE name = ?1 AND (version = ?2 OR (?2 = 0 AND is_default = 1))",
        err);
    db_bind_text(&q, 1, name);
    db_bind_i64(&q, 2, version);
    bool found = db_row(&q);
    if (found) read_row(&q, &m);
    s = db_end(&q);
    db_reader_give(db, c);
    if (!s && !found) s = dr_fail_as(err, DR_NOT_FOUND, "model_not_found", "there is no such model");
    if (s)
        db_model_clear(&m);
    else
        *ret = m;
    return s;
}

dr_status db_model_list(db_store *db, db_model **ret, size_t *ret_n, dr_error *err) {
    db_conn *c;
    db_model *list = NULL;
    size_t n = 0;
    dr_status s = db_reader_take(db, &c, err);
    if (s) return s;
    db_stmt q = db_sql(c, "SELECT " MODEL_COLUMNS " FROM models ORDER BY name, version DESC LIMIT 500", err);
    while (db_row(&q)) {
        db_model *grown = dr_realloc(list, (n + 1) * sizeof *list);
        if (!grown) {
            q.status = dr_fail(err, DR_NOMEM, "no memory for a list of models");
            break;
        }
        list = grown;
        read_row(&q, &list[n++]);
    }
    s = db_end(&q);
    db_reader_give(db, c);
    if (s) {
        db_model_list_clear(list, n);
        return s;
    }
    *ret = list;
    *ret_n = n;
    return DR_OK;
}
