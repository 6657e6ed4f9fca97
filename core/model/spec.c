/* spec.c - shapes first, metadata second; where both speak they must agree. */
#include "core/model/spec.h"

#include "core/base/alloc.h"
#include "core/base/hash.h"
#include "core/base/parse.h"
#include "core/model/weights.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

#define BAD(...) dr_fail_as(err, DR_CORRUPT, "bad_model", __VA_ARGS__)

static const dr_st_tensor *find(const dr_st *f, const char *prefix, const char *fmt, int i) {
    char name[DR_ST_NAME_MAX + 1], tail[64];
    snprintf(tail, sizeof tail, fmt, i);
    int n = snprintf(name, sizeof name, "%s%s", prefix, tail);
    return n > 0 && n <= DR_ST_NAME_MAX ? dr_st_find(f, name) : NULL;
}

/* A number in the metadata, if it is there. */
static dr_status meta_int(const dr_st *f, const char *key, int min, int max, int *ret, bool *ret_there, dr_error *err) {
    const char *text = dr_st_meta(f, key);
    *ret_there = text != NULL;
    if (text && !dr_parse_int(text, min, max, ret))
        return BAD("metadata %s is '%.40s', not a number from %d to %d", key, text, min, max);
    return DR_OK;
}

/* The same number twice: what the shapes say and what the metadata claims. */
static dr_status agree(const dr_st *f, const char *key, int from_shapes, dr_error *err) {
    int claimed = 0;
    bool there;
    dr_status s = meta_int(f, key, 0, 100000, &claimed, &there, err);
    if (s) return s;
    return there && claimed != from_shapes ? BAD("metadata %s is %d, the tensors say %d", key, claimed, from_shapes)
                                           : DR_OK;
}

static dr_status read_residual(const dr_st *f, int channels, int *ret, dr_error *err) {
    int claimed = channels == 1;
    bool there;
    dr_status s = meta_int(f, "derain.residual", 0, 3, &claimed, &there, err);
    if (s) return s;
    if (claimed == 2 || (claimed == 0 && channels == 1) || (claimed == 3 && channels == 1))
        return BAD("metadata derain.residual is %d, the last layer has %d channels", claimed, channels);
    *ret = claimed ? channels : 0;
    return DR_OK;
}

