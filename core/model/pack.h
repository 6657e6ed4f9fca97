/* pack.h - intervals to offsets: where in one block each buffer lies, so that those alive together do not overlap. */
#ifndef DR_MODEL_PACK_H
#define DR_MODEL_PACK_H

#include <stdbool.h>
#include <stddef.h>

typedef struct dr_span {
    size_t bytes;    /* 0: takes no part */
    int first, last; /* steps, both included */
    size_t offset;   /* result */
} dr_span;

/* Largest first, each into the lowest gap that is big enough between those already placed that live at the same time.
 * Returns the size of the block; sizes must be multiples of the alignment wanted. */
size_t dr_pack(dr_span *spans, int n);

#endif
