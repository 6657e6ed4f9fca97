/* test_memory.c - allocation with a fault countdown, the arena, the growing buffer. */
#include "core/base/alloc.h"
#include "core/base/arena.h"
#include "core/base/buf.h"
#include "tests/t.h"
#include <stdint.h>

TEST(sizes_do_not_overflow) {
    size_t r = 5;
    CHECK(dr_mul_size(3, 4, &r) && r == 12);
    CHECK(!dr_mul_size(SIZE_MAX, 2, &r) && r == 12);
    CHECK(!dr_add_size(SIZE_MAX, 1, &r) && r == 12);
    CHECK(!dr_malloc_aligned(SIZE_MAX));
}

TEST(countdown_fails_the_nth) {
    for (int sticky = 0; sticky < 2; sticky++) {
        dr_alloc_fail_after(2, sticky);
        void *a = dr_malloc(1), *b = dr_calloc(1, 1), *c = dr_malloc(1);
        long n = dr_alloc_count();
        dr_alloc_fail_after(0, false);
        bool as_told = a && !b && (c == NULL) == sticky && n == 3;
        dr_free(a);
        dr_free(c);
        CHECK(as_told);
    }
    char *s = dr_strdup("abc"), *t = dr_strndup("abcdef", 2);
    bool same = s && t && !strcmp(s, "abc") && !strcmp(t, "ab");
    dr_free(s);
    dr_free(t);
    CHECK(same);
}

TEST(arena_gives_zeroed_aligned_memory) {
    dr_arena a;
    dr_arena_init(&a, 256, 0);
    for (int round = 0; round < 3; round++) {
        for (size_t n = 0; n < 600; n += 37) {
            unsigned char *p = dr_arena_alloc(&a, n);
            CHECK(p && (uintptr_t)p % 16 == 0);
            for (size_t i = 0; i < n; i++) CHECK(p[i] == 0);
            memset(p, 0xee, n);
        }
        char *s = dr_arena_strdup(&a, "text");
        CHECK(s && !strcmp(s, "text"));
        size_t high = a.high_water;
        dr_arena_reset(&a);
        CHECK(a.used == 0 && a.high_water == high);
    }
    dr_arena_done(&a);
}

TEST(arena_keeps_its_maximum) {
    dr_arena a;
    dr_arena_init(&a, 64, 100);
    CHECK(dr_arena_alloc(&a, 64) && !dr_arena_alloc(&a, 64) && dr_arena_alloc(&a, 16));
    CHECK(!dr_arena_alloc(&a, SIZE_MAX));
    dr_alloc_fail_after(1, false);
    dr_arena b;
    dr_arena_init(&b, 64, 0);
    void *p = dr_arena_alloc(&b, 1);
    dr_alloc_fail_after(0, false);
    CHECK(!p && dr_arena_alloc(&b, 1));
    dr_arena_done(&a);
    dr_arena_done(&b);
}

TEST(buffer_grows_to_its_maximum) {
    dr_buf b;
    dr_buf_init(&b, 1000);
    for (int i = 0; i < 100; i++) dr_buf_printf(&b, "%08d", i);
    CHECK(!b.status && b.len == 800 && !strncmp(b.data + 792, "00000099", 9));
    for (int i = 0; i < 30; i++) dr_buf_puts(&b, "12345678");
    CHECK(b.status == DR_TOO_LARGE && b.len == 1000);
    dr_buf_puts(&b, "");
    size_t n;
    CHECK(!dr_buf_detach(&b, &n)); /* an error never hands out half a text */
    dr_buf_add(&b, "ab\0c", 4);
    CHECK(b.status == DR_OK && b.len == 4);
    char *p = dr_buf_detach(&b, &n);
    bool whole = p && n == 4 && !memcmp(p, "ab\0c", 5);
    dr_free(p);
    CHECK(whole);
    dr_alloc_fail_after(1, false);
    dr_buf_puts(&b, "x");
    dr_alloc_fail_after(0, false);
    CHECK(b.status == DR_NOMEM);
    dr_buf_clear(&b);
    dr_buf_puts(&b, "y");
    CHECK(!b.status && !strcmp(b.data, "y"));
    dr_buf_done(&b);
}
