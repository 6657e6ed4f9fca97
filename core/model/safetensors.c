/* safetensors.c - the reader. The parsed header lives as jansson values whose texts are borrowed by the tensor table.
 */
#include "core/model/safetensors.h"

#include "core/base/alloc.h"
#include "core/base/fs.h"
#include "core/base/hash.h"
#include "core/base/parse.h"
#include "core/model/half.h"
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct dr_st {
    json_t *header, *meta; /* meta: borrowed from header, NULL if there is none */
    dr_st_tensor *tensors; /* in the order of their data */
    struct by_name {
        const dr_st_tensor *t;
    } * by_name; /* the same, sorted by name */
    size_t n;
    const unsigned char *bytes; /* the whole file */
    size_t len, data_off;
    char *owned; /* bytes, when they are ours */
};

static const struct {
    const char *name;
    size_t size;
    bool is_float;
} dtypes[] = {
    [DR_ST_F32] = {"F32", 4, true},  [DR_ST_F16] = {"F16", 2, true}, [DR_ST_BF16] = {"BF16", 2, true},
    [DR_ST_I64] = {"I64", 8, false}, [DR_ST_U8] = {"U8", 1, false},
};
#define N_DTYPES (sizeof dtypes / sizeof dtypes[0])

const char *dr_st_dtype_name(dr_st_dtype d) {
    return (size_t)d < N_DTYPES ? dtypes[d].name : "?";
}
size_t dr_st_dtype_size(dr_st_dtype d) {
    return (size_t)d < N_DTYPES ? dtypes[d].size : 0;
}
bool dr_st_dtype_is_float(dr_st_dtype d) {
    return (size_t)d < N_DTYPES && dtypes[d].is_float;
}

bool dr_st_dtype_parse(const char *s, dr_st_dtype *ret) {
    for (size_t i = 0; i < N_DTYPES; i++)
        if (!strcmp(s, dtypes[i].name)) {
            *ret = (dr_st_dtype)i;
            return true;
        }
    return false;
}

#define BAD(...) dr_fail_as(err, DR_CORRUPT, "bad_model", __VA_ARGS__)

/* An integer in 0..max from a JSON value. */
static bool get_count(const json_t *v, uint64_t max, uint64_t *ret) {
    if (!json_is_integer(v) || json_integer_value(v) < 0 || (uint64_t)json_integer_value(v) > max) return false;
    *ret = (uint64_t)json_integer_value(v);
    return true;
}

/* Name and entry of one tensor to a row of the table. data_len: bytes behind the header. */
static dr_status parse_tensor(const char *name, const json_t *entry, const unsigned char *data, size_t data_len,
                              dr_st_tensor *t, dr_error *err) {
    size_t name_len = strlen(name);
    if (!name_len || name_len > DR_ST_NAME_MAX)
        return BAD("tensor name of %zu bytes ('%.40s'); 1 to %d are allowed", name_len, name, DR_ST_NAME_MAX);
    if (!json_is_object(entry)) return BAD("tensor '%s': its entry is no object", name);
    json_t *dtype = json_object_get(entry, "dtype"), *shape = json_object_get(entry, "shape"),
           *offsets = json_object_get(entry, "data_offsets");
    if (!dtype || !shape || !offsets || json_object_size(entry) != 3)
        return BAD("tensor '%s': its entry must have exactly dtype, shape and data_offsets", name);
    if (!json_is_string(dtype)) return BAD("tensor '%s': dtype is no text", name);
    if (!dr_st_dtype_parse(json_string_value(dtype), &t->dtype))
        return dr_fail_as(err, DR_UNSUPPORTED, "bad_model",
                          "tensor '%s': dtype '%.16s' is not one of F32 F16 BF16 I64 U8", name,
                          json_string_value(dtype));
    if (!json_is_array(shape)) return BAD("tensor '%s': shape is no list", name);
    if (json_array_size(shape) > DR_ST_RANK_MAX)
        return dr_fail_as(err, DR_UNSUPPORTED, "bad_model", "tensor '%s': %zu dimensions, more than %d", name,
                          json_array_size(shape), DR_ST_RANK_MAX);
    t->name = name;
    t->rank = (int)json_array_size(shape);
    t->count = 1;
    for (int i = 0; i < t->rank; i++) {
        uint64_t d;
        if (!get_count(json_array_get(shape, (size_t)i), INT64_MAX, &d))
            return BAD("tensor '%s': dimension %d is no number of elements", name, i);
        t->dims[i] = (int64_t)d;
        if (!dr_mul_size(t->count, d, &t->count)) return BAD("tensor '%s': its shape is too large", name);
    }
    if (!dr_mul_size(t->count, dr_st_dtype_size(t->dtype), &t->bytes))
        return BAD("tensor '%s': its shape is too large", name);
    uint64_t begin, end;
    if (!json_is_array(offsets) || json_array_size(offsets) != 2 ||
        !get_count(json_array_get(offsets, 0), SIZE_MAX, &begin) ||
        !get_count(json_array_get(offsets, 1), SIZE_MAX, &end))
        return BAD("tensor '%s': data_offsets are not two positions", name);
    if (begin > end)
        return BAD("tensor '%s': data ends (%llu) before it begins (%llu)", name, (unsigned long long)end,
                   (unsigned long long)begin);
    if (end > data_len)
        return BAD("tensor '%s': data ends at byte %llu, the file has %zu bytes of data", name, (unsigned long long)end,
                   data_len);
    if (end - begin != t->bytes)
        return BAD("tensor '%s': shape and dtype make %zu bytes, data_offsets give %llu", name, t->bytes,
                   (unsigned long long)(end - begin));
    t->data = data + begin;
    return DR_OK;
}

