/* plan.h - what a training needs of a device's memory, for the trainer (dr_train_plan() of core/trainer.h is for all).
 */
#ifndef DR_TRAIN_PLAN_H
#define DR_TRAIN_PLAN_H

#include "core/train/preset.h"

typedef struct dr_device_need {
    uint64_t least; /* bytes: nets, one step, what kernels put aside */
    uint64_t most;  /* with all the workspace that convolutions may ask for */
} dr_device_need;

/* o: resolved (dr_preset_fill). at_once: pictures of the batch at a time. Nothing is allocated. */
DR_MUSTUSE dr_status dr_plan_device(const dr_train_opts *o, const dr_objective *obj, int at_once, dr_device_need *ret,
                                    dr_error *err);

#endif
