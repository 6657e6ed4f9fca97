/* sheet.c - paints cells and labels into one RGB picture. The letters are a 5x7 font of capitals, enlarged twice; the
 * labels are few, and no font library is worth them. */
#include "core/train/sheet.h"
#include "core/base/alloc.h"
#include "core/base/fs.h"
#include "core/image/codec.h"
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { GAP = 4, ZOOM = 2, GLYPH_W = 6, GLYPH_H = 7, BAND = GLYPH_H * ZOOM + 2 * GAP, SIDE_MAX = 30000 };

/* Seven rows of five dots each, the leftmost dot in bit 4. */
typedef struct glyph {
    char c;
    uint8_t row[GLYPH_H];
} glyph;
static const glyph font[] = {
    {'A', {14, 17, 17, 31, 17, 17, 17}}, {'B', {30, 17, 17, 30, 17, 17, 30}}, {'C', {14, 17, 16, 16, 16, 17, 14}},
    {'D', {30, 17, 17, 17, 17, 17, 30}}, {'E', {31, 16, 16, 30, 16, 16, 31}}, {'F', {31, 16, 16, 30, 16, 16, 16}},
    {'G', {14, 17, 16, 23, 17, 17, 15}}, {'H', {17, 17, 17, 31, 17, 17, 17}}, {'I', {14, 4, 4, 4, 4, 4, 14}},
    {'J', {7, 2, 2, 2, 2, 18, 12}},      {'K', {17, 18, 20, 24, 20, 18, 17}}, {'L', {16, 16, 16, 16, 16, 16, 31}},
    {'M', {17, 27, 21, 21, 17, 17, 17}}, {'N', {17, 25, 21, 19, 17, 17, 17}}, {'O', {14, 17, 17, 17, 17, 17, 14}},
    {'P', {30, 17, 17, 30, 16, 16, 16}}, {'Q', {14, 17, 17, 17, 21, 18, 13}}, {'R', {30, 17, 17, 30, 20, 18, 17}},
    {'S', {15, 16, 16, 14, 1, 1, 30}},   {'T', {31, 4, 4, 4, 4, 4, 4}},       {'U', {17, 17, 17, 17, 17, 17, 14}},
    {'V', {17, 17, 17, 17, 17, 10, 4}},  {'W', {17, 17, 17, 21, 21, 27, 17}}, {'X', {17, 17, 10, 4, 10, 17, 17}},
    {'Y', {17, 17, 10, 4, 4, 4, 4}},     {'Z', {31, 1, 2, 4, 8, 16, 31}},     {'0', {14, 17, 19, 21, 25, 17, 14}},
    {'1', {4, 12, 4, 4, 4, 4, 14}},      {'2', {14, 17, 1, 6, 8, 16, 31}},    {'3', {30, 1, 1, 14, 1, 1, 30}},
    {'4', {2, 6, 10, 18, 31, 2, 2}},     {'5', {31, 16, 30, 1, 1, 17, 14}},   {'6', {6, 8, 16, 30, 17, 17, 14}},
    {'7', {31, 1, 2, 4, 8, 8, 8}},       {'8', {14, 17, 17, 14, 17, 17, 14}}, {'9', {14, 17, 17, 15, 1, 2, 12}},
    {'.', {0, 0, 0, 0, 0, 12, 12}},      {'-', {0, 0, 0, 31, 0, 0, 0}},       {'|', {4, 4, 4, 4, 4, 4, 4}},
    {',', {0, 0, 0, 0, 12, 4, 8}},       {'/', {1, 1, 2, 4, 8, 16, 16}},      {'+', {0, 4, 4, 31, 4, 4, 0}},
};

static const uint8_t *glyph_of(char c) {
    if (c >= 'a' && c <= 'z') c = (char)(c - 'a' + 'A');
    for (size_t i = 0; i < sizeof font / sizeof *font; i++)
        if (font[i].c == c) return font[i].row;
    return NULL; /* a space */
}

/* White on what is there; what does not fit is cut off. */
static void text(dr_image *img, int x, int y, const char *s) {
    for (; *s; s++, x += GLYPH_W * ZOOM) {
        const uint8_t *g = glyph_of(*s);
        for (int i = 0; g && i < GLYPH_H * ZOOM; i++)
            for (int j = 0; j < 5 * ZOOM; j++) {
                int px = x + j, py = y + i;
                if (!(g[i / ZOOM] >> (4 - j / ZOOM) & 1) || px < 0 || px >= img->width || py < 0 || py >= img->height)
                    continue;
                memset(dr_image_row8(img, py) + 3 * (size_t)px, 255, 3);
            }
    }
}

