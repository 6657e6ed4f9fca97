/* api_entries.c - PUT and DELETE of a picture of a data set. The body is the picture, or {"blob": sha256} for one that
 * is here already: the first byte tells. */
#include "core/base/alloc.h"
#include "server/api.h"
#include "server/archive.h"
#include "server/blobs.h"
#include <stdio.h>
#include <string.h>

enum { UNKNOWN, JSON, PICTURE };

typedef struct entry {
    srv_task task; /* first: the keeper gives it back */
    srv_req *r;
    int kind;
    int part;
    bool has_digest;
    uint8_t digest[32];
    srv_upload *up;
    char sha[DB_SHA];
    dr_status status;
    dr_error err;
    bool made;
} entry;

static void entry_free(void *p) {
    entry *e = p;
    srv_upload_discard(e->up);
    dr_free(e);
}

static srv_next bad_value(srv_req *r, const char *pointer, const char *code, const char *text) {
    srv_problem p;
    srv_problem_make(&p, code, "%s", text);
    srv_problem_point(&p, pointer);
    return srv_reply_problem(r, &p);
}

/* Path and name; SRV_GO with r->state set. */
static srv_next start(srv_req *r) {
    srv_query q[] = {{0, 0}};
    const char *name = NULL;
    entry *e = dr_calloc(1, sizeof *e);
    if (!e) return srv_reply_failed(r, DR_NOMEM, NULL);
    e->r = r;
    r->state = e;
    r->state_free = entry_free;
    if (!srv_query_read(r, q)) return SRV_REPLY;
    const char *tail = r->path + strlen("/v1/datasets/") + strlen(r->param[0]) + 1;
    if (!db_id_valid("ds_", r->param[0]) || !srv_entry_path(tail, &e->part, &name))
        return srv_reply_error(r, "dataset_not_found", "no data set ever had this id");
    if (srv_entry_name_ok(r->param[1])) return SRV_GO;
    return bad_value(r, "/path/name", "bad_entry_name", srv_problem_find("bad_entry_name")->explain);
}

/* Before the body: a set that is gone or sealed. The store looks again when the picture is there. */
static srv_next check_open(srv_req *r) {
    db_dataset d = {0};
    dr_error err = {0};
    dr_status s = db_dataset_get(r->app->db, r->param[0], &d, &err);
    db_ds_state state = d.state;
    db_dataset_clear(&d);
    if (s) return srv_reply_failed(r, s, &err);
    if (state == DB_DS_OPEN) return SRV_GO;
    return srv_reply_error(r, "dataset_sealed", "the data set is %s and takes no changes any more",
                           db_ds_state_name(state));
}

static srv_next begin_picture(srv_req *r, entry *e) {
    dr_error err = {0};
    e->kind = PICTURE;
    dr_status s = srv_upload_begin(r->app->spool, r->content_length > 0 ? (uint64_t)r->content_length : 0,
                                   &r->app->limits, &e->up, &err);
    return s ? srv_reply_failed(r, s, &err) : SRV_GO;
}

srv_next srv_entries_begin(srv_req *r) {
    srv_next next = start(r);
    if (next == SRV_GO) next = srv_check_intake(r);
    if (next == SRV_GO) next = check_open(r);
    entry *e = r->state;
    if (next == SRV_GO) next = srv_read_digest(r, &e->has_digest, e->digest);
    if (next == SRV_GO && !r->content_length)
        next = srv_reply_error(r, "empty_body", "the body is empty; a picture was expected");
    return next == SRV_GO && r->content_length > SRV_BODY_SMALL ? begin_picture(r, e) : next;
}

