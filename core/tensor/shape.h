/* shape.h - logical shapes (N,C,H,W) and overflow-checked sizes. */
#ifndef DR_TENSOR_SHAPE_H
#define DR_TENSOR_SHAPE_H

#include <stdbool.h>
#include <stddef.h>

/* Rows of a matrix (the projection heads) are (rows, columns, 1, 1); a scalar is (1,1,1,1). */
typedef struct dr_shape {
    int n, c, h, w;
} dr_shape;

static inline dr_shape dr_shape_make(int n, int c, int h, int w) {
    return (dr_shape){n, c, h, w};
}
static inline bool dr_shape_eq(dr_shape a, dr_shape b) {
    return a.n == b.n && a.c == b.c && a.h == b.h && a.w == b.w;
}
bool dr_shape_valid(dr_shape s);                     /* all sides positive and the element count fits */
size_t dr_shape_count(dr_shape s);                   /* elements; 0 if not valid */
const char *dr_shape_text(dr_shape s, char ret[48]); /* "(1,64,256,256)" */

#endif
