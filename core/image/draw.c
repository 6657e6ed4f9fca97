/* draw.c - filling, pasting, a 5x7 font and the contact sheet. Every loop is clipped once, before it starts. */
#include "core/image/draw.h"
#include <assert.h>
#include <string.h>

#define GAP 8 /* pixels round every cell of a sheet */

/* Rows of five dots, the leftmost in bit 4. */
typedef struct glyph {
    char c;
    uint8_t rows[DR_GLYPH_H];
} glyph;

static const glyph font[] = {
    {' ', {0}},
    {'A', {0x0E, 0x11, 0x11, 0x1F, 0x11, 0x11, 0x11}},
    {'B', {0x1E, 0x11, 0x11, 0x1E, 0x11, 0x11, 0x1E}},
    {'C', {0x0E, 0x11, 0x10, 0x10, 0x10, 0x11, 0x0E}},
    {'D', {0x1E, 0x11, 0x11, 0x11, 0x11, 0x11, 0x1E}},
    {'E', {0x1F, 0x10, 0x10, 0x1E, 0x10, 0x10, 0x1F}},
    {'F', {0x1F, 0x10, 0x10, 0x1E, 0x10, 0x10, 0x10}},
    {'G', {0x0E, 0x11, 0x10, 0x17, 0x11, 0x11, 0x0F}},
    {'H', {0x11, 0x11, 0x11, 0x1F, 0x11, 0x11, 0x11}},
    {'I', {0x0E, 0x04, 0x04, 0x04, 0x04, 0x04, 0x0E}},
    {'J', {0x07, 0x02, 0x02, 0x02, 0x02, 0x12, 0x0C}},
    {'K', {0x11, 0x12, 0x14, 0x18, 0x14, 0x12, 0x11}},
    {'L', {0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x1F}},
    {'M', {0x11, 0x1B, 0x15, 0x15, 0x11, 0x11, 0x11}},
    {'N', {0x11, 0x19, 0x15, 0x13, 0x11, 0x11, 0x11}},
    {'O', {0x0E, 0x11, 0x11, 0x11, 0x11, 0x11, 0x0E}},
    {'P', {0x1E, 0x11, 0x11, 0x1E, 0x10, 0x10, 0x10}},
    {'Q', {0x0E, 0x11, 0x11, 0x11, 0x15, 0x12, 0x0D}},
    {'R', {0x1E, 0x11, 0x11, 0x1E, 0x14, 0x12, 0x11}},
    {'S', {0x0F, 0x10, 0x10, 0x0E, 0x01, 0x01, 0x1E}},
    {'T', {0x1F, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04}},
    {'U', {0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x0E}},
    {'V', {0x11, 0x11, 0x11, 0x11, 0x11, 0x0A, 0x04}},
    {'W', {0x11, 0x11, 0x11, 0x15, 0x15, 0x1B, 0x11}},
    {'X', {0x11, 0x11, 0x0A, 0x04, 0x0A, 0x11, 0x11}},
    {'Y', {0x11, 0x11, 0x0A, 0x04, 0x04, 0x04, 0x04}},
    {'Z', {0x1F, 0x01, 0x02, 0x04, 0x08, 0x10, 0x1F}},
    {'0', {0x0E, 0x11, 0x13, 0x15, 0x19, 0x11, 0x0E}},
    {'1', {0x04, 0x0C, 0x04, 0x04, 0x04, 0x04, 0x0E}},
    {'2', {0x0E, 0x11, 0x01, 0x06, 0x08, 0x10, 0x1F}},
    {'3', {0x1F, 0x02, 0x04, 0x06, 0x01, 0x11, 0x0E}},
    {'4', {0x02, 0x06, 0x0A, 0x12, 0x1F, 0x02, 0x02}},
    {'5', {0x1F, 0x10, 0x1E, 0x01, 0x01, 0x11, 0x0E}},
    {'6', {0x06, 0x08, 0x10, 0x1E, 0x11, 0x11, 0x0E}},
    {'7', {0x1F, 0x01, 0x02, 0x04, 0x08, 0x08, 0x08}},
    {'8', {0x0E, 0x11, 0x11, 0x0E, 0x11, 0x11, 0x0E}},
    {'9', {0x0E, 0x11, 0x11, 0x0F, 0x01, 0x02, 0x0C}},
    {'.', {0, 0, 0, 0, 0, 0x0C, 0x0C}},
    {',', {0, 0, 0, 0, 0x0C, 0x04, 0x08}},
    {':', {0, 0x0C, 0x0C, 0, 0x0C, 0x0C, 0}},
    {';', {0, 0x0C, 0x0C, 0, 0x0C, 0x04, 0x08}},
    {'-', {0, 0, 0, 0x1F, 0, 0, 0}},
    {'+', {0, 0x04, 0x04, 0x1F, 0x04, 0x04, 0}},
    {'=', {0, 0, 0x1F, 0, 0x1F, 0, 0}},
    {'_', {0, 0, 0, 0, 0, 0, 0x1F}},
    {'/', {0x01, 0x01, 0x02, 0x04, 0x08, 0x10, 0x10}},
    {'\\', {0x10, 0x10, 0x08, 0x04, 0x02, 0x01, 0x01}},
    {'(', {0x02, 0x04, 0x08, 0x08, 0x08, 0x04, 0x02}},
    {')', {0x08, 0x04, 0x02, 0x02, 0x02, 0x04, 0x08}},
    {'[', {0x0E, 0x08, 0x08, 0x08, 0x08, 0x08, 0x0E}},
    {']', {0x0E, 0x02, 0x02, 0x02, 0x02, 0x02, 0x0E}},
    {'<', {0x02, 0x04, 0x08, 0x10, 0x08, 0x04, 0x02}},
    {'>', {0x08, 0x04, 0x02, 0x01, 0x02, 0x04, 0x08}},
    {'%', {0x18, 0x19, 0x02, 0x04, 0x08, 0x13, 0x03}},
    {'!', {0x04, 0x04, 0x04, 0x04, 0x04, 0, 0x04}},
    {'?', {0x0E, 0x11, 0x01, 0x02, 0x04, 0, 0x04}},
    {'#', {0x0A, 0x0A, 0x1F, 0x0A, 0x1F, 0x0A, 0x0A}},
    {'*', {0, 0x15, 0x0E, 0x1F, 0x0E, 0x15, 0}},
    {'\'', {0x04, 0x04, 0x08, 0, 0, 0, 0}},
    {'"', {0x0A, 0x0A, 0x0A, 0, 0, 0, 0}},
};

