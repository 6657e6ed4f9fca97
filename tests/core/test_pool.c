/* test_pool.c - the device pool on the CPU backend: places, marks, reset, no memory. */
#include "core/base/alloc.h"
#include "core/tensor/pool.h"
#include "tests/t.h"
#include <stdint.h>

static dr_backend *open_cpu(void) {
    dr_backend *be = NULL;
    dr_error err = {0};
    if (dr_backend_open("cpu", NULL, &be, NULL, &err)) printf("# %s\n", err.text);
    return be;
}

TEST(aligned_and_apart) {
    dr_backend *be = open_cpu();
    CHECK(be);
    dr_pool p;
    dr_pool_init(&p, be, 1 << 16);
    char *at[200];
    for (int i = 0; i < 200; i++) {
        void *v;
        CHECK(!dr_pool_raw(&p, 1 + 37 * (size_t)i, &v, NULL));
        CHECK((uintptr_t)v % 64 == 0);
        at[i] = v;
        memset(v, i, 1 + 37 * (size_t)i);
    }
    for (int i = 0; i < 200; i++)
        for (int j = 0; j < 1 + 37 * i; j++) CHECK(at[i][j] == (char)i);
    dr_pool_done(&p);
    dr_backend_close(be);
}

TEST(reset_keeps_chunks_and_places) {
    dr_backend *be = open_cpu();
    CHECK(be);
    dr_pool p;
    dr_pool_init(&p, be, 4096);
    static const size_t sizes[] = {100, 4000, 9000, 64, 3000, 5000, 1};
    void *first[7], *again[7];
    for (int i = 0; i < 7; i++) CHECK(!dr_pool_raw(&p, sizes[i], &first[i], NULL));
    size_t high = p.high_water;
    int chunks = p.n_chunks;
    CHECK(p.used == high && high >= 100 + 4000 + 9000 + 64 + 3000 + 5000 + 1);
    for (int round = 0; round < 3; round++) {
        dr_pool_reset(&p);
        CHECK(p.used == 0);
        dr_alloc_fail_after(1, true); /* nothing may be allocated now */
        for (int i = 0; i < 7; i++) {
            dr_status s = dr_pool_raw(&p, sizes[i], &again[i], NULL);
            if (s || again[i] != first[i]) dr_alloc_fail_after(0, false);
            CHECK(!s && again[i] == first[i]);
        }
        dr_alloc_fail_after(0, false);
    }
    CHECK(p.n_chunks == chunks && p.high_water == high);
    dr_pool_done(&p);
    dr_backend_close(be);
}

TEST(mark_and_restore) {
    dr_backend *be = open_cpu();
    CHECK(be);
    dr_pool p;
    dr_pool_init(&p, be, 1024);
    void *kept, *a, *b, *c;
    dr_pool_mark empty = dr_pool_save(&p);
    CHECK(!dr_pool_raw(&p, 600, &kept, NULL));
    dr_pool_mark m = dr_pool_save(&p);
    size_t used = p.used;
    CHECK(!dr_pool_raw(&p, 300, &a, NULL));
    CHECK(!dr_pool_raw(&p, 900, &b, NULL));  /* a second chunk */
    CHECK(!dr_pool_raw(&p, 5000, &c, NULL)); /* a third, larger one */
    memset(kept, 7, 600);
    dr_pool_restore(&p, m);
    CHECK(p.used == used);
    void *a2, *b2, *c2;
    CHECK(!dr_pool_raw(&p, 300, &a2, NULL) && a2 == a);
    CHECK(!dr_pool_raw(&p, 900, &b2, NULL) && b2 == b);
    CHECK(!dr_pool_raw(&p, 5000, &c2, NULL) && c2 == c);
    memset(a2, 1, 300);
    for (int i = 0; i < 600; i++) CHECK(((char *)kept)[i] == 7);
    dr_pool_restore(&p, empty);
    CHECK(p.used == 0 && p.n_chunks == 3);
    dr_pool_done(&p);
    dr_backend_close(be);
}

TEST(tensors_and_impossible_sizes) {
    dr_backend *be = open_cpu();
    CHECK(be);
    dr_pool p;
    dr_error err = {0};
    dr_pool_init(&p, be, 0);
    dr_tensor t = {0};
    CHECK(!dr_pool_tensor(&p, dr_shape_make(1, 3, 5, 5), &t, NULL));
    CHECK(t.data && t.shape.w == 5);
    CHECK(dr_pool_tensor(&p, dr_shape_make(1, 3, 0, 5), &t, &err) == DR_TOO_LARGE);
    CHECK(strstr(err.text, "(1,3,0,5)") && t.shape.h == 5);
    err = (dr_error){0};
    void *v = &p;
    CHECK(dr_pool_raw(&p, SIZE_MAX, &v, &err) == DR_TOO_LARGE && v == &p);
    dr_pool_done(&p);
    dr_backend_close(be);
}

TEST(no_memory) {
    dr_backend *be = open_cpu();
    CHECK(be);
    for (int n = 1; n <= 2; n++) { /* the list of chunks, then the chunk */
        dr_pool p;
        dr_error err = {0};
        void *v = be;
        dr_pool_init(&p, be, 4096);
        dr_alloc_fail_after(n, false);
        dr_status s = dr_pool_raw(&p, 100, &v, &err);
        dr_alloc_fail_after(0, false);
        CHECK(s == DR_NOMEM && err.code == DR_NOMEM && v == be && p.used == 0);
        CHECK(!dr_pool_raw(&p, 100, &v, NULL)); /* it recovers */
        dr_pool_done(&p);
    }
    dr_backend_close(be);
}
