/* amx_kern.h - what amx.c and amx_dw.c share: tile set-up, bf16 conversion, sizes. Included by these two only; they
 * are compiled for AVX-512 with bf16 and AMX, and run only after dr_amx_open() said yes. */
#ifndef DR_CPU_AMX_KERN_H
#define DR_CPU_AMX_KERN_H

#include "core/cpu/amx.h"
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

typedef uint16_t bf16;

enum { TILE = 512 }; /* bf16 in a tile: 16 rows of 32; f32 in a tile: 16 rows of 16 */

/* All eight tiles are 16 rows of 64 bytes. */
static inline void tiles_on(void) {
    struct {
        uint8_t palette, start, none[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } cfg = {.palette = 1};
    for (int i = 0; i < 8; i++) cfg.bytes[i] = 64, cfg.rows[i] = 16;
    _tile_loadconfig(&cfg);
}

static inline int up(int n, int to) {
    return (n + to - 1) / to * to;
}
static inline size_t round64(size_t n) {
    return (n + 63) & ~(size_t)63;
}

/* 32 bf16: lo in the first half. */
static inline __m512i to_bf16(__m512 lo, __m512 hi) {
    return (__m512i)_mm512_cvtne2ps_pbh(hi, lo);
}

/* 16 pairs (a_i, b_i) of a vector that holds a, then b. */
static inline __m512i pairs(__m512i ab) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, ab);
}
static inline __m512i to_pairs(__m512 a, __m512 b) {
    return pairs(to_bf16(a, b));
}
static inline __m512i zip16(__m256i a, __m256i b) {
    return pairs(_mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1));
}

/* 16x16 of 32 bits. */
static inline void transpose16(__m512i r[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

/* bf16 of a row of few planar channels, interleaved as (pixel, channel) with its padding written out, of which `pixels`
 * pixels are read as 32 bf16 each. */
static inline int interleaved(const dr_amx_conv *c, int pixels) {
    int full = c->iw + 2 * c->pad;
    return up((pixels > full ? pixels : full) * c->ic + 64, 32);
}

/* x points to the row in the first plane, or is NULL for a row of padding; writes n bf16. */
static inline void interleave(const dr_amx_conv *c, const float *x, bf16 *to, int n) {
    memset(to, 0, (size_t)n * sizeof *to);
    to += c->pad * c->ic;
    for (int ch = 0; x && ch < c->ic; ch++, x += (size_t)c->ih * (size_t)c->iw)
        for (int i = 0; i < c->iw; i++) {
            uint32_t u;
            memcpy(&u, &x[i], 4);
            u += 0x7fff + (u >> 16 & 1); /* to nearest even; not a number stays one unless its payload is all ones */
            to[i * c->ic + ch] = (bf16)(u >> 16);
        }
}

#endif
