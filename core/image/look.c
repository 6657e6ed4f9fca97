/* look.c - facts about one picture: what it is, the digest of its pixels, and its fingerprint (core/pictures.h).
 *
 * The fingerprint is the perceptual hash of C. Zauner ("Implementation and benchmarking of perceptual image hash
 * functions", 2010) with 255 instead of 63 signs: 63 leave pairs of different photographs 10 apart, where a cropped
 * copy is 12 away. */
#include "core/base/alloc.h"
#include "core/base/hash.h"
#include "core/image/codec.h"
#include "core/image/rainscore.h"
#include "core/pictures.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { SIDE = 32, LOW = 16 };
static const double contrast_min = 2.0;

static double luma(const dr_image *img, int x, int y) {
    const size_t at = (size_t)x * (size_t)img->channels;
    double v[3];
    for (size_t k = 0; k < 3; k++) {
        const size_t i = at + (img->channels >= 3 ? k : 0);
        v[k] = img->depth == 8 ? dr_image_row8(img, y)[i] : dr_image_row16(img, y)[i] / 257.0;
    }
    return 0.299 * v[0] + 0.587 * v[1] + 0.114 * v[2];
}

/* Mean brightness of each of 32 x 32 fields. Pictures have sides of 16 and more, so a field may have to borrow: each
 * takes at least one pixel. */
static void shrink(const dr_image *img, double ret[SIDE][SIDE]) {
    for (int r = 0; r < SIDE; r++) {
        const int y0 = (int)((int64_t)r * img->height / SIDE);
        int y1 = (int)((int64_t)(r + 1) * img->height / SIDE);
        if (y1 == y0) y1 = y0 + 1;
        for (int c = 0; c < SIDE; c++) {
            const int x0 = (int)((int64_t)c * img->width / SIDE);
            int x1 = (int)((int64_t)(c + 1) * img->width / SIDE);
            if (x1 == x0) x1 = x0 + 1;
            double sum = 0;
            for (int y = y0; y < y1; y++)
                for (int x = x0; x < x1; x++) sum += luma(img, x, y);
            ret[r][c] = sum / ((double)(y1 - y0) * (x1 - x0));
        }
    }
}

static bool fingerprint(const dr_image *img, dr_look *ret) {
    static const double pi = 3.14159265358979323846;
    double f[SIDE][SIDE], rows[SIDE][LOW], wave[LOW][SIDE], mean = 0, var = 0;
    dr_look look = {{0}};
    shrink(img, f);
    for (int r = 0; r < SIDE; r++)
        for (int c = 0; c < SIDE; c++) mean += f[r][c] / (SIDE * SIDE);
    for (int r = 0; r < SIDE; r++)
        for (int c = 0; c < SIDE; c++) var += (f[r][c] - mean) * (f[r][c] - mean) / (SIDE * SIDE);
    if (sqrt(var) < contrast_min) return false;
    for (int k = 0; k < LOW; k++)
        for (int i = 0; i < SIDE; i++) wave[k][i] = cos(pi * (i + 0.5) * k / SIDE);
    for (int r = 0; r < SIDE; r++)
        for (int k = 0; k < LOW; k++) {
            rows[r][k] = 0;
            for (int i = 0; i < SIDE; i++) rows[r][k] += f[r][i] * wave[k][i];
        }
    for (int j = 0; j < LOW; j++)
        for (int k = 0; k < LOW; k++) {
            double sum = 0;
            for (int i = 0; i < SIDE; i++) sum += rows[i][k] * wave[j][i];
            const int bit = j * LOW + k;
            if (bit && sum > 0) look.bits[bit / 64] |= UINT64_C(1) << (bit % 64);
        }
    *ret = look;
    return true;
}

static bool is_grey(const dr_image *img) {
    if (img->channels < 3) return true;
    const size_t step = (size_t)img->channels;
    for (int y = 0; y < img->height; y++) {
        if (img->depth == 8) {
            const uint8_t *p = dr_image_row8(img, y);
            for (int x = 0; x < img->width; x++, p += step)
                if (p[0] != p[1] || p[1] != p[2]) return false;
        } else {
            const uint16_t *p = dr_image_row16(img, y);
            for (int x = 0; x < img->width; x++, p += step)
                if (p[0] != p[1] || p[1] != p[2]) return false;
        }
    }
    return true;
}

static void digest(const dr_image *img, char ret[65]) {
    char head[64];
    uint8_t sum[32];
    dr_sha256 h;
    int n = snprintf(head, sizeof head, "%dx%dx%dx%d\n", img->width, img->height, img->channels, img->depth);
    dr_sha256_init(&h);
    dr_sha256_add(&h, head, (size_t)n);
    dr_sha256_add(&h, img->pixels, img->stride * (size_t)img->height);
    dr_sha256_end(&h, sum);
    dr_hex(sum, sizeof sum, ret);
}

dr_status dr_picture_check(const void *data, size_t len, const dr_limits *lim, dr_picture_facts *ret, dr_error *err) {
    dr_limits filled = {0};
    dr_picture_facts f = {0};
    dr_image img = {0};
    if (lim) filled = *lim;
    dr_limits_fill(&filled);
    dr_status s = dr_probe(data, len, len, &filled, &f.info, err);
    if (!s) s = dr_image_decode(data, len, &filled, &img, err);
    if (s) return s;
    f.grey = is_grey(&img);
    f.has_look = fingerprint(&img, &f.look);
    digest(&img, f.pixels_sha256);
    s = dr_rain_score_image(&img, &f.rain, NULL);
    f.has_rain = !s;
    dr_image_done(&img);
    if (s == DR_NOMEM) return dr_fail(err, s, "no memory to look for rain");
    *ret = f;
    return DR_OK;
}

void dr_look_format(const dr_look *look, char ret[DR_LOOK_HEX]) {
    uint8_t raw[32];
    for (int i = 0; i < 32; i++) raw[i] = (uint8_t)(look->bits[i / 8] >> (i % 8 * 8));
    dr_hex(raw, sizeof raw, ret);
}

bool dr_look_parse(const char *hex, dr_look *ret) {
    uint8_t raw[32];
    dr_look look = {{0}};
    if (strlen(hex) != 64 || !dr_unhex(hex, 32, raw)) return false;
    for (int i = 0; i < 32; i++) look.bits[i / 8] |= (uint64_t)raw[i] << (i % 8 * 8);
    *ret = look;
    return true;
}

int dr_look_distance(const dr_look *a, const dr_look *b) {
    int n = 0;
    for (int i = 0; i < 4; i++) n += __builtin_popcountll(a->bits[i] ^ b->bits[i]);
    return n;
}
