/* cmd_models.c - `derain models, use, rollback`: which versions there are, and which one serves. */
#include "client/opts.h"
#include "client/out.h"
#include "core/base/alloc.h"
#include "core/base/parse.h"
#include <stdio.h>
#include <string.h>

enum { COLUMNS = 7 };

static int table(const json_t *models) {
    size_t n = json_array_size(models), i;
    json_t *m;
    const char **cells = dr_calloc((n + 1) * COLUMNS, sizeof *cells);
    char(*text)[COLUMNS][64] = dr_calloc(n ? n : 1, sizeof *text);
    if (!cells || !text) {
        dr_free(cells);
        dr_free(text);
        fprintf(stderr, "derain: out of memory\n");
        return CLI_FAILED;
    }
    const char *heads[COLUMNS] = {"NAME", "VERSION", "STATE", "ORIGIN", "SIZE", "NETWORK", "SHA-256"};
    memcpy(cells, heads, sizeof heads);
    json_array_foreach(models, i, m) {
        const json_t *arch = json_object_get(m, "arch");
        snprintf(text[i][0], 64, "%.60s", cli_member(m, "name"));
        snprintf(text[i][1], 64, "%.0f%s", json_number_value(json_object_get(m, "version")),
                 json_is_true(json_object_get(m, "default")) ? " (default)" : "");
        snprintf(text[i][2], 64, "%.20s", cli_member(m, "state"));
        double parent = json_number_value(json_object_get(m, "parent"));
        int len = snprintf(text[i][3], 64, "%.12s", cli_member(m, "origin"));
        if (parent > 0) len += snprintf(text[i][3] + len, 64 - (size_t)len, " from %.0f", parent);
        if (*cli_member(m, "verdict"))
            snprintf(text[i][3] + len, 64 - (size_t)len, ", %.10s", cli_member(m, "verdict"));
        cli_text_bytes(json_number_value(json_object_get(m, "bytes")), text[i][4]);
        snprintf(text[i][5], 64, "%.16s, ngf %.0f, %.0f blocks", cli_member(arch, "kind"),
                 json_number_value(json_object_get(arch, "ngf")), json_number_value(json_object_get(arch, "blocks")));
        snprintf(text[i][6], 64, "%.16s", cli_member(m, "sha256"));
        for (int c = 0; c < COLUMNS; c++) cells[(i + 1) * COLUMNS + (size_t)c] = text[i][c];
    }
    cli_out_table(cells, n + 1, COLUMNS);
    dr_free(cells);
    dr_free(text);
    return cli_out_flush();
}

int cli_models(cli_env *env) {
    dr_error err = {0};
    cli_http *h = NULL;
    cli_answer a = {.retry_after_s = -1};
    json_t *o = NULL;
    dr_status s = cli_connect(env, &h, &err);
    if (!s)
        s = cli_http_do(
            h, &(cli_call){.path = "/v1/models", .accept = "application/json", .deadline_ns = env->deadline_ns}, &a,
            &err);
    if (!s) s = cli_answer_json(&a, &o, &err);
    int code = s                ? cli_out_error(env, s, &err, &a)
               : env->opt->json ? cli_out_json(o)
                                : table(json_object_get(o, "items"));
    json_decref(o);
    cli_answer_clear(&a);
    cli_http_close(h);
    return code;
}

/* --- use, rollback --- */

/* "/v1/models/NAME" + tail; NULL without memory. */
static char *model_path(const char *name, const char *tail) {
    char *e = cli_escape(name), *path = NULL;
    size_t n = e ? strlen(e) + strlen(tail) + 16 : 0;
    if (e && (path = dr_malloc(n))) snprintf(path, n, "/v1/models/%s%s", e, tail);
    dr_free(e);
    return path;
}