static void clean_name(const char *from, size_t len, char ret[64]) {
    static const char ok[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    if (len > 63) len = 63;
    for (size_t i = 0; i < len; i++) ret[i] = from[i] && strchr(ok, from[i]) ? from[i] : '-';
    ret[len] = 0;
}

dr_status dr_spec_read(const dr_st *f, const char *prefix, dr_spec *ret, dr_error *err) {
    const char *arch = dr_st_meta(f, "derain.arch");
    if (arch && strcmp(arch, "resnet")) return BAD("architecture '%.40s' is not known, only resnet", arch);
    const dr_st_tensor *first = find(f, prefix, "model.%d.weight", 1);
    if (!first) {
        if (!prefix[0] && dr_st_find(f, "G_A.model.1.weight"))
            return BAD("this file holds the nets of a training, not one generator");
        return BAD("tensor '%smodel.1.weight' is missing: no generator of this kind", prefix);
    }
    if (first->rank != 4 || first->dims[0] < 1 || first->dims[0] > DR_NGF_MAX)
        return BAD("tensor '%s' is no first layer of at most %d filters", first->name, DR_NGF_MAX);
    dr_spec spec = {.version = 1, .cfg = {.ngf = (int)first->dims[0]}};
    while (spec.cfg.blocks <= DR_BLOCKS_MAX && find(f, prefix, "model.%d.conv_block.1.weight", 12 + spec.cfg.blocks))
        spec.cfg.blocks++;
    if (!spec.cfg.blocks) return BAD("tensor '%smodel.12.conv_block.1.weight' is missing", prefix);
    const dr_st_tensor *last = find(f, prefix, "model.%d.weight", 21 + spec.cfg.blocks);
    if (!last) return BAD("tensor '%smodel.%d.weight' is missing", prefix, 21 + spec.cfg.blocks);
    if (last->rank != 4 || (last->dims[0] != 1 && last->dims[0] != 3))
        return BAD("tensor '%s' is no last layer of 3 or 1 channels", last->name);
    dr_status s = read_residual(f, (int)last->dims[0], &spec.cfg.residual, err);
    if (!s) s = agree(f, "derain.ngf", spec.cfg.ngf, err);
    if (!s) s = agree(f, "derain.blocks", spec.cfg.blocks, err);
    bool there;
    if (!s) s = meta_int(f, "derain.version", 1, 1000000000, &spec.version, &there, err);
    dr_error why = {0};
    if (!s && dr_generator_config_check(spec.cfg, &why)) s = BAD("%s", why.text);
    if (s) return s;
    const char *name = dr_st_meta(f, "derain.name");
    if (name) clean_name(name, strlen(name), spec.name);
    *ret = spec;
    return DR_OK;
}

/* ---- the whole file ------------------------------------------------------------------------------------------- */

/* Is t one of the four fixed blur filters, with the right values? *ret_is says whether its name is one. */
static dr_status check_filt(const dr_st_tensor *t, dr_generator_config c, bool *ret_is, dr_error *err) {
    static const float down[] = {1, 2, 1}, up[] = {1, 3, 3, 1};
    const struct {
        int layer, channels, k;
        const float *row;
    } filters[] = {{7, 2 * c.ngf, 3, down},
                   {11, 4 * c.ngf, 3, down},
                   {12 + c.blocks, 4 * c.ngf, 4, up},
                   {16 + c.blocks, 2 * c.ngf, 4, up}};
    *ret_is = false;
    for (int i = 0; i < 4; i++) {
        char name[40];
        snprintf(name, sizeof name, "model.%d.filt", filters[i].layer);
        if (strcmp(t->name, name)) continue;
        *ret_is = true;
        int k = filters[i].k;
        const int64_t dims[] = {filters[i].channels, 1, k, k};
        if (!dr_st_has_shape(t, 4, dims)) return BAD("tensor '%s' has not the shape of the blur filter", t->name);
        float *v = dr_malloc(t->count * sizeof *v);
        if (!v) return dr_fail(err, DR_NOMEM, "no memory for tensor '%s'", t->name);
        dr_status s = dr_st_read_f32(t, v, err);
        for (size_t e = 0; e < t->count && !s; e++) {
            size_t x = e % (size_t)k, y = e / (size_t)k % (size_t)k;
            if (fabsf(v[e] - filters[i].row[x] * filters[i].row[y] / 16) > 1e-4f)
                s = BAD("tensor '%s': element %zu is not that of the blur filter", t->name, e);
        }
        dr_free(v);
        return s;
    }
    return DR_OK;
}

dr_status dr_spec_check_file(const dr_st *f, dr_spec *ret, dr_error *err) {
    dr_spec spec;
    dr_generator g;
    dr_status s = dr_spec_read(f, "", &spec, err);
    if (!s) s = dr_st_verify(f, err);
    if (s) return s;
    if ((s = dr_generator_init(&g, spec.cfg, NULL, false, err))) return s;
    s = dr_weights_check(f, "", &g.params, err);
    for (size_t i = 0; i < dr_st_count(f) && !s; i++) {
        const dr_st_tensor *t = dr_st_at(f, i);
        bool known = dr_params_find(&g.params, t->name) >= 0;
        if (!known) s = check_filt(t, spec.cfg, &known, err);
        if (!s && !known) s = BAD("tensor '%s' does not belong to a generator of %d blocks", t->name, spec.cfg.blocks);
    }
    dr_generator_done(&g);
    if (!s) *ret = spec;
    return s;
}

void dr_spec_write(dr_st_writer *w, const dr_spec *spec) {
    dr_st_writer_meta(w, "derain.arch", "resnet");
    dr_st_writer_metaf(w, "derain.ngf", "%d", spec->cfg.ngf);
    dr_st_writer_metaf(w, "derain.blocks", "%d", spec->cfg.blocks);
    dr_st_writer_metaf(w, "derain.residual", "%d", spec->cfg.residual);
    if (spec->name[0]) dr_st_writer_meta(w, "derain.name", spec->name);
    dr_st_writer_metaf(w, "derain.version", "%d", spec->version);
}

dr_status dr_spec_info(const dr_st *f, const dr_spec *spec, const char *path, dr_model_info *ret, dr_error *err) {
    dr_model_info info = {.version = spec->version,
                          .arch = "resnet",
                          .ngf = spec->cfg.ngf,
                          .blocks = spec->cfg.blocks,
                          .residual = spec->cfg.residual};
    size_t len;
    const void *bytes = dr_st_bytes(f, &len);
    info.bytes = len;
    dr_sha256_hex(bytes, len, info.sha256);
    const char *base = strrchr(path, '/'), *dot;
    base = base ? base + 1 : path;
    dot = strrchr(base, '.');
    if (spec->name[0])
        memcpy(info.name, spec->name, sizeof info.name);
    else
        clean_name(base, dot && dot > base ? (size_t)(dot - base) : strlen(base), info.name);
    dr_st_dtype dtype = DR_ST_F32;
    bool mixed = false, any = false;
    for (size_t i = 0; i < dr_st_count(f); i++) {
        const dr_st_tensor *t = dr_st_at(f, i);
        size_t n = strlen(t->name);
        if (n >= 5 && !strcmp(t->name + n - 5, ".filt")) continue;
        mixed = mixed || (any && t->dtype != dtype);
        dtype = t->dtype;
        any = true;
        info.params += t->count;
    }
    snprintf(info.dtype, sizeof info.dtype, "%s", mixed ? "mixed" : dr_st_dtype_name(dtype));
    info.metadata_json = dr_st_meta_json(f);
    if (!info.metadata_json) return dr_fail(err, DR_NOMEM, "no memory for the model's metadata");
    *ret = info;
    return DR_OK;
}
