/* fuzz_jpeg.c - any bytes as a JPEG. The start marker is put in front, so that no run is spent on finding it. */
#include "tests/fuzz/fuzz_picture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 3) return 0;
    uint8_t *copy = malloc(size);
    if (!copy) return 0;
    memcpy(copy, data, size);
    memcpy(copy, "\xFF\xD8\xFF", 3);
    fuzz_decode(copy, size);
    free(copy);
    return 0;
}
