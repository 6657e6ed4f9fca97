/* op.h - an op is one row: all that the graph, backward and the planner know of it.
 *
 * forward computes node->out from its inputs; backward gets dy (the gradient of node->out) and, for every input
 * that needs one, a tensor to WRITE the input's gradient into (dx[i].data is NULL for the others). Gradients of
 * parameters are accumulated by the op itself. Loss ops end a chain: they have no dy but the weight node->loss_weight.
 */
#ifndef DR_GRAD_OP_H
#define DR_GRAD_OP_H

#include "core/grad/param.h"
#include "core/tensor/backend.h"
#include <stdint.h>

enum { DR_OP_MAX_IN = 2 };

typedef int dr_var; /* index of a node in its graph; -1 = none */

typedef struct dr_node dr_node;
typedef struct dr_exec dr_exec; /* what forward and backward work with */

typedef struct dr_op {
    const char *name;
    int n_in;
    bool is_loss;
    dr_status (*forward)(dr_exec *x, dr_node *n, dr_error *err);
    dr_status (*backward)(dr_exec *x, dr_node *n, dr_tensor dy, dr_tensor dx[DR_OP_MAX_IN], dr_error *err);
} dr_op;

struct dr_node {
    const dr_op *op; /* NULL: an input or a detached value */
    dr_var in[DR_OP_MAX_IN];
    dr_shape shape;
    dr_tensor out;     /* data NULL until computed (always in PLAN) */
    dr_tensor grad;    /* data NULL while there is none */
    float loss_weight; /* loss ops during backward */
    bool needs_grad;   /* backward goes through this node */
    bool grads_params; /* its parameters were trainable when it was recorded */
    dr_param *w, *b;   /* convolution, linear; b may be NULL */
    union {
        dr_conv2d_desc conv;
        struct {
            float eps;
            dr_act act;
            float *stats; /* n*c pairs (mean, rstd), device */
        } norm;
        dr_act act;
        int pad;
        float factor; /* scale, add_bcast */
        struct {
            float lo, hi;
        } clamp;
        struct {
            const int32_t *idx; /* device */
            int count;
        } gather;
        float *norms; /* l2_normalize, device */
        struct {
            int groups;
            float temperature;
        } nce;
        dr_gan_loss gan;
    } u;
};

/* All op rows, for tests that want every one covered; ends with NULL. */
extern const dr_op *const dr_ops[];

#endif
