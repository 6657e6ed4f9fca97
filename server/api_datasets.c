/* api_datasets.c - /v1/datasets: make, list, look (and wait), seal, report, erase; pictures are put in by
 * api_entries.c.
 *
 * POST takes a JSON object, which makes an empty set, or an archive, which makes a full one: the first byte tells. An
 * archive is streamed into a draft, unpacked by the unpacker into a draft a picture, and becomes a set in one
 * transaction on the keeper's thread. Until then no row names anything, and whatever is left over is erased with the
 * request. */
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/parse.h"
#include "server/api.h"
#include "server/archive.h"
#include "server/blobs.h"
#include "server/validate.h"
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { UNKNOWN, JSON, ARCHIVE };
#define SPACE_EVERY (UINT64_C(64) << 20) /* look at the free disk space after so many unpacked bytes */

typedef struct work {
    srv_task task; /* first: the threads give it back */
    srv_req *r;
    int kind;
    bool has_digest;
    uint8_t digest[32];
    char idem_key[256], idem_hash[DB_SHA];
    char name[DB_DS_NAME];
    char *labels;
    bool set_aside;
    /* an archive */
    srv_draft *archive, *open; /* open: the picture that is being unpacked */
    db_entry_new *entries;
    srv_draft **drafts; /* of entry i */
    size_t n, cap;
    uint64_t unpacked, next_look;
    /* what came of it */
    dr_status status;
    dr_error err;
    bool replayed;
    db_dataset set;
} work;

static void work_free(void *p) {
    work *w = p;
    srv_draft_discard(w->archive);
    srv_draft_discard(w->open);
    for (size_t i = 0; i < w->n; i++) srv_draft_discard(w->drafts[i]);
    dr_free(w->drafts);
    dr_free(w->entries);
    free(w->labels); /* jansson's */
    db_dataset_clear(&w->set);
    dr_free(w);
}

static work *start(srv_req *r) {
    work *w = dr_calloc(1, sizeof *w);
    if (!w) return NULL;
    w->r = r;
    r->state = w;
    r->state_free = work_free;
    return w;
}

static bool no_query(srv_req *r) {
    srv_query q[] = {{0, 0}};
    return srv_query_read(r, q);
}

static srv_next bad_value(srv_req *r, const char *pointer, const char *code, const char *text) {
    srv_problem p;
    srv_problem_make(&p, code, "%s", text);
    srv_problem_point(&p, pointer);
    return srv_reply_problem(r, &p);
}

/* --- as JSON --- */

static json_t *time_or_null(int64_t ms) {
    char text[DR_RFC3339];
    if (!ms) return json_null();
    dr_clock_rfc3339(ms, text);
    return json_string(text);
}

static json_t *parsed(const char *text, json_t *otherwise) {
    json_t *o = text ? json_loads(text, 0, NULL) : NULL;
    if (!o) return otherwise;
    json_decref(otherwise);
    return o;
}

static json_t *links(const db_dataset *d) {
    bool done = d->state == DB_DS_READY || d->state == DB_DS_REJECTED;
    json_t *o = json_object();
    json_object_set_new(o, "self", json_sprintf("/v1/datasets/%s", d->id));
    json_object_set_new(o, "seal", d->state == DB_DS_OPEN ? json_sprintf("/v1/datasets/%s/seal", d->id) : json_null());
    json_object_set_new(o, "report", done ? json_sprintf("/v1/datasets/%s/report", d->id) : json_null());
    json_object_set_new(o, "contact_sheet",
                        done ? json_sprintf("/v1/datasets/%s/contact-sheet.png", d->id) : json_null());
    return o;
}

