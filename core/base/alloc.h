/* alloc.h - heap memory with checked sizes and a fault countdown for tests.
 *
 * All of core, db, server and client allocate through these, so that a test can make the n-th allocation fail
 * and see that nothing leaks and nothing breaks. */
#ifndef DR_BASE_ALLOC_H
#define DR_BASE_ALLOC_H

#include <stdbool.h>
#include <stddef.h>

void *dr_malloc(size_t n);              /* n == 0 gives a valid pointer; NULL when there is none */
void *dr_calloc(size_t n, size_t size); /* zeroed; NULL on overflow or no memory */
void *dr_realloc(void *p, size_t n);    /* p is kept on failure */
char *dr_strdup(const char *s);
char *dr_strndup(const char *s, size_t n);
void dr_free(void *p);
void *dr_malloc_aligned(size_t n); /* 64-byte aligned, free with dr_free */

/* a*b and a+b without overflow; false and *ret untouched when it does not fit. */
bool dr_mul_size(size_t a, size_t b, size_t *ret);
bool dr_add_size(size_t a, size_t b, size_t *ret);

/* Tests only: the n-th allocation from now fails (0 = never), and all after it when `sticky`. */
void dr_alloc_fail_after(long n, bool sticky);
long dr_alloc_count(void); /* allocations made since the last dr_alloc_fail_after() */

#endif
