/* opts.c - see opts.h. Help, completion and parsing read the same tables, so they cannot disagree. */
#include "client/opts.h"
#include "core/base/alloc.h"
#include "core/base/buf.h"
#include "core/base/fs.h"
#include "core/base/parse.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AT(field) offsetof(cli_options, field)

const cli_opt cli_common_opts[] = {
    {.name = "url",
     .kind = CLI_TEXT,
     .to = AT(url),
     .arg = "URL",
     .help = "the service [http://127.0.0.1:8650, DERAIN_URL]"},
    {.name = "key-file",
     .kind = CLI_TEXT,
     .to = AT(key_file),
     .arg = "FILE",
     .help = "file with the access key [DERAIN_KEY]"},
    {.name = "timeout",
     .kind = CLI_SECONDS,
     .to = AT(timeout_s),
     .arg = "TIME",
     .help = "give up after 90, 90s, 15m, 2h [never]"},
    {.name = "json", .kind = CLI_FLAG, .to = AT(json), .help = "print JSON instead of text"},
    {.name = "quiet",
     .letter = 'q',
     .kind = CLI_FLAG,
     .to = AT(quiet),
     .help = "no progress and no remarks, errors only"},
    {.name = "help", .letter = 'h', .kind = CLI_FLAG, .to = AT(help), .help = "this text"},
    {0},
};

