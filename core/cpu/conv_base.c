/* conv_base.c - the convolution kernels for the baseline instruction set. */
#include "core/cpu/conv_kern.inc"

const dr_conv_kern dr_conv_kern_base = {.name = "base", .few_out_row = few_out_row};
