/* pool.h - bump allocator over device memory: parameters, one training step, a plan.
 *
 * Memory is taken from the backend in chunks that survive dr_pool_reset(), so that a step after the first one
 * allocates nothing. */
#ifndef DR_TENSOR_POOL_H
#define DR_TENSOR_POOL_H

#include "core/tensor/backend.h"

typedef struct dr_pool {
    dr_backend *be;
    struct dr_pool_chunk *chunks;
    int n_chunks, cap_chunks, current;
    size_t chunk_bytes, used, high_water;
} dr_pool;

void dr_pool_init(dr_pool *p, dr_backend *be, size_t chunk_bytes);
DR_MUSTUSE dr_status dr_pool_raw(dr_pool *p, size_t bytes, void **ret, dr_error *err); /* 64-byte aligned */
DR_MUSTUSE dr_status dr_pool_tensor(dr_pool *p, dr_shape s, dr_tensor *ret, dr_error *err);
void dr_pool_reset(dr_pool *p);
/* Go back to an earlier state: everything allocated since the mark is forgotten. */
typedef struct dr_pool_mark {
    int chunk;
    size_t offset, used;
} dr_pool_mark;
dr_pool_mark dr_pool_save(const dr_pool *p);
void dr_pool_restore(dr_pool *p, dr_pool_mark m);
void dr_pool_done(dr_pool *p);

#endif
