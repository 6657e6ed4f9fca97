/* conv_select.h - which of cuDNN's plans for a convolution may be used, best first. The same code serves a device and a
 * description of one (tests/cuda/plans.c).
 *
 * Never: engines that are not deterministic, plans with more than CV_MAX_WORKSPACE of workspace.
 * bf16 and f16, tier 0: tensor cores, f32 sums, no Winograd or FFT (whose halves would be of other sizes), precompiled;
 *       1: any precompiled; 2: the rest, which compile at run time.
 * f32,  tier 0: neither tensor cores (tf32) nor narrowed inputs or sums, no Winograd or FFT, precompiled; 1: the same
 *       with Winograd or FFT, or compiled at run time; 2: whatever there is. Inside a tier, cuDNN's order. */
#ifndef DR_CUDA_CONV_SELECT_H
#define DR_CUDA_CONV_SELECT_H

#include "cuda/conv.h"
#include "cuda/cudnn_graph.h"

#define CV_MAX_WORKSPACE ((size_t)256 << 20)
enum { CV_N_TIERS = 3 };

typedef struct cv_select cv_select; /* walks the candidates of one convolution; one owner */

/* t is borrowed until close. */
dr_status cv_select_open(const cg_target *t, cv_kind kind, cv_shape s, cv_select **ret, dr_error *err);
void cv_select_close(cv_select *c); /* NULL is fine */

/* The next plan that cuDNN could finalise; the caller ends it with cg_plan_done(). BACKEND: none left, with the reason
 * of the last refusal. */
dr_status cv_select_next(cv_select *c, cg_plan *ret, dr_error *err);
/* The plan of an id from outside, under the same rules. */
dr_status cv_select_named(cv_select *c, const cv_plan_id *id, cg_plan *ret, dr_error *err);

int cv_tier(cg_traits t, dk_type type); /* -1: never */
bool cv_same_id(const cv_plan_id *a, const cv_plan_id *b);
/* "forward bf16 8x64x256x256 to 128, 3x3 pad 1" */
void cv_shape_text(cv_kind kind, cv_shape s, char *ret, size_t cap);

#endif
