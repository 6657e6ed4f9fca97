/* pth.c - pickle values to tensors; the two containers differ only in where a storage's bytes lie. */
#include "core/model/pth.h"
#include "core/base/alloc.h"
#include "core/base/arena.h"
#include "core/base/hash.h"
#include "core/model/pickle.h"
#include "core/model/zip.h"
#include <stdlib.h>
#include <string.h>

enum { TENSORS_MAX = 65536, STORAGES_MAX = 65536, NAME_MAX_BYTES = 255, NAMES_MAX = 16 << 20 };

#define BAD(...) dr_fail_as(err, DR_CORRUPT, "bad_model", __VA_ARGS__)

typedef struct storage { /* of the older form; keys are texts of the file */
    const uint8_t *key, *data;
    size_t key_len, len;
} storage;

struct dr_pth {
    dr_pickle *pickle;
    dr_zip zip;
    const char *prefix; /* of the archive's names, "archive/" */
    size_t prefix_len;
    storage *storages;
    size_t n_storages;
    dr_pth_tensor *t;
    size_t n;
    dr_arena names;
};

/* The older form begins with a pickle of this number. */
static const uint8_t legacy[] = {0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, '.'};

bool dr_pth_looks(const void *data, size_t len) {
    return dr_zip_looks(data, len) ||
           (len >= 2 && ((const uint8_t *)data)[0] == 0x80 && ((const uint8_t *)data)[1] <= 5);
}

/* --- where a storage lies --- */

static dr_status in_zip(const dr_pth *f, const dr_pk_value *st, const uint8_t **ret, size_t *ret_len, dr_error *err) {
    char name[600];
    static const char folder[] = "data/";
    size_t n = f->prefix_len + sizeof folder - 1;
    if (n + st->n > sizeof name) return BAD("a storage's name is too long");
    memcpy(name, f->prefix, f->prefix_len);
    memcpy(name + f->prefix_len, folder, sizeof folder - 1);
    memcpy(name + n, st->s, st->n);
    const dr_zip_entry *e = dr_zip_find(&f->zip, name, n + st->n);
    if (!e) return BAD("the archive lacks storage '%.*s'", (int)(st->n < 40 ? st->n : 40), (const char *)st->s);
    *ret = e->data;
    *ret_len = e->len;
    return dr_zip_check(e, err);
}

static int by_key(const void *pa, const void *pb) {
    const storage *a = pa, *b = pb;
    size_t n = a->key_len < b->key_len ? a->key_len : b->key_len;
    int order = n ? memcmp(a->key, b->key, n) : 0;
    return order ? order : (a->key_len > b->key_len) - (a->key_len < b->key_len);
}

static dr_status in_legacy(const dr_pth *f, const dr_pk_value *st, const uint8_t **ret, size_t *ret_len,
                           dr_error *err) {
    const storage key = {.key = st->s, .key_len = st->n};
    const storage *found = f->n_storages ? bsearch(&key, f->storages, f->n_storages, sizeof key, by_key) : NULL;
    if (!found) return BAD("the file lacks storage '%.*s'", (int)(st->n < 40 ? st->n : 40), (const char *)st->s);
    *ret = found->data;
    *ret_len = found->len;
    return DR_OK;
}

/* --- tensors --- */

static bool type_of(int global, dr_pth_type *ret) {
    static const struct {
        int global;
        dr_pth_type type;
    } types[] = {{DR_PK_G_F32, DR_PTH_F32}, {DR_PK_G_F16, DR_PTH_F16}, {DR_PK_G_BF16, DR_PTH_BF16},
                 {DR_PK_G_F64, DR_PTH_F64}, {DR_PK_G_I64, DR_PTH_I64}, {DR_PK_G_I32, DR_PTH_I32},
                 {DR_PK_G_U8, DR_PTH_U8}};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (types[i].global == global) {
            *ret = types[i].type;
            return true;
        }
    return false;
}

static bool is_size(const dr_pk_value *v) {
    return v && v->kind == DR_PK_INT && !v->n && v->i >= 0;
}