static const uint8_t *find_glyph(char c) {
    static const uint8_t box[DR_GLYPH_H] = {0x1F, 0x11, 0x11, 0x11, 0x11, 0x11, 0x1F};
    if (c >= 'a' && c <= 'z') c = (char)(c - 'a' + 'A');
    for (size_t i = 0; i < sizeof font / sizeof *font; i++)
        if (font[i].c == c) return font[i].rows;
    return box;
}

/* [*from, *from + *n) cut to [0, size); what was cut at the front comes back. */
static int clip(int *from, int *n, int size) {
    const int64_t start = *from < 0 ? 0 : *from;
    int64_t end = (int64_t)*from + *n;
    if (end > size) end = size;
    const int64_t cut = start - *from;
    *n = end > start ? (int)(end - start) : 0;
    *from = (int)start;
    return (int)cut;
}

static uint8_t grey_of(dr_rgb c) {
    return (uint8_t)((c.r + c.g + c.b + 1) / 3);
}

static void put_dot(uint8_t *p, int channels, dr_rgb c) {
    if (channels == 1) {
        p[0] = grey_of(c);
        return;
    }
    p[0] = c.r;
    p[1] = c.g;
    p[2] = c.b;
}

void dr_draw_fill(dr_image *sheet, int x, int y, int w, int h, dr_rgb colour) {
    assert(sheet->depth == 8 && sheet->channels % 2 == 1);
    clip(&x, &w, sheet->width);
    clip(&y, &h, sheet->height);
    for (int r = 0; r < h; r++) {
        uint8_t *to = dr_image_row8(sheet, y + r) + (size_t)x * (size_t)sheet->channels;
        for (int i = 0; i < w; i++, to += sheet->channels) put_dot(to, sheet->channels, colour);
    }
}

