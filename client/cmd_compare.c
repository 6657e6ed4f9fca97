/* cmd_compare.c - `derain compare`: several versions of models over one's own pictures.
 *
 * Pictures go up by content, and only those that the service lacks; the job names them. A picture that is refused is
 * told and left out, as with a folder of `derain put`. --pairs DIR holds their truths: for rain/a.jpg that is
 * DIR/a.jpg, or another picture of that stem. */
#include "client/compare_view.h"
#include "client/files.h"
#include "client/names.h"
#include "client/opts.h"
#include "client/send.h"
#include "client/wait.h"
#include "core/base/alloc.h"
#include "core/base/fs.h"
#include "core/base/hash.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { POLL_S = 20, POLL_TTY_S = 1 };

typedef struct item {
    char *path, *clean; /* owned; clean NULL = none */
} item;

typedef struct work {
    cli_env *env;
    cli_http *h;
    cli_answer *a;
    item *items;
    size_t n, cap, n_clean, sent, refused;
    double bytes;
    json_t *pictures;
} work;

/* --- which pictures --- */

static dr_status add(work *w, const char *path, dr_error *err) {
    if (w->n == w->cap) {
        size_t cap = w->cap ? 2 * w->cap : 32;
        item *grown = dr_realloc(w->items, cap * sizeof *grown);
        if (!grown) return dr_fail(err, DR_NOMEM, "out of memory");
        w->items = grown;
        w->cap = cap;
    }
    w->items[w->n] = (item){.path = dr_strdup(path)};
    return w->items[w->n++].path ? DR_OK : dr_fail(err, DR_NOMEM, "out of memory");
}

static dr_status add_operand(work *w, const char *path, dr_error *err) {
    cli_item *items = NULL;
    size_t n = 0;
    if (!dr_fs_is_dir(path)) {
        if (dr_fs_exists(path)) return add(w, path, err);
        return dr_fail_as(err, DR_NOT_FOUND, "no_such_file", "%s: there is no such file or folder", path);
    }
    dr_status s = cli_folder_items(path, NULL, "png", &items, &n, err);
    if (!s && !n) s = dr_fail_as(err, DR_INVALID, "no_pictures", "%s holds no pictures", path);
    for (size_t i = 0; i < n && !s; i++) s = add(w, items[i].in, err);
    cli_items_free(items, n);
    return s;
}

/* DIR/NAME, else the one of its stem. */
static char *find_clean(const char *dir, const char *name) {
    static const char *const ends[] = {".png", ".jpg", ".jpeg", ".PNG", ".JPG", ".JPEG"};
    char other[300], *path = dr_fs_join(dir, name);
    if (path && dr_fs_exists(path)) return path;
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot && i < sizeof ends / sizeof *ends; i++) {
        dr_free(path);
        snprintf(other, sizeof other, "%.*s%s", (int)(dot - name), name, ends[i]);
        path = dr_fs_join(dir, other);
        if (path && dr_fs_exists(path)) return path;
    }
    dr_free(path);
    return NULL;
}

static dr_status gather(work *w, dr_error *err) {
    const char *pairs = w->env->opt->pairs;
    dr_status s = DR_OK;
    for (int i = 0; i < w->env->n_args && !s; i++) s = add_operand(w, w->env->args[i], err);
    for (size_t i = 0; pairs && i < w->n && !s; i++)
        w->n_clean += (w->items[i].clean = find_clean(pairs, cli_base_name(w->items[i].path))) != NULL;
    if (!s && pairs && !w->n_clean)
        s = dr_fail_as(err, DR_INVALID, "no_pairs", "%s holds no picture that is named like one of those to compare",
                       pairs);
    return s;
}

/* --- upload --- */

static dr_status send_one(work *w, const char *path, char sha[DR_SHA256_HEX], dr_error *err) {
    cli_file in = {.fd = -1};
    bool there = false;
    w->a->status = 0;
    dr_status s = cli_input_open(path, &in, err);
    if (s) return s;
    s = cli_input_sha256(&in, sha, err);
    if (!s) s = cli_blob_there(w->h, w->env, sha, w->a, &there, err);
    if (!s && !there) {
        s = cli_send_blob(w->h, w->env, sha, &in, w->a, err);
        w->sent += !s;
        w->bytes += s ? 0 : (double)in.len;
    }
    cli_input_close(&in);
    return s ? dr_wrap(err, s, "%s", path) : DR_OK;
}

