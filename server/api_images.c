/* api_images.c - POST /v1/derain: a picture in, the derained picture or a job out.
 *
 * begin   everything that can be refused without the body: parameters, Accept, limits, room, queue
 * data    into the spool, through the form reader if it is one; the picture's header is judged on the way
 * ready   whole: digest, header, then spool thread (make the file durable) -> store thread (make the row) -> back here
 * made    202 at once, or wait for the job by its id until it is done, the time is up, the client leaves, or we stop
 *
 * A client that leaves while it waits takes its job with it, unless it sent an Idempotency-Key: then it means to ask
 * again. */
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/parse.h"
#include "server/api.h"
#include "server/multipart.h"
#include <stdio.h>
#include <string.h>
#include <strings.h>

typedef struct derain {
    /* what was asked for */
    dr_format format;
    int depth; /* 0 = as the input */
    bool strip, want_json, pinned;
    srv_model_id model;
    srv_prefer prefer;
    char idem_key[256], idem_hash[DR_SHA256_HEX];
    bool has_digest;
    uint8_t digest[32];
    /* the body */
    dr_limits lim; /* as they are now: a training may hold a part of mem_budget */
    srv_upload *up;
    srv_multipart *form;
    dr_sha256 form_sha;
    dr_picture_info info;
    char sha[DR_SHA256_HEX];
    /* the job */
    char id[DB_ID], params[160];
    db_job wanted;    /* for the store; its texts are ours */
    db_job job;       /* as read back */
    dr_status status; /* of the call that is on its way */
    dr_error err;
    bool created, replayed;
    int64_t deadline_ns;
} derain;

static void derain_free(void *p) {
    derain *d = p;
    srv_upload_discard(d->up);
    dr_free(d->form);
    db_job_clear(&d->job);
    dr_free(d);
}

/* --- parameters --- */

static srv_next bad_value(srv_req *r, const char *name, const char *value, const char *allowed) {
    srv_problem p;
    char pointer[64];
    srv_problem_make(&p, "invalid_parameter", "%s must be %s, not '%.40s'", name, allowed, value);
    snprintf(pointer, sizeof pointer, "/query/%s", name);
    srv_problem_point(&p, pointer);
    return srv_reply_problem(r, &p);
}

/* What the job will run with: the served version at the time when it runs, or the one that was asked for. */
static srv_next find_model(srv_req *r, derain *d, const char *name, int version) {
    db_model m = {0};
    dr_error err = {0};
    srv_registry_served(r->app->registry, &d->model);
    if ((!name || !strcmp(name, d->model.name)) && !version) return SRV_GO;
    d->pinned = version > 0;
    dr_status s = db_model_get(r->app->db, name ? name : d->model.name, version, &m, &err);
    if (s == DR_NOT_FOUND)
        return srv_reply_error(r, "model_not_found", "there is no such model; this daemon serves %s, version %lld",
                               d->model.name, (long long)d->model.version);
    if (s) return srv_reply_failed(r, s, &err);
    d->model.version = m.version;
    snprintf(d->model.name, sizeof d->model.name, "%s", m.name);
    snprintf(d->model.sha256, sizeof d->model.sha256, "%s", m.sha256);
    db_model_clear(&m);
    return SRV_GO;
}