static dr_status call(cli_http *h, const cli_env *env, cli_call c, cli_answer *a, json_t **ret, dr_error *err) {
    c.accept = "application/json";
    c.deadline_ns = env->deadline_ns;
    cli_answer_clear(a);
    json_decref(*ret);
    *ret = NULL;
    dr_status s = c.path ? cli_http_do(h, &c, a, err) : dr_fail(err, DR_NOMEM, "out of memory");
    return s ? s : cli_answer_json(a, ret, err);
}

/* The name of the version that serves. */
static dr_status served_name(cli_http *h, const cli_env *env, char *ret, size_t cap, cli_answer *a, dr_error *err) {
    json_t *o = NULL, *m;
    size_t i;
    dr_status s = call(h, env, (cli_call){.path = "/v1/models"}, a, &o, err);
    *ret = 0;
    json_array_foreach(s ? NULL : json_object_get(o, "items"), i, m) {
        const char *state = cli_member(m, "state");
        if (!*ret && (!strcmp(state, "ready") || !strcmp(state, "draining")))
            snprintf(ret, cap, "%s", cli_member(m, "name"));
    }
    json_decref(o);
    if (!s && !*ret) s = dr_fail_as(err, DR_NOT_FOUND, "model_not_found", "the service has no model that serves");
    return s;
}

static int say(const cli_env *env, const json_t *m) {
    if (env->opt->json) return cli_out_json(m);
    printf("%s version %.0f serves\n", cli_member(m, "name"), json_number_value(json_object_get(m, "version")));
    return cli_out_flush();
}

static int end(cli_env *env, dr_status s, const dr_error *err, cli_http *h, cli_answer *a, json_t *o) {
    int code = s ? cli_out_error(env, s, err, a) : say(env, o);
    json_decref(o);
    cli_answer_clear(a);
    cli_http_close(h);
    return code;
}

int cli_use(cli_env *env) {
    dr_error err = {0};
    cli_http *h = NULL;
    cli_answer a = {.retry_after_s = -1};
    json_t *o = NULL;
    int64_t version = 0;
    char body[80], etag[sizeof a.etag];
    if (!dr_parse_i64(env->args[1], 1, INT64_MAX, &version)) {
        dr_fail(&err, DR_INVALID, "'%.40s' is no version: they are numbers from 1 on", env->args[1]);
        return cli_out_usage(cli_command_find("use"), &err);
    }
    snprintf(body, sizeof body, "{\"version\":%lld%s}", (long long)version, env->opt->force ? ",\"force\":true" : "");
    char *look = model_path(env->args[0], ""), *put = model_path(env->args[0], "/default");
    dr_status s = cli_connect(env, &h, &err);
    if (!s) s = call(h, env, (cli_call){.path = look}, &a, &o, &err);
    memcpy(etag, a.etag, sizeof etag); /* what was seen: a change in between is not overruled */
    if (!s)
        s = call(h, env,
                 (cli_call){.method = "PUT",
                            .path = put,
                            .content_type = "application/json",
                            .if_match = etag,
                            .body = body,
                            .body_len = strlen(body),
                            .tries_max = 1},
                 &a, &o, &err);
    dr_free(look);
    dr_free(put);
    return end(env, s, &err, h, &a, o);
}

int cli_rollback(cli_env *env) {
    dr_error err = {0};
    cli_http *h = NULL;
    cli_answer a = {.retry_after_s = -1};
    json_t *o = NULL;
    char name[80];
    dr_status s = cli_connect(env, &h, &err);
    snprintf(name, sizeof name, "%s", env->n_args ? env->args[0] : "");
    if (!s && !*name) s = served_name(h, env, name, sizeof name, &a, &err);
    char *path = s ? NULL : model_path(name, "/rollback");
    if (!s) /* once: a repeated one would go back twice */
        s = call(h, env,
                 (cli_call){.method = "POST",
                            .path = path,
                            .content_type = "application/json",
                            .body = "{}",
                            .body_len = 2,
                            .tries_max = 1},
                 &a, &o, &err);
    dr_free(path);
    return end(env, s, &err, h, &a, o);
}
