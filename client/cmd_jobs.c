/* cmd_jobs.c - `derain jobs, show, watch, get, cancel`: what happens to jobs that were handed in. */
#include "client/compare_view.h"
#include "client/files.h"
#include "client/names.h"
#include "client/opts.h"
#include "client/wait.h"
#include "core/base/alloc.h"
#include "core/base/buf.h"
#include "core/base/fs.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { POLL_S = 20, POLL_TTY_S = 1, COLUMNS = 6 };

static int out_of_memory(void) {
    fprintf(stderr, "derain: out of memory\n");
    return CLI_FAILED;
}

/* --- jobs
 * ----------------------------------------------------------------------------------------------------------------------
 */

static char *list_path(const cli_options *o, const char *cursor) {
    const struct {
        const char *name, *value;
    } q[] = {{"state", o->state}, {"type", o->type}, {"label", o->label}, {"model", o->model}, {"cursor", cursor}};
    dr_buf b;
    dr_buf_init(&b, 8192);
    dr_buf_printf(&b, "/v1/jobs?limit=%d", o->limit ? o->limit : 50);
    for (size_t i = 0; i < sizeof q / sizeof *q; i++) {
        char *e = q[i].value && *q[i].value ? cli_escape(q[i].value) : NULL;
        if (e) dr_buf_printf(&b, "&%s=%s", q[i].name, e);
        dr_free(e);
    }
    char *path = dr_buf_detach(&b, NULL);
    dr_buf_done(&b);
    return path;
}

static dr_status list(cli_http *h, const cli_env *env, json_t *all, json_t **ret_last, cli_answer *a, dr_error *err) {
    char cursor[512] = "";
    dr_status s = DR_OK;
    json_t *page = NULL;
    do {
        char *path = list_path(env->opt, cursor);
        json_decref(page);
        page = NULL;
        cli_answer_clear(a);
        if (!path) return dr_fail(err, DR_NOMEM, "out of memory");
        s = cli_http_do(h, &(cli_call){.path = path, .accept = "application/json", .deadline_ns = env->deadline_ns}, a,
                        err);
        dr_free(path);
        if (!s) s = cli_answer_json(a, &page, err);
        if (!s && !json_is_array(json_object_get(page, "items")))
            s = dr_fail_as(err, DR_CORRUPT, "bad_answer", "the answer is no list of jobs");
        if (s) break;
        json_array_extend(all, json_object_get(page, "items"));
        snprintf(cursor, sizeof cursor, "%s", cli_member(page, "next_cursor"));
    } while (env->opt->all && *cursor && !atomic_load(&cli_stop));
    if (s)
        json_decref(page);
    else
        *ret_last = page;
    return s;
}

