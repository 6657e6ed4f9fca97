/* step.h - one optimisation step, in the order of METHOD.md section 9.
 *
 *   1. fakes: G_A(a), and G_B(b) where two generators take part; the transplanted p = clamp(b + a - G_A(a))
 *   2. D_A on (b, G_A(a)), D_B on (a, G_B(b) and/or p), fakes detached; one Adam step of both
 *   3. adversarial, contrastive, cycle, spectral, colour, identity, transplant terms with the UPDATED discriminators;
 *      one backward; Adam of the generators, then of the heads (own rates); then the moving average
 *
 * 2 and 3 are the two halves of a step. A half with a loss or a gradient that is not finite is left out, as optimizers
 * under a loss scaler do: its nets, moments and averages stay as they are. With the discriminators' half goes all of
 * the step, for the generators would learn from the same batch; what the discriminators have learned from a finite half
 * stays when the generators' half is left out. An image pool takes fakes that are finite in any case.
 *
 * Key features are the activations that the fakes left behind. One graph and one pool serve all three parts.
 *
 * A half may be done in parts of the batch (micro): gradients add up, and the result is that of the whole batch up to
 * rounding, with the same positions and the same answers of the image pools. Memory is that of one part. */
#ifndef DR_TRAIN_STEP_H
#define DR_TRAIN_STEP_H

#include "core/grad/graph.h"
#include "core/train/image_pool.h"
#include "core/train/nets.h"
#include "core/train/preset.h"

typedef struct dr_pool_answers { /* an image pool's, for the pictures of the batch at hand */
    float *data;
    size_t cap; /* floats */
    int n;      /* pictures that it was shown */
} dr_pool_answers;

typedef struct dr_step {
    dr_nets *nets;
    const dr_objective *obj;
    double lr, lr_f, ema_decay;
    double ema_age; /* steps that the average has seen before step 0 */
    double warmup;  /* before this step the generators stand still: discriminators and heads learn first */
    uint64_t seed;  /* patch positions come from (seed, step) */
    dr_image_pool *pool_a, *pool_b; /* earlier fakes for D_A, D_B; size 0 = off */
    /* Tests: positions of contrastive call `call` (0..3 in a step) instead of random ones; NULL = random. */
    dr_status (*patches)(void *arg, int call, const dr_shape taps[DR_TAPS], dr_patches *ret, dr_error *err);
    void *patches_arg;
    /* Most pictures at a time, 0 = the whole batch. Where a device has no room for them, a step makes it smaller. */
    int micro;
    dr_pool_answers pooled[2];
    dr_pool pool;
    dr_graph graph;
} dr_step;

void dr_step_init(dr_step *s, dr_nets *nets, const dr_objective *obj);
void dr_step_done(dr_step *s);

/* a rainy, b clean: (n,3,crop,crop) planar in [-1,1]. step is 0-based, factor the schedule's. Losses go to ret (names
 * and values); where a half was left out ret->skipped is set, not_finite says why, and there are no losses. */
DR_MUSTUSE dr_status dr_step_run(dr_step *s, int64_t step, double factor, int n, int crop, const float *a,
                                 const float *b, dr_train_metrics *ret, dr_error *err);

#endif
