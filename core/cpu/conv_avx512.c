/* conv_avx512.c - the convolution kernels for AVX-512. */
#include "core/cpu/conv_kern.inc"

const dr_conv_kern dr_conv_kern_avx512 = {.name = "avx512", .few_out_row = few_out_row};
