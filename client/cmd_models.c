/* cmd_models.c - `derain models`. */
#include "client/out.h"
#include "core/base/alloc.h"
#include <stdio.h>
#include <string.h>

enum { COLUMNS = 6 };

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
    const char *heads[COLUMNS] = {"NAME", "VERSION", "STATE", "SIZE", "NETWORK", "SHA-256"};
    memcpy(cells, heads, sizeof heads);
    json_array_foreach(models, i, m) {
        const json_t *arch = json_object_get(m, "arch");
        snprintf(text[i][0], 64, "%.60s", cli_member(m, "name"));
        snprintf(text[i][1], 64, "%.0f%s", json_number_value(json_object_get(m, "version")),
                 json_is_true(json_object_get(m, "default")) ? " (default)" : "");
        snprintf(text[i][2], 64, "%.20s", cli_member(m, "state"));
        cli_text_bytes(json_number_value(json_object_get(m, "bytes")), text[i][3]);
        snprintf(text[i][4], 64, "%.16s, ngf %.0f, %.0f blocks", cli_member(arch, "kind"),
                 json_number_value(json_object_get(arch, "ngf")), json_number_value(json_object_get(arch, "blocks")));
        snprintf(text[i][5], 64, "%.16s", cli_member(m, "sha256"));
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