static const cli_opt put_opts[] = {
    {.name = "output",
     .letter = 'o',
     .kind = CLI_TEXT,
     .to = AT(out),
     .arg = "PATH",
     .help = "file or folder for the result, - for stdout [STEM.derained.png]"},
    {.name = "async", .letter = 'a', .kind = CLI_FLAG, .to = AT(async), .help = "hand in only, print the job's id"},
    {.name = "force", .letter = 'f', .kind = CLI_FLAG, .to = AT(force), .help = "replace files that exist"},
    {.name = "format",
     .kind = CLI_TEXT,
     .to = AT(format),
     .arg = "FORMAT",
     .choices = "png|jpeg",
     .help = "of the result: png or jpeg [png]"},
    {.name = "depth",
     .kind = CLI_TEXT,
     .to = AT(depth),
     .arg = "BITS",
     .choices = "auto|8|16",
     .help = "of the result: auto, 8 or 16 bit [auto]"},
    {.name = "metadata",
     .kind = CLI_TEXT,
     .to = AT(metadata),
     .arg = "WHAT",
     .choices = "keep|strip",
     .help = "keep or strip ICC, EXIF, resolution [keep]"},
    {.name = "model",
     .letter = 'm',
     .kind = CLI_TEXT,
     .to = AT(model),
     .arg = "NAME[:V]",
     .help = "model and version [the service's default]"},
    {.name = "parallel",
     .letter = 'j',
     .kind = CLI_INT,
     .to = AT(parallel),
     .arg = "N",
     .min = 1,
     .max = 16,
     .help = "pictures of a folder in flight at once [3]"},
    {.name = "dry-run", .letter = 'n', .kind = CLI_FLAG, .to = AT(dry_run), .help = "only say what would be done"},
    {0},
};
static const cli_opt jobs_opts[] = {
    {.name = "state",
     .kind = CLI_TEXT,
     .to = AT(state),
     .arg = "STATE",
     .choices = "queued|running|validating|paused|evaluating|gated|succeeded|failed|cancelled|expired",
     .help = "only jobs in this state"},
    {.name = "type",
     .kind = CLI_TEXT,
     .to = AT(type),
     .arg = "TYPE",
     .help = "only jobs of this type (derain, train, compare)"},
    {.name = "label", .kind = CLI_TEXT, .to = AT(label), .arg = "KEY[=VALUE]", .help = "only jobs with this label"},
    {.name = "model",
     .letter = 'm',
     .kind = CLI_TEXT,
     .to = AT(model),
     .arg = "NAME[:V]",
     .help = "only jobs of this model"},
    {.name = "limit", .kind = CLI_INT, .to = AT(limit), .arg = "N", .min = 1, .max = 500, .help = "jobs a page [50]"},
    {.name = "all", .kind = CLI_FLAG, .to = AT(all), .help = "all pages, not only the first"},
    {0},
};
static const cli_opt get_opts[] = {
    {.name = "output",
     .letter = 'o',
     .kind = CLI_TEXT,
     .to = AT(out),
     .arg = "PATH",
     .help = "file or folder, - for stdout [ID.png]"},
    {.name = "force", .letter = 'f', .kind = CLI_FLAG, .to = AT(force), .help = "replace a file that exists"},
    {.name = "wait", .letter = 'w', .kind = CLI_FLAG, .to = AT(wait), .help = "wait until the job has ended"},
    {0},
};
static const cli_opt cancel_opts[] = {
    {.name = "reason", .kind = CLI_TEXT, .to = AT(reason), .arg = "TEXT", .help = "kept with the job"},
    {0},
};
static const cli_opt train_opts[] = {
    {.name = "rainy", .kind = CLI_TEXT, .to = AT(rainy), .arg = "DIR", .help = "rainy pictures"},
    {.name = "clean", .kind = CLI_TEXT, .to = AT(clean), .arg = "DIR", .help = "clean pictures, of other scenes"},
    {.name = "paired",
     .kind = CLI_TEXT,
     .to = AT(paired),
     .arg = "DIR",
     .help = "pairs that are held out, in DIR/rainy and DIR/clean"},
    {.name = "dataset",
     .kind = CLI_TEXT,
     .to = AT(dataset),
     .arg = "ID",
     .help = "a data set that is there already, instead of folders"},
    {.name = "set-aside",
     .kind = CLI_FLAG,
     .to = AT(set_aside),
     .help = "leave bad pictures out instead of refusing them"},
    {.name = "name",
     .kind = CLI_TEXT,
     .to = AT(name),
     .arg = "TEXT",
     .help = "of the data set, and a label of the job"},
    {.name = "parent",
     .kind = CLI_TEXT,
     .to = AT(parent),
     .arg = "NAME[/V]",
     .help = "model to go on from, none = from nothing [the one in use]"},
    {.name = "preset",
     .kind = CLI_TEXT,
     .to = AT(preset),
     .arg = "NAME",
     .help = "objective: released, full or product [product]",
     .choices = "released|full|product"},
    {.name = "steps",
     .kind = CLI_INT,
     .to = AT(steps),
     .arg = "N",
     .help = "optimisation steps [2000]",
     .min = 1,
     .max = 100000000},
    {.name = "time", .kind = CLI_SECONDS, .to = AT(budget_s), .arg = "TIME", .help = "end when so much was spent"},
    {.name = "crop",
     .kind = CLI_INT,
     .to = AT(crop),
     .arg = "N",
     .help = "side of the training pictures",
     .min = 64,
     .max = 2048},
    {.name = "batch",
     .kind = CLI_INT,
     .to = AT(batch),
     .arg = "N",
     .help = "pictures of each side a step",
     .min = 1,
     .max = 64},
    {.name = "seed",
     .kind = CLI_INT,
     .to = AT(seed),
     .arg = "N",
     .help = "of pictures and weights [1]",
     .min = 1,
     .max = 100000000},
    {.name = "eval-every",
     .kind = CLI_INT,
     .to = AT(eval_every),
     .arg = "N",
     .help = "steps between evaluations [a tenth]",
     .min = 1,
     .max = 100000000},
    {.name = "threads",
     .kind = CLI_INT,
     .to = AT(threads),
     .arg = "N",
     .help = "of the training [those of the service]",
     .min = 1,
     .max = 1024},
    {.name = "set",
     .kind = CLI_MANY,
     .to = AT(set),
     .arg = "NAME=VALUE",
     .help = "any other member of a training job, again and again: lr=1e-4, gate.clean_psnr_min=35"},
    {.name = "follow", .kind = CLI_FLAG, .to = AT(follow), .help = "watch it until it has ended"},
    {0},
};
static const cli_opt logs_opts[] = {
    {.name = "follow", .letter = 'f', .kind = CLI_FLAG, .to = AT(follow), .help = "go on until the job has ended"},
    {.name = "all", .kind = CLI_FLAG, .to = AT(all), .help = "the losses too"},
    {0},
};
static const cli_opt use_opts[] = {
    {.name = "force", .letter = 'f', .kind = CLI_FLAG, .to = AT(force), .help = "even a version that was rejected"},
    {0},
};
static const cli_opt compare_opts[] = {
    {.name = "versions",
     .kind = CLI_TEXT,
     .to = AT(versions),
     .arg = "A/1,B/2",
     .help = "two to six of them [the one in use and the one before]"},
    {.name = "pairs",
     .kind = CLI_TEXT,
     .to = AT(pairs),
     .arg = "DIR",
     .help = "the same pictures without rain, named alike"},
    {.name = "dataset",
     .kind = CLI_TEXT,
     .to = AT(dataset),
     .arg = "ID",
     .help = "a data set that is there already, instead of pictures"},
    {.name = "output",
     .letter = 'o',
     .kind = CLI_TEXT,
     .to = AT(out),
     .arg = "PATH",
     .help = "file or folder for the sheet [ID.png]"},
    {.name = "force", .letter = 'f', .kind = CLI_FLAG, .to = AT(force), .help = "replace a file that exists"},
    {.name = "name", .kind = CLI_TEXT, .to = AT(name), .arg = "TEXT", .help = "a label of the job"},
    {.name = "async", .letter = 'a', .kind = CLI_FLAG, .to = AT(async), .help = "hand in only, print the job's id"},
    {0},
};
static const cli_opt publish_opts[] = {
    {.name = "reason", .kind = CLI_TEXT, .to = AT(reason), .arg = "TEXT", .help = "kept in the version's card"},
    {0},
};
static const cli_opt no_opts[] = {{0}};

