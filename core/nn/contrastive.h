/* contrastive.h - the projection heads (METHOD.md section 6): one small MLP a tap, unit vectors out.
 *
 * The same positions serve every picture of a batch; keys draw them, queries reuse them. Linear weights keep the
 * channel counts of the taps: 2 ngf, 4 ngf, 4 ngf, 4 ngf. */
#ifndef DR_NN_CONTRASTIVE_H
#define DR_NN_CONTRASTIVE_H

#include "core/base/rng.h"
#include "core/nn/generator.h"

#define DR_PATCHES   256 /* most positions a tap */
#define DR_NCE_WIDTH 256
#define DR_NCE_TEMP  0.07f

typedef struct dr_heads {
    dr_params params;
    int mlp[DR_TAPS][2]; /* weights of the two layers; the bias is the next index */
} dr_heads;

DR_MUSTUSE dr_status dr_heads_init(dr_heads *m, int ngf, dr_backend *be, bool with_grad, dr_error *err);
void dr_heads_done(dr_heads *m);

/* min(DR_PATCHES, positions) distinct positions of each tap. */
typedef struct dr_patches {
    int count[DR_TAPS];
    int32_t idx[DR_TAPS][DR_PATCHES];
    int32_t *device[DR_TAPS]; /* after dr_patches_upload, in the pool */
} dr_patches;
/* Uniform without replacement, for taps of these shapes. */
DR_MUSTUSE dr_status dr_patches_draw(dr_patches *p, const dr_shape taps[DR_TAPS], dr_rng *rng, dr_error *err);
DR_MUSTUSE dr_status dr_patches_upload(dr_patches *p, dr_pool *pool, dr_error *err);

/* rows[t] is (N*count, 256, 1, 1), unit rows. */
void dr_heads_forward(dr_graph *g, dr_heads *m, const dr_var taps[DR_TAPS], const dr_patches *p, dr_var rows[DR_TAPS]);

#endif
