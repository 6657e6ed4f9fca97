/* api_import.c - POST /v1/models/{model}/versions: weights in, a new version out.
 *
 * begin   the name, the length, room on the disk; a staged folder of its own
 * data    straight into a file there
 * ready   the registry's thread reads it, checks it whole, runs it once and gives it a number: 201 with the version, or
 *         200 with the old one when the name has the same bytes already
 * A client that leaves half-way takes the staged folder with it. */
#include "core/base/alloc.h"
#include "core/base/fs.h"
#include "server/api.h"
#include "server/model_files.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SENT "sent"

typedef struct import {
    char dir[SRV_PATH]; /* "" once the registry has it */
    int fd;
    uint64_t bytes;
    bool has_digest;
    uint8_t digest[32];
    dr_sha256 sha;
    dr_status status;
    dr_error err;
    srv_change c;
} import;

static void import_free(void *p) {
    import *m = p;
    if (m->fd >= 0) close(m->fd);
    if (*m->dir) srv_mfiles_discard(m->dir);
    dr_free(m);
}

static srv_next too_large(srv_req *r, uint64_t bytes) {
    dr_error err = {0};
    int64_t max = r->app->cfg->body_max_bytes;
    dr_status s = dr_fail_limit(&err, "body_too_large", "body_max_bytes", max, (int64_t)bytes,
                                "weights of more than %lld bytes are not taken", (long long)max);
    return srv_reply_failed(r, s, &err);
}

static srv_next open_stage(srv_req *r, import *m) {
    char path[SRV_PATH + 8];
    dr_error err = {0};
    dr_status s = srv_mfiles_stage(srv_registry_root(r->app->registry), m->dir, &err);
    if (s) {
        *m->dir = 0;
        return srv_reply_failed(r, s, &err);
    }
    snprintf(path, sizeof path, "%s/" SENT, m->dir);
    m->fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    if (m->fd >= 0) return SRV_GO;
    s = dr_fail_errno(&err, errno, "make", path);
    return srv_reply_failed(r, s, &err);
}

srv_next srv_import_begin(srv_req *r) {
    srv_query q[] = {{0, 0}};
    dr_error err = {0};
    srv_app *app = r->app;
    import *m = dr_calloc(1, sizeof *m);
    if (!m) return srv_reply_failed(r, DR_NOMEM, NULL);
    m->fd = -1;
    r->state = m;
    r->state_free = import_free;
    if (!srv_query_read(r, q)) return SRV_REPLY;
    if (!srv_model_name_ok(r->param[0]))
        return srv_reply_error(r, "invalid_name", "'%.63s' cannot be the name of a model", r->param[0]);
    if (srv_media_is(srv_header(r, "Content-Type"), "multipart/form-data"))
        return srv_reply_error(r, "unsupported_format", "send the file itself as the body, not a form");
    srv_digest d = srv_digest_parse(srv_header(r, "Content-Digest"), m->digest);
    if (d == SRV_DIGEST_BAD) return srv_reply_error(r, "bad_digest", "Content-Digest holds no valid sha-256");
    m->has_digest = d == SRV_DIGEST_SHA256;
    dr_sha256_init(&m->sha);
    if (!r->content_length) return srv_reply_error(r, "empty_body", "the body is empty; weights were expected");
    if (r->content_length > app->cfg->body_max_bytes) return too_large(r, (uint64_t)r->content_length);
    if (atomic_load(&app->draining)) return srv_reply_error(r, "draining", "the service is shutting down");
    dr_status s = srv_spool_room(app->spool, (uint64_t)app->cfg->free_min_bytes, (int)app->cfg->free_min_percent, &err);
    return s ? srv_reply_failed(r, s, &err) : open_stage(r, m);
}

srv_next srv_import_data(srv_req *r, const char *data, size_t len) {
    import *m = r->state;
    dr_error err = {0};
    if (m->fd < 0) return SRV_GO;
    m->bytes += len;
    srv_next next = SRV_GO;
    if (m->bytes > (uint64_t)r->app->cfg->body_max_bytes) next = too_large(r, m->bytes);
    dr_status s = next == SRV_GO ? dr_fs_write_all(m->fd, data, len, &err) : DR_OK;
    if (s) next = srv_reply_failed(r, s, &err);
    if (next == SRV_GO) {
        if (m->has_digest) dr_sha256_add(&m->sha, data, len);
        return SRV_GO;
    }
    close(m->fd); /* the rest is soaked up, not kept */
    m->fd = -1;
    return next;
}

/* On the registry's thread. */
static void on_imported(void *arg, dr_status s, const srv_change *c, const dr_error *err) {
    srv_req *r = arg;
    import *m = r->state;
    m->status = s;
    m->err = *err;
    m->c = *c;
    srv_call_back(r);
}

static srv_next imported(srv_req *r) {
    import *m = r->state;
    db_model row = {0};
    dr_error err = {0};
    if (m->status == DR_CORRUPT || m->status == DR_UNSUPPORTED || m->status == DR_INVALID) {
        const char *what = m->err.what;
        bool known = !strcmp(what, "bad_pickle") || !strcmp(what, "bad_zip") || !strcmp(what, "pickle_refused");
        return srv_reply_error(r, known ? what : "bad_model", "%s", m->err.text);
    }
    if (m->status) return srv_reply_failed(r, m->status, &m->err);
    dr_status s = db_model_get(r->app->db, r->param[0], m->c.version, &row, &err);
    if (s) return srv_reply_failed(r, s, &err);
    srv_reply_header(r, "Location", "/v1/models/%s/versions/%lld", row.name, (long long)row.version);
    srv_model_etag(r, m->c.revision);
    srv_next next = srv_reply_json(r, m->c.made ? 201 : 200, srv_model_json(r->app, &row));
    db_model_clear(&row);
    return next;
}

srv_next srv_import_ready(srv_req *r) {
    import *m = r->state;
    uint8_t sha[32];
    char dir[SRV_PATH];
    if (!m->bytes) return srv_reply_error(r, "empty_body", "the body is empty; weights were expected");
    dr_sha256_end(&m->sha, sha);
    if (m->has_digest && !dr_equal_ct(sha, m->digest, 32))
        return srv_reply_error(r, "digest_mismatch", "the body's SHA-256 is not the one in Content-Digest");
    close(m->fd);
    m->fd = -1;
    memcpy(dir, m->dir, sizeof dir);
    *m->dir = 0; /* the registry's from here on */
    srv_call_arm(r);
    srv_registry_import_async(r->app->registry, r->param[0], dir, SENT, on_imported, r);
    return srv_call_park(r, imported);
}
