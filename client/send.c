/* send.c - see send.h. */
#include "client/send.h"
#include <stdio.h>
#include <string.h>

dr_status cli_send_json(cli_http *h, const cli_env *env, const char *method, const char *path, const char *body,
                        cli_answer *a, json_t **ret, dr_error *err) {
    char key[40];
    json_t *o = NULL;
    cli_idem_key(key);
    cli_answer_clear(a);
    const cli_call c = {.method = method,
                        .path = path,
                        .accept = "application/json",
                        .content_type = body ? "application/json" : NULL,
                        .idem_key = !strcmp(method, "POST") ? key : NULL,
                        .body = body ? body : "",
                        .body_len = body ? strlen(body) : 0,
                        .deadline_ns = env->deadline_ns};
    dr_status s = cli_http_do(h, &c, a, err);
    if (!s) s = cli_answer_json(a, &o, err);
    if (s) return s;
    if (ret)
        *ret = o;
    else
        json_decref(o);
    return DR_OK;
}

dr_status cli_send_blob(cli_http *h, const cli_env *env, const char *sha, const cli_file *in, cli_answer *a,
                        dr_error *err) {
    char path[96];
    snprintf(path, sizeof path, "/v1/blobs/%s", sha);
    cli_answer_clear(a);
    const cli_call c = {.method = "PUT",
                        .path = path,
                        .accept = "application/json",
                        .content_type = "application/octet-stream",
                        .send = in,
                        .deadline_ns = env->deadline_ns};
    return cli_http_do(h, &c, a, err);
}

dr_status cli_blob_there(cli_http *h, const cli_env *env, const char *sha, cli_answer *a, bool *ret, dr_error *err) {
    char path[96];
    dr_error why = {0};
    snprintf(path, sizeof path, "/v1/blobs/%s", sha);
    cli_answer_clear(a);
    dr_status s = cli_http_do(h, &(cli_call){.method = "HEAD", .path = path, .deadline_ns = env->deadline_ns}, a, &why);
    if (s && a->status != 404) {
        if (err) *err = why;
        return s;
    }
    *ret = !s;
    return DR_OK;
}
