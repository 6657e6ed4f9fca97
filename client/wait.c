/* wait.c - see wait.h. */
#include "client/wait.h"
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include <stdio.h>
#include <string.h>
#include <time.h>

char *cli_job_path(const char *id, const char *tail) {
    char *e = cli_escape(id);
    if (!e) return NULL;
    size_t cap = strlen(e) + strlen(tail) + 16;
    char *p = dr_malloc(cap);
    if (p) snprintf(p, cap, "/v1/jobs/%s%s", e, tail);
    dr_free(e);
    return p;
}

static dr_status ask(cli_http *h, const cli_env *env, const char *id, const char *tail, const char *accept, int wait_s,
                     cli_file *keep, cli_answer *answer, dr_error *err) {
    char *path = cli_job_path(id, tail);
    if (!path) return dr_fail(err, DR_NOMEM, "out of memory");
    dr_status s =
        cli_http_do(h,
                    &(cli_call){.path = path,
                                .accept = accept,
                                .keep = keep,
                                .wait_ms = wait_s * 1000,
                                .deadline_ns = env->deadline_ns,
                                .tries_max = 10}, /* half a minute: a job outlives a restart of the service, so do we */
                    answer, err);
    dr_free(path);
    return s;
}

bool cli_job_final(const json_t *job) {
    const char *s = cli_member(job, "state");
    return strcmp(s, "succeeded") == 0 || strcmp(s, "failed") == 0 || strcmp(s, "cancelled") == 0 ||
           strcmp(s, "expired") == 0;
}

bool cli_job_good(const json_t *job) {
    return strcmp(cli_member(job, "state"), "succeeded") == 0;
}

dr_status cli_job_problem(const json_t *job, dr_error *err) {
    const json_t *p = json_object_get(job, "problem");
    const char *detail = cli_member(p, "detail"), *code = cli_member(p, "code"), *state = cli_member(job, "state");
    dr_status s = strcmp(state, "cancelled") == 0 ? DR_CANCELLED : strcmp(state, "expired") == 0 ? DR_BUSY : DR_INVALID;
    return dr_fail_as(err, s, *code ? code : "job_failed", "%.40s %s%s%.200s%s%s%s", cli_member(job, "id"), state,
                      *detail ? ": " : "", detail, *code ? " [" : "", code, *code ? "]" : "");
}

dr_status cli_job_fetch(cli_http *h, const cli_env *env, const char *id, json_t **ret, cli_answer *answer,
                        dr_error *err) {
    cli_answer own = {.retry_after_s = -1}, *a = answer ? answer : &own;
    dr_status s = ask(h, env, id, "", "application/json", 0, NULL, a, err);
    if (!s) s = cli_answer_json(a, ret, err);
    if (!answer) cli_answer_clear(&own);
    return s;
}

dr_status cli_job_result(cli_http *h, const cli_env *env, const char *id, cli_file *keep, cli_answer *answer,
                         dr_error *err) {
    return ask(h, env, id, "/result", "image/*", 0, keep, answer, err);
}

dr_status cli_job_wait(cli_http *h, const cli_env *env, const char *id, int poll_s, cli_on_job on_job, void *arg,
                       json_t **ret, cli_answer *answer, dr_error *err) {
    cli_answer a = {.retry_after_s = -1};
    dr_status s = DR_OK;
    json_t *job = NULL;
    while (!s) {
        /* the server's hold must end before our own deadline does, or the last state would never be seen */
        int64_t left_s = env->deadline_ns ? (env->deadline_ns - dr_clock_ns()) / 1000000000 : poll_s;
        int wait = left_s < 1 ? 0 : left_s < poll_s ? (int)left_s : poll_s;
        char tail[32];
        snprintf(tail, sizeof tail, "?wait=%d", wait);
        int64_t asked = dr_clock_ns();
        cli_answer_clear(&a);
        s = ask(h, env, id, tail, "application/json", wait, NULL, &a, err);
        if (!s) s = cli_answer_json(&a, &job, err);
        if (s) break;
        if (on_job) on_job(arg, job);
        if (cli_job_final(job)) break;
        json_decref(job);
        job = NULL;
        if (env->deadline_ns && dr_clock_ns() >= env->deadline_ns) {
            s = dr_fail_as(err, DR_BUSY, "timed_out", "the time given with --timeout is over; job %.40s goes on", id);
            break;
        }
        int64_t rest = asked + 200000000 - dr_clock_ns(); /* never more than five questions a second */
        if (rest > 0) nanosleep(&(struct timespec){.tv_nsec = (long)rest}, NULL);
    }
    if (answer)
        *answer = a;
    else
        cli_answer_clear(&a);
    if (!s) *ret = job;
    return s;
}

void cli_job_cancel_now(cli_http *h, const char *id) {
    char *path = cli_job_path(id, "/cancel");
    cli_answer a = {.retry_after_s = -1};
    dr_error err = {0};
    if (path && cli_http_do(h,
                            &(cli_call){.method = "POST",
                                        .path = path,
                                        .content_type = "application/json",
                                        .body = "{}",
                                        .body_len = 2,
                                        .deadline_ns = dr_clock_ns() + INT64_C(3000000000),
                                        .tries_max = 1,
                                        .ignore_stop = true},
                            &a, &err))
        fprintf(stderr, "derain: job %.40s could not be cancelled: %s\n", id, err.text);
    cli_answer_clear(&a);
    dr_free(path);
}
