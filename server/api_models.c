/* api_models.c - models and their versions: look, fetch, and change what is served.
 *
 * The rows are read here, on the HTTP thread; what changes something goes to the registry's thread, while the request
 * is parked. A model's ETag is the revision of its name: PUT /default must name the one it has seen. */
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/fs.h"
#include "core/base/parse.h"
#include "server/api.h"
#include "server/model_files.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- a version as JSON --- */

static json_t *parsed(const char *text) {
    json_t *o = text ? json_loads(text, 0, NULL) : NULL;
    return o ? o : json_null();
}

static json_t *text_or_null(const char *s) {
    return s && *s ? json_string(s) : json_null();
}

static json_t *member(json_t *o, const char *key) {
    json_t *v = json_object_get(o, key);
    return v ? json_incref(v) : json_null();
}

static const char *state_of(srv_app *app, const db_model *m) {
    char path[SRV_PATH];
    if (srv_registry_resident(app->registry, m->name, m->version))
        return atomic_load(&app->draining) ? "draining" : "ready";
    return srv_registry_path(app->registry, m, SRV_MODEL_WEIGHTS, path, sizeof path) ? "unloaded" : "failed";
}

json_t *srv_model_json(srv_app *app, const db_model *m) {
    char when[DR_RFC3339], path[SRV_PATH];
    bool has_card = srv_registry_path(app->registry, m, SRV_MODEL_CARD, path, sizeof path);
    bool has_train = srv_registry_path(app->registry, m, SRV_MODEL_TRAIN, path, sizeof path);
    json_t *about = parsed(m->about_json), *metadata = json_object_get(about, "metadata"), *o = json_object();
    dr_clock_rfc3339(m->created_ms, when);
    json_object_set_new(o, "name", json_string(m->name));
    json_object_set_new(o, "version", json_integer(m->version));
    json_object_set_new(o, "state", json_string(state_of(app, m)));
    json_object_set_new(o, "default", json_boolean(m->is_default));
    json_object_set_new(o, "origin", json_string(db_origin_name(m->origin)));
    json_object_set_new(o, "verdict", text_or_null(db_verdict_name(m->verdict)));
    json_object_set_new(o, "sha256", json_string(m->sha256));
    json_object_set_new(o, "bytes", json_integer(m->bytes));
    json_object_set_new(o, "dtype", member(about, "dtype"));
    json_object_set_new(o, "params", member(about, "params"));
    json_object_set_new(o, "arch", parsed(m->arch_json));
    json_object_set_new(o, "parent", m->parent ? json_integer(m->parent) : json_null());
    json_object_set_new(o, "dataset", text_or_null(m->dataset));
    json_object_set_new(o, "job", text_or_null(m->job));
    json_object_set_new(o, "created_at", json_string(when));
    json_object_set_new(o, "measures", parsed(m->measures_json));
    json_object_set_new(o, "gate", parsed(m->gate_json));
    json_object_set_new(o, "trainable", json_boolean(has_train));
    json_object_set_new(o, "card",
                        has_card ? json_sprintf("/v1/models/%s/versions/%lld/card", m->name, (long long)m->version)
                                 : json_null());
    /* What the weights may be used for stands in their own metadata; the card says more. */
    json_object_set_new(o, "terms", member(metadata, "derain.terms"));
    json_object_set_new(o, "metadata", json_is_object(metadata) ? json_incref(metadata) : json_object());
    json_decref(about);
    if (json_object_size(o) == 21) return o;
    json_decref(o);
    return NULL;
}

void srv_model_etag(srv_req *r, int64_t revision) {
    srv_reply_header(r, "ETag", "\"r%lld\"", (long long)revision);
    srv_reply_header(r, "Cache-Control", "private, no-cache");
}

/* --- look --- */

static bool no_query(srv_req *r) {
    srv_query q[] = {{0, 0}};
    return srv_query_read(r, q);
}

static srv_next no_model(srv_req *r) {
    srv_model_id m;
    srv_registry_served(r->app->registry, &m);
    return srv_reply_error(r, "model_not_found", "there is no such model; this daemon serves %s, version %lld", m.name,
                           (long long)m.version);
}

/* The version that the path names; SRV_GO with it in ret. */
static srv_next find(srv_req *r, bool with_version, db_model *ret) {
    dr_error err = {0};
    int64_t version = 0;
    if (with_version && !dr_parse_i64(r->param[1], 1, INT64_MAX, &version)) return no_model(r);
    dr_status s = db_model_get(r->app->db, r->param[0], version, ret, &err);
    if (s == DR_NOT_FOUND) return no_model(r);
    return s ? srv_reply_failed(r, s, &err) : SRV_GO;
}