const cli_command cli_commands[] = {
    {"put", "FILE|DIR|-", "derain a picture, or every picture of a folder",
     "The result of FILE is STEM.derained.png beside it, that of - (stdin) goes to stdout. A folder is done with "
     "several\n"
     "pictures in flight; what has a result already is skipped, what fails does not stop the rest.\n",
     put_opts, 1, 1, cli_put},
    {"jobs", "", "list jobs, newest first", NULL, jobs_opts, 0, 0, cli_jobs},
    {"show", "ID", "show a job", NULL, no_opts, 1, 1, cli_show},
    {"watch", "ID", "wait until a job has ended, with progress", NULL, no_opts, 1, 1, cli_watch},
    {"get", "ID", "fetch the picture a job made", NULL, get_opts, 1, 1, cli_get},
    {"cancel", "ID", "cancel a job that waits or runs", NULL, cancel_opts, 1, 1, cli_cancel},
    {"train", "", "fine-tune the model with pictures of one's own",
     "The pictures go up as a data set: only those that the service does not have are sent. Without --follow the job's "
     "id\n"
     "is printed and the training runs on its own, beside the derain requests.\n",
     train_opts, 0, 0, cli_train},
    {"logs", "ID", "what happened to a job", NULL, logs_opts, 1, 1, cli_logs},
    {"pause", "ID", "pause a training", NULL, no_opts, 1, 1, cli_pause},
    {"resume", "ID", "go on with a paused training", NULL, no_opts, 1, 1, cli_resume},
    {"publish", "ID [STEP]", "make a checkpoint of a training a version of its model",
     "Without STEP it is the checkpoint with the best score, else the last one. The training may still be running.\n",
     publish_opts, 1, 2, cli_publish},
    {"datasets", "[ID]", "list data sets, or show the report of one", NULL, no_opts, 0, 1, cli_datasets},
    {"compare", "PATH...", "try versions of models on pictures of one's own",
     "Each picture goes through each version; what comes out is measured and put side by side on a sheet. With "
     "--pairs\n"
     "PSNR and SSIM say which is better, without it the rain score; a sign test over the pictures says whether that "
     "can\n"
     "be chance. Pictures go up by content: only those that the service does not have are sent.\n",
     compare_opts, 0, 10000, cli_compare},
    {"models", "", "list the versions of models that the service has", NULL, no_opts, 0, 0, cli_models},
    {"use", "NAME VERSION", "make a version the one that serves",
     "It is loaded beside the old one, which serves until the new one is ready. A version that the gate has rejected\n"
     "needs --force.\n",
     use_opts, 2, 2, cli_use},
    {"rollback", "[NAME]", "go back to the version that served before", NULL, no_opts, 0, 1, cli_rollback},
    {"doctor", "", "check the way to the service and back, and say what to do", NULL, no_opts, 0, 0, cli_doctor},
    {"completion", "", "print the completion script for bash", NULL, no_opts, 0, 0, cli_completion},
    {0},
};

