/* image_pool.h - METHOD.md section 10's pool of earlier fakes, shown to the discriminators instead of the newest ones.
 *
 * It lives in host memory as planar floats, so it is the same for every backend: a trainer that uses one downloads its
 * fakes, calls dr_image_pool_query() and uploads what is left. Size 0 = off: query changes nothing. */
#ifndef DR_TRAIN_IMAGE_POOL_H
#define DR_TRAIN_IMAGE_POOL_H

#include "core/base/rng.h"
#include "core/base/status.h"
#include <stddef.h>

typedef struct dr_image_pool {
    int size, count;     /* images it may hold, images it holds */
    size_t image_floats; /* 3*h*w */
    float *data;         /* count images; save exactly this, count and rng to go on with the same bits */
    dr_rng rng;
} dr_image_pool;

/* Errors: INVALID (negative), NOMEM. */
DR_MUSTUSE dr_status dr_image_pool_init(dr_image_pool *p, int size, size_t image_floats, uint64_t seed, dr_error *err);
/* n images, replaced in place. While the pool fills, images pass and are stored; after that each one is, with
 * probability 1/2, exchanged for a random stored one. */
void dr_image_pool_query(dr_image_pool *p, float *images, int n);
/* State of an earlier run; count images in data. Errors: CORRUPT where it does not fit. */
DR_MUSTUSE dr_status dr_image_pool_restore(dr_image_pool *p, int count, const float *data, const dr_rng *rng,
                                           dr_error *err);
void dr_image_pool_done(dr_image_pool *p);

#endif