/* Shape and the strides that a plain copy would have. */
static dr_status read_shape(const dr_pth *f, const dr_pk_value *tensor, dr_pth_tensor *t, dr_error *err) {
    const dr_pk_value *size = dr_pickle_item(f->pickle, tensor, 2), *stride = dr_pickle_item(f->pickle, tensor, 3);
    if (!size || !stride || size->kind != DR_PK_TUPLE || stride->kind != DR_PK_TUPLE || size->n != stride->n)
        return BAD("tensor '%s' has no shape", t->name);
    if (size->n > DR_PTH_RANK_MAX) return BAD("tensor '%s' has more than %d dimensions", t->name, DR_PTH_RANK_MAX);
    t->rank = (int)size->n;
    t->count = 1;
    for (int i = t->rank - 1; i >= 0; i--) {
        const dr_pk_value *n = dr_pickle_item(f->pickle, size, (size_t)i),
                          *step = dr_pickle_item(f->pickle, stride, (size_t)i);
        if (!is_size(n) || !is_size(step)) return BAD("tensor '%s' has no shape", t->name);
        if (n->i > 1 && (uint64_t)step->i != t->count)
            return dr_fail_as(err, DR_UNSUPPORTED, "bad_model",
                              "tensor '%s' is transposed or a slice: save a state dict of copies", t->name);
        t->dims[i] = n->i;
        if (!dr_mul_size(t->count, (size_t)n->i, &t->count))
            return BAD("tensor '%s' has a shape beyond all bounds", t->name);
    }
    return DR_OK;
}

static dr_status read_tensor(const dr_pth *f, const dr_pk_value *v, dr_pth_tensor *t, dr_error *err) {
    const dr_pk_value *st = dr_pickle_item(f->pickle, v, 0), *offset = dr_pickle_item(f->pickle, v, 1);
    const uint8_t *data = NULL;
    size_t len = 0, first, all;
    if (!type_of(st->type, &t->type)) return BAD("tensor '%s' is of no known type", t->name);
    if (!is_size(offset)) return BAD("tensor '%s' has no place in its storage", t->name);
    dr_status s = read_shape(f, v, t, err);
    if (!s) s = f->storages ? in_legacy(f, st, &data, &len, err) : in_zip(f, st, &data, &len, err);
    if (s) return s;
    size_t size = (size_t)dr_pk_type_size(st->type);
    if (!dr_mul_size((size_t)st->i, size, &all) || all != len)
        return BAD("tensor '%s': its storage has %zu bytes, not the %lld elements it should", t->name, len,
                   (long long)st->i);
    if (!dr_mul_size(t->count, size, &t->bytes) || !dr_mul_size((size_t)offset->i, size, &first) || first > len ||
        t->bytes > len - first)
        return BAD("tensor '%s' reaches beyond its storage", t->name);
    t->data = data + first;
    return DR_OK;
}

static bool holds_tensors(const dr_pth *f, const dr_pk_value *dict) {
    for (const dr_pk_link *l = dr_pickle_link(f->pickle, dict->first); l; l = dr_pickle_link(f->pickle, l->next))
        if (dr_pickle_at(f->pickle, l->value)->kind == DR_PK_TENSOR) return true;
    return false;
}

static const dr_pk_value *find_dict(const dr_pth *f) {
    static const char *const wrappers[] = {"state_dict", "model", "params", "net"};
    const dr_pk_value *root = dr_pickle_root(f->pickle);
    if (root->kind != DR_PK_DICT || holds_tensors(f, root)) return root;
    for (const dr_pk_link *l = dr_pickle_link(f->pickle, root->first); l; l = dr_pickle_link(f->pickle, l->next)) {
        const dr_pk_value *k = dr_pickle_at(f->pickle, l->key), *v = dr_pickle_at(f->pickle, l->value);
        for (size_t i = 0; i < sizeof wrappers / sizeof wrappers[0]; i++)
            if (dr_pk_is_text(k, wrappers[i]) && v->kind == DR_PK_DICT && holds_tensors(f, v)) return v;
    }
    return root;
}

static dr_status copy_name(dr_pth *f, const dr_pk_value *k, const char **ret, dr_error *err) {
    if (k->kind != DR_PK_STR || !k->n || k->n > NAME_MAX_BYTES || memchr(k->s, 0, k->n))
        return BAD("a tensor's name is no text of 1 to %d bytes", NAME_MAX_BYTES);
    char *name = dr_arena_alloc(&f->names, k->n + 1);
    if (!name) return dr_fail(err, DR_NOMEM, "no memory for the tensors' names");
    memcpy(name, k->s, k->n);
    *ret = name;
    return DR_OK;
}

