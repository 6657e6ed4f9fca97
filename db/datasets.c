/* datasets.c - data sets and their entries. Counts and sums are kept by the schema's triggers. */
#include "db/datasets.h"
#include "core/base/alloc.h"
#include "db/internal.h"
#include <stdio.h>
#include <string.h>

static const char *const part_names[DB_N_PARTS] = {"rainy", "clean", "paired/rainy", "paired/clean"};
static const char *const state_names[DB_DS_N_STATES] = {"open", "validating", "ready", "rejected"};

const char *db_part_name(db_part p) {
    return part_names[p];
}
const char *db_ds_state_name(db_ds_state s) {
    return state_names[s];
}

bool db_ds_state_parse(const char *name, db_ds_state *ret) {
    for (int i = 0; i < DB_DS_N_STATES; i++)
        if (!strcmp(name, state_names[i])) {
            *ret = (db_ds_state)i;
            return true;
        }
    return false;
}

void db_dataset_clear(db_dataset *d) {
    if (!d) return;
    dr_free(d->labels_json);
    dr_free(d->reasons_json);
    *d = (db_dataset){0};
}

/* --- rows --- */

#define DATASET_COLUMNS                                                                                                \
    "d.id, d.name, d.state, d.set_aside, d.created_at, d.sealed_at, d.validated_at, d.revision, d.n_rainy, d.n_clean," \
    " d.n_paired_rainy, d.n_paired_clean, d.bytes, d.labels, d.reasons,"                                               \
    " (SELECT count(*) FROM dataset_entries e WHERE e.dataset_id = d.id AND e.part = 0 AND e.aside IS NOT NULL),"      \
    " (SELECT count(*) FROM dataset_entries e WHERE e.dataset_id = d.id AND e.part = 1 AND e.aside IS NOT NULL),"      \
    " (SELECT count(*) FROM dataset_entries e WHERE e.dataset_id = d.id AND e.part = 2 AND e.aside IS NOT NULL),"      \
    " (SELECT count(*) FROM dataset_entries e WHERE e.dataset_id = d.id AND e.part = 3 AND e.aside IS NOT NULL)"

static void read_row(db_stmt *q, db_dataset *d) {
    char state[16];
    *d = (db_dataset){0};
    db_text(q, 0, d->id, sizeof d->id);
    db_text(q, 1, d->name, sizeof d->name);
    db_text(q, 2, state, sizeof state);
    (void)db_ds_state_parse(state, &d->state);
    d->set_aside = db_i64(q, 3) != 0;
    d->created_ms = db_i64(q, 4);
    d->sealed_ms = db_i64(q, 5);
    d->validated_ms = db_i64(q, 6);
    d->revision = db_i64(q, 7);
    for (int i = 0; i < DB_N_PARTS; i++) {
        d->files[i] = db_i64(q, 8 + i);
        d->aside[i] = db_i64(q, 15 + i);
    }
    d->bytes = db_i64(q, 12);
    d->labels_json = db_text_dup(q, 13);
    d->reasons_json = db_text_dup(q, 14);
}

static dr_status missing(db_conn *c, const char *id, dr_error *err) {
    db_stmt q = db_sql(c, "SELECT 1 FROM tombstones WHERE job_id = ?1 AND expires_at > " DB_NOW, err);
    db_bind_text(&q, 1, id);
    bool gone = db_row(&q);
    dr_status s = db_end(&q);
    if (s) return s;
    if (gone) return dr_fail_as(err, DR_NOT_FOUND, "dataset_gone", "data set %.40s was deleted", id);
    return dr_fail_as(err, DR_NOT_FOUND, "dataset_not_found", "there is no data set %.40s", id);
}

static dr_status load(db_conn *c, const char *id, db_dataset *ret, dr_error *err) {
    db_dataset d = {0};
    db_stmt q = db_sql(c, "SELECT " DATASET_COLUMNS " FROM datasets d WHERE d.id = ?1", err);
    db_bind_text(&q, 1, id);
    bool found = db_row(&q);
    if (found) read_row(&q, &d);
    dr_status s = db_end(&q);
    if (!s && !found) s = missing(c, id, err);
    if (s)
        db_dataset_clear(&d);
    else
        *ret = d;
    return s;
}

