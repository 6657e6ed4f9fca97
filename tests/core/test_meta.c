/* EXIF: what cannot be trusted is not followed. */
#include "core/image/meta.h"
#include "tests/core/pictures.h"
#include "tests/t.h"

TEST(orientation_is_read_in_both_byte_orders) {
    uint8_t e[EXIF_LEN];
    for (int o = 0; o <= 9; o++)
        for (int big = 0; big < 2; big++) {
            make_exif(e, big, o, 10, 20);
            CHECK(dr_exif_orientation(e, EXIF_LEN) == (o >= 1 && o <= 8 ? o : 1));
        }
}

TEST(upright_writes_one_and_swaps_the_sides) {
    for (int o = 1; o <= 8; o++)
        for (int big = 0; big < 2; big++) {
            uint8_t e[EXIF_LEN], want[EXIF_LEN];
            make_exif(e, big, o, 300, 200);
            make_exif(want, big, 1, o >= 5 ? 200 : 300, o >= 5 ? 300 : 200);
            memset(want + 34, 0, 4); /* thumbnail folder unlinked */
            dr_exif_upright(e, EXIF_LEN);
            CHECK(!memcmp(e, want, EXIF_LEN));
        }
}

/* A side above 65535 does not fit the SHORT that held the other side: it stays, and nothing beside it changes. */
TEST(a_side_that_does_not_fit_is_left) {
    uint8_t e[EXIF_LEN];
    make_exif(e, true, 6, 300, 70000);
    dr_exif_upright(e, EXIF_LEN);
    CHECK(e[48] == 300 >> 8 && e[49] == (300 & 255) && e[50] == 0 && e[51] == 0);
    CHECK(dr_exif_orientation(e, EXIF_LEN) == 1);
}

TEST(broken_blocks_mean_nothing_and_are_not_written_outside) {
    for (int big = 0; big < 2; big++) {
        uint8_t whole[EXIF_LEN];
        make_exif(whole, big, 6, 10, 20);
        for (size_t n = 0; n <= EXIF_LEN; n++) { /* every length, in a block of exactly that size */
            uint8_t *e = malloc(n ? n : 1);
            memcpy(e, whole, n);
            const int o = dr_exif_orientation(e, n);
            CHECK(o == (n >= 8 + 2 + 24 ? 6 : 1));
            dr_exif_upright(e, n);
            free(e);
        }
        for (size_t at = 0; at < EXIF_LEN; at++) /* every byte at its worst */
            for (int v = 0; v < 4; v++) {
                static const uint8_t bad[4] = {0xFF, 0x7F, 0x80, 0};
                uint8_t *e = malloc(EXIF_LEN);
                memcpy(e, whole, EXIF_LEN);
                e[at] = bad[v];
                const int o = dr_exif_orientation(e, EXIF_LEN);
                CHECK(o >= 1 && o <= 8);
                dr_exif_upright(e, EXIF_LEN);
                free(e);
            }
    }
    CHECK(dr_exif_orientation(NULL, 0) == 1);
    CHECK(dr_exif_orientation((const uint8_t *)"IM*\0\10\0\0\0\0\0", 10) == 1);
    CHECK(dr_exif_orientation((const uint8_t *)"II+\0\10\0\0\0\0\0", 10) == 1);
}
