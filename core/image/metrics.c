/* metrics.c - PSNR and SSIM.
 *
 * SSIM needs four blurred planes: a, b, a^2 + b^2 and ab. A row is blurred along x when it comes and kept in a ring
 * of 11; each output row is the ring blurred along y. So no plane is written, and what is worked on stays in the cache.
 * Values are taken minus 128: variances do not change, and their differences of squares lose less in float. */
#include "core/image/metrics.h"
#include "core/base/alloc.h"
#include <math.h>
#include <string.h>

enum { WIN = DR_SSIM_WINDOW, HALF = WIN / 2, MAPS = 4 };

/* Lower half and middle of the symmetric window, normalised to sum 1. */
static void gaussian(float ret[HALF + 1]) {
    double w[HALF + 1], sum = 0;
    for (int i = 0; i <= HALF; i++) {
        const double d = i - HALF;
        w[i] = exp(-d * d / (2 * 1.5 * 1.5));
        sum += i < HALF ? 2 * w[i] : w[i];
    }
    for (int i = 0; i <= HALF; i++) ret[i] = (float)(w[i] / sum);
}

static void blur_x(const float *restrict in, float *restrict out, int n, const float k[HALF + 1]) {
    for (int x = 0; x < n; x++) {
        float s = k[HALF] * in[x + HALF];
        for (int i = 0; i < HALF; i++) s += k[i] * (in[x + i] + in[x + WIN - 1 - i]);
        out[x] = s;
    }
}

static void blur_y(float *const ring[WIN], float *restrict out, int n, const float k[HALF + 1]) {
    const float *r0 = ring[0], *r1 = ring[1], *r2 = ring[2], *r3 = ring[3], *r4 = ring[4], *r5 = ring[5];
    const float *r6 = ring[6], *r7 = ring[7], *r8 = ring[8], *r9 = ring[9], *r10 = ring[10];
    for (int x = 0; x < n; x++)
        out[x] = k[5] * r5[x] + k[0] * (r0[x] + r10[x]) + k[1] * (r1[x] + r9[x]) + k[2] * (r2[x] + r8[x]) +
                 k[3] * (r3[x] + r7[x]) + k[4] * (r4[x] + r6[x]);
}

/* The four inputs of a row: a, b, a^2 + b^2, ab, each `w` floats in `ret`. */
static void row_maps(const float *restrict a, const float *restrict b, int w, float *restrict ret) {
    float *restrict pa = ret, *restrict pb = ret + w, *restrict sq = ret + 2 * (size_t)w,
                    *restrict ab = ret + 3 * (size_t)w;
    for (int x = 0; x < w; x++) {
        const float u = a[x] - 128, v = b[x] - 128;
        pa[x] = u;
        pb[x] = v;
        sq[x] = u * u + v * v;
        ab[x] = u * v;
    }
}

/* Sum of the SSIM map over a row; m holds the blurred maps. Floats in the map, so that it runs in vectors. */
static double ssim_row(const float *m, int n, float *restrict map) {
    const float c1 = 6.5025F, c2 = 58.5225F;
    const float *restrict ma = m, *restrict mb = m + n, *restrict sq = m + 2 * (size_t)n,
                          *restrict ab = m + 3 * (size_t)n;
    for (int x = 0; x < n; x++) {
        const float ua = ma[x] + 128, ub = mb[x] + 128;
        const float var = sq[x] - ma[x] * ma[x] - mb[x] * mb[x], cov = ab[x] - ma[x] * mb[x];
        map[x] = (2 * ua * ub + c1) * (2 * cov + c2) / ((ua * ua + ub * ub + c1) * (var + c2));
    }
    double sum = 0;
    for (int x = 0; x < n; x++) sum += map[x];
    return sum;
}

