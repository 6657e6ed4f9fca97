/* conv_naive.c - convolutions with plain loops, for machines without a device: what the emulated module computes with
 * (cudnn_naive.c), and what cuDNN is compared with. Sums are f32 in a fixed order; 16-bit inputs are widened, a 16-bit
 * result rounds once. The innermost loop always runs along channels, so the compiler can vectorise it without
 * reordering sums. */
#include "tests/cusim/conv_naive.h"

#include <stdlib.h>
#include <string.h>

static inline float from_bf16(uint16_t v) {
    uint32_t bits = (uint32_t)v << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint16_t to_bf16(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(bits >> 16 | 0x40); /* NaN stays NaN */
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);                  /* nearest, ties to even */
}

/* IEEE half by its parts, as tests/cusim/cusim.h. */
static inline float from_f16(uint16_t v) {
    uint32_t sign = (uint32_t)(v & 0x8000u) << 16, a = v & 0x7fffu, bits;
    float f;
    if (a < 0x400u) {
        f = (float)a * 0x1p-24f; /* subnormal: exact */
        return sign ? -f : f;
    }
    bits = sign | ((a << 13) + (a >= 0x7c00u ? 0x70000000u : 0x38000000u));
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* To nearest, ties to even; from 65520 on infinite, as on a device. */
static inline uint16_t to_f16(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000u);
    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u) return 0x7fff;
    if (bits >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u);
    if (bits >= 0x38800000u) {
        bits -= 0x38000000u;
        return (uint16_t)(sign | (bits + 0x0fffu + (bits >> 13 & 1)) >> 13);
    }
    memcpy(&f, &bits, sizeof f);
    f += 0.5f; /* its last place is 2^-24, the unit of subnormal halves */
    memcpy(&bits, &f, sizeof bits);
    return (uint16_t)(sign | (bits - 0x3f000000u));
}

static float *widened(const void *p, size_t n, dk_type t) {
    float *f = malloc(n * sizeof *f);
    if (!f) return NULL;
    if (t == DK_F32)
        memcpy(f, p, n * sizeof *f);
    else if (t == DK_BF16)
        for (size_t i = 0; i < n; i++) f[i] = from_bf16(((const uint16_t *)p)[i]);
    else
        for (size_t i = 0; i < n; i++) f[i] = from_f16(((const uint16_t *)p)[i]);
    return f;
}

static void store(const float *f, size_t n, dk_type t, void *p) {
    if (t == DK_F32)
        memcpy(p, f, n * sizeof *f);
    else if (t == DK_BF16)
        for (size_t i = 0; i < n; i++) ((uint16_t *)p)[i] = to_bf16(f[i]);
    else
        for (size_t i = 0; i < n; i++) ((uint16_t *)p)[i] = to_f16(f[i]);
}

static inline void add_scaled(float *restrict y, float a, const float *restrict x, int n) {
    for (int i = 0; i < n; i++) y[i] += a * x[i];
}

typedef struct sizes {
    size_t n, i, h, w, o, k, kw, pad, oh, ow;
} sizes;

/* y(n,p,q,o) = sum over r,s,i of x(n,p+r-pad,q+s-pad,i) w(o,r,s,i); wt is w as (r,s,i,o). */
static void forward(sizes z, bool from_end, const float *x, const float *wt, float *y) {
    for (size_t n = 0; n < z.n; n++)
        for (size_t p = 0; p < z.oh; p++)
            for (size_t q = 0; q < z.ow; q++) {
                float *at = y + ((n * z.oh + p) * z.ow + q) * z.o;
                for (size_t u = 0; u < z.k; u++)
                    for (size_t s = 0; s < z.kw; s++) {
                        const size_t r = from_end ? z.k - 1 - u : u;
                        size_t ih = p + r - z.pad, iw = q + s - z.pad; /* below 0 wraps to far above h, w */
                        if (ih >= z.h || iw >= z.w) continue;
                        const float *in = x + ((n * z.h + ih) * z.w + iw) * z.i,
                                    *taps = wt + (r * z.kw + s) * z.i * z.o;
                        for (size_t i = 0; i < z.i; i++) add_scaled(at, in[i], taps + i * z.o, (int)z.o);
                    }
            }
}

