/* fuzz_conv_cache.c - any bytes as a line of the file of tuned plans. What is taken must be what would be written. */
#include "cuda/conv_cache.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cv_cache_line c;
    char text[CV_CACHE_MAX_LINE + 1];
    if (!cv_cache_parse_line((const char *)data, size, &c)) return 0;
    size_t n = cv_cache_format_line(&c, text, sizeof text);
    if (n != size + 1 || memcmp(text, data, size) != 0) abort();
    return 0;
}
