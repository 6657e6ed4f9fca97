/* skips.h - steps of a training that were left out since a loss or a gradient in them was not finite: how many, and
 * when it is too much. A checkpoint holds both numbers, so that a resumed training counts and ends as an unbroken one.
 */
#ifndef DR_TRAIN_SKIPS_H
#define DR_TRAIN_SKIPS_H

#include <stdbool.h>
#include <stdint.h>

enum {
    DR_SKIPS_ROW = 10,   /* so many in a row end a training, */
    DR_SKIPS_LATELY = 16 /* and so many of the last 64 */
};

typedef struct dr_skips {
    int64_t all;
    uint64_t lately; /* bit i: the i-th last step was left out */
} dr_skips;

static inline void dr_skips_note(dr_skips *s, bool skipped) {
    s->all += skipped;
    s->lately = s->lately << 1 | skipped;
}

/* The steps left out in a row, up to the last one. */
static inline int dr_skips_row(const dr_skips *s) {
    int n = 0;
    while (n < 64 && s->lately >> n & 1) n++;
    return n;
}

static inline int dr_skips_lately(const dr_skips *s) {
    int n = 0;
    for (uint64_t v = s->lately; v; v &= v - 1) n++;
    return n;
}

static inline bool dr_skips_too_many(const dr_skips *s) {
    return dr_skips_row(s) >= DR_SKIPS_ROW || dr_skips_lately(s) >= DR_SKIPS_LATELY;
}

#endif
