/* draw.h - pictures and short labels put onto a sheet: contact sheets of a training, before/after pictures.
 *
 * Sheets have 8 bits and 1 or 3 channels. Whatever lies outside a sheet is cut off; no call can fail but dr_sheet. */
#ifndef DR_IMAGE_DRAW_H
#define DR_IMAGE_DRAW_H

#include "core/image/image.h"

#define DR_GLYPH_W 5
#define DR_GLYPH_H 7

typedef struct dr_rgb {
    uint8_t r, g, b;
} dr_rgb;

void dr_draw_fill(dr_image *sheet, int x, int y, int w, int h, dr_rgb colour);

/* Any channels and depth; alpha is laid over what is there. */
void dr_draw_image(dr_image *sheet, int x, int y, const dr_image *img);

/* ASCII, one line, small letters as capitals, a box for what the font lacks. Each dot is scale x scale pixels; a
 * letter takes 6 * scale in width. Returns the x behind the text. */
int dr_draw_text(dr_image *sheet, int x, int y, int scale, dr_rgb colour, const char *text);
int dr_draw_text_width(const char *text, int scale);

typedef struct dr_sheet_cell {
    const dr_image *img; /* NULL leaves the place empty; borrowed */
    const char *label;   /* NULL = none */
} dr_sheet_cell;

/* Lay n cells out in rows of `columns`; each place is as large as the largest picture, labels stand above. RGB, 8 bits,
 * the caller calls dr_image_done. Errors: INVALID (nothing to show), TOO_LARGE, NOMEM. */
DR_MUSTUSE dr_status dr_sheet(const dr_sheet_cell *cells, int n, int columns, dr_image *ret, dr_error *err);

#endif
