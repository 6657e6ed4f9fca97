/* contact.c - the contact sheet of a data set (core/pictures.h): pictures are read, shrunk and drawn one at a time, so
 * that the sheet is all that grows with their number. */
#include "core/base/alloc.h"
#include "core/image/codec.h"
#include "core/image/draw.h"
#include "core/image/resize.h"
#include "core/pictures.h"
#include <stdio.h>
#include <string.h>

enum { GAP = 6, LABEL = DR_GLYPH_H + 4, SIDE_MAX = 65535 };

static const dr_rgb ground = {32, 32, 32}, ink = {235, 235, 235}, red = {220, 60, 50};

/* img made to fit side x side, 8 bits. Long thin pictures keep at least one pixel. */
static dr_status fit(dr_image *img, int side, dr_image *ret, dr_error *err) {
    const int longer = img->width > img->height ? img->width : img->height;
    dr_status s = dr_image_set_depth(img, 8, err);
    if (s) return s;
    if (longer <= side) {
        *ret = *img;
        *img = (dr_image){0};
        return DR_OK;
    }
    int w = (int)((int64_t)img->width * side / longer), h = (int)((int64_t)img->height * side / longer);
    return dr_image_resize(img, w ? w : 1, h ? h : 1, ret, err);
}

static void frame(dr_image *sheet, int x, int y, int w, int h) {
    dr_draw_fill(sheet, x - 3, y - 3, w + 6, 3, red);
    dr_draw_fill(sheet, x - 3, y + h, w + 6, 3, red);
    dr_draw_fill(sheet, x - 3, y, 3, h, red);
    dr_draw_fill(sheet, x + w, y, 3, h, red);
}

static void cross_out(dr_image *sheet, int x, int y, int side) {
    for (int i = 0; i < side; i++) {
        dr_draw_fill(sheet, x + i, y + i, 2, 2, red);
        dr_draw_fill(sheet, x + side - 1 - i, y + i, 2, 2, red);
    }
}

/* As much of the label as fits above a place. */
static void write_label(dr_image *sheet, int x, int y, int side, const char *label) {
    char text[128];
    snprintf(text, sizeof text, "%s", label);
    const size_t fits = (size_t)(side / (DR_GLYPH_W + 1));
    if (strlen(text) > fits) text[fits] = 0;
    (void)dr_draw_text(sheet, x, y, 1, ink, text);
}

/* NOMEM ends the sheet; what is wrong with one picture does not. */
static dr_status place(dr_image *sheet, int x, int y, int side, int i, bool marked, const dr_limits *lim,
                       dr_contact_read read, void *arg, dr_error *err) {
    char *data = NULL;
    size_t len = 0;
    dr_image img = {0}, small = {0};
    dr_error why = {0};
    dr_status s = read(arg, i, &data, &len, &why);
    if (!s) s = dr_image_decode(data, len, lim, &img, &why);
    if (!s) s = fit(&img, side, &small, &why);
    dr_free(data);
    dr_image_done(&img);
    if (!s) {
        dr_draw_image(sheet, x, y, &small);
        if (marked) frame(sheet, x, y, small.width, small.height);
    } else {
        cross_out(sheet, x, y, side);
    }
    dr_image_done(&small);
    return s == DR_NOMEM ? dr_fail(err, s, "no memory for a contact sheet") : DR_OK;
}

dr_status dr_contact_sheet(const dr_contact_item *items, int n, int columns, int side, const dr_limits *lim,
                           dr_contact_read read, void *arg, void **ret_png, size_t *ret_len, dr_error *err) {
    dr_limits filled = {0};
    dr_image sheet = {0};
    if (n < 1 || columns < 1 || side < 32 || side > 512)
        return dr_fail(err, DR_INVALID, "a contact sheet of %d pictures in %d columns of %d pixels", n, columns, side);
    if (columns > n) columns = n;
    const int rows = (n + columns - 1) / columns, step_x = side + GAP, step_y = side + GAP + LABEL;
    if (step_x > SIDE_MAX / columns || step_y > SIDE_MAX / rows)
        return dr_fail(err, DR_TOO_LARGE, "a contact sheet of %d pictures is too large", n);
    if (lim) filled = *lim;
    dr_limits_fill(&filled);
    dr_status s = dr_image_init(&sheet, columns * step_x + GAP, rows * step_y + GAP, 3, 8, err);
    if (s) return s;
    dr_draw_fill(&sheet, 0, 0, sheet.width, sheet.height, ground);
    for (int i = 0; i < n && !s; i++) {
        const int x = GAP + i % columns * step_x, y = GAP + i / columns * step_y;
        if (items[i].label) write_label(&sheet, x, y, side, items[i].label);
        s = place(&sheet, x, y + LABEL, side, i, items[i].marked, &filled, read, arg, err);
    }
    if (!s) s = dr_image_encode(&sheet, DR_FORMAT_PNG, 0, true, ret_png, ret_len, err);
    dr_image_done(&sheet);
    return s;
}
