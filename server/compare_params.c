/* compare_params.c - see compare_params.h. */
#include "server/compare_params.h"
#include "core/base/alloc.h"
#include "core/base/parse.h"
#include "server/archive.h"
#include <stdio.h>
#include <string.h>

static bool bad(srv_problem *p, const char *code, const char *pointer, const char *text) {
    srv_problem_make(p, code, "%s", text);
    srv_problem_point(p, pointer);
    return false;
}

static bool wrong(srv_problem *p, const char *pointer, const char *text) {
    return bad(p, "invalid_member", pointer, text);
}

static bool too_many(srv_problem *p, const char *pointer, const char *what, int64_t limit, size_t actual,
                     const char *setting) {
    srv_problem_make(p, "compare_too_large", "%zu %s, at most %lld are compared at once", actual, what,
                     (long long)limit);
    srv_problem_point(p, pointer);
    p->has_limit = true;
    p->limit = limit;
    p->actual = (int64_t)actual;
    snprintf(p->setting, sizeof p->setting, "%s", setting);
    return false;
}

/* A text without NUL inside, shorter than cap; NULL otherwise. */
static const char *short_text(const json_t *v, size_t cap) {
    const char *s = json_string_value(v);
    return s && json_string_length(v) == strlen(s) && strlen(s) < cap ? s : NULL;
}

/* --- versions --- */

/* "NAME" or "NAME/VERSION". */
static bool read_wish(const json_t *v, struct srv_version_wish *ret) {
    char text[96];
    const char *s = short_text(v, sizeof text);
    if (!s) return false;
    snprintf(text, sizeof text, "%s", s);
    char *slash = strchr(text, '/');
    ret->version = 0;
    if (slash && !dr_parse_i64(slash + 1, 1, INT32_MAX, &ret->version)) return false;
    if (slash) *slash = 0;
    if (!*text || strlen(text) >= sizeof ret->name) return false;
    snprintf(ret->name, sizeof ret->name, "%s", text);
    return true;
}

static bool read_versions(const json_t *v, srv_compare_params *ret, srv_problem *p) {
    const size_t n = json_array_size(v);
    char pointer[40];
    if (!v || json_is_null(v)) return true;
    if (!json_is_array(v)) return wrong(p, "/versions", "versions must be an array of NAME/VERSION");
    if (n < SRV_COMPARE_MIN) return wrong(p, "/versions", "a comparison takes at least two versions");
    if (n > DR_COMPARE_MAX) return too_many(p, "/versions", "versions", DR_COMPARE_MAX, n, "versions");
    for (size_t i = 0; i < n; i++) {
        snprintf(pointer, sizeof pointer, "/versions/%zu", i);
        if (!read_wish(json_array_get(v, i), &ret->wish[i]))
            return wrong(p, pointer, "a version is NAME/VERSION, or NAME for its default");
    }
    ret->n_wishes = (int)n;
    return true;
}

/* --- pictures --- */

static bool read_sha(const json_t *v, char ret[DB_SHA]) {
    const char *s = short_text(v, DB_SHA);
    if (!s || !db_sha_valid(s)) return false;
    memcpy(ret, s, DB_SHA);
    return true;
}

static bool read_picture(const json_t *o, size_t i, db_picture *ret, srv_problem *p) {
    char pointer[64], text[120];
    const char *key;
    json_t *v;
    bool has_name = false, has_blob = false;
    snprintf(pointer, sizeof pointer, "/pictures/%zu", i);
    if (!json_is_object(o)) return wrong(p, pointer, "a picture is an object of name, blob and clean");
    json_object_foreach((json_t *)(uintptr_t)o, key, v) {
        snprintf(pointer, sizeof pointer, "/pictures/%zu/%.30s", i, key);
        if (!strcmp(key, "name")) {
            const char *s = short_text(v, sizeof ret->name);
            if (!s || !srv_entry_name_ok(s))
                return wrong(p, pointer, "a picture's name has 1 to 128 characters, no slash, and no dot in front");
            snprintf(ret->name, sizeof ret->name, "%s", s);
            has_name = true;
        } else if (!strcmp(key, "blob")) {
            if (!(has_blob = read_sha(v, ret->sha256)))
                return wrong(p, pointer, "blob must be a SHA-256: 64 hex digits in lower case");
        } else if (!strcmp(key, "clean")) {
            if (!json_is_null(v) && !read_sha(v, ret->clean))
                return wrong(p, pointer, "clean must be a SHA-256: 64 hex digits in lower case");
        } else {
            snprintf(text, sizeof text, "unknown member '%.60s'", key);
            return bad(p, "unknown_member", pointer, text);
        }
    }
    snprintf(pointer, sizeof pointer, "/pictures/%zu", i);
    return has_name && has_blob ? true : wrong(p, pointer, "a picture needs name and blob");
}

static bool read_pictures(const json_t *v, int64_t most, srv_compare_params *ret, srv_problem *p) {
    const size_t n = json_array_size(v);
    if (!json_is_array(v) || !n) return wrong(p, "/pictures", "pictures must be an array of one picture or more");
    if (n > (size_t)most) return too_many(p, "/pictures", "pictures", most, n, "compare_pictures_max");
    if (!(ret->pictures = dr_calloc(n, sizeof *ret->pictures)))
        return bad(p, "out_of_memory", "/pictures", "no memory for a list of pictures");
    ret->n_pictures = n;
    for (size_t i = 0; i < n; i++)
        if (!read_picture(json_array_get(v, i), i, &ret->pictures[i], p)) return false;
    return true;
}

