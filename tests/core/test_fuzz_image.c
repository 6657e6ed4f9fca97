/* The picture fuzz targets, replayed without a fuzzer: every seed, and thousands of mutations of it from fixed numbers.
 * The targets abort where a promise is broken, which the runner counts as a failure. */
#define LLVMFuzzerTestOneInput fuzz_png_one
#include "tests/fuzz/fuzz_png.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_jpeg_one
#include "tests/fuzz/fuzz_jpeg.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_probe_one
#include "tests/fuzz/fuzz_probe.c"
#undef LLVMFuzzerTestOneInput
#include "core/base/rng.h"
#include "tests/fuzz/seeds.h"
#include "tests/t.h"

#define MUTATIONS 600

/* One to four wounds: a byte, a 32-bit number at its worst, a cut, a piece doubled. */
static void mutate(dr_rng *r, bytes *b) {
    static const uint32_t worst[] = {0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFF, 0x10000};
    for (uint32_t k = 1 + dr_rng_below(r, 4); k && b->n > 8; k--) {
        const size_t at = dr_rng_below(r, (uint32_t)b->n);
        switch (dr_rng_below(r, 8)) {
        case 0:
            b->n = at + 1;
            break;
        case 1:
            bytes_insert(b, at, "\xFF\xDA\0\0\x80IDAT" + dr_rng_below(r, 5), 4);
            break;
        case 2: {
            const size_t n = 1 + dr_rng_below(r, (uint32_t)(b->n - at));
            bytes piece = bytes_of(b->p + at, n);
            bytes_insert(b, at, piece.p, n);
            bytes_done(&piece);
            break;
        }
        case 3:
            if (at + 4 <= b->n) pic_put32(b->p + at, worst[dr_rng_below(r, 7)]);
            break;
        default:
            b->p[at] = (uint8_t)dr_rng_u64(r);
        }
    }
}

static void replay(bytes (*seed)(int i), int n, int (*one)(const uint8_t *, size_t)) {
    dr_rng r;
    dr_rng_seed(&r, 2, 7);
    for (int i = 0; i < n; i++) {
        bytes b = seed(i);
        one(b.p, b.n);
        fuzz_probe_one(b.p, b.n);
        for (int k = 0; k < MUTATIONS; k++) {
            bytes m = bytes_of(b.p, b.n);
            mutate(&r, &m);
            uint8_t *exact = malloc(m.n ? m.n : 1);
            memcpy(exact, m.p, m.n);
            one(exact, m.n);
            fuzz_probe_one(exact, m.n);
            free(exact);
            bytes_done(&m);
        }
        bytes_done(&b);
    }
}

/* A seed that is refused tests nothing but the refusal. */
TEST(the_seeds_are_good_pictures) {
    int refused = 0;
    for (int i = 0; i < SEEDS_PNG + SEEDS_JPEG; i++) {
        bytes b = i < SEEDS_PNG ? seed_png(i) : seed_jpeg(i - SEEDS_PNG);
        dr_image img;
        if (dr_image_decode(b.p, b.n, &fuzz_limits, &img, NULL))
            refused++;
        else
            dr_image_done(&img);
        bytes_done(&b);
    }
    CHECK(refused == 1); /* CMYK */
}

TEST(png_seeds_and_mutations) {
    replay(seed_png, SEEDS_PNG, fuzz_png_one);
}
TEST(jpeg_seeds_and_mutations) {
    replay(seed_jpeg, SEEDS_JPEG, fuzz_jpeg_one);
}
