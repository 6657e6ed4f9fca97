/* kern_avx2.c - the inner loops for AVX2 (flags in the Makefile). */
#define VLEN      8
#define KERN      dr_kern_avx2
#define KERN_NAME "AVX2"
#include "core/cpu/kern.inc"
