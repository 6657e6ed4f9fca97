/* safetensors_write.c - the writer: descriptions first, then the header, then each tensor's bytes in turn.
 *
 * Nothing but one tensor (and only where it has to be fetched or converted) is held beside the caller's data. */
#include "core/model/safetensors.h"

#include "core/base/alloc.h"
#include "core/base/arena.h"
#include "core/base/fs.h"
#include "core/base/hash.h"
#include "core/model/half.h"
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct entry {
    char *name;
    dr_st_dtype dtype;
    int rank;
    int64_t dims[DR_ST_RANK_MAX];
    size_t count, bytes, index; /* index: the caller's order */
    const float *f32;           /* one of these three */
    const void *raw;
    dr_st_fetch fetch;
    void *arg;
} entry;

struct dr_st_writer {
    json_t *meta;
    entry *entries;
    size_t n, cap;
    dr_arena arena; /* dr_st_writer_alloc */
    bool checksum;
    dr_status status;
    dr_error error;
};

dr_st_writer *dr_st_writer_create(void) {
    dr_st_writer *w = dr_calloc(1, sizeof *w);
    if (w && !(w->meta = json_object())) {
        dr_free(w);
        return NULL;
    }
    if (w) dr_arena_init(&w->arena, 4096, 0);
    return w;
}

void dr_st_writer_destroy(dr_st_writer *w) {
    if (!w) return;
    json_decref(w->meta);
    for (size_t i = 0; i < w->n; i++) dr_free(w->entries[i].name);
    dr_free(w->entries);
    dr_arena_done(&w->arena);
    dr_free(w);
}

void *dr_st_writer_alloc(dr_st_writer *w, size_t n) {
    if (!w || w->status) return NULL;
    void *p = dr_arena_alloc(&w->arena, n);
    if (!p) w->status = dr_fail(&w->error, DR_NOMEM, "no memory for the description of a tensor");
    return p;
}

void dr_st_writer_meta(dr_st_writer *w, const char *key, const char *value) {
    if (!w || w->status) return;
    json_t *v = json_string(value);
    if (!v || json_object_set_new(w->meta, key, v))
        w->status = dr_fail(&w->error, DR_INVALID, "metadata '%.64s': no memory, or not UTF-8", key);
}

void dr_st_writer_metaf(dr_st_writer *w, const char *key, const char *fmt, ...) {
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (w && !w->status && (n < 0 || (size_t)n >= sizeof text))
        w->status = dr_fail(&w->error, DR_INVALID, "metadata '%.64s' is too long", key);
    dr_st_writer_meta(w, key, text);
}

void dr_st_writer_checksum(dr_st_writer *w) {
    if (w) w->checksum = true;
}

static entry *add(dr_st_writer *w, const char *name, dr_st_dtype dtype, int rank, const int64_t *dims) {
    if (!w || w->status) return NULL;
    size_t len = strlen(name);
    if (!len || len > DR_ST_NAME_MAX || !strcmp(name, "__metadata__") || rank < 0 || rank > DR_ST_RANK_MAX) {
        w->status = dr_fail(&w->error, DR_INVALID, "tensor '%.64s': bad name or number of dimensions", name);
        return NULL;
    }
    if (w->n == w->cap) {
        size_t cap = w->cap ? 2 * w->cap : 64;
        entry *p = w->cap >= DR_ST_TENSORS_MAX ? NULL : dr_realloc(w->entries, cap * sizeof *p);
        if (!p) {
            w->status = dr_fail(&w->error, DR_NOMEM, "table of %zu tensors", cap);
            return NULL;
        }
        w->entries = p;
        w->cap = cap;
    }
    entry e = {.dtype = dtype, .rank = rank, .count = 1, .index = w->n};
    for (int i = 0; i < rank; i++) {
        e.dims[i] = dims[i];
        if (dims[i] < 0 || !dr_mul_size(e.count, (size_t)dims[i], &e.count)) {
            w->status = dr_fail(&w->error, DR_INVALID, "tensor '%s': dimension %d does not fit", name, i);
            return NULL;
        }
    }
    if (!dr_mul_size(e.count, dr_st_dtype_size(dtype), &e.bytes)) {
        w->status = dr_fail(&w->error, DR_INVALID, "tensor '%s' is too large", name);
        return NULL;
    }
    if (!(e.name = dr_strdup(name))) {
        w->status = dr_fail(&w->error, DR_NOMEM, "name of tensor '%s'", name);
        return NULL;
    }
    w->entries[w->n] = e;
    return &w->entries[w->n++];
}

