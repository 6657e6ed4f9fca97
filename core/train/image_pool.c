/* image_pool.c - see the header; the pool is one block of size*image_floats floats. */
#include "core/train/image_pool.h"
#include "core/base/alloc.h"
#include <string.h>

dr_status dr_image_pool_init(dr_image_pool *p, int size, size_t image_floats, uint64_t seed, dr_error *err) {
    dr_image_pool q = {.size = size, .image_floats = image_floats};
    if (size < 0) return dr_fail(err, DR_INVALID, "image pool of %d pictures", size);
    dr_rng_seed(&q.rng, seed, UINT64_C(0x706f6f6c)); /* "pool" */
    if (size > 0) {
        size_t n;
        if (!dr_mul_size((size_t)size, image_floats, &n) || !dr_mul_size(n, sizeof(float), &n) ||
            !(q.data = dr_malloc(n)))
            return dr_fail(err, DR_NOMEM, "no memory for an image pool of %d pictures", size);
    }
    *p = q;
    return DR_OK;
}

void dr_image_pool_query(dr_image_pool *p, float *images, int n) {
    if (p->size == 0) return;
    size_t bytes = p->image_floats * sizeof(float);
    for (int i = 0; i < n; i++) {
        float *img = images + (size_t)i * p->image_floats;
        if (p->count < p->size) {
            memcpy(p->data + (size_t)p->count * p->image_floats, img, bytes);
            p->count++;
        } else if (dr_rng_u64(&p->rng) >> 63) {
            float *old = p->data + (size_t)dr_rng_below(&p->rng, (uint32_t)p->size) * p->image_floats;
            for (size_t j = 0; j < p->image_floats; j++) {
                float t = old[j];
                old[j] = img[j];
                img[j] = t;
            }
        }
    }
}

dr_status dr_image_pool_restore(dr_image_pool *p, int count, const float *data, const dr_rng *rng, dr_error *err) {
    if (count < 0 || count > p->size)
        return dr_fail(err, DR_CORRUPT, "saved image pool holds %d pictures, this one takes %d", count, p->size);
    if (count > 0) memcpy(p->data, data, (size_t)count * p->image_floats * sizeof(float));
    p->count = count;
    p->rng = *rng;
    return DR_OK;
}

void dr_image_pool_done(dr_image_pool *p) {
    dr_free(p->data);
    *p = (dr_image_pool){0};
}
