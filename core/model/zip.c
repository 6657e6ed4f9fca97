/* zip.c - end record -> directory -> entries; 64-bit forms where the 32-bit fields are full. */
#include "core/model/zip.h"
#include "core/base/alloc.h"
#include "core/base/hash.h"
#include <stdlib.h>
#include <string.h>

enum { END = 22, END64 = 56, LOCATOR64 = 20, ENTRY = 46, LOCAL = 30, COMMENT_MAX = 65535 };

#define BAD(...) dr_fail_as(err, DR_CORRUPT, "bad_zip", __VA_ARGS__)

static uint64_t le(const uint8_t *p, int n) {
    uint64_t v = 0;
    for (int i = n - 1; i >= 0; i--) v = v << 8 | p[i];
    return v;
}

bool dr_zip_looks(const void *data, size_t len) {
    return len >= 4 && !memcmp(data, "PK\3\4", 4);
}

typedef struct directory {
    uint64_t n, offset, bytes;
} directory;

static dr_status find_directory(const uint8_t *p, size_t len, directory *ret, dr_error *err) {
    size_t at = 0;
    bool found = false;
    for (size_t back = END; back <= len && back <= END + COMMENT_MAX && !found; back++) {
        at = len - back;
        found = !memcmp(p + at, "PK\5\6", 4) && le(p + at + 20, 2) == back - END;
    }
    if (!found) return BAD("the archive has no end: it is cut off or no ZIP");
    directory d = {le(p + at + 10, 2), le(p + at + 16, 4), le(p + at + 12, 4)};
    if (le(p + at + 4, 2) || le(p + at + 6, 2))
        return dr_fail_as(err, DR_UNSUPPORTED, "bad_zip", "the archive has several volumes");
    if (at >= LOCATOR64 && !memcmp(p + at - LOCATOR64, "PK\6\7", 4)) {
        uint64_t end64 = le(p + at - LOCATOR64 + 8, 8);
        if (end64 > len || len - end64 < END64 || memcmp(p + end64, "PK\6\6", 4))
            return BAD("the archive's 64-bit end is not where it should be");
        d = (directory){le(p + end64 + 32, 8), le(p + end64 + 48, 8), le(p + end64 + 40, 8)};
    }
    if (d.offset > len || d.bytes > len - d.offset) return BAD("the archive's directory lies outside it");
    if (d.n > DR_ZIP_ENTRIES_MAX || d.n > d.bytes / ENTRY) return BAD("the archive's directory has too many entries");
    *ret = d;
    return DR_OK;
}

typedef struct entry {
    uint64_t packed, size, local;
} entry;

/* The 64-bit extra field holds, in this order, those of the three that are full in the entry. */
static dr_status wide_fields(const uint8_t *x, size_t n, entry *e, dr_error *err) {
    while (n >= 4) {
        size_t id = le(x, 2), len = le(x + 2, 2);
        if (len > n - 4) break;
        const uint8_t *v = x + 4, *end = v + len;
        uint64_t *const field[] = {&e->size, &e->packed, &e->local};
        for (int i = 0; id == 1 && i < 3; i++) {
            if (*field[i] != UINT32_MAX) continue;
            if (end - v < 8) return BAD("an entry of the archive lacks its 64-bit size");
            *field[i] = le(v, 8);
            v += 8;
        }
        x += 4 + len;
        n -= 4 + len;
    }
    return DR_OK;
}

/* One record of the directory at p (at most `left` bytes); returns its length in *ret_len. */
static dr_status read_entry(const uint8_t *all, size_t len, const uint8_t *p, size_t left, dr_zip_entry *ret,
                            size_t *ret_len, dr_error *err) {
    if (left < ENTRY || memcmp(p, "PK\1\2", 4)) return BAD("the archive's directory is broken");
    size_t n_name = le(p + 28, 2), n_extra = le(p + 30, 2), n_comment = le(p + 32, 2);
    if (n_name + n_extra + n_comment > left - ENTRY) return BAD("the archive's directory is broken");
    entry e = {le(p + 20, 4), le(p + 24, 4), le(p + 42, 4)};
    dr_status s = wide_fields(p + ENTRY + n_name, n_extra, &e, err);
    if (s) return s;
    if (le(p + 8, 2) & 1) return dr_fail_as(err, DR_UNSUPPORTED, "bad_zip", "the archive is encrypted");
    if (le(p + 10, 2) || e.packed != e.size)
        return dr_fail_as(err, DR_UNSUPPORTED, "bad_zip", "the archive is compressed; weights are stored as they are");
    if (e.local > len || len - e.local < LOCAL || memcmp(all + e.local, "PK\3\4", 4))
        return BAD("an entry of the archive lies outside it");
    uint64_t skip = LOCAL + le(all + e.local + 26, 2) + le(all + e.local + 28, 2);
    if (skip > len - e.local || e.size > len - e.local - skip) return BAD("an entry of the archive lies outside it");
    *ret = (dr_zip_entry){.name = (const char *)p + ENTRY,
                          .name_len = n_name,
                          .data = all + e.local + skip,
                          .len = (size_t)e.size,
                          .crc = (uint32_t)le(p + 16, 4)};
    *ret_len = ENTRY + n_name + n_extra + n_comment;
    return DR_OK;
}

static int by_name(const void *pa, const void *pb) {
    const dr_zip_entry *a = pa, *b = pb;
    size_t n = a->name_len < b->name_len ? a->name_len : b->name_len;
    int order = n ? memcmp(a->name, b->name, n) : 0;
    return order ? order : (a->name_len > b->name_len) - (a->name_len < b->name_len);
}

dr_status dr_zip_parse(const void *data, size_t len, dr_zip *ret, dr_error *err) {
    const uint8_t *p = data;
    directory d = {0};
    dr_zip z = {0};
    dr_status s = find_directory(p, len, &d, err);
    if (s) return s;
    if (!(z.e = dr_calloc(d.n ? (size_t)d.n : 1, sizeof *z.e)))
        return dr_fail(err, DR_NOMEM, "no memory for the archive's directory");
    size_t at = 0, used = 0;
    for (; z.n < d.n && !s; z.n++, at += used)
        s = read_entry(p, len, p + d.offset + at, (size_t)d.bytes - at, &z.e[z.n], &used, err);
    if (!s) qsort(z.e, z.n, sizeof *z.e, by_name);
    for (size_t i = 1; i < z.n && !s; i++)
        if (!by_name(&z.e[i - 1], &z.e[i])) s = BAD("the archive holds one name twice");
    if (s) {
        dr_free(z.e);
        return s;
    }
    *ret = z;
    return DR_OK;
}

void dr_zip_done(dr_zip *z) {
    if (!z) return;
    dr_free(z->e);
    *z = (dr_zip){0};
}

const dr_zip_entry *dr_zip_find(const dr_zip *z, const char *name, size_t name_len) {
    const dr_zip_entry key = {.name = name, .name_len = name_len};
    return z->n ? bsearch(&key, z->e, z->n, sizeof *z->e, by_name) : NULL;
}

dr_status dr_zip_check(const dr_zip_entry *e, dr_error *err) {
    if (dr_crc32(0, e->data, e->len) == e->crc) return DR_OK;
    return BAD("entry '%.*s' of the archive is damaged: its checksum differs",
               (int)(e->name_len < 80 ? e->name_len : 80), e->name);
}
