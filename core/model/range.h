/* range.h - what an engine that computes in IEEE half (DR_PREC_F16) does with what does not fit into it.
 *
 * f16 ends at 65504. Three things keep that from being seen in a picture:
 *   - Weights are looked at when they are loaded. A model goes onto a second engine on the same device that computes in
 *     bf16, which has f32's range, where the weights of one output of a convolution add up to more than 4096 in
 * magnitude (its inputs are normalised: at 16 deviations each it would reach the end), or where the largest weight of a
 *     convolution in front of a norm is below 2^-14 (from there on halves lose digits: 6e-8 apart, whatever their size;
 *     the norm would bring that up again). The last convolution may be as small as it likes: nothing makes it larger.
 *   - A value that becomes too large in a run is infinite from there on (kern.h), its channel's mean and deviation are
 *     NaN, all values of the channel are, and by the next convolution all of the picture. The last convolution has no
 *     norm behind it: what overflows there becomes NaN in the few pixels that read it. So every value of the output is
 *     looked at, on the device.
 *   - A picture whose output is not all numbers is run again with the same weights in bf16, and counted. If that has
 *     NaN too, it is the network: f32 would say the same. What a picture is computed in follows from it and the weights
 *     alone, not from what was run before.
 * Engines in f32 and bf16, and the CPU, have nothing to look at. */
#ifndef DR_MODEL_RANGE_H
#define DR_MODEL_RANGE_H

#include "core/model/engine.h"
#include "core/model/safetensors.h"

/* The engine for the generator of file f: e, or e's second one, which e owns, with the reason in note (at most `cap`
 * bytes; "" for e). Errors: those of opening it, and of reading f. */
DR_MUSTUSE dr_status dr_range_engine(dr_engine *e, const dr_st *f, dr_generator_config cfg, dr_engine **ret, char *note,
                                     size_t cap, dr_error *err);

/* y: the output of a run that is queued; waits for it. *ret_fits: false if m's engine could not hold the values. */
DR_MUSTUSE dr_status dr_range_check(dr_model *m, dr_tensor y, bool *ret_fits, dr_error *err);

/* The same weights in bf16 on the same device, owned by m, for one run: to be followed by dr_range_leave(), whatever
 * became of it. In between m's engine holds no activations, as the two together would be more than a run was counted
 * with. Errors: those of opening it; NOT_FOUND, CORRUPT: the file is gone or another one now. */
DR_MUSTUSE dr_status dr_range_enter(dr_model *m, dr_model **ret, dr_error *err);
void dr_range_leave(dr_model *m);

void dr_range_done(dr_model *m);
void dr_range_close(dr_engine *e);

#endif
