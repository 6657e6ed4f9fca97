/* discriminator.h - the PatchGAN discriminator with anti-aliased halving (METHOD.md section 4).
 *
 * x is (N,3,H,W); the answer is a map of raw scores (N,1,h,w), no sigmoid. Convolutions are 4x4, stride 1, zero pad 1;
 * each but the last two is followed by leaky ReLU and blur_down; instance norm on all but the first and the last. */
#ifndef DR_NN_DISCRIMINATOR_H
#define DR_NN_DISCRIMINATOR_H

#include "core/grad/graph.h"
#include "core/nn/params.h"

#define DR_D_LAYERS_MAX 5

typedef struct dr_discriminator_config {
    int ndf;    /* multiple of 16 */
    int layers; /* halvings, 1..DR_D_LAYERS_MAX; 3 is METHOD.md's */
} dr_discriminator_config;

typedef struct dr_discriminator {
    dr_discriminator_config cfg;
    dr_params params;
    int conv[DR_D_LAYERS_MAX + 2]; /* weights; the bias is the next index */
} dr_discriminator;

DR_MUSTUSE dr_status dr_discriminator_init(dr_discriminator *m, dr_discriminator_config cfg, dr_backend *be,
                                           bool with_grad, dr_error *err);
void dr_discriminator_done(dr_discriminator *m);
dr_var dr_discriminator_forward(dr_graph *g, dr_discriminator *m, dr_var x);

#endif
