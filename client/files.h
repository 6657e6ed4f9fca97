/* files.h - pictures on their way between disk and service: sent from the file, received into a file, never held whole.
 *
 * What comes in goes to a file under another name beside its place (without a place: to a file without a name) and gets
 * its name only when it is whole and checked. What cannot be read twice (a pipe) is copied to a file without a name
 * first, so that a try can be repeated. Files without names lie in $TMPDIR, else /tmp. */
#ifndef CLI_FILES_H
#define CLI_FILES_H

#include "client/http.h"

/* path, or "-" for standard input. NOT_FOUND, INVALID (a folder), what the file system says; CANCELLED on ^C. */
DR_MUSTUSE dr_status cli_input_open(const char *path, cli_file *ret, dr_error *err);
void cli_input_close(cli_file *f);
DR_MUSTUSE dr_status cli_input_sha256(const cli_file *f, char ret[65], dr_error *err);

typedef struct cli_output {
    cli_file file; /* for cli_call.keep */
    char *tmp;     /* its name for now; NULL = none */
} cli_output;
/* near: the path that it will probably get, which says in which folder it lies; NULL = it gets none. */
DR_MUSTUSE dr_status cli_output_open(const char *near, cli_output *ret, dr_error *err);
/* Make it durable as `path`, in the folder of `near`; what was there is replaced. */
DR_MUSTUSE dr_status cli_output_name(cli_output *o, const char *path, dr_error *err);
bool cli_output_print(const cli_output *o); /* to standard output; false: it took not all of it */
size_t cli_output_head(const cli_output *o, void *ret, size_t max); /* its first bytes */
void cli_output_close(cli_output *o);                               /* what has no name by now is gone */

#endif
