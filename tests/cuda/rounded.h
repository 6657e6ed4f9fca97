/* rounded.h - what the CUDA module promises to compute in bf16, computed by the CPU backend: the judge of training
 * steps.
 *
 * Rounding to bf16 switches some ReLUs, and each switched one changes the gradient of all layers before it, so no bf16
 * arithmetic is near that of f32 at the far end of a step. What can be asked of the module is that it rounds where its
 * design says, once, to the nearest, and computes in f32 otherwise. The reference does just that: each entry is the
 * CPU's own in f32, and its result is rounded wherever the module stores bf16 (docs/internals/cuda.md, Accuracy).
 *
 * That alone is no judge either. Sums in another order differ by 1e-7; where a value lies that close to the middle
 * between two bf16 numbers, it is rounded to the other one; that one unit moves the next layer's values by more than
 * 1e-7, more of them fall to the other side, and after a few layers two correct implementations are as far apart as
 * bf16 and f32. So the module's step is watched first: rounded_watch() keeps what each call has stored. Then the
 * reference makes the same step. It computes every value from its own tensors; where the value that the module has
 * stored is the rounding of a number within `tolerance` of the reference's own - a tie that f32 cannot decide - the
 * reference rounds that way too, and in all other cases as the rule says. Where f32 is stored, values within that
 * distance are taken over, so that the two stay together. A module that rounds twice, elsewhere or not
 * at all, or computes something else, is not followed: such values are counted as refused, and the gradients differ.
 * Gradients of weights and losses are never taken over: they are the reference's own, for comparison. */
#ifndef ROUNDED_H
#define ROUNDED_H

#include "core/tensor/backend.h"

typedef struct rounded_log rounded_log; /* what the module has stored, call by call */

typedef struct rounded_count {
    size_t stored;   /* values that the reference has stored */
    size_t ties;     /* of these rounded as the module did and not as its own value says */
    size_t refused;  /* of these where the module's value is no rounding of the reference's */
    double farthest; /* largest distance that a tie needed, in units of (|v| + rms of the tensor) */
    char first[64];  /* entry of the first refused value */
    size_t calls;
} rounded_count;

rounded_log *rounded_log_create(void); /* NULL without memory */
void rounded_log_destroy(rounded_log *log);

/* From now on every call of this module's instance is kept in the log. One instance at a time. */
void rounded_watch(dr_backend *module, rounded_log *log);
/* From now on this instance of the CPU backend, opened for f32, rounds as the module does. log: to be followed, with
 * the same calls in the same order; NULL: none. One instance at a time. */
void rounded_follow(dr_backend *cpu, rounded_log *log, double tolerance);
rounded_count rounded_counted(void); /* since rounded_follow() */

#endif