static srv_next read_query(srv_req *r, derain *d, const char **ret_format) {
    enum { MODEL, VERSION, FORMAT, DEPTH, METADATA, TILE, EXACT };
    srv_query q[] = {{"model", 0},    {"version", 0}, {"format", 0}, {"depth", 0},
                     {"metadata", 0}, {"tile", 0},    {"exact", 0},  {0, 0}};
    int version = 0;
    if (!srv_query_read(r, q)) return SRV_REPLY;
    const char *v = q[FORMAT].value;
    if (v && strcmp(v, "png") && strcmp(v, "jpeg")) return bad_value(r, "format", v, "png or jpeg");
    *ret_format = v;
    if ((v = q[DEPTH].value) && strcmp(v, "auto")) {
        if (strcmp(v, "8") && strcmp(v, "16")) return bad_value(r, "depth", v, "auto, 8 or 16");
        d->depth = v[0] == '8' ? 8 : 16;
    }
    if ((v = q[METADATA].value)) {
        if (strcmp(v, "keep") && strcmp(v, "strip")) return bad_value(r, "metadata", v, "keep or strip");
        d->strip = v[0] == 's';
    }
    if ((v = q[TILE].value) && strcmp(v, "auto")) return bad_value(r, "tile", v, "auto");
    if ((v = q[EXACT].value) && strcmp(v, "1")) return bad_value(r, "exact", v, "1");
    if ((v = q[VERSION].value) && !dr_parse_int(v, 1, 1 << 30, &version)) return bad_value(r, "version", v, "a number");
    return find_model(r, d, q[MODEL].value, version);
}

/* Accept and `format` together: the form of the answer and the format of the picture. */
static srv_next negotiate(srv_req *r, derain *d, const char *format) {
    static const char *const types[] = {"image/png", "image/jpeg", "application/json"};
    const char *accept = srv_header(r, "Accept");
    bool jpeg = format && !strcmp(format, "jpeg");
    int best = srv_accept_best(accept, types, 3);
    if (format) { /* only this picture, or the job */
        const char *const two[] = {jpeg ? types[1] : types[0], types[2]};
        best = srv_accept_best(accept, two, 2);
        if (best >= 0) best = best == 1 ? 2 : jpeg ? 1 : 0;
    }
    if (best < 0)
        return srv_reply_error(r, "not_acceptable", "this answer exists as %s%sapplication/json",
                               format && jpeg ? "" : "image/png, ", format && !jpeg ? "" : "image/jpeg, ");
    d->want_json = best == 2;
    d->format = best == 1 || (best == 2 && jpeg) ? DR_FORMAT_JPEG : DR_FORMAT_PNG;
    if (d->format == DR_FORMAT_JPEG && d->depth == 16)
        return bad_value(r, "depth", "16", "8 or auto where the answer is a JPEG");
    return SRV_GO;
}

static enum MHD_Result see_prefer(void *arg, enum MHD_ValueKind kind, const char *key, const char *value) {
    (void)kind;
    if (value && !strcasecmp(key, "Prefer")) srv_prefer_parse(value, arg);
    return MHD_YES;
}

static srv_next read_headers(srv_req *r, derain *d) {
    char boundary[SRV_BOUNDARY_MAX + 2];
    dr_error err = {0};
    MHD_get_connection_values(r->conn, MHD_HEADER_KIND, see_prefer, &d->prefer);
    const char *key = srv_header(r, "Idempotency-Key"), *type = srv_header(r, "Content-Type");
    if (key && !srv_idempotency_key_ok(key))
        return srv_reply_error(r, "bad_idempotency_key", "Idempotency-Key must be 1 to 255 printable characters");
    snprintf(d->idem_key, sizeof d->idem_key, "%s", key ? key : "");
    switch (srv_digest_parse(srv_header(r, "Content-Digest"), d->digest)) {
    case SRV_DIGEST_BAD:
        return srv_reply_error(r, "bad_digest", "Content-Digest holds no valid sha-256");
    case SRV_DIGEST_SHA256:
        d->has_digest = true;
        break;
    default:
        break;
    }
    if (!srv_media_is(type, "multipart/form-data")) return SRV_GO;
    if (!srv_media_param(type, "boundary", boundary, sizeof boundary))
        return srv_reply_error(r, "bad_multipart", "multipart/form-data without a usable boundary");
    if (!(d->form = dr_malloc(sizeof *d->form))) return srv_reply_failed(r, DR_NOMEM, NULL);
    dr_sha256_init(&d->form_sha);
    dr_status s = srv_multipart_init(d->form, boundary, NULL, NULL, &err);
    return s ? srv_reply_failed(r, s, &err) : SRV_GO;
}