static json_t *dataset_json(const srv_app *app, const db_dataset *d) {
    json_t *o = json_object(), *parts = json_object();
    int64_t files = 0;
    double progress = d->state == DB_DS_READY || d->state == DB_DS_REJECTED ? 1 : 0;
    for (int i = 0; i < DB_N_PARTS; i++) {
        files += d->files[i];
        json_object_set_new(
            parts, db_part_name((db_part)i),
            json_pack("{s:I, s:I}", "files", (json_int_t)d->files[i], "set_aside", (json_int_t)d->aside[i]));
    }
    if (d->state == DB_DS_VALIDATING) progress = srv_validator_progress(app->validator, d->id);
    json_object_set_new(o, "id", json_string(d->id));
    json_object_set_new(o, "name", *d->name ? json_string(d->name) : json_null());
    json_object_set_new(o, "state", json_string(db_ds_state_name(d->state)));
    json_object_set_new(o, "created_at", time_or_null(d->created_ms));
    json_object_set_new(o, "sealed_at", time_or_null(d->sealed_ms));
    json_object_set_new(o, "validated_at", time_or_null(d->validated_ms));
    json_object_set_new(o, "set_aside", json_boolean(d->set_aside));
    json_object_set_new(o, "files", json_integer(files));
    json_object_set_new(o, "bytes", json_integer(d->bytes));
    json_object_set_new(o, "parts", parts);
    json_object_set_new(o, "progress", json_real(progress > 0 ? progress : 0));
    json_object_set_new(o, "reasons", parsed(d->reasons_json, json_array()));
    json_object_set_new(o, "labels", parsed(d->labels_json, json_object()));
    json_object_set_new(o, "links", links(d));
    return o;
}

static bool id_ok(const srv_req *r) {
    return db_id_valid("ds_", r->param[0]);
}

static srv_next no_dataset(srv_req *r) {
    return srv_reply_error(r, "dataset_not_found", "no data set ever had this id");
}

/* --- list --- */

srv_next srv_datasets_list(srv_req *r) {
    enum { STATE, LIMIT, CURSOR };
    srv_query q[] = {{"state", 0}, {"limit", 0}, {"cursor", 0}, {0, 0}};
    db_dataset_page page = {0};
    db_dataset_filter f = {0};
    db_ds_state state;
    dr_error err = {0};
    if (!srv_query_read(r, q)) return SRV_REPLY;
    f.cursor = q[CURSOR].value;
    if (q[STATE].value) {
        if (!db_ds_state_parse(q[STATE].value, &state))
            return bad_value(r, "/query/state", "invalid_parameter",
                             "state must be open, validating, ready or rejected");
        f.states = 1u << state;
    }
    if (q[LIMIT].value && !dr_parse_int(q[LIMIT].value, 1, 500, &f.limit))
        return bad_value(r, "/query/limit", "invalid_parameter", "limit must be 1 to 500");
    dr_status s = db_dataset_list(r->app->db, &f, &page, &err);
    if (s) return srv_reply_failed(r, s, &err);
    json_t *items = json_array();
    for (size_t i = 0; i < page.n; i++) json_array_append_new(items, dataset_json(r->app, &page.sets[i]));
    json_t *o = json_pack("{s:o, s:o}", "items", items, "next_cursor",
                          *page.next_cursor ? json_string(page.next_cursor) : json_null());
    if (*page.next_cursor) {
        char more[64] = "";
        if (q[LIMIT].value) snprintf(more, sizeof more, "&limit=%d", f.limit);
        if (q[STATE].value)
            snprintf(more + strlen(more), sizeof more - strlen(more), "&state=%s", db_ds_state_name(state));
        srv_reply_header(r, "Link", "</v1/datasets?cursor=%s%s>; rel=\"next\"", page.next_cursor, more);
    }
    db_dataset_page_clear(&page);
    return srv_reply_json(r, 200, o);
}

/* --- get --- */

typedef struct getter {
    bool waits;
    int64_t deadline_ns;
} getter;

static srv_next look(srv_req *r);