dr_status db_dataset_get(db_store *db, const char *id, db_dataset *ret, dr_error *err) {
    db_conn *c;
    dr_status s = db_reader_take(db, &c, err);
    if (s) return s;
    s = load(c, id, ret, err);
    db_reader_give(db, c);
    return s;
}

/* --- create --- */

typedef struct create_req {
    db_req base;
    const db_dataset_new *in;
    char id[DB_ID];
    db_dataset set;
    bool replayed;
} create_req;

/* NOT_FOUND with an empty `what`: the key is free. */
static dr_status idem_find(db_conn *c, const db_dataset_new *in, char ret_id[DB_ID], dr_error *err) {
    char hash[DB_SHA] = "", id[DB_ID] = "";
    db_stmt q = db_sql(c, "SELECT hash, job_id FROM idempotency WHERE key = ?1 AND expires_at > " DB_NOW, err);
    db_bind_text(&q, 1, in->idem_key);
    bool found = db_row(&q);
    if (found) {
        db_text(&q, 0, hash, sizeof hash);
        db_text(&q, 1, id, sizeof id);
    }
    dr_status s = db_end(&q);
    if (s) return s;
    if (!found) return DR_NOT_FOUND;
    if (strcmp(hash, in->idem_hash) != 0)
        return dr_fail_as(err, DR_CONFLICT, "idempotency_key_reused",
                          "this Idempotency-Key belongs to another request of the last day");
    memcpy(ret_id, id, sizeof id);
    return DR_OK;
}

static dr_status idem_put(db_store *db, db_conn *c, const create_req *r, dr_error *err) {
    db_stmt q = db_sql(c, "INSERT OR REPLACE INTO idempotency VALUES (?1, ?2, ?3, " DB_NOW " + ?4)", err);
    db_bind_text(&q, 1, r->in->idem_key);
    db_bind_text(&q, 2, r->in->idem_hash);
    db_bind_text(&q, 3, r->id);
    db_bind_i64(&q, 4, db_opts(db)->idempotency_ms);
    return db_run(&q);
}

static dr_status insert_entry(db_conn *c, const char *id, db_part part, const char *name, const char *sha256,
                              dr_error *err) {
    db_stmt q = db_sql(c, "INSERT INTO dataset_entries VALUES (?1, ?2, ?3, ?4, NULL)", err);
    db_bind_text(&q, 1, id);
    db_bind_i64(&q, 2, part);
    db_bind_text(&q, 3, name);
    db_bind_text(&q, 4, sha256);
    return db_run(&q);
}

static dr_status insert_all(db_conn *c, const create_req *r, dr_error *err) {
    dr_status s = DR_OK;
    for (size_t i = 0; i < r->in->n_entries && !s; i++) {
        const db_entry_new *e = &r->in->entries[i];
        db_stmt q = db_sql(c, "INSERT INTO blobs VALUES (?1, ?2, " DB_NOW ", " DB_NOW ") ON CONFLICT DO NOTHING", err);
        db_bind_text(&q, 1, e->sha256);
        db_bind_i64(&q, 2, e->bytes);
        s = db_run(&q);
        if (!s) s = insert_entry(c, r->id, e->part, e->name, e->sha256, err);
    }
    return s;
}

static dr_status create_run(db_store *db, db_conn *c, db_req *base, dr_error *err) {
    create_req *r = (create_req *)base;
    const char *labels = r->in->labels_json ? r->in->labels_json : "{}";
    db_dataset_clear(&r->set);
    r->replayed = false;
    if (r->in->idem_key) {
        char id[DB_ID];
        dr_status s = idem_find(c, r->in, id, err);
        if (!s) {
            r->replayed = true;
            return load(c, id, &r->set, err);
        }
        if (s != DR_NOT_FOUND) return s;
    }
    dr_status s = db_check_object(c, labels, err);
    if (s) return s;
    db_stmt q = db_sql(c,
                       "INSERT INTO datasets (id, name, state, created_at, labels)"
                       " VALUES (?1, ?2, 'open', " DB_NOW ", ?3)",
                       err);
    db_bind_text(&q, 1, r->id);
    db_bind_text(&q, 2, r->in->name && *r->in->name ? r->in->name : NULL);
    db_bind_text(&q, 3, labels);
    s = db_run(&q);
    if (!s) s = insert_all(c, r, err);
    if (!s && r->in->idem_key) s = idem_put(db, c, r, err);
    return s ? s : load(c, r->id, &r->set, err);
}

