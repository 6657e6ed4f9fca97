/* fuzz_probe.c - the header parser alone, and on every kind of beginning: the answer for a part may be "more", never
 * another picture. */
#include "tests/fuzz/fuzz_picture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static dr_status probe(const uint8_t *data, size_t len, size_t total, dr_picture_info *ret) {
    uint8_t *exact = malloc(len + !len); /* so that a read beyond is seen */
    dr_error err = {0};
    FUZZ_REQUIRE(exact);
    if (len) memcpy(exact, data, len);
    const dr_status s = dr_probe(exact, len, total, &fuzz_limits, ret, &err);
    free(exact);
    if (s == DR_UNAVAILABLE)
        FUZZ_REQUIRE(len < total && !strcmp(err.what, "header_incomplete"));
    else if (s)
        fuzz_check_error(s, &err);
    else
        FUZZ_REQUIRE(ret->width >= 1 && ret->height >= 1 && ret->width <= fuzz_limits.side_max &&
                     ret->height <= fuzz_limits.side_max && ret->channels >= 1 && ret->channels <= 4);
    return s;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size > 4096) size = 4096;
    dr_picture_info whole = {0}, part = {0};
    const dr_status s = probe(data, size, size, &whole);
    const size_t step = size / 16 + 1;
    for (size_t n = 0; n < size; n += step) {
        const dr_status p = probe(data, n, size, &part);
        if (s == DR_OK && p == DR_OK) FUZZ_REQUIRE(part.format == whole.format && part.bit_depth == whole.bit_depth);
        if (s == DR_OK) FUZZ_REQUIRE(p == DR_OK || p == DR_UNAVAILABLE);
    }
    return 0;
}