/* Is it this picture's fault? */
static bool only_this_one(dr_status s, const cli_answer *a) {
    if (s == DR_CANCELLED) return false;
    if (!a->status) return s == DR_NOT_FOUND || s == DR_TOO_LARGE || s == DR_IO; /* of its file */
    return a->status == 400 || a->status == 413 || a->status == 415 || a->status == 422;
}

static dr_status send_item(work *w, const item *it, dr_error *err) {
    char sha[DR_SHA256_HEX], clean[DR_SHA256_HEX] = "";
    dr_status s = send_one(w, it->path, sha, err);
    if (!s && it->clean) s = send_one(w, it->clean, clean, err);
    if (s) return s;
    json_t *o =
        json_pack("{s:s, s:s, s:s*}", "name", cli_base_name(it->path), "blob", sha, "clean", *clean ? clean : NULL);
    if (!o) return dr_fail_as(err, DR_INVALID, "bad_name", "%s: the name is no UTF-8", it->path);
    return json_array_append_new(w->pictures, o) ? dr_fail(err, DR_NOMEM, "out of memory") : DR_OK;
}

static dr_status send_all(work *w, dr_error *err) {
    cli_progress p;
    char bytes[32];
    dr_status s = DR_OK;
    cli_progress_init(&p, w->env);
    for (size_t i = 0; i < w->n && !s; i++) {
        dr_error why = {0};
        dr_status one = send_item(w, &w->items[i], &why);
        if (one && !only_this_one(one, w->a)) {
            *err = why;
            s = one;
        } else if (one) {
            w->refused++;
            cli_progress_clear(&p);
            fprintf(stderr, "derain: left out: %s\n", why.text);
        }
        if (!s && atomic_load(&cli_stop)) s = dr_fail_as(err, DR_CANCELLED, "interrupted", "interrupted");
        cli_progress_files(&p, i + 1, w->n, w->refused, cli_base_name(w->items[i].path), false);
    }
    cli_progress_clear(&p);
    if (!s && !json_array_size(w->pictures))
        s = dr_fail_as(err, DR_INVALID, "no_pictures", "no picture is left to compare");
    cli_text_bytes(w->bytes, bytes);
    if (!s) cli_out_note(w->env, "%zu pictures, %zu files sent (%s)", json_array_size(w->pictures), w->sent, bytes);
    return s;
}

/* --- the job --- */

/* "a/1,b/2" as an array; NULL without memory. */
static json_t *version_list(const char *text) {
    json_t *list = json_array();
    while (list && *text) {
        size_t n = strcspn(text, ",");
        if (n) json_array_append_new(list, json_stringn(text, n));
        text += n + (text[n] == ',');
    }
    return list;
}

static dr_status hand_in(work *w, json_t **ret, dr_error *err) {
    const cli_options *o = w->env->opt;
    json_t *b = json_pack("{s:s}", "type", "compare");
    if (o->dataset)
        json_object_set_new(b, "dataset", json_string(o->dataset));
    else
        json_object_set(b, "pictures", w->pictures);
    if (o->versions) json_object_set_new(b, "versions", version_list(o->versions));
    if (o->name) json_object_set_new(b, "labels", json_pack("{s:s}", "name", o->name));
    char *text = b ? json_dumps(b, JSON_COMPACT) : NULL;
    json_decref(b);
    dr_status s = text ? cli_send_json(w->h, w->env, "POST", "/v1/jobs", text, w->a, ret, err)
                       : dr_fail(err, DR_NOMEM, "out of memory");
    free(text);
    return s;
}

static void on_job(void *arg, const json_t *job) {
    cli_progress_job(arg, cli_member(job, "state"), json_number_value(json_object_get(job, "progress")),
                     (int64_t)json_number_value(json_object_get(job, "queue_position")));
}

static dr_status save_sheet(work *w, const char *id, char **ret_path, dr_error *err) {
    const cli_options *o = w->env->opt;
    char name[64];
    cli_output sheet = {.file = {.fd = -1}};
    cli_answer_clear(w->a);
    snprintf(name, sizeof name, "%.50s.png", id);
    char *path = !o->out ? dr_strdup(name) : dr_fs_is_dir(o->out) ? dr_fs_join(o->out, name) : dr_strdup(o->out);
    if (!path) return dr_fail(err, DR_NOMEM, "out of memory");
    dr_status s = cli_output_open(path, &sheet, err);
    if (!s) s = cli_job_result(w->h, w->env, id, &sheet.file, w->a, err);
    if (!s && !w->a->kept)
        s = dr_fail_as(err, DR_CORRUPT, "bad_answer", "the answer is no picture; is that a deraind?");
    if (!s && dr_fs_exists(path) && !o->force)
        s = dr_fail(err, DR_CONFLICT, "%s is there already: --force replaces it; derain get %s fetches the sheet", path,
                    id);
    if (!s) s = cli_output_name(&sheet, path, err);
    cli_output_close(&sheet);
    if (s)
        dr_free(path);
    else
        *ret_path = path;
    return s;
}

