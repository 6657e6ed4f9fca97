/* half.h - IEEE half on the host of the tests, from its definition: 11 bits, steps of 2^-24 at least, infinite from
 * 65520 on. Written unlike the bit tricks of tests/cusim, so that the two check each other. */
#ifndef TESTS_CUDA_HALF_H
#define TESTS_CUDA_HALF_H

#include <math.h>
#include <stdint.h>

static inline double f16_round(double v) {
    int e;
    if (!isfinite(v) || v == 0) return v;
    (void)frexp(v, &e);
    const double step = ldexp(1, e - 11 > -24 ? e - 11 : -24), r = nearbyint(v / step) * step;
    return fabs(r) < 65520 ? r : copysign((double)INFINITY, v);
}

static inline double f16_value(uint16_t h) {
    const int e = h >> 10 & 31, m = h & 1023;
    const double v = e == 31 ? (m ? (double)NAN : (double)INFINITY) : e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);
    return h & 0x8000 ? -v : v;
}

/* Of a value that f16_round() gave. */
static inline uint16_t f16_bits(double v) {
    const uint16_t sign = signbit(v) ? 0x8000 : 0;
    int e;
    if (isnan(v)) return 0x7e00;
    if (isinf(v)) return (uint16_t)(sign | 0x7c00);
    const double m = frexp(fabs(v), &e);
    if (v == 0 || e < -13) return (uint16_t)(sign | (unsigned)ldexp(fabs(v), 24));
    return (uint16_t)(sign | (unsigned)((e + 14) << 10) | ((unsigned)ldexp(m, 11) & 1023));
}

#endif
