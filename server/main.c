/* main.c - deraind: a table of subcommands. The only place that knows how the program as a whole is used. */
#include "core/derain.h"
#include "server/commands.h"
#include "server/version.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *what;
} commands[] = {
    {"serve", srv_cmd_serve, "run the HTTP service"},
    {"run", srv_cmd_run, "derain one picture"},
    {"train", srv_cmd_train, "train a generator from unpaired pictures"},
    {"eval", srv_cmd_eval, "score a model on pairs of rainy and clean pictures"},
    {"score", srv_cmd_score, "say how much rain a picture seems to hold"},
    {"bench", srv_cmd_bench, "measure speed and memory"},
    {"tune", srv_cmd_tune, "find the fastest convolutions of this GPU, into a file"},
    {"model", srv_cmd_model, "look at, make or convert a model file"},
};
#define N_COMMANDS (sizeof commands / sizeof commands[0])

static void help(FILE *to) {
    fprintf(to, "usage: deraind COMMAND [options]\n\n");
    for (size_t i = 0; i < N_COMMANDS; i++) fprintf(to, "  %-8s %s\n", commands[i].name, commands[i].what);
    fprintf(to, "\n'deraind COMMAND --help' lists the options of a command; 'deraind --version' says what runs here.\n"
                "Exit codes: 0 done, 1 failed, 2 wrong usage.\n");
}

static int version(void) {
    printf("deraind %s (commit %s)\n", srv_version(), srv_commit());
    static const char *const names[] = {"cpu", "cuda"};
    for (size_t i = 0; i < 2; i++) {
        dr_engine *e;
        dr_error err = {0};
        dr_engine_opts o = {.backend = names[i]};
        if (dr_engine_open(&o, &e, &err)) {
            printf("  %-5s not available: %s\n", names[i], err.text);
            continue;
        }
        printf("  %-5s %s\n", names[i], dr_engine_describe(e));
        dr_engine_close(e);
    }
    return SRV_EXIT_OK;
}

/* OpenMP's idle threads spin for the next loop. By default they do so for milliseconds, which on a machine that has
 * other work too makes every loop wait for the scheduler (seen: 10 times slower beside one busy process); not at all
 * costs a wake-up a loop. A short spin serves both. The library reads its setting before main(), so it is put into the
 * environment and the program started once more; whoever sets one of the variables is left alone. */
static void calm_threads(char **argv) {
    if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT")) return;
    if (!setenv("GOMP_SPINCOUNT", "5000", 0)) execv("/proc/self/exe", argv); /* where that fails: as it is */
}

int main(int argc, char **argv) {
    calm_threads(argv);
    if (argc < 2) {
        help(stderr);
        return SRV_EXIT_USAGE;
    }
    const char *name = argv[1];
    if (!strcmp(name, "--help") || !strcmp(name, "-h") || !strcmp(name, "help")) {
        help(stdout);
        return SRV_EXIT_OK;
    }
    if (!strcmp(name, "--version") || !strcmp(name, "version")) return version();
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (!strcmp(name, commands[i].name)) {
            int rc = commands[i].run(argc - 1, argv + 1);
            /* a full disk behind stdout must not look like success */
            if (fflush(stdout) || ferror(stdout)) {
                fprintf(stderr, "deraind %s: could not write the result\n", name);
                return SRV_EXIT_FAILED;
            }
            return rc;
        }
    fprintf(stderr, "deraind: unknown command '%s' ('deraind --help' lists them)\n", name);
    return SRV_EXIT_USAGE;
}