static int table(const json_t *jobs) {
    size_t n = json_array_size(jobs), i;
    json_t *job;
    const char **cells = dr_calloc((n + 1) * COLUMNS, sizeof *cells);
    char(*text)[COLUMNS][48] = dr_calloc(n ? n : 1, sizeof *text);
    if (!cells || !text) {
        dr_free(cells);
        dr_free(text);
        return out_of_memory();
    }
    const char *heads[COLUMNS] = {"ID", "STATE", "CREATED", "PICTURE", "MODEL", "TIME"};
    memcpy(cells, heads, sizeof heads);
    json_array_foreach(jobs, i, job) {
        const json_t *in = json_object_get(job, "input"), *model = json_object_get(job, "model"),
                     *t = json_object_get(job, "timings_ms");
        double progress = json_number_value(json_object_get(job, "progress")),
               pos = json_number_value(json_object_get(job, "queue_position"));
        snprintf(text[i][0], 48, "%.47s", cli_member(job, "id"));
        snprintf(text[i][1], 48, "%.20s", cli_member(job, "state"));
        snprintf(text[i][2], 48, "%.19s", cli_member(job, "created_at"));
        for (char *p = text[i][2]; *p; p++)
            if (*p == 'T') *p = ' ';
        const json_t *tr = json_object_get(job, "training"), *cmp = json_object_get(job, "compare");
        if (json_is_object(cmp))
            snprintf(text[i][3], 48, "comparison, %.0f pictures", json_number_value(json_object_get(cmp, "pictures")));
        else if (json_is_object(tr))
            snprintf(text[i][3], 48, "training, step %.0f/%.0f", json_number_value(json_object_get(tr, "step")),
                     json_number_value(json_object_get(tr, "steps")));
        else if (json_is_object(in))
            snprintf(text[i][3], 48, "%.8s %.0fx%.0f", cli_member(in, "format"),
                     json_number_value(json_object_get(in, "width")), json_number_value(json_object_get(in, "height")));
        snprintf(text[i][4], 48, "%.30s:%.0f", cli_member(model, "name"),
                 json_number_value(json_object_get(model, "version")));
        if (strcmp(text[i][1], "running") == 0)
            snprintf(text[i][5], 48, "%.0f %%", progress * 100);
        else if (strcmp(text[i][1], "queued") == 0 && pos > 0)
            snprintf(text[i][5], 48, "number %.0f", pos);
        else if (json_is_number(json_object_get(t, "infer")))
            cli_text_seconds(json_number_value(json_object_get(t, "infer")) / 1000, text[i][5]);
        for (int c = 0; c < COLUMNS; c++) cells[(i + 1) * COLUMNS + (size_t)c] = text[i][c];
    }
    cli_out_table(cells, n + 1, COLUMNS);
    dr_free(cells);
    dr_free(text);
    return cli_out_flush();
}

int cli_jobs(cli_env *env) {
    dr_error err = {0};
    cli_http *h = NULL;
    cli_answer a = {.retry_after_s = -1};
    json_t *all = json_array(), *last = NULL;
    dr_status s = cli_connect(env, &h, &err);
    if (!s) s = list(h, env, all, &last, &a, &err);
    int code;
    if (s) {
        code = cli_out_error(env, s, &err, &a);
    } else if (env->opt->json) {
        json_t *cursor = json_object_get(last, "next_cursor");
        json_t *o = json_pack("{s:O, s:O}", "items", all, "next_cursor", cursor ? cursor : json_null());
        code = o ? cli_out_json(o) : out_of_memory();
        json_decref(o);
    } else {
        code = table(all);
        if (*cli_member(last, "next_cursor")) cli_out_note(env, "(there are more: --all or a larger --limit)");
    }
    json_decref(all);
    json_decref(last);
    cli_answer_clear(&a);
    cli_http_close(h);
    return code;
}

/* --- show, watch
 * -------------------------------------------------------------------------------------------------------------------
 */

static void line(const char *name, const char *text) {
    if (*text) printf("%-12s %s\n", name, text);
}

static void timings(const json_t *t) {
    const char *names[] = {"queue", "decode", "infer", "encode"};
    char text[256];
    size_t n = 0;
    text[0] = 0;
    for (int i = 0; i < 4; i++) {
        json_t *v = json_object_get(t, names[i]);
        if (!json_is_number(v)) continue;
        char s[32];
        cli_text_seconds(json_number_value(v) / 1000, s);
        n += (size_t)snprintf(text + n, sizeof text - n, "%s%s %s", n ? ", " : "", names[i], s);
    }
    line("times", text);
}

static void compared(const json_t *c) {
    const json_t *v;
    char text[640];
    size_t i, n = 0;
    if (!json_is_object(c)) return;
    text[0] = 0;
    json_array_foreach(json_object_get(c, "versions"), i, v) {
        if (n < sizeof text)
            n += (size_t)snprintf(text + n, sizeof text - n, "%s%.60s/%.0f", n ? ", " : "", cli_member(v, "name"),
                                  json_number_value(json_object_get(v, "version")));
    }
    line("versions", text);
    snprintf(text, sizeof text, "%.0f", json_number_value(json_object_get(c, "pictures")));
    line("pictures", text);
    line("dataset", cli_member(c, "dataset"));
}