dr_status db_dataset_create(db_store *db, const db_dataset_new *in, db_dataset *ret, bool *ret_replayed,
                            dr_error *err) {
    create_req r = {.base = {.run = create_run}, .in = in};
    if (*in->id)
        snprintf(r.id, sizeof r.id, "%s", in->id);
    else
        db_id_new("ds_", r.id);
    dr_status s = db_call(db, &r.base, err);
    if (s) {
        db_dataset_clear(&r.set);
        return s;
    }
    *ret = r.set;
    if (ret_replayed) *ret_replayed = r.replayed;
    return DR_OK;
}

/* --- changes --- */

typedef struct change_req {
    db_req base;
    const char *id, *name, *sha256, *reasons;
    db_part part;
    int64_t files_max, bytes_max;
    bool flag; /* seal: set_aside; finish: ready; put: out, is new */
    const db_aside *aside;
    size_t n_aside;
    db_dataset set;
} change_req;

static dr_status load_open(db_conn *c, change_req *r, dr_error *err) {
    db_dataset_clear(&r->set);
    dr_status s = load(c, r->id, &r->set, err);
    if (!s && r->set.state != DB_DS_OPEN)
        s = dr_fail_as(err, DR_CONFLICT, "dataset_sealed", "the data set is %s and takes no changes any more",
                       state_names[r->set.state]);
    return s;
}

static dr_status check_room(const change_req *r, const db_dataset *now, dr_error *err) {
    int64_t files = 0;
    for (int i = 0; i < DB_N_PARTS; i++) files += now->files[i];
    if (files > r->files_max)
        return dr_fail_limit(err, "dataset_too_large", "dataset_files_max", r->files_max, files,
                             "a data set holds at most %lld pictures", (long long)r->files_max);
    if (now->bytes > r->bytes_max)
        return dr_fail_limit(err, "dataset_too_large", "dataset_bytes_max", r->bytes_max, now->bytes,
                             "the pictures of a data set have at most %lld bytes", (long long)r->bytes_max);
    return DR_OK;
}

static dr_status remove_entry(db_conn *c, const change_req *r, dr_error *err) {
    db_stmt q = db_sql(c, "DELETE FROM dataset_entries WHERE dataset_id = ?1 AND part = ?2 AND name = ?3", err);
    db_bind_text(&q, 1, r->id);
    db_bind_i64(&q, 2, r->part);
    db_bind_text(&q, 3, r->name);
    return db_run(&q);
}

static dr_status put_run(db_store *db, db_conn *c, db_req *base, dr_error *err) {
    (void)db;
    change_req *r = (change_req *)base;
    dr_status s = load_open(c, r, err);
    if (s) return s;
    db_stmt q = db_sql(c, "SELECT 1 FROM blobs WHERE sha256 = ?1", err);
    db_bind_text(&q, 1, r->sha256);
    bool there = db_row(&q);
    if ((s = db_end(&q))) return s;
    if (!there) return dr_fail_as(err, DR_NOT_FOUND, "blob_not_found", "no such blob is here; upload it first");
    if ((s = remove_entry(c, r, err))) return s;
    r->flag = db_changes(c) == 0;
    if ((s = insert_entry(c, r->id, r->part, r->name, r->sha256, err))) return s;
    db_dataset_clear(&r->set);
    if ((s = load(c, r->id, &r->set, err))) return s;
    return check_room(r, &r->set, err);
}

dr_status db_dataset_put(db_store *db, const char *id, db_part part, const char *name, const char *sha256,
                         int64_t files_max, int64_t bytes_max, bool *ret_new, dr_error *err) {
    change_req r = {.base = {.run = put_run},
                    .id = id,
                    .part = part,
                    .name = name,
                    .sha256 = sha256,
                    .files_max = files_max,
                    .bytes_max = bytes_max};
    dr_status s = db_call(db, &r.base, err);
    db_dataset_clear(&r.set);
    if (!s && ret_new) *ret_new = r.flag;
    return s;
}

