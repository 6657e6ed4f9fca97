/* cmd_training.c - `derain train, logs, pause, resume, datasets`.
 *
 * A folder goes up by content: each picture is put into the set by its SHA-256, and only where the service does not
 * have it the bytes follow. So a run that was broken off, and the next training on mostly the same pictures, send
 * little.
 * --paired DIR holds two folders, rainy and clean, with equal names. */
#include "client/files.h"
#include "client/follow.h"
#include "client/names.h"
#include "client/opts.h"
#include "client/send.h"
#include "client/wait.h"
#include "core/base/alloc.h"
#include "core/base/buf.h"
#include "core/base/fs.h"
#include "core/base/hash.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct upload {
    cli_http *h;
    const cli_env *env;
    cli_answer *a;
    char set[48];
    cli_progress progress;
    size_t done, total, sent; /* sent: whose bytes had to be */
    double bytes;
} upload;

/* --- upload --- */

static dr_status name_blob(upload *u, const char *part, const char *name, const char *sha, dr_error *err) {
    dr_buf b;
    char body[100];
    char *e = cli_escape(name);
    dr_buf_init(&b, 2048);
    dr_buf_printf(&b, "/v1/datasets/%s/%s/%s", u->set, part, e ? e : "");
    snprintf(body, sizeof body, "{\"blob\":\"%s\"}", sha);
    dr_status s = !e || b.status ? dr_fail(err, DR_NOMEM, "out of memory")
                                 : cli_send_json(u->h, u->env, "PUT", b.data, body, u->a, NULL, err);
    dr_buf_done(&b);
    dr_free(e);
    return s;
}

static dr_status put_picture(upload *u, const char *part, const char *path, dr_error *err) {
    char sha[DR_SHA256_HEX];
    cli_file in = {.fd = -1};
    dr_status s = cli_input_open(path, &in, err);
    if (s) return s;
    s = cli_input_sha256(&in, sha, err);
    if (!s) s = name_blob(u, part, cli_base_name(path), sha, err);
    if (s && u->a->status == 404 && !strcmp(err->what, "blob_not_found")) {
        *err = (dr_error){0};
        s = cli_send_blob(u->h, u->env, sha, &in, u->a, err);
        if (!s) s = name_blob(u, part, cli_base_name(path), sha, err);
        u->sent++;
        u->bytes += (double)in.len;
    }
    cli_input_close(&in);
    if (s) return dr_wrap(err, s, "%s", path);
    u->done++;
    cli_progress_files(&u->progress, u->done, u->total, 0, cli_base_name(path), false);
    return DR_OK;
}

typedef struct side {
    const char *part;
    char *dir; /* owned; NULL = not given */
    cli_item *items;
    size_t n;
} side;

static dr_status put_sides(upload *u, const side *sides, int n, dr_error *err) {
    dr_status s = DR_OK;
    for (int i = 0; i < n; i++) u->total += sides[i].n;
    cli_progress_init(&u->progress, u->env);
    for (int i = 0; i < n && !s; i++)
        for (size_t k = 0; k < sides[i].n && !s; k++) {
            s = put_picture(u, sides[i].part, sides[i].items[k].in, err);
            if (!s && atomic_load(&cli_stop)) s = dr_fail_as(err, DR_CANCELLED, "interrupted", "interrupted");
        }
    cli_progress_clear(&u->progress);
    return s;
}

static dr_status seal(upload *u, dr_error *err) {
    char path[96];
    snprintf(path, sizeof path, "/v1/datasets/%s/seal", u->set);
    json_t *o = NULL;
    dr_status s = cli_send_json(u->h, u->env, "POST", path, u->env->opt->set_aside ? "{\"set_aside\":true}" : "{}",
                                u->a, &o, err);
    while (!s && (!strcmp(cli_member(o, "state"), "validating") || !strcmp(cli_member(o, "state"), "open"))) {
        json_decref(o);
        o = NULL;
        snprintf(path, sizeof path, "/v1/datasets/%s?wait=10", u->set);
        cli_answer_clear(u->a);
        s = cli_http_do(
            u->h,
            &(cli_call){
                .path = path, .accept = "application/json", .wait_ms = 10000, .deadline_ns = u->env->deadline_ns},
            u->a, err);
        if (!s) s = cli_answer_json(u->a, &o, err);
    }
    if (!s && strcmp(cli_member(o, "state"), "ready")) {
        const json_t *why = json_array_get(json_object_get(o, "reasons"), 0);
        s = dr_fail_as(err, DR_INVALID, "dataset_rejected",
                       "the data set %s was rejected: %.300s; derain datasets %s tells more", u->set,
                       json_is_string(why) ? json_string_value(why) : "see its report", u->set);
    }
    json_decref(o);
    return s;
}