static int by_data(const void *a, const void *b) {
    const dr_st_tensor *x = a, *y = b;
    const char *px = x->data, *py = y->data;
    if (px != py) return px < py ? -1 : 1;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1; /* empty ones come first */
    return strcmp(x->name, y->name);
}

static int by_name(const void *a, const void *b) {
    const struct by_name *x = a, *y = b;
    return strcmp(x->t->name, y->t->name);
}

/* The tensors tile the data: each begins where the one before it ends. */
static dr_status check_tiling(const dr_st *f, dr_error *err) {
    const unsigned char *at = f->bytes + f->data_off;
    for (size_t i = 0; i < f->n; i++) {
        const dr_st_tensor *t = &f->tensors[i];
        const unsigned char *begin = t->data;
        if (begin < at) return BAD("tensor '%s' overlaps tensor '%s'", t->name, f->tensors[i - 1].name);
        if (begin > at) return BAD("%zu bytes before tensor '%s' belong to no tensor", (size_t)(begin - at), t->name);
        at = begin + t->bytes;
    }
    size_t rest = (size_t)(f->bytes + f->len - at);
    return rest ? BAD("%zu bytes at the end belong to no tensor", rest) : DR_OK;
}

static dr_status parse_header(dr_st *f, dr_error *err) {
    json_error_t je;
    size_t header_len = f->data_off - 8;
    f->header = json_loadb((const char *)f->bytes + 8, header_len, JSON_REJECT_DUPLICATES, &je);
    if (!f->header) {
        if (!je.text[0] || json_error_code(&je) == json_error_out_of_memory) /* jansson mostly says nothing then */
            return dr_fail(err, DR_NOMEM, "model header");
        return BAD("the header is no valid JSON: %s (byte %d)", je.text, je.position);
    }
    if (!json_is_object(f->header)) return BAD("the header is no JSON object");
    f->meta = json_object_get(f->header, "__metadata__");
    const char *key;
    json_t *value;
    if (f->meta) {
        if (!json_is_object(f->meta)) return BAD("__metadata__ is no object");
        json_object_foreach(f->meta, key, value) if (!json_is_string(value)) return BAD(
            "__metadata__: the value of '%.64s' is no text", key);
    }
    size_t n = json_object_size(f->header) - (f->meta ? 1 : 0);
    if (n > DR_ST_TENSORS_MAX) return BAD("%zu tensors, more than %d", n, DR_ST_TENSORS_MAX);
    f->tensors = dr_calloc(n + 1, sizeof *f->tensors);
    f->by_name = dr_calloc(n + 1, sizeof *f->by_name);
    if (!f->tensors || !f->by_name) return dr_fail(err, DR_NOMEM, "table of %zu tensors", n);
    json_object_foreach(f->header, key, value) {
        if (value == f->meta) continue;
        dr_status s = parse_tensor(key, value, f->bytes + f->data_off, f->len - f->data_off, &f->tensors[f->n], err);
        if (s) return s;
        f->n++;
    }
    qsort(f->tensors, f->n, sizeof *f->tensors, by_data);
    for (size_t i = 0; i < f->n; i++) f->by_name[i].t = &f->tensors[i];
    qsort(f->by_name, f->n, sizeof *f->by_name, by_name);
    return check_tiling(f, err);
}

dr_status dr_st_parse(const void *data, size_t len, dr_st **ret, dr_error *err) {
    const unsigned char *p = data;
    if (len < 10) return BAD("%zu bytes are too few for a safetensors file", len);
    uint64_t header_len = 0;
    for (int i = 7; i >= 0; i--) header_len = header_len << 8 | p[i];
    if (header_len > DR_ST_HEADER_MAX)
        return BAD("the header claims %llu bytes, more than %u: no safetensors file?", (unsigned long long)header_len,
                   DR_ST_HEADER_MAX);
    if (header_len > len - 8)
        return BAD("the header claims %llu bytes, the file ends after %zu", (unsigned long long)header_len, len - 8);
    if (header_len < 2 || p[8] != '{') return BAD("the header does not begin with '{'");
    dr_st *f = dr_calloc(1, sizeof *f);
    if (!f) return dr_fail(err, DR_NOMEM, "model file");
    f->bytes = p;
    f->len = len;
    f->data_off = 8 + (size_t)header_len;
    dr_status s = parse_header(f, err);
    if (s) {
        dr_st_close(f);
        return s;
    }
    *ret = f;
    return DR_OK;
}

