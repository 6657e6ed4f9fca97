/* events.c - the history of a job: numbered from 1, appended only. The schema's triggers write the `state` events. */
#include "core/base/alloc.h"
#include "db/internal.h"

/* More than this many of a job push out its oldest ones (a training writes many; the state events of a job are few). */
enum { EVENTS_MAX = 20000 };

typedef struct event_req {
    db_req base;
    const char *id, *type, *data;
    int64_t epoch, seq;
} event_req;

static dr_status append_run(db_store *db, db_conn *c, db_req *base, dr_error *err) {
    (void)db;
    event_req *r = (event_req *)base;
    r->seq = 0;
    dr_status s = db_check_object(c, r->data, err);
    if (s) return s;
    db_stmt q =
        db_sql(c,
               "INSERT INTO events SELECT id, coalesce((SELECT max(seq) FROM events WHERE job_id = ?1), 0) + 1, " DB_NOW
               ", ?2, ?3 FROM jobs WHERE id = ?1 AND (?4 = 0 OR (epoch = ?4 AND state IN " DB_HELD ")) RETURNING seq",
               err);
    db_bind_text(&q, 1, r->id);
    db_bind_text(&q, 2, r->type);
    db_bind_text(&q, 3, r->data);
    db_bind_i64(&q, 4, r->epoch);
    if (db_row(&q)) r->seq = db_i64(&q, 0);
    if ((s = db_run(&q))) return s;
    if (!r->seq) {
        db_job j = {0};
        if ((s = db_job_load(c, r->id, &j, err))) return s;
        db_job_clear(&j);
        return dr_fail_as(err, DR_CONFLICT, "stale_epoch", "job %s: this claim is over", r->id);
    }
    if (r->seq <= EVENTS_MAX) return DR_OK;
    q = db_sql(c, "DELETE FROM events WHERE job_id = ?1 AND seq <= ?2", err);
    db_bind_text(&q, 1, r->id);
    db_bind_i64(&q, 2, r->seq - EVENTS_MAX);
    return db_run(&q);
}

dr_status db_event_append(db_store *db, const char *id, int64_t epoch, const char *type, const char *data_json,
                          int64_t *ret_seq, dr_error *err) {
    event_req r = {.base = {.run = append_run}, .id = id, .type = type, .data = data_json, .epoch = epoch};
    dr_status s = db_call(db, &r.base, err);
    if (!s && ret_seq) *ret_seq = r.seq;
    return s;
}

static dr_status list(db_conn *c, const char *id, int64_t after_seq, int limit, db_event_page *page, dr_error *err) {
    page->events = dr_calloc((size_t)limit, sizeof *page->events);
    if (!page->events) return dr_fail(err, DR_NOMEM, "no memory for %d events", limit);
    db_stmt q =
        db_sql(c, "SELECT seq, at, type, data FROM events WHERE job_id = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3", err);
    db_bind_text(&q, 1, id);
    db_bind_i64(&q, 2, after_seq);
    db_bind_i64(&q, 3, limit);
    while (db_row(&q)) {
        db_event *e = &page->events[page->n++];
        e->seq = db_i64(&q, 0);
        e->at_ms = db_i64(&q, 1);
        db_text(&q, 2, e->type, sizeof e->type);
        e->data_json = db_text_dup(&q, 3);
    }
    dr_status s = db_end(&q);
    if (s || page->n) return s;
    q = db_sql(c, "SELECT 1 FROM jobs WHERE id = ?1", err); /* nothing new, or no such job? */
    db_bind_text(&q, 1, id);
    bool there = db_row(&q);
    s = db_end(&q);
    return s || there ? s : db_job_missing(c, id, err);
}

dr_status db_event_list(db_store *db, const char *id, int64_t after_seq, int limit, db_event_page *ret, dr_error *err) {
    if (limit < 1 || limit > 1000) limit = 1000;
    db_conn *c;
    db_event_page page = {0};
    dr_status s = db_reader_take(db, &c, err);
    if (s) return s;
    s = list(c, id, after_seq, limit, &page, err);
    db_reader_give(db, c);
    if (s)
        db_event_page_clear(&page);
    else
        *ret = page;
    return s;
}

void db_event_page_clear(db_event_page *page) {
    if (!page) return;
    for (size_t i = 0; i < page->n; i++) dr_free(page->events[i].data_json);
    dr_free(page->events);
    *page = (db_event_page){0};
}
