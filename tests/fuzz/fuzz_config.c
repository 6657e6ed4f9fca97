/* fuzz_config.c - any bytes as a settings file. What is taken must come back the same through a dump. */
#include "core/base/alloc.h"
#include "server/config.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    srv_config a, b;
    dr_error err = {0};
    dr_buf first, second;
    srv_config_init(&a);
    srv_config_init(&b);
    dr_buf_init(&first, 1 << 20);
    dr_buf_init(&second, 1 << 20);
    if (!srv_config_defaults(&a, &err) && !srv_config_parse(&a, "fuzz", (const char *)data, size, &err)) {
        srv_config_dump(&a, &first);
        if (srv_config_parse(&b, "dump", first.data, first.len, &err)) abort();
        srv_config_dump(&b, &second);
        if (first.len != second.len || memcmp(first.data, second.data, first.len) != 0) abort();
    }
    dr_buf_done(&first);
    dr_buf_done(&second);
    srv_config_done(&a);
    srv_config_done(&b);
    return 0;
}