dr_status dr_ssim_plane(const float *a, const float *b, int w, int h, double *ret, dr_error *err) {
    if (w < WIN || h < WIN)
        return dr_fail(err, DR_INVALID, "SSIM needs sides of at least %d pixels, not %d x %d", WIN, w, h);
    const int n = w - WIN + 1;
    float k[HALF + 1];
    gaussian(k);
    /* row_maps: 4w; ring: 11 * 4n; blurred: 4n; map: n */
    float *mem =
        dr_malloc_aligned(((size_t)MAPS * (size_t)w + (size_t)(MAPS * WIN + MAPS + 1) * (size_t)n) * sizeof(float));
    if (!mem) return dr_fail(err, DR_NOMEM, "no memory for SSIM");
    float *rows = mem, *ring = rows + (size_t)MAPS * (size_t)w;
    float *blurred = ring + (size_t)MAPS * WIN * (size_t)n, *map = blurred + (size_t)MAPS * (size_t)n;
    double sum = 0;
    for (int y = 0; y < h; y++) {
        row_maps(a + (size_t)y * (size_t)w, b + (size_t)y * (size_t)w, w, rows);
        for (int m = 0; m < MAPS; m++)
            blur_x(rows + (size_t)m * (size_t)w, ring + (size_t)(m * WIN + y % WIN) * (size_t)n, n, k);
        if (y < WIN - 1) continue;
        for (int m = 0; m < MAPS; m++) {
            float *in_order[WIN]; /* oldest row first */
            for (int i = 0; i < WIN; i++) in_order[i] = ring + (size_t)(m * WIN + (y + 1 + i) % WIN) * (size_t)n;
            blur_y(in_order, blurred + (size_t)m * (size_t)n, n, k);
        }
        sum += ssim_row(blurred, n, map);
    }
    dr_free(mem);
    *ret = sum / ((double)n * (double)(h - WIN + 1));
    return DR_OK;
}

double dr_psnr(double mse) {
    if (mse <= 0) return DR_PSNR_MAX;
    const double db = 10 * log10(255.0 * 255.0 / mse);
    return db < DR_PSNR_MAX ? db : DR_PSNR_MAX;
}

/* Four planes of floats 0..255: luma, red, green, blue. */
static void planes(const dr_image *img, float *ret) {
    const size_t n = (size_t)img->width * (size_t)img->height, c = (size_t)img->channels;
    const size_t green = c < 3 ? 0 : 1, blue = c < 3 ? 0 : 2;
    const uint8_t *p8 = img->pixels;
    const uint16_t *p16 = img->pixels;
    float *luma = ret, *r = ret + n, *g = ret + 2 * n, *b = ret + 3 * n;
    if (img->depth == 8) {
        for (size_t i = 0; i < n; i++) {
            r[i] = p8[i * c];
            g[i] = p8[i * c + green];
            b[i] = p8[i * c + blue];
        }
    } else {
        for (size_t i = 0; i < n; i++) {
            r[i] = dr_image_to8(p16[i * c]);
            g[i] = dr_image_to8(p16[i * c + green]);
            b[i] = dr_image_to8(p16[i * c + blue]);
        }
    }
    for (size_t i = 0; i < n; i++)
        luma[i] = 16.0F + (65.481F * r[i] + 128.553F * g[i] + 24.966F * b[i]) * (1.0F / 255.0F);
}

/* Sums of 1024 fit a float to seven digits; the sum of those is a double. */
static double squared_error(const float *a, const float *b, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        const double d = (double)a[i] - (double)b[i];
        sum += d * d;
    }
    return sum;
}

dr_status dr_score_images(const dr_image *a, const dr_image *b, dr_score *ret, dr_error *err) {
    if (a->width != b->width || a->height != b->height)
        return dr_fail(err, DR_INVALID, "the pictures differ in size: %d x %d and %d x %d", a->width, a->height,
                       b->width, b->height);
    const size_t n = (size_t)a->width * (size_t)a->height;
    size_t bytes;
    if (!dr_mul_size(n, 8 * sizeof(float), &bytes)) return dr_fail(err, DR_TOO_LARGE, "pictures too large to compare");
    float *mem = dr_malloc_aligned(bytes);
    if (!mem) return dr_fail(err, DR_NOMEM, "no memory to compare pictures of %d x %d", a->width, a->height);
    float *pa = mem, *pb = mem + 4 * n;
    planes(a, pa);
    planes(b, pb);
    double ssim[4];
    dr_status s = DR_OK;
    for (size_t k = 0; k < 4 && !s; k++) s = dr_ssim_plane(pa + k * n, pb + k * n, a->width, a->height, &ssim[k], err);
    if (!s)
        *ret = (dr_score){
            .psnr_y = dr_psnr(squared_error(pa, pb, n) / (double)n),
            .ssim_y = ssim[0],
            .psnr_rgb = dr_psnr(squared_error(pa + n, pb + n, 3 * n) / (3 * (double)n)),
            .ssim_rgb = (ssim[1] + ssim[2] + ssim[3]) / 3,
        };
    dr_free(mem);
    return s;
}
