/* resize.c - separable bicubic interpolation with a table of weights for each output position. */
#include "core/image/resize.h"
#include "core/base/alloc.h"
#include <math.h>
#include <string.h>

#define SIDE_MAX  65535
#define PRECISION 22 /* bits of a fixed-point weight: 32 less 8 of the sample and 2 for sums above 1 */

/* For output i: input samples first[i] .. first[i]+count[i]-1 with weights w[i*width ...]. */
typedef struct table {
    int width; /* most weights of one output */
    int *first, *count;
    double *w;
} table;

/* Keys' cubic with a = -0.5, which reproduces parabolas. */
static double cubic(double x) {
    const double a = -0.5;
    x = fabs(x);
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
    return 0;
}

static void table_done(table *t) {
    dr_free(t->first);
    dr_free(t->count);
    dr_free(t->w);
    *t = (table){0};
}

static dr_status table_init(table *t, int in, int out, dr_error *err) {
    const double scale = (double)in / out, wide = scale > 1 ? scale : 1, support = 2 * wide;
    const int width = (int)ceil(support) * 2 + 1;
    *t = (table){.width = width,
                 .first = dr_calloc((size_t)out, sizeof(int)),
                 .count = dr_calloc((size_t)out, sizeof(int)),
                 .w = dr_calloc((size_t)out * (size_t)width, sizeof(double))};
    if (!t->first || !t->count || !t->w) {
        table_done(t);
        return dr_fail(err, DR_NOMEM, "no memory to resize a picture");
    }
    for (int i = 0; i < out; i++) {
        const double centre = (i + 0.5) * scale;
        int lo = (int)(centre - support + 0.5), hi = (int)(centre + support + 0.5);
        if (lo < 0) lo = 0;
        if (hi > in) hi = in;
        double *w = t->w + (size_t)i * (size_t)width, sum = 0;
        for (int k = 0; k < hi - lo; k++) sum += w[k] = cubic((k + lo - centre + 0.5) * (1 / wide));
        for (int k = 0; k < hi - lo; k++)
            if (sum != 0) w[k] /= sum;
        t->first[i] = lo;
        t->count[i] = hi - lo;
    }
    return DR_OK;
}

static bool sides_fit(int w, int h, int width, int height) {
    return w >= 1 && h >= 1 && width >= 1 && height >= 1 && w <= SIDE_MAX && h <= SIDE_MAX && width <= SIDE_MAX &&
           height <= SIDE_MAX;
}

/* ---- 8 bits ----------------------------------------------------------------------------------------------------- */

/* Fixed-point weights in place of the doubles (a double holds them exactly), rounded half away from zero. */
static int32_t *fixed_weights(const table *t, int out, dr_error *err) {
    const size_t n = (size_t)out * (size_t)t->width;
    int32_t *ret = dr_calloc(n, sizeof(int32_t));
    if (!ret) {
        dr_fail(err, DR_NOMEM, "no memory to resize a picture");
        return NULL;
    }
    for (size_t i = 0; i < n; i++) {
        const double v = t->w[i] * (1 << PRECISION);
        ret[i] = (int32_t)(v < 0 ? v - 0.5 : v + 0.5);
    }
    return ret;
}

