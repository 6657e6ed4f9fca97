/* api_models.c - the model that this daemon serves, as the collection of one that it is. */
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/fs.h"
#include "core/base/parse.h"
#include "server/api.h"
#include "server/worker.h"
#include <string.h>

/* What the weights may be used for stands in their own metadata; the card says more. */
static json_t *terms(json_t *metadata) {
    json_t *v = json_object_get(metadata, "derain.terms");
    return json_is_string(v) ? json_incref(v) : json_null();
}

static json_t *model_json(srv_app *app) {
    const srv_model *m = &app->model;
    char when[DR_RFC3339];
    dr_clock_rfc3339(m->created_ms, when);
    json_t *metadata = json_loads(m->metadata_json, 0, NULL);
    if (!json_is_object(metadata)) {
        json_decref(metadata);
        metadata = json_object();
    }
    json_t *arch =
        json_pack("{s:s, s:i, s:i, s:i}", "kind", m->arch, "ngf", m->ngf, "blocks", m->blocks, "residual", m->residual);
    json_t *card = m->card_path ? json_sprintf("/v1/models/%s/versions/%d/card", m->name, m->version) : json_null();
    json_t *allowed = terms(metadata);
    return json_pack("{s:s, s:i, s:s, s:b, s:s, s:I, s:s, s:I, s:o, s:n, s:s, s:o, s:o, s:o}", "name", m->name,
                     "version", m->version, "state", atomic_load(&app->draining) ? "draining" : "ready", "default", 1,
                     "sha256", m->sha256, "bytes", (json_int_t)m->bytes, "dtype", m->dtype, "params",
                     (json_int_t)m->params, "arch", arch, "parent", "created_at", when, "card", card, "terms", allowed,
                     "metadata", metadata);
}

static bool is_ours(srv_req *r, bool with_version) {
    const srv_model *m = &r->app->model;
    int version = 0;
    if (strcmp(r->param[0], m->name)) return false;
    return !with_version || (dr_parse_int(r->param[1], 1, 1 << 30, &version) && version == m->version);
}

static srv_next no_model(srv_req *r) {
    const srv_model *m = &r->app->model;
    return srv_reply_error(r, "model_not_found", "this daemon serves %s, version %d", m->name, m->version);
}

static bool no_query(srv_req *r) {
    srv_query q[] = {{0, 0}};
    return srv_query_read(r, q);
}

srv_next srv_models_list(srv_req *r) {
    if (!no_query(r)) return SRV_REPLY;
    return srv_reply_json(r, 200, json_pack("{s:[o], s:n}", "items", model_json(r->app), "next_cursor"));
}

srv_next srv_models_get(srv_req *r) {
    if (!no_query(r)) return SRV_REPLY;
    return is_ours(r, false) ? srv_reply_json(r, 200, model_json(r->app)) : no_model(r);
}

srv_next srv_models_version(srv_req *r) {
    if (!no_query(r)) return SRV_REPLY;
    return is_ours(r, true) ? srv_reply_json(r, 200, model_json(r->app)) : no_model(r);
}

srv_next srv_models_card(srv_req *r) {
    const srv_model *m = &r->app->model;
    char *text = NULL;
    size_t len = 0;
    dr_buf b;
    if (!no_query(r)) return SRV_REPLY;
    if (!is_ours(r, true)) return no_model(r);
    if (!m->card_path || dr_fs_read(m->card_path, 1 << 20, &text, &len, NULL))
        return srv_reply_error(r, "not_found", "this model has no card beside its weights");
    dr_buf_init(&b, 2 << 20);
    dr_buf_add(&b, text, len);
    dr_free(text);
    return srv_reply_text(r, 200, "text/markdown; charset=utf-8", &b);
}
