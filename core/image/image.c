/* image.c - owner of a decoded picture: checked sizes, turning upright, change of depth. */
#include "core/image/image.h"
#include "core/base/alloc.h"
#include <assert.h>
#include <string.h>

bool dr_image_bytes(int width, int height, int channels, int depth, size_t *ret) {
    size_t n;
    if (width <= 0 || height <= 0 || channels < 1 || channels > 4 || (depth != 8 && depth != 16)) return false;
    if (!dr_mul_size((size_t)width, (size_t)channels * (size_t)(depth / 8), &n)) return false;
    return dr_mul_size(n, (size_t)height, ret);
}

dr_status dr_image_init(dr_image *img, int width, int height, int channels, int depth, dr_error *err) {
    size_t n;
    if (width <= 0 || height <= 0 || channels < 1 || channels > 4 || (depth != 8 && depth != 16))
        return dr_fail(err, DR_INVALID, "no such picture: %d x %d, %d channels, %d bits", width, height, channels,
                       depth);
    if (!dr_image_bytes(width, height, channels, depth, &n))
        return dr_fail(err, DR_TOO_LARGE, "a picture of %d x %d does not fit the address space", width, height);
    void *pixels = dr_calloc(n, 1);
    if (!pixels) return dr_fail(err, DR_NOMEM, "no memory for the pixels of a %d x %d picture", width, height);
    *img = (dr_image){.width = width,
                      .height = height,
                      .channels = channels,
                      .depth = depth,
                      .stride = n / (size_t)height,
                      .pixels = pixels};
    return DR_OK;
}

void dr_image_meta_done(dr_image_meta *m) {
    if (!m) return;
    dr_free(m->icc);
    dr_free(m->exif);
    *m = (dr_image_meta){0};
}

void dr_image_done(dr_image *img) {
    if (!img) return;
    dr_free(img->pixels);
    dr_image_meta_done(&img->meta);
    *img = (dr_image){0};
}

uint8_t *dr_image_row8(const dr_image *img, int y) {
    assert(img->depth == 8 && y >= 0 && y < img->height);
    return (uint8_t *)img->pixels + (size_t)y * img->stride;
}

uint16_t *dr_image_row16(const dr_image *img, int y) {
    assert(img->depth == 16 && y >= 0 && y < img->height);
    return (uint16_t *)((char *)img->pixels + (size_t)y * img->stride);
}

/* ---- orientation ------------------------------------------------------------------------------------------------ */

/* dst is (h',w') upright; src pixel of (y,x) is at base + y*dy + x*dx. Tiles keep both sides in the cache when rows
 * become columns; the size of a pixel is a constant in each copy below, so that memcpy is a move. */
#define TILE 32
#define COPY_TILES(BYTES)                                                                                              \
    static void copy_tiles_##BYTES(char *dst, const char *base, int w, int h, ptrdiff_t dx, ptrdiff_t dy) {            \
        for (int y0 = 0; y0 < h; y0 += TILE)                                                                           \
            for (int x0 = 0; x0 < w; x0 += TILE)                                                                       \
                for (int y = y0; y < h && y < y0 + TILE; y++) {                                                        \
                    const char *s = base + y * dy + x0 * dx;                                                           \
                    char *d = dst + ((ptrdiff_t)y * w + x0) * (BYTES);                                                 \
                    for (int x = x0; x < w && x < x0 + TILE; x++, s += dx, d += (BYTES)) memcpy(d, s, (BYTES));        \
                }                                                                                                      \
    }
COPY_TILES(1)
COPY_TILES(2)
COPY_TILES(3)
COPY_TILES(4)
COPY_TILES(6)
COPY_TILES(8)

