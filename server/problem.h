/* problem.h - every error the service can answer: one table of stable codes with HTTP status, title and explanation,
 * and the RFC 9457 object made from it. Job failures store the very same object.
 *
 * Causes of kind 500 show no inner text: the detail goes to the log, the answer names the incident (the request id). */
#ifndef SRV_PROBLEM_H
#define SRV_PROBLEM_H

#include "core/base/status.h"
#include "db/ulid.h"
#include <jansson.h>
#include <stdbool.h>

typedef struct srv_problem_row {
    const char *code; /* snake_case, stable */
    int status;
    bool retryable;
    const char *title, *explain; /* explain: for the page /errors/{code} */
} srv_problem_row;

extern const srv_problem_row srv_problem_rows[];
extern const size_t srv_n_problem_rows;
const srv_problem_row *srv_problem_find(const char *code); /* NULL when there is none; '-' counts as '_' */

typedef struct srv_problem {
    const srv_problem_row *row;
    char detail[320], setting[32], job[DB_ID], pointer[64];
    bool has_limit;
    int64_t limit, actual;
    int retry_after_s; /* 0 = none */
} srv_problem;

void srv_problem_make(srv_problem *p, const char *code, const char *fmt, ...) DR_PRINTF(3, 4);
/* From a failed call: err->what when the table knows it, else a row by status. */
void srv_problem_from(srv_problem *p, dr_status s, const dr_error *err);
/* The same inside a list: which parameter or member is meant ("/query/depth"). */
void srv_problem_point(srv_problem *p, const char *pointer);

/* New reference, NULL without memory. request_id may be NULL (a job's own failure without a request). */
json_t *srv_problem_json(const srv_problem *p, const char *request_id);
char *srv_problem_text(const srv_problem *p, const char *request_id); /* caller frees with dr_free */

/* A problem that was stored with a job, made complete: every member is there, `job` is set. A text that is none gives
 * "internal". New reference, NULL without memory. */
json_t *srv_problem_stored(const char *text, const char *job);

#endif