/* dx(n,a,b,i) = sum over r,s,o of dy(n,a+pad-r,b+pad-s,o) w(o,r,s,i) */
static void backward_data(sizes z, bool from_end, const float *dy, const float *w, float *dx) {
    for (size_t n = 0; n < z.n; n++)
        for (size_t a = 0; a < z.h; a++)
            for (size_t b = 0; b < z.w; b++) {
                float *at = dx + ((n * z.h + a) * z.w + b) * z.i;
                for (size_t u = 0; u < z.k; u++)
                    for (size_t s = 0; s < z.kw; s++) {
                        const size_t r = from_end ? z.k - 1 - u : u;
                        size_t p = a + z.pad - r, q = b + z.pad - s;
                        if (p >= z.oh || q >= z.ow) continue;
                        const float *g = dy + ((n * z.oh + p) * z.ow + q) * z.o;
                        for (size_t o = 0; o < z.o; o++)
                            add_scaled(at, g[o], w + ((o * z.k + r) * z.kw + s) * z.i, (int)z.i);
                    }
            }
}

/* dw(o,r,s,i) = sum over n,p,q of dy(n,p,q,o) x(n,p+r-pad,q+s-pad,i) */
static void backward_weights(sizes z, bool from_end, const float *x, const float *dy, float *dw) {
    for (size_t n = 0; n < z.n; n++)
        for (size_t u = 0; u < z.oh; u++)
            for (size_t q = 0; q < z.ow; q++) {
                const size_t p = from_end ? z.oh - 1 - u : u;
                const float *g = dy + ((n * z.oh + p) * z.ow + q) * z.o;
                for (size_t r = 0; r < z.k; r++)
                    for (size_t s = 0; s < z.kw; s++) {
                        size_t ih = p + r - z.pad, iw = q + s - z.pad;
                        if (ih >= z.h || iw >= z.w) continue;
                        const float *in = x + ((n * z.h + ih) * z.w + iw) * z.i;
                        for (size_t o = 0; o < z.o; o++)
                            add_scaled(dw + ((o * z.k + r) * z.kw + s) * z.i, g[o], in, (int)z.i);
                    }
            }
}

/* (o,r,s,i) -> (r,s,i,o) */
static float *transposed(sizes z, const float *w) {
    size_t taps = z.k * z.kw * z.i;
    float *t = malloc(taps * z.o * sizeof *t);
    for (size_t o = 0; t && o < z.o; o++)
        for (size_t j = 0; j < taps; j++) t[j * z.o + o] = w[o * taps + j];
    return t;
}

dr_status naive_conv(const dr_host_api *host, cv_kind kind, cv_shape s, bool from_end, const void *a, const void *b,
                     void *out, dr_error *err) {
    if (s.n < 1 || s.i < 8 || s.o < 8 || s.i % 8 || s.o % 8 || s.k < 1 || s.pad < 0 || s.h < 1 || s.w < 1 ||
        s.h + 2 * s.pad < s.k || s.w + 2 * s.pad < cv_kw(s)) {
        host->fail(err, DR_BACKEND, "convolution of %dx%dx%dx%d to %d, %dx%d pad %d: not a shape for this backend", s.n,
                   s.i, s.h, s.w, s.o, s.k, cv_kw(s), s.pad);
        return DR_BACKEND;
    }
    const sizes z = {.n = (size_t)s.n,
                     .i = (size_t)s.i,
                     .h = (size_t)s.h,
                     .w = (size_t)s.w,
                     .o = (size_t)s.o,
                     .k = (size_t)s.k,
                     .kw = (size_t)cv_kw(s),
                     .pad = (size_t)s.pad,
                     .oh = (size_t)(s.h + 2 * s.pad - s.k + 1),
                     .ow = (size_t)(s.w + 2 * s.pad - cv_kw(s) + 1)};
    const size_t nx = z.n * z.h * z.w * z.i, nw = z.o * z.k * z.kw * z.i, ny = z.n * z.oh * z.ow * z.o;
    const size_t na = kind == CV_BACKWARD_DATA ? ny : nx, nb = kind == CV_BACKWARD_WEIGHTS ? ny : nw,
                 nr = kind == CV_FORWARD         ? ny
                      : kind == CV_BACKWARD_DATA ? nx
                                                 : nw;
    float *fa = widened(a, na, s.type), *fb = widened(b, nb, s.type), *r = calloc(nr, sizeof *r);
    float *wt = kind == CV_FORWARD && fb ? transposed(z, fb) : NULL;
    dr_status status = DR_OK;
    if (!fa || !fb || !r || (kind == CV_FORWARD && !wt)) {
        host->fail(err, DR_NOMEM, "out of memory for a convolution");
        status = DR_NOMEM;
        goto out;
    }
    if (kind == CV_FORWARD)
        forward(z, from_end, fa, wt, r);
    else if (kind == CV_BACKWARD_DATA)
        backward_data(z, from_end, fa, fb, r);
    else
        backward_weights(z, from_end, fa, fb, r);
    store(r, nr, s.type, out);
out:
    free(wt);
    free(r);
    free(fb);
    free(fa);
    return status;
}