dr_status dr_image_orient(dr_image *img, int orientation, dr_error *err) {
    if (orientation < 2 || orientation > 8) return DR_OK;
    const bool swap = orientation >= 5;
    const int w = swap ? img->height : img->width, h = swap ? img->width : img->height;
    const ptrdiff_t px = img->channels * (img->depth / 8), row = (ptrdiff_t)img->stride;
    const ptrdiff_t right = (img->width - 1) * px, bottom = (img->height - 1) * row;
    /* Where upright (0,0) comes from, and the step in the stored picture for one to the right and one down. */
    const struct {
        ptrdiff_t start, dx, dy;
    } from[9] = {
        [2] = {right, -px, row},           /* mirrored */
        [3] = {right + bottom, -px, -row}, /* upside down */
        [4] = {bottom, px, -row},          /* mirrored upside down */
        [5] = {0, row, px},                /* transposed */
        [6] = {bottom, -row, px},          /* turn clockwise */
        [7] = {right + bottom, -row, -px}, /* transposed along the other diagonal */
        [8] = {right, row, -px},           /* turn counter-clockwise */
    };
    char *dst = dr_malloc(img->stride * (size_t)img->height);
    if (!dst) return dr_fail(err, DR_NOMEM, "no memory to turn a %d x %d picture", img->width, img->height);
    const char *base = (const char *)img->pixels + from[orientation].start;
    const ptrdiff_t dx = from[orientation].dx, dy = from[orientation].dy;
    switch (px) {
    case 1:
        copy_tiles_1(dst, base, w, h, dx, dy);
        break;
    case 2:
        copy_tiles_2(dst, base, w, h, dx, dy);
        break;
    case 3:
        copy_tiles_3(dst, base, w, h, dx, dy);
        break;
    case 4:
        copy_tiles_4(dst, base, w, h, dx, dy);
        break;
    case 6:
        copy_tiles_6(dst, base, w, h, dx, dy);
        break;
    default:
        copy_tiles_8(dst, base, w, h, dx, dy);
        break;
    }
    dr_free(img->pixels);
    img->pixels = dst;
    img->width = w;
    img->height = h;
    img->stride = (size_t)w * (size_t)px;
    return DR_OK;
}

/* ---- depth and copies ------------------------------------------------------------------------------------------- */

dr_status dr_image_set_depth(dr_image *img, int depth, dr_error *err) {
    if (depth == img->depth) return DR_OK;
    dr_image to = {0};
    dr_status s = dr_image_init(&to, img->width, img->height, img->channels, depth, err);
    if (s) return s;
    const size_t n = (size_t)img->width * (size_t)img->height * (size_t)img->channels;
    if (depth == 16) {
        const uint8_t *from = img->pixels;
        uint16_t *d = to.pixels;
        for (size_t i = 0; i < n; i++) d[i] = (uint16_t)(from[i] * 257u);
    } else {
        const uint16_t *from = img->pixels;
        uint8_t *d = to.pixels;
        for (size_t i = 0; i < n; i++) d[i] = dr_image_to8(from[i]);
    }
    dr_free(img->pixels);
    to.meta = img->meta;
    *img = to;
    return DR_OK;
}

static bool copy_bytes(const uint8_t *from, size_t n, uint8_t **ret) {
    *ret = NULL;
    if (!from) return true;
    *ret = dr_malloc(n);
    if (*ret) memcpy(*ret, from, n);
    return *ret != NULL;
}

dr_status dr_image_meta_copy(const dr_image_meta *m, dr_image_meta *ret, dr_error *err) {
    dr_image_meta to = *m;
    to.icc = to.exif = NULL;
    if (!copy_bytes(m->icc, m->icc_len, &to.icc) || !copy_bytes(m->exif, m->exif_len, &to.exif)) {
        dr_image_meta_done(&to);
        return dr_fail(err, DR_NOMEM, "no memory for a picture's metadata");
    }
    *ret = to;
    return DR_OK;
}

dr_status dr_image_copy(const dr_image *img, dr_image *ret, dr_error *err) {
    dr_image to = {0};
    dr_status s = dr_image_init(&to, img->width, img->height, img->channels, img->depth, err);
    if (s) return s;
    memcpy(to.pixels, img->pixels, img->stride * (size_t)img->height);
    if ((s = dr_image_meta_copy(&img->meta, &to.meta, err))) {
        dr_image_done(&to);
        return s;
    }
    *ret = to;
    return DR_OK;
}
