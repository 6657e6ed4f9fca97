/* cmd_image.c - `derain put`: one picture, stdin, or a folder with several in flight.
 *
 * A picture is handed in with `Prefer: wait`: if it is done by then the answer is the result; if not, the answer names
 * the job and the rest is long-polling, with progress. The Idempotency-Key makes the whole repeatable: a try that
 * breaks off is repeated and finds its own job. Results are checked against their sha-256 and written atomically. */
#include "client/files.h"
#include "client/names.h"
#include "client/opts.h"
#include "client/wait.h"
#include "core/base/alloc.h"
#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/fs.h"
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { WAIT_S = 10, WAIT_TTY_S = 2, POLL_S = 20, POLL_TTY_S = 1 };

typedef enum put_state { PUT_TODO, PUT_DONE, PUT_QUEUED, PUT_SKIPPED, PUT_FAILED } put_state;
static const char *const put_names[] = {"not_tried", "succeeded", "queued", "skipped", "failed"};

typedef struct put {
    const char *in, *out; /* borrowed; out NULL = the picture stays in `result` */
    cli_output result;    /* open while it is worked on, unless --async */
    put_state state;
    char job[48], model[96];
    size_t bytes;
    double seconds;
    cli_answer answer; /* of the last call: the picture, or why not */
    json_t *job_json;  /* the job, where the answer was one; owned */
    dr_error err;
    dr_status status;
    bool job_failed;
} put;

static void put_clear(put *p) {
    cli_answer_clear(&p->answer);
    json_decref(p->job_json);
    p->job_json = NULL;
    cli_output_close(&p->result);
}

/* "/v1/derain?format=png&..." of what the options say. */
static char *derain_path(const cli_options *o, const char *format) {
    dr_buf b;
    dr_buf_init(&b, 4096);
    dr_buf_printf(&b, "/v1/derain?format=%s", format);
    if (o->depth) dr_buf_printf(&b, "&depth=%s", o->depth);
    if (o->metadata) dr_buf_printf(&b, "&metadata=%s", o->metadata);
    if (o->model) {
        const char *colon = strchr(o->model, ':');
        char *name = dr_strndup(o->model, colon ? (size_t)(colon - o->model) : strlen(o->model));
        char *e = name ? cli_escape(name) : NULL, *v = colon ? cli_escape(colon + 1) : NULL;
        if (!e || (colon && !v))
            b.status = DR_NOMEM;
        else
            dr_buf_printf(&b, "&model=%s%s%s", e, v ? "&version=" : "", v ? v : "");
        dr_free(name);
        dr_free(e);
        dr_free(v);
    }
    char *path = dr_buf_detach(&b, NULL);
    dr_buf_done(&b);
    return path;
}

typedef struct show_job {
    cli_progress *progress;
} show_job;
static void on_job(void *arg, const json_t *job) {
    cli_progress *p = ((show_job *)arg)->progress;
    if (p)
        cli_progress_job(p, cli_member(job, "state"), json_number_value(json_object_get(job, "progress")),
                         (int64_t)json_number_value(json_object_get(job, "queue_position")));
}

/* The answer was 202: follow the job, then fetch. */
static dr_status follow(cli_http *h, const cli_env *env, put *p, cli_progress *progress) {
    json_t *job = NULL;
    show_job sj = {progress};
    dr_status s = cli_answer_json(&p->answer, &job, &p->err);
    if (s) return s;
    snprintf(p->job, sizeof p->job, "%s", cli_member(job, "id"));
    json_decref(p->job_json);
    p->job_json = job;
    if (!p->job[0]) return dr_fail_as(&p->err, DR_CORRUPT, "bad_answer", "the answer names no job");
    if (env->opt->async) {
        p->state = PUT_QUEUED;
        return DR_OK;
    }
    cli_answer_clear(&p->answer);
    job = NULL;
    s = cli_job_wait(h, env, p->job, progress && progress->on ? POLL_TTY_S : POLL_S, on_job, &sj, &job, &p->answer,
                     &p->err);
    if (s) {
        if (s == DR_CANCELLED && atomic_load(&cli_stop)) cli_job_cancel_now(h, p->job);
        return s;
    }
    json_decref(p->job_json);
    p->job_json = job;
    cli_answer_clear(&p->answer);
    if (!cli_job_good(job)) {
        p->job_failed = true;
        return cli_job_problem(job, &p->err);
    }
    return cli_job_result(h, env, p->job, &p->result.file, &p->answer, &p->err);
}