static uint8_t clip8(int32_t v) {
    v >>= PRECISION;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

static void resize_rows8(const dr_image *img, const table *t, const int32_t *w, dr_image *ret) {
    const int c = img->channels;
    for (int y = 0; y < img->height; y++) {
        const uint8_t *in = dr_image_row8(img, y);
        uint8_t *out = dr_image_row8(ret, y);
        for (int x = 0; x < ret->width; x++) {
            const int32_t *k = w + (size_t)x * (size_t)t->width;
            const uint8_t *p = in + (size_t)t->first[x] * (size_t)c;
            for (int i = 0; i < c; i++) {
                int32_t sum = 1 << (PRECISION - 1);
                for (int j = 0; j < t->count[x]; j++) sum += p[j * c + i] * k[j];
                *out++ = clip8(sum);
            }
        }
    }
}

/* Down a column; sums is a row of stride numbers, so that the inner loop runs along the row. */
static void resize_columns8(const dr_image *img, const table *t, const int32_t *w, int32_t *sums, dr_image *ret) {
    const size_t n = img->stride;
    for (int y = 0; y < ret->height; y++) {
        const int32_t *k = w + (size_t)y * (size_t)t->width;
        for (size_t i = 0; i < n; i++) sums[i] = 1 << (PRECISION - 1);
        for (int j = 0; j < t->count[y]; j++) {
            const uint8_t *in = dr_image_row8(img, t->first[y] + j);
            for (size_t i = 0; i < n; i++) sums[i] += in[i] * k[j];
        }
        uint8_t *out = dr_image_row8(ret, y);
        for (size_t i = 0; i < n; i++) out[i] = clip8(sums[i]);
    }
}

dr_status dr_image_resize(const dr_image *img, int width, int height, dr_image *ret, dr_error *err) {
    if (img->depth != 8 || !sides_fit(img->width, img->height, width, height))
        return dr_fail(err, DR_INVALID, "cannot resize a %d x %d picture of %d bits to %d x %d", img->width,
                       img->height, img->depth, width, height);
    table tx = {0}, ty = {0};
    int32_t *wx = NULL, *wy = NULL, *sums = NULL;
    dr_image wide = {0}, out = {0};
    dr_status s = table_init(&tx, img->width, width, err);
    if (!s) s = table_init(&ty, img->height, height, err);
    if (!s) s = dr_image_init(&wide, width, img->height, img->channels, 8, err);
    if (!s) s = dr_image_init(&out, width, height, img->channels, 8, err);
    if (s) goto done;
    wx = fixed_weights(&tx, width, err);
    wy = fixed_weights(&ty, height, err);
    sums = dr_malloc(out.stride * sizeof *sums);
    if (!wx || !wy || !sums) {
        s = dr_fail(err, DR_NOMEM, "no memory to resize a picture");
        goto done;
    }
    /* A pass that changes nothing is left out, as a sum of one weight 1 would do. */
    if (width == img->width)
        memcpy(wide.pixels, img->pixels, wide.stride * (size_t)wide.height);
    else
        resize_rows8(img, &tx, wx, &wide);
    if (height == img->height)
        memcpy(out.pixels, wide.pixels, out.stride * (size_t)height);
    else
        resize_columns8(&wide, &ty, wy, sums, &out);
done:
    dr_free(wx);
    dr_free(wy);
    dr_free(sums);
    table_done(&tx);
    table_done(&ty);
    dr_image_done(&wide);
    if (s) {
        dr_image_done(&out);
        return s;
    }
    *ret = out;
    return DR_OK;
}

/* ---- floats ----------------------------------------------------------------------------------------------------- */

/* Sums in double, rounded to float once in each pass, as Pillow's mode "F" does. */
static void resize_rows(const float *x, int h, int w, const table *t, float *ret, int width) {
    for (int y = 0; y < h; y++)
        for (int i = 0; i < width; i++) {
            const double *k = t->w + (size_t)i * (size_t)t->width;
            const float *p = x + (size_t)y * (size_t)w + t->first[i];
            double sum = 0;
            for (int j = 0; j < t->count[i]; j++) sum += p[j] * k[j];
            ret[(size_t)y * (size_t)width + (size_t)i] = (float)sum;
        }
}

static void resize_columns(const float *x, int w, const table *t, double *sums, float *ret, int height) {
    for (int y = 0; y < height; y++) {
        const double *k = t->w + (size_t)y * (size_t)t->width;
        for (int i = 0; i < w; i++) sums[i] = 0;
        for (int j = 0; j < t->count[y]; j++) {
            const float *p = x + (size_t)(t->first[y] + j) * (size_t)w;
            for (int i = 0; i < w; i++) sums[i] += p[i] * k[j];
        }
        for (int i = 0; i < w; i++) ret[(size_t)y * (size_t)w + (size_t)i] = (float)sums[i];
    }
}

dr_status dr_planar_resize(const float *x, int channels, int h, int w, float *ret, int height, int width,
                           dr_error *err) {
    if (!sides_fit(w, h, width, height))
        return dr_fail(err, DR_INVALID, "cannot resize %d x %d to %d x %d", w, h, width, height);
    table tx = {0}, ty = {0};
    float *wide = NULL;
    double *sums = NULL;
    dr_status s = table_init(&tx, w, width, err);
    if (!s) s = table_init(&ty, h, height, err);
    if (s) goto done;
    wide = dr_malloc((size_t)h * (size_t)width * sizeof *wide);
    sums = dr_malloc((size_t)width * sizeof *sums);
    if (!wide || !sums) {
        s = dr_fail(err, DR_NOMEM, "no memory to resize a picture");
        goto done;
    }
    for (int c = 0; c < channels; c++) {
        const float *in = x + (size_t)c * (size_t)h * (size_t)w;
        float *out = ret + (size_t)c * (size_t)height * (size_t)width;
        resize_rows(in, h, w, &tx, wide, width);
        resize_columns(wide, width, &ty, sums, out, height);
    }
done:
    dr_free(wide);
    dr_free(sums);
    table_done(&tx);
    table_done(&ty);
    return s;
}
