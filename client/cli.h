/* cli.h - what the commands of `derain` share: the options, the exit codes, the table of commands.
 *
 * Results go to stdout (people's tables, or JSON with --json), talk, progress and errors to stderr. A command returns
 * its exit code; only main() ends the process. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include "client/http.h"
#include "core/base/status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    CLI_OK,          /* done */
    CLI_FAILED,      /* the job failed, or something on this side did */
    CLI_USAGE,       /* wrong options or arguments */
    CLI_UNREACHABLE, /* no server there */
    CLI_REFUSED,     /* the server said no: key, limits, unknown id, wrong state */
    CLI_TIMED_OUT    /* --timeout has passed, or the server's own limit on waiting */
};

enum { CLI_WORDS_MAX = 32 };
typedef struct cli_words { /* of an option that may be given again and again */
    const char *v[CLI_WORDS_MAX];
    int n;
} cli_words;

/* One struct for all commands; each command's table says which of these it takes. */
typedef struct cli_options {
    const char *url, *key_file;
    bool json, quiet, help;
    int64_t timeout_s; /* 0 = no limit */
    const char *out, *format, *depth, *metadata, *model, *state, *type, *label, *reason;
    bool force, async, all, wait, dry_run;
    int limit, parallel;
    const char *rainy, *clean, *paired, *dataset, *name, *preset, *parent; /* train */
    bool follow, set_aside;
    const char *versions, *pairs; /* compare */
    int steps, crop, batch, seed, eval_every, threads;
    int64_t budget_s;
    cli_words set; /* NAME=VALUE */
} cli_options;

typedef struct cli_env {
    const cli_options *opt;
    const char *url, *key; /* settled: file < environment < flags. key NULL = none */
    int64_t deadline_ns;   /* of the whole command on the monotonic clock; 0 = none */
    char **args;           /* operands */
    int n_args;
} cli_env;

typedef struct cli_opt cli_opt;
typedef struct cli_command {
    const char *name, *args, *what; /* "put", "FILE|DIR|-", one line */
    const char *more;               /* further text for --help, lines end with \n; may be NULL */
    const cli_opt *opts;            /* besides the common ones; NULL name ends */
    int args_min, args_max;
    int (*run)(cli_env *env);
} cli_command;

extern const cli_command cli_commands[]; /* NULL name ends */

int cli_put(cli_env *env);
int cli_jobs(cli_env *env);
int cli_show(cli_env *env);
int cli_watch(cli_env *env);
int cli_get(cli_env *env);
int cli_cancel(cli_env *env);
int cli_train(cli_env *env);
int cli_logs(cli_env *env);
int cli_pause(cli_env *env);
int cli_resume(cli_env *env);
int cli_publish(cli_env *env);
int cli_datasets(cli_env *env);
int cli_compare(cli_env *env);
int cli_models(cli_env *env);
int cli_use(cli_env *env);
int cli_rollback(cli_env *env);
int cli_doctor(cli_env *env);
int cli_completion(cli_env *env);

DR_MUSTUSE dr_status cli_connect(const cli_env *env, cli_http **ret, dr_error *err); /* with the settled URL and key */
const char *cli_version(void);
const char *cli_commit(void);

#endif