/* --- room for one more? --- */

static srv_next queue_full(srv_req *r, int64_t waiting) {
    srv_problem p;
    int64_t max = r->app->cfg->queue_max;
    srv_problem_make(&p, "queue_full", "%lld jobs are waiting, which is the limit", (long long)waiting);
    p.has_limit = true;
    p.limit = max;
    p.actual = waiting;
    snprintf(p.setting, sizeof p.setting, "queue_max");
    p.retry_after_s = srv_queue_retry_after(r->app->queue, 1);
    srv_count(&r->app->tele, SRV_JOBS_REFUSED_FULL, 1);
    return srv_reply_problem(r, &p);
}

static srv_next check_room(srv_req *r) {
    srv_app *app = r->app;
    dr_error err = {0};
    db_counts counts;
    if (atomic_load(&app->draining)) return srv_reply_error(r, "draining", "the service is shutting down");
    dr_status s = srv_spool_room(app->spool, (uint64_t)app->cfg->free_min_bytes, (int)app->cfg->free_min_percent, &err);
    if (s == DR_NOSPACE) srv_count(&app->tele, SRV_JOBS_REFUSED_DISK, 1);
    if (s) return srv_reply_failed(r, s, &err);
    if (srv_queue_count(app->queue) < app->cfg->queue_max || db_job_counts(app->db, &counts, NULL)) return SRV_GO;
    srv_queue_count_set(app->queue,
                        counts.state[DB_QUEUED]); /* the store has the last word, also when the row is made */
    return counts.state[DB_QUEUED] >= app->cfg->queue_max ? queue_full(r, counts.state[DB_QUEUED]) : SRV_GO;
}

/* The pixel limit may come from the memory budget: then name that setting, in its unit. */
static srv_next refuse(srv_req *r, dr_status s, dr_error *err) {
    srv_app *app = r->app;
    const derain *d = r->state;
    bool beside = d->lim.pixels_max < app->limits.pixels_max; /* a training */
    if (s == DR_TOO_LARGE && (app->pixels_by_memory || beside) && !strcmp(err->setting, "pixels_max") &&
        err->actual <= app->cfg->pixels_max) {
        int64_t pixels = err->actual;
        err->limit = (int64_t)(beside ? srv_memory_for_run(app) : app->limits.mem_budget);
        err->actual = (int64_t)srv_memory_least(app, (uint64_t)pixels);
        snprintf(err->setting, sizeof err->setting, "mem_budget");
        snprintf(err->text, sizeof err->text, "a picture of %lld pixels needs at least about %lld MB of memory%s",
                 (long long)pixels, (long long)(err->actual >> 20),
                 beside ? ", and a training holds a part of it now" : "");
    }
    if (s == DR_NOSPACE) srv_count(&app->tele, SRV_JOBS_REFUSED_DISK, 1);
    return srv_reply_failed(r, s, err);
}

srv_next srv_derain_begin(srv_req *r) {
    derain *d = dr_calloc(1, sizeof *d);
    const char *format = NULL;
    dr_error err = {0};
    if (!d) return srv_reply_failed(r, DR_NOMEM, NULL);
    r->state = d;
    r->state_free = derain_free;
    srv_next next = read_query(r, d, &format);
    if (next == SRV_GO) next = negotiate(r, d, format);
    if (next == SRV_GO) next = read_headers(r, d);
    if (next == SRV_GO && !r->content_length)
        next = srv_reply_error(r, "empty_body", "the body is empty; a picture was expected");
    if (next == SRV_GO) next = check_room(r);
    if (next != SRV_GO) return next;
    uint64_t expected = r->content_length > 0 && !d->form ? (uint64_t)r->content_length : 0;
    uint64_t slack = SRV_PART_HEADER_MAX + 4 * SRV_BOUNDARY_MAX; /* what a form adds */
    if (d->form && r->content_length > 0 && (uint64_t)r->content_length > r->app->limits.body_max_bytes + slack)
        expected = (uint64_t)r->content_length;
    srv_memory_limits(r->app, &d->lim);
    dr_status s = srv_upload_begin(r->app->spool, expected, &d->lim, &d->up, &err);
    return s ? refuse(r, s, &err) : SRV_GO;
}

