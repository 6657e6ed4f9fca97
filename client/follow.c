/* follow.c - see follow.h. The events are asked for by number, so a broken connection loses none and shows none twice.
 */
#include "client/follow.h"
#include "client/wait.h"
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include <stdio.h>
#include <string.h>
#include <time.h>

typedef struct view {
    const cli_env *env;
    cli_progress progress;
    bool all;
    int64_t after;
    char losses[200]; /* "d_A_real 0.83  adv_A 0.2 ..." of the last metric */
} view;

static void losses_of(const json_t *data, char *ret, size_t cap) {
    const char *key;
    json_t *v;
    size_t n = 0;
    *ret = 0;
    json_object_foreach((json_t *)(uintptr_t)data, key, v) {
        if (!strcmp(key, "step") || !strcmp(key, "lr_factor") || !strcmp(key, "seconds_per_step")) continue;
        if (!strcmp(key, "skipped") && !json_integer_value(v)) continue;
        if (json_is_number(v) && n < cap)
            n += (size_t)snprintf(ret + n, cap - n, "%s%.24s %.3g", n ? "  " : "", key, json_number_value(v));
    }
}

static double number(const json_t *o, const char *name) {
    return json_number_value(json_object_get(o, name));
}

/* What a check of the gate measured, in a few words. */
static void measure_of(const json_t *check, char *ret, size_t cap) {
    const char *name = cli_member(check, "name");
    const json_t *parent = json_object_get(check, "fall_parent");
    if (!strcmp(name, "pairs"))
        snprintf(ret, cap, "PSNR-Y %.2f dB, SSIM-Y %.4f; %s: %.2f dB, %.4f; the input: %.2f dB, %.4f",
                 number(check, "psnr_y"), number(check, "ssim_y"), cli_member(check, "before"),
                 number(check, "psnr_y_before"), number(check, "ssim_y_before"), number(check, "psnr_y_input"),
                 number(check, "ssim_y_input"));
    else if (!strcmp(name, "transplant"))
        snprintf(ret, cap, "moved rain comes off: PSNR-Y %.2f dB, the parent's %.2f dB, the input's %.2f dB",
                 number(check, "psnr_y"), number(check, "psnr_y_before"), number(check, "psnr_y_input"));
    else if (!strcmp(name, "rain") && json_is_number(parent))
        snprintf(ret, cap, "the rain score falls from %.1f to %.1f, the parent's by %.1f", number(check, "rain_input"),
                 number(check, "rain_output"), json_number_value(parent));
    else if (!strcmp(name, "rain"))
        snprintf(ret, cap, "the rain score falls from %.1f to %.1f", number(check, "rain_input"),
                 number(check, "rain_output"));
    else if (!strcmp(name, "detail"))
        snprintf(ret, cap, "%.0f %% of the fine structure is kept", 100 * number(check, "kept"));
    else if (!strcmp(name, "clean"))
        snprintf(ret, cap, "clean pictures come back at %.1f dB", number(check, "psnr"));
    else if (!strcmp(name, "colour"))
        snprintf(ret, cap, "cast of %.1f grey levels, clean pictures shift by %.1f", number(check, "cast"),
                 number(check, "shift_clean"));
    else
        *ret = 0;
}

/* "gate: accepted, version 4, which serves now", then a line a check. */
static void print_gate(const json_t *data) {
    const char *verdict = cli_member(data, "verdict");
    const json_t *checks = json_object_get(data, "checks"), *c;
    size_t i;
    printf("gate: %s, version %lld%s\n", *verdict ? verdict : "no verdict",
           (long long)json_integer_value(json_object_get(data, "version")),
           json_is_true(json_object_get(data, "default")) ? ", which serves now" : "");
    json_array_foreach(json_object_get(data, "reasons"), i, c) {
        printf("    %s\n", json_string_value(c));
    }
    json_array_foreach(checks, i, c) {
        const json_t *ok = json_object_get(c, "ok");
        char text[200] = "";
        if (json_is_null(ok))
            snprintf(text, sizeof text, "%.120s", cli_member(c, "skipped"));
        else
            measure_of(c, text, sizeof text);
        const char *word = json_is_null(ok) ? "-" : json_is_true(ok) ? "ok" : "not ok";
        printf(*text ? "    %-10s %-6s  %s\n" : "    %-10s %s%s\n", cli_member(c, "name"), word, text);
    }
}

