#include "core/base/alloc.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static atomic_long countdown, count;
static atomic_bool keep_failing;

void dr_alloc_fail_after(long n, bool sticky) {
    atomic_store(&count, 0);
    atomic_store(&keep_failing, sticky);
    atomic_store(&countdown, n);
}

long dr_alloc_count(void) {
    return atomic_load(&count);
}

static bool must_fail(void) {
    atomic_fetch_add_explicit(&count, 1, memory_order_relaxed);
    if (atomic_load_explicit(&countdown, memory_order_relaxed) <= 0) return false;
    long left = atomic_fetch_sub(&countdown, 1) - 1;
    if (left > 0) return false;
    if (atomic_load(&keep_failing)) atomic_store(&countdown, 1);
    return left == 0;
}

void *dr_malloc(size_t n) {
    return must_fail() ? NULL : malloc(n ? n : 1);
}

void *dr_calloc(size_t n, size_t size) {
    return must_fail() ? NULL : calloc(n ? n : 1, size ? size : 1);
}

void *dr_realloc(void *p, size_t n) {
    return must_fail() ? NULL : realloc(p, n ? n : 1);
}

char *dr_strndup(const char *s, size_t n) {
    char *d = dr_malloc(n + 1);
    if (!d) return NULL;
    memcpy(d, s, n);
    d[n] = 0;
    return d;
}

char *dr_strdup(const char *s) {
    return dr_strndup(s, strlen(s));
}

void dr_free(void *p) {
    free(p);
}

void *dr_malloc_aligned(size_t n) {
    if (n > SIZE_MAX - 64) return NULL;
    return must_fail() ? NULL : aligned_alloc(64, n ? (n + 63) / 64 * 64 : 64);
}

bool dr_mul_size(size_t a, size_t b, size_t *ret) {
    size_t r;
    if (__builtin_mul_overflow(a, b, &r)) return false;
    *ret = r;
    return true;
}

bool dr_add_size(size_t a, size_t b, size_t *ret) {
    size_t r;
    if (__builtin_add_overflow(a, b, &r)) return false;
    *ret = r;
    return true;
}