static dr_status drop_run(db_store *db, db_conn *c, db_req *base, dr_error *err) {
    (void)db;
    change_req *r = (change_req *)base;
    dr_status s = load_open(c, r, err);
    if (!s) s = remove_entry(c, r, err);
    if (!s && !db_changes(c))
        s = dr_fail_as(err, DR_NOT_FOUND, "entry_not_found", "the data set has no picture of this name there");
    return s;
}

dr_status db_dataset_drop(db_store *db, const char *id, db_part part, const char *name, dr_error *err) {
    change_req r = {.base = {.run = drop_run}, .id = id, .part = part, .name = name};
    dr_status s = db_call(db, &r.base, err);
    db_dataset_clear(&r.set);
    return s;
}

static dr_status seal_run(db_store *db, db_conn *c, db_req *base, dr_error *err) {
    (void)db;
    change_req *r = (change_req *)base;
    db_dataset_clear(&r->set);
    dr_status s = load(c, r->id, &r->set, err);
    if (s || r->set.state != DB_DS_OPEN) return s;
    int64_t files = 0;
    for (int i = 0; i < DB_N_PARTS; i++) files += r->set.files[i];
    if (!files) return dr_fail_as(err, DR_INVALID, "dataset_empty", "the data set has no pictures yet");
    db_stmt q = db_sql(c,
                       "UPDATE datasets SET state = 'validating', sealed_at = " DB_NOW
                       ", set_aside = ?2, revision = revision + 1 WHERE id = ?1 AND state = 'open'",
                       err);
    db_bind_text(&q, 1, r->id);
    db_bind_i64(&q, 2, r->flag);
    if ((s = db_run(&q))) return s;
    db_dataset_clear(&r->set);
    return load(c, r->id, &r->set, err);
}

dr_status db_dataset_seal(db_store *db, const char *id, bool set_aside, db_dataset *ret, dr_error *err) {
    change_req r = {.base = {.run = seal_run}, .id = id, .flag = set_aside};
    dr_status s = db_call(db, &r.base, err);
    if (s)
        db_dataset_clear(&r.set);
    else
        *ret = r.set;
    return s;
}

static dr_status delete_run(db_store *db, db_conn *c, db_req *base, dr_error *err) {
    const change_req *r = (const change_req *)base;
    db_stmt q = db_sql(c,
                       "SELECT 1 FROM jobs j JOIN job_details d ON d.job_id = j.id WHERE j.finished_at = 0"
                       " AND j.type NOT IN ('derain', 'compare') AND json_extract(d.params, '$.dataset') = ?1 LIMIT 1",
                       err);
    db_bind_text(&q, 1, r->id);
    bool used = db_row(&q);
    dr_status s = db_end(&q);
    if (s) return s;
    if (used) return dr_fail_as(err, DR_CONFLICT, "dataset_in_use", "a job that has not ended works on this data set");
    q = db_sql(c, "DELETE FROM datasets WHERE id = ?1", err);
    db_bind_text(&q, 1, r->id);
    if ((s = db_run(&q))) return s;
    if (!db_changes(c)) return missing(c, r->id, err);
    q = db_sql(c, "INSERT OR REPLACE INTO tombstones VALUES (?1, " DB_NOW " + ?2)", err);
    db_bind_text(&q, 1, r->id);
    db_bind_i64(&q, 2, db_opts(db)->tombstone_ms);
    return db_run(&q);
}

dr_status db_dataset_delete(db_store *db, const char *id, dr_error *err) {
    change_req r = {.base = {.run = delete_run}, .id = id};
    return db_call(db, &r.base, err);
}

