/* kern_test.h - what the kernel tests share. They use the runtime API and kern.h only, so that the same programs run on
 * tests/cusim and, linked against nvcc's objects, on a device.
 *
 * Host tensors are double, NCHW. put() rounds them to the map's type and order in exactly as much device memory as they
 * need; outputs start as NaN, so that a place never written is found. */
#ifndef KERN_TEST_H
#define KERN_TEST_H
#include "cuda/kern.h"
#include "tests/cuda/half.h"
#include "tests/t.h"
#include <stdint.h>

#define EPS    1e-5f
#define LEN(a) (sizeof(a) / sizeof *(a))

static float bf16_value(uint16_t h) {
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static uint16_t bf16_of(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
}
/* v as the map stores it */
static double stored(dk_map m, double v) {
    if (m.type == DK_F16) return f16_round((double)(float)v);
    return (double)(m.type == DK_BF16 ? bf16_value(bf16_of((float)v)) : (float)v);
}

/* Element i of a map's memory is which element of the NCHW order? */
static size_t nchw_of(dk_map m, size_t i) {
    if (!m.wide) return i;
    size_t c = i % (size_t)m.c, hw = (size_t)m.h * (size_t)m.w, p = i / (size_t)m.c % hw, n = i / (size_t)m.c / hw;
    return (n * (size_t)m.c + c) * hw + p;
}

static unsigned long long rng_state = 1;
static double rnd(void) { /* -1 to 1 */
    rng_state = rng_state * 6364136223846793005ull + 1442695040888963407ull;
    return (double)(rng_state >> 11) / 4503599627370496.0 - 1;
}
static double *random_host(dk_map m, double mean, double spread) {
    double *p = (double *)malloc(dk_count(m) * sizeof *p);
    for (size_t i = 0; i < dk_count(m); i++) p[i] = stored(m, mean + spread * rnd());
    return p;
}

/* Device memory of exactly `bytes`, full of NaN (0xFF). Ends the program if there is none. */
static void *dev_bytes(size_t bytes) {
    void *p;
    cudaError_t e = cudaMalloc(&p, bytes);
    if (e || cudaMemset(p, 0xff, bytes)) {
        printf("not ok device memory # %s\n", cudaGetErrorString(e));
        exit(1);
    }
    return p;
}
static void *dev_out(dk_map m) {
    return dev_bytes(dk_bytes(m));
}
static void *put(dk_map m, const double *nchw) {
    void *host = malloc(dk_bytes(m)), *dev = dev_out(m);
    for (size_t i = 0; i < dk_count(m); i++) {
        float f = (float)nchw[nchw_of(m, i)];
        if (m.type == DK_BF16)
            ((uint16_t *)host)[i] = bf16_of(f);
        else if (m.type == DK_F16)
            ((uint16_t *)host)[i] = f16_bits(f16_round((double)f));
        else
            ((float *)host)[i] = f;
    }
    cudaMemcpy(dev, host, dk_bytes(m), cudaMemcpyHostToDevice);
    free(host);
    return dev;
}
/* The tensor back as NCHW doubles; caller frees. */
static double *get(dk_map m, const void *dev) {
    void *host = malloc(dk_bytes(m));
    double *p = (double *)malloc(dk_count(m) * sizeof *p);
    cudaMemcpy(host, dev, dk_bytes(m), cudaMemcpyDeviceToHost);
    for (size_t i = 0; i < dk_count(m); i++)
        p[nchw_of(m, i)] = m.type == DK_BF16  ? (double)bf16_value(((uint16_t *)host)[i])
                           : m.type == DK_F16 ? f16_value(((uint16_t *)host)[i])
                                              : (double)((float *)host)[i];
    free(host);
    return p;
}

/* Largest |got - want| / (|want| + floor) of a device tensor; NaN anywhere gives infinity. */
static double worst(dk_map m, const void *dev, const double *want, double floor_) {
    double *got = get(m, dev), w = 0;
    for (size_t i = 0; i < dk_count(m); i++) {
        double e = fabs(got[i] - want[i]) / (fabs(want[i]) + floor_);
        if (!(e <= w)) w = e == e ? e : INFINITY;
    }
    free(got);
    return w;
}
/* One rounding to the type, and a few float operations. */
static double tolerance(dk_map m) {
    return m.type == DK_BF16 ? 4.1e-3 : m.type == DK_F16 ? 5.1e-4 : 4e-6;
}

static dk_map map(bool wide, dk_type t, int n, int c, int h, int w) {
    dk_map m = {n, c, h, w, wide, t};
    return m;
}
static dk_map sized(dk_map m, int h, int w) {
    return map(m.wide, m.type, m.n, m.c, h, w);
}
static const char *map_text(dk_map m) {
    static char s[80];
    snprintf(s, sizeof s, "%s %s %d,%d,%d,%d", m.wide ? "wide" : "planar", dk_type_name(m.type), m.n, m.c, m.h, m.w);
    return s;
}

static int mirror(int i, int n) {
    if (i < 0) i = -i;
    return i >= n ? 2 * (n - 1) - i : i;
}
static int clamp_to(int i, int n) {
    return i < 0 ? 0 : i >= n ? n - 1 : i;
}

/* Resampling as a list of weights from input to output pixels, per plane: forward adds weight * x to y, else the
 * adjoint adds weight * y to x. Written as scatters of the definition, unlike the kernels. */
typedef enum kind { PAD, DOWN, UP } kind;
static dk_map out_of(kind k, dk_map m, int p) {
    if (k == PAD) return sized(m, m.h + 2 * p, m.w + 2 * p);
    if (k == DOWN) return sized(m, (m.h + 1) / 2, (m.w + 1) / 2);
    return sized(m, 2 * m.h, 2 * m.w);
}
/* Pixels of one axis that output o takes from, with weights; returns how many. */
static int sources(kind k, int o, int n, int p, int at[3], double w[3]) {
    if (k == PAD) {
        at[0] = mirror(o - p, n);
        w[0] = 1;
        return 1;
    }
    if (k == DOWN) {
        for (int t = 0; t < 3; t++) {
            at[t] = mirror(2 * o + t - 1, n);
            w[t] = t == 1 ? 0.5 : 0.25;
        }
        return 3;
    }
    at[0] = o / 2;
    at[1] = clamp_to(o / 2 + (o % 2 ? 1 : -1), n);
    w[0] = 0.75;
    w[1] = 0.25;
    return 2;
}
static void resample(kind k, bool forward, dk_map m, int p, double *x, double *y) {
    dk_map o = out_of(k, m, p);
    memset(forward ? y : x, 0, dk_count(forward ? o : m) * sizeof *x);
    for (int pl = 0; pl < m.n * m.c; pl++)
        for (int oy = 0; oy < o.h; oy++)
            for (int ox = 0; ox < o.w; ox++) {
                int ay[3], ax[3];
                double wy[3], wx[3];
                int ny = sources(k, oy, m.h, p, ay, wy), nx = sources(k, ox, m.w, p, ax, wx);
                double *py = y + ((size_t)pl * (size_t)o.h + (size_t)oy) * (size_t)o.w + (size_t)ox;
                for (int a = 0; a < ny; a++)
                    for (int b = 0; b < nx; b++) {
                        double *px = x + ((size_t)pl * (size_t)m.h + (size_t)ay[a]) * (size_t)m.w + (size_t)ax[b];
                        if (forward)
                            *py += wy[a] * wx[b] * *px;
                        else
                            *px += wy[a] * wx[b] * *py;
                    }
            }
}

#endif