static srv_next show(srv_req *r, const db_dataset *d, int status) {
    char etag[48];
    snprintf(etag, sizeof etag, "W/\"r%lld\"", (long long)d->revision);
    bool moving = d->state == DB_DS_VALIDATING; /* its progress is not in the revision */
    if (!moving) srv_reply_header(r, "ETag", "%s", etag);
    srv_reply_header(r, "Cache-Control", "private, no-cache");
    if (!moving && !strcmp(r->method, "GET") && srv_etag_listed(srv_header(r, "If-None-Match"), etag))
        return srv_reply_empty(r, 304);
    if (moving) srv_reply_header(r, "Retry-After", "2");
    return srv_reply_json(r, status, dataset_json(r->app, d));
}

static srv_next after_wait(srv_req *r) {
    getter *g = r->state;
    srv_wake why = srv_wait_why(r);
    if (why == SRV_WAKE_GONE) return SRV_CLOSE;
    if (why != SRV_WAKE_EVENT) g->waits = false; /* time is up, or the daemon stops: what is known now */
    return look(r);
}

static srv_next look(srv_req *r) {
    getter *g = r->state;
    db_dataset d = {0};
    dr_error err = {0};
    if (g->waits) srv_wait_arm(r, r->param[0]);
    dr_status s = db_dataset_get(r->app->db, r->param[0], &d, &err);
    if (!s && g->waits && d.state == DB_DS_VALIDATING) {
        db_dataset_clear(&d);
        return srv_wait(r, after_wait, g->deadline_ns);
    }
    if (g->waits) srv_park_disarm(r->app->watch, &r->park);
    srv_next next = s ? srv_reply_failed(r, s, &err) : show(r, &d, 200);
    db_dataset_clear(&d);
    return next;
}

srv_next srv_datasets_get(srv_req *r) {
    srv_query q[] = {{"wait", 0}, {0, 0}};
    int64_t wait_s = 0;
    getter *g = dr_calloc(1, sizeof *g);
    if (!g) return srv_reply_failed(r, DR_NOMEM, NULL);
    r->state = g;
    r->state_free = dr_free;
    if (!srv_query_read(r, q)) return SRV_REPLY;
    if (q[0].value && !dr_parse_i64(q[0].value, 0, 86400, &wait_s))
        return bad_value(r, "/query/wait", "invalid_parameter", "wait must be a number of seconds, 0 to 86400");
    if (!id_ok(r)) return no_dataset(r);
    if (wait_s > r->app->cfg->sync_wait_max_s) wait_s = r->app->cfg->sync_wait_max_s;
    g->waits = wait_s > 0;
    g->deadline_ns = dr_clock_ns() + wait_s * 1000000000;
    return look(r);
}

/* --- report and contact sheet --- */

static srv_next left_by_validation(srv_req *r, const char *kind, const char *type) {
    db_dataset d = {0};
    dr_error err = {0};
    char etag[48];
    int fd = -1;
    uint64_t len = 0;
    if (!no_query(r)) return SRV_REPLY;
    if (!id_ok(r)) return no_dataset(r);
    dr_status s = db_dataset_get(r->app->db, r->param[0], &d, &err);
    if (s) return srv_reply_failed(r, s, &err);
    db_ds_state state = d.state;
    snprintf(etag, sizeof etag, "\"%s-%lld\"", kind, (long long)d.revision);
    db_dataset_clear(&d);
    if (state == DB_DS_OPEN || state == DB_DS_VALIDATING) {
        if (state == DB_DS_VALIDATING) srv_reply_header(r, "Retry-After", "2");
        return srv_reply_error(r, "dataset_not_validated", "the data set is %s", db_ds_state_name(state));
    }
    s = srv_report_open(r->app->blobs, r->param[0], kind, &fd, &len, &err);
    if (s) return srv_reply_failed(r, s, &err);
    srv_reply_header(r, "ETag", "%s", etag);
    srv_reply_header(r, "Cache-Control", "private, immutable");
    if (!srv_etag_listed(srv_header(r, "If-None-Match"), etag)) return srv_reply_file(r, 200, type, fd, 0, len);
    close(fd);
    return srv_reply_empty(r, 304);
}