static int show(const json_t *job) {
    const json_t *in = json_object_get(job, "input"), *out = json_object_get(job, "result"),
                 *model = json_object_get(job, "model"), *problem = json_object_get(job, "problem");
    char text[256], bytes[32];
    line("id", cli_member(job, "id"));
    line("type", cli_member(job, "type"));
    double pos = json_number_value(json_object_get(job, "queue_position"));
    if (pos > 0)
        snprintf(text, sizeof text, "%s, number %.0f in the queue", cli_member(job, "state"), pos);
    else if (strcmp(cli_member(job, "state"), "running") == 0)
        snprintf(text, sizeof text, "running, %.0f %%", json_number_value(json_object_get(job, "progress")) * 100);
    else
        snprintf(text, sizeof text, "%s", cli_member(job, "state"));
    line("state", text);
    line("created", cli_member(job, "created_at"));
    line("started", cli_member(job, "started_at"));
    line("finished", cli_member(job, "finished_at"));
    snprintf(text, sizeof text, "%s version %.0f", cli_member(model, "name"),
             json_number_value(json_object_get(model, "version")));
    line("model", text);
    if (json_is_object(in)) {
        cli_text_bytes(json_number_value(json_object_get(in, "bytes")), bytes);
        snprintf(text, sizeof text, "%s %.0fx%.0f, %.0f bit, %.0f channels, %s", cli_member(in, "format"),
                 json_number_value(json_object_get(in, "width")), json_number_value(json_object_get(in, "height")),
                 json_number_value(json_object_get(in, "bit_depth")),
                 json_number_value(json_object_get(in, "channels")), bytes);
        line("input", text);
    }
    if (json_is_object(out)) {
        cli_text_bytes(json_number_value(json_object_get(out, "bytes")), bytes);
        snprintf(text, sizeof text, "%s, %s, sha-256 %s", cli_member(out, "format"), bytes, cli_member(out, "sha256"));
        line("result", text);
    }
    compared(json_object_get(job, "compare"));
    const json_t *tr = json_object_get(job, "training"), *best = json_object_get(tr, "best");
    if (json_is_object(tr)) {
        char left[32] = "";
        const json_t *eta = json_object_get(job, "eta_s");
        if (json_is_number(eta)) cli_text_seconds(json_number_value(eta), left);
        snprintf(text, sizeof text, "step %.0f of %.0f%s%s", json_number_value(json_object_get(tr, "step")),
                 json_number_value(json_object_get(tr, "steps")), *left ? ", time left " : "", left);
        line("training", text);
        line("dataset", cli_member(tr, "dataset"));
        if (json_is_object(best)) {
            snprintf(text, sizeof text, "step %.0f, PSNR-Y %.3f dB", json_number_value(json_object_get(best, "step")),
                     json_number_value(json_object_get(best, "psnr_y")));
            line("best", text);
        }
        double version = json_number_value(json_object_get(tr, "version"));
        snprintf(text, sizeof text, "%.60s version %.0f", cli_member(model, "name"), version);
        if (version > 0) line("made", text);
    }
    timings(json_object_get(job, "timings_ms"));
    double attempt = json_number_value(json_object_get(job, "attempt"));
    if (attempt > 1) {
        snprintf(text, sizeof text, "%.0f", attempt);
        line("attempts", text);
    }
    if (json_is_object(problem)) {
        snprintf(text, sizeof text, "%.200s [%s]",
                 *cli_member(problem, "detail") ? cli_member(problem, "detail") : cli_member(problem, "title"),
                 cli_member(problem, "code"));
        line("problem", text);
    }
    return cli_out_flush();
}

/* What a comparison found, behind the job's lines. */
static int show_all(cli_http *h, const cli_env *env, const json_t *job, cli_answer *a) {
    dr_error err = {0};
    json_t *report = NULL;
    int code = show(job);
    if (code || !cli_job_good(job) || !json_is_object(json_object_get(job, "compare"))) return code;
    dr_status s = cli_compare_report(h, env, cli_member(job, "id"), &report, a, &err);
    if (s) return cli_out_error(env, s, &err, a);
    printf("\n");
    code = cli_compare_print(env, report);
    json_decref(report);
    return code;
}