srv_next srv_models_list(srv_req *r) {
    db_model *list;
    size_t n;
    dr_error err = {0};
    if (!no_query(r)) return SRV_REPLY;
    dr_status s = db_model_list(r->app->db, NULL, 0, &list, &n, &err);
    if (s) return srv_reply_failed(r, s, &err);
    json_t *items = json_array();
    bool ok = items != NULL;
    for (size_t i = 0; i < n && ok; i++) ok = !json_array_append_new(items, srv_model_json(r->app, &list[i]));
    db_model_list_clear(list, n);
    json_t *o = ok ? json_pack("{s:O, s:n}", "items", items, "next_cursor") : NULL;
    json_decref(items);
    return srv_reply_json(r, 200, o);
}

static srv_next show(srv_req *r, bool with_version) {
    db_model m = {0};
    int64_t revision = 0;
    char etag[40];
    dr_error err = {0};
    if (!no_query(r)) return SRV_REPLY;
    /* before the row: an older tag than the row can only make a change fail, never slip through */
    dr_status s = db_model_revision(r->app->db, r->param[0], &revision, &err);
    if (s == DR_NOT_FOUND) return no_model(r);
    if (s) return srv_reply_failed(r, s, &err);
    srv_next next = find(r, with_version, &m);
    if (next != SRV_GO) return next;
    snprintf(etag, sizeof etag, "\"r%lld\"", (long long)revision);
    srv_model_etag(r, revision);
    bool same = !with_version && srv_etag_listed(srv_header(r, "If-None-Match"), etag);
    next = same ? srv_reply_empty(r, 304) : srv_reply_json(r, 200, srv_model_json(r->app, &m));
    db_model_clear(&m);
    return next;
}

srv_next srv_models_get(srv_req *r) {
    return show(r, false);
}
srv_next srv_models_version(srv_req *r) {
    return show(r, true);
}

srv_next srv_models_card(srv_req *r) {
    char path[SRV_PATH], *text = NULL;
    size_t len = 0;
    db_model m = {0};
    dr_buf b;
    if (!no_query(r)) return SRV_REPLY;
    srv_next next = find(r, true, &m);
    if (next != SRV_GO) return next;
    bool there = srv_registry_path(r->app->registry, &m, SRV_MODEL_CARD, path, sizeof path) &&
                 !dr_fs_read(path, 1 << 20, &text, &len, NULL);
    db_model_clear(&m);
    if (!there) return srv_reply_error(r, "card_not_found", "this version has no card beside its weights");
    dr_buf_init(&b, 2 << 20);
    dr_buf_add(&b, text, len);
    dr_free(text);
    return srv_reply_text(r, 200, "text/markdown; charset=utf-8", &b);
}

srv_next srv_models_weights(srv_req *r) {
    char path[SRV_PATH];
    db_model m = {0};
    struct stat st;
    int fd = -1;
    if (!no_query(r)) return SRV_REPLY;
    srv_next next = find(r, true, &m);
    if (next != SRV_GO) return next;
    if (srv_registry_path(r->app->registry, &m, SRV_MODEL_WEIGHTS, path, sizeof path))
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    /* a configured file may have been replaced since it was registered */
    bool good = fd >= 0 && !fstat(fd, &st) && S_ISREG(st.st_mode) && st.st_size == m.bytes;
    if (good) {
        next = srv_reply_blob(r, "application/octet-stream", m.sha256, "private, immutable", fd, (uint64_t)st.st_size);
        if (r->reply.status == 200 || r->reply.status == 206)
            srv_reply_header(r, "Content-Disposition", "attachment; filename=\"%s-%lld.safetensors\"", m.name,
                             (long long)m.version);
    } else {
        if (fd >= 0) close(fd);
        next = srv_reply_error(r, "version_unusable", "the weights of %s version %lld are missing or damaged", m.name,
                               (long long)m.version);
    }
    db_model_clear(&m);
    return next;
}

/* --- change --- */

typedef struct change {
    dr_status status;
    dr_error err;
    srv_change c;
} change;

/* On the registry's thread. */
static void on_changed(void *arg, dr_status s, const srv_change *c, const dr_error *err) {
    srv_req *r = arg;
    change *ch = r->state;
    ch->status = s;
    ch->err = *err;
    ch->c = *c;
    srv_call_back(r);
}