srv_next srv_entries_data(srv_req *r, const char *data, size_t len) {
    entry *e = r->state;
    dr_error err = {0};
    if (e->kind == UNKNOWN && data[0] == '{') e->kind = JSON;
    if (e->kind == UNKNOWN) {
        srv_next next = begin_picture(r, e);
        if (next != SRV_GO) return next;
    }
    if (e->kind == JSON) {
        dr_buf_add(&r->body, data, len);
        if (!r->body.status) return SRV_GO;
        return srv_reply_error(r, "body_too_large", "a JSON body of at most %d bytes is taken here", SRV_BODY_SMALL);
    }
    dr_status s = srv_upload_write(e->up, data, len, &err);
    if (!s) return SRV_GO;
    srv_upload_discard(e->up);
    e->up = NULL;
    return srv_reply_failed(r, s, &err);
}

static void put(srv_task *t) { /* on the keeper */
    entry *e = (entry *)t;
    const srv_req *r = e->r;
    srv_app *app = r->app;
    if (e->up) e->status = srv_blobs_keep(app->blobs, e->up, e->sha, NULL, &e->err);
    if (!e->status)
        e->status = db_dataset_put(app->db, r->param[0], (db_part)e->part, r->param[1], e->sha,
                                   app->cfg->dataset_files_max, app->cfg->dataset_bytes_max, &e->made, &e->err);
    srv_call_back(e->r);
}

static srv_next was_put(srv_req *r) {
    entry *e = r->state;
    if (e->status) return srv_reply_failed(r, e->status, &e->err);
    return srv_reply_json(r, e->made ? 201 : 200,
                          json_pack("{s:s, s:s, s:s, s:s}", "dataset", r->param[0], "part",
                                    db_part_name((db_part)e->part), "name", r->param[1], "sha256", e->sha));
}

static srv_next read_blob(srv_req *r, entry *e) {
    static const char *const members[] = {"blob", NULL};
    srv_next next = SRV_GO;
    json_t *o = srv_read_object(r, members, &next);
    if (!o) return next;
    const char *sha = json_string_value(json_object_get(o, "blob"));
    if (sha && db_sha_valid(sha))
        memcpy(e->sha, sha, sizeof e->sha);
    else
        next = bad_value(r, "/blob", "invalid_member", "blob must be a SHA-256: 64 hex digits in lower case");
    json_decref(o);
    return next;
}

static srv_next read_picture(srv_req *r, entry *e) {
    dr_error err = {0};
    dr_picture_info info;
    uint8_t sha[32];
    dr_status s = srv_upload_end(e->up, &info, sha, &err);
    dr_hex(sha, 32, e->sha);
    if (e->has_digest && srv_upload_bytes(e->up) && !dr_equal_ct(sha, e->digest, 32))
        return srv_reply_error(r, "digest_mismatch", "the body's SHA-256 is not the one in Content-Digest");
    return s ? srv_reply_failed(r, s, &err) : SRV_GO;
}

srv_next srv_entries_ready(srv_req *r) {
    entry *e = r->state;
    if (e->kind == UNKNOWN) return srv_reply_error(r, "empty_body", "the body is empty; a picture was expected");
    srv_next next = e->kind == JSON ? read_blob(r, e) : read_picture(r, e);
    if (next != SRV_GO) return next;
    srv_call_arm(r);
    srv_blobs_run(r->app->blobs, SRV_KEEPER, &e->task, put);
    return srv_call_park(r, was_put);
}

static void drop(srv_task *t) {
    entry *e = (entry *)t;
    const srv_req *r = e->r;
    e->status = db_dataset_drop(r->app->db, r->param[0], (db_part)e->part, r->param[1], &e->err);
    srv_call_back(e->r);
}

static srv_next dropped(srv_req *r) {
    entry *e = r->state;
    return e->status ? srv_reply_failed(r, e->status, &e->err) : srv_reply_empty(r, 204);
}

srv_next srv_entries_delete(srv_req *r) {
    srv_next next = start(r);
    if (next != SRV_GO) return next;
    entry *e = r->state;
    srv_call_arm(r);
    srv_blobs_run(r->app->blobs, SRV_KEEPER, &e->task, drop);
    return srv_call_park(r, dropped);
}
