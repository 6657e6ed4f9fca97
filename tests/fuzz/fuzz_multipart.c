/* fuzz_multipart.c - any bytes as a form, in one piece and cut into pieces whose sizes are taken from the data: both
 * must find the same bytes of the picture, or both must refuse. */
#include "core/base/buf.h"
#include "server/multipart.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static dr_status sink(void *arg, const void *data, size_t len, dr_error *err) {
    dr_buf *b = arg;
    (void)err;
    dr_buf_add(b, data, len);
    return b->status;
}

static dr_status read_form(const uint8_t *data, size_t size, unsigned cut, dr_buf *out) {
    srv_multipart m;
    dr_error err = {0};
    dr_status s = srv_multipart_init(&m, "B", sink, out, &err);
    for (size_t i = 0; i < size && !s;) {
        size_t n = cut ? 1 + (data[i] * cut) % 37 : size;
        if (n > size - i) n = size - i;
        s = srv_multipart_feed(&m, (const char *)data + i, n, &err);
        i += n;
    }
    return s ? s : srv_multipart_end(&m, &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    dr_buf whole, parts;
    dr_buf_init(&whole, 1 << 20);
    dr_buf_init(&parts, 1 << 20);
    dr_status a = read_form(data, size, 0, &whole), b = read_form(data, size, 1 + size % 7, &parts);
    if (a != b) abort();
    if (!a && (whole.len != parts.len || (whole.len && memcmp(whole.data, parts.data, whole.len) != 0))) abort();
    dr_buf_done(&whole);
    dr_buf_done(&parts);
    return 0;
}
