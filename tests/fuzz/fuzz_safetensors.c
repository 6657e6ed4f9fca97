/* fuzz_safetensors.c - any bytes as a model file: parsed or refused, and what was parsed can be read to its end. */
#include "core/base/alloc.h"
#include "core/model/safetensors.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    dr_st *f;
    dr_error err = {0};
    if (dr_st_parse(data, size, &f, &err)) {
        if (!err.code || !err.text[0]) abort();
        return 0;
    }
    size_t total = 0;
    for (size_t i = 0; i < dr_st_count(f); i++) {
        const dr_st_tensor *t = dr_st_at(f, i);
        total += t->bytes;
        if (dr_st_find(f, t->name) != t) abort();
        float *v = malloc(t->count * sizeof *v + 1);
        if (v && dr_st_dtype_is_float(t->dtype) && dr_st_read_f32(t, v, NULL) == DR_OK)
            memset(v, 0, t->count * sizeof *v);
        free(v);
    }
    if (total > size) abort();
    dr_status s = dr_st_verify(f, NULL);
    (void)s;
    dr_free(dr_st_meta_json(f));
    dr_st_close(f);
    return 0;
}