static dr_status collect(dr_pth *f, dr_error *err) {
    const dr_pk_value *d = find_dict(f);
    size_t n = 0;
    if (d->kind != DR_PK_DICT) return BAD("the file holds no state dict");
    for (const dr_pk_link *l = dr_pickle_link(f->pickle, d->first); l; l = dr_pickle_link(f->pickle, l->next))
        n += dr_pickle_at(f->pickle, l->value)->kind == DR_PK_TENSOR;
    if (!n) return BAD("the file holds no tensors");
    if (n > TENSORS_MAX) return BAD("the file holds more than %d tensors", TENSORS_MAX);
    if (!(f->t = dr_calloc(n, sizeof *f->t))) return dr_fail(err, DR_NOMEM, "no memory for %zu tensors", n);
    for (const dr_pk_link *l = dr_pickle_link(f->pickle, d->first); l; l = dr_pickle_link(f->pickle, l->next)) {
        const dr_pk_value *v = dr_pickle_at(f->pickle, l->value);
        if (v->kind != DR_PK_TENSOR) continue;
        dr_pth_tensor *t = &f->t[f->n++];
        dr_status s = copy_name(f, dr_pickle_at(f->pickle, l->key), &t->name, err);
        if (!s) s = read_tensor(f, v, t, err);
        if (s) return s;
    }
    return DR_OK;
}

/* --- the ZIP form --- */

static bool entry_is(const dr_pth *f, const char *tail, const dr_zip_entry **ret) {
    char name[600];
    size_t n = strlen(tail);
    if (f->prefix_len + n > sizeof name) return false;
    memcpy(name, f->prefix, f->prefix_len);
    memcpy(name + f->prefix_len, tail, n);
    return (*ret = dr_zip_find(&f->zip, name, f->prefix_len + n)) != NULL;
}

static dr_status open_zip(dr_pth *f, const void *data, size_t len, dr_error *err) {
    static const char tail[] = "data.pkl";
    const dr_zip_entry *pkl = NULL, *order;
    size_t used;
    dr_status s = dr_zip_parse(data, len, &f->zip, err);
    if (s) return s;
    for (size_t i = 0; i < f->zip.n; i++) {
        const dr_zip_entry *e = &f->zip.e[i];
        const char *slash = e->name_len ? memchr(e->name, '/', e->name_len) : NULL;
        size_t first = slash ? (size_t)(slash - e->name) + 1 : 0;
        if (e->name_len - first != sizeof tail - 1 || memcmp(e->name + first, tail, sizeof tail - 1)) continue;
        pkl = e;
        f->prefix = e->name;
        f->prefix_len = first;
        break;
    }
    if (!pkl) return BAD("the archive holds no data.pkl: it is no file of torch.save()");
    if (entry_is(f, "byteorder", &order) && (order->len < 6 || memcmp(order->data, "little", 6)))
        return dr_fail_as(err, DR_UNSUPPORTED, "bad_model", "the file was written on a big-endian machine");
    s = dr_zip_check(pkl, err);
    return s ? s : dr_pickle_read(pkl->data, pkl->len, &f->pickle, &used, err);
}

/* --- the older form: magic, protocol, system, the dict, the storages' keys, and then their bytes --- */

static dr_status skip_pickle(const uint8_t **at, const uint8_t *end, dr_pickle **ret, dr_error *err) {
    size_t used;
    dr_status s = dr_pickle_read(*at, (size_t)(end - *at), ret, &used, err);
    if (!s) *at += used;
    return s;
}

static dr_status little_endian(const dr_pickle *sys, dr_error *err) {
    const dr_pk_value *root = dr_pickle_root(sys);
    const dr_pk_link *l = root->kind == DR_PK_DICT ? dr_pickle_link(sys, root->first) : NULL;
    for (; l; l = dr_pickle_link(sys, l->next))
        if (dr_pk_is_text(dr_pickle_at(sys, l->key), "little_endian") && !dr_pickle_at(sys, l->value)->i)
            return dr_fail_as(err, DR_UNSUPPORTED, "bad_model", "the file was written on a big-endian machine");
    return DR_OK;
}