/* ^C while the service held the answer: the job's id is not known yet. Asking again with the same key tells it, either
 * as the job (202) or as the `job` of the problem that the first request is being worked on. */
static void cancel_by_key(cli_http *h, const char *path, const char *key, const cli_file *in) {
    cli_answer a = {.retry_after_s = -1};
    dr_error err = {0};
    dr_status s = cli_http_do(h,
                              &(cli_call){.method = "POST",
                                          .path = path,
                                          .accept = "application/json",
                                          .content_type = "application/octet-stream",
                                          .prefer = "respond-async",
                                          .idem_key = key,
                                          .send = in,
                                          .deadline_ns = dr_clock_ns() + INT64_C(3000000000),
                                          .tries_max = 1,
                                          .ignore_stop = true},
                              &a, &err);
    json_t *o = (!s || a.status == 409) && a.body ? json_loadb(a.body, a.len, 0, NULL) : NULL;
    const char *id = *cli_member(o, "job") ? cli_member(o, "job") : cli_member(o, "id");
    if (*id) cli_job_cancel_now(h, id);
    json_decref(o);
    cli_answer_clear(&a);
}

/* The conversation about one picture; p->result is open, unless --async. */
static dr_status hand_in(cli_http *h, const cli_env *env, const char *path, put *p, const cli_file *in, int tries_max,
                         cli_progress *progress) {
    char key[40], prefer[32];
    int wait = progress && progress->on ? WAIT_TTY_S : WAIT_S;
    cli_idem_key(key);
    if (env->opt->async)
        snprintf(prefer, sizeof prefer, "respond-async");
    else
        snprintf(prefer, sizeof prefer, "wait=%d", wait);
    if (progress) cli_progress_job(progress, "sending", 0, 0);
    dr_status s = cli_http_do(h,
                              &(cli_call){.method = "POST",
                                          .path = path,
                                          .accept = env->opt->async ? "application/json" : "image/*",
                                          .content_type = "application/octet-stream",
                                          .prefer = prefer,
                                          .idem_key = key,
                                          .send = in,
                                          .keep = env->opt->async ? NULL : &p->result.file,
                                          .wait_ms = wait * 1000,
                                          .deadline_ns = env->deadline_ns,
                                          .tries_max = tries_max},
                              &p->answer, &p->err);
    if (!s && (p->answer.status == 202 || p->answer.status == 201))
        s = follow(h, env, p, progress);
    else if (s == DR_CANCELLED && !env->opt->async)
        cancel_by_key(h, path, key, in);
    if (s || p->state == PUT_QUEUED) return s;
    char head[16];
    if (!p->answer.kept || !cli_looks_like_picture(head, cli_output_head(&p->result, head, sizeof head)))
        return dr_fail_as(&p->err, DR_CORRUPT, "bad_answer", "the answer is no picture; is that a deraind?");
    p->bytes = (size_t)p->result.file.len;
    snprintf(p->model, sizeof p->model, "%s", p->answer.model);
    if (p->out && (s = cli_output_name(&p->result, p->out, &p->err))) {
        p->answer.status = 0; /* not the server's fault */
        return s;
    }
    p->state = PUT_DONE;
    return DR_OK;
}

/* The files around it: what cannot be read, or has no place to go, is said before anything is sent. */
static void put_file(cli_http *h, const cli_env *env, const char *path, put *p, int tries_max, cli_progress *progress) {
    cli_file in = {.fd = -1};
    int64_t start = dr_clock_ns();
    p->status = cli_input_open(p->in, &in, &p->err);
    if (!p->status && !env->opt->async) p->status = cli_output_open(p->out, &p->result, &p->err);
    if (!p->status) p->status = hand_in(h, env, path, p, &in, tries_max, progress);
    if (p->status) p->state = PUT_FAILED;
    p->seconds = (double)(dr_clock_ns() - start) * 1e-9;
    cli_input_close(&in);
    if (p->out || p->status) cli_output_close(&p->result);
}

static int exit_of(const put *p) {
    if (!p->status) return CLI_OK;
    return p->job_failed ? CLI_FAILED : cli_exit_code(p->status, &p->err, p->answer.status);
}

