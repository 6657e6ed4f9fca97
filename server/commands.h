/* commands.h - the subcommands of deraind. Each takes its own name as argv[0], parses its options with server/opts.h
 * and returns the process's exit code: 0 done, 1 failed, 2 wrong usage. Results go to stdout, talk and errors to
 * stderr. */
#ifndef SRV_COMMANDS_H
#define SRV_COMMANDS_H

#include "core/base/status.h"

enum { SRV_EXIT_OK, SRV_EXIT_FAILED, SRV_EXIT_USAGE };

int srv_cmd_serve(int argc, char **argv);
int srv_cmd_run(int argc, char **argv);
int srv_cmd_eval(int argc, char **argv);
int srv_cmd_train(int argc, char **argv);
int srv_cmd_bench(int argc, char **argv);
int srv_cmd_tune(int argc, char **argv);
int srv_cmd_score(int argc, char **argv);
int srv_cmd_model(int argc, char **argv);

/* "deraind run: what happened (limit 5, actual 7, setting mem_budget)" on stderr; returns SRV_EXIT_FAILED. */
int srv_cmd_fail(const char *command, const dr_error *err);

#endif