/* Sample i of a row on the scale 0..255. */
static unsigned sample(const dr_image *img, int y, size_t i) {
    return img->depth == 8 ? dr_image_row8(img, y)[i] : dr_image_to8(dr_image_row16(img, y)[i]);
}

static uint8_t over(unsigned above, unsigned below, unsigned alpha) {
    return (uint8_t)((above * alpha + below * (255 - alpha) + 127) / 255);
}

void dr_draw_image(dr_image *sheet, int x, int y, const dr_image *img) {
    assert(sheet->depth == 8 && sheet->channels % 2 == 1);
    int w = img->width, h = img->height;
    const int skip_x = clip(&x, &w, sheet->width), skip_y = clip(&y, &h, sheet->height);
    const size_t c = (size_t)img->channels, k = (size_t)sheet->channels;
    for (int r = 0; r < h; r++) {
        uint8_t *to = dr_image_row8(sheet, y + r) + (size_t)x * k;
        for (int i = 0; i < w; i++, to += k) {
            const size_t at = (size_t)(skip_x + i) * c;
            const unsigned alpha = c % 2 ? 255 : sample(img, skip_y + r, at + c - 1);
            unsigned v[3] = {0};
            for (size_t j = 0; j < 3; j++) v[j] = sample(img, skip_y + r, at + (c < 3 ? 0 : j));
            if (k == 1) v[0] = (v[0] + v[1] + v[2] + 1) / 3;
            for (size_t j = 0; j < (k == 1 ? 1 : 3); j++) to[j] = over(v[j], to[j], alpha);
        }
    }
}

int dr_draw_text_width(const char *text, int scale) {
    return (int)strlen(text) * (DR_GLYPH_W + 1) * scale;
}

int dr_draw_text(dr_image *sheet, int x, int y, int scale, dr_rgb colour, const char *text) {
    for (; *text; text++, x += (DR_GLYPH_W + 1) * scale) {
        const uint8_t *rows = find_glyph(*text);
        for (int r = 0; r < DR_GLYPH_H; r++)
            for (int i = 0; i < DR_GLYPH_W; i++)
                if (rows[r] & 1 << (DR_GLYPH_W - 1 - i))
                    dr_draw_fill(sheet, x + i * scale, y + r * scale, scale, scale, colour);
    }
    return x;
}

dr_status dr_sheet(const dr_sheet_cell *cells, int n, int columns, dr_image *ret, dr_error *err) {
    int w = 0, h = 0, label_h = 0;
    for (int i = 0; i < n; i++) {
        if (cells[i].img && cells[i].img->width > w) w = cells[i].img->width;
        if (cells[i].img && cells[i].img->height > h) h = cells[i].img->height;
        if (cells[i].label) label_h = 1;
    }
    if (n < 1 || columns < 1 || w == 0) return dr_fail(err, DR_INVALID, "a contact sheet without pictures");
    if (columns > n) columns = n;
    const int scale = w >= 400 ? 2 : 1, rows = (n + columns - 1) / columns;
    label_h *= (DR_GLYPH_H + 4) * scale;
    const int64_t step_x = (int64_t)w + GAP, step_y = (int64_t)h + label_h + GAP;
    const int64_t sheet_w = step_x * columns + GAP, sheet_h = step_y * rows + GAP;
    if (sheet_w > INT32_MAX || sheet_h > INT32_MAX)
        return dr_fail(err, DR_TOO_LARGE, "a contact sheet of %lld x %lld pixels", (long long)sheet_w,
                       (long long)sheet_h);
    dr_image sheet = {0};
    dr_status s = dr_image_init(&sheet, (int)sheet_w, (int)sheet_h, 3, 8, err);
    if (s) return s;
    dr_draw_fill(&sheet, 0, 0, sheet.width, sheet.height, (dr_rgb){32, 32, 32});
    for (int i = 0; i < n; i++) {
        const int x = GAP + (int)step_x * (i % columns), y = GAP + (int)step_y * (i / columns);
        if (cells[i].label) dr_draw_text(&sheet, x, y, scale, (dr_rgb){235, 235, 235}, cells[i].label);
        if (cells[i].img) dr_draw_image(&sheet, x, y + label_h, cells[i].img);
    }
    *ret = sheet;
    return DR_OK;
}
