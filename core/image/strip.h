/* strip.h - the small pictures of one row of a comparison's sheet (core/compare.h). */
#ifndef DR_IMAGE_STRIP_H
#define DR_IMAGE_STRIP_H

#include "core/compare.h"
#include "core/image/image.h"

typedef struct dr_strip dr_strip;

/* Small copies, at most side x side, of pictures of 8 bits and one size; truth may be NULL. *ret_spread as in
 * core/compare.h. The difference is enlarged by the largest power of two (at most 64) that takes no more than one value
 * in a thousand beyond white. side 0: no strip (*ret NULL), only the spread. NOMEM. */
DR_MUSTUSE dr_status dr_strip_make(const dr_image *input, const dr_image *outputs, int n, const dr_image *truth,
                                   int side, dr_strip **ret, double *ret_spread, dr_error *err);
void dr_strip_free(dr_strip *s); /* NULL is fine */

#endif
