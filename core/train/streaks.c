/* streaks.c - rain layers and how they go over a picture. The header has the model; the numbers are in
 * dr_streaks_opts_init(). */
#include "core/train/streaks.h"
#include "core/base/alloc.h"
#include "core/train/dataset.h"
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PI 3.14159265358979323846

struct dr_streaks {
    dr_streaks_opts o;
    dr_dataset *files; /* NULL: procedural only */
    float *gain;       /* one a file: 1 / its 99.5 percentile */
    float *layer;      /* scratch, `side` squared */
    int side;
    char describe[200];
    char fingerprint[65];
};

void dr_streaks_opts_init(dr_streaks_opts *o) {
    *o = (dr_streaks_opts){
        .procedural = 0.5,
        .turn_deg = 25,
        .file_scale = {0.6, 1.6},
        .strength = {0.1, 0.9},
        .strength_bias = 1.4,
        .angle_deg = 35,
        .jitter_deg = 2,
        .streak_len = {10, 70},
        .streak_width = {0.9, 3},
        .density = {0.7, 12},
        .cover = 0.6,
        .second = 0.2,
        .additive = 0.6,
        .veil = 0.1,
        .veil_max = 0.15,
    };
}

/* ---- layers from files ----------------------------------------------------------------------------------------- */

static float gain_of(dr_pixels p) {
    size_t hist[256] = {0}, n = (size_t)p.w * (size_t)p.h, above = 0;
    for (size_t i = 0; i < n; i++) hist[p.data[i]]++;
    int v = 255;
    while (v > 0 && (above += hist[v]) < n / 200) v--;
    /* Below 12 levels there is little but rounding left to amplify. */
    return 255.0f / (float)(v < 12 ? 12 : v) / 255.0f;
}

static float mirrored(float x, int n) {
    float last = (float)(n - 1), period = 2 * last;
    if (last < 1) return 0;
    x = fmodf(x, period);
    if (x < 0) x += period;
    return x > last ? period - x : x;
}

static float bilinear(dr_pixels p, float x, float y) {
    x = mirrored(x, p.w);
    y = mirrored(y, p.h);
    int x0 = (int)x, y0 = (int)y, x1 = x0 + 1 < p.w ? x0 + 1 : x0, y1 = y0 + 1 < p.h ? y0 + 1 : y0;
    float fx = x - (float)x0, fy = y - (float)y0;
    const uint8_t *a = p.data + (size_t)y0 * (size_t)p.w, *b = p.data + (size_t)y1 * (size_t)p.w;
    float top = (float)a[x0] + ((float)a[x1] - (float)a[x0]) * fx,
          low = (float)b[x0] + ((float)b[x1] - (float)b[x0]) * fx;
    return top + (low - top) * fy;
}

static void add_file_layer(const dr_streaks_opts *o, dr_pixels p, float gain, float strength, dr_rng *rng, int size,
                           float *layer) {
    double turn = dr_rng_range(rng, -o->turn_deg, o->turn_deg) * PI / 180;
    double scale = dr_rng_range(rng, o->file_scale[0], o->file_scale[1]);
    double cx = dr_rng_uniform(rng) * p.w, cy = dr_rng_uniform(rng) * p.h;
    float flip_x = dr_rng_u64(rng) >> 63 ? -1.0f : 1.0f, flip_y = dr_rng_u64(rng) >> 63 ? -1.0f : 1.0f;
    /* source = centre + R(turn) * flip * (x, y) / scale */
    float c = (float)(cos(turn) / scale), s = (float)(sin(turn) / scale), half = 0.5f * (float)(size - 1);
    for (int y = 0; y < size; y++)
        for (int x = 0; x < size; x++) {
            float dx = ((float)x - half) * flip_x, dy = ((float)y - half) * flip_y;
            float v = bilinear(p, (float)cx + c * dx - s * dy, (float)cy + s * dx + c * dy) * gain;
            layer[(size_t)y * (size_t)size + (size_t)x] += strength * (v > 1.25f ? 1.25f : v);
        }
}

/* ---- drawn layers ---------------------------------------------------------------------------------------------- */

typedef struct streak {
    float x, y;        /* middle */
    float dx, dy;      /* unit vector along it, dy > 0 */
    float half, sigma; /* half length; standard deviation across */
    float light;
} streak;