int cli_show(cli_env *env) {
    dr_error err = {0};
    cli_http *h = NULL;
    cli_answer a = {.retry_after_s = -1};
    json_t *job = NULL;
    dr_status s = cli_connect(env, &h, &err);
    if (!s) s = cli_job_fetch(h, env, env->args[0], &job, &a, &err);
    int code = s ? cli_out_error(env, s, &err, &a) : env->opt->json ? cli_out_json(job) : show_all(h, env, job, &a);
    json_decref(job);
    cli_answer_clear(&a);
    cli_http_close(h);
    return code;
}

static void on_job(void *arg, const json_t *job) {
    cli_progress_job(arg, cli_member(job, "state"), json_number_value(json_object_get(job, "progress")),
                     (int64_t)json_number_value(json_object_get(job, "queue_position")));
}

static dr_status follow(cli_http *h, const cli_env *env, json_t **ret, cli_answer *a, dr_error *err) {
    cli_progress p;
    cli_progress_init(&p, env);
    dr_status s = cli_job_wait(h, env, env->args[0], p.on ? POLL_TTY_S : POLL_S, on_job, &p, ret, a, err);
    cli_progress_clear(&p);
    return s;
}

int cli_watch(cli_env *env) {
    dr_error err = {0};
    cli_http *h = NULL;
    cli_answer a = {.retry_after_s = -1};
    json_t *job = NULL;
    dr_status s = cli_connect(env, &h, &err);
    if (!s) s = follow(h, env, &job, &a, &err);
    int code;
    if (s) {
        code = cli_out_error(env, s, &err, &a);
    } else {
        code = env->opt->json ? cli_out_json(job) : show_all(h, env, job, &a);
        if (!cli_job_good(job)) code = CLI_FAILED;
    }
    json_decref(job);
    cli_answer_clear(&a);
    cli_http_close(h);
    return code;
}

/* --- get
 * ------------------------------------------------------------------------------------------------------------------------------
 */

static char *result_path(const cli_env *env, const cli_answer *a) {
    const char *id = env->args[0], *out = env->opt->out;
    if (out && !dr_fs_is_dir(out)) return dr_strdup(out);
    char name[80];
    for (const char *p = id; *p; p++)
        if (*p == '/') id = p + 1; /* the file's name is made from what the user typed */
    snprintf(name, sizeof name, "%.60s.%s", id, strncasecmp(a->content_type, "image/jpeg", 10) == 0 ? "jpg" : "png");
    return out ? dr_fs_join(out, name) : dr_strdup(name);
}

/* A path in the folder where the result goes, whatever it will be called; "-": NULL. */
static dr_status open_output(const cli_env *env, cli_output *o, dr_error *err) {
    if (env->opt->out && strcmp(env->opt->out, "-") == 0) return cli_output_open(NULL, o, err);
    char *near = result_path(env, &(cli_answer){0});
    dr_status s = near ? cli_output_open(near, o, err) : dr_fail(err, DR_NOMEM, "out of memory");
    dr_free(near);
    return s;
}

static int save(const cli_env *env, const cli_answer *a, cli_output *o_file) {
    dr_error err = {0};
    if (env->opt->out && strcmp(env->opt->out, "-") == 0) {
        if (cli_output_print(o_file)) return CLI_OK;
        fprintf(stderr, "derain: cannot write to standard output\n");
        return CLI_FAILED;
    }
    char *path = result_path(env, a);
    if (!path) return out_of_memory();
    int code = CLI_OK;
    if (dr_fs_exists(path) && !env->opt->force) {
        dr_fail(&err, DR_CONFLICT, "%s is there already: --force replaces it, -o gives another name", path);
        code = cli_out_usage(cli_command_find("get"), &err);
    } else {
        dr_status s = cli_output_name(o_file, path, &err);
        if (s) {
            code = cli_out_error(env, s, &err, NULL);
        } else if (env->opt->json) {
            json_t *o = json_pack("{s:s, s:s, s:I, s:s}", "job", env->args[0], "output", path, "bytes",
                                  (json_int_t)o_file->file.len, "content_type", a->content_type);
            code = o ? cli_out_json(o) : out_of_memory();
            json_decref(o);
        } else {
            cli_out_note(env, "%s", path);
        }
    }
    dr_free(path);
    return code;
}