const cli_command *cli_command_find(const char *name) {
    for (const cli_command *c = cli_commands; c->name; c++)
        if (strcmp(c->name, name) == 0) return c;
    return NULL;
}

/* --- parsing
 * -------------------------------------------------------------------------------------------------------------- */

static const cli_opt *find(const cli_command *cmd, const char *name, size_t len, char letter) {
    const cli_opt *tables[] = {cmd->opts, cli_common_opts};
    for (int t = 0; t < 2; t++)
        for (const cli_opt *o = tables[t]; o && o->name; o++)
            if (name ? strlen(o->name) == len && memcmp(o->name, name, len) == 0 : o->letter == letter) return o;
    return NULL;
}

static bool is_choice(const char *choices, const char *v) {
    size_t n = strlen(v);
    for (const char *p = choices; *p;) {
        size_t len = strcspn(p, "|");
        if (len == n && memcmp(p, v, n) == 0) return true;
        p += len + (p[len] == '|');
    }
    return false;
}

static dr_status set(const cli_opt *o, const char *v, cli_options *ret, dr_error *err) {
    char *to = (char *)ret + o->to;
    switch (o->kind) {
    case CLI_FLAG:
        *(bool *)to = true;
        return DR_OK;
    case CLI_TEXT:
        if (!*v) return dr_fail(err, DR_INVALID, "--%s needs a value", o->name);
        if (o->choices && !is_choice(o->choices, v))
            return dr_fail(err, DR_INVALID, "--%s is one of %s, not '%s'", o->name, o->choices, v);
        *(const char **)to = v;
        return DR_OK;
    case CLI_INT:
        if (!dr_parse_int(v, o->min, o->max, (int *)to))
            return dr_fail(err, DR_INVALID, "--%s is a number from %d to %d, not '%s'", o->name, o->min, o->max, v);
        return DR_OK;
    case CLI_SECONDS:
        if (!dr_parse_seconds(v, INT64_C(31536000), (int64_t *)to) || *(int64_t *)to < 1)
            return dr_fail(err, DR_INVALID, "--%s is a time such as 90s, 15m or 2h, not '%s'", o->name, v);
        return DR_OK;
    case CLI_MANY: {
        cli_words *w = (cli_words *)(void *)to;
        if (!*v) return dr_fail(err, DR_INVALID, "--%s needs a value (%s)", o->name, o->arg);
        if (w->n == CLI_WORDS_MAX)
            return dr_fail(err, DR_INVALID, "--%s can be given %d times", o->name, CLI_WORDS_MAX);
        w->v[w->n++] = v;
        return DR_OK;
    }
    }
    return DR_OK;
}

