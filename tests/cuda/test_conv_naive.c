/* test_conv_naive.c - the plain loops of tests/cusim/conv_naive.c against the definition, tap by tap in double, and the
 * rules that tie the three directions together. */
#include "tests/cuda/half.h"
#include "tests/t.h"

#include "core/base/status.h"
#include "tests/cusim/conv_naive.h"

static const dr_host_api host = {.fail = dr_fail};

static float noise(unsigned *r) {
    *r = *r * 1664525u + 1013904223u;
    return (float)(*r >> 8) / 16777216.0f - 0.5f;
}

/* Picture, window and gradient of one convolution; an index outside a picture reads as 0. */
typedef struct data {
    cv_shape s;
    int oh, ow;
    float *x, *w, *y, *out;
    size_t nx, nw, ny;
} data;

static data make(cv_shape s) {
    data d = {.s = s, .oh = s.h + 2 * s.pad - s.k + 1, .ow = s.w + 2 * s.pad - cv_kw(s) + 1};
    d.nx = (size_t)(s.n * s.h * s.w * s.i), d.nw = (size_t)(s.o * s.k * cv_kw(s) * s.i),
    d.ny = (size_t)(s.n * d.oh * d.ow * s.o);
    d.x = calloc(d.nx, 4), d.w = calloc(d.nw, 4), d.y = calloc(d.ny, 4);
    d.out = calloc(4, d.nx + d.nw + d.ny);
    unsigned r = 7;
    for (size_t i = 0; i < d.nx; i++) d.x[i] = noise(&r);
    for (size_t i = 0; i < d.nw; i++) d.w[i] = noise(&r);
    for (size_t i = 0; i < d.ny; i++) d.y[i] = noise(&r);
    return d;
}

static void done(data *d) {
    free(d->x), free(d->w), free(d->y), free(d->out);
}

/* The definition, for one direction: adds every product where it belongs. */
static double *defined(const data *d, cv_kind kind) {
    const cv_shape s = d->s;
    double *r = calloc(d->nx + d->nw + d->ny, sizeof *r);
    for (int n = 0; n < s.n; n++)
        for (int p = 0; p < d->oh; p++)
            for (int q = 0; q < d->ow; q++)
                for (int o = 0; o < s.o; o++)
                    for (int u = 0; u < s.k; u++)
                        for (int v = 0; v < cv_kw(s); v++) {
                            int h = p + u - s.pad, w = q + v - s.pad;
                            if (h < 0 || w < 0 || h >= s.h || w >= s.w) continue;
                            size_t iy = (size_t)(((n * d->oh + p) * d->ow + q) * s.o + o);
                            for (int i = 0; i < s.i; i++) {
                                size_t ix = (size_t)(((n * s.h + h) * s.w + w) * s.i + i);
                                size_t iw = (size_t)(((o * s.k + u) * cv_kw(s) + v) * s.i + i);
                                if (kind == CV_FORWARD) r[iy] += (double)d->x[ix] * d->w[iw];
                                if (kind == CV_BACKWARD_DATA) r[ix] += (double)d->y[iy] * d->w[iw];
                                if (kind == CV_BACKWARD_WEIGHTS) r[iw] += (double)d->x[ix] * d->y[iy];
                            }
                        }
    return r;
}

static dr_status run(const data *d, cv_kind kind, bool from_end, void *out, dr_error *err) {
    return naive_conv(&host, kind, d->s, from_end, kind == CV_BACKWARD_DATA ? d->y : d->x,
                      kind == CV_BACKWARD_WEIGHTS ? d->y : d->w, out, err);
}

static const cv_shape shapes[] = {
    {2, 8, 9, 7, 16, 3, 1, DK_F32, 0}, {1, 16, 6, 11, 8, 3, 0, DK_F32, 0}, {1, 8, 13, 8, 24, 7, 0, DK_F32, 0},
    {3, 8, 5, 5, 8, 4, 1, DK_F32, 0},  {1, 8, 1, 3, 8, 3, 1, DK_F32, 0},   {2, 24, 4, 4, 8, 1, 0, DK_F32, 0},
    {2, 8, 6, 9, 24, 1, 0, DK_F32, 7}, {1, 24, 9, 6, 8, 7, 0, DK_F32, 1}, /* rows, columns */
    {1, 8, 2, 2, 8, 4, 3, DK_F32, 0},                                     /* padding wider than the picture */
};

TEST(three_directions_are_the_definition) {
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int kind = CV_FORWARD; kind <= CV_BACKWARD_WEIGHTS; kind++) {
            data d = make(shapes[i]);
            dr_error err = {0};
            size_t n = kind == CV_FORWARD ? d.ny : kind == CV_BACKWARD_DATA ? d.nx : d.nw;
            double *want = defined(&d, (cv_kind)kind), worst = 0;
            dr_status s = DR_OK;
            for (int from_end = 0; from_end < 2 && !s; from_end++) {
                s = run(&d, (cv_kind)kind, from_end, d.out, &err);
                for (size_t j = 0; j < n; j++) worst = fmax(worst, fabs(want[j] - (double)d.out[j]));
            }
            free(want);
            done(&d);
            CHECK_MSG(!s && worst < 2e-5, "shape %zu direction %d: %s off by %g", i, kind, err.text, worst);
        }
}

