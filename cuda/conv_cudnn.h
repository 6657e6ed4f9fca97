/* conv_cudnn.h - what only cuDNN's side of cuda/conv.h can tell: for measurements, not for the module. */
#ifndef DR_CUDA_CONV_CUDNN_H
#define DR_CUDA_CONV_CUDNN_H

#include "cuda/conv_select.h"

typedef struct cv_choice {
    cv_plan_id id;
    cg_traits traits;
    size_t workspace;
    bool tuned;
} cv_choice;

/* The plan that cv_run() uses for a shape now; made if there is none. */
dr_status cv_choice_of(cv_engine *e, cv_kind kind, cv_shape s, cv_choice *ret, dr_error *err);

#endif
