/* kern_base.c - the inner loops for any machine of the family (SSE2 on x86-64). */
#define VLEN      4
#define KERN      dr_kern_base
#define KERN_NAME "baseline"
#include "core/cpu/kern.inc"
