/* strip.c - small pictures of a comparison, and the sheet that is made of their rows. */
#include "core/image/strip.h"
#include "core/base/alloc.h"
#include "core/image/codec.h"
#include "core/image/draw.h"
#include "core/image/resize.h"
#include <stdio.h>
#include <string.h>

struct dr_strip {
    int n, scale; /* versions; what the difference was multiplied by, 0 = there is none */
    dr_image input, out[DR_COMPARE_MAX], diff, truth;
};

void dr_strip_free(dr_strip *s) {
    if (!s) return;
    dr_image_done(&s->input);
    for (int i = 0; i < s->n; i++) dr_image_done(&s->out[i]);
    dr_image_done(&s->diff);
    dr_image_done(&s->truth);
    dr_free(s);
}

void dr_compare_row_done(dr_compare_row *row) {
    dr_strip_free(row->strip);
    row->strip = NULL;
}

int dr_compare_better(const dr_compare_row *row, int a, int b) {
    const dr_compare_column *x = &row->col[a], *y = &row->col[b];
    bool bad_x = a && !x->finite, bad_y = b && !y->finite;
    if (bad_x || bad_y) return bad_y - bad_x;
    double gain = row->has_truth ? x->truth.psnr_y - y->truth.psnr_y : y->rain - x->rain;
    return gain > DR_COMPARE_TIE ? 1 : gain < -DR_COMPARE_TIE ? -1 : 0;
}

/* --- small pictures --- */

static dr_status fit(const dr_image *img, int side, dr_image *ret, dr_error *err) {
    const int longer = img->width > img->height ? img->width : img->height;
    if (longer <= side) return dr_image_copy(img, ret, err);
    int w = (int)((int64_t)img->width * side / longer), h = (int)((int64_t)img->height * side / longer);
    return dr_image_resize(img, w ? w : 1, h ? h : 1, ret, err);
}

/* Largest - smallest value of each colour into ret (one channel or three), how often each comes into `histogram`. */
static void spread_of(const dr_image *outputs, int n, const dr_image *ret, uint64_t histogram[256]) {
    const int colours = outputs[0].channels < 3 ? 1 : 3, step = outputs[0].channels;
    for (int y = 0; y < outputs[0].height; y++) {
        uint8_t *d = dr_image_row8(ret, y);
        for (int x = 0; x < outputs[0].width; x++)
            for (int c = 0; c < colours; c++) {
                uint8_t low = 255, high = 0;
                for (int i = 0; i < n; i++) {
                    uint8_t v = dr_image_row8(&outputs[i], y)[x * step + c];
                    if (v < low) low = v;
                    if (v > high) high = v;
                }
                histogram[ *d++ = (uint8_t)(high - low)]++;
            }
    }
}

/* 0: there is nothing but zeros. */
static int scale_of(const uint64_t histogram[256], uint64_t all) {
    uint64_t above = 0;
    int top = 255, scale = 64;
    if (histogram[0] == all) return 0;
    while (top > 0 && (above += histogram[top]) * 1000 <= all) top--;
    while (scale > 1 && top * scale > 255) scale /= 2;
    return scale;
}

static void enlarge(const dr_image *img, int scale) {
    for (int y = 0; y < img->height; y++) {
        uint8_t *p = dr_image_row8(img, y);
        for (size_t i = 0; i < img->stride; i++) p[i] = (uint8_t)(p[i] * scale > 255 ? 255 : p[i] * scale);
    }
}

static dr_status fill(dr_strip *s, const dr_image *input, const dr_image *outputs, int n, const dr_image *truth,
                      const dr_image *diff, int side, dr_error *err) {
    dr_status st = fit(input, side, &s->input, err);
    for (; s->n < n && !st; s->n++) st = fit(&outputs[s->n], side, &s->out[s->n], err);
    if (!st) st = fit(diff, side, &s->diff, err);
    if (!st && truth) st = fit(truth, side, &s->truth, err);
    return st;
}