static json_t *put_json(const put *p) {
    json_t *problem = NULL;
    if (p->status && p->job_json) problem = json_incref(json_object_get(p->job_json, "problem"));
    if (p->status && !problem && p->answer.status >= 400 && p->answer.body)
        problem = json_loadb(p->answer.body, p->answer.len, 0, NULL);
    if (p->status && !json_is_object(problem)) {
        json_decref(problem);
        problem = json_pack("{s:s, s:s}", "code", p->err.what[0] ? p->err.what : "failed", "detail", p->err.text);
    }
    return json_pack("{s:s, s:s?, s:s, s:s?, s:s?, s:I, s:f, s:o}", "input", p->in, "output", p->out, "state",
                     put_names[p->state], "job", p->job[0] ? p->job : NULL, "model", p->model[0] ? p->model : NULL,
                     "bytes", (json_int_t)p->bytes, "seconds", p->seconds, "problem", problem ? problem : json_null());
}

/* --- one picture
 * ------------------------------------------------------------------------------------------------------------- */

static int put_one(cli_env *env, const char *in, const char *out, const char *format) {
    bool from_stdin = strcmp(in, "-") == 0;
    put p = {.in = in, .out = out, .result = {.file = {.fd = -1}}, .answer = {.retry_after_s = -1}};
    dr_error err = {0};
    cli_http *h = NULL;
    cli_progress progress;
    char *path = NULL;
    int code = CLI_FAILED;
    dr_status s = cli_connect(env, &h, &err);
    if (!s && !(path = derain_path(env->opt, format))) s = dr_fail(&err, DR_NOMEM, "out of memory");
    if (s) {
        code = cli_out_error(env, s, &err, NULL);
        goto out;
    }
    cli_progress_init(&progress, env);
    put_file(h, env, path, &p, 0, &progress);
    cli_progress_clear(&progress);
    code = exit_of(&p);
    if (p.status) fprintf(stderr, "derain: %s: %s\n", from_stdin ? "standard input" : in, p.err.text);
    if (code == CLI_UNREACHABLE)
        cli_out_note(env,
                     "derain: start a service with `deraind serve`, or name one with --url; `derain doctor` helps");
    if (p.state == PUT_DONE && !out) {
        if (!cli_output_print(&p.result)) {
            fprintf(stderr, "derain: cannot write to standard output\n");
            code = CLI_FAILED;
        }
    } else if (env->opt->json) {
        json_t *o = p.state == PUT_QUEUED ? json_incref(p.job_json) : put_json(&p);
        int rc = o ? cli_out_json(o) : CLI_FAILED;
        json_decref(o);
        if (!code) code = rc;
    } else if (p.state == PUT_QUEUED) {
        printf("%s\n", p.job);
        code = cli_out_flush();
    } else if (p.state == PUT_DONE) {
        char t[32];
        cli_text_seconds(p.seconds, t);
        cli_out_note(env, "%s (%s)", out, t);
    }
out:
    put_clear(&p);
    dr_free(path);
    cli_http_close(h);
    return code;
}

/* --- a folder
 * ------------------------------------------------------------------------------------------------------------------ */

typedef struct folder {
    const cli_env *env;
    const char *path;
    put *puts;
    size_t n;
    cli_progress progress;
    pthread_mutex_t mu; /* guards what follows and the progress line */
    size_t next, done, failed;
    int give_up; /* an exit code: no sense in trying the rest */
    dr_error give_up_err;
} folder;

/* Others will fail the same way: no server, or a key it does not take. */
static bool hopeless(const put *p) {
    return exit_of(p) == CLI_UNREACHABLE || p->answer.status == 401 || p->answer.status == 403 ||
           strcmp(p->err.what, "timed_out") == 0 || strcmp(p->err.what, "interrupted") == 0 || p->answer.status == 507;
}

