/* compare_view.h - the report of a comparison as people read it. */
#ifndef CLI_COMPARE_VIEW_H
#define CLI_COMPARE_VIEW_H

#include "client/out.h"

/* Fetch a job's report. */
DR_MUSTUSE dr_status cli_compare_report(cli_http *h, const cli_env *env, const char *id, json_t **ret, cli_answer *a,
                                        dr_error *err);
/* Means of the columns, the sign tests and the conclusion to stdout, pictures that failed to stderr. */
int cli_compare_print(const cli_env *env, const json_t *report);

#endif
