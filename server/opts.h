/* opts.h - command-line options as tables: parsing, bounds, --help. One table a subcommand.
 *
 * "--name value", "--name=value", flags without a value, "-o value" where a letter is given, "--" ends the options;
 * options and arguments may be mixed. Unknown options, missing or bad values, and too few or many arguments give one
 * line on stderr and SRV_EXIT_USAGE. Values are strict (core/base/parse.h): the whole text, within bounds. */
#ifndef SRV_OPTS_H
#define SRV_OPTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum srv_opt_kind {
    SRV_OPT_FLAG,   /* to: bool *, set to true */
    SRV_OPT_INT,    /* to: int *, lo..hi */
    SRV_OPT_I64,    /* to: int64_t *, lo..hi */
    SRV_OPT_U64,    /* to: uint64_t *, at most hi (hi 0: any) */
    SRV_OPT_DOUBLE, /* to: double *, lo..hi */
    SRV_OPT_BYTES,  /* to: uint64_t *, "512M", at most hi (hi 0: any) */
    SRV_OPT_TEXT,   /* to: const char **, points into argv; one of `choices` where given */
    SRV_OPT_LIST,   /* to: srv_opt_list *, repeatable */
    SRV_OPT_SIZE    /* to: int[2], "1920x1080", both sides lo..hi */
} srv_opt_kind;

#define SRV_OPT_LIST_MAX 64
typedef struct srv_opt_list {
    const char *v[SRV_OPT_LIST_MAX]; /* pointers into argv */
    int n;
} srv_opt_list;

typedef struct srv_opt {
    const char *name; /* without the dashes; NULL ends the table */
    srv_opt_kind kind;
    void *to;
    const char *arg;     /* what --help calls the value: "N", "FILE" */
    const char *help;    /* one line */
    double lo, hi;       /* INT, I64, DOUBLE, SIZE; both 0: any */
    const char *choices; /* "auto|cpu|cuda" */
    bool required;
    char letter; /* 'o' also takes "-o"; 0: none */
} srv_opt;

typedef struct srv_opts_spec {
    const char *command; /* "run" */
    const char *args;    /* "IN OUT", "" */
    const char *what;    /* one line: what the command does */
    const char *more;    /* further text for --help, may be NULL; lines end with \n */
    const srv_opt *opts;
    int args_min, args_max;
} srv_opts_spec;

/* The engine options that every offline command has. */
#define SRV_OPTS_ENGINE(backend_to, threads_to)                                                                        \
    {.name = "backend",                                                                                                \
     .kind = SRV_OPT_TEXT,                                                                                             \
     .to = (backend_to),                                                                                               \
     .arg = "NAME",                                                                                                    \
     .choices = "auto|cpu|cuda",                                                                                       \
     .help = "where to compute: auto, cpu or cuda [auto]"},                                                            \
    {                                                                                                                  \
        .name = "threads", .kind = SRV_OPT_INT, .to = (threads_to), .arg = "N", .lo = 0, .hi = 1024,                   \
        .help = "threads of the CPU backend [0 = all cores]"                                                           \
    }

/* What pictures are computed in, for those that run them. */
#define SRV_PRECISIONS "auto|f32|f16|bf16"
#define SRV_OPT_PRECISION(precision_to)                                                                                \
    {                                                                                                                  \
        .name = "precision", .kind = SRV_OPT_TEXT, .to = (precision_to), .arg = "NAME", .choices = SRV_PRECISIONS,     \
        .help = "arithmetic of the convolutions: auto, f32, f16 or bf16 [auto: f16 on a GPU, f32 on the CPU]"          \
    }

#define SRV_OPTS_PLAN_CACHE(to_)                                                                                       \
    {                                                                                                                  \
        .name = "plan-cache", .kind = SRV_OPT_TEXT, .to = (to_), .arg = "FILE",                                        \
        .help = "convolution plans tuned for this GPU, from 'deraind tune'"                                            \
    }

/* The net and the pictures of a training step that is measured or tuned instead of a model; t: dr_train_opts *. */
#define SRV_OPTS_STEP(t)                                                                                               \
    {.name = "crop",                                                                                                   \
     .kind = SRV_OPT_INT,                                                                                              \
     .to = &(t)->crop,                                                                                                 \
     .arg = "N",                                                                                                       \
     .lo = 64,                                                                                                         \
     .hi = 1024,                                                                                                       \
     .help = "with --train: side of the pictures, a multiple of 4 [128]"},                                             \
        {.name = "ngf",                                                                                                \
         .kind = SRV_OPT_INT,                                                                                          \
         .to = &(t)->ngf,                                                                                              \
         .arg = "N",                                                                                                   \
         .lo = 16,                                                                                                     \
         .hi = 256,                                                                                                    \
         .help = "with --train: filters [64]"},                                                                        \
    {                                                                                                                  \
        .name = "blocks", .kind = SRV_OPT_INT, .to = &(t)->blocks, .arg = "N", .lo = 5, .hi = 32,                      \
        .help = "with --train: residual blocks [9]"                                                                    \
    }

#define SRV_OPTS_GO (-1)
/* argv[0] is the command's name. SRV_OPTS_GO: go on, the arguments that are no options are ret_args[0..*ret_n-1]
 * (pointers into argv; room for spec->args_max of them, NULL is fine for 0; ret_n may be NULL). Otherwise the exit code
 * to return: 0 after
 * --help, SRV_EXIT_USAGE. */
int srv_opts_parse(const srv_opts_spec *spec, int argc, char **argv, const char **ret_args, int *ret_n);
void srv_opts_help(const srv_opts_spec *spec); /* to stdout */
/* A usage error that the command itself found: "deraind run: ..."; returns SRV_EXIT_USAGE. */
int srv_opts_usage(const char *command, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
