/* rainscore.c - see rainscore.h. Float sums in one order, so that a picture has one score everywhere. */
#include "core/image/rainscore.h"
#include "core/base/alloc.h"

enum { LENGTH = 9, N_SLANTS = 5, REACH = 2 /* columns that a slant of 1/2 leans in 4 rows */, SIDE_MIN = 16 };
static const float CAP = 40;

typedef struct plane {
    float *p;
    int w, h;
} plane;

static dr_status take(int w, int h, plane *ret, dr_error *err) {
    size_t n, bytes;
    *ret = (plane){.w = w, .h = h};
    if (dr_mul_size((size_t)w, (size_t)h, &n) && dr_mul_size(n, sizeof *ret->p, &bytes)) ret->p = dr_malloc(bytes);
    return ret->p ? DR_OK : dr_fail(err, DR_NOMEM, "no memory for %d x %d pixels", w, h);
}

static float sample(const dr_image *img, int x, int y, int c) {
    size_t i = (size_t)x * (size_t)img->channels + (size_t)c;
    return img->depth == 16 ? (float)dr_image_row16(img, y)[i] / 257.0f : (float)dr_image_row8(img, y)[i];
}

/* The middle of the picture. */
static void luma(const dr_image *img, plane *y) {
    int x0 = (img->width - y->w) / 2, y0 = (img->height - y->h) / 2;
    for (int v = 0; v < y->h; v++)
        for (int u = 0; u < y->w; u++) {
            float first = sample(img, x0 + u, y0 + v, 0);
            y->p[(size_t)v * (size_t)y->w + (size_t)u] =
                img->channels < 3 ? first
                                  : 0.299f * first + 0.587f * sample(img, x0 + u, y0 + v, 1) +
                                        0.114f * sample(img, x0 + u, y0 + v, 2);
        }
}

static void transpose(const plane *a, plane *b) {
    for (int v = 0; v < a->h; v++)
        for (int u = 0; u < a->w; u++)
            b->p[(size_t)u * (size_t)b->w + (size_t)v] = a->p[(size_t)v * (size_t)a->w + (size_t)u];
}

static void ridges(const plane *y, int d, plane *r) {
    r->w = y->w - 2 * d;
    r->h = y->h;
    for (int v = 0; v < r->h; v++) {
        const float *in = y->p + (size_t)v * (size_t)y->w;
        float *out = r->p + (size_t)v * (size_t)r->w;
        for (int u = 0; u < r->w; u++) {
            float side = in[u] > in[u + 2 * d] ? in[u] : in[u + 2 * d], e = in[u + d] - side;
            out[u] = e < 0 ? 0 : e > CAP ? CAP : e;
        }
    }
}

static double mean_streak(const plane *r) {
    static const signed char lean[N_SLANTS][LENGTH] = {{-2, -2, -1, 0, 0, 0, 1, 2, 2},
                                                       {-1, -1, 0, 0, 0, 0, 0, 1, 1},
                                                       {0, 0, 0, 0, 0, 0, 0, 0, 0},
                                                       {1, 1, 0, 0, 0, 0, 0, -1, -1},
                                                       {2, 2, 1, 0, 0, 0, -1, -2, -2}};
    double sum = 0;
    for (int v = 0; v + LENGTH <= r->h; v++)
        for (int u = REACH; u < r->w - REACH; u++) {
            float best = 0;
            for (int s = 0; s < N_SLANTS; s++) {
                float along = 0;
                for (int k = 0; k < LENGTH; k++)
                    along += r->p[(size_t)(v + k) * (size_t)r->w + (size_t)(u + lean[s][k])];
                if (along > best) best = along;
            }
            sum += (double)best;
        }
    return sum / LENGTH / ((double)(r->h - LENGTH + 1) * (double)(r->w - 2 * REACH));
}

static double strength(const plane *y, plane *r) {
    double sum = 0;
    for (int d = 1; d <= 2; d++) {
        ridges(y, d, r);
        sum += mean_streak(r);
    }
    return sum;
}

static int at_most(int side) {
    return side < DR_RAIN_SIDE_MAX ? side : DR_RAIN_SIDE_MAX;
}

dr_status dr_rain_score_image(const dr_image *img, double *ret, dr_error *err) {
    int w = at_most(img->width), h = at_most(img->height);
    plane y = {0}, turned = {0}, r = {0};
    if (w < SIDE_MIN || h < SIDE_MIN)
        return dr_fail_as(err, DR_INVALID, "image_too_small", "%d x %d pixels: a side is below %d", w, h, SIDE_MIN);
    dr_status s = take(w, h, &y, err);
    if (!s) s = take(h, w, &turned, err);
    if (!s) s = take(w, h, &r, err);
    if (!s) {
        luma(img, &y);
        transpose(&y, &turned);
        double along = strength(&y, &r), across = strength(&turned, &r);
        *ret = 50 + 50 * (along - across) / (along + across + 0.1);
    }
    dr_free(y.p);
    dr_free(turned.p);
    dr_free(r.p);
    return s;
}
