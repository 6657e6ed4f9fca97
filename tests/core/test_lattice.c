/* test_lattice.c - drawn lattices: in range, repeatable, regular lines and not the same one each time. */
#include "core/train/lattice.h"
#include "tests/t.h"

enum { S = 64 };

TEST(stays_in_range_and_repeats) {
    static float a[3 * S * S], b[3 * S * S];
    for (uint64_t seed = 0; seed < 200; seed++) {
        dr_rng r;
        for (int i = 0; i < 3 * S * S; i++) a[i] = b[i] = (float)(i % 101) / 100;
        dr_rng_seed(&r, seed, 1);
        dr_lattice_draw(&r, S, a);
        dr_rng_seed(&r, seed, 1);
        dr_lattice_draw(&r, S, b);
        CHECK(!memcmp(a, b, sizeof a));
        for (int i = 0; i < 3 * S * S; i++) CHECK_MSG(a[i] >= 0 && a[i] <= 1, "%g", (double)a[i]);
    }
}

TEST(draws_something_different_each_time) {
    static float a[3 * S * S], last[3 * S * S];
    int changed = 0, unlike = 0;
    dr_rng r;
    dr_rng_seed(&r, 5, 5);
    for (int k = 0; k < 100; k++) {
        for (int i = 0; i < 3 * S * S; i++) a[i] = 0.5f;
        dr_lattice_draw(&r, S, a);
        double d = 0, u = 0;
        for (int i = 0; i < 3 * S * S; i++) d += fabs((double)a[i] - 0.5), u += fabs((double)(a[i] - last[i]));
        changed += d > S;
        unlike += u > S;
        memcpy(last, a, sizeof a);
    }
    CHECK_MSG(changed > 80 && unlike > 80, "%d %d", changed, unlike);
}
