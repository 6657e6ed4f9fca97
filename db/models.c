/* models.c - the table of model versions, and the stack of defaults that each name has.
 *
 * is_default is the cache of the stack's top: every write that moves the top sets both in one transaction. */
#include "db/models.h"
#include "core/base/alloc.h"
#include "db/internal.h"
#include <string.h>

void db_model_clear(db_model *m) {
    if (!m) return;
    dr_free(m->arch_json);
    dr_free(m->about_json);
    dr_free(m->card);
    dr_free(m->measures_json);
    dr_free(m->gate_json);
    dr_free(m->path);
    *m = (db_model){0};
}

void db_model_list_clear(db_model *list, size_t n) {
    for (size_t i = 0; list && i < n; i++) db_model_clear(&list[i]);
    dr_free(list);
}

const char *db_origin_name(db_origin o) {
    static const char *const names[] = {"configured", "trained", "imported"};
    return names[o];
}

const char *db_verdict_name(db_verdict v) {
    static const char *const names[] = {NULL, "accepted", "rejected"};
    return names[v];
}

/* --- steps that the writes share --- */

static dr_status bump(db_conn *c, const char *name, dr_error *err) {
    db_stmt q = db_sql(c,
                       "INSERT INTO model_names (name) VALUES (?1)"
                       " ON CONFLICT (name) DO UPDATE SET revision = revision + 1",
                       err);
    db_bind_text(&q, 1, name);
    return db_run(&q);
}

static dr_status read_i64(db_conn *c, const char *sql, const char *name, int64_t version, int64_t *ret, bool *ret_found,
                          dr_error *err) {
    db_stmt q = db_sql(c, sql, err);
    db_bind_text(&q, 1, name);
    if (version) db_bind_i64(&q, 2, version);
    *ret_found = db_row(&q);
    if (*ret_found) *ret = db_i64(&q, 0);
    return db_end(&q);
}

static dr_status no_model(dr_error *err) {
    return dr_fail_as(err, DR_NOT_FOUND, "model_not_found", "there is no such model");
}

/* The stack's top and the flag of the row that it names. */
static dr_status move_top(db_conn *c, const char *name, int64_t version, bool roll_back, dr_error *err) {
    int64_t top = 0;
    bool found;
    dr_status s;
    db_stmt q;
    if (roll_back) {
        q = db_sql(c,
                   "DELETE FROM model_defaults WHERE name = ?1 AND seq > (SELECT max(seq) FROM model_defaults"
                   " WHERE name = ?1 AND version = ?2)",
                   err);
        db_bind_text(&q, 1, name);
        db_bind_i64(&q, 2, version);
        if ((s = db_run(&q))) return s;
    }
    s = read_i64(c, "SELECT version FROM model_defaults WHERE name = ?1 ORDER BY seq DESC LIMIT 1", name, 0, &top,
                 &found, err);
    if (s) return s;
    if (!found || top != version) {
        q = db_sql(c,
                   "INSERT INTO model_defaults VALUES (?1, coalesce((SELECT max(seq) FROM model_defaults"
                   " WHERE name = ?1), 0) + 1, ?2, " DB_NOW ")",
                   err);
        db_bind_text(&q, 1, name);
        db_bind_i64(&q, 2, version);
        if ((s = db_run(&q))) return s;
    }
    q = db_sql(c,
               "DELETE FROM model_defaults WHERE name = ?1 AND seq <="
               " (SELECT max(seq) FROM model_defaults WHERE name = ?1) - 100",
               err);
    db_bind_text(&q, 1, name);
    if ((s = db_run(&q))) return s;
    /* two statements: the index allows one default a name at any moment */
    q = db_sql(c, "UPDATE models SET is_default = 0 WHERE name = ?1 AND version <> ?2", err);
    db_bind_text(&q, 1, name);
    db_bind_i64(&q, 2, version);
    if ((s = db_run(&q))) return s;
    q = db_sql(c, "UPDATE models SET is_default = 1 WHERE name = ?1 AND version = ?2", err);
    db_bind_text(&q, 1, name);
    db_bind_i64(&q, 2, version);
    return db_run(&q);
}

