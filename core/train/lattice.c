#include "core/train/lattice.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>

/* One family of parallel lines: where a point lies between two of them. */
typedef struct lines {
    double cx, cy;       /* unit normal */
    double period, half; /* pixels; half the line's width */
    double phase, bend;  /* bend: the period grows along the normal, as in perspective */
} lines;

static lines draw_lines(dr_rng *r, double angle, double period) {
    lines l = {.cx = cos(angle), .cy = sin(angle), .period = period};
    l.half = period * dr_rng_range(r, 0.06, 0.25);
    if (l.half < 0.5) l.half = 0.5;
    l.phase = dr_rng_range(r, 0, period);
    l.bend = dr_rng_range(r, -0.3, 0.3);
    return l;
}

/* Part of the pixel that a line covers, 0..1. */
static double cover(const lines *l, double x, double y, double size) {
    double u = l->cx * x + l->cy * y;
    u += l->bend * u * u / (2 * size);
    double d = fabs(fmod(fmod(u + l->phase, l->period) + l->period, l->period) - l->period / 2);
    double c = l->half + 0.5 - d;
    return c < 0 ? 0 : c > 1 ? 1 : c;
}

static void grey_colour(dr_rng *r, double lo, double hi, double ret[3]) {
    double v = dr_rng_range(r, lo, hi);
    for (int c = 0; c < 3; c++) {
        ret[c] = v + dr_rng_range(r, -0.08, 0.08);
        if (ret[c] < 0) ret[c] = 0;
        if (ret[c] > 1) ret[c] = 1;
    }
}

void dr_lattice_draw(dr_rng *rng, int size, float *rgb) {
    const double pi = 3.14159265358979323846;
    double angle = dr_rng_range(rng, 0, pi), period = 5 * pow(28.0 / 5, dr_rng_uniform(rng));
    lines a = draw_lines(rng, angle, period);
    lines b = draw_lines(rng, angle + pi / 2 + dr_rng_range(rng, -0.25, 0.25), period * dr_rng_range(rng, 0.7, 1.4));
    bool grid = dr_rng_uniform(rng) < 0.6, bright = dr_rng_uniform(rng) < 0.75;
    double line[3], ground[3], alpha = dr_rng_range(rng, 0.6, 1);
    grey_colour(rng, bright ? 0.55 : 0, bright ? 1 : 0.35, line);
    grey_colour(rng, 0, bright ? 0.4 : 1, ground);
    double under = dr_rng_uniform(rng) < 0.5 ? 0 : dr_rng_range(rng, 0.5, 1);
    /* the half-plane that it covers; reach large = everything */
    double side = dr_rng_range(rng, 0, 2 * pi), nx = cos(side), ny = sin(side);
    double reach = dr_rng_uniform(rng) < 0.4 ? 2.0 * size : dr_rng_range(rng, -0.2, 0.4) * size;
    size_t plane = (size_t)size * (size_t)size;
    for (int y = 0; y < size; y++)
        for (int x = 0; x < size; x++) {
            double px = x - size / 2.0, py = y - size / 2.0, in = reach - (nx * px + ny * py);
            if (in <= 0) continue;
            double edge = in < 1 ? in : 1, c = cover(&a, px, py, size);
            if (grid) {
                double d = cover(&b, px, py, size);
                if (d > c) c = d;
            }
            float *p = rgb + (size_t)y * (size_t)size + (size_t)x;
            for (int k = 0; k < 3; k++) {
                double v = (double)p[(size_t)k * plane];
                v += edge * under * (ground[k] - v);
                v += edge * alpha * c * (line[k] - v);
                p[(size_t)k * plane] = (float)v;
            }
        }
}
