/* exec.h - what an op's forward and backward work with (for core/grad and the planner, which runs the rows itself). */
#ifndef DR_GRAD_EXEC_H
#define DR_GRAD_EXEC_H

#include "core/grad/graph.h"

struct dr_exec {
    dr_backend *be;
    dr_pool *pool; /* for what a node keeps: norm statistics and the like */
    dr_node *nodes;
};

static inline dr_tensor dr_in(const dr_exec *x, const dr_node *n, int i) {
    return x->nodes[n->in[i]].out;
}

/* A tensor of this shape, from those given back if one fits, else from the pool. */
DR_MUSTUSE dr_status dr_graph_take(dr_graph *g, dr_shape s, dr_tensor *ret, dr_error *err);
/* Its owner is done with it. Where it cannot be noted, it is only lost until the pool is reset. */
void dr_graph_give(dr_graph *g, dr_tensor t);

/* The rows. backward.c treats add apart: it hands its gradient on without a copy. */
extern const dr_op dr_op_conv2d, dr_op_instance_norm, dr_op_activation, dr_op_pad_reflect, dr_op_blur_down,
    dr_op_blur_up, dr_op_add, dr_op_add_bcast, dr_op_scale, dr_op_clamp, dr_op_gather_patches, dr_op_linear,
    dr_op_l2_normalize, dr_op_loss_nce, dr_op_loss_gan, dr_op_loss_l1, dr_op_loss_freq;

#endif
