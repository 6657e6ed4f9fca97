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

/* 16 pairs (a_i, b_i). */
static inline __m512i to_pairs(__m512 a, __m512 b) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, to_bf16(a, b));
}

#endif
