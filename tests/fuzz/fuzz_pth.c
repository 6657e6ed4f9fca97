/* fuzz_pth.c - any bytes as a PyTorch file: parsed or refused, and every tensor lies inside the file. */
#include "core/model/pth.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    dr_pth *f;
    dr_error err = {0};
    if (dr_pth_parse(data, size, &f, &err)) {
        if (!err.code || !err.text[0]) abort();
        return 0;
    }
    unsigned sum = 0;
    for (size_t i = 0; i < dr_pth_count(f); i++) {
        const dr_pth_tensor *t = dr_pth_at(f, i);
        if (!t->name[0] || t->data < data || t->bytes > size || (size_t)(t->data - data) > size - t->bytes) abort();
        for (size_t k = 0; k < t->bytes; k++) sum += t->data[k];
    }
    if (sum == 0x12345678u) dr_pth_close(NULL);
    dr_pth_close(f);
    return 0;
}
