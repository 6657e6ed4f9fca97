/* generator.h - the ResNet generator with anti-aliased resampling (METHOD.md section 2), and its residual form.
 *
 * x is (N,3,H,W) in [-1,1], H and W multiples of 4 and at least 16. Residual 0: y = tanh(h). Residual 3 or 1: y = x -
 * tanh(h), h the last convolution with that many channels; y is not clamped. Layer numbers below are PyTorch's
 * state-dict indices: 1, 4, 8 the convolutions of the way down, 12.. the residual blocks, then the way up. */
#ifndef DR_NN_GENERATOR_H
#define DR_NN_GENERATOR_H

#include "core/grad/graph.h"
#include "core/nn/params.h"

#define DR_EPS_NORM     1e-5f
#define DR_TAPS         4
#define DR_BLOCKS_MAX   32
#define DR_BLOCKS_TRAIN 5 /* the fewest that training takes: taps 12 and 16 are blocks 1 and 5 */
#define DR_NGF_MAX      256

typedef struct dr_generator_config {
    int ngf;      /* multiple of 16, up to DR_NGF_MAX */
    int blocks;   /* 1..DR_BLOCKS_MAX */
    int residual; /* 0, 1 or 3 */
} dr_generator_config;

typedef struct dr_generator {
    dr_generator_config cfg;
    dr_params params;
    int conv_in, down[2], block[DR_BLOCKS_MAX][2], up[2], conv_out; /* weights; the bias is the next index */
} dr_generator;

DR_MUSTUSE dr_status dr_generator_config_check(dr_generator_config cfg, dr_error *err);
/* be NULL: names and shapes only. */
DR_MUSTUSE dr_status dr_generator_init(dr_generator *m, dr_generator_config cfg, dr_backend *be, bool with_grad,
                                       dr_error *err);
void dr_generator_done(dr_generator *m);

/* Random start: residual 0 with gain 0.02 (METHOD.md section 5); otherwise gain 1 and a last layer of zeros, which is
 * the net that changes nothing. */
DR_MUSTUSE dr_status dr_generator_random(dr_generator *m, uint64_t seed, const char *net, dr_error *err);

/* taps NULL or receives the values after layers 4 and 8 (raw convolutions) and blocks 1 and 5 (METHOD.md section 2). */
dr_var dr_generator_forward(dr_graph *g, dr_generator *m, dr_var x, dr_var taps[DR_TAPS]);
/* Only as far as the last tap. */
void dr_generator_encode(dr_graph *g, dr_generator *m, dr_var x, dr_var taps[DR_TAPS]);

#endif