/* For every row that the streak crosses: a gaussian across, a plateau with soft ends along. */
static void draw_streak(const streak *k, int size, float *layer) {
    float reach = 3 * k->sigma, y_lo = k->y - k->half * k->dy - reach, y_hi = k->y + k->half * k->dy + reach;
    int y0 = y_lo < 0 ? 0 : (int)y_lo, y1 = y_hi > (float)(size - 1) ? size - 1 : (int)y_hi;
    float soft = 0.35f * k->half + 0.5f, inv = 1 / (2 * k->sigma * k->sigma);
    for (int y = y0; y <= y1; y++) {
        float ry = (float)y - k->y, xc = k->x + ry * k->dx / k->dy, wide = reach / k->dy;
        int x0 = (int)floorf(xc - wide), x1 = (int)ceilf(xc + wide);
        if (x0 < 0) x0 = 0;
        if (x1 > size - 1) x1 = size - 1;
        for (int x = x0; x <= x1; x++) {
            float rx = (float)x - k->x, along = fabsf(rx * k->dx + ry * k->dy), across = rx * k->dy - ry * k->dx;
            float end = (k->half + 0.5f * soft - along) / soft;
            if (end <= 0) continue;
            layer[(size_t)y * (size_t)size + (size_t)x] +=
                k->light * (end < 1 ? end : 1) * expf(-across * across * inv);
        }
    }
}

static double log_range(dr_rng *rng, const double r[2]) {
    return r[0] * pow(r[1] / r[0], dr_rng_uniform(rng));
}

