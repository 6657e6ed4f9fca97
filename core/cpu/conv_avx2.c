/* conv_avx2.c - the convolution kernels for AVX2 and FMA. */
#include "core/cpu/conv_kern.inc"

const dr_conv_kern dr_conv_kern_avx2 = {.name = "avx2", .few_out_row = few_out_row};
