/* compare_view.c - see compare_view.h. */
#include "client/compare_view.h"
#include "client/wait.h"
#include "core/base/alloc.h"
#include <stdio.h>
#include <string.h>

enum { COLUMNS_MAX = 8, CELL = 112, WIDTH = 96 };

dr_status cli_compare_report(cli_http *h, const cli_env *env, const char *id, json_t **ret, cli_answer *a,
                             dr_error *err) {
    char *path = cli_job_path(id, "/report");
    if (!path) return dr_fail(err, DR_NOMEM, "out of memory");
    cli_answer_clear(a);
    dr_status s = cli_http_do(
        h, &(cli_call){.path = path, .accept = "application/json", .deadline_ns = env->deadline_ns}, a, err);
    if (!s) s = cli_answer_json(a, ret, err);
    dr_free(path);
    return s;
}

/* --- a table in the making --- */

typedef struct table {
    char (*cell)[CELL];
    size_t columns, rows;
} table;

static bool table_begin(table *t, const char *const *heads, size_t columns, size_t rows_max) {
    *t = (table){.columns = columns, .rows = 1};
    t->cell = dr_calloc((rows_max + 1) * columns, sizeof *t->cell);
    for (size_t i = 0; t->cell && i < columns; i++) snprintf(t->cell[i], CELL, "%s", heads[i]);
    return t->cell != NULL;
}

static char *cell(table *t, size_t column) {
    return t->cell[t->rows * t->columns + column];
}

static void number(char *to, const char *fmt_null, int digits, const json_t *v, bool sign) {
    if (!json_is_number(v))
        snprintf(to, CELL, "%8s", fmt_null);
    else if (sign)
        snprintf(to, CELL, "%+8.*f", digits, json_number_value(v));
    else
        snprintf(to, CELL, "%8.*f", digits, json_number_value(v));
}

static void table_end(table *t) {
    const char **cells = dr_calloc(t->rows * t->columns, sizeof *cells);
    for (size_t i = 0; cells && i < t->rows * t->columns; i++) cells[i] = t->cell[i];
    if (cells) cli_out_table(cells, t->rows, t->columns);
    dr_free(cells);
    dr_free(t->cell);
}

/* --- parts --- */

static void means(const json_t *report, bool truth) {
    const char *heads[] = {"MEANS OF", "    RAIN", "VS INPUT", "  PSNR-Y", "  SSIM-Y", "PSNR-RGB", "SSIM-RGB"};
    const json_t *list = json_object_get(report, "means"), *m;
    size_t i;
    table t;
    if (!table_begin(&t, heads, truth ? 7 : 3, json_array_size(list))) return;
    json_array_foreach(list, i, m) {
        const json_t *s = json_object_get(m, "truth");
        const json_int_t broken = json_integer_value(json_object_get(m, "not_finite"));
        snprintf(cell(&t, 0), CELL, broken ? "%.90s (broken)" : "%.100s", cli_member(m, "column"));
        number(cell(&t, 1), "-", 2, json_object_get(m, "rain"), false);
        number(cell(&t, 2), "-", 2, json_object_get(json_object_get(m, "change"), "psnr_rgb"), false);
        for (size_t c = 3; truth && c < 7; c++) {
            static const char *const name[] = {"psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb"};
            number(cell(&t, c), "-", c % 2 ? 2 : 4, json_object_get(s, name[c - 3]), false);
        }
        t.rows++;
    }
    table_end(&t);
}

static void pairs(const json_t *report, bool truth) {
    const char *heads[] = {"SIGN TEST", "BETTER", "WORSE", "EQUAL", "P", truth ? "  PSNR-Y" : "    RAIN"};
    const json_t *list = json_object_get(report, "pairs"), *p;
    size_t i;
    table t;
    if (!table_begin(&t, heads, 6, json_array_size(list))) return;
    json_array_foreach(list, i, p) {
        static const char *const count[] = {"wins", "losses", "ties"};
        const double v = json_number_value(json_object_get(p, "p"));
        snprintf(cell(&t, 0), CELL, "%.45s against %.45s", cli_member(p, "a"), cli_member(p, "b"));
        for (size_t c = 0; c < 3; c++)
            snprintf(cell(&t, c + 1), CELL, "%5.0f", json_number_value(json_object_get(p, count[c])));
        snprintf(cell(&t, 4), CELL, v < 0.0001 ? "%.1e" : "%.4f", v);
        number(cell(&t, 5), "-", 2, json_object_get(p, truth ? "psnr_y_gain" : "rain_change"), true);
        t.rows++;
    }
    table_end(&t);
}

static void wrapped(const char *text) {
    while (*text) {
        size_t n = strlen(text);
        if (n > WIDTH) {
            for (n = WIDTH; n && text[n] != ' ';) n--;
            if (!n) n = WIDTH;
        }
        printf("%.*s\n", (int)n, text);
        text += n;
        while (*text == ' ') text++;
    }
}

int cli_compare_print(const cli_env *env, const json_t *report) {
    const json_t *list = json_object_get(report, "pictures"), *p;
    const double compared = json_number_value(json_object_get(report, "compared")),
                 clean = json_number_value(json_object_get(report, "with_clean"));
    size_t i;
    json_array_foreach(list, i, p) {
        const json_t *why = json_object_get(p, "problem");
        if (json_is_object(why))
            fprintf(stderr, "derain: %s: %s [%s]\n", cli_member(p, "name"), cli_member(why, "detail"),
                    cli_member(why, "code"));
    }
    means(report, clean > 0);
    printf("\n");
    pairs(report, clean > 0);
    printf("\n");
    wrapped(cli_member(report, "conclusion"));
    cli_out_note(env,
                 "(%.0f pictures, %.0f of them with a clean one; lower RAIN is better; VS INPUT is the PSNR "
                 "against the input)",
                 compared, clean);
    return cli_out_flush();
}