dr_status cli_opts_parse(const cli_command *cmd, int argc, char **argv, cli_options *ret, char **ret_args, int *ret_n,
                         dr_error *err) {
    cli_options got = {0};
    int n = 0;
    bool only_operands = false;
    dr_status s;
    for (int i = 1; i < argc; i++) {
        char *a = argv[i];
        if (only_operands || a[0] != '-' || !a[1]) {
            ret_args[n++] = a;
        } else if (strcmp(a, "--") == 0) {
            only_operands = true;
        } else if (a[1] == '-') {
            const char *eq = strchr(a, '=');
            const cli_opt *o = find(cmd, a + 2, eq ? (size_t)(eq - a - 2) : strlen(a + 2), 0);
            if (!o) return dr_fail(err, DR_INVALID, "there is no option %s", a);
            if (o->kind == CLI_FLAG && eq) return dr_fail(err, DR_INVALID, "--%s takes no value", o->name);
            if (o->kind != CLI_FLAG && !eq && ++i == argc)
                return dr_fail(err, DR_INVALID, "--%s needs a value (%s)", o->name, o->arg);
            if ((s = set(o, eq ? eq + 1 : argv[i], &got, err))) return s;
        } else {
            for (char *p = a + 1; *p; p++) {
                const cli_opt *o = find(cmd, NULL, 0, *p);
                if (!o) return dr_fail(err, DR_INVALID, "there is no option -%c", *p);
                if (o->kind == CLI_FLAG) {
                    if ((s = set(o, NULL, &got, err))) return s;
                    continue;
                }
                if (!p[1] && ++i == argc) return dr_fail(err, DR_INVALID, "-%c needs a value (%s)", *p, o->arg);
                if ((s = set(o, p[1] ? p + 1 : argv[i], &got, err))) return s;
                break;
            }
        }
    }
    if (!got.help && n < cmd->args_min) return dr_fail(err, DR_INVALID, "%s is missing", cmd->args);
    if (!got.help && n > cmd->args_max)
        return dr_fail(err, DR_INVALID, "one argument too many: '%s'", ret_args[cmd->args_max]);
    *ret = got;
    *ret_n = n;
    return DR_OK;
}

/* --- help and completion
 * ---------------------------------------------------------------------------------------------------- */

static void help_opts(dr_buf *b, const cli_opt *o) {
    for (; o && o->name; o++) {
        char left[64];
        snprintf(left, sizeof left, "%c%c%s --%s%s%s", o->letter ? '-' : ' ', o->letter ? o->letter : ' ',
                 o->letter ? "," : " ", o->name, o->arg ? " " : "", o->arg ? o->arg : "");
        dr_buf_printf(b, "  %-28s %s\n", left, o->help);
    }
}

char *cli_help(const cli_command *cmd) {
    dr_buf b;
    dr_buf_init(&b, 1 << 16);
    if (cmd) {
        dr_buf_printf(&b, "derain %s [OPTIONS]%s%s\n\n%c%s.\n", cmd->name, *cmd->args ? " " : "", cmd->args,
                      toupper((unsigned char)cmd->what[0]), cmd->what + 1);
        if (cmd->more) dr_buf_printf(&b, "%s", cmd->more);
        dr_buf_puts(&b, "\n");
        help_opts(&b, cmd->opts);
        help_opts(&b, cli_common_opts);
    } else {
        dr_buf_puts(
            &b,
            "derain COMMAND [OPTIONS] [ARGUMENTS]\n\nTakes rain out of photographs, through a deraind service.\n\n");
        for (const cli_command *c = cli_commands; c->name; c++) {
            char left[48];
            snprintf(left, sizeof left, "%s%s%s", c->name, *c->args ? " " : "", c->args);
            dr_buf_printf(&b, "  %-16s %s\n", left, c->what);
        }
        dr_buf_puts(&b, "\nderain COMMAND --help tells more; derain --version says what this is.\n\n"
                        "The service is found by --url, else DERAIN_URL, else `url = ...` in derain.conf, else\n"
                        "http://127.0.0.1:8650; the key by --key-file, DERAIN_KEY or `key = ...`.\n"
                        "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no server reached, 4 refused, 5 timed out.\n");
    }
    char *text = dr_buf_detach(&b, NULL);
    dr_buf_done(&b);
    return text;
}

static void completion_words(dr_buf *b, const cli_opt *o) {
    for (; o && o->name; o++) dr_buf_printf(b, " --%s", o->name);
}

static void completion_choices(dr_buf *b, const cli_opt *o) {
    for (; o && o->name; o++) {
        if (!o->choices) continue;
        dr_buf_printf(b, "    --%s) COMPREPLY=($(compgen -W '", o->name);
        for (const char *p = o->choices; *p; p++) dr_buf_printf(b, "%c", *p == '|' ? ' ' : *p);
        dr_buf_puts(b, "' -- \"$cur\")); return ;;\n");
    }
}

