/* hashgen.h - weights, pictures and patch positions from one integer hash, the same bits as hashgen.py.
 *
 * Golden tests need the same network in C and in PyTorch without shipping its weights. Element i of the array called
 * `name` comes from splitmix64's mixing function of (FNV-1a of the name) + i * golden ratio. Its top 24 bits make a
 * float u in [-1,1) that is exact in f32; a weight is u times one f32 factor, so it is rounded once and alike
 * everywhere. Header only, for tests. */
#ifndef TESTS_GOLDEN_HASHGEN_H
#define TESTS_GOLDEN_HASHGEN_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static inline uint64_t hg_name(const char *name) {
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a, 64 bit */
    for (; *name; name++) h = (h ^ (unsigned char)*name) * 0x100000001b3u;
    return h;
}

/* 64 well mixed bits of element i; base = hg_name(name). */
static inline uint64_t hg_bits(uint64_t base, uint64_t i) {
    uint64_t z = base + (i + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Uniform in [-1,1), exact in f32. */
static inline float hg_unit(uint64_t base, uint64_t i) {
    return (float)((int32_t)(hg_bits(base, i) >> 40) - (1 << 23)) * 0x1p-23f;
}

/* n values of the array `name`, uniform in [-scale, scale); offset is then added to each one's magnitude. */
static inline void hg_fill_offset(const char *name, float scale, float offset, size_t n, float *ret) {
    uint64_t base = hg_name(name);
    for (size_t i = 0; i < n; i++) {
        float v = hg_unit(base, i) * scale;
        ret[i] = v < 0 ? v - offset : v + offset;
    }
}
static inline void hg_fill(const char *name, float scale, size_t n, float *ret) {
    hg_fill_offset(name, scale, 0.0f, n, ret);
}

/* Factor that gives a weight with fan_in inputs the variance gain^2 / fan_in. */
static inline float hg_scale(double gain, int fan_in) {
    return (float)(gain * sqrt(3.0 / (double)fan_in));
}

/* Sample i of an 8-bit picture of white noise. */
static inline uint8_t hg_pixel(uint64_t base, uint64_t i) {
    return (uint8_t)(hg_bits(base, i) >> 56);
}
static inline void hg_fill_picture(const char *name, size_t n, float *ret) { /* as METHOD.md section 10: [-1,1] */
    uint64_t base = hg_name(name);
    for (size_t i = 0; i < n; i++) ret[i] = ((float)hg_pixel(base, i) / 255.0f - 0.5f) / 0.5f;
}

/* Square picture (channels,side,side) in [-1,1]: 8-bit values of the hash every `cell` pixels, bilinear between them.
 */
static inline void hg_smooth_picture(const char *name, int channels, int side, int cell, float *ret) {
    uint64_t base = hg_name(name);
    int g = side / cell + 1;
    for (int c = 0; c < channels; c++)
        for (int y = 0; y < side; y++)
            for (int x = 0; x < side; x++) {
                int fy = y % cell, fx = x % cell;
                uint64_t at = (uint64_t)((c * g + y / cell) * g + x / cell);
                int left = hg_pixel(base, at) * (cell - fy) + hg_pixel(base, at + (uint64_t)g) * fy;
                int right = hg_pixel(base, at + 1) * (cell - fy) + hg_pixel(base, at + (uint64_t)g + 1) * fy;
                *ret++ = (float)((left * (cell - fx) + right * fx) / (double)(cell * cell) / 127.5 - 1.0);
            }
}

typedef struct hg_pair {
    uint64_t key;
    int32_t i;
} hg_pair;
static inline int hg_pair_order(const void *a, const void *b) {
    const hg_pair *x = a, *y = b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    return x->i < y->i ? -1 : x->i > y->i;
}

/* The first s entries of a permutation of 0..n-1: the positions sorted by their hash. Returns 0, or -1 without memory.
 */
static inline int hg_positions(const char *name, int n, int s, int32_t *ret) {
    uint64_t base = hg_name(name);
    hg_pair *p = malloc((size_t)n * sizeof *p);
    if (!p) return -1;
    for (int i = 0; i < n; i++) p[i] = (hg_pair){hg_bits(base, (uint64_t)i), i};
    qsort(p, (size_t)n, sizeof *p, hg_pair_order);
    for (int i = 0; i < s; i++) ret[i] = p[i].i;
    free(p);
    return 0;
}

/* 64 random projections of v at once: ret[k] = sum of +-v[i], the sign being bit k of element i of the array `name`.
 * For a difference d of two arrays, the mean of (p_k(a) - p_k(b))^2 over k estimates |d|^2 with a relative standard
 * deviation of at most sqrt(2/64) = 18 %: all that a comparison of norms needs, in 64 numbers. */
static inline void hg_project(const char *name, const float *v, size_t n, double ret[64]) {
    uint64_t base = hg_name(name);
    for (int k = 0; k < 64; k++) ret[k] = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t bits = hg_bits(base, i);
        for (int k = 0; k < 64; k++) ret[k] += (bits >> k & 1) ? (double)v[i] : -(double)v[i];
    }
}

#endif
