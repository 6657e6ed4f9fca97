/* fit.h - the plan for a picture within so much memory. */
#ifndef DR_MODEL_FIT_H
#define DR_MODEL_FIT_H

#include "core/model/plan.h"

/* What a run of p takes of the device: its block, and an upper bound of the scratch memory that its convolutions use.
 */
uint64_t dr_plan_need(const dr_plan *p);

/* The plan for the recorded network (arguments as dr_plan_build) that takes at most `limit` bytes and the least work:
 * the whole one where it fits. *ret is NULL if none does; then *ret_least, which may be NULL else, is the least that
 * any takes. The same arguments give the same plan. */
DR_MUSTUSE dr_status dr_plan_fit(const dr_graph *g, dr_var input, dr_var output, dr_backend *be, const dr_param *params,
                                 int n_params, dr_slot *slots, uint64_t limit, dr_plan **ret, uint64_t *ret_least,
                                 dr_error *err);

#endif