srv_next srv_datasets_report(srv_req *r) {
    return left_by_validation(r, "json", "application/json");
}
srv_next srv_datasets_sheet(srv_req *r) {
    return left_by_validation(r, "png", "image/png");
}

/* --- bodies --- */

json_t *srv_read_object(srv_req *r, const char *const *members, srv_next *ret) {
    const char *key;
    json_t *value;
    json_error_t je;
    char pointer[64];
    json_t *o = r->body.len ? json_loadb(r->body.data, r->body.len, JSON_REJECT_DUPLICATES, &je) : json_object();
    if (!json_is_object(o)) {
        *ret = srv_reply_error(r, "bad_json", "the body must be a JSON object%s%s", o ? "" : ": ", o ? "" : je.text);
        json_decref(o);
        return NULL;
    }
    json_object_foreach(o, key, value) {
        const char *const *m = members;
        while (*m && strcmp(*m, key)) m++;
        if (*m) continue;
        srv_problem p;
        srv_problem_make(&p, "unknown_member", "unknown member '%.60s'", key);
        snprintf(pointer, sizeof pointer, "/%.60s", key);
        srv_problem_point(&p, pointer);
        *ret = srv_reply_problem(r, &p);
        json_decref(o);
        return NULL;
    }
    return o;
}

/* --- make --- */

static bool name_ok(const char *name) { /* of a set: as a file's, but it may begin with a dot */
    return srv_entry_name_ok(*name == '.' ? name + 1 : name) || !strcmp(name, ".");
}

static int64_t archive_max(const srv_app *app) {
    return app->cfg->dataset_bytes_max + app->cfg->dataset_files_max * 2048; /* headers of a tar */
}

static dr_status check_archive_size(const srv_app *app, int64_t bytes, dr_error *err) {
    if (bytes <= archive_max(app)) return DR_OK;
    return dr_fail_limit(err, "archive_too_large", "dataset_bytes_max", archive_max(app), bytes,
                         "the archive has more bytes than a data set may have");
}

static srv_next begin_archive(srv_req *r, work *w) {
    dr_error err = {0};
    w->kind = ARCHIVE;
    dr_status s = check_archive_size(r->app, r->content_length, &err);
    if (!s) s = srv_draft_begin(r->app->blobs, &w->archive, &err);
    return s ? srv_reply_failed(r, s, &err) : SRV_GO;
}

srv_next srv_datasets_begin(srv_req *r) {
    srv_query q[] = {{"name", 0}, {0, 0}};
    work *w = start(r);
    if (!w) return srv_reply_failed(r, DR_NOMEM, NULL);
    if (!srv_query_read(r, q)) return SRV_REPLY;
    const char *key = srv_header(r, "Idempotency-Key");
    if (key && !srv_idempotency_key_ok(key))
        return srv_reply_error(r, "bad_idempotency_key", "Idempotency-Key must be 1 to 255 printable characters");
    snprintf(w->idem_key, sizeof w->idem_key, "%s", key ? key : "");
    if (q[0].value) {
        if (!name_ok(q[0].value))
            return bad_value(r, "/query/name", "invalid_parameter", "name must have 1 to 128 characters, no slash");
        snprintf(w->name, sizeof w->name, "%s", q[0].value);
    }
    srv_next next = srv_check_intake(r);
    if (next == SRV_GO) next = srv_read_digest(r, &w->has_digest, w->digest);
    return next == SRV_GO && r->content_length > SRV_BODY_SMALL ? begin_archive(r, w) : next;
}

static srv_next more_json(srv_req *r, const char *data, size_t len) {
    dr_buf_add(&r->body, data, len);
    if (!r->body.status) return SRV_GO;
    return srv_reply_error(r, "body_too_large", "a JSON body of at most %d bytes is taken here", SRV_BODY_SMALL);
}

