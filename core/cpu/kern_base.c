/* kern_base.c - the inner loops for any machine of the family (SSE2 on x86-64). */
#include <math.h>

#define VLEN      4
#define V_SQRT(v) ((vec){sqrtf((v)[0]), sqrtf((v)[1]), sqrtf((v)[2]), sqrtf((v)[3])})
#define KERN      dr_kern_base
#define KERN_NAME "baseline"
#include "core/cpu/kern.inc"