/* Folders to a sealed set; its id. */
static dr_status make_set(upload *u, dr_error *err) {
    const cli_options *o = u->env->opt;
    side sides[4] = {{.part = "rainy"}, {.part = "clean"}, {.part = "paired/rainy"}, {.part = "paired/clean"}};
    dr_status s = DR_OK;
    sides[0].dir = dr_strdup(o->rainy);
    sides[1].dir = dr_strdup(o->clean);
    if (o->paired) {
        sides[2].dir = dr_fs_join(o->paired, "rainy");
        sides[3].dir = dr_fs_join(o->paired, "clean");
    }
    for (int i = 0; i < (o->paired ? 4 : 2) && !s; i++) {
        if (!sides[i].dir)
            s = dr_fail(err, DR_NOMEM, "out of memory");
        else
            s = cli_folder_items(sides[i].dir, NULL, "png", &sides[i].items, &sides[i].n, err);
        if (!s && !sides[i].n) s = dr_fail_as(err, DR_INVALID, "no_pictures", "%s holds no pictures", sides[i].dir);
    }
    json_t *body = o->name ? json_pack("{s:s}", "name", o->name) : json_object(), *set = NULL;
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    if (!s && !text) s = dr_fail(err, DR_INVALID, "--name is no UTF-8");
    if (!s && text) s = cli_send_json(u->h, u->env, "POST", "/v1/datasets", text, u->a, &set, err);
    if (!s) {
        snprintf(u->set, sizeof u->set, "%.40s", cli_member(set, "id"));
        s = put_sides(u, sides, 4, err);
    }
    if (!s) {
        char bytes[32];
        cli_text_bytes(u->bytes, bytes);
        cli_out_note(u->env, "%s: %zu pictures, %zu of them sent (%s)", u->set, u->done, u->sent, bytes);
        s = seal(u, err);
    }
    json_decref(set);
    json_decref(body);
    free(text);
    for (int i = 0; i < 4; i++) {
        cli_items_free(sides[i].items, sides[i].n);
        dr_free(sides[i].dir);
    }
    return s;
}

/* --- train --- */

/* NAME=VALUE, or OBJECT.NAME=VALUE for a member of a member ("gate", "labels"). What reads as a JSON number, true,
 * false or null is one, except among labels, which are texts; everything else is a text. What the members mean is the
 * service's. */
static dr_status set_member(json_t *b, const char *word, dr_error *err) {
    const char *eq = strchr(word, '='), *dot = memchr(word, '.', eq ? (size_t)(eq - word) : 0);
    const char *name = dot ? dot + 1 : word;
    char outer[32] = "", inner[64];
    if (!eq || eq == name || (dot && dot == word) || (dot && (size_t)(dot - word) >= sizeof outer) ||
        (size_t)(eq - name) >= sizeof inner)
        return dr_fail_as(err, DR_INVALID, "usage", "--set takes NAME=VALUE, not '%.60s'", word);
    snprintf(inner, sizeof inner, "%.*s", (int)(eq - name), name);
    json_t *to = b;
    if (dot) {
        snprintf(outer, sizeof outer, "%.*s", (int)(dot - word), word);
        to = json_object_get(b, outer);
        if (!json_is_object(to)) {
            json_object_set_new(b, outer, json_object());
            to = json_object_get(b, outer);
        }
    }
    json_t *v = dot && !strcmp(outer, "labels") ? NULL : json_loads(eq + 1, JSON_DECODE_ANY, NULL);
    if (v && (json_is_string(v) || json_is_object(v) || json_is_array(v))) {
        json_decref(v);
        v = NULL;
    }
    if (!v) v = json_string(eq + 1);
    if (json_object_set_new(to, inner, v)) return dr_fail(err, DR_INVALID, "--set: '%.60s' is no UTF-8", word);
    return DR_OK;
}