static dr_status finish_run(db_store *db, db_conn *c, db_req *base, dr_error *err) {
    (void)db;
    change_req *r = (change_req *)base;
    db_stmt q = db_sql(c,
                       "UPDATE datasets SET state = iif(?2, 'ready', 'rejected'), validated_at = " DB_NOW
                       ", reasons = ?3, revision = revision + 1 WHERE id = ?1 AND state = 'validating'",
                       err);
    db_bind_text(&q, 1, r->id);
    db_bind_i64(&q, 2, r->flag);
    db_bind_text(&q, 3, r->reasons);
    dr_status s = db_run(&q);
    if (s) return s;
    if (!db_changes(c)) {
        s = load(c, r->id, &r->set, err);
        return s ? s : dr_fail_as(err, DR_CONFLICT, "conflict", "the data set is not being validated");
    }
    q = db_sql(c, "UPDATE dataset_entries SET aside = NULL WHERE dataset_id = ?1 AND aside IS NOT NULL", err);
    db_bind_text(&q, 1, r->id);
    s = db_run(&q);
    for (size_t i = 0; i < r->n_aside && !s; i++) {
        q = db_sql(c, "UPDATE dataset_entries SET aside = ?4 WHERE dataset_id = ?1 AND part = ?2 AND name = ?3", err);
        db_bind_text(&q, 1, r->id);
        db_bind_i64(&q, 2, r->aside[i].part);
        db_bind_text(&q, 3, r->aside[i].name);
        db_bind_text(&q, 4, r->aside[i].code);
        s = db_run(&q);
    }
    return s;
}

dr_status db_dataset_finish(db_store *db, const char *id, bool ready, const char *reasons_json, const db_aside *aside,
                            size_t n_aside, dr_error *err) {
    change_req r = {.base = {.run = finish_run},
                    .id = id,
                    .flag = ready,
                    .reasons = reasons_json,
                    .aside = aside,
                    .n_aside = n_aside};
    dr_status s = db_call(db, &r.base, err);
    db_dataset_clear(&r.set);
    return s;
}

/* --- reads --- */

dr_status db_dataset_list(db_store *db, const db_dataset_filter *in, db_dataset_page *ret, dr_error *err) {
    char before[DB_ID] = "";
    size_t limit = in->limit > 0 && in->limit <= 500 ? (size_t)in->limit : 50;
    unsigned all = (1u << DB_DS_N_STATES) - 1, states = in->states & all ? in->states & all : all;
    db_conn *c;
    db_dataset_page page = {0};
    if (in->cursor && *in->cursor) {
        if (!strncmp(in->cursor, "d1", 2)) snprintf(before, sizeof before, "ds_%.28s", in->cursor + 2);
        if (!db_id_valid("ds_", before))
            return dr_fail_as(err, DR_INVALID, "bad_cursor", "this cursor was not made here");
    }
    if (!(page.sets = dr_calloc(limit, sizeof *page.sets))) return dr_fail(err, DR_NOMEM, "no memory for a list");
    dr_status s = db_reader_take(db, &c, err);
    if (s) {
        db_dataset_page_clear(&page);
        return s;
    }
    db_stmt q = db_sql(c,
                       "SELECT " DATASET_COLUMNS " FROM datasets d WHERE d.id < CASE ?1 WHEN '' THEN 'dt' ELSE ?1 END"
                       " AND (?2 >> CASE d.state WHEN 'open' THEN 0 WHEN 'validating' THEN 1 WHEN 'ready' THEN 2"
                       " ELSE 3 END) & 1 ORDER BY d.id DESC LIMIT ?3",
                       err);
    db_bind_text(&q, 1, before);
    db_bind_i64(&q, 2, states);
    db_bind_i64(&q, 3, (int64_t)limit + 1);
    bool more = false;
    while (!more && db_row(&q)) {
        more = page.n == limit;
        if (!more) read_row(&q, &page.sets[page.n++]);
    }
    s = db_end(&q);
    db_reader_give(db, c);
    if (!s && more) snprintf(page.next_cursor, sizeof page.next_cursor, "d1%s", page.sets[page.n - 1].id + 3);
    if (s)
        db_dataset_page_clear(&page);
    else
        *ret = page;
    return s;
}

void db_dataset_page_clear(db_dataset_page *page) {
    if (!page) return;
    for (size_t i = 0; i < page->n; i++) db_dataset_clear(&page->sets[i]);
    dr_free(page->sets);
    *page = (db_dataset_page){0};
}

