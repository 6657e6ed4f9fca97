/* preview.c - implements dr_train_preview(): the samples that a training would see, as one sheet. */
#include "core/base/alloc.h"
#include "core/train/feed.h"
#include "core/train/preset.h"
#include "core/train/sheet.h"
#include <string.h>

dr_status dr_train_preview(const dr_train_opts *o, int n, const char *path, dr_error *err) {
    enum { COLS = 6 };
    dr_train_opts p = *o;
    dr_objective unused;
    dr_status s = dr_preset_fill(&p, &unused, err);
    if (s) return s;
    if (n < 1) return dr_fail(err, DR_INVALID, "a preview of %d samples", n);
    p.batch = 1;
    int half = (n + COLS - 1) / COLS, rows = 2 * half;
    size_t floats = 3 * (size_t)p.crop * (size_t)p.crop;
    dr_feed *f = NULL;
    float *data = dr_malloc(sizeof *data * floats * 2 * (size_t)n);
    const float **cell = dr_calloc((size_t)rows * COLS, sizeof *cell);
    const char **label = dr_malloc(sizeof *label * (size_t)rows);
    if (!data || !cell || !label) {
        s = dr_fail(err, DR_NOMEM, "no memory for %d samples", n);
        goto out;
    }
    s = dr_feed_open(&p, 0, &f, err);
    if (s) goto out;
    for (int j = 0; j < rows; j++) label[j] = j < half ? "RAINY" : "CLEAN";
    for (int i = 0; i < n; i++) {
        dr_batch b;
        float *rainy = data + 2 * floats * (size_t)i, *clean = rainy + floats;
        s = dr_feed_next(f, &b, err);
        if (s) goto out;
        memcpy(rainy, b.rainy, floats * sizeof *rainy);
        memcpy(clean, b.clean, floats * sizeof *clean);
        cell[i] = rainy;
        cell[half * COLS + i] = clean;
    }
    dr_grid sheet = {.cols = COLS, .rows = rows, .w = p.crop, .h = p.crop, .cell = cell, .row_label = label};
    s = dr_grid_write(&sheet, path, err);
out:
    dr_feed_close(f);
    dr_free(data);
    dr_free(cell);
    dr_free(label);
    return s;
}