dr_status dr_strip_make(const dr_image *input, const dr_image *outputs, int n, const dr_image *truth, int side,
                        dr_strip **ret, double *ret_spread, dr_error *err) {
    uint64_t histogram[256] = {0}, all = 0, sum = 0;
    dr_image diff = {0};
    dr_strip *s = NULL;
    dr_status st = dr_image_init(&diff, outputs[0].width, outputs[0].height, outputs[0].channels < 3 ? 1 : 3, 8, err);
    if (st) return st;
    spread_of(outputs, n, &diff, histogram);
    for (unsigned v = 0; v < 256; v++) {
        all += histogram[v];
        sum += histogram[v] * v;
    }
    if (side) {
        if (!(s = dr_calloc(1, sizeof *s))) st = dr_fail(err, DR_NOMEM, "no memory for a strip");
        if (s) {
            s->scale = scale_of(histogram, all);
            enlarge(&diff, s->scale ? s->scale : 1);
            st = fill(s, input, outputs, n, truth, &diff, side, err);
        }
    }
    dr_image_done(&diff);
    if (st) {
        dr_strip_free(s);
        return st;
    }
    *ret = s;
    *ret_spread = (double)sum / (double)all;
    return DR_OK;
}

/* --- the sheet --- */

enum { PAD = 16, GAP = 10, ZOOM = 2, LINE = DR_GLYPH_H * ZOOM + 6, MIN_SIDE = 264, SIDE_MAX = 30000, NOTE_LINES = 6 };

static const dr_rgb ground = {28, 28, 30}, band = {44, 44, 48}, ink = {235, 235, 235}, dim = {160, 160, 165},
                    green = {96, 208, 120}, red = {232, 96, 84};

typedef struct layout {
    int cell, columns, width, n_versions; /* cell: width of a column */
    bool truth;
} layout;

static int max(int a, int b) {
    return a > b ? a : b;
}

static int strip_height(const dr_strip *s) {
    return max(s->input.height, s->truth.pixels ? s->truth.height : 0);
}

static int column_x(const layout *l, int i) {
    return PAD + i * (l->cell + GAP);
}

/* As much of the text as fits into `width`, smaller where that helps. */
static void write_fitting(dr_image *sheet, int x, int y, int width, dr_rgb colour, const char *text) {
    char t[160];
    snprintf(t, sizeof t, "%s", text);
    int zoom = dr_draw_text_width(t, ZOOM) <= width ? ZOOM : 1;
    size_t fits = (size_t)(width / ((DR_GLYPH_W + 1) * zoom));
    if (strlen(t) > fits) t[fits] = 0;
    (void)dr_draw_text(sheet, x, zoom == ZOOM ? y : y + DR_GLYPH_H / 2, zoom, colour, t);
}

/* Breaks the text into lines of at most `fits` letters at spaces; returns how many. */
static int wrap(const char *text, size_t fits, char lines[NOTE_LINES][160]) {
    int n = 0;
    if (fits > 159) fits = 159;
    while (*text && n < NOTE_LINES) {
        size_t len = strlen(text);
        if (len > fits) {
            for (len = fits; len && text[len] != ' ';) len--;
            if (!len) len = fits;
        }
        snprintf(lines[n++], 160, "%.*s", (int)len, text);
        text += len;
        while (*text == ' ') text++;
    }
    return n;
}

/* The one column of the row that is better than all others; -1: there is none. */
static int best_of(const dr_compare_row *row) {
    for (int a = 0; a <= row->n; a++) {
        bool best = true;
        for (int b = 0; b <= row->n && best; b++) best = a == b || dr_compare_better(row, a, b) > 0;
        if (best) return a;
    }
    return -1;
}

static void scores(dr_image *sheet, const layout *l, int x, int y, const dr_compare_row *row, int column, bool best) {
    char text[64];
    const dr_compare_column *c = &row->col[column];
    dr_rgb colour = best ? green : ink;
    if (column && !c->finite) {
        write_fitting(sheet, x, y, l->cell, red, "NOT A NUMBER");
        return;
    }
    if (row->has_truth) {
        snprintf(text, sizeof text, "PSNR %.2f  SSIM %.3f", c->truth.psnr_y, c->truth.ssim_y);
        write_fitting(sheet, x, y, l->cell, colour, text);
        colour = dim;
        y += LINE;
    }
    snprintf(text, sizeof text, "RAIN %.1f", c->rain);
    write_fitting(sheet, x, y, l->cell, colour, text);
    if (row->has_truth || !column) return;
    snprintf(text, sizeof text, "VS INPUT %.1f DB", c->change.psnr_rgb);
    write_fitting(sheet, x, y + LINE, l->cell, dim, text);
}

