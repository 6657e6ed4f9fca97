#include "core/base/rng.h"

#include <math.h>

static uint64_t splitmix(uint64_t *x) {
    uint64_t z = (*x += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

void dr_rng_seed(dr_rng *r, uint64_t seed, uint64_t stream) {
    uint64_t x = seed, y = stream ^ 0xd1b54a32d192ed03ull;
    x ^= splitmix(&y);
    for (int i = 0; i < 4; i++) r->s[i] = splitmix(&x);
}

static uint64_t rotl(uint64_t x, int k) {
    return (x << k) | (x >> (64 - k));
}

uint64_t dr_rng_u64(dr_rng *r) {
    uint64_t *s = r->s, result = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

uint32_t dr_rng_below(dr_rng *r, uint32_t n) {
    /* Lemire's multiply-shift with rejection: no modulo bias. */
    uint64_t m = (dr_rng_u64(r) >> 32) * (uint64_t)n;
    if ((uint32_t)m < n) {
        uint32_t t = -n % n;
        while ((uint32_t)m < t) m = (dr_rng_u64(r) >> 32) * (uint64_t)n;
    }
    return (uint32_t)(m >> 32);
}

double dr_rng_uniform(dr_rng *r) {
    return (double)(dr_rng_u64(r) >> 11) * 0x1p-53;
}

double dr_rng_range(dr_rng *r, double lo, double hi) {
    return lo + (hi - lo) * dr_rng_uniform(r);
}

double dr_rng_normal(dr_rng *r) {
    double u = 1.0 - dr_rng_uniform(r), v = dr_rng_uniform(r); /* u in (0,1] */
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}