static srv_next changed(srv_req *r) {
    change *ch = r->state;
    db_model m = {0};
    dr_error err = {0};
    if (ch->status == DR_NOT_FOUND) return no_model(r);
    if (ch->status) return srv_reply_failed(r, ch->status, &ch->err);
    dr_status s = db_model_get(r->app->db, r->param[0], ch->c.version, &m, &err);
    if (s) return srv_reply_failed(r, s, &err);
    srv_model_etag(r, ch->c.revision);
    srv_next next = srv_reply_json(r, 200, srv_model_json(r->app, &m));
    db_model_clear(&m);
    return next;
}

static srv_next start(srv_req *r, int64_t version, int64_t revision, bool force) {
    change *ch = dr_calloc(1, sizeof *ch);
    if (!ch) return srv_reply_failed(r, DR_NOMEM, NULL);
    r->state = ch;
    r->state_free = dr_free;
    srv_call_arm(r);
    srv_registry_set_default_async(r->app->registry, r->param[0], version, revision, force, on_changed, r);
    return srv_call_park(r, changed);
}

/* {"version": 7, "force": true}; SRV_GO with the values. */
static srv_next read_wish(srv_req *r, int64_t *ret_version, bool *ret_force) {
    const char *key;
    json_t *value;
    json_error_t je;
    json_t *o = json_loadb(r->body.data ? r->body.data : "", r->body.len, JSON_REJECT_DUPLICATES, &je);
    srv_next next = SRV_GO;
    if (!json_is_object(o))
        next = srv_reply_error(r, "bad_json", "the body must be a JSON object like {\"version\":2}");
    json_object_foreach(o, key, value) {
        srv_problem p;
        char pointer[64];
        bool is_version = !strcmp(key, "version"), is_force = !strcmp(key, "force");
        if (is_version && json_is_integer(value) && json_integer_value(value) > 0)
            *ret_version = json_integer_value(value);
        else if (is_force && json_is_boolean(value))
            *ret_force = json_is_true(value);
        else {
            if (is_version || is_force)
                srv_problem_make(&p, "invalid_member", "%s",
                                 is_version ? "version must be a number above 0" : "force must be true or false");
            else
                srv_problem_make(&p, "unknown_member", "unknown member '%.60s'", key);
            snprintf(pointer, sizeof pointer, "/%.60s", key);
            srv_problem_point(&p, pointer);
            next = srv_reply_problem(r, &p);
            break;
        }
    }
    json_decref(o);
    if (next == SRV_GO && !*ret_version) return srv_reply_error(r, "invalid_member", "the body lacks \"version\"");
    return next;
}

/* If-Match of one revision ("r7") or "*": 0 for any. SRV_GO with it. */
static srv_next read_if_match(srv_req *r, int64_t *ret) {
    const char *v = srv_header(r, "If-Match");
    char digits[24];
    size_t n = v ? strlen(v) : 0;
    *ret = 0;
    if (!v)
        return srv_reply_error(r, "if_match_required", "send If-Match with the ETag of GET /v1/models/%s", r->param[0]);
    if (!strcmp(v, "*")) return SRV_GO;
    if (n >= 4 && n - 3 < sizeof digits && v[0] == '"' && v[1] == 'r' && v[n - 1] == '"') {
        memcpy(digits, v + 2, n - 3);
        digits[n - 3] = 0;
        if (dr_parse_i64(digits, 1, INT64_MAX, ret)) return SRV_GO;
    }
    return srv_reply_error(r, "revision_changed", "If-Match '%.40s' is no revision of this model", v);
}

srv_next srv_models_default(srv_req *r) {
    int64_t version = 0, revision = 0;
    bool force = false;
    if (!no_query(r)) return SRV_REPLY;
    srv_next next = read_wish(r, &version, &force);
    if (next == SRV_GO) next = read_if_match(r, &revision);
    return next == SRV_GO ? start(r, version, revision, force) : next;
}

srv_next srv_models_rollback(srv_req *r) {
    int64_t revision = 0;
    if (!no_query(r)) return SRV_REPLY;
    if (r->body.len && strspn(r->body.data, " \r\n\t{}") != r->body.len)
        return srv_reply_error(r, "unknown_member", "a roll-back takes no members");
    srv_next next = srv_header(r, "If-Match") ? read_if_match(r, &revision) : SRV_GO;
    return next == SRV_GO ? start(r, 0, revision, false) : next;
}
