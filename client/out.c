/* out.c - see out.h. */
#include "client/out.h"
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <unistd.h>

int cli_out_error(const cli_env *env, dr_status s, const dr_error *err, const cli_answer *a) {
    int code = cli_exit_code(s, err, a ? a->status : 0);
    fprintf(stderr, "derain: %s\n", err && err->text[0] ? err->text : dr_status_text(s));
    if (code == CLI_UNREACHABLE)
        fprintf(stderr,
                "derain: start one with `deraind serve`, or name it with --url or DERAIN_URL; `derain doctor` helps\n");
    if (a && a->status == 401) fprintf(stderr, "derain: the key comes from --key-file, DERAIN_KEY or derain.conf\n");
    if (env && env->opt && env->opt->json) {
        json_t *o = a && a->status >= 400 && a->body ? json_loadb(a->body, a->len, 0, NULL) : NULL;
        if (!json_is_object(o)) {
            json_decref(o);
            o = json_pack("{s:s, s:s, s:i}", "code", err && err->what[0] ? err->what : "failed", "detail",
                          err && err->text[0] ? err->text : dr_status_text(s), "status", a ? a->status : 0);
        }
        if (o) (void)cli_out_json(o);
        json_decref(o);
    }
    return code;
}

int cli_out_usage(const cli_command *cmd, const dr_error *err) {
    fprintf(stderr, "derain%s%s: %s\n", cmd ? " " : "", cmd ? cmd->name : "", err->text);
    fprintf(stderr, "derain%s%s --help tells more\n", cmd ? " " : "", cmd ? cmd->name : "");
    return CLI_USAGE;
}

void cli_out_note(const cli_env *env, const char *fmt, ...) {
    if (env->opt->quiet) return;
    va_list ap;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
}

int cli_out_flush(void) {
    if (fflush(stdout) == 0 && !ferror(stdout)) return CLI_OK;
    fprintf(stderr, "derain: cannot write to standard output\n");
    return CLI_FAILED;
}

int cli_out_json(const json_t *o) {
    if (json_dumpf(o, stdout, JSON_INDENT(2)) != 0) return CLI_FAILED;
    fputc('\n', stdout);
    return cli_out_flush();
}

void cli_out_table(const char *const *cells, size_t n_rows, size_t n_cols) {
    for (size_t r = 0; r < n_rows; r++) {
        for (size_t c = 0; c < n_cols; c++) {
            size_t width = 0;
            for (size_t k = 0; k < n_rows; k++) {
                size_t n = strlen(cells[k * n_cols + c]);
                if (n > width) width = n;
            }
            if (c + 1 < n_cols)
                printf("%-*s  ", (int)width, cells[r * n_cols + c]);
            else
                printf("%s\n", cells[r * n_cols + c]);
        }
    }
}

/* --- progress
 * ---------------------------------------------------------------------------------------------------------------- */

void cli_progress_init(cli_progress *p, const cli_env *env) {
    *p = (cli_progress){.on = !env->opt->quiet && isatty(STDERR_FILENO), .start_ns = dr_clock_ns()};
}

static int columns(void) {
    struct winsize w;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 20 ? w.ws_col : 80;
}

static void bar(char ret[24], double fraction) {
    int full = (int)(fraction * 20 + 0.5);
    for (int i = 0; i < 20; i++) ret[i] = i < full ? '=' : i == full ? '>' : ' ';
    ret[20] = 0;
}

static bool due(cli_progress *p, bool now) {
    int64_t t = dr_clock_ns();
    if (!p->on || (!now && t - p->drawn_ns < 100000000)) return false;
    p->drawn_ns = t;
    return true;
}

/* The file names of others may hold anything: control characters do not reach the terminal. */
static void draw(const char *line) {
    int max = columns() - 1;
    fputs("\r\033[K", stderr);
    for (int i = 0; i < max && line[i]; i++)
        fputc((unsigned char)line[i] < 32 || line[i] == 127 ? '?' : line[i], stderr);
    fflush(stderr);
}

void cli_progress_files(cli_progress *p, size_t done, size_t total, size_t failed, const char *name, bool now) {
    if (!due(p, now)) return;
    char b[24], left[32] = "", bad[32] = "", line[512];
    double elapsed = (double)(dr_clock_ns() - p->start_ns) * 1e-9, rate = elapsed > 0 ? (double)done / elapsed : 0;
    bar(b, total ? (double)done / (double)total : 0);
    if (done && done < total) cli_text_seconds((double)(total - done) / rate, left);
    if (failed) snprintf(bad, sizeof bad, ", %zu failed", failed);
    snprintf(line, sizeof line, "[%s] %zu/%zu pictures%s, %.2f/s%s%s%s  %s", b, done, total, bad, rate,
             *left ? ", " : "", left, *left ? " left" : "", name ? name : "");
    draw(line);
}

void cli_progress_job(cli_progress *p, const char *state, double fraction, int64_t queue_position) {
    if (!due(p, true)) return;
    char b[24], t[32], line[128];
    bar(b, fraction);
    cli_text_seconds((double)(dr_clock_ns() - p->start_ns) * 1e-9, t);
    if (queue_position > 0)
        snprintf(line, sizeof line, "[%s] %s, number %lld in the queue, %s", b, state, (long long)queue_position, t);
    else
        snprintf(line, sizeof line, "[%s] %s, %.0f %%, %s", b, state, fraction * 100, t);
    draw(line);
}

void cli_progress_training(cli_progress *p, const char *state, double fraction, const char *text) {
    if (!due(p, true)) return;
    char b[24], line[512];
    bar(b, fraction);
    snprintf(line, sizeof line, "[%s] %s  %s", b, state, text);
    draw(line);
}

void cli_progress_clear(cli_progress *p) {
    if (!p->on || !p->drawn_ns) return;
    fputs("\r\033[K", stderr);
    fflush(stderr);
}

/* --- small things
 * ------------------------------------------------------------------------------------------------------------ */

void cli_text_bytes(double n, char ret[32]) {
    const char *unit[] = {"B", "kB", "MB", "GB", "TB"};
    int u = 0;
    while (n >= 999.5 && u < 4) n /= 1000, u++;
    snprintf(ret, 32, u && n < 9.95 ? "%.1f %s" : "%.0f %s", n, unit[u]);
}

void cli_text_seconds(double s, char ret[32]) {
    long t = (long)(s + 0.5);
    if (s < 9.995)
        snprintf(ret, 32, "%.2f s", s);
    else if (t < 60)
        snprintf(ret, 32, "%ld s", t);
    else if (t < 3600)
        snprintf(ret, 32, "%ld min %02ld s", t / 60, t % 60);
    else
        snprintf(ret, 32, "%ld h %02ld min", t / 3600, t % 3600 / 60);
}

const char *cli_member(const json_t *o, const char *name) {
    const char *s = json_string_value(json_object_get(o, name));
    return s ? s : "";
}

dr_status cli_answer_json(const cli_answer *a, json_t **ret, dr_error *err) {
    json_t *o = json_loadb(a->body ? a->body : "", a->body ? a->len : 0, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(o)) {
        json_decref(o);
        return dr_fail_as(err, DR_CORRUPT, "bad_answer",
                          "the answer is not what a deraind would say; is something else listening there?");
    }
    *ret = o;
    return DR_OK;
}