/* Size of an element of the storage that has this key, from the dict's values. */
static int storage_size(const dr_pth *f, const dr_pk_value *key) {
    const dr_pk_value *d = find_dict(f);
    if (d->kind != DR_PK_DICT) return 0;
    for (const dr_pk_link *l = dr_pickle_link(f->pickle, d->first); l; l = dr_pickle_link(f->pickle, l->next)) {
        const dr_pk_value *v = dr_pickle_at(f->pickle, l->value);
        const dr_pk_value *st = v->kind == DR_PK_TENSOR ? dr_pickle_item(f->pickle, v, 0) : NULL;
        if (st && st->n == key->n && !memcmp(st->s, key->s, key->n)) return dr_pk_type_size(st->type);
    }
    return 0;
}

static dr_status read_storages(dr_pth *f, const dr_pickle *keys, const uint8_t *at, const uint8_t *end, dr_error *err) {
    const dr_pk_value *list = dr_pickle_root(keys);
    if (list->kind != DR_PK_LIST) return BAD("the file has no list of storages");
    size_t n = 0;
    for (const dr_pk_link *l = dr_pickle_link(keys, list->first); l; l = dr_pickle_link(keys, l->next)) n++;
    /* the search for the element size below is quadratic in the number of tensors */
    if (n > 4096) return BAD("the file has more than 4096 storages");
    if (!(f->storages = dr_calloc(n + 1, sizeof *f->storages))) return dr_fail(err, DR_NOMEM, "no memory for storages");
    for (const dr_pk_link *l = dr_pickle_link(keys, list->first); l; l = dr_pickle_link(keys, l->next)) {
        const dr_pk_value *key = dr_pickle_at(keys, l->value);
        uint64_t count = 0;
        size_t bytes;
        if (key->kind != DR_PK_STR || end - at < 8) return BAD("the file's storages are cut off");
        for (int i = 7; i >= 0; i--) count = count << 8 | at[i];
        at += 8;
        int size = storage_size(f, key);
        if (!size) return BAD("a storage of the file belongs to no tensor of its state dict");
        if (!dr_mul_size((size_t)count, (size_t)size, &bytes) || bytes > (size_t)(end - at))
            return BAD("the file's storages are cut off");
        f->storages[f->n_storages++] = (storage){.key = key->s, .key_len = key->n, .data = at, .len = bytes};
        at += bytes;
    }
    qsort(f->storages, f->n_storages, sizeof *f->storages, by_key);
    return DR_OK;
}

static dr_status open_legacy(dr_pth *f, const uint8_t *data, size_t len, dr_error *err) {
    const uint8_t *at = data, *end = data + len;
    dr_pickle *part = NULL;
    if (len < sizeof legacy || memcmp(data, legacy, sizeof legacy)) {
        /* no file of torch.save(); say so, unless the pickle itself has something worse to show */
        dr_status s = skip_pickle(&at, end, &part, err);
        dr_pickle_close(part);
        return s ? s : BAD("a pickle, but no file of torch.save()");
    }
    dr_status s = DR_OK;
    at += sizeof legacy;
    for (int i = 0; i < 2 && !s; i++) {
        s = skip_pickle(&at, end, &part, err);
        if (!s && i == 1) s = little_endian(part, err);
        dr_pickle_close(part);
        part = NULL;
    }
    if (!s) s = skip_pickle(&at, end, &f->pickle, err);
    if (!s) s = skip_pickle(&at, end, &part, err);
    if (!s) s = read_storages(f, part, at, end, err);
    dr_pickle_close(part); /* the keys point into the file, not into it */
    return s;
}

dr_status dr_pth_parse(const void *data, size_t len, dr_pth **ret, dr_error *err) {
    dr_pth *f = dr_calloc(1, sizeof *f);
    if (!f) return dr_fail(err, DR_NOMEM, "no memory for a state dict");
    dr_arena_init(&f->names, 0, NAMES_MAX);
    dr_status s = dr_zip_looks(data, len) ? open_zip(f, data, len, err) : open_legacy(f, data, len, err);
    if (!s) s = collect(f, err);
    if (s) {
        dr_pth_close(f);
        return s;
    }
    *ret = f;
    return DR_OK;
}

void dr_pth_close(dr_pth *f) {
    if (!f) return;
    dr_pickle_close(f->pickle);
    dr_zip_done(&f->zip);
    dr_free(f->storages);
    dr_free(f->t);
    dr_arena_done(&f->names);
    dr_free(f);
}

size_t dr_pth_count(const dr_pth *f) {
    return f->n;
}
const dr_pth_tensor *dr_pth_at(const dr_pth *f, size_t i) {
    return &f->t[i];
}
