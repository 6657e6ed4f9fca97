/* kern_avx512.c - the inner loops for AVX-512 (flags in the Makefile). */
#include <immintrin.h>

#define VLEN      16
#define V_SQRT    _mm512_sqrt_ps
#define KERN      dr_kern_avx512
#define KERN_NAME "AVX-512"
#include "core/cpu/kern.inc"