static uint16_t top_half(float f) {
    uint32_t bits;
    memcpy(&bits, &f, 4);
    return (uint16_t)(bits >> 16);
}
static float back(uint16_t v) {
    uint32_t bits = (uint32_t)v << 16;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

/* bf16: the same sums as f32 on the same numbers, each rounded once to the nearest, ties to even. */
TEST(bf16_rounds_once) {
    for (int kind = CV_FORWARD; kind <= CV_BACKWARD_WEIGHTS; kind++) {
        data d = make(shapes[0]);
        uint16_t *half = malloc(2 * (d.nx + d.nw + d.ny)), *out = calloc(2, d.nx + d.nw + d.ny);
        uint16_t *x = half, *w = half + d.nx, *y = w + d.nw;
        for (size_t i = 0; i < d.nx; i++) d.x[i] = back(x[i] = top_half(d.x[i]));
        for (size_t i = 0; i < d.nw; i++) d.w[i] = back(w[i] = top_half(d.w[i]));
        for (size_t i = 0; i < d.ny; i++) d.y[i] = back(y[i] = top_half(d.y[i]));
        dr_error err = {0};
        dr_status s = run(&d, (cv_kind)kind, false, d.out, &err);
        data h = d;
        h.s.type = DK_BF16, h.x = (float *)(void *)x, h.w = (float *)(void *)w, h.y = (float *)(void *)y;
        if (!s) s = run(&h, (cv_kind)kind, false, out, &err);
        size_t n = kind == CV_FORWARD ? d.ny : kind == CV_BACKWARD_DATA ? d.nx : d.nw, n_off = 0;
        for (size_t i = 0; i < n; i++) {
            float got = back(out[i]), below = fabsf(back((uint16_t)(out[i] - 1))),
                  above = fabsf(back((uint16_t)(out[i] + 1)));
            float v = fabsf(d.out[i]), near = fabsf(v - fabsf(got));
            n_off += near > fabsf(v - below) || near > fabsf(v - above) || (got < 0) != (d.out[i] < 0);
        }
        free(half), free(out);
        done(&d);
        CHECK_MSG(!s && !n_off, "direction %d: %zu of %zu not the nearest: %s", kind, n_off, n, err.text);
    }
}

/* f16 by its definition (half.h): operands of many sizes, results down to subnormal ones, and beyond the range. */
TEST(f16_rounds_once) {
    for (int kind = CV_FORWARD; kind <= CV_BACKWARD_WEIGHTS; kind++)
        for (int power = -14; power <= 18; power += 8) {
            data d = make(shapes[0]);
            uint16_t *half = malloc(2 * (d.nx + d.nw + d.ny)), *out = calloc(2, d.nx + d.nw + d.ny);
            float *of[3] = {d.x, d.w, d.y};
            size_t n_of[3] = {d.nx, d.nw, d.ny}, at = 0;
            for (int k = 0; k < 3; k++)
                for (size_t i = 0; i < n_of[k]; i++, at++) {
                    const double v = f16_round(ldexp((double)of[k][i], power / 2));
                    of[k][i] = (float)v;
                    half[at] = f16_bits(v);
                }
            dr_error err = {0};
            dr_status s = run(&d, (cv_kind)kind, false, d.out, &err);
            data h = d;
            h.s.type = DK_F16;
            h.x = (float *)(void *)half, h.w = (float *)(void *)(half + d.nx);
            h.y = (float *)(void *)(half + d.nx + d.nw);
            if (!s) s = run(&h, (cv_kind)kind, false, out, &err);
            size_t n = kind == CV_FORWARD ? d.ny : kind == CV_BACKWARD_DATA ? d.nx : d.nw, n_off = 0, n_inf = 0;
            for (size_t i = 0; i < n; i++) {
                n_off += f16_value(out[i]) != f16_round((double)d.out[i]);
                n_inf += isinf(f16_value(out[i])) != 0;
            }
            free(half), free(out);
            done(&d);
            CHECK_MSG(!s && !n_off && (power < 18 || n_inf), "direction %d, 2^%d: %zu of %zu off: %s", kind, power,
                      n_off, n, err.text);
        }
}

TEST(refuses_what_the_door_forbids) {
    static const cv_shape bad[] = {{1, 3, 8, 8, 8, 3, 1, DK_F32, 0},
                                   {1, 8, 8, 8, 1, 3, 1, DK_F32, 0},
                                   {1, 8, 2, 2, 8, 7, 0, DK_F32, 0},
                                   {0, 8, 8, 8, 8, 3, 1, DK_F32, 0},
                                   {1, 8, 8, 8, 8, 3, -1, DK_F32, 0}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        dr_error err = {0};
        dr_status s = naive_conv(&host, CV_FORWARD, bad[i], false, NULL, NULL, NULL, &err);
        CHECK_MSG(s == DR_BACKEND && err.text[0], "shape %zu", i);
    }
}
