/* arena.h - chunked bump allocator: everything in a lifetime dies together.
 *
 * dr_arena_alloc() never moves what it gave out. Reset keeps the newest chunk and, under ASan, poisons it, so that a
 * use after reset is reported. One owner at a time. */
#ifndef DR_BASE_ARENA_H
#define DR_BASE_ARENA_H

#include <stddef.h>

typedef struct dr_arena {
    struct dr_arena_chunk *head; /* current chunk; older ones behind it */
    size_t chunk_bytes, used, high_water, max;
} dr_arena;

/* chunk_bytes 0 = 64 KiB; max is the most bytes it may hand out between resets (0 = no limit). */
void dr_arena_init(dr_arena *a, size_t chunk_bytes, size_t max);
void *dr_arena_alloc(dr_arena *a, size_t n); /* zeroed, 16-byte aligned; NULL over max or without memory */
char *dr_arena_strdup(dr_arena *a, const char *s);
void dr_arena_reset(dr_arena *a);
void dr_arena_done(dr_arena *a);

#endif