static bool read_all(const json_t *o, int64_t most, srv_compare_params *ret, srv_problem *p) {
    const json_t *pictures = json_object_get(o, "pictures"), *dataset = json_object_get(o, "dataset");
    static const char *const known[] = {"type", "labels", "versions", "pictures", "dataset"};
    char pointer[64], text[120];
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)o, key, v) {
        bool is = false;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++) is |= !strcmp(key, known[i]);
        if (is) continue;
        snprintf(pointer, sizeof pointer, "/%.60s", key);
        snprintf(text, sizeof text, "unknown member '%.60s'", key);
        return bad(p, "unknown_member", pointer, text);
    }
    if (json_is_null(pictures)) pictures = NULL;
    if (json_is_null(dataset)) dataset = NULL;
    if (!pictures == !dataset)
        return wrong(p, "/pictures", "a comparison takes either pictures or the id of a dataset");
    if (!read_versions(json_object_get(o, "versions"), ret, p)) return false;
    if (pictures) return read_pictures(pictures, most, ret, p);
    const char *id = short_text(dataset, sizeof ret->dataset);
    if (!id) return wrong(p, "/dataset", "there is no such data set");
    snprintf(ret->dataset, sizeof ret->dataset, "%s", id);
    return true;
}

bool srv_compare_params_read(const json_t *o, int64_t pictures_max, srv_compare_params *ret, srv_problem *ret_problem) {
    srv_compare_params p = {0};
    if (!read_all(o, pictures_max, &p, ret_problem)) {
        srv_compare_params_done(&p);
        return false;
    }
    *ret = p;
    return true;
}

void srv_compare_params_done(srv_compare_params *p) {
    dr_free(p->pictures);
    p->pictures = NULL;
    p->n_pictures = 0;
}

/* --- from a data set --- */

static const db_entry *partner(const db_entry_list *set, const char *name) {
    for (size_t i = 0; i < set->n; i++)
        if (set->e[i].part == DB_PAIRED_CLEAN && !strcmp(set->e[i].name, name)) return &set->e[i];
    return NULL;
}

dr_status srv_compare_from_set(const db_entry_list *set, size_t most, db_picture **ret, size_t *ret_n, dr_error *err) {
    size_t *all = dr_calloc(set->n + 1, sizeof *all);
    size_t n = 0;
    db_picture *list = NULL;
    for (int part = 0; all && part < 2; part++) /* the pairs first */
        for (size_t i = 0; i < set->n; i++)
            if (set->e[i].part == (part ? DB_RAINY : DB_PAIRED_RAINY)) all[n++] = i;
    const size_t k = n < most ? n : most;
    if (all) list = dr_calloc(k + 1, sizeof *list);
    for (size_t i = 0; list && i < k; i++) {
        const db_entry *e = &set->e[all[i * n / k]], *clean = e->part == DB_PAIRED_RAINY ? partner(set, e->name) : NULL;
        snprintf(list[i].name, sizeof list[i].name, "%s", e->name);
        memcpy(list[i].sha256, e->sha256, DB_SHA);
        if (clean) memcpy(list[i].clean, clean->sha256, DB_SHA);
    }
    dr_free(all);
    if (!list) return dr_fail(err, DR_NOMEM, "no memory for a list of pictures");
    *ret = list;
    *ret_n = k;
    return DR_OK;
}

/* --- the row --- */

json_t *srv_compare_row_json(const srv_model_id *versions, int n, size_t n_pictures, const char *dataset) {
    json_t *list = json_array();
    bool ok = list != NULL;
    for (int i = 0; i < n && ok; i++)
        ok = !json_array_append_new(list, json_pack("{s:s, s:I, s:s}", "name", versions[i].name, "version",
                                                    (json_int_t)versions[i].version, "sha256", versions[i].sha256));
    json_t *o = ok ? json_pack("{s:O, s:I, s:s?}", "versions", list, "pictures", (json_int_t)n_pictures, "dataset",
                               *dataset ? dataset : NULL)
                   : NULL;
    json_decref(list);
    return o;
}

int srv_compare_row_read(const char *params_json, srv_model_id ret[DR_COMPARE_MAX]) {
    json_t *o = json_loads(params_json, 0, NULL);
    const json_t *list = json_object_get(o, "versions");
    const size_t n = json_array_size(list);
    bool ok = n >= 1 && n <= DR_COMPARE_MAX;
    for (size_t i = 0; i < n && ok; i++) {
        const json_t *v = json_array_get(list, i);
        const char *name = short_text(json_object_get(v, "name"), sizeof ret[i].name),
                   *sha = short_text(json_object_get(v, "sha256"), sizeof ret[i].sha256);
        ret[i] = (srv_model_id){.version = json_integer_value(json_object_get(v, "version"))};
        if ((ok = name && sha && ret[i].version > 0)) {
            snprintf(ret[i].name, sizeof ret[i].name, "%s", name);
            snprintf(ret[i].sha256, sizeof ret[i].sha256, "%s", sha);
        }
    }
    json_decref(o);
    return ok ? (int)n : 0;
}

void srv_version_text(const srv_model_id *v, char ret[96]) {
    snprintf(ret, 96, "%s/%lld", v->name, (long long)v->version);
}