/* --- configured models --- */

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
    q = db_sql(c,
               "INSERT INTO models (name, version, sha256, bytes, created_at, is_default, arch, card, path, about)"
               " VALUES (?1, ?2, ?3, ?4, " DB_NOW ", 0, ?5, ?6, ?7, ?8) ON CONFLICT (name, version) DO UPDATE SET"
               " created_at = iif(sha256 = excluded.sha256, created_at, excluded.created_at), sha256 = excluded.sha256,"
               " bytes = excluded.bytes, arch = excluded.arch, card = excluded.card, path = excluded.path,"
               " about = excluded.about",
               err);
    db_bind_text(&q, 1, m->name);
    db_bind_i64(&q, 2, m->version);
    db_bind_text(&q, 3, m->sha256);
    db_bind_i64(&q, 4, m->bytes);
    db_bind_text(&q, 5, m->arch_json ? m->arch_json : "{}");
    db_bind_text(&q, 6, m->card);
    db_bind_text(&q, 7, m->path ? m->path : "");
    db_bind_text(&q, 8, m->about_json ? m->about_json : "{}");
    if ((s = db_run(&q))) return s;
    q = db_sql(c, "UPDATE models SET configured = (name = ?1 AND version = ?2)", err);
    db_bind_text(&q, 1, m->name);
    db_bind_i64(&q, 2, m->version);
    if ((s = db_run(&q))) return s;
    int64_t top = 0;
    bool found;
    s = read_i64(c, "SELECT version FROM models WHERE name = ?1 AND is_default = 1", m->name, 0, &top, &found, err);
    if (!s && m->is_default && !(found && top == m->version)) s = move_top(c, m->name, m->version, false, err);
    bool same = !strcmp(sha, m->sha256) && (!m->is_default || (found && top == m->version));
    return s || same ? s : bump(c, m->name, err);
}

dr_status db_model_put(db_store *db, const db_model *in, bool replace, dr_error *err) {
    put_req r = {.base = {.run = put_run}, .in = in, .replace = replace};
    return db_call(db, &r.base, err);
}

/* --- new versions, verdicts, defaults --- */

typedef struct add_req {
    db_req base;
    const db_model *in;
} add_req;

static dr_status add_run(db_store *db, db_conn *c, db_req *base, dr_error *err) {
    (void)db;
    const db_model *m = ((const add_req *)base)->in;
    int64_t there;
    bool found;
    const char *const texts[] = {m->arch_json, m->about_json, m->measures_json, m->gate_json};
    dr_status s = read_i64(c, "SELECT version FROM models WHERE name = ?1 AND version = ?2", m->name, m->version,
                           &there, &found, err);
    for (int i = 0; i < 4 && !s; i++)
        if (texts[i]) s = db_check_object(c, texts[i], err);
    if (s) return s;
    if (found)
        return dr_fail_as(err, DR_CONFLICT, "model_version_exists", "model %s has a version %lld already", m->name,
                          (long long)m->version);
    db_stmt q =
        db_sql(c,
               "INSERT INTO models (name, version, sha256, bytes, created_at, is_default, arch, card, origin,"
               " verdict, parent, dataset, job, measures, gate, path, about, step) VALUES (?1, ?2, ?3, ?4, " DB_NOW
               ", 0, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
               err);
    db_bind_text(&q, 1, m->name);
    db_bind_i64(&q, 2, m->version);
    db_bind_text(&q, 3, m->sha256);
    db_bind_i64(&q, 4, m->bytes);
    db_bind_text(&q, 5, m->arch_json ? m->arch_json : "{}");
    db_bind_text(&q, 6, m->card);
    db_bind_text(&q, 7, db_origin_name(m->origin));
    db_bind_text(&q, 8, db_verdict_name(m->verdict));
    db_bind_i64(&q, 9, m->parent);
    db_bind_text(&q, 10, m->dataset);
    db_bind_text(&q, 11, m->job);
    db_bind_text(&q, 12, m->measures_json);
    db_bind_text(&q, 13, m->gate_json);
    db_bind_text(&q, 14, m->path ? m->path : "");
    db_bind_text(&q, 15, m->about_json ? m->about_json : "{}");
    db_bind_i64(&q, 16, m->step);
    if ((s = db_run(&q))) return s;
    return bump(c, m->name, err);
}