static char *training_body(const cli_options *o, const char *set, dr_error *err) {
    json_t *b = json_pack("{s:s, s:s}", "type", "train", "dataset", set);
    const struct {
        const char *name;
        int64_t v;
    } ints[] = {{"steps", o->steps},           {"crop", o->crop},
                {"batch", o->batch},           {"seed", o->seed},
                {"eval_every", o->eval_every}, {"time_budget_s", o->budget_s},
                {"threads", o->threads}};
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++)
        if (ints[i].v > 0) json_object_set_new(b, ints[i].name, json_integer((json_int_t)ints[i].v));
    if (o->preset) json_object_set_new(b, "preset", json_string(o->preset));
    if (o->parent) json_object_set_new(b, "parent", json_string(o->parent));
    if (o->name) json_object_set_new(b, "labels", json_pack("{s:s}", "name", o->name));
    dr_status s = b ? DR_OK : dr_fail(err, DR_NOMEM, "out of memory");
    for (int i = 0; i < o->set.n && !s; i++) s = set_member(b, o->set.v[i], err);
    char *text = s ? NULL : json_dumps(b, JSON_COMPACT);
    if (!s && !text) (void)dr_fail(err, DR_NOMEM, "out of memory");
    json_decref(b);
    return text;
}

static int train(cli_env *env, cli_http *h, cli_answer *a) {
    const cli_options *o = env->opt;
    dr_error err = {0};
    upload u = {.h = h, .env = env, .a = a};
    json_t *job = NULL, *end = NULL;
    dr_status s = DR_OK;
    if (o->dataset)
        snprintf(u.set, sizeof u.set, "%.40s", o->dataset);
    else
        s = make_set(&u, &err);
    char *body = s ? NULL : training_body(o, u.set, &err);
    if (!s && !body) s = err.code;
    if (!s) s = cli_send_json(h, env, "POST", "/v1/jobs", body, a, &job, &err);
    free(body);
    if (s) {
        json_decref(job);
        return cli_out_error(env, s, &err, a);
    }
    char id[48];
    int code = CLI_OK;
    snprintf(id, sizeof id, "%.40s", cli_member(job, "id"));
    if (!o->follow) {
        code = o->json ? cli_out_json(job) : (printf("%s\n", id), cli_out_flush());
        if (!o->json) cli_out_note(env, "derain logs %s --follow watches it", id);
    } else {
        cli_out_note(env, "%s", id);
        s = cli_follow_training(h, env, id, 0, false, true, false, &end, a, &err);
        if (s && atomic_load(&cli_stop)) cli_out_note(env, "the training goes on; derain cancel %s ends it", id);
        if (s)
            code = cli_out_error(env, s, &err, a);
        else if (!cli_job_good(end))
            (void)cli_out_error(env, cli_job_problem(end, &err), &err, NULL), code = CLI_FAILED;
        else if (o->json)
            code = cli_out_json(end);
    }
    json_decref(end);
    json_decref(job);
    return code;
}

int cli_train(cli_env *env) {
    const cli_options *o = env->opt;
    dr_error err = {0};
    cli_http *h = NULL;
    cli_answer a = {.retry_after_s = -1};
    if (o->dataset ? o->rainy || o->clean || o->paired : !o->rainy || !o->clean) {
        dr_fail(&err, DR_INVALID, "a training needs --rainy and --clean, or --dataset alone");
        return cli_out_usage(cli_command_find("train"), &err);
    }
    char *body = training_body(o, "", &err); /* a wrong --set is told before anything is sent */
    if (!body) return err.code == DR_INVALID ? cli_out_usage(cli_command_find("train"), &err) : CLI_FAILED;
    free(body);
    dr_status s = cli_connect(env, &h, &err);
    int code = s ? cli_out_error(env, s, &err, &a) : train(env, h, &a);
    cli_answer_clear(&a);
    cli_http_close(h);
    return code;
}

/* --- logs, pause, resume --- */

int cli_logs(cli_env *env) {
    dr_error err = {0};
    cli_http *h = NULL;
    cli_answer a = {.retry_after_s = -1};
    json_t *job = NULL;
    dr_status s = cli_connect(env, &h, &err);
    if (!s)
        s = cli_follow_training(h, env, env->args[0], 0, env->opt->all, env->opt->follow, !env->opt->follow, &job, &a,
                                &err);
    int code = s ? cli_out_error(env, s, &err, &a) : cli_out_flush();
    if (!s && env->opt->follow && !cli_job_good(job)) code = CLI_FAILED;
    json_decref(job);
    cli_answer_clear(&a);
    cli_http_close(h);
    return code;
}

