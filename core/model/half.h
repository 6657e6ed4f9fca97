/* half.h - IEEE binary16 and bfloat16 to and from float, rounding to nearest, ties to even.
 *
 * Only files hold 16-bit numbers; everything that computes holds float. Plain integer code, the same bits everywhere.
 * Too large for binary16 becomes infinity, as the IEEE rule says; NaN stays NaN. */
#ifndef DR_MODEL_HALF_H
#define DR_MODEL_HALF_H

#include <stddef.h>
#include <stdint.h>

uint16_t dr_f16_from_f32(float f);
float dr_f16_to_f32(uint16_t h);
uint16_t dr_bf16_from_f32(float f);
float dr_bf16_to_f32(uint16_t h);

#endif
