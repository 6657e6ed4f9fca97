/* amx_kern.h - what the amx*.c files share: tile set-up, bf16 conversion, the plan. Included by these only; they are
 * compiled for AVX-512 with bf16 and AMX, and run only after dr_amx_open() said yes. */
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

/* v = hi + lo, each bf16, but for 2^-17 of v. */
static inline __m512i rest(__m512 lo, __m512 hi, __m512i bf) {
    __m512 l = (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(bf)), 16);
    __m512 h = (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(bf, 1)), 16);
    return to_bf16(_mm512_sub_ps(lo, l), _mm512_sub_ps(hi, h));
}

/* Where row or column i of n comes from, -1: a zero. */
static inline int mirror(int i, int n, bool reflect) {
    if (i >= 0 && i < n) return i;
    if (!reflect) return -1;
    i = i < 0 ? -i : 2 * (n - 1) - i;
    return i >= 0 && i < n ? i : -1;
}

/* Pixels x0.. of a row of few planar channels, interleaved as (pixel, channel), n numbers (a multiple of 32); `part`
 * bf16 further their second halves, unless part is 0. x points to the row in the first plane, or is NULL for zeros. */
static inline void interleave(const dr_amx_conv *c, const float *x, int x0, int n, bf16 *to, size_t part) {
    memset(to, 0, (size_t)n * sizeof *to);
    if (part) memset(to + part, 0, (size_t)n * sizeof *to);
    for (int ch = 0; x && ch < c->ic; ch++, x += (size_t)c->ih * (size_t)c->iw)
        for (int i = 0; i * c->ic + ch < n; i++) {
            int at = mirror(x0 + i, c->iw, c->reflect);
            if (at < 0) continue;
            __m128 v = _mm_set_ss(x[at]);
            int h = _mm_extract_epi16((__m128i)_mm_cvtneps_pbh(v), 0);
            to[i * c->ic + ch] = (bf16)h;
            if (!part) continue;
            __m128 r = _mm_sub_ss(v, (__m128)_mm_cvtsi32_si128((int)((unsigned)h << 16)));
            to[part + (size_t)(i * c->ic + ch)] = (bf16)_mm_extract_epi16((__m128i)_mm_cvtneps_pbh(r), 0);
        }
}

static inline bool few(int c) {
    return c % 16 != 0;
}

/* A forward convolution as the kernel sees it: pictures in blocks of rows x cols outputs. The block buffer holds the
 * inputs of a block as [part][block of 32 channels][row][pixel][32], or few channels as [part][row][pixel][few]. */
typedef struct amx_plan {
    const dr_amx_conv *c;
    int oh, ow, parts;
    int kw, n_cb, n_ob;       /* taps in a row, blocks of 32 inputs and (an even number of) blocks of 16 outputs */
    int rows, cols, n_y, n_x; /* outputs in a block, blocks of a picture */
    int in_rows, in_cols;     /* inputs of a block */
    int px;                   /* bf16 between pixels: 32, or few */
    size_t row, block, part;  /* between rows, channel blocks, parts */
    bool flat;                /* tiles run on over the ends of rows */
    size_t z_block;           /* few outputs: floats between blocks of z */
    size_t x_bytes, t_bytes, z_bytes; /* block buffer, f32 rows on the way to it, z */
} amx_plan;

/* amx_rows.c: the inputs of the block of outputs that starts at (y0, x0) of picture n. */
void amx_rows(const amx_plan *p, const float *x, int n, int y0, int x0, bf16 *to, float *tmp);
size_t amx_rows_bytes(const amx_plan *p); /* of tmp */

/* amx_pack.c: [block of 16 outputs][block of 32 inputs][tap][part][16 pairs of inputs][16 outputs][2] */
void amx_pack(const amx_plan *p, const float *w, int ob, bf16 *to);

#endif