dr_status dr_st_open(const char *path, dr_st **ret, dr_error *err) {
    char *data;
    size_t len;
    dr_status s = dr_fs_read(path, DR_ST_FILE_MAX, &data, &len, err);
    if (s) return s;
    dr_st *f;
    if ((s = dr_st_parse(data, len, &f, err))) {
        dr_free(data);
        return dr_wrap(err, s, "%s", path);
    }
    f->owned = data;
    *ret = f;
    return DR_OK;
}

void dr_st_close(dr_st *f) {
    if (!f) return;
    json_decref(f->header);
    dr_free(f->tensors);
    dr_free(f->by_name);
    dr_free(f->owned);
    dr_free(f);
}

size_t dr_st_count(const dr_st *f) {
    return f->n;
}
const dr_st_tensor *dr_st_at(const dr_st *f, size_t i) {
    return &f->tensors[i];
}

const dr_st_tensor *dr_st_find(const dr_st *f, const char *name) {
    const dr_st_tensor named = {.name = name};
    const struct by_name key = {&named}, *hit = bsearch(&key, f->by_name, f->n, sizeof *f->by_name, by_name);
    return hit ? hit->t : NULL;
}

bool dr_st_has_shape(const dr_st_tensor *t, int rank, const int64_t *dims) {
    return t->rank == rank && (!rank || !memcmp(t->dims, dims, (size_t)rank * sizeof *dims));
}

static float element(const dr_st_tensor *t, size_t i) {
    const unsigned char *p = (const unsigned char *)t->data + i * dr_st_dtype_size(t->dtype);
    if (t->dtype == DR_ST_F32) {
        float f;
        memcpy(&f, p, 4);
        return f;
    }
    uint16_t h;
    memcpy(&h, p, 2);
    return t->dtype == DR_ST_F16 ? dr_f16_to_f32(h) : dr_bf16_to_f32(h);
}

dr_status dr_st_read_f32(const dr_st_tensor *t, float *ret, dr_error *err) {
    if (!dr_st_dtype_is_float(t->dtype))
        return BAD("tensor '%s': %s where floating point is needed", t->name, dr_st_dtype_name(t->dtype));
    for (size_t i = 0; i < t->count; i++) {
        float v = element(t, i);
        if (!isfinite(v))
            return dr_fail_as(err, DR_CORRUPT, "not_finite", "tensor '%s': element %zu is %s", t->name, i,
                              isnan(v) ? "not a number" : "infinite");
        ret[i] = v;
    }
    return DR_OK;
}

dr_status dr_st_read_i64(const dr_st_tensor *t, int64_t *ret, dr_error *err) {
    if (t->dtype != DR_ST_I64) return BAD("tensor '%s': %s where I64 is needed", t->name, dr_st_dtype_name(t->dtype));
    if (t->count) memcpy(ret, t->data, t->bytes);
    return DR_OK;
}

dr_status dr_st_verify(const dr_st *f, dr_error *err) {
    for (size_t k = 0; k < f->n; k++) {
        const dr_st_tensor *t = &f->tensors[k];
        if (!dr_st_dtype_is_float(t->dtype)) continue;
        for (size_t i = 0; i < t->count; i++) {
            float v = element(t, i);
            if (!isfinite(v))
                return dr_fail_as(err, DR_CORRUPT, "not_finite", "tensor '%s': element %zu is %s", t->name, i,
                                  isnan(v) ? "not a number" : "infinite");
        }
    }
    const char *want = dr_st_meta(f, "derain.crc32");
    if (want) {
        uint8_t b[4], have[4];
        uint32_t crc = dr_crc32(0, f->bytes + f->data_off, f->len - f->data_off);
        for (int i = 0; i < 4; i++) have[i] = (uint8_t)(crc >> (24 - 8 * i));
        if (strlen(want) != 8 || !dr_unhex(want, 4, b)) return BAD("derain.crc32 is not eight hex digits");
        if (memcmp(b, have, 4)) return BAD("the checksum of the tensors is %08x, the file says %s: damaged", crc, want);
    }
    return DR_OK;
}

const char *dr_st_meta(const dr_st *f, const char *key) {
    return f->meta ? json_string_value(json_object_get(f->meta, key)) : NULL;
}

size_t dr_st_meta_count(const dr_st *f) {
    return f->meta ? json_object_size(f->meta) : 0;
}

void dr_st_meta_at(const dr_st *f, size_t i, const char **ret_key, const char **ret_value) {
    void *it = json_object_iter(f->meta);
    while (i--) it = json_object_iter_next(f->meta, it);
    *ret_key = json_object_iter_key(it);
    *ret_value = json_string_value(json_object_iter_value(it));
}

char *dr_st_meta_json(const dr_st *f) {
    char *text = f->meta ? json_dumps(f->meta, JSON_COMPACT) : NULL;
    if (f->meta && !text) return NULL;
    char *copy = dr_strdup(text ? text : "{}");
    json_free_t json_release; /* the text came from jansson's allocator, whichever that is */
    json_get_alloc_funcs(NULL, &json_release);
    json_release(text);
    return copy;
}

const void *dr_st_bytes(const dr_st *f, size_t *ret_len) {
    *ret_len = f->len;
    return f->bytes;
}