dr_status db_model_add(db_store *db, const db_model *in, dr_error *err) {
    add_req r = {.base = {.run = add_run}, .in = in};
    return db_call(db, &r.base, err);
}

typedef struct judge_req {
    db_req base;
    const char *name, *gate, *measures;
    int64_t version;
    db_verdict verdict;
} judge_req;

static dr_status judge_run(db_store *db, db_conn *c, db_req *base, dr_error *err) {
    (void)db;
    const judge_req *r = (const judge_req *)base;
    dr_status s = r->gate ? db_check_object(c, r->gate, err) : DR_OK;
    if (!s && r->measures) s = db_check_object(c, r->measures, err);
    if (s) return s;
    db_stmt q = db_sql(c,
                       "UPDATE models SET verdict = ?3, gate = coalesce(?4, gate), measures = coalesce(?5, measures)"
                       " WHERE name = ?1 AND version = ?2",
                       err);
    db_bind_text(&q, 1, r->name);
    db_bind_i64(&q, 2, r->version);
    db_bind_text(&q, 3, db_verdict_name(r->verdict));
    db_bind_text(&q, 4, r->gate);
    db_bind_text(&q, 5, r->measures);
    if ((s = db_run(&q))) return s;
    if (db_changes(c) != 1) return no_model(err);
    return bump(c, r->name, err);
}

dr_status db_model_judge(db_store *db, const char *name, int64_t version, db_verdict verdict, const char *gate_json,
                         const char *measures_json, dr_error *err) {
    judge_req r = {.base = {.run = judge_run},
                   .name = name,
                   .version = version,
                   .verdict = verdict,
                   .gate = gate_json,
                   .measures = measures_json};
    return db_call(db, &r.base, err);
}

typedef struct default_req {
    db_req base;
    const char *name;
    int64_t version, revision, new_revision;
    bool roll_back;
} default_req;

static const char revision_sql[] = "SELECT revision FROM model_names WHERE name = ?1";

static dr_status default_run(db_store *db, db_conn *c, db_req *base, dr_error *err) {
    (void)db;
    default_req *r = (default_req *)base;
    int64_t now = 0, there = 0;
    bool found, known;
    dr_status s = read_i64(c, revision_sql, r->name, 0, &now, &found, err);
    if (!s)
        s = read_i64(c, "SELECT version FROM models WHERE name = ?1 AND version = ?2", r->name, r->version, &there,
                     &known, err);
    if (s) return s;
    if (!found || !known) return no_model(err);
    if (r->revision && r->revision != now) {
        s = dr_fail_as(err, DR_CONFLICT, "revision_changed", "model %s was changed meanwhile: its revision is %lld",
                       r->name, (long long)now);
        if (err) err->actual = now;
        return s;
    }
    s = move_top(c, r->name, r->version, r->roll_back, err);
    if (!s) s = bump(c, r->name, err);
    r->new_revision = now + 1;
    return s;
}

dr_status db_model_set_default(db_store *db, const char *name, int64_t version, int64_t revision, bool roll_back,
                               int64_t *ret_revision, dr_error *err) {
    default_req r = {
        .base = {.run = default_run}, .name = name, .version = version, .revision = revision, .roll_back = roll_back};
    dr_status s = db_call(db, &r.base, err);
    if (!s && ret_revision) *ret_revision = r.new_revision;
    return s;
}

/* --- reading --- */

dr_status db_model_revision(db_store *db, const char *name, int64_t *ret, dr_error *err) {
    db_conn *c;
    bool found = false;
    dr_status s = db_reader_take(db, &c, err);
    if (s) return s;
    s = read_i64(c, revision_sql, name, 0, ret, &found, err);
    db_reader_give(db, c);
    return !s && !found ? no_model(err) : s;
}

