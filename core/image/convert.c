/* convert.c - plain loops over rows; the innermost ones have a constant step, so that the compiler can vectorise them.
 */
#include "core/image/convert.h"
#include <assert.h>
#include <string.h>

/* Index i >= 0 mirrored into 0..n-1 without repeating the edge. */
static int mirror(int i, int n) {
    if (i < n) return i;
    if (n == 1) return 0;
    const int period = 2 * (n - 1);
    i %= period;
    return i < n ? i : period - i;
}

static void mirror_right(float *row, int w, int pw) {
    for (int x = w; x < pw; x++) row[x] = row[mirror(x, w)];
}

/* ---- from pixels ------------------------------------------------------------------------------------------------ */

/* 1/127.5 is not exact in binary: divide, so that 255 gives 1 and the values are those of the formula. */
static void take8(const uint8_t *from, int step, int n, float *to) {
    for (int i = 0; i < n; i++) to[i] = (float)from[(size_t)i * (size_t)step] / 127.5F - 1.0F;
}

static void take16(const uint16_t *from, int step, int n, float *to) {
    for (int i = 0; i < n; i++) to[i] = (float)from[(size_t)i * (size_t)step] / 32767.5F - 1.0F;
}

void dr_planar_rows_from_image(const dr_image *img, float *ret, int pw, int y0, int n) {
    assert(pw >= img->width && y0 >= 0);
    const int w = img->width, c = img->channels;
    const size_t plane = (size_t)n * (size_t)pw;
    for (int r = 0; r < n; r++) {
        const int y = mirror(y0 + r, img->height);
        float *to[3];
        for (int k = 0; k < 3; k++) to[k] = ret + (size_t)k * plane + (size_t)r * (size_t)pw;
        for (int k = 0; k < (c < 3 ? 1 : 3); k++) {
            if (img->depth == 8)
                take8(dr_image_row8(img, y) + k, c, w, to[k]);
            else
                take16(dr_image_row16(img, y) + k, c, w, to[k]);
            mirror_right(to[k], w, pw);
        }
        if (c < 3)
            for (int k = 1; k < 3; k++) memcpy(to[k], to[0], (size_t)pw * sizeof(float));
    }
}

void dr_planar_from_image(const dr_image *img, float *ret, int pw, int ph) {
    assert(ph >= img->height);
    dr_planar_rows_from_image(img, ret, pw, 0, ph);
}

/* ---- to pixels -------------------------------------------------------------------------------------------------- */

/* (v+1) * half, rounded to the nearest of 0 .. 2*half. A NaN fails the first comparison. */
static inline int level(float v, float half) {
    v = v > -1.0F ? v : -1.0F;
    v = v < 1.0F ? v : 1.0F;
    return (int)(v * half + (half + 0.5F));
}

static void put_8(const float *from, int step, int n, uint8_t *to) {
    for (int i = 0; i < n; i++) to[(size_t)i * (size_t)step] = (uint8_t)level(from[i], 127.5F);
}

static void put_16(const float *from, int step, int n, uint16_t *to) {
    for (int i = 0; i < n; i++) to[(size_t)i * (size_t)step] = (uint16_t)level(from[i], 32767.5F);
}

static void put_grey_8(const float *r, const float *g, const float *b, int step, int n, uint8_t *to) {
    for (int i = 0; i < n; i++) to[(size_t)i * (size_t)step] = (uint8_t)level((r[i] + g[i] + b[i]) / 3.0F, 127.5F);
}

static void put_grey_16(const float *r, const float *g, const float *b, int step, int n, uint16_t *to) {
    for (int i = 0; i < n; i++) to[(size_t)i * (size_t)step] = (uint16_t)level((r[i] + g[i] + b[i]) / 3.0F, 32767.5F);
}

/* One row of the picture from the three planes' rows, which lie `plane` floats apart. */
static void put_row(const float *from, size_t plane, int y, dr_image *img) {
    const int w = img->width, c = img->channels;
    if (img->depth == 8) {
        uint8_t *to = dr_image_row8(img, y);
        if (c < 3) put_grey_8(from, from + plane, from + 2 * plane, c, w, to);
        for (size_t k = 0; c >= 3 && k < 3; k++) put_8(from + k * plane, c, w, to + k);
    } else {
        uint16_t *to = dr_image_row16(img, y);
        if (c < 3) put_grey_16(from, from + plane, from + 2 * plane, c, w, to);
        for (size_t k = 0; c >= 3 && k < 3; k++) put_16(from + k * plane, c, w, to + k);
    }
}

void dr_planar_rows_to_image(const float *rgb, int pw, int y0, int n, dr_image *img) {
    assert(pw >= img->width && y0 >= 0 && y0 + n <= img->height);
    for (int r = 0; r < n; r++) put_row(rgb + (size_t)r * (size_t)pw, (size_t)n * (size_t)pw, y0 + r, img);
}

void dr_planar_to_image(const float *rgb, int pw, int ph, dr_image *img) {
    assert(pw >= img->width && ph >= img->height);
    for (int y = 0; y < img->height; y++) put_row(rgb + (size_t)y * (size_t)pw, (size_t)ph * (size_t)pw, y, img);
}

/* ---- padding ---------------------------------------------------------------------------------------------------- */

void dr_planar_pad(const float *x, int channels, int h, int w, float *ret, int ph, int pw) {
    assert(ph >= h && pw >= w);
    for (int c = 0; c < channels; c++)
        for (int y = 0; y < ph; y++) {
            float *to = ret + ((size_t)c * (size_t)ph + (size_t)y) * (size_t)pw;
            memcpy(to, x + ((size_t)c * (size_t)h + (size_t)mirror(y, h)) * (size_t)w, (size_t)w * sizeof(float));
            mirror_right(to, w, pw);
        }
}

void dr_planar_crop(const float *x, int channels, int ph, int pw, float *ret, int h, int w) {
    assert(ph >= h && pw >= w);
    for (int c = 0; c < channels; c++)
        for (int y = 0; y < h; y++)
            memcpy(ret + ((size_t)c * (size_t)h + (size_t)y) * (size_t)w,
                   x + ((size_t)c * (size_t)ph + (size_t)y) * (size_t)pw, (size_t)w * sizeof(float));
}