void dr_st_writer_f32(dr_st_writer *w, const char *name, dr_st_dtype dtype, int rank, const int64_t *dims,
                      const float *data) {
    entry *e = add(w, name, dtype, rank, dims);
    if (e) e->f32 = data;
}

void dr_st_writer_raw(dr_st_writer *w, const char *name, dr_st_dtype dtype, int rank, const int64_t *dims,
                      const void *data) {
    entry *e = add(w, name, dtype, rank, dims);
    if (e) e->raw = data;
}

void dr_st_writer_fetch(dr_st_writer *w, const char *name, dr_st_dtype dtype, int rank, const int64_t *dims,
                        dr_st_fetch fetch, void *arg) {
    entry *e = add(w, name, dtype, rank, dims);
    if (!e) return;
    e->fetch = fetch;
    e->arg = arg;
}

/* Where bytes go: into a checksum, or into a file. */
typedef struct sink {
    int fd; /* -1: only the checksum */
    uint32_t crc;
} sink;

static dr_status put(sink *s, const void *data, size_t len, dr_error *err) {
    if (s->fd >= 0) return dr_fs_write_all(s->fd, data, len, err);
    s->crc = dr_crc32(s->crc, data, len);
    return DR_OK;
}

/* Floats in pieces through a small buffer, each one looked at. */
static dr_status put_floats(sink *s, const entry *e, const float *v, dr_error *err) {
    enum { PIECE = 8192 };
    union {
        float f[PIECE];
        uint16_t h[PIECE];
    } *b = dr_malloc(sizeof *b);
    if (!b) return dr_fail(err, DR_NOMEM, "tensor '%s'", e->name);
    dr_status st = DR_OK;
    for (size_t i = 0; i < e->count && !st; i += PIECE) {
        size_t n = e->count - i < PIECE ? e->count - i : PIECE;
        for (size_t k = 0; k < n && !st; k++) {
            float x = v[i + k];
            if (!isfinite(x) || (e->dtype == DR_ST_F16 && fabsf(x) >= 65520.0f))
                st = dr_fail_as(err, DR_INVALID, "not_finite", "tensor '%s': element %zu is %g and does not fit %s",
                                e->name, i + k, (double)x, dr_st_dtype_name(e->dtype));
            else if (e->dtype == DR_ST_F32)
                b->f[k] = x;
            else if (e->dtype == DR_ST_F16)
                b->h[k] = dr_f16_from_f32(x);
            else {
                b->h[k] = dr_bf16_from_f32(x);
                if (!isfinite(dr_bf16_to_f32(b->h[k])))
                    b->h[k]--; /* the largest floats: toward zero, not to infinity */
            }
        }
        if (!st) st = put(s, b, n * dr_st_dtype_size(e->dtype), err);
    }
    dr_free(b);
    return st;
}

static dr_status put_entry(sink *s, const entry *e, dr_error *err) {
    if (!e->count) return DR_OK;
    if (e->raw) return put(s, e->raw, e->bytes, err);
    if (!dr_st_dtype_is_float(e->dtype))
        return dr_fail(err, DR_INVALID, "tensor '%s': floats cannot become %s", e->name, dr_st_dtype_name(e->dtype));
    if (e->f32) return put_floats(s, e, e->f32, err);
    size_t bytes;
    float *v = dr_mul_size(e->count, sizeof(float), &bytes) ? dr_malloc(bytes) : NULL;
    if (!v) return dr_fail(err, DR_NOMEM, "tensor '%s'", e->name);
    dr_status st = e->fetch(e->arg, v, e->count, err);
    if (st)
        st = dr_wrap(err, st, "tensor '%s'", e->name);
    else
        st = put_floats(s, e, v, err);
    dr_free(v);
    return st;
}

