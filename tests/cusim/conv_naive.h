/* conv_naive.h - one convolution of cuda/conv.h by plain loops on the host. No runtime, no state. */
#ifndef CONV_NAIVE_H
#define CONV_NAIVE_H

#include "cuda/conv.h"

/* As cv_run(), done when it returns; host says the errors. from_end: the taps of a sum (for weight gradients the rows
 * of pictures) are added from the last to the first, so that results differ in rounding. */
dr_status naive_conv(const dr_host_api *host, cv_kind kind, cv_shape s, bool from_end, const void *a, const void *b,
                     void *out, dr_error *err);

#endif
