/* list.c - every op row once; tests walk it. */
#include "core/grad/exec.h"

const dr_op *const dr_ops[] = {&dr_op_conv2d,       &dr_op_instance_norm,  &dr_op_activation,
                               &dr_op_pad_reflect,  &dr_op_blur_down,      &dr_op_blur_up,
                               &dr_op_add,          &dr_op_add_bcast,      &dr_op_scale,
                               &dr_op_clamp,        &dr_op_gather_patches, &dr_op_linear,
                               &dr_op_l2_normalize, &dr_op_loss_nce,       &dr_op_loss_gan,
                               &dr_op_loss_l1,      &dr_op_loss_freq,      NULL};