/* Wide elements first, otherwise as the caller gave them. */
static int by_width(const void *a, const void *b) {
    const entry *x = a, *y = b;
    size_t sx = dr_st_dtype_size(x->dtype), sy = dr_st_dtype_size(y->dtype);
    if (sx != sy) return sx > sy ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

/* The header's text, caller frees with the function behind json_get_alloc_funcs. */
static dr_status make_header(const dr_st_writer *w, char **ret, dr_error *err) {
    json_t *root = json_object();
    dr_status st = DR_OK;
    bool ok = root && (!json_object_size(w->meta) || !json_object_set(root, "__metadata__", w->meta));
    size_t at = 0;
    for (size_t i = 0; ok && !st && i < w->n; i++) {
        const entry *e = &w->entries[i];
        if (json_object_get(root, e->name)) {
            st = dr_fail(err, DR_INVALID, "tensor '%s' is there twice", e->name);
            break;
        }
        size_t end;
        if (!dr_add_size(at, e->bytes, &end) || end > DR_ST_FILE_MAX) {
            st = dr_fail(err, DR_TOO_LARGE, "tensor '%s': the file would be too large", e->name);
            break;
        }
        json_t *shape = json_array(), *item;
        for (int k = 0; k < e->rank; k++) ok = ok && shape && !json_array_append_new(shape, json_integer(e->dims[k]));
        item = json_pack("{s:s, s:o, s:[I,I]}", "dtype", dr_st_dtype_name(e->dtype), "shape", shape, "data_offsets",
                         (json_int_t)at, (json_int_t)end);
        ok = ok && item;
        if (item && json_object_set_new(root, e->name, item)) /* the one thing it can dislike is the name's UTF-8 */
            st = dr_fail(err, DR_INVALID, "tensor '%.64s': no memory, or a name that is not UTF-8", e->name);
        at = end;
    }
    char *text = ok && !st ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    if (st) return st;
    if (!text) return dr_fail(err, DR_NOMEM, "header of %zu tensors", w->n);
    *ret = text;
    return DR_OK;
}

typedef struct job {
    const dr_st_writer *w;
    const char *header;
} job;

static dr_status fill(int fd, void *arg, dr_error *err) {
    const job *j = arg;
    sink s = {.fd = fd};
    size_t len = strlen(j->header), pad = (8 - len % 8) % 8;
    unsigned char prefix[8];
    for (int i = 0; i < 8; i++) prefix[i] = (unsigned char)((uint64_t)(len + pad) >> (8 * i));
    dr_status st = put(&s, prefix, 8, err);
    if (!st) st = put(&s, j->header, len, err);
    if (!st && pad) st = put(&s, "        ", pad, err);
    for (size_t i = 0; i < j->w->n && !st; i++) st = put_entry(&s, &j->w->entries[i], err);
    return st;
}

dr_status dr_st_writer_save(dr_st_writer *w, const char *path, dr_error *err) {
    if (!w) return dr_fail(err, DR_NOMEM, "model file '%s'", path);
    if (w->status) {
        if (err && !err->code) *err = w->error;
        return w->status;
    }
    qsort(w->entries, w->n, sizeof *w->entries, by_width);
    dr_status st = DR_OK;
    if (w->checksum) {
        sink s = {.fd = -1};
        for (size_t i = 0; i < w->n && !st; i++) st = put_entry(&s, &w->entries[i], err);
        if (!st) dr_st_writer_metaf(w, "derain.crc32", "%08x", s.crc);
        if (!st && (st = w->status) && err) *err = w->error;
    }
    char *header = NULL;
    if (!st) st = make_header(w, &header, err);
    if (!st && strlen(header) > DR_ST_HEADER_MAX - 8) st = dr_fail(err, DR_TOO_LARGE, "the header would be too large");
    if (!st) {
        job j = {w, header};
        st = dr_fs_write_atomic_fn(path, fill, &j, err);
    }
    if (header) {
        json_free_t json_release; /* the text came from jansson's allocator, whichever that is */
        json_get_alloc_funcs(NULL, &json_release);
        json_release(header);
    }
    return st;
}