static int float_order(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* About the 99.5 percentile, from every 37th pixel. */
static float near_peak(const float *layer, int size) {
    float v[1024] = {0};
    size_t n = 0, total = (size_t)size * (size_t)size, step = total / 1024 + 1;
    for (size_t i = step / 2; i < total && n < 1024; i += step) v[n++] = layer[i];
    qsort(v, n, sizeof *v, float_order);
    return v[n - 1 - n / 200];
}

void dr_streaks_draw(const dr_streaks_opts *o, dr_rng *rng, int size, float *layer) {
    double angle = dr_rng_normal(rng) * o->angle_deg / 2;
    angle = fmin(fmax(angle, -o->angle_deg), o->angle_deg);
    double jitter = o->jitter_deg * dr_rng_uniform(rng);
    double len = log_range(rng, o->streak_len);
    double width = dr_rng_range(rng, o->streak_width[0], o->streak_width[1]);
    double faintest = dr_rng_range(rng, 0.2, 0.8);
    double density = fmin(log_range(rng, o->density), 1000 * o->cover / (len * width));
    double margin = len, span = size + 2 * margin;
    int n = (int)(density * span * span / 1000 + dr_rng_uniform(rng));
    for (int i = 0; i < n; i++) {
        /* within 80 degrees of vertical, so that every row is crossed within finite width */
        double a = fmin(fmax(angle + jitter * dr_rng_normal(rng), -80), 80) * PI / 180;
        streak k = {.x = (float)(dr_rng_uniform(rng) * span - margin),
                    .y = (float)(dr_rng_uniform(rng) * span - margin),
                    .dx = (float)sin(a),
                    .dy = (float)cos(a),
                    .half = (float)(0.5 * len * dr_rng_range(rng, 0.6, 1.3)),
                    .sigma = (float)(width * dr_rng_range(rng, 0.8, 1.2) / 2.355),
                    .light = (float)dr_rng_range(rng, faintest, 1)};
        draw_streak(&k, size, layer);
    }
}

/* Draws one with its brightest part brought to `strength`. */
static void draw_normal(const dr_streaks_opts *o, dr_rng *rng, int size, float strength, float *layer, float *tmp) {
    size_t n = (size_t)size * (size_t)size;
    memset(tmp, 0, n * sizeof *tmp);
    dr_streaks_draw(o, rng, size, tmp);
    float peak = near_peak(tmp, size), gain = strength / (peak < 0.7f ? 0.7f : peak);
    for (size_t i = 0; i < n; i++) {
        float v = tmp[i] * gain;
        layer[i] += v > 1.25f * strength ? 1.25f * strength : v;
    }
}

/* ---- the whole ------------------------------------------------------------------------------------------------- */

dr_status dr_streaks_open(const char *source, const dr_streaks_opts *opts, dr_streaks **ret, dr_error *err) {
    dr_streaks *s = dr_calloc(1, sizeof *s);
    dr_status st = DR_OK;
    if (!s) return dr_fail(err, DR_NOMEM, "no memory for rain layers");
    if (opts)
        s->o = *opts;
    else
        dr_streaks_opts_init(&s->o);
    if (strcmp(source, "procedural") == 0) {
        snprintf(s->fingerprint, sizeof s->fingerprint, "%s", "procedural");
        snprintf(s->describe, sizeof s->describe, "drawn rain layers");
        *ret = s;
        return DR_OK;
    }
    st = dr_dataset_open("streaks", &source, 1, &(dr_dataset_opts){.channels = 1, .mem_max = UINT64_C(1) << 30},
                         &s->files, err);
    if (st) goto out;
    int n = dr_dataset_count(s->files);
    s->gain = dr_malloc(sizeof *s->gain * (size_t)n);
    if (!s->gain) {
        st = dr_fail(err, DR_NOMEM, "no memory for %d rain layers", n);
        goto out;
    }
    for (int i = 0; i < n; i++) {
        dr_pixels p;
        st = dr_dataset_get(s->files, i, &p, err);
        if (st) goto out;
        s->gain[i] = gain_of(p);
    }
    snprintf(s->fingerprint, sizeof s->fingerprint, "%s", dr_dataset_fingerprint(s->files));
    snprintf(s->describe, sizeof s->describe, "%d rain layers from files, %.0f %% drawn", n, 100 * s->o.procedural);
out:
    if (st)
        dr_streaks_close(s);
    else
        *ret = s;
    return st;
}

void dr_streaks_close(dr_streaks *s) {
    if (!s) return;
    dr_dataset_close(s->files);
    dr_free(s->gain);
    dr_free(s->layer);
    dr_free(s);
}

const char *dr_streaks_describe(const dr_streaks *s) {
    return s->describe;
}
const char *dr_streaks_fingerprint(const dr_streaks *s) {
    return s->fingerprint;
}

static dr_status add_layer(dr_streaks *s, dr_rng *rng, int size, float strength, float *layer, dr_error *err) {
    if (!s->files || dr_rng_uniform(rng) < s->o.procedural) {
        draw_normal(&s->o, rng, size, strength, layer, layer + (size_t)size * (size_t)size);
        return DR_OK;
    }
    int i = (int)dr_rng_below(rng, (uint32_t)dr_dataset_count(s->files));
    dr_pixels p;
    dr_status st = dr_dataset_get(s->files, i, &p, err);
    if (st) return st;
    add_file_layer(&s->o, p, s->gain[i], strength, rng, size, layer);
    return DR_OK;
}

dr_status dr_streaks_render(dr_streaks *s, dr_rng *rng, int size, float *rgb, dr_error *err) {
    const dr_streaks_opts *o = &s->o;
    size_t n = (size_t)size * (size_t)size;
    if (s->side != size) {
        float *l = dr_malloc(2 * n * sizeof *l); /* the sum of the layers, and room to draw one */
        if (!l) return dr_fail(err, DR_NOMEM, "no memory for a rain layer");
        dr_free(s->layer);
        s->layer = l;
        s->side = size;
    }
    memset(s->layer, 0, n * sizeof *s->layer);
    double strength = o->strength[0] + (o->strength[1] - o->strength[0]) * pow(dr_rng_uniform(rng), o->strength_bias);
    dr_status st = add_layer(s, rng, size, (float)strength, s->layer, err);
    if (st) return st;
    if (dr_rng_uniform(rng) < o->second) {
        st = add_layer(s, rng, size, (float)(strength * dr_rng_range(rng, 0.4, 1)), s->layer, err);
        if (st) return st;
    }
    bool additive = dr_rng_uniform(rng) < o->additive;
    float veil = 0, grey = (float)dr_rng_range(rng, 0.6, 0.9);
    if (dr_rng_uniform(rng) < o->veil) veil = (float)(o->veil_max * dr_rng_uniform(rng));
    for (int c = 0; c < 3; c++) {
        float *p = rgb + (size_t)c * n;
        for (size_t i = 0; i < n; i++) {
            float l = s->layer[i] > 1 ? 1 : s->layer[i], v = p[i] + veil * (grey - p[i]);
            v = additive ? v + l : 1 - (1 - v) * (1 - l);
            v = v > 1 ? 1 : v;
            p[i] = (float)(int)(v * 255 + 0.5f) / 255.0f; /* 8 bits, as photographs have */
        }
    }
    return DR_OK;
}
