/* fuse.h - from a recorded network to the calls that make its output: which values exist, and what makes each of them.
 *
 * Values are the graph's nodes by index, and for every instance norm its statistics. Starting at the output, each value
 * that is needed picks the widest call that the backend has for it: convolution    may take norm, activation, blur and
 * mirrored padding of its input along, and leave the statistics of its output (conv2d_fused); values on that way need
 * not exist pad, blur, sum of an instance norm    one pass over the norm's input (norm_apply); a sum that only a
 * reflect pad and further sums read is made in its padded form, whose inner part then serves as the skip the rest its
 * op row A value that somebody needs anyhow is not computed through again. */
#ifndef DR_MODEL_FUSE_H
#define DR_MODEL_FUSE_H

#include "core/grad/graph.h"

typedef enum dr_step_kind { DR_STEP_OP, DR_STEP_CONV, DR_STEP_STATS, DR_STEP_APPLY } dr_step_kind;

typedef struct dr_step {
    dr_step_kind kind;
    dr_var node;     /* whose op row, weights or norm settings it takes */
    dr_var y;        /* value made; -1 = none (STATS) */
    dr_var x;        /* value read; OP reads its node's inputs instead */
    dr_var resid;    /* APPLY with ADD: the skip, perhaps padded; else -1 */
    dr_var norm;     /* instance norm whose statistics are read, -1 = none */
    dr_var out_norm; /* instance norm whose statistics are made (STATS, CONV), -1 = none */
    dr_norm_then then;
    int pad;      /* CONV: its padding; APPLY: the reflect padding behind it */
    bool reflect; /* CONV: the padding mirrors */
    bool fused;   /* CONV: conv2d_fused, not conv2d */
} dr_step;

/* whole: values that are made and kept as a whole, NULL: all of them. A convolution leaves statistics only where it and
 * what it reads are such ones: those of a band are of no use. ret has room for 2n steps. INTERNAL for a second input.
 */
DR_MUSTUSE dr_status dr_fuse(const dr_node *nodes, int n, dr_var input, dr_var output, dr_backend *be, bool fuse,
                             const bool *whole, dr_step *ret, int *ret_n, dr_error *err);

#endif