static int move(cli_env *env, const char *tail) {
    dr_error err = {0};
    cli_http *h = NULL;
    cli_answer a = {.retry_after_s = -1};
    json_t *job = NULL;
    char *path = cli_job_path(env->args[0], tail);
    dr_status s = cli_connect(env, &h, &err);
    if (!s && !path) s = dr_fail(&err, DR_NOMEM, "out of memory");
    if (!s && path) s = cli_send_json(h, env, "POST", path, NULL, &a, &job, &err);
    int code = s ? cli_out_error(env, s, &err, &a) : env->opt->json ? cli_out_json(job) : CLI_OK;
    if (!s && !env->opt->json)
        cli_out_note(env, a.status == 202 ? "%s is %s; it will be paused after its step" : "%s is %s", env->args[0],
                     cli_member(job, "state"));
    json_decref(job);
    dr_free(path);
    cli_answer_clear(&a);
    cli_http_close(h);
    return code;
}

int cli_pause(cli_env *env) {
    return move(env, "/pause");
}
int cli_resume(cli_env *env) {
    return move(env, "/resume");
}

/* --- datasets --- */

static json_int_t files_of(const json_t *set, const char *part) {
    return json_integer_value(json_object_get(json_object_get(json_object_get(set, "parts"), part), "files"));
}

static int table(const json_t *sets) {
    enum { COLUMNS = 6 };
    size_t n = json_array_size(sets), i;
    json_t *set;
    const char **cells = dr_calloc((n + 1) * COLUMNS, sizeof *cells);
    char(*text)[COLUMNS][64] = dr_calloc(n ? n : 1, sizeof *text);
    int code = CLI_FAILED;
    if (cells && text) {
        const char *heads[COLUMNS] = {"ID", "STATE", "CREATED", "RAINY", "CLEAN", "NAME"};
        memcpy(cells, heads, sizeof heads);
        json_array_foreach(sets, i, set) {
            snprintf(text[i][0], 64, "%.47s", cli_member(set, "id"));
            snprintf(text[i][1], 64, "%.20s", cli_member(set, "state"));
            snprintf(text[i][2], 64, "%.19s", cli_member(set, "created_at"));
            snprintf(text[i][3], 64, "%lld", (long long)files_of(set, "rainy"));
            snprintf(text[i][4], 64, "%lld", (long long)files_of(set, "clean"));
            snprintf(text[i][5], 64, "%.60s", cli_member(set, "name"));
            for (int c = 0; c < COLUMNS; c++) cells[(i + 1) * COLUMNS + (size_t)c] = text[i][c];
        }
        cli_out_table(cells, n + 1, COLUMNS);
        code = cli_out_flush();
    }
    dr_free(cells);
    dr_free(text);
    return code;
}

int cli_datasets(cli_env *env) {
    dr_error err = {0};
    cli_http *h = NULL;
    cli_answer a = {.retry_after_s = -1};
    json_t *o = NULL;
    char path[160] = "/v1/datasets?limit=100";
    char *e = env->n_args ? cli_escape(env->args[0]) : NULL;
    if (e) snprintf(path, sizeof path, "/v1/datasets/%.80s/report", e);
    dr_status s = cli_connect(env, &h, &err);
    if (!s)
        s = cli_http_do(h, &(cli_call){.path = path, .accept = "application/json", .deadline_ns = env->deadline_ns}, &a,
                        &err);
    if (!s) s = cli_answer_json(&a, &o, &err);
    int code;
    if (s) {
        code = cli_out_error(env, s, &err, &a);
    } else if (env->opt->json || env->n_args) { /* a report is for reading as it is */
        if (env->opt->json)
            code = cli_out_json(o);
        else
            code = json_dumpf(o, stdout, JSON_INDENT(2)) || putchar('\n') == EOF ? CLI_FAILED : cli_out_flush();
    } else {
        code = table(json_object_get(o, "items"));
    }
    json_decref(o);
    dr_free(e);
    cli_answer_clear(&a);
    cli_http_close(h);
    return code;
}