static void *folder_main(void *arg) {
    folder *f = arg;
    cli_http *h = NULL;
    dr_error err = {0};
    dr_status s = cli_connect(f->env, &h, &err);
    pthread_mutex_lock(&f->mu);
    if (s && !f->give_up) {
        f->give_up = cli_exit_code(s, &err, 0);
        f->give_up_err = err;
    }
    while (!f->give_up && f->next < f->n) {
        put *p = &f->puts[f->next++];
        if (p->state == PUT_SKIPPED) continue;
        cli_progress_files(&f->progress, f->done, f->n, f->failed, cli_base_name(p->in), false);
        pthread_mutex_unlock(&f->mu);
        put_file(h, f->env, f->path, p, 40, NULL); /* a full queue is waited for: it is mostly we who fill it */
        pthread_mutex_lock(&f->mu);
        f->done++;
        if (p->state == PUT_FAILED) {
            f->failed++;
            if (hopeless(p) && !f->give_up) {
                f->give_up = exit_of(p);
                f->give_up_err = p->err;
            }
            cli_progress_clear(&f->progress);
            if (!hopeless(p)) fprintf(stderr, "derain: %s: %s\n", p->in, p->err.text);
        } else if (p->state == PUT_QUEUED && !f->env->opt->json) {
            printf("%s  %s\n", p->job, p->in);
        } else if (!f->progress.on) {
            cli_out_note(f->env, "%s", p->out);
        }
        cli_answer body = p->answer; /* keep the words of an error, not the picture */
        if (p->state == PUT_DONE) cli_answer_clear(&body), p->answer = body;
        cli_progress_files(&f->progress, f->done, f->n, f->failed, cli_base_name(p->in), f->done == f->n);
    }
    pthread_mutex_unlock(&f->mu);
    cli_http_close(h);
    return NULL;
}

static int folder_report(folder *f, double seconds) {
    size_t n[5] = {0};
    int code = f->give_up;
    char t[32];
    for (size_t i = 0; i < f->n; i++) n[f->puts[i].state]++;
    if (!code && n[PUT_FAILED]) code = CLI_FAILED;
    cli_text_seconds(seconds, t);
    if (f->give_up) fprintf(stderr, "derain: stopped: %s\n", f->give_up_err.text);
    if (n[PUT_FAILED] && !f->env->opt->quiet) {
        fprintf(stderr, "These failed:\n");
        for (size_t i = 0; i < f->n; i++)
            if (f->puts[i].state == PUT_FAILED) fprintf(stderr, "  %s: %s\n", f->puts[i].in, f->puts[i].err.text);
    }
    cli_out_note(f->env, "%zu derained, %zu handed in, %zu there already, %zu failed, %zu not tried, %s", n[PUT_DONE],
                 n[PUT_QUEUED], n[PUT_SKIPPED], n[PUT_FAILED], n[PUT_TODO], t);
    if (!f->env->opt->json) return code ? code : cli_out_flush();
    json_t *files = json_array();
    for (size_t i = 0; i < f->n; i++) json_array_append_new(files, put_json(&f->puts[i]));
    json_t *o =
        json_pack("{s:I, s:I, s:I, s:I, s:I, s:f, s:o}", "succeeded", (json_int_t)n[PUT_DONE], "queued",
                  (json_int_t)n[PUT_QUEUED], "skipped", (json_int_t)n[PUT_SKIPPED], "failed", (json_int_t)n[PUT_FAILED],
                  "not_tried", (json_int_t)n[PUT_TODO], "seconds", seconds, "files", files);
    int rc = o ? cli_out_json(o) : CLI_FAILED;
    json_decref(o);
    return code ? code : rc;
}

static int dry_run(const cli_env *env, const cli_item *items, size_t n) {
    for (size_t i = 0; i < n; i++)
        printf("%s %s -> %s\n", items[i].exists && !env->opt->force ? "skip" : "put ", items[i].in,
               items[i].out ? items[i].out : "-");
    return cli_out_flush();
}