srv_next srv_datasets_data(srv_req *r, const char *data, size_t len) {
    work *w = r->state;
    dr_error err = {0};
    if (w->kind == UNKNOWN) {
        bool json = strchr("{ \t\r\n", data[0]) && data[0];
        srv_next next = SRV_GO;
        if (json)
            w->kind = JSON;
        else
            next = begin_archive(r, w);
        if (next != SRV_GO) return next;
    }
    if (w->kind == JSON) return more_json(r, data, len);
    dr_status s = check_archive_size(r->app, (int64_t)(srv_draft_bytes(w->archive) + len), &err);
    if (!s) s = srv_draft_write(w->archive, data, len, &err);
    if (!s) return SRV_GO;
    srv_draft_discard(w->archive);
    w->archive = NULL;
    return srv_reply_failed(r, s, &err);
}

/* --- on the threads of blobs.c --- */

static dr_status unpack_begin(void *arg, int part, const char *name, dr_error *err) {
    work *w = arg;
    if (w->n == w->cap) {
        size_t cap = w->cap ? 2 * w->cap : 64;
        db_entry_new *e = dr_realloc(w->entries, cap * sizeof *e);
        if (e) w->entries = e;
        srv_draft **d = e ? dr_realloc(w->drafts, cap * sizeof(void *)) : NULL;
        if (d) w->drafts = d;
        if (!e || !d) return dr_fail(err, DR_NOMEM, "no memory to unpack an archive");
        w->cap = cap;
    }
    db_entry_new *e = &w->entries[w->n];
    *e = (db_entry_new){.part = (db_part)part};
    snprintf(e->name, sizeof e->name, "%s", name);
    return srv_draft_begin(w->r->app->blobs, &w->open, err);
}

static dr_status unpack_data(void *arg, const void *data, size_t len, dr_error *err) {
    work *w = arg;
    const srv_app *app = w->r->app;
    if (srv_blobs_stopping(app->blobs))
        return dr_fail_as(err, DR_UNAVAILABLE, "draining", "the service is shutting down");
    if ((w->unpacked += len) >= w->next_look) {
        w->next_look = w->unpacked + SPACE_EVERY;
        dr_status s =
            srv_spool_room(app->spool, (uint64_t)app->cfg->free_min_bytes, (int)app->cfg->free_min_percent, err);
        if (s) return s;
    }
    return srv_draft_write(w->open, data, len, err);
}

static dr_status unpack_end(void *arg, dr_error *err) {
    work *w = arg;
    db_entry_new *e = &w->entries[w->n];
    e->bytes = (int64_t)srv_draft_bytes(w->open);
    dr_status s = srv_draft_done(w->open, e->sha256, err);
    if (s) return s;
    w->drafts[w->n++] = w->open;
    w->open = NULL;
    return DR_OK;
}

static int by_name(const void *a, const void *b) {
    const db_entry_new *x = *(const db_entry_new *const *)a, *y = *(const db_entry_new *const *)b;
    return x->part != y->part ? (x->part > y->part) - (x->part < y->part) : strcmp(x->name, y->name);
}

static dr_status check_twice(const work *w, dr_error *err) {
    const db_entry_new **order = dr_calloc(w->n, sizeof(void *));
    dr_status s = DR_OK;
    if (!order) return dr_fail(err, DR_NOMEM, "no memory to unpack an archive");
    for (size_t i = 0; i < w->n; i++) order[i] = &w->entries[i];
    qsort(order, w->n, sizeof(void *), by_name);
    for (size_t i = 1; i < w->n && !s; i++)
        if (!by_name(&order[i - 1], &order[i]))
            s = dr_fail_as(err, DR_INVALID, "archive_entry", "entry '%s/%.150s' is there twice",
                           db_part_name(order[i]->part), order[i]->name);
    dr_free(order);
    return s;
}