/* --- body --- */

static dr_status into_spool(void *up, const void *data, size_t len, dr_error *err) {
    return srv_upload_write(up, data, len, err);
}

srv_next srv_derain_data(srv_req *r, const char *data, size_t len) {
    derain *d = r->state;
    dr_error err = {0};
    dr_status s;
    if (d->form) {
        d->form->sink = into_spool;
        d->form->arg = d->up;
        if (d->has_digest) dr_sha256_add(&d->form_sha, data, len);
        s = srv_multipart_feed(d->form, data, len, &err);
    } else
        s = srv_upload_write(d->up, data, len, &err);
    if (!s) return SRV_GO;
    srv_upload_discard(d->up); /* the rest is soaked up, not kept */
    d->up = NULL;
    return refuse(r, s, &err);
}

static srv_next check_body(srv_req *r, derain *d) {
    dr_error err = {0};
    uint8_t sha[32], whole[32];
    dr_status s = d->form ? srv_multipart_end(d->form, &err) : DR_OK;
    if (s) return refuse(r, s, &err);
    s = srv_upload_end(d->up, &d->info, sha, &err);
    if (d->form)
        dr_sha256_end(&d->form_sha, whole);
    else
        memcpy(whole, sha, sizeof whole);
    if (d->has_digest && srv_upload_bytes(d->up) && !dr_equal_ct(whole, d->digest, 32))
        return srv_reply_error(r, "digest_mismatch", "the body's SHA-256 is not the one in Content-Digest");
    if (s) return refuse(r, s, &err);
    dr_hex(sha, 32, d->sha);
    if (d->format == DR_FORMAT_JPEG && (d->info.channels == 2 || d->info.channels == 4))
        return srv_reply_error(r, "alpha_jpeg",
                               "the picture has an alpha channel, which JPEG cannot hold; ask for PNG");
    return SRV_GO;
}

/* --- the job --- */

static srv_next made(srv_req *r);
static srv_next woken(srv_req *r);

/* The answer of a cancel that nobody waits for. */
static void on_cancelled(void *arg, dr_status s, const db_job *job, bool cancelled, const dr_error *err) {
    srv_app *app = arg;
    (void)err;
    if (s || !cancelled) return;
    srv_queue_cancel(app->queue, job->id);
    srv_batcher_wake(app->batcher);
    srv_park_wake_key(app->watch, job->id);
}

/* The client left while it waited. With an Idempotency-Key it means to ask again. */
static void client_left(srv_req *r) {
    derain *d = r->state;
    srv_count(&r->app->tele, SRV_CLIENTS_LEFT, 1);
    if (d->created && !*d->idem_key && !d->prefer.respond_async)
        db_job_cancel_async(r->app->db, d->id, "the client left", on_cancelled, r->app);
}

/* On the store's thread. */
static void on_created(void *arg, dr_status s, const db_job *job, bool replayed, const dr_error *err) {
    srv_req *r = arg;
    derain *d = r->state;
    srv_app *app = r->app;
    d->status = s;
    if (s && err) d->err = *err;
    if (s || replayed) srv_spool_erase(app->spool, d->id); /* nobody will need this copy */
    if (!s) {
        d->created = !replayed;
        d->replayed = replayed;
        snprintf(d->id, sizeof d->id, "%s", job->id);
        srv_count(&app->tele, replayed ? SRV_JOBS_REPLAYED : SRV_JOBS_ACCEPTED, 1);
        if (!replayed) {
            srv_queue_count_add(app->queue, 1);
            srv_queue_ring(app->queue);
        }
    }
    srv_call_back(r);
}

