/* test_shape.c - counts that fit, counts that do not. */
#include "core/tensor/shape.h"
#include "tests/t.h"
#include <limits.h>
#include <stdint.h>

TEST(counts) {
    CHECK(dr_shape_count(dr_shape_make(2, 3, 5, 7)) == 210);
    CHECK(dr_shape_count(dr_shape_make(1, 1, 1, 1)) == 1);
    CHECK(dr_shape_count(dr_shape_make(1, 64, 2160, 3840)) == (size_t)64 * 2160 * 3840);
    /* more than 32 bits, still fine */
    CHECK(dr_shape_count(dr_shape_make(1, 128, 20000, 20000)) == (size_t)128 * 20000 * 20000);
}

TEST(rejects_empty_and_negative_sides) {
    static const dr_shape bad[] = {{0, 1, 1, 1}, {1, 0, 1, 1},  {1, 1, 0, 1},
                                   {1, 1, 1, 0}, {-1, 3, 4, 4}, {1, 3, 4, -4}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) CHECK(!dr_shape_valid(bad[i]) && !dr_shape_count(bad[i]));
}

TEST(rejects_overflow) {
    CHECK(!dr_shape_valid(dr_shape_make(INT_MAX, INT_MAX, INT_MAX, INT_MAX)));
    CHECK(!dr_shape_valid(dr_shape_make(INT_MAX, INT_MAX, 4, 1))); /* elements fit in 64 bits, bytes do not */
    /* one row more than what pointers can subtract */
    CHECK(!dr_shape_valid(dr_shape_make(1 << 30, 1 << 30, 2, 1)));
    CHECK(dr_shape_valid(dr_shape_make(1 << 30, 1 << 29, 1, 1)));
}

TEST(text) {
    char t[48];
    CHECK(!strcmp(dr_shape_text(dr_shape_make(1, 64, 256, 32), t), "(1,64,256,32)"));
    CHECK(!strcmp(dr_shape_text(dr_shape_make(INT_MIN, INT_MIN, INT_MIN, INT_MIN), t),
                  "(-2147483648,-2147483648,-2147483648,-2147483648)") ||
          strlen(t) == 47);
}
