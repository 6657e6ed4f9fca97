/* sheet.h - contact sheets as PNG: what goes in, what comes out, and the difference, to look at while training. */
#ifndef DR_TRAIN_SHEET_H
#define DR_TRAIN_SHEET_H

#include "core/base/status.h"

/* Grid of cols x rows cells of w x h pixels; cell[i] is (3,h,w) planar in [-1,1] or NULL (left empty), row by row.
 * col_label and row_label: one text a column or row, or NULL. Written atomically. */
typedef struct dr_grid {
    int cols, rows, w, h;
    const float *const *cell;
    const char *const *col_label;
    const char *const *row_label;
} dr_grid;
DR_MUSTUSE dr_status dr_grid_write(const dr_grid *s, const char *path, dr_error *err);

/* The trainer's sheet: n rows (rainy, output, |difference| x 4) beside (clean, clean through the net, |difference| x
 * 4). All are (n,3,h,w) planar in [-1,1]. */
DR_MUSTUSE dr_status dr_sheet_training(int n, int h, int w, const float *rainy, const float *rainy_out,
                                       const float *clean, const float *clean_out, const char *path, dr_error *err);

#endif
