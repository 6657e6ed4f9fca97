/* conv_avx512.c - the convolution kernels for AVX-512. */
/* clang-format off: the first defines what the second uses */
#include "core/cpu/conv_kern.inc"
#include "core/cpu/wino_kern.inc"
/* clang-format on */

const dr_conv_kern dr_conv_kern_avx512 = {
    .name = "avx512", .few_out_row = few_out_row, .wino_weights = wino_weights, .wino_block = wino_block};
