/* run.c - from a command line to a command: options, configuration, environment, signals. */
#include "client/run.h"
#include "client/opts.h"
#include "client/out.h"
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/fs.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void on_signal(int sig) {
    (void)sig;
    atomic_store(&cli_stop, 1);
}

/* The first ^C ends calls in order (and cancels the job we wait for), the second one ends the program. */
static void catch_signals(void) {
    struct sigaction a = {.sa_handler = on_signal, .sa_flags = SA_RESETHAND};
    sigemptyset(&a.sa_mask);
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
    signal(SIGPIPE, SIG_IGN);
}

dr_status cli_connect(const cli_env *env, cli_http **ret, dr_error *err) {
    return cli_http_open(env->url, env->key, ret, err);
}

static char *read_key(const char *path, dr_error *err) {
    char *text = NULL;
    size_t n = 0;
    if (dr_fs_read(path, 4096, &text, &n, err)) return NULL;
    while (n && strchr(" \r\n\t", text[n - 1])) text[--n] = 0;
    if (!n) {
        dr_fail(err, DR_INVALID, "the key file '%s' is empty", path);
        dr_free(text);
        return NULL;
    }
    return text;
}

/* Print a text made for us and free it. */
static int print(char *text) {
    if (!text) return CLI_FAILED;
    fputs(text, stdout);
    dr_free(text);
    return cli_out_flush();
}

static int run_command(const cli_command *cmd, int argc, char **argv) {
    cli_options opt = {0};
    cli_config config = {0};
    dr_error err = {0};
    char *key_text = NULL, *path = NULL;
    int code = CLI_USAGE;
    cli_env env = {.opt = &opt, .args = dr_calloc((size_t)argc + 1, sizeof(char *))};
    if (!env.args) return CLI_FAILED;
    if (cli_opts_parse(cmd, argc, argv, &opt, env.args, &env.n_args, &err)) {
        code = cli_out_usage(cmd, &err);
        goto out;
    }
    if (opt.help) {
        code = print(cli_help(cmd));
        goto out;
    }
    path = cli_config_path();
    if ((path && cli_config_read(path, false, &config, &err)) ||
        (opt.key_file && !(key_text = read_key(opt.key_file, &err)))) {
        code = cli_out_usage(NULL, &err);
        goto out;
    }
    const char *url = getenv("DERAIN_URL"), *key = getenv("DERAIN_KEY");
    env.url = opt.url ? opt.url : url && *url ? url : config.url ? config.url : "http://127.0.0.1:8650";
    env.key = key_text ? key_text : key && *key ? key : config.key;
    if (opt.timeout_s) env.deadline_ns = dr_clock_ns() + opt.timeout_s * INT64_C(1000000000);
    code = cmd->run(&env);
out:
    dr_free(key_text);
    dr_free(path);
    dr_free(env.args);
    cli_config_clear(&config);
    return code;
}

int cli_run(int argc, char **argv) {
    catch_signals();
    const char *name = argc > 1 ? argv[1] : "";
    if (strcmp(name, "--version") == 0) {
        printf("derain %s (%s)\n", cli_version(), cli_commit());
        return cli_out_flush();
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        const cli_command *about = argc > 2 ? cli_command_find(argv[2]) : NULL;
        return print(cli_help(about));
    }
    const cli_command *cmd = cli_command_find(name);
    if (!cmd) {
        if (*name)
            fprintf(stderr, "derain: there is no command '%s'; derain --help lists them\n", name);
        else
            (void)print(cli_help(NULL));
        return CLI_USAGE;
    }
    int code = run_command(cmd, argc - 1, argv + 1);
    return atomic_load(&cli_stop) && code ? 130 : code;
}
