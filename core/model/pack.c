/* pack.c - the greedy placement by size. For the few large buffers of a network it reaches the lower bound, which is
 * the most bytes alive at one time; n is about a hundred, so nothing here has to be clever. */
#include "core/model/pack.h"

#include <stdint.h>

static bool meet(const dr_span *a, const dr_span *b) {
    return a->first <= b->last && b->first <= a->last;
}

/* The lowest offset at which s fits among the placed ones (those with a set bit in `placed`). */
static size_t lowest(const dr_span *spans, int n, const dr_span *s) {
    size_t at = 0;
    for (bool moved = true; moved;) { /* each move goes up behind a neighbour, so this ends */
        moved = false;
        for (int i = 0; i < n; i++) {
            const dr_span *o = &spans[i];
            if (o == s || !o->bytes || o->offset == SIZE_MAX || !meet(o, s)) continue;
            if (at < o->offset + o->bytes && o->offset < at + s->bytes) {
                at = o->offset + o->bytes;
                moved = true;
            }
        }
    }
    return at;
}

size_t dr_pack(dr_span *spans, int n) {
    size_t total = 0;
    for (int i = 0; i < n; i++) spans[i].offset = SIZE_MAX; /* not placed */
    for (;;) {
        dr_span *next = NULL;
        for (int i = 0; i < n; i++)
            if (spans[i].bytes && spans[i].offset == SIZE_MAX && (!next || spans[i].bytes > next->bytes))
                next = &spans[i];
        if (!next) break;
        next->offset = lowest(spans, n, next);
        if (next->offset + next->bytes > total) total = next->offset + next->bytes;
    }
    for (int i = 0; i < n; i++)
        if (!spans[i].bytes) spans[i].offset = 0;
    return total;
}
