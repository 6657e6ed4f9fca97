#include "core/base/arena.h"
#include "core/base/alloc.h"

#include <stdint.h>
#include <string.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#define POISON(p, n)   ASAN_POISON_MEMORY_REGION(p, n)
#define UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
#define POISON(p, n)   ((void)(p), (void)(n))
#define UNPOISON(p, n) ((void)(p), (void)(n))
#endif

enum { ALIGN = 16, DEFAULT_CHUNK = 64 * 1024 };

struct dr_arena_chunk {
    struct dr_arena_chunk *next;
    size_t size, used;
    _Alignas(16) unsigned char bytes[];
};

void dr_arena_init(dr_arena *a, size_t chunk_bytes, size_t max) {
    *a = (dr_arena){.chunk_bytes = chunk_bytes ? chunk_bytes : DEFAULT_CHUNK, .max = max};
}

static struct dr_arena_chunk *room_for(dr_arena *a, size_t n) {
    if (a->head && a->head->size - a->head->used >= n) return a->head;
    size_t size = n > a->chunk_bytes ? n : a->chunk_bytes, total;
    if (!dr_add_size(size, sizeof(struct dr_arena_chunk), &total)) return NULL;
    struct dr_arena_chunk *c = dr_malloc(total);
    if (!c) return NULL;
    *c = (struct dr_arena_chunk){.next = a->head, .size = size};
    POISON(c->bytes, size);
    a->head = c;
    return c;
}

void *dr_arena_alloc(dr_arena *a, size_t n) {
    if (n > SIZE_MAX - ALIGN) return NULL;
    n = n ? (n + ALIGN - 1) / ALIGN * ALIGN : ALIGN;
    if (a->max && (n > a->max || a->used > a->max - n)) return NULL;
    struct dr_arena_chunk *c = room_for(a, n);
    if (!c) return NULL;
    void *p = c->bytes + c->used;
    c->used += n;
    a->used += n;
    if (a->used > a->high_water) a->high_water = a->used;
    UNPOISON(p, n);
    return memset(p, 0, n);
}

char *dr_arena_strdup(dr_arena *a, const char *s) {
    size_t n = strlen(s) + 1;
    char *d = dr_arena_alloc(a, n);
    return d ? memcpy(d, s, n) : NULL;
}

void dr_arena_reset(dr_arena *a) {
    /* Keep the newest chunk (the largest need so far ends up there or was single), free the rest. */
    struct dr_arena_chunk *c = a->head ? a->head->next : NULL;
    while (c) {
        struct dr_arena_chunk *next = c->next;
        UNPOISON(c->bytes, c->size);
        dr_free(c);
        c = next;
    }
    if (a->head) {
        a->head->next = NULL;
        a->head->used = 0;
        POISON(a->head->bytes, a->head->size);
    }
    a->used = 0;
}

void dr_arena_done(dr_arena *a) {
    dr_arena_reset(a);
    if (a->head) UNPOISON(a->head->bytes, a->head->size);
    dr_free(a->head);
    a->head = NULL;
}
