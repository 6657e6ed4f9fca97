/* api_blobs.c - /v1/blobs/{sha256}: pictures by content, so that an upload that broke off goes on where it stopped.
 *
 * PUT streams into the spool as POST /v1/derain does, with the same early refusals; the keeper of blobs.c gives the
 * file its name and its row. The other verbs read, or hand over to the keeper. */
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "server/api.h"
#include "server/blobs.h"
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct put {
    srv_task task; /* first: the keeper gives it back */
    srv_req *r;
    srv_upload *up;
    bool has_digest;
    uint8_t digest[32];
    char sha[DB_SHA];
    dr_status status;
    dr_error err;
    bool made;
} put;

static void put_free(void *p) {
    put *u = p;
    srv_upload_discard(u->up);
    dr_free(u);
}

static bool no_query(srv_req *r) {
    srv_query q[] = {{0, 0}};
    return srv_query_read(r, q);
}

/* SRV_GO when the path holds a SHA-256. */
static srv_next check_sha(srv_req *r) {
    srv_problem p;
    if (db_sha_valid(r->param[0])) return SRV_GO;
    srv_problem_make(&p, "invalid_parameter", "a blob's name is its SHA-256: 64 hex digits in lower case");
    srv_problem_point(&p, "/path/sha256");
    return srv_reply_problem(r, &p);
}

srv_next srv_check_intake(srv_req *r) {
    srv_app *app = r->app;
    dr_error err = {0};
    if (atomic_load(&app->draining)) return srv_reply_error(r, "draining", "the service is shutting down");
    dr_status s = srv_spool_room(app->spool, (uint64_t)app->cfg->free_min_bytes, (int)app->cfg->free_min_percent, &err);
    return s ? srv_reply_failed(r, s, &err) : SRV_GO;
}

srv_next srv_read_digest(srv_req *r, bool *ret_has, uint8_t ret[32]) {
    switch (srv_digest_parse(srv_header(r, "Content-Digest"), ret)) {
    case SRV_DIGEST_BAD:
        return srv_reply_error(r, "bad_digest", "Content-Digest holds no valid sha-256");
    case SRV_DIGEST_SHA256:
        *ret_has = true;
        return SRV_GO;
    default:
        return SRV_GO;
    }
}

/* --- put --- */

srv_next srv_blobs_begin(srv_req *r) {
    dr_error err = {0};
    put *u = dr_calloc(1, sizeof *u);
    if (!u) return srv_reply_failed(r, DR_NOMEM, NULL);
    r->state = u;
    r->state_free = put_free;
    u->r = r;
    if (!no_query(r)) return SRV_REPLY;
    srv_next next = check_sha(r);
    if (next == SRV_GO) next = srv_check_intake(r);
    if (next == SRV_GO) next = srv_read_digest(r, &u->has_digest, u->digest);
    if (next == SRV_GO && !r->content_length) next = srv_reply_error(r, "empty_body", "the body is empty");
    if (next != SRV_GO) return next;
    dr_status s = srv_upload_begin(r->app->spool, r->content_length > 0 ? (uint64_t)r->content_length : 0,
                                   &r->app->limits, &u->up, &err);
    return s ? srv_reply_failed(r, s, &err) : SRV_GO;
}

srv_next srv_blobs_data(srv_req *r, const char *data, size_t len) {
    put *u = r->state;
    dr_error err = {0};
    dr_status s = srv_upload_write(u->up, data, len, &err);
    if (!s) return SRV_GO;
    srv_upload_discard(u->up);
    u->up = NULL;
    return srv_reply_failed(r, s, &err);
}

static void keep(srv_task *t) {
    put *u = (put *)t;
    u->status = srv_blobs_keep(u->r->app->blobs, u->up, u->sha, &u->made, &u->err);
    srv_call_back(u->r);
}

static json_t *blob_json(const char *sha256, int64_t bytes) {
    return json_pack("{s:s, s:I, s:{s:o}}", "sha256", sha256, "bytes", (json_int_t)bytes, "links", "self",
                     json_sprintf("/v1/blobs/%s", sha256));
}