dr_status db_model_previous(db_store *db, const char *name, int64_t *ret_version, dr_error *err) {
    db_conn *c;
    bool found = false, known = false;
    int64_t top = 0;
    dr_status s = db_reader_take(db, &c, err);
    if (s) return s;
    s = read_i64(c, revision_sql, name, 0, &top, &known, err);
    if (!s)
        s = read_i64(c,
                     "SELECT d.version FROM model_defaults d JOIN models m USING (name, version)"
                     " WHERE d.name = ?1 AND m.is_default = 0 AND m.verdict IS NOT 'rejected'"
                     " ORDER BY d.seq DESC LIMIT 1",
                     name, 0, ret_version, &found, err);
    db_reader_give(db, c);
    if (s) return s;
    if (!known) return no_model(err);
    return found ? DR_OK
                 : dr_fail_as(err, DR_CONFLICT, "no_previous_version",
                              "model %s has had no other default to go back to", name);
}

#define MODEL_COLUMNS                                                                                                  \
    "name, version, sha256, bytes, created_at, is_default, arch, card, origin, verdict, parent, dataset, job,"         \
    " measures, gate, path, about, configured, step"

static void read_row(db_stmt *q, db_model *m) {
    char word[16];
    *m = (db_model){0};
    db_text(q, 0, m->name, sizeof m->name);
    m->version = db_i64(q, 1);
    db_text(q, 2, m->sha256, sizeof m->sha256);
    m->bytes = db_i64(q, 3);
    m->created_ms = db_i64(q, 4);
    m->is_default = db_i64(q, 5) != 0;
    m->arch_json = db_text_dup(q, 6);
    m->card = db_text_dup(q, 7);
    db_text(q, 8, word, sizeof word);
    m->origin = *word == 't' ? DB_TRAINED : *word == 'i' ? DB_IMPORTED : DB_CONFIGURED;
    db_text(q, 9, word, sizeof word);
    m->verdict = *word == 'a' ? DB_ACCEPTED : *word == 'r' ? DB_REJECTED : DB_NOT_JUDGED;
    m->parent = db_i64(q, 10);
    db_text(q, 11, m->dataset, sizeof m->dataset);
    db_text(q, 12, m->job, sizeof m->job);
    m->measures_json = db_text_dup(q, 13);
    m->gate_json = db_text_dup(q, 14);
    m->path = db_text_dup(q, 15);
    m->about_json = db_text_dup(q, 16);
    m->configured = db_i64(q, 17) != 0;
    m->step = db_i64(q, 18);
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
    if (!s && !found) s = no_model(err);
    if (s)
        db_model_clear(&m);
    else
        *ret = m;
    return s;
}

dr_status db_model_of_job(db_store *db, const char *name, const char *job, int64_t step, int64_t *ret_version,
                          dr_error *err) {
    db_conn *c;
    int64_t version = 0;
    dr_status s = db_reader_take(db, &c, err);
    if (s) return s;
    db_stmt q = db_sql(c, "SELECT max(version) FROM models WHERE name = ?1 AND job = ?2 AND step = ?3", err);
    db_bind_text(&q, 1, name);
    db_bind_text(&q, 2, job);
    db_bind_i64(&q, 3, step);
    if (db_row(&q)) version = db_i64(&q, 0);
    s = db_end(&q);
    db_reader_give(db, c);
    if (!s && !version) return no_model(err);
    if (!s) *ret_version = version;
    return s;
}

dr_status db_model_list(db_store *db, const char *name, int64_t before, db_model **ret, size_t *ret_n, dr_error *err) {
    db_conn *c;
    db_model *list = NULL;
    size_t n = 0;
    dr_status s = db_reader_take(db, &c, err);
    if (s) return s;
    db_stmt q =
        db_sql(c,
               "SELECT " MODEL_COLUMNS " FROM models WHERE (?1 IS NULL OR name = ?1) AND (?2 = 0 OR version < ?2)"
               " ORDER BY name, version DESC LIMIT 500",
               err);
    db_bind_text(&q, 1, name);
    db_bind_i64(&q, 2, before);
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
