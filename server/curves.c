/* curves.c - see curves.h. A column is a member of the metrics; every panel scales its own axis. More than POINTS_MAX
 * rows are thinned by taking the mean of neighbours, so that the picture stays small. */
#include "server/curves.h"
#include "core/base/alloc.h"
#include <jansson.h>
#include <math.h>
#include <string.h>

enum { COLUMNS_MAX = 40, POINTS_MAX = 400, PANELS_A_ROW = 3, W = 300, H = 130, PAD = 40 };
enum { NOISY_FROM = 40, SMOOTHED = 20 }; /* rows; the smooth line is a mean over a tenth of all rows */

typedef struct column {
    char name[32];
    double *y; /* NAN where a row has none */
} column;

typedef struct table {
    column col[COLUMNS_MAX];
    int n;
    size_t rows;
    int64_t *step;
} table;

static column *column_of(table *t, const char *name) {
    for (int i = 0; i < t->n; i++)
        if (!strcmp(t->col[i].name, name)) return &t->col[i];
    if (t->n == COLUMNS_MAX || strlen(name) >= sizeof t->col[0].name) return NULL;
    column *c = &t->col[t->n];
    if (!(c->y = dr_malloc(t->rows * sizeof *c->y))) return NULL;
    for (size_t i = 0; i < t->rows; i++) c->y[i] = NAN;
    memcpy(c->name, name, strlen(name) + 1);
    t->n++;
    return c;
}

static bool read_table(const db_metric_page *p, table *t) {
    t->rows = p->n;
    if (!(t->step = dr_malloc((p->n + 1) * sizeof *t->step))) return false;
    for (size_t i = 0; i < p->n; i++) {
        json_t *o = json_loads(p->rows[i].data_json, 0, NULL), *v;
        const char *key;
        t->step[i] = p->rows[i].step;
        json_object_foreach(o, key, v) {
            if (!strcmp(key, "step") || !json_is_number(v)) continue;
            if (!strcmp(key, "skipped") && !json_integer_value(v)) continue; /* a panel only where there are some */
            column *c = column_of(t, key);
            if (c) c->y[i] = json_number_value(v);
        }
        json_decref(o);
    }
    return true;
}

static void text(dr_buf *b, double x, double y, const char *anchor, const char *s) {
    dr_buf_printf(b, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x, y, anchor);
    for (; *s; s++) {
        if (*s == '<')
            dr_buf_puts(b, "&lt;");
        else if (*s == '&')
            dr_buf_puts(b, "&amp;");
        else
            dr_buf_add(b, s, 1);
    }
    dr_buf_puts(b, "</text>\n");
}

static void number(dr_buf *b, double x, double y, const char *anchor, double v) {
    char s[32];
    snprintf(s, sizeof s, "%.4g", v);
    text(b, x, y, anchor, s);
}

typedef struct scale {
    double lo, hi, x0, x1;
} scale;

/* A point for every `every` rows: the mean of these, or of all rows up to `around` before and behind them. */
static void line(const table *t, const column *c, const scale *z, size_t every, size_t around, const char *class,
                 dr_buf *b) {
    dr_buf_printf(b, "<polyline%s points=\"", class);
    for (size_t i = 0; i < t->rows; i += every) {
        double sum = 0, at = 0;
        int n = 0;
        size_t from = i > around ? i - around : 0, to = i + every + around < t->rows ? i + every + around : t->rows;
        for (size_t k = from; k < to; k++) {
            if (!isfinite(c->y[k])) continue;
            sum += c->y[k];
            at += (double)t->step[k];
            n++;
        }
        if (!n) continue;
        dr_buf_printf(b, "%.1f,%.1f ", (at / n - z->x0) / (z->x1 - z->x0) * W,
                      H - (sum / n - z->lo) / (z->hi - z->lo) * H);
    }
    dr_buf_puts(b, "\"/>\n");
}

static void panel(const table *t, const column *c, int left, int top, dr_buf *b) {
    double lo = INFINITY, hi = -INFINITY, last = NAN;
    for (size_t i = 0; i < t->rows; i++) {
        if (!isfinite(c->y[i])) continue;
        lo = fmin(lo, c->y[i]);
        hi = fmax(hi, c->y[i]);
        last = c->y[i];
    }
    if (!(lo <= hi)) return;
    if (hi - lo < 1e-12) lo -= 0.5, hi += 0.5;
    double x0 = (double)t->step[0], x1 = (double)t->step[t->rows - 1];
    if (x1 <= x0) x1 = x0 + 1;
    dr_buf_printf(b, "<g transform=\"translate(%d,%d)\">\n<rect width=\"%d\" height=\"%d\"/>\n", left, top, W, H);
    text(b, 0, -6, "start", c->name);
    number(b, W, -6, "end", last);
    number(b, -4, 8, "end", hi);
    number(b, -4, H, "end", lo);
    number(b, 0, H + 13, "start", x0);
    number(b, W, H + 13, "end", (double)t->step[t->rows - 1]);
    const scale z = {lo, hi, x0, x1};
    size_t every = (t->rows + POINTS_MAX - 1) / POINTS_MAX, around = t->rows / SMOOTHED;
    bool noisy = t->rows >= NOISY_FROM; /* a step's losses jump about: what they tend to is drawn over them */
    line(t, c, &z, every, 0, noisy ? " class=\"raw\"" : "", b);
    if (noisy) line(t, c, &z, every, around, "", b);
    dr_buf_puts(b, "</g>\n");
}

void srv_curves_svg(const db_metric_page *rows, const char *title, dr_buf *out) {
    table t = {0};
    bool ok = read_table(rows, &t);
    int panels = ok && t.rows ? t.n : 0, lines = (panels + PANELS_A_ROW - 1) / PANELS_A_ROW;
    int width = PANELS_A_ROW * (W + 2 * PAD) + PAD, height = 60 + (lines ? lines : 1) * (H + 60);
    dr_buf_printf(out,
                  "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\">\n"
                  "<style>svg{background:#fff}text{font:11px sans-serif;fill:#333}rect{fill:#f6f8fa;stroke:#ccc}"
                  "polyline{fill:none;stroke:#1f6feb;stroke-width:1.5}.raw{stroke:#b6cff8;stroke-width:1}</style>\n",
                  width, height, width, height);
    text(out, PAD, 24, "start", title);
    if (!panels) text(out, PAD, 60, "start", "no steps yet");
    for (int i = 0; i < panels; i++)
        panel(&t, &t.col[i], PAD + i % PANELS_A_ROW * (W + 2 * PAD) + PAD, 60 + i / PANELS_A_ROW * (H + 60), out);
    dr_buf_puts(out, "</svg>\n");
    for (int i = 0; i < t.n; i++) dr_free(t.col[i].y);
    dr_free(t.step);
}
