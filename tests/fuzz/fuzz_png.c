/* fuzz_png.c - any bytes as a PNG, as they are and with every checksum made right: behind a wrong one nothing is
 * reached. */
#include "tests/core/pictures.h"
#include "tests/fuzz/fuzz_picture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_decode(data, size);
    uint8_t *copy = malloc(size + 1);
    if (!copy) return 0;
    memcpy(copy, data, size);
    png_repair(copy, size);
    fuzz_decode(copy, size);
    free(copy);
    return 0;
}
