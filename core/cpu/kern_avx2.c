/* kern_avx2.c - the inner loops for AVX2 (flags in the Makefile). */
#include <immintrin.h>

#define VLEN      8
#define V_SQRT    _mm256_sqrt_ps
#define KERN      dr_kern_avx2
#define KERN_NAME "AVX2"
#include "core/cpu/kern.inc"
