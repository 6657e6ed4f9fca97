/* cmd_publish.c - `derain publish`: a checkpoint of a training becomes a version of its model.
 *
 * Without a step it is the one with the best score, else the last. The list may have moved on between the look and the
 * call (the trainer drops old ones): then the service says which steps there are. Safe to repeat: a checkpoint has one
 * version. */
#include "client/opts.h"
#include "client/send.h"
#include "client/wait.h"
#include "core/base/alloc.h"
#include "core/base/parse.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of the best checkpoint, else of the newest. */
static dr_status choose(cli_http *h, const cli_env *env, int64_t *ret, cli_answer *a, dr_error *err) {
    char *path = cli_job_path(env->args[0], "/checkpoints");
    json_t *list = NULL, *row;
    size_t i;
    int64_t best = 0, last = 0;
    cli_answer_clear(a);
    dr_status s =
        path ? cli_http_do(h, &(cli_call){.path = path, .accept = "application/json", .deadline_ns = env->deadline_ns},
                           a, err)
             : dr_fail(err, DR_NOMEM, "out of memory");
    if (!s) s = cli_answer_json(a, &list, err);
    json_array_foreach(s ? NULL : json_object_get(list, "items"), i, row) {
        int64_t step = json_integer_value(json_object_get(row, "step"));
        if (step > last) last = step;
        if (json_is_true(json_object_get(row, "best"))) best = step;
    }
    json_decref(list);
    dr_free(path);
    if (!s && !last)
        s = dr_fail_as(err, DR_NOT_FOUND, "checkpoint_not_found", "%s has no checkpoint yet", env->args[0]);
    if (!s) *ret = best ? best : last;
    return s;
}

static int say(const cli_env *env, const cli_answer *a, int64_t step, const json_t *m) {
    if (env->opt->json) return cli_out_json(m);
    printf("%s version %.0f\n", cli_member(m, "name"), json_number_value(json_object_get(m, "version")));
    cli_out_note(env,
                 a->status == 200 ? "the checkpoint of step %lld was published before"
                                  : "from the checkpoint of step %lld; derain use makes it the one that serves",
                 (long long)step);
    return cli_out_flush();
}

int cli_publish(cli_env *env) {
    dr_error err = {0};
    cli_http *h = NULL;
    cli_answer a = {.retry_after_s = -1};
    json_t *m = NULL;
    int64_t step = 0;
    char tail[64];
    if (env->n_args > 1 && !dr_parse_i64(env->args[1], 1, INT64_MAX, &step)) {
        dr_fail(&err, DR_INVALID, "'%.40s' is no step: they are numbers from 1 on", env->args[1]);
        return cli_out_usage(cli_command_find("publish"), &err);
    }
    json_t *o = env->opt->reason ? json_pack("{s:s}", "reason", env->opt->reason) : json_object();
    char *body = o ? json_dumps(o, JSON_COMPACT) : NULL, *path = NULL;
    dr_status s = body ? cli_connect(env, &h, &err) : dr_fail(&err, DR_INVALID, "--reason is no UTF-8");
    if (!s && !step) s = choose(h, env, &step, &a, &err);
    if (!s) {
        snprintf(tail, sizeof tail, "/checkpoints/%lld/publish", (long long)step);
        path = cli_job_path(env->args[0], tail);
        s = path ? cli_send_json(h, env, "POST", path, body, &a, &m, &err) : dr_fail(&err, DR_NOMEM, "out of memory");
    }
    int code = s ? cli_out_error(env, s, &err, &a) : say(env, &a, step, m);
    json_decref(m);
    json_decref(o);
    free(body);
    dr_free(path);
    cli_answer_clear(&a);
    cli_http_close(h);
    return code;
}