/* The job has ended well: its sheet, its numbers. */
static int show(work *w, const char *id) {
    dr_error err = {0};
    char *path = NULL;
    json_t *report = NULL;
    dr_status s = save_sheet(w, id, &path, &err);
    if (!s) s = cli_compare_report(w->h, w->env, id, &report, w->a, &err);
    if (s) {
        dr_free(path);
        return cli_out_error(w->env, s, &err, s == DR_CONFLICT ? NULL : w->a);
    }
    int code;
    if (w->env->opt->json) {
        json_object_set_new(report, "sheet", json_string(path));
        code = cli_out_json(report);
    } else {
        code = cli_compare_print(w->env, report);
        cli_out_note(w->env, "%s", path);
    }
    if (!code && (w->refused || json_integer_value(json_object_get(report, "failed")) > 0)) code = CLI_FAILED;
    json_decref(report);
    dr_free(path);
    return code;
}

static int wait_and_show(work *w, const char *id) {
    dr_error err = {0};
    json_t *end = NULL;
    cli_progress p;
    cli_out_note(w->env, "%s", id);
    cli_progress_init(&p, w->env);
    cli_answer_clear(w->a);
    dr_status s = cli_job_wait(w->h, w->env, id, p.on ? POLL_TTY_S : POLL_S, on_job, &p, &end, w->a, &err);
    cli_progress_clear(&p);
    if (s && atomic_load(&cli_stop)) cli_job_cancel_now(w->h, id);
    int code;
    if (s)
        code = cli_out_error(w->env, s, &err, w->a);
    else if (!cli_job_good(end))
        (void)cli_out_error(w->env, cli_job_problem(end, &err), &err, NULL), code = CLI_FAILED;
    else
        code = show(w, id);
    json_decref(end);
    return code;
}

static int compare(work *w) {
    const cli_options *o = w->env->opt;
    dr_error err = {0};
    json_t *job = NULL;
    char id[48];
    dr_status s = o->dataset ? DR_OK : send_all(w, &err);
    if (!s) s = hand_in(w, &job, &err);
    snprintf(id, sizeof id, "%.40s", cli_member(job, "id"));
    int code;
    if (s) {
        code = cli_out_error(w->env, s, &err, w->a);
    } else if (o->async) {
        code = o->json ? cli_out_json(job) : (printf("%s\n", id), cli_out_flush());
        if (!code && w->refused) code = CLI_FAILED;
    } else {
        code = wait_and_show(w, id);
    }
    json_decref(job);
    return code;
}

static dr_status check(const cli_env *env, dr_error *err) {
    const cli_options *o = env->opt;
    if (o->dataset ? env->n_args || o->pairs : !env->n_args)
        return dr_fail(err, DR_INVALID, "a comparison needs pictures or folders, or --dataset alone");
    if (o->out && !strcmp(o->out, "-"))
        return dr_fail(err, DR_INVALID, "standard output gets the table; -o names a file for the sheet");
    if (o->out && !dr_fs_is_dir(o->out) && dr_fs_exists(o->out) && !o->force)
        return dr_fail(err, DR_CONFLICT, "%s is there already: --force replaces it", o->out);
    return DR_OK;
}

int cli_compare(cli_env *env) {
    dr_error err = {0};
    cli_answer a = {.retry_after_s = -1};
    work w = {.env = env, .a = &a, .pictures = json_array()};
    if (check(env, &err)) {
        json_decref(w.pictures);
        return cli_out_usage(cli_command_find("compare"), &err);
    }
    dr_status s = w.pictures ? gather(&w, &err) : dr_fail(&err, DR_NOMEM, "out of memory");
    int code;
    if (s)
        code = cli_out_usage(cli_command_find("compare"), &err);
    else if ((s = cli_connect(env, &w.h, &err)))
        code = cli_out_error(env, s, &err, &a);
    else
        code = compare(&w);
    for (size_t i = 0; i < w.n; i++) {
        dr_free(w.items[i].path);
        dr_free(w.items[i].clean);
    }
    dr_free(w.items);
    json_decref(w.pictures);
    cli_answer_clear(&a);
    cli_http_close(w.h);
    return code;
}