/* On the spool's thread: the file is durable, now the row. */
static void on_kept(void *arg, dr_status s, const dr_error *err) {
    srv_req *r = arg;
    derain *d = r->state;
    if (s) {
        d->status = s;
        d->err = *err;
        srv_call_back(r);
        return;
    }
    db_job_new in = {.job = &d->wanted, .queue_max = r->app->cfg->queue_max};
    if (*d->idem_key) in.idem_key = d->idem_key, in.idem_hash = d->idem_hash;
    db_job_create_async(r->app->db, &in, on_created, r);
}

static void describe_job(srv_req *r, derain *d) {
    const srv_model_id *m = &d->model;
    db_job *j = &d->wanted;
    db_id_new("job_", d->id);
    *j = (db_job){.class_ = d->prefer.respond_async ? DB_BATCH : DB_INTERACTIVE};
    snprintf(j->id, sizeof j->id, "%s", d->id);
    snprintf(j->type, sizeof j->type, "derain");
    snprintf(j->model.name, sizeof j->model.name, "%s", m->name);
    j->model.version = m->version;
    snprintf(j->model.sha256, sizeof j->model.sha256, "%s", m->sha256);
    snprintf(j->input.format, sizeof j->input.format, "%s", dr_format_name(d->info.format));
    j->input.width = d->info.width;
    j->input.height = d->info.height;
    j->input.bit_depth = d->info.bit_depth;
    j->input.channels = d->info.channels;
    j->input.bytes = (int64_t)srv_upload_bytes(d->up);
    snprintf(j->input.sha256, sizeof j->input.sha256, "%s", d->sha);
    snprintf(j->request_id, sizeof j->request_id, "%s", r->id);
    snprintf(j->traceparent, sizeof j->traceparent, "%s", r->trace);
    snprintf(d->params, sizeof d->params, "{\"format\":\"%s\",\"depth\":%d,\"metadata\":\"%s\"%s}",
             dr_format_name(d->format), d->depth, d->strip ? "strip" : "keep", d->pinned ? ",\"pinned\":true" : "");
    j->params_json = d->params;
}

/* Method, path with query, and picture: what "the same request" means for an Idempotency-Key. */
static void hash_request(const srv_req *r, derain *d) {
    dr_sha256 h;
    uint8_t sum[32];
    dr_sha256_init(&h);
    dr_sha256_add(&h, "POST ", 5);
    dr_sha256_add(&h, r->uri, strlen(r->uri) + 1);
    dr_sha256_add(&h, d->sha, strlen(d->sha));
    dr_sha256_end(&h, sum);
    dr_hex(sum, 32, d->idem_hash);
}

srv_next srv_derain_ready(srv_req *r) {
    derain *d = r->state;
    int64_t wait_s = r->app->cfg->sync_wait_max_s;
    srv_next next = check_body(r, d);
    if (next != SRV_GO) return next;
    if (d->prefer.has_wait && d->prefer.wait_s < wait_s) wait_s = d->prefer.wait_s;
    d->deadline_ns = dr_clock_ns() + wait_s * 1000000000;
    describe_job(r, d);
    if (*d->idem_key) hash_request(r, d);
    srv_upload *up = d->up;
    d->up = NULL;
    r->left = client_left;
    srv_call_arm(r);
    srv_spool_keep(r->app->spool, up, d->id, on_kept, r);
    return srv_call_park(r, made);
}

static void applied(srv_req *r, const derain *d) {
    if (d->replayed) srv_reply_header(r, "Idempotent-Replayed", "true");
    if (d->prefer.respond_async)
        srv_reply_header(r, "Preference-Applied", "respond-async");
    else if (d->prefer.has_wait)
        srv_reply_header(r, "Preference-Applied", "wait=%lld", (long long)d->prefer.wait_s);
    srv_reply_header(r, "Vary", "Accept, Prefer");
}

