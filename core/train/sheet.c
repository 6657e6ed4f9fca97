/* sheet.c - paints cells of planar floats and their labels into one RGB picture. */
#include "core/train/sheet.h"
#include "core/base/alloc.h"
#include "core/base/fs.h"
#include "core/image/codec.h"
#include "core/image/draw.h"
#include <math.h>
#include <string.h>

enum { GAP = 4, ZOOM = 2, BAND = DR_GLYPH_H * ZOOM + 2 * GAP, SIDE_MAX = 30000 };

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

dr_status dr_grid_write(const dr_grid *s, const char *path, dr_error *err) {
    if (s->cols < 1 || s->rows < 1 || s->w < 1 || s->h < 1) return dr_fail(err, DR_INVALID, "an empty sheet");
    const dr_rgb white = {255, 255, 255};
    int zoom = ZOOM; /* of the column labels: all small where one does not fit over its column */
    for (int i = 0; s->col_label && i < s->cols; i++)
        if (s->col_label[i] && dr_draw_text_width(s->col_label[i], ZOOM) > s->w) zoom = 1;
    int margin = 0, band = s->col_label ? BAND : 0;
    for (int j = 0; s->row_label && j < s->rows; j++) {
        int w = s->row_label[j] ? dr_draw_text_width(s->row_label[j], ZOOM) : 0;
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
        if (s->col_label[i]) dr_draw_text(&img, margin + GAP + i * (s->w + GAP), GAP, zoom, white, s->col_label[i]);
    for (int j = 0; j < s->rows; j++) {
        int y = band + GAP + j * (s->h + GAP);
        if (s->row_label && s->row_label[j]) dr_draw_text(&img, GAP, y, ZOOM, white, s->row_label[j]);
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
    if (!diff || !cell) {
        s = dr_fail(err, DR_NOMEM, "no memory for a sample sheet");
        goto out;
    }
    for (int i = 0; i < n; i++) {
        size_t at = (size_t)i * floats;
        float *d = diff + 2 * at;
        difference(rainy + at, rainy_out + at, floats, d);
        difference(clean + at, clean_out + at, floats, d + floats);
        const float *row[6] = {rainy + at, rainy_out + at, d, clean + at, clean_out + at, d + floats};
        memcpy(cell + 6 * (size_t)i, row, sizeof row);
    }
    s = dr_grid_write(&(dr_grid){.cols = 6, .rows = n, .w = w, .h = h, .cell = cell, .col_label = label}, path, err);
out:
    dr_free(cell);
    dr_free(diff);
    return s;
}
