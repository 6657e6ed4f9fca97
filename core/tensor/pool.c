/* pool.c - bump allocator over device memory.
 *
 * Chunks stand in the order in which they were taken; `current` is the one that is being filled, the ones behind it are
 * full or were too small, the ones after it are empty. So a state is a chunk and an offset, and reset goes to (0, 0).
 */
#include "core/tensor/pool.h"
#include "core/base/alloc.h"
#include "core/tensor/be.h"
#include <assert.h>

enum { ALIGN = 64, DEFAULT_CHUNK = 64 << 20 };

struct dr_pool_chunk {
    char *data;
    size_t bytes, used;
};

void dr_pool_init(dr_pool *p, dr_backend *be, size_t chunk_bytes) {
    *p = (dr_pool){.be = be, .chunk_bytes = chunk_bytes ? chunk_bytes : DEFAULT_CHUNK};
}

static dr_status add_chunk(dr_pool *p, size_t bytes, dr_error *err) {
    if (p->n_chunks == p->cap_chunks) {
        int cap = p->cap_chunks ? 2 * p->cap_chunks : 8;
        struct dr_pool_chunk *c = dr_realloc(p->chunks, (size_t)cap * sizeof *c);
        if (!c) return dr_fail(err, DR_NOMEM, "device pool: no memory for its list of chunks");
        p->chunks = c;
        p->cap_chunks = cap;
    }
    void *data;
    dr_status s = dr_be_alloc(p->be, bytes, &data, err);
    if (s) return s;
    p->chunks[p->n_chunks++] = (struct dr_pool_chunk){.data = data, .bytes = bytes};
    return DR_OK;
}

dr_status dr_pool_raw(dr_pool *p, size_t bytes, void **ret, dr_error *err) {
    size_t n;
    if (!dr_add_size(bytes ? bytes : 1, ALIGN - 1, &n))
        return dr_fail(err, DR_TOO_LARGE, "device pool: %zu bytes are more than an address can count", bytes);
    n &= ~(size_t)(ALIGN - 1);

    int i = p->current;
    while (i < p->n_chunks && p->chunks[i].bytes - p->chunks[i].used < n) i++;
    if (i == p->n_chunks) {
        dr_status s = add_chunk(p, n > p->chunk_bytes ? n : p->chunk_bytes, err);
        if (s) return s;
    }
    p->current = i;
    struct dr_pool_chunk *c = &p->chunks[i];
    *ret = c->data + c->used;
    c->used += n;
    p->used += n;
    if (p->used > p->high_water) p->high_water = p->used;
    return DR_OK;
}

dr_status dr_pool_tensor(dr_pool *p, dr_shape s, dr_tensor *ret, dr_error *err) {
    char text[48];
    if (!dr_shape_valid(s)) return dr_fail(err, DR_TOO_LARGE, "no tensor of shape %s", dr_shape_text(s, text));
    void *data;
    dr_status st = dr_pool_raw(p, dr_be_tensor_bytes(p->be, s), &data, err);
    if (st) return st;
    *ret = (dr_tensor){s, data};
    return DR_OK;
}

dr_pool_mark dr_pool_save(const dr_pool *p) {
    size_t offset = p->n_chunks ? p->chunks[p->current].used : 0;
    return (dr_pool_mark){.chunk = p->current, .offset = offset, .used = p->used};
}

void dr_pool_restore(dr_pool *p, dr_pool_mark m) {
    assert(m.chunk <= p->current && m.used <= p->used);
    for (int i = m.chunk; i < p->n_chunks && i <= p->current; i++) p->chunks[i].used = i == m.chunk ? m.offset : 0;
    p->current = m.chunk;
    p->used = m.used;
}

void dr_pool_reset(dr_pool *p) {
    dr_pool_restore(p, (dr_pool_mark){0});
}

void dr_pool_done(dr_pool *p) {
    for (int i = 0; i < p->n_chunks; i++) dr_be_free(p->be, p->chunks[i].data);
    dr_free(p->chunks);
    *p = (dr_pool){0};
}
