/* rng.h - random numbers with explicit, saveable state (xoshiro256**, seeded by splitmix64).
 *
 * Integers only decide the sequence: the same seed gives the same numbers on every machine. */
#ifndef DR_BASE_RNG_H
#define DR_BASE_RNG_H

#include <stdint.h>

typedef struct dr_rng {
    uint64_t s[4];
} dr_rng;

void dr_rng_seed(dr_rng *r, uint64_t seed, uint64_t stream); /* different streams of a seed are independent */
uint64_t dr_rng_u64(dr_rng *r);
uint32_t dr_rng_below(dr_rng *r, uint32_t n); /* uniform in 0..n-1, n > 0, no modulo bias */
double dr_rng_uniform(dr_rng *r);             /* [0, 1) */
double dr_rng_range(dr_rng *r, double lo, double hi);
double dr_rng_normal(dr_rng *r); /* mean 0, deviation 1 (Box-Muller, two draws each call, no hidden state) */

#endif