static dr_status create(work *w) {
    const db_dataset_new in = {.name = w->name,
                               .labels_json = w->labels,
                               .idem_key = *w->idem_key ? w->idem_key : NULL,
                               .idem_hash = w->idem_hash,
                               .entries = w->entries,
                               .n_entries = w->n};
    return db_dataset_create(w->r->app->db, &in, &w->set, &w->replayed, &w->err);
}

static void commit(srv_task *t) { /* on the keeper */
    work *w = (work *)t;
    srv_blobs *b = w->r->app->blobs;
    char(*sha)[DB_SHA] = dr_calloc(w->n ? w->n : 1, DB_SHA);
    if (sha) {
        for (size_t i = 0; i < w->n; i++) memcpy(sha[i], w->entries[i].sha256, DB_SHA);
        w->status = srv_blobs_name(b, w->drafts, (const char(*)[DB_SHA])sha, w->n, &w->err);
        if (!w->status) w->status = create(w);
        if (w->status || w->replayed)
            for (size_t i = 0; i < w->n; i++) srv_blobs_erase(b, sha[i]);
    } else
        w->status = dr_fail(&w->err, DR_NOMEM, "no memory to unpack an archive");
    dr_free(sha);
    srv_call_back(w->r);
}

static void unpack(srv_task *t) { /* on the unpacker */
    work *w = (work *)t;
    const srv_config *cfg = w->r->app->cfg;
    const srv_archive_limits lim = {.files_max = cfg->dataset_files_max,
                                    .bytes_max = cfg->dataset_bytes_max,
                                    .file_max = cfg->body_max_bytes,
                                    .ratio_max = cfg->archive_ratio_max};
    const srv_archive_sink sink = {w, unpack_begin, unpack_data, unpack_end};
    w->status = srv_archive_read(srv_draft_fd(w->archive), &lim, &sink, &w->err);
    if (!w->status) w->status = check_twice(w, &w->err);
    srv_draft_discard(w->archive); /* its space is wanted */
    w->archive = NULL;
    if (!w->status)
        srv_blobs_run(w->r->app->blobs, SRV_KEEPER, &w->task, commit);
    else
        srv_call_back(w->r);
}

static srv_next made(srv_req *r) {
    work *w = r->state;
    if (w->status) return srv_reply_failed(r, w->status, &w->err);
    if (w->replayed) srv_reply_header(r, "Idempotent-Replayed", "true");
    srv_reply_header(r, "Location", "/v1/datasets/%s", w->set.id);
    return srv_reply_json(r, 201, dataset_json(r->app, &w->set));
}

static srv_next read_labels(srv_req *r, work *w, json_t *labels) {
    const char *key;
    json_t *value;
    if (!labels || json_is_null(labels)) return SRV_GO;
    bool ok = json_is_object(labels) && json_object_size(labels) <= 64;
    json_object_foreach(labels, key, value) ok =
        ok && strlen(key) >= 1 && strlen(key) <= 64 && json_is_string(value) && json_string_length(value) <= 256;
    if (!ok)
        return bad_value(
            r, "/labels", "invalid_member",
            "labels must be an object of at most 64 strings, keys of 1 to 64 and values of up to 256 bytes");
    w->labels = json_dumps(labels, JSON_COMPACT);
    return w->labels ? SRV_GO : srv_reply_failed(r, DR_NOMEM, NULL);
}

static srv_next read_json(srv_req *r, work *w) {
    static const char *const members[] = {"name", "labels", NULL};
    srv_next next = SRV_GO;
    json_t *o = srv_read_object(r, members, &next);
    if (!o) return next;
    const json_t *name = json_object_get(o, "name");
    if (name && !json_is_null(name)) {
        if (!json_is_string(name) || strlen(json_string_value(name)) != json_string_length(name) ||
            !name_ok(json_string_value(name)))
            next = bad_value(r, "/name", "invalid_member", "name must be a string of 1 to 128 characters, no slash");
        else
            snprintf(w->name, sizeof w->name, "%s", json_string_value(name));
    }
    if (next == SRV_GO) next = read_labels(r, w, json_object_get(o, "labels"));
    json_decref(o);
    return next;
}