/* One event as a line for people. */
static void print_event(view *w, const json_t *e) {
    const json_t *data = json_object_get(e, "data");
    const char *type = cli_member(e, "type"), *at = cli_member(e, "at");
    long long step = (long long)json_integer_value(json_object_get(data, "step"));
    if (!strcmp(type, "metric")) {
        losses_of(data, w->losses, sizeof w->losses);
        if (!w->all) return;
    }
    if (!strcmp(type, "end")) return; /* the state before it says the same */
    cli_progress_clear(&w->progress);
    printf("%.10s %.8s  ", at, strlen(at) > 11 ? at + 11 : "");
    if (!strcmp(type, "metric"))
        printf("step %lld  %s\n", step, w->losses);
    else if (!strcmp(type, "state"))
        printf("%s\n", cli_member(data, "to"));
    else if (!strcmp(type, "log") && *cli_member(data, "message"))
        printf("%s%s\n", strcmp(cli_member(data, "level"), "warn") ? "" : "WARNING: ", cli_member(data, "message"));
    else if (!strcmp(type, "checkpoint"))
        printf("checkpoint of step %lld\n", step);
    else if (!strcmp(type, "progress"))
        printf("evaluation of step %lld: PSNR-Y %.3f dB%s\n", step, json_number_value(json_object_get(data, "psnr_y")),
               json_is_true(json_object_get(data, "best")) ? ", the best so far" : "");
    else if (!strcmp(type, "sample"))
        printf("sample of step %lld: %s\n", step, cli_member(data, "url"));
    else if (!strcmp(type, "gate"))
        print_gate(data);
    else {
        char *text = json_dumps(data, JSON_COMPACT);
        printf("%s %s\n", type, text ? text : "");
        free(text);
    }
}

/* All events after w->after. */
static dr_status read_events(cli_http *h, view *w, const char *id, cli_answer *a, dr_error *err) {
    bool more = true;
    dr_status s = DR_OK;
    while (more && !s) {
        char tail[64];
        json_t *o = NULL, *e;
        size_t i;
        snprintf(tail, sizeof tail, "/events?after=%lld", (long long)w->after);
        char *path = cli_job_path(id, tail);
        if (!path) return dr_fail(err, DR_NOMEM, "out of memory");
        cli_answer_clear(a);
        s = cli_http_do(h, &(cli_call){.path = path, .accept = "application/json", .deadline_ns = w->env->deadline_ns},
                        a, err);
        dr_free(path);
        if (!s) s = cli_answer_json(a, &o, err);
        if (s) break;
        json_array_foreach(json_object_get(o, "items"), i, e) {
            w->after = (int64_t)json_integer_value(json_object_get(e, "seq"));
            if (!w->env->opt->json)
                print_event(w, e);
            else if (cli_out_json(e))
                s = dr_fail(err, DR_IO, "standard output is closed");
        }
        more = json_is_true(json_object_get(o, "more"));
        json_decref(o);
        fflush(stdout);
    }
    return s;
}

static void draw(view *w, const json_t *job) {
    const json_t *t = json_object_get(job, "training");
    char line[320], left[32] = "";
    if (json_is_number(json_object_get(job, "eta_s")))
        cli_text_seconds(json_number_value(json_object_get(job, "eta_s")), left);
    snprintf(line, sizeof line, "step %lld/%lld%s%s  %s", (long long)json_integer_value(json_object_get(t, "step")),
             (long long)json_integer_value(json_object_get(t, "steps")), *left ? ", left " : "", left, w->losses);
    cli_progress_training(&w->progress, cli_member(job, "state"), json_number_value(json_object_get(job, "progress")),
                          line);
}

dr_status cli_follow_training(cli_http *h, const cli_env *env, const char *id, int64_t after, bool all, bool live,
                              bool once, json_t **ret, cli_answer *answer, dr_error *err) {
    view w = {.env = env, .all = all, .after = after};
    json_t *job = NULL;
    dr_status s = DR_OK;
    bool end = false;
    cli_progress_init(&w.progress, env);
    w.progress.on = w.progress.on && live && !env->opt->json;
    while (!s && !end) {
        json_decref(job); /* the job first: what was written before it ended is found by the second look */
        job = NULL;
        cli_answer_clear(answer);
        s = cli_job_fetch(h, env, id, &job, answer, err);
        end = once || (!s && cli_job_final(job));
        if (!s) s = read_events(h, &w, id, answer, err);
        if (s || end) break;
        draw(&w, job);
        if (env->deadline_ns && dr_clock_ns() >= env->deadline_ns)
            s = dr_fail_as(err, DR_BUSY, "timed_out", "the time given with --timeout is over; job %.40s goes on", id);
        if (!s && atomic_load(&cli_stop)) s = dr_fail_as(err, DR_CANCELLED, "interrupted", "interrupted");
        if (!s) nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
    }
    cli_progress_clear(&w.progress);
    if (s)
        json_decref(job);
    else
        *ret = job;
    return s;
}