static int put_folder(cli_env *env, const char *dir, const char *out_dir, const char *format) {
    cli_item *items = NULL;
    size_t n = 0;
    dr_error err = {0};
    dr_status s = cli_folder_items(dir, out_dir, format, &items, &n, &err);
    if (s) return cli_out_error(env, s, &err, NULL);
    if (env->opt->dry_run) {
        int code = dry_run(env, items, n);
        cli_items_free(items, n);
        return code;
    }
    if (out_dir && (s = dr_fs_mkdirs(out_dir, 0777, &err))) {
        cli_items_free(items, n);
        return cli_out_error(env, s, &err, NULL);
    }
    folder f = {
        .env = env, .n = n, .path = derain_path(env->opt, format), .puts = dr_calloc(n ? n : 1, sizeof *f.puts)};
    int code = CLI_FAILED;
    size_t todo = 0;
    if (f.path && f.puts) {
        for (size_t i = 0; i < n; i++) {
            bool skip = items[i].exists && !env->opt->force && !env->opt->async;
            f.puts[i] = (put){.in = items[i].in,
                              .out = env->opt->async ? NULL : items[i].out,
                              .result = {.file = {.fd = -1}},
                              .answer = {.retry_after_s = -1},
                              .state = skip ? PUT_SKIPPED : PUT_TODO};
            todo += !skip;
        }
        f.done = n - todo;
        pthread_mutex_init(&f.mu, NULL);
        cli_progress_init(&f.progress, env);
        pthread_t threads[16];
        size_t want = (size_t)(env->opt->parallel ? env->opt->parallel : 3), made = 0;
        while (made < want && made < todo && pthread_create(&threads[made], NULL, folder_main, &f) == 0) made++;
        if (!made && todo) (void)folder_main(&f);
        for (size_t i = 0; i < made; i++) pthread_join(threads[i], NULL);
        cli_progress_clear(&f.progress);
        pthread_mutex_destroy(&f.mu);
        if (!n) cli_out_note(env, "no .png, .jpg or .jpeg files in %s", dir);
        code = folder_report(&f, (double)(dr_clock_ns() - f.progress.start_ns) * 1e-9);
        for (size_t i = 0; i < n; i++) put_clear(&f.puts[i]);
    } else {
        fprintf(stderr, "derain: out of memory\n");
    }
    dr_free((char *)f.path);
    dr_free(f.puts);
    cli_items_free(items, n);
    return code;
}

/* --- the command
 * ---------------------------------------------------------------------------------------------------------------- */

static int usage(const char *words, const char *name) {
    dr_error err = {0};
    dr_fail(&err, DR_INVALID, "%s%s", name, words);
    return cli_out_usage(cli_command_find("put"), &err);
}

/* The file a picture's result goes to; NULL without memory. */
static char *result_path(const char *in, const char *out, const char *format) {
    if (out && !dr_fs_is_dir(out)) return dr_strdup(out);
    const char *base = cli_base_name(in);
    char *name = cli_result_name(base, format, false), *path = NULL;
    if (name && out) {
        path = dr_fs_join(out, name);
    } else if (name && base > in) {
        char *dir = dr_strndup(in, (size_t)(base - in));
        path = dir ? dr_fs_join(dir, name) : NULL;
        dr_free(dir);
    } else if (name) {
        return name;
    }
    dr_free(name);
    return path;
}

int cli_put(cli_env *env) {
    const cli_options *o = env->opt;
    const char *in = env->args[0], *out = o->out, *format = cli_result_format(o->format, out);
    bool from_stdin = strcmp(in, "-") == 0, to_stdout = out ? strcmp(out, "-") == 0 : from_stdin;
    if (o->async && out) return usage("--async writes no file: fetch the result with `derain get ID -o FILE`", "");
    if (!from_stdin && dr_fs_is_dir(in)) {
        if (to_stdout) return usage("the results of a folder do not fit on standard output", "");
        if (out && dr_fs_exists(out) && !dr_fs_is_dir(out))
            return usage(" is a file, the results of a folder need a folder", out);
        return put_folder(env, in, out, format);
    }
    if (o->async) {
        if (o->dry_run) return dry_run(env, &(cli_item){.in = env->args[0]}, 1);
        return put_one(env, in, NULL, format);
    }
    if (from_stdin && out && !to_stdout && dr_fs_is_dir(out))
        return usage(" is a folder; standard input has no name to go by", out);
    if (to_stdout && o->json) return usage("--json and the picture cannot both go to standard output", "");
    if (to_stdout && isatty(STDOUT_FILENO))
        return usage("a picture is not for the terminal: give -o FILE or a pipe", "");
    if (to_stdout) {
        if (o->dry_run) return dry_run(env, &(cli_item){.in = env->args[0]}, 1);
        return put_one(env, in, NULL, format);
    }
    char *path = result_path(in, out, format);
    int code;
    if (!path) {
        fprintf(stderr, "derain: out of memory\n");
        code = CLI_FAILED;
    } else if (o->dry_run) {
        code = dry_run(env, &(cli_item){.in = env->args[0], .out = path, .exists = dr_fs_exists(path)}, 1);
    } else if (dr_fs_exists(path) && !o->force) {
        code = usage(" is there already: --force replaces it, -o gives another name", path);
    } else {
        code = put_one(env, in, path, format);
    }
    dr_free(path);
    return code;
}
