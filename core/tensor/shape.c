/* shape.c - logical shapes: validity, element count, text. */
#include "core/tensor/shape.h"
#include "core/base/alloc.h"
#include <stdint.h>
#include <stdio.h>

size_t dr_shape_count(dr_shape s) {
    size_t n, bytes;
    if (s.n <= 0 || s.c <= 0 || s.h <= 0 || s.w <= 0) return 0;
    if (!dr_mul_size((size_t)s.n, (size_t)s.c, &n) || !dr_mul_size(n, (size_t)s.h, &n) ||
        !dr_mul_size(n, (size_t)s.w, &n))
        return 0;
    /* As floats it must stay within what pointers can subtract, with room for rounding up. */
    if (!dr_mul_size(n, sizeof(float), &bytes) || bytes > (size_t)PTRDIFF_MAX - 4096) return 0;
    return n;
}

bool dr_shape_valid(dr_shape s) {
    return dr_shape_count(s) != 0;
}

const char *dr_shape_text(dr_shape s, char ret[48]) {
    snprintf(ret, 48, "(%d,%d,%d,%d)", s.n, s.c, s.h, s.w);
    return ret;
}
