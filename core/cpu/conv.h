/* conv.h - the convolutions of the CPU table, and their state in dr_cpu. */
#ifndef DR_CPU_CONV_H
#define DR_CPU_CONV_H

#include "core/cpu/cpu.h"

/* Called once by the table's open and close; `c` has threads, precision, host and isa set. close takes a half-open one.
 */
DR_MUSTUSE dr_status dr_cpu_conv_open(dr_cpu *c, dr_error *err);
void dr_cpu_conv_close(dr_cpu *c);
/* "oneDNN 2.6.3, amx bf16": libraries and kernels in use, for describe(); valid until close. */
const char *dr_cpu_conv_text(dr_cpu *c);

/* At least `bytes` of 64-byte aligned scratch, contents undefined, valid until the next call of this. */
DR_MUSTUSE dr_status dr_cpu_scratch(dr_cpu *c, size_t bytes, void **ret, dr_error *err);

/* Tests only: may later opens use AMX? */
void dr_cpu_conv_limit(bool amx);

/* Table entries, see backend.h. */
bool dr_cpu_conv2d_fuses(dr_backend *be, dr_conv2d_desc d, const dr_conv_fuse *f, dr_shape x, dr_shape y);
dr_status dr_cpu_conv2d_fused(dr_backend *be, dr_conv2d_desc d, const dr_conv_fuse *f, dr_tensor x, const float *w,
                              const float *b, dr_tensor y, dr_slot *slot, dr_error *err);
dr_status dr_cpu_conv2d(dr_backend *be, dr_conv2d_desc d, dr_tensor x, const float *w, const float *b, dr_tensor y,
                        dr_slot *slot, dr_error *err);
dr_status dr_cpu_conv2d_dx(dr_backend *be, dr_conv2d_desc d, dr_tensor dy, const float *w, dr_tensor dx, dr_slot *slot,
                           dr_error *err);
dr_status dr_cpu_conv2d_dw(dr_backend *be, dr_conv2d_desc d, dr_tensor x, dr_tensor dy, float *dw, float *db,
                           dr_slot *slot, dr_error *err);

#endif