static void read_entry(db_stmt *q, db_entry *e) {
    *e = (db_entry){.part = (db_part)db_i64(q, 0), .bytes = db_i64(q, 4)};
    e->name = db_text_dup(q, 1);
    db_text(q, 2, e->sha256, sizeof e->sha256);
    db_text(q, 3, e->aside, sizeof e->aside);
    if (!(e->has_facts = db_i64(q, 5) == DB_FACTS_EDITION)) return; /* NULL gives 0 */
    db_facts *f = &e->facts;
    memcpy(f->sha256, e->sha256, sizeof f->sha256);
    db_text(q, 6, f->code, sizeof f->code);
    db_text(q, 7, f->detail, sizeof f->detail);
    db_text(q, 8, f->format, sizeof f->format);
    f->width = db_i64(q, 9);
    f->height = db_i64(q, 10);
    f->bit_depth = (int)db_i64(q, 11);
    f->channels = (int)db_i64(q, 12);
    f->grey = db_i64(q, 13) != 0;
    db_text(q, 14, f->pixels, sizeof f->pixels);
    db_text(q, 15, f->look, sizeof f->look);
    f->rain = db_f64(q, 16);
}

dr_status db_dataset_entries(db_store *db, const char *id, bool used, db_entry_list *ret, dr_error *err) {
    db_conn *c;
    db_entry_list list = {0};
    size_t cap = 0;
    dr_status s = db_reader_take(db, &c, err);
    if (s) return s;
    db_stmt q = db_sql(c,
                       "SELECT e.part, e.name, e.sha256, e.aside, b.bytes, f.edition, f.code, f.detail, f.format,"
                       " f.width, f.height, f.bit_depth, f.channels, f.grey, f.pixels, f.look,"
                       " f.rain FROM dataset_entries e JOIN blobs b ON b.sha256 = e.sha256"
                       " LEFT JOIN blob_facts f ON f.sha256 = e.sha256"
                       " WHERE e.dataset_id = ?1 AND (NOT ?2 OR e.aside IS NULL) ORDER BY e.part, e.name",
                       err);
    db_bind_text(&q, 1, id);
    db_bind_i64(&q, 2, used);
    while (db_row(&q)) {
        if (list.n == cap) {
            cap = cap ? 2 * cap : 64;
            db_entry *grown = dr_realloc(list.e, cap * sizeof *grown);
            if (!grown) {
                q.status = dr_fail(err, DR_NOMEM, "no memory for a list of pictures");
                break;
            }
            list.e = grown;
        }
        read_entry(&q, &list.e[list.n++]);
    }
    s = db_end(&q);
    db_reader_give(db, c);
    if (s)
        db_entry_list_clear(&list);
    else
        *ret = list;
    return s;
}

void db_entry_list_clear(db_entry_list *list) {
    if (!list) return;
    for (size_t i = 0; i < list->n; i++) dr_free(list->e[i].name);
    dr_free(list->e);
    *list = (db_entry_list){0};
}

dr_status db_dataset_next(db_store *db, char ret_id[DB_ID], dr_error *err) {
    db_conn *c;
    char id[DB_ID] = "";
    dr_status s = db_reader_take(db, &c, err);
    if (s) return s;
    db_stmt q = db_sql(c, "SELECT id FROM datasets WHERE state = 'validating' ORDER BY sealed_at, id LIMIT 1", err);
    if (db_row(&q)) db_text(&q, 0, id, sizeof id);
    s = db_end(&q);
    db_reader_give(db, c);
    if (s) return s;
    if (!*id) return DR_NOT_FOUND;
    memcpy(ret_id, id, sizeof id);
    return DR_OK;
}

dr_status db_dataset_pixels(db_store *db, const char *id, db_set_pixels *ret, dr_error *err) {
    db_conn *c;
    db_set_pixels px = {0};
    dr_status s = db_reader_take(db, &c, err);
    if (s) return s;
    db_stmt q = db_sql(c,
                       "SELECT coalesce(sum(iif(e.part = 0, f.width * f.height, 0)), 0),"
                       " coalesce(sum(iif(e.part = 1, f.width * f.height, 0)), 0),"
                       " coalesce(max(iif(e.part >= 2, f.width * f.height, 0)), 0)"
                       " FROM dataset_entries e JOIN blob_facts f USING (sha256) WHERE e.dataset_id = ?1"
                       " AND e.aside IS NULL AND f.code IS NULL",
                       err);
    db_bind_text(&q, 1, id);
    if (db_row(&q)) px = (db_set_pixels){db_i64(&q, 0), db_i64(&q, 1), db_i64(&q, 2)};
    s = db_end(&q);
    db_reader_give(db, c);
    if (!s) *ret = px;
    return s;
}
