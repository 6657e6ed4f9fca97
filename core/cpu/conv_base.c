/* conv_base.c - the convolution kernels for the baseline instruction set. */
/* clang-format off: the first defines what the second uses */
#include "core/cpu/conv_kern.inc"
#include "core/cpu/wino_kern.inc"
/* clang-format on */

const dr_conv_kern dr_conv_kern_base = {
    .name = "base", .few_out_row = few_out_row, .wino_weights = wino_weights, .wino_block = wino_block};