char *cli_bash_completion(void) {
    dr_buf b;
    dr_buf_init(&b, 1 << 16);
    dr_buf_puts(&b, "# bash completion for derain, printed by `derain completion`\n"
                    "_derain() {\n"
                    "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} cmd=${COMP_WORDS[1]}\n"
                    "    COMPREPLY=()\n"
                    "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
                    "        COMPREPLY=($(compgen -W '");
    for (const cli_command *c = cli_commands; c->name; c++) dr_buf_printf(&b, "%s ", c->name);
    dr_buf_puts(&b, "--help --version' -- \"$cur\")); return\n    fi\n    case $prev in\n");
    for (const cli_command *c = cli_commands; c->name; c++) completion_choices(&b, c->opts);
    dr_buf_puts(&b, "    -o|--output|--key-file) COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n"
                    "    esac\n    case $cmd:$cur in\n");
    for (const cli_command *c = cli_commands; c->name; c++) {
        dr_buf_printf(&b, "    %s:-*) COMPREPLY=($(compgen -W '", c->name);
        completion_words(&b, c->opts);
        completion_words(&b, cli_common_opts);
        dr_buf_puts(&b, "' -- \"$cur\")) ;;\n");
    }
    dr_buf_puts(&b, "    put:*|compare:*) COMPREPLY=($(compgen -f -- \"$cur\")) ;;\n"
                    "    show:*|watch:*|get:*|cancel:*|logs:*|pause:*|resume:*|publish:*)\n"
                    "        COMPREPLY=($(compgen -W \"$(derain jobs --timeout 2s --quiet 2>/dev/null |\n"
                    "            awk '/^job_/ { print $1 }')\" -- \"$cur\")) ;;\n"
                    "    esac\n}\ncomplete -o filenames -F _derain derain\n");
    char *text = dr_buf_detach(&b, NULL);
    dr_buf_done(&b);
    return text;
}

/* --- configuration file
 * ------------------------------------------------------------------------------------------------------ */

char *cli_config_path(void) {
    const char *x = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    if (x && *x == '/') return dr_fs_join(x, "derain.conf");
    return home && *home ? dr_fs_join(home, ".config/derain.conf") : NULL;
}

void cli_config_clear(cli_config *c) {
    dr_free(c->url);
    dr_free(c->key);
    *c = (cli_config){0};
}

static char *trim(char *s) {
    while (isspace((unsigned char)*s)) s++;
    size_t n = strlen(s);
    while (n && isspace((unsigned char)s[n - 1])) s[--n] = 0;
    return s;
}

dr_status cli_config_read(const char *path, bool must, cli_config *ret, dr_error *err) {
    char *data = NULL;
    size_t len;
    dr_error read_err = {0};
    dr_status s = dr_fs_read(path, 65536, &data, &len, &read_err);
    if (s == DR_NOT_FOUND && !must) {
        *ret = (cli_config){0};
        return DR_OK;
    }
    if (s) return dr_fail_as(err, s, read_err.what, "%s", read_err.text);
    cli_config got = {0};
    int number = 0;
    for (char *line = data, *next; !s && line; line = next) {
        next = strchr(line, '\n');
        if (next) *next++ = 0;
        number++;
        line = trim(line);
        if (!*line || *line == '#') continue;
        char *eq = strchr(line, '=');
        if (!eq) {
            s = dr_fail(err, DR_INVALID, "%s, line %d: this is no `key = value`", path, number);
            break;
        }
        *eq = 0;
        char *key = trim(line), *value = trim(eq + 1),
             **to = strcmp(key, "url") == 0   ? &got.url
                    : strcmp(key, "key") == 0 ? &got.key
                                              : NULL;
        if (!to)
            s = dr_fail(err, DR_INVALID, "%s, line %d: unknown setting '%s'", path, number, key);
        else if (*to)
            s = dr_fail(err, DR_INVALID, "%s, line %d: '%s' is set twice", path, number, key);
        else if (!*value)
            s = dr_fail(err, DR_INVALID, "%s, line %d: '%s' is empty", path, number, key);
        else if (!(*to = dr_strdup(value)))
            s = dr_fail(err, DR_NOMEM, "out of memory");
    }
    dr_free(data);
    if (s)
        cli_config_clear(&got);
    else
        *ret = got;
    return s;
}
