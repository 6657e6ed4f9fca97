/* bands.h - the steps of a plan whose values are not all kept: rows of them are made when somebody needs them.
 *
 * A value that is not kept never exists as a whole. A pass goes through the rows of a kept value (or of a norm's input,
 * for its statistics) in bands; for each band it takes the rows of kept values that it depends on, and makes of them,
 * call by call, the rows in between. Reflection, zero padding and filters reach beyond a band, so each band takes a
 * halo along, and what the false edges have spoilt is left behind; true edges of the picture are those of the band.
 * The statistics of an instance norm are those of the whole: bands add up in double, in the order of the rows, by
 * Chan's formula. So a plan in bands gives what the whole one gives, but for the last digit of some sums. */
#ifndef DR_MODEL_BANDS_H
#define DR_MODEL_BANDS_H

#include "core/model/plan_in.h"

/* Decide what becomes of each step of p, and what that takes: fills extra[] but the slots, conv_bytes and total_cost.
 * last: 2n entries, receives the last step that reads each value or statistics. TOO_LARGE: more than cost_max.
 * UNSUPPORTED: a value that is not kept is made by an op whose rows do not depend on rows near by. */
DR_MUSTUSE dr_status dr_bands_measure(dr_plan *p, double cost_max, int *last, dr_error *err);

/* Step i, which is to be done in bands. */
DR_MUSTUSE dr_status dr_bands_run(dr_plan *p, int i, dr_plan_run_state *run, dr_error *err);

#endif