srv_next srv_datasets_ready(srv_req *r) {
    work *w = r->state;
    dr_sha256 h;
    uint8_t sum[32];
    if (w->archive) {
        srv_draft_digest(w->archive, sum);
    } else {
        dr_sha256_init(&h);
        dr_sha256_add(&h, r->body.len ? r->body.data : "", r->body.len);
        dr_sha256_end(&h, sum);
    }
    if (w->has_digest && !dr_equal_ct(sum, w->digest, 32))
        return srv_reply_error(r, "digest_mismatch", "the body's SHA-256 is not the one in Content-Digest");
    dr_sha256_init(&h);
    dr_sha256_add(&h, "POST ", 5);
    dr_sha256_add(&h, r->uri, strlen(r->uri) + 1);
    dr_sha256_add(&h, sum, sizeof sum);
    dr_sha256_end(&h, sum);
    dr_hex(sum, sizeof sum, w->idem_hash);
    srv_next next = w->archive ? SRV_GO : read_json(r, w);
    if (next != SRV_GO) return next;
    srv_call_arm(r);
    if (w->archive)
        srv_blobs_run(r->app->blobs, SRV_UNPACKER, &w->task, unpack);
    else
        srv_blobs_run(r->app->blobs, SRV_KEEPER, &w->task, commit);
    return srv_call_park(r, made);
}

/* --- seal --- */

static void seal(srv_task *t) {
    work *w = (work *)t;
    w->status = db_dataset_seal(w->r->app->db, w->r->param[0], w->set_aside, &w->set, &w->err);
    srv_call_back(w->r);
}

static srv_next sealed(srv_req *r) {
    work *w = r->state;
    if (w->status) return srv_reply_failed(r, w->status, &w->err);
    srv_validator_ring(r->app->validator);
    srv_reply_header(r, "Location", "/v1/datasets/%s", w->set.id);
    return show(r, &w->set, w->set.state == DB_DS_VALIDATING ? 202 : 200);
}

srv_next srv_datasets_seal(srv_req *r) {
    static const char *const members[] = {"set_aside", NULL};
    srv_next next = SRV_GO;
    work *w = start(r);
    if (!w) return srv_reply_failed(r, DR_NOMEM, NULL);
    if (!no_query(r)) return SRV_REPLY;
    if (!id_ok(r)) return no_dataset(r);
    json_t *o = srv_read_object(r, members, &next);
    if (!o) return next;
    const json_t *aside = json_object_get(o, "set_aside");
    bool ok = !aside || json_is_boolean(aside);
    w->set_aside = json_is_true(aside);
    json_decref(o);
    if (!ok) return bad_value(r, "/set_aside", "invalid_member", "set_aside must be true or false");
    srv_call_arm(r);
    srv_blobs_run(r->app->blobs, SRV_KEEPER, &w->task, seal);
    return srv_call_park(r, sealed);
}

/* --- erase --- */

static void erase(srv_task *t) {
    work *w = (work *)t;
    srv_app *app = w->r->app;
    w->status = db_dataset_delete(app->db, w->r->param[0], &w->err);
    if (!w->status) srv_report_erase(app->blobs, w->r->param[0]);
    srv_call_back(w->r);
}

static srv_next erased(srv_req *r) {
    work *w = r->state;
    if (w->status) return srv_reply_failed(r, w->status, &w->err);
    srv_park_wake_key(r->app->watch, r->param[0]);
    return srv_reply_empty(r, 204);
}

srv_next srv_datasets_delete(srv_req *r) {
    if (!no_query(r)) return SRV_REPLY;
    if (!id_ok(r)) return no_dataset(r);
    work *w = start(r);
    if (!w) return srv_reply_failed(r, DR_NOMEM, NULL);
    srv_call_arm(r);
    srv_blobs_run(r->app->blobs, SRV_KEEPER, &w->task, erase);
    return srv_call_park(r, erased);
}
