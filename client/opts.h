/* opts.h - command lines as tables: parsing, --help, shell completion, and the configuration file.
 *
 * "--name value", "--name=value", "-o value", "-ovalue", flags joined as "-fj", "--" ends the options, options and
 * operands mix, "-" is an operand. Values are strict: the whole text, within bounds, one of the choices. */
#ifndef CLI_OPTS_H
#define CLI_OPTS_H

#include "client/cli.h"

typedef enum cli_kind { CLI_FLAG, CLI_TEXT, CLI_INT, CLI_SECONDS, CLI_MANY } cli_kind; /* MANY: a text each time */

struct cli_opt {
    const char *name; /* NULL ends a table */
    char letter;      /* 0 = none */
    cli_kind kind;
    size_t to; /* offset in cli_options: bool, const char *, int, int64_t, cli_words */
    const char *arg, *help;
    const char *choices; /* TEXT: "png|jpeg"; NULL = any */
    int min, max;        /* INT */
};

extern const cli_opt cli_common_opts[];

/* argv[0] is the command. On success ret_args (room for argc pointers) holds the operands, borrowed from argv.
 * INVALID with one line for a person otherwise. With --help among the options the number of operands is not checked. */
DR_MUSTUSE dr_status cli_opts_parse(const cli_command *cmd, int argc, char **argv, cli_options *ret, char **ret_args,
                                    int *ret_n, dr_error *err);
const cli_command *cli_command_find(const char *name); /* NULL: no such command */

char *cli_help(const cli_command *cmd); /* of one command, NULL = of the program; caller frees, NULL without memory */
char *cli_bash_completion(void);        /* the same */

typedef struct cli_config {
    char *url, *key; /* owned; NULL = not set */
} cli_config;

/* "key = value" lines, # comments; keys: url, key. Errors name the line. A missing file is fine where `must` is false.
 */
DR_MUSTUSE dr_status cli_config_read(const char *path, bool must, cli_config *ret, dr_error *err);
void cli_config_clear(cli_config *c);
char *cli_config_path(void); /* $XDG_CONFIG_HOME/derain.conf, else ~/.config/derain.conf; NULL: neither */

#endif
