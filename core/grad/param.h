/* param.h - one named parameter tensor of a network, as the ops see it.
 *
 * Values and gradients are plain f32 arrays on the device in PyTorch's order (see backend.h). core/nn owns the memory;
 * an op node borrows the pointer until the graph is cleared. */
#ifndef DR_GRAD_PARAM_H
#define DR_GRAD_PARAM_H

#include "core/tensor/shape.h"
#include <stdbool.h>

typedef struct dr_param {
    char name[64];  /* PyTorch state-dict name, without the network's prefix */
    dr_shape shape; /* convolution (O,I,k,k), linear (O,I,1,1), bias (O,1,1,1) */
    float *value, *grad;
    bool trainable; /* a node recorded while this is false leaves grad alone */
} dr_param;

#endif