static srv_next reply_later(srv_req *r, derain *d) {
    applied(r, d);
    srv_job_location(r, &d->job);
    if (db_state_final(d->job.state)) srv_reply_header(r, "Retry-After", "0"); /* 202 always has one */
    if (!d->prefer.minimal) return srv_reply_json(r, 202, srv_job_json(r->app, &d->job));
    srv_reply_header(r, "Preference-Applied", "return=minimal");
    return srv_reply_empty(r, 202);
}

static srv_next reply_final(srv_req *r, derain *d) {
    const db_job *j = &d->job;
    srv_problem p;
    applied(r, d);
    if (j->state == DB_SUCCEEDED) {
        if (!d->want_json) return srv_job_picture(r, j);
        srv_job_location(r, j);
        return srv_reply_json(r, 200, srv_job_json(r->app, j));
    }
    if (j->problem_json) return srv_reply_stored(r, j->problem_json, j->id);
    srv_problem_make(&p,
                     j->state == DB_EXPIRED     ? "job_expired"
                     : j->state == DB_CANCELLED ? "job_cancelled"
                                                : "internal",
                     "the job ended as %s", db_state_name(j->state));
    snprintf(p.job, sizeof p.job, "%s", j->id);
    return srv_reply_problem(r, &p);
}

static srv_next reply_with_job(srv_req *r, const derain *d, const char *code, const char *detail) {
    srv_problem p;
    srv_problem_make(&p, code, "%s", detail);
    snprintf(p.job, sizeof p.job, "%s", d->id);
    p.retry_after_s = srv_queue_retry_after(r->app->queue, d->job.queue_position);
    srv_reply_header(r, "Location", "/v1/jobs/%s", d->id);
    return srv_reply_problem(r, &p);
}

static srv_next read_job(srv_req *r, derain *d) {
    dr_error err = {0};
    db_job fresh = {0};
    dr_status s = db_job_get(r->app->db, d->id, &fresh, &err);
    if (s) return srv_reply_failed(r, s, &err);
    db_job_clear(&d->job);
    d->job = fresh;
    return SRV_GO;
}

/* Done? Else wait for the next change. The park is armed before the row is read, so no change is missed. */
static srv_next wait_for_job(srv_req *r, derain *d) {
    srv_wait_arm(r, d->id);
    srv_next next = read_job(r, d);
    bool busy = next == SRV_GO && d->replayed && srv_park_owned(r->app->watch, &r->park, d->id);
    if (next == SRV_GO && !db_state_final(d->job.state) && !busy) {
        srv_park_own(r->app->watch, &r->park);
        return srv_wait(r, woken, d->deadline_ns);
    }
    srv_park_disarm(r->app->watch, &r->park);
    if (next != SRV_GO) return next;
    if (db_state_final(d->job.state)) return reply_final(r, d);
    return reply_with_job(r, d, "idempotency_in_progress", "a request with this Idempotency-Key is being worked on");
}

static srv_next made(srv_req *r) {
    derain *d = r->state;
    if (d->status == DR_BUSY) return queue_full(r, d->err.actual);
    if (d->status) return refuse(r, d->status, &d->err);
    if (!d->prefer.respond_async) return wait_for_job(r, d);
    srv_next next = read_job(r, d);
    return next == SRV_GO ? reply_later(r, d) : next;
}

static srv_next woken(srv_req *r) {
    derain *d = r->state;
    switch (srv_wait_why(r)) {
    case SRV_WAKE_EVENT:
        return wait_for_job(r, d);
    case SRV_WAKE_GONE:
        client_left(r);
        return SRV_CLOSE;
    case SRV_WAKE_STOP:
        return reply_with_job(r, d, "draining",
                              "the service is shutting down; the job is kept and goes on after the restart");
    default:
        break;
    }
    srv_next next = read_job(r, d);
    if (next != SRV_GO) return next;
    if (db_state_final(d->job.state)) return reply_final(r, d);
    if (d->prefer.has_wait || d->want_json) return reply_later(r, d);
    return reply_with_job(r, d, "deadline_exceeded", "the picture is not done yet; the job goes on");
}
