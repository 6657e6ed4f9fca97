/* test_image_pool.c - fills first, then swaps half of the time, loses nothing, and goes on from a saved state. */
#include "core/base/alloc.h"
#include "core/train/image_pool.h"
#include "tests/t.h"

enum { FLOATS = 12 };

static void image(float *x, int tone) {
    for (int i = 0; i < FLOATS; i++) x[i] = (float)(tone * 100 + i);
}

TEST(size_zero_changes_nothing) {
    dr_image_pool p;
    CHECK(!dr_image_pool_init(&p, 0, FLOATS, 1, NULL));
    float x[FLOATS];
    for (int i = 0; i < 20; i++) {
        image(x, i);
        dr_image_pool_query(&p, x, 1);
        CHECK(x[0] == (float)(i * 100) && x[FLOATS - 1] == (float)(i * 100 + FLOATS - 1));
    }
    dr_image_pool_done(&p);
}

TEST(fills_then_swaps_and_loses_no_image) {
    enum { SIZE = 5, N = 2000 };
    static int out[N + SIZE];
    dr_image_pool p;
    CHECK(!dr_image_pool_init(&p, SIZE, FLOATS, 7, NULL));
    int old = 0;
    for (int i = 0; i < N; i++) {
        float x[FLOATS];
        image(x, i);
        dr_image_pool_query(&p, x, 1);
        int got = (int)(x[0] / 100);
        for (int j = 0; j < FLOATS; j++) CHECK(x[j] == (float)(got * 100 + j)); /* whole images only */
        if (i < SIZE)
            CHECK(got == i);
        else
            old += got != i;
        out[got]++;
    }
    /* everything that went in came out once or is still inside; what passed while it filled did both */
    for (int i = 0; i < p.count; i++) out[(int)(p.data[(size_t)i * FLOATS] / 100)]++;
    int n = 0;
    for (int i = 0; i < N; i++) {
        CHECK(i < SIZE ? out[i] == 2 : out[i] == 1);
        n += out[i];
    }
    CHECK(n == N + SIZE && p.count == SIZE);
    CHECK_MSG(old > 890 && old < 1105, "%d of about 998", old);
    dr_image_pool_done(&p);
}

TEST(saved_state_goes_on_with_the_same_images) {
    dr_image_pool a, b;
    CHECK(!dr_image_pool_init(&a, 4, FLOATS, 3, NULL) && !dr_image_pool_init(&b, 4, FLOATS, 99, NULL));
    float x[2 * FLOATS], y[2 * FLOATS];
    for (int i = 0; i < 9; i++) {
        image(x, i);
        dr_image_pool_query(&a, x, 1);
    }
    CHECK(!dr_image_pool_restore(&b, a.count, a.data, &a.rng, NULL));
    for (int i = 10; i < 60; i += 2) {
        image(x, i), image(x + FLOATS, i + 1);
        memcpy(y, x, sizeof x);
        dr_image_pool_query(&a, x, 2);
        dr_image_pool_query(&b, y, 2);
        CHECK(memcmp(x, y, sizeof x) == 0);
    }
    dr_image_pool_done(&a);
    dr_image_pool_done(&b);
}

TEST(bad_sizes) {
    dr_image_pool p;
    dr_error err = {0};
    CHECK(dr_image_pool_init(&p, -1, FLOATS, 1, &err) == DR_INVALID);
    CHECK(dr_image_pool_init(&p, 2, (size_t)-1 / 4, 1, NULL) == DR_NOMEM);
    dr_alloc_fail_after(1, false);
    CHECK(dr_image_pool_init(&p, 2, FLOATS, 1, NULL) == DR_NOMEM);
    dr_alloc_fail_after(0, false);
    CHECK(!dr_image_pool_init(&p, 2, FLOATS, 1, NULL));
    float x[3 * FLOATS] = {0};
    CHECK(dr_image_pool_restore(&p, 3, x, &p.rng, NULL) == DR_CORRUPT &&
          dr_image_pool_restore(&p, -1, x, &p.rng, NULL) == DR_CORRUPT);
    dr_image_pool_done(&p);
}
