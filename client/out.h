/* out.h - what people and scripts see: tables, JSON, a progress line on a terminal. */
#ifndef CLI_OUT_H
#define CLI_OUT_H

#include "client/cli.h"
#include <jansson.h>

/* Errors on stderr: "derain: words". Returns the exit code that fits; `a` (may be NULL) gives the HTTP status. With
 * --json the problem object of the answer, or one made from err, goes to stdout as well. */
int cli_out_error(const cli_env *env, dr_status s, const dr_error *err, const cli_answer *a);
int cli_out_usage(const cli_command *cmd, const dr_error *err);              /* CLI_USAGE */
void cli_out_note(const cli_env *env, const char *fmt, ...) DR_PRINTF(2, 3); /* a remark on stderr unless --quiet */
int cli_out_json(const json_t *o); /* to stdout with a line break; CLI_FAILED when stdout is broken */
int cli_out_flush(void);           /* CLI_FAILED and words when stdout could not take it all */

/* An aligned table: rows x n_cols texts, first row the headings. Columns are as wide as their widest text. */
void cli_out_table(const char *const *cells, size_t n_rows, size_t n_cols);

typedef struct cli_progress {
    bool on; /* a terminal, and not --quiet */
    int64_t start_ns, drawn_ns;
} cli_progress;
void cli_progress_init(cli_progress *p, const cli_env *env);
/* "[=====>    ] 12/40 pictures, 1 failed, 0.8/s, 35 s left  name". Redrawn at most ten times a second unless `now`. */
void cli_progress_files(cli_progress *p, size_t done, size_t total, size_t failed, const char *name, bool now);
void cli_progress_job(cli_progress *p, const char *state, double fraction, int64_t queue_position);
/* "[==>   ] running  step 12/100, left 3 min, d_A_real 0.8 ..." */
void cli_progress_training(cli_progress *p, const char *state, double fraction, const char *text);
void cli_progress_clear(cli_progress *p); /* before other words go to the terminal, and at the end */

/* For tables and remarks. ret has 32 bytes. */
void cli_text_bytes(double n, char ret[32]);               /* "1.2 MB" */
void cli_text_seconds(double s, char ret[32]);             /* "0.42 s", "3 min 10 s", "2 h 05 min" */
const char *cli_member(const json_t *o, const char *name); /* text of a string member, else "" */

/* An answer's body as JSON object; CORRUPT "bad_answer" when it is none. Free with json_decref. */
DR_MUSTUSE dr_status cli_answer_json(const cli_answer *a, json_t **ret, dr_error *err);

#endif