int cli_get(cli_env *env) {
    const char *out = env->opt->out;
    dr_error err = {0};
    if (out && strcmp(out, "-") == 0 && (env->opt->json || isatty(STDOUT_FILENO))) {
        dr_fail(&err, DR_INVALID, "standard output cannot take the picture: it is a terminal, or has --json on it");
        return cli_out_usage(cli_command_find("get"), &err);
    }
    if (out && strcmp(out, "-") != 0 && !dr_fs_is_dir(out) && dr_fs_exists(out) && !env->opt->force) {
        dr_fail(&err, DR_CONFLICT, "%s is there already: --force replaces it", out);
        return cli_out_usage(cli_command_find("get"), &err);
    }
    cli_http *h = NULL;
    cli_answer a = {.retry_after_s = -1};
    cli_output result = {.file = {.fd = -1}};
    json_t *job = NULL;
    bool failed = false;
    dr_status s = cli_connect(env, &h, &err);
    if (!s && env->opt->wait) {
        s = follow(h, env, &job, &a, &err);
        if (!s && (failed = !cli_job_good(job))) s = cli_job_problem(job, &err);
        if (!s) cli_answer_clear(&a);
    }
    if (!s) s = open_output(env, &result, &err);
    if (!s) s = cli_job_result(h, env, env->args[0], &result.file, &a, &err);
    if (!s && !a.kept) s = dr_fail_as(&err, DR_CORRUPT, "bad_answer", "the answer is no picture; is that a deraind?");
    int code = s ? cli_out_error(env, s, &err, &a) : save(env, &a, &result);
    cli_output_close(&result);
    if (failed) code = CLI_FAILED;
    json_decref(job);
    cli_answer_clear(&a);
    cli_http_close(h);
    return code;
}

/* --- cancel
 * ----------------------------------------------------------------------------------------------------------------------------
 */

int cli_cancel(cli_env *env) {
    dr_error err = {0};
    cli_http *h = NULL;
    cli_answer a = {.retry_after_s = -1};
    json_t *o = NULL, *body = env->opt->reason ? json_pack("{s:s}", "reason", env->opt->reason) : json_object();
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL, *path = cli_job_path(env->args[0], "/cancel"), key[40];
    cli_idem_key(key);
    dr_status s = cli_connect(env, &h, &err);
    if (!s && (!text || !path)) s = dr_fail(&err, DR_NOMEM, "out of memory");
    if (!s && text)
        s = cli_http_do(h,
                        &(cli_call){.method = "POST",
                                    .path = path,
                                    .accept = "application/json",
                                    .content_type = "application/json",
                                    .idem_key = key,
                                    .body = text,
                                    .body_len = strlen(text),
                                    .deadline_ns = env->deadline_ns},
                        &a, &err);
    if (!s) s = cli_answer_json(&a, &o, &err);
    int code;
    if (s) {
        code = cli_out_error(env, s, &err, &a);
    } else {
        bool cancelled = !json_is_false(json_object_get(o, "cancelled"));
        code = env->opt->json ? cli_out_json(o) : CLI_OK;
        if (!env->opt->json) cli_out_note(env, cancelled ? "%s is cancelled" : "%s had ended already", env->args[0]);
    }
    json_decref(o);
    json_decref(body);
    free(text);
    dr_free(path);
    cli_answer_clear(&a);
    cli_http_close(h);
    return code;
}
