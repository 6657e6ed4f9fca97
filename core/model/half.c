/* half.c - 16-bit floats by their bit patterns: s eeeee mmmmmmmmmm (binary16), s eeeeeeee mmmmmmm (bfloat16). */
#include "core/model/half.h"

#include <string.h>

static uint32_t bits_of(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float float_of(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

uint16_t dr_f16_from_f32(float f) {
    uint32_t u = bits_of(f), sign = (u >> 16) & 0x8000u, a = u & 0x7fffffffu;
    if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* from 65520 on the nearest is infinity */
    if (a >= 0x38800000u) {                                  /* normal: drop 13 bits, a carry may raise the exponent */
        uint32_t r = a - 0x38000000u;
        r += 0x0fffu + ((r >> 13) & 1u);
        return (uint16_t)(sign | (r >> 13));
    }
    if (a < 0x33000000u) return (uint16_t)sign; /* below half of the smallest subnormal */
    /* subnormal: units of 2^-24; the shift is 14..24 */
    uint32_t m = (a & 0x007fffffu) | 0x00800000u, shift = 126u - (a >> 23);
    uint32_t q = m >> shift, rest = m & ((1u << shift) - 1u), half = 1u << (shift - 1);
    if (rest > half || (rest == half && (q & 1u))) q++;
    return (uint16_t)(sign | q);
}

float dr_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, e = (h >> 10) & 0x1fu, m = h & 0x3ffu;
    if (e == 31) return float_of(sign | 0x7f800000u | (m << 13));
    if (e) return float_of(sign | ((e + 112u) << 23) | (m << 13));
    float v = (float)m * 0x1p-24f; /* exact */
    return sign ? -v : v;
}

uint16_t dr_bf16_from_f32(float f) {
    uint32_t u = bits_of(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16) | 0x40u);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

float dr_bf16_to_f32(uint16_t h) {
    return float_of((uint32_t)h << 16);
}