static void draw_row(dr_image *sheet, const layout *l, int y, const dr_compare_item *item) {
    const dr_compare_row *row = item->row;
    const dr_strip *s = row->strip;
    char text[64];
    const int best = best_of(row), h = strip_height(s);
    dr_draw_fill(sheet, 0, y, sheet->width, LINE + 4, band);
    write_fitting(sheet, PAD, y + 5, sheet->width - 2 * PAD, ink, item->name);
    y += LINE + 10;
    for (int i = 0; i <= row->n; i++) {
        dr_draw_image(sheet, column_x(l, i), y, i ? &s->out[i - 1] : &s->input);
        scores(sheet, l, column_x(l, i), y + h + 6, row, i, i == best);
    }
    int x = column_x(l, row->n + 1);
    dr_draw_image(sheet, x, y, &s->diff);
    if (s->scale)
        snprintf(text, sizeof text, "X %d  MEAN %.2f OF 255", s->scale, row->spread);
    else
        snprintf(text, sizeof text, "NO DIFFERENCE");
    write_fitting(sheet, x, y + h + 6, l->cell, ink, text);
    if (s->truth.pixels) dr_draw_image(sheet, column_x(l, row->n + 2), y, &s->truth);
}

static int row_height(const dr_compare_row *row) {
    return LINE + 10 + strip_height(row->strip) + 6 + 2 * LINE + 8;
}

static dr_status lay_out(const dr_compare_item *items, int n, layout *l, int *ret_height, dr_error *err) {
    int64_t height = 0;
    *l = (layout){.cell = MIN_SIDE};
    for (int i = 0; i < n; i++) {
        const dr_compare_row *row = items[i].row;
        if (!row->strip) continue;
        l->cell = max(l->cell, row->strip->input.width);
        l->n_versions = row->n;
        l->truth |= row->strip->truth.pixels != NULL;
        height += row_height(row);
    }
    if (!height) return dr_fail(err, DR_INVALID, "no picture to show on a sheet");
    l->columns = l->n_versions + 2 + l->truth;
    l->width = 2 * PAD + l->columns * (l->cell + GAP) - GAP;
    if (height > SIDE_MAX || l->width > SIDE_MAX)
        return dr_fail(err, DR_TOO_LARGE, "a sheet of %d pictures is too large", n);
    *ret_height = (int)height;
    return DR_OK;
}

dr_status dr_compare_sheet(const dr_compare_item *items, int n, const dr_compare_heads *heads, void **ret_png,
                           size_t *ret_len, dr_error *err) {
    static const char *const last[] = {"DIFFERENCE", "CLEAN"};
    char lines[NOTE_LINES][160];
    dr_image sheet = {0};
    layout l;
    int height = 0;
    dr_status s = lay_out(items, n, &l, &height, err);
    if (s) return s;
    size_t fits = (size_t)((l.width - 2 * PAD) / ((DR_GLYPH_W + 1) * ZOOM));
    const int n_lines = heads->note ? wrap(heads->note, fits, lines) : 0;
    int y = PAD + n_lines * LINE + (n_lines ? 8 : 0);
    s = dr_image_init(&sheet, l.width, y + LINE + height + PAD, 3, 8, err);
    if (s) return s;
    dr_draw_fill(&sheet, 0, 0, sheet.width, sheet.height, ground);
    for (int i = 0; i < n_lines; i++) (void)dr_draw_text(&sheet, PAD, PAD + i * LINE, ZOOM, ink, lines[i]);
    for (int i = 0; i < l.columns; i++) {
        const char *head = i == 0 ? "INPUT" : i <= l.n_versions ? heads->versions[i - 1] : last[i - l.n_versions - 1];
        write_fitting(&sheet, column_x(&l, i), y, l.cell, dim, head);
    }
    y += LINE;
    for (int i = 0; i < n; i++) {
        if (!items[i].row->strip) continue;
        draw_row(&sheet, &l, y, &items[i]);
        y += row_height(items[i].row);
    }
    s = dr_image_encode(&sheet, DR_FORMAT_PNG, 0, true, ret_png, ret_len, err);
    dr_image_done(&sheet);
    return s;
}
