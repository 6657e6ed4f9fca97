/* model_file.c - generator files without an engine: describe, make, convert (the rest of derain.h is in derain.c). */
#include "core/base/alloc.h"
#include "core/base/rng.h"
#include "core/derain.h"
#include "core/model/spec.h"
#include "core/model/weights.h"
#include <stdio.h>
#include <string.h>

void dr_model_info_done(dr_model_info *i) {
    if (!i) return;
    dr_free(i->metadata_json);
    i->metadata_json = NULL;
}

dr_status dr_model_describe(const char *path, dr_model_info *ret, dr_error *err) {
    dr_st *f;
    dr_spec spec;
    dr_status s = dr_st_open(path, &f, err);
    if (s) return s;
    s = dr_spec_check_file(f, &spec, err);
    if (!s) s = dr_spec_info(f, &spec, path, ret, err);
    dr_st_close(f);
    return s ? dr_wrap(err, s, "%s", path) : DR_OK;
}

static dr_status parse_dtype(const char *text, dr_st_dtype *ret, dr_error *err) {
    if (dr_st_dtype_parse(text, ret) && dr_st_dtype_is_float(*ret)) return DR_OK;
    return dr_fail(err, DR_INVALID, "dtype '%.16s' is not one of F32 F16 BF16", text);
}

dr_status dr_model_init_file(const dr_model_spec *spec, const char *path, dr_error *err) {
    dr_st_dtype dtype;
    dr_status s = parse_dtype(spec->dtype ? spec->dtype : "F32", &dtype, err);
    if (s) return s;
    dr_spec d = {.cfg = {spec->ngf, spec->blocks, spec->residual}, .version = 1};
    snprintf(d.name, sizeof d.name, "%s", spec->name ? spec->name : "derain");
    dr_backend *be = NULL;
    dr_generator g = {0};
    dr_st_writer *w = NULL;
    if ((s = dr_generator_config_check(d.cfg, err))) return s;
    dr_backend_opts opts = {.threads = 1};
    if ((s = dr_backend_open("cpu", &opts, &be, NULL, err))) return s;
    if ((s = dr_generator_init(&g, d.cfg, be, false, err))) goto out;
    if ((s = dr_generator_random(&g, spec->seed, "G_A", err))) goto out;
    w = dr_st_writer_create();
    dr_spec_write(w, &d);
    dr_st_writer_metaf(w, "derain.seed", "%llu", (unsigned long long)spec->seed);
    dr_weights_save(w, "", &g.params, NULL, dtype);
    s = dr_st_writer_save(w, path, err);
out:
    dr_st_writer_destroy(w);
    dr_generator_done(&g);
    dr_backend_close(be);
    return s;
}

static dr_status fetch(void *arg, float *dst, size_t count, dr_error *err) {
    (void)count;
    return dr_st_read_f32(arg, dst, err);
}

dr_status dr_model_convert_file(const char *in, const char *dtype, const char *out, dr_error *err) {
    dr_st_dtype to;
    dr_st *f;
    dr_spec spec;
    dr_status s = parse_dtype(dtype, &to, err);
    if (s || (s = dr_st_open(in, &f, err))) return s;
    dr_st_writer *w = NULL;
    if ((s = dr_spec_check_file(f, &spec, err))) {
        dr_wrap(err, s, "%s", in);
        goto out;
    }
    w = dr_st_writer_create();
    for (size_t i = 0; i < dr_st_meta_count(f); i++) {
        const char *key, *value;
        dr_st_meta_at(f, i, &key, &value);
        if (strcmp(key, "derain.crc32")) dr_st_writer_meta(w, key, value); /* the bytes change */
    }
    if (dr_st_meta(f, "derain.crc32")) dr_st_writer_checksum(w);
    for (size_t i = 0; i < dr_st_count(f); i++) {
        const dr_st_tensor *t = dr_st_at(f, i);
        dr_st_writer_fetch(w, t->name, to, t->rank, t->dims, fetch, (void *)(uintptr_t)t);
    }
    s = dr_st_writer_save(w, out, err);
out:
    dr_st_writer_destroy(w);
    dr_st_close(f);
    return s;
}