static srv_next kept(srv_req *r) {
    put *u = r->state;
    if (u->status) return srv_reply_failed(r, u->status, &u->err);
    srv_reply_header(r, "Location", "/v1/blobs/%s", u->sha);
    return srv_reply_json(r, u->made ? 201 : 200, blob_json(u->sha, (int64_t)srv_upload_bytes(u->up)));
}

srv_next srv_blobs_ready(srv_req *r) {
    put *u = r->state;
    dr_error err = {0};
    dr_picture_info info;
    uint8_t sha[32];
    dr_status s = srv_upload_end(u->up, &info, sha, &err);
    dr_hex(sha, 32, u->sha);
    if (srv_upload_bytes(u->up)) {
        if (u->has_digest && !dr_equal_ct(sha, u->digest, 32))
            return srv_reply_error(r, "digest_mismatch", "the body's SHA-256 is not the one in Content-Digest");
        if (strcmp(u->sha, r->param[0]))
            return srv_reply_error(r, "digest_mismatch", "the body's SHA-256 is %s, not the one in the path", u->sha);
    }
    if (s) return srv_reply_failed(r, s, &err);
    srv_call_arm(r);
    srv_blobs_run(r->app->blobs, SRV_KEEPER, &u->task, keep);
    return srv_call_park(r, kept);
}

/* --- get --- */

static const char *type_of(int fd) {
    uint8_t head[4] = {0};
    if (pread(fd, head, sizeof head, 0) != (ssize_t)sizeof head) return "application/octet-stream";
    if (!memcmp(head, "\x89PNG", 4)) return "image/png";
    return !memcmp(head, "\xFF\xD8\xFF", 3) ? "image/jpeg" : "application/octet-stream";
}

srv_next srv_blobs_get(srv_req *r) {
    char etag[72], digest[SRV_DIGEST_TEXT];
    uint8_t raw[32];
    db_blob blob;
    dr_error err = {0};
    int fd = -1;
    uint64_t len = 0;
    if (!no_query(r)) return SRV_REPLY;
    srv_next next = check_sha(r);
    if (next != SRV_GO) return next;
    dr_status s = db_blob_get(r->app->db, r->param[0], &blob, &err);
    if (s) return srv_reply_failed(r, s, &err);
    snprintf(etag, sizeof etag, "\"%s\"", blob.sha256);
    srv_reply_header(r, "ETag", "%s", etag);
    srv_reply_header(r, "Cache-Control", "private, immutable");
    if (srv_etag_listed(srv_header(r, "If-None-Match"), etag)) return srv_reply_empty(r, 304);
    s = srv_blobs_open_file(r->app->blobs, blob.sha256, &fd, &len, &err);
    if (s) return srv_reply_error(r, "blob_not_found", "the file of this blob is no longer there");
    if (dr_unhex(blob.sha256, 32, raw)) {
        srv_digest_format(raw, digest);
        srv_reply_header(r, "Content-Digest", "%s", digest);
    }
    return srv_reply_file(r, 200, type_of(fd), fd, 0, len);
}

/* --- delete --- */

static void erase(srv_task *t) {
    put *u = (put *)t;
    srv_app *app = u->r->app;
    u->status = db_blob_delete(app->db, u->sha, &u->err);
    if (!u->status) srv_blobs_erase(app->blobs, u->sha);
    srv_call_back(u->r);
}

static srv_next erased(srv_req *r) {
    const put *u = r->state;
    return u->status ? srv_reply_failed(r, u->status, &u->err) : srv_reply_empty(r, 204);
}

srv_next srv_blobs_delete(srv_req *r) {
    if (!no_query(r)) return SRV_REPLY;
    srv_next next = check_sha(r);
    if (next != SRV_GO) return next;
    put *u = dr_calloc(1, sizeof *u);
    if (!u) return srv_reply_failed(r, DR_NOMEM, NULL);
    r->state = u;
    r->state_free = put_free;
    u->r = r;
    memcpy(u->sha, r->param[0], sizeof u->sha);
    srv_call_arm(r);
    srv_blobs_run(r->app->blobs, SRV_KEEPER, &u->task, erase);
    return srv_call_park(r, erased);
}
