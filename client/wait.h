/* wait.h - following a job to its end, fetching what it made, cancelling it. */
#ifndef CLI_WAIT_H
#define CLI_WAIT_H

#include "client/out.h"

typedef void (*cli_on_job)(void *arg, const json_t *job); /* called at each look at the job */

/* Long-poll until the job is final. OK also when it failed: look at its state. answer may be NULL; it receives the last
 * answer (also of an error) and is the caller's to clear. *ret is freed with json_decref. */
DR_MUSTUSE dr_status cli_job_wait(cli_http *h, const cli_env *env, const char *id, int poll_s, cli_on_job on_job,
                                  void *arg, json_t **ret, cli_answer *answer, dr_error *err);
DR_MUSTUSE dr_status cli_job_fetch(cli_http *h, const cli_env *env, const char *id, json_t **ret, cli_answer *answer,
                                   dr_error *err);
/* The picture goes to `keep` (answer->kept). */
DR_MUSTUSE dr_status cli_job_result(cli_http *h, const cli_env *env, const char *id, cli_file *keep, cli_answer *answer,
                                    dr_error *err);

bool cli_job_final(const json_t *job);
bool cli_job_good(const json_t *job); /* succeeded */
/* Why a job that ended otherwise did: "job_... failed: detail [code]". */
dr_status cli_job_problem(const json_t *job, dr_error *err);
/* A job's path with the id escaped: /v1/jobs/ID + tail. Caller frees. */
char *cli_job_path(const char *id, const char *tail);
/* Best effort after ^C, at most three seconds. */
void cli_job_cancel_now(cli_http *h, const char *id);

#endif