static int text_width(const char *s) {
    return s ? (int)strlen(s) * GLYPH_W * ZOOM : 0;
}

static void paint(dr_image *img, int x0, int y0, int w, int h, const float *rgb) {
    size_t area = (size_t)w * (size_t)h;
    for (int y = 0; y < h; y++) {
        uint8_t *d = dr_image_row8(img, y0 + y) + 3 * (size_t)x0;
        for (int x = 0; x < w; x++)
            for (size_t c = 0; c < 3; c++) {
                float v = (rgb[c * area + (size_t)y * (size_t)w + (size_t)x] + 1) * 127.5f + 0.5f;
                *d++ = !(v > 0) ? 0 : v >= 255 ? 255 : (uint8_t)v;
            }
    }
}

dr_status dr_sheet_write(const dr_sheet *s, const char *path, dr_error *err) {
    if (s->cols < 1 || s->rows < 1 || s->w < 1 || s->h < 1) return dr_fail(err, DR_INVALID, "an empty sheet");
    int margin = 0, band = s->col_label ? BAND : 0;
    for (int j = 0; s->row_label && j < s->rows; j++) {
        int w = text_width(s->row_label[j]);
        if (w > margin) margin = w;
    }
    if (margin) margin += GAP;
    double width = margin + GAP + (double)s->cols * (s->w + GAP), height = band + GAP + (double)s->rows * (s->h + GAP);
    if (width > SIDE_MAX || height > SIDE_MAX)
        return dr_fail(err, DR_TOO_LARGE, "a sheet of %.0f x %.0f pixels, more than %d on a side", width, height,
                       SIDE_MAX);
    dr_image img = {0};
    void *png = NULL;
    size_t len = 0;
    dr_status st = dr_image_init(&img, (int)width, (int)height, 3, 8, err);
    if (st) return st;
    memset(img.pixels, 32, img.stride * (size_t)img.height);
    for (int i = 0; s->col_label && i < s->cols; i++)
        if (s->col_label[i]) text(&img, margin + GAP + i * (s->w + GAP), GAP, s->col_label[i]);
    for (int j = 0; j < s->rows; j++) {
        int y = band + GAP + j * (s->h + GAP);
        if (s->row_label && s->row_label[j]) text(&img, GAP, y, s->row_label[j]);
        for (int i = 0; i < s->cols; i++) {
            const float *c = s->cell[(size_t)j * (size_t)s->cols + (size_t)i];
            if (c) paint(&img, margin + GAP + i * (s->w + GAP), y, s->w, s->h, c);
        }
    }
    st = dr_image_encode(&img, DR_FORMAT_PNG, 0, true, &png, &len, err);
    if (!st) st = dr_fs_write_atomic(path, png, len, err);
    dr_free(png);
    dr_image_done(&img);
    return st;
}

/* |a-b| four times enlarged, on black. */
static void difference(const float *a, const float *b, size_t n, float *ret) {
    for (size_t i = 0; i < n; i++) ret[i] = 4 * fabsf(a[i] - b[i]) - 1;
}

dr_status dr_sheet_training(int n, int h, int w, const float *rainy, const float *rainy_out, const float *clean,
                            const float *clean_out, const char *path, dr_error *err) {
    static const char *const label[] = {"RAINY", "OUTPUT", "DIFF X4", "CLEAN", "OUTPUT", "DIFF X4"};
    size_t floats = 3 * (size_t)h * (size_t)w;
    if (n < 1) return dr_fail(err, DR_INVALID, "an empty sheet");
    float *diff = dr_malloc(sizeof *diff * 2 * floats * (size_t)n);
    const float **cell = dr_malloc(sizeof *cell * 6 * (size_t)n);
    dr_status s = DR_OK;
    if (!diff || !cell) s = dr_fail(err, DR_NOMEM, "no memory for a sample sheet");
    for (int i = 0; !s && i < n; i++) {
        size_t at = (size_t)i * floats;
        float *d = diff + 2 * at;
        difference(rainy + at, rainy_out + at, floats, d);
        difference(clean + at, clean_out + at, floats, d + floats);
        const float *row[6] = {rainy + at, rainy_out + at, d, clean + at, clean_out + at, d + floats};
        memcpy(cell + 6 * (size_t)i, row, sizeof row);
    }
    if (!s)
        s = dr_sheet_write(&(dr_sheet){.cols = 6, .rows = n, .w = w, .h = h, .cell = cell, .col_label = label}, path,
                           err);
    dr_free(cell);
    dr_free(diff);
    return s;
}
