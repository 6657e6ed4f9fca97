/* meta.c - EXIF: read the orientation, write it as 1. */
#include "core/image/meta.h"
#include <stdbool.h>

enum { TAG_ORIENTATION = 0x0112, TAG_EXIF_IFD = 0x8769, TAG_PIXELS_X = 0xA002, TAG_PIXELS_Y = 0xA003 };
enum { TYPE_SHORT = 3, TYPE_LONG = 4 };

typedef struct tiff {
    const uint8_t *p;
    size_t len;
    bool big; /* byte order */
} tiff;

/* One folder: n entries of 12 bytes at `at`, all inside the block. */
typedef struct ifd {
    size_t at;
    unsigned n;
} ifd;

static unsigned get16(const tiff *t, size_t at) {
    const uint8_t *p = t->p + at;
    return t->big ? (unsigned)p[0] << 8 | p[1] : (unsigned)p[1] << 8 | p[0];
}

static uint32_t get32(const tiff *t, size_t at) {
    const uint32_t a = get16(t, at), b = get16(t, at + 2);
    return t->big ? a << 16 | b : b << 16 | a;
}

static bool open_tiff(const uint8_t *p, size_t len, tiff *ret) {
    if (!p || len < 8 || p[0] != p[1] || (p[0] != 'I' && p[0] != 'M')) return false;
    *ret = (tiff){p, len, p[0] == 'M'};
    return get16(ret, 2) == 42;
}

static bool open_ifd(const tiff *t, uint32_t at, ifd *ret) {
    if (at < 8 || at > t->len || t->len - at < 2) return false;
    const unsigned n = get16(t, at);
    if ((t->len - at - 2) / 12 < n) return false;
    *ret = (ifd){(size_t)at + 2, n};
    return true;
}

/* Offset of the entry with this tag, 0 = none. */
static size_t find(const tiff *t, const ifd *d, unsigned tag) {
    for (unsigned i = 0; i < d->n; i++)
        if (get16(t, d->at + 12 * (size_t)i) == tag) return d->at + 12 * (size_t)i;
    return 0;
}

/* The number in an entry that holds exactly one SHORT or LONG. */
static bool number(const tiff *t, size_t entry, uint32_t *ret) {
    if (!entry || get32(t, entry + 4) != 1) return false;
    const unsigned type = get16(t, entry + 2);
    if (type != TYPE_SHORT && type != TYPE_LONG) return false;
    *ret = type == TYPE_SHORT ? get16(t, entry + 8) : get32(t, entry + 8);
    return true;
}

/* The entry's type stays; a value that a SHORT cannot hold is not written. */
static void put_number(const tiff *t, uint8_t *p, size_t entry, uint32_t v) {
    const bool is_short = get16(t, entry + 2) == TYPE_SHORT;
    const unsigned n = is_short ? 2 : 4;
    if (is_short && v > 0xFFFF) return;
    for (unsigned i = 0; i < n; i++) p[entry + 8 + i] = (uint8_t)(v >> 8 * (t->big ? n - 1 - i : i));
}

int dr_exif_orientation(const uint8_t *exif, size_t len) {
    tiff t;
    ifd d;
    uint32_t v;
    if (!open_tiff(exif, len, &t) || !open_ifd(&t, get32(&t, 4), &d)) return 1;
    return number(&t, find(&t, &d, TAG_ORIENTATION), &v) && v >= 1 && v <= 8 ? (int)v : 1;
}

static void swap_pixel_sides(const tiff *t, uint8_t *p, const ifd *first) {
    ifd sub;
    uint32_t at, x, y;
    if (!number(t, find(t, first, TAG_EXIF_IFD), &at) || !open_ifd(t, at, &sub)) return;
    const size_t ex = find(t, &sub, TAG_PIXELS_X), ey = find(t, &sub, TAG_PIXELS_Y);
    if (!number(t, ex, &x) || !number(t, ey, &y)) return;
    put_number(t, p, ex, y);
    put_number(t, p, ey, x);
}

void dr_exif_upright(uint8_t *exif, size_t len) {
    tiff t;
    ifd d;
    uint32_t v;
    if (!open_tiff(exif, len, &t) || !open_ifd(&t, get32(&t, 4), &d)) return;
    const size_t entry = find(&t, &d, TAG_ORIENTATION);
    if (number(&t, entry, &v)) {
        if (v >= 5 && v <= 8) swap_pixel_sides(&t, exif, &d);
        put_number(&t, exif, entry, 1);
    }
    const size_t next = d.at + 12 * (size_t)d.n;
    if (len - next >= 4)
        for (int i = 0; i < 4; i++) exif[next + (size_t)i] = 0;
}
