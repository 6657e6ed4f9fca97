/* nets.h - the six networks, their Adam states and the moving average of the generator that is served. */
#ifndef DR_TRAIN_NETS_H
#define DR_TRAIN_NETS_H

#include "core/nn/contrastive.h"
#include "core/nn/discriminator.h"
#include "core/nn/generator.h"

typedef enum dr_net { DR_NET_G_A, DR_NET_G_B, DR_NET_D_A, DR_NET_D_B, DR_NET_F1, DR_NET_F2, DR_NETS } dr_net;
const char *dr_net_name(dr_net n); /* "G_A": rainy to clean, judged by D_A; F1 heads for G_A's features */

typedef struct dr_nets_config {
    dr_generator_config g;
    dr_discriminator_config d;
    bool ema;
} dr_nets_config;

typedef struct dr_nets {
    dr_backend *be;
    dr_generator g[2];                        /* G_A, G_B */
    dr_discriminator d[2];                    /* D_A, D_B */
    dr_heads f[2];                            /* F1, F2 */
    float *adam_m[DR_NETS], *adam_v[DR_NETS]; /* one block each, laid out as the parameters */
    float *ema;                               /* of G_A; NULL without */
} dr_nets;

DR_MUSTUSE dr_status dr_nets_init(dr_nets *m, const dr_nets_config *cfg, dr_backend *be, dr_error *err);
void dr_nets_done(dr_nets *m);
dr_params *dr_nets_params(dr_nets *m, dr_net n);

/* Random weights for all six; EMA starts at G_A. gain: of discriminators and heads. */
DR_MUSTUSE dr_status dr_nets_random(dr_nets *m, uint64_t seed, double gain, dr_error *err);
/* EMA = G_A */
DR_MUSTUSE dr_status dr_nets_reset_ema(dr_nets *m, dr_error *err);
/* Let G_A's ops read the moving average (on) or its own weights; nothing where there is no average. */
void dr_nets_use_ema(dr_nets *m, bool on);

DR_MUSTUSE dr_status dr_nets_zero_grad(dr_nets *m, dr_net n, dr_error *err);
/* To ret (1,1,1,1): 0 where all gradients of the net are finite, else NaN. */
DR_MUSTUSE dr_status dr_nets_check_grad(dr_nets *m, dr_net n, dr_tensor ret, dr_error *err);
DR_MUSTUSE dr_status dr_nets_adam(dr_nets *m, dr_net n, const dr_adam_desc *d, dr_error *err);

#endif
