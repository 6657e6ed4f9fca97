/* kern_avx512.c - the inner loops for AVX-512 (flags in the Makefile). */
#define VLEN      16
#define KERN      dr_kern_avx512
#define KERN_NAME "AVX-512"
#include "core/cpu/kern.inc"
