/* dataset.c - finds, checks, hashes and decodes the pictures of one side.
 *
 * Opening walks the sources into a list of candidates (path and relative name), then reads every file once: its hash
 * drops duplicates and feeds the fingerprint, its pixels are kept while they fit into mem_max. What does not fit is
 * only probed, and decoded by dr_dataset_get() into one spare buffer. */
#include "core/train/dataset.h"
#include "core/base/alloc.h"
#include "core/base/buf.h"
#include "core/base/fs.h"
#include "core/base/hash.h"
#include "core/image/codec.h"
#include "core/image/image.h"
#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

enum { DEPTH_MAX = 40, LIST_MAX = 256 << 20 };

typedef struct entry {
    char *name, *path;
    uint8_t sha[32];
    int w, h;
    uint8_t *data; /* NULL: decoded when asked for */
} entry;

struct dr_dataset {
    const char *label;
    dr_dataset_opts opts;
    entry *e;
    size_t n, cap;
    int skipped, duplicates, on_demand;
    double pixels;
    uint64_t held;
    int spare_i; /* picture in `spare`, -1 = none */
    uint8_t *spare;
    char first_skip[160];
    char fingerprint[DR_SHA256_HEX];
    char describe[320];
};

/* ---- finding --------------------------------------------------------------------------------------------------- */

static dr_status add(dr_dataset *d, const char *path, const char *name, dr_error *err) {
    if (d->n >= (size_t)d->opts.n_max)
        return dr_fail_limit(err, "too_many_pictures", "n_max", d->opts.n_max, (int64_t)d->n + 1,
                             "more than %d %s pictures", d->opts.n_max, d->label);
    if (d->n == d->cap) {
        size_t cap = d->cap ? 2 * d->cap : 256;
        entry *e = dr_realloc(d->e, cap * sizeof *e);
        if (!e) goto nomem;
        d->e = e;
        d->cap = cap;
    }
    entry e = {.path = dr_strdup(path), .name = dr_strdup(name)};
    if (!e.path || !e.name) {
        dr_free(e.path);
        dr_free(e.name);
        goto nomem;
    }
    d->e[d->n++] = e;
    return DR_OK;
nomem:
    return dr_fail(err, DR_NOMEM, "no memory for the list of %s pictures", d->label);
}

static void skip(dr_dataset *d, const char *name, const char *why) {
    if (d->skipped++ == 0) snprintf(d->first_skip, sizeof d->first_skip, "%.60s: %.90s", name, why);
}

static bool is_picture(const char *head, size_t n) {
    return (n >= 8 && memcmp(head, "\x89PNG\r\n\x1a\n", 8) == 0) || (n >= 3 && memcmp(head, "\xff\xd8\xff", 3) == 0);
}

static bool looks_named(const char *name) {
    const char *dot = strrchr(name, '.');
    return dot && (strcasecmp(dot, ".png") == 0 || strcasecmp(dot, ".jpg") == 0 || strcasecmp(dot, ".jpeg") == 0);
}

/* First bytes of a file; -1 where it cannot be read. */
static int head_of(const char *path, char head[8]) {
    FILE *f = fopen(path, "rb");
    if (!f) return -1;
    size_t n = fread(head, 1, 8, f);
    bool bad = ferror(f);
    fclose(f);
    return bad ? -1 : (int)n;
}

typedef struct trail { /* the folders above, so that a link back to one of them ends the walk */
    const struct trail *up;
    dev_t dev;
    ino_t ino;
    int depth;
} trail;

static dr_status walk(dr_dataset *d, const char *dir, const char *prefix, const trail *up, dr_error *err) {
    struct stat st;
    if (stat(dir, &st)) return dr_fail_errno(err, errno, "open", dir);
    for (const trail *t = up; t; t = t->up)
        if (t->dev == st.st_dev && t->ino == st.st_ino) return DR_OK;
    trail here = {up, st.st_dev, st.st_ino, up ? up->depth + 1 : 0};
    if (here.depth > DEPTH_MAX) return dr_fail(err, DR_INVALID, "folders nested too deep at '%s'", dir);
    DIR *h = opendir(dir);
    if (!h) return dr_fail_errno(err, errno, "open", dir);
    dr_status s = DR_OK;
    struct dirent *ent;
    while (!s && (errno = 0, ent = readdir(h))) {
        if (ent->d_name[0] == '.') continue;
        char *path = dr_fs_join(dir, ent->d_name);
        char *name = *prefix ? dr_fs_join(prefix, ent->d_name) : dr_strdup(ent->d_name);
        char head[8];
        int got;
        if (!path || !name) {
            s = dr_fail(err, DR_NOMEM, "no memory for the list of %s pictures", d->label);
        } else if (stat(path, &st)) {
            if (looks_named(name)) skip(d, name, strerror(errno)); /* a dangling link */
        } else if (S_ISDIR(st.st_mode)) {
            s = walk(d, path, name, &here, err);
        } else if (S_ISREG(st.st_mode)) {
            if ((got = head_of(path, head)) < 0)
                skip(d, name, "cannot be read");
            else if (is_picture(head, (size_t)got))
                s = add(d, path, name, err);
            else if (looks_named(name))
                skip(d, name, "neither PNG nor JPEG");
        }
        dr_free(path);
        dr_free(name);
    }
    if (!s && errno) s = dr_fail_errno(err, errno, "read", dir);
    closedir(h);
    return s;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const entry *)a)->name, ((const entry *)b)->name);
}

static dr_status walk_sorted(dr_dataset *d, const char *dir, const char *prefix, dr_error *err) {
    size_t before = d->n;
    dr_status s = walk(d, dir, prefix, NULL, err);
    if (!s && d->n > before) qsort(d->e + before, d->n - before, sizeof *d->e, by_name);
    return s;
}

/* A path a line, relative to the list's own folder. */
static dr_status read_list(dr_dataset *d, const char *list, dr_error *err) {
    char *text = NULL, *dir = NULL;
    size_t len = 0;
    dr_status s = dr_fs_read(list, LIST_MAX, &text, &len, err);
    if (s) return s;
    const char *slash = strrchr(list, '/');
    dir = slash ? dr_strndup(list, (size_t)(slash - list) + 1) : dr_strdup("./");
    if (!dir) s = dr_fail(err, DR_NOMEM, "no memory to read '%s'", list);
    if (!s && memchr(text, 0, len)) s = dr_fail(err, DR_INVALID, "'%s' is neither a picture nor a list of paths", list);
    for (char *line = text, *end = text + len; !s && line < end;) {
        char *nl = memchr(line, '\n', (size_t)(end - line)), *next = nl ? nl + 1 : end;
        char *stop = nl ? nl : end;
        while (stop > line && strchr(" \t\r", stop[-1])) stop--;
        while (line < stop && strchr(" \t", *line)) line++;
        *stop = 0; /* dr_fs_read() leaves a NUL behind the data, so this is inside even at the end */
        struct stat st;
        if (*line && *line != '#') {
            char head[8], *path = *line == '/' ? dr_strdup(line) : dr_fs_join(dir, line);
            if (!path)
                s = dr_fail(err, DR_NOMEM, "no memory to read '%s'", list);
            else if (stat(path, &st))
                skip(d, line, strerror(errno));
            else if (S_ISDIR(st.st_mode))
                s = walk_sorted(d, path, line, err);
            else {
                int got = head_of(path, head);
                if (got > 0 && is_picture(head, (size_t)got))
                    s = add(d, path, line, err);
                else
                    skip(d, line, got < 0 ? "cannot be read" : "neither PNG nor JPEG");
            }
            dr_free(path);
        }
        line = next;
    }
    dr_free(dir);
    dr_free(text);
    return s;
}

static dr_status find(dr_dataset *d, const char *source, dr_error *err) {
    struct stat st;
    if (stat(source, &st)) return dr_fail_errno(err, errno, "open", source);
    if (S_ISDIR(st.st_mode)) return walk_sorted(d, source, "", err);
    char head[8];
    int got = head_of(source, head);
    if (got < 0) return dr_fail_errno(err, errno ? errno : EIO, "read", source);
    if (is_picture(head, (size_t)got)) {
        const char *slash = strrchr(source, '/');
        return add(d, source, slash ? slash + 1 : source, err);
    }
    return read_list(d, source, err);
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

/* Pixels as the data set keeps them: `channels` bytes, alpha left out. */
static dr_status to_pixels(dr_image *img, int channels, uint8_t **ret, dr_error *err) {
    dr_status s = dr_image_set_depth(img, 8, err);
    if (s) return s;
    size_t n = (size_t)img->width * (size_t)img->height;
    int have = img->channels;
    const uint8_t *src = img->pixels;
    uint8_t *dst = dr_malloc(n * (size_t)channels);
    if (!dst) return dr_fail(err, DR_NOMEM, "no memory for a picture of %d x %d", img->width, img->height);
    *ret = dst;
    for (size_t i = 0; i < n; i++, src += have, dst += channels) {
        const uint8_t rgb[3] = {src[0], have >= 3 ? src[1] : src[0], have >= 3 ? src[2] : src[0]};
        if (channels == 3)
            memcpy(dst, rgb, 3);
        else
            dst[0] = (uint8_t)((77 * rgb[0] + 150 * rgb[1] + 29 * rgb[2] + 128) >> 8);
    }
    return DR_OK;
}

static dr_status decode(const dr_dataset *d, entry *e, const char *file, size_t len, uint8_t **ret, dr_error *err) {
    dr_image img = {0};
    dr_limits lim = {.body_max_bytes = d->opts.file_max};
    dr_limits_fill(&lim);
    dr_status s = dr_image_decode(file, len, &lim, &img, err);
    if (!s) s = to_pixels(&img, d->opts.channels, ret, err);
    if (!s) {
        e->w = img.width;
        e->h = img.height;
    }
    dr_image_done(&img);
    return s;
}

static bool is_duplicate(dr_dataset *d, const size_t *table, size_t slots, const entry *e, size_t *ret_slot) {
    uint64_t key;
    memcpy(&key, e->sha, sizeof key);
    size_t i = (size_t)(key % slots);
    for (; table[i]; i = (i + 1) % slots)
        if (memcmp(d->e[table[i] - 1].sha, e->sha, sizeof e->sha) == 0) return true;
    *ret_slot = i;
    return false;
}

static void drop(entry *e) {
    dr_free(e->name);
    dr_free(e->path);
    dr_free(e->data);
    *e = (entry){0};
}

/* Reads candidate e. false with OK in *ret_s: left out, and counted. */
static bool load(dr_dataset *d, entry *e, dr_status *ret_s, dr_error *err) {
    char *file = NULL;
    size_t len = 0, bytes;
    dr_error why = {0};
    dr_picture_info info = {0};
    dr_limits lim = {.body_max_bytes = d->opts.file_max};
    dr_limits_fill(&lim);
    dr_status s = dr_fs_read(e->path, (size_t)d->opts.file_max, &file, &len, &why);
    if (!s) s = dr_probe(file, len, len, &lim, &info, &why);
    if (!s) {
        dr_sha256 h;
        dr_sha256_init(&h);
        dr_sha256_add(&h, file, len);
        dr_sha256_end(&h, e->sha);
        e->w = info.width;
        e->h = info.height;
        bytes = (size_t)info.width * (size_t)info.height * (size_t)d->opts.channels;
        if (d->held + bytes <= d->opts.mem_max) {
            s = decode(d, e, file, len, &e->data, &why);
            if (!s) d->held += bytes;
        } else {
            d->on_demand++;
        }
    }
    dr_free(file);
    *ret_s = s == DR_NOMEM ? dr_fail(err, s, "%s: %s", e->path, why.text) : DR_OK;
    if (s && s != DR_NOMEM) skip(d, e->name, why.text);
    return s == DR_OK;
}

static dr_status load_all(dr_dataset *d, dr_error *err) {
    size_t slots = 2 * d->n + 1, found = d->n, at;
    size_t *table = dr_calloc(slots, sizeof *table); /* index + 1 of a kept picture */
    if (!table) return dr_fail(err, DR_NOMEM, "no memory for %zu %s pictures", d->n, d->label);
    dr_status s = DR_OK;
    dr_sha256 all;
    dr_sha256_init(&all);
    d->n = 0;
    for (size_t i = 0; i < found; i++) {
        entry e = d->e[i];
        d->e[i] = (entry){0};
        if (s || !load(d, &e, &s, err)) {
            drop(&e);
        } else if (is_duplicate(d, table, slots, &e, &at)) {
            if (e.data)
                d->held -= (uint64_t)e.w * (uint64_t)e.h * (uint64_t)d->opts.channels;
            else
                d->on_demand--;
            d->duplicates++;
            drop(&e);
        } else {
            char size[48];
            d->e[d->n] = e;
            table[at] = ++d->n;
            d->pixels += (double)e.w * e.h;
            int len = snprintf(size, sizeof size, "%dx%d", e.w, e.h);
            dr_sha256_add(&all, e.name, strlen(e.name) + 1);
            dr_sha256_add(&all, size, (size_t)len + 1);
            dr_sha256_add(&all, e.sha, sizeof e.sha);
        }
    }
    dr_free(table);
    uint8_t sum[32];
    dr_sha256_end(&all, sum);
    dr_hex(sum, sizeof sum, d->fingerprint);
    return s;
}

static void describe(dr_dataset *d) {
    dr_buf b;
    dr_buf_init(&b, 4096);
    dr_buf_printf(&b, "%zu picture%s, %.1f Mpixel", d->n, d->n == 1 ? "" : "s", d->pixels * 1e-6);
    const char *sep = " (";
    if (d->on_demand) dr_buf_printf(&b, "%s%d decoded when needed", sep, d->on_demand), sep = "; ";
    if (d->duplicates)
        dr_buf_printf(&b, "%s%d duplicate%s", sep, d->duplicates, d->duplicates == 1 ? "" : "s"), sep = "; ";
    if (d->skipped) dr_buf_printf(&b, "%s%d skipped, first: %s", sep, d->skipped, d->first_skip), sep = "; ";
    if (sep[0] == ';') dr_buf_puts(&b, ")");
    if (!b.status) snprintf(d->describe, sizeof d->describe, "%s", b.data);
    dr_buf_done(&b);
}

/* ---- public ---------------------------------------------------------------------------------------------------- */

dr_status dr_dataset_open(const char *label, const char *const *sources, int n_sources, const dr_dataset_opts *opts,
                          dr_dataset **ret, dr_error *err) {
    dr_dataset *d = dr_calloc(1, sizeof *d);
    if (!d) return dr_fail(err, DR_NOMEM, "no memory for the %s pictures", label);
    d->label = label;
    d->spare_i = -1;
    if (opts) d->opts = *opts;
    if (!d->opts.channels) d->opts.channels = 3;
    if (!d->opts.mem_max) d->opts.mem_max = UINT64_C(4) << 30;
    if (!d->opts.n_max) d->opts.n_max = 1000000;
    if (!d->opts.file_max) d->opts.file_max = UINT64_C(256) << 20;
    dr_status s = DR_OK;
    for (int i = 0; !s && i < n_sources; i++) s = find(d, sources[i], err);
    if (!s) s = load_all(d, err);
    if (!s && d->n == 0)
        s = d->skipped ? dr_fail_as(err, DR_INVALID, "no_pictures", "no usable %s picture (%d skipped, first: %s)",
                                    label, d->skipped, d->first_skip)
                       : dr_fail_as(err, DR_INVALID, "no_pictures", "no %s picture in %s%s", label,
                                    n_sources > 0 ? sources[0] : "an empty list",
                                    n_sources > 1 ? " and the other sources" : "");
    if (s) {
        dr_dataset_close(d);
        return s;
    }
    describe(d);
    *ret = d;
    return DR_OK;
}

void dr_dataset_close(dr_dataset *d) {
    if (!d) return;
    for (size_t i = 0; i < d->n; i++) drop(&d->e[i]);
    dr_free(d->e);
    dr_free(d->spare);
    dr_free(d);
}

int dr_dataset_count(const dr_dataset *d) {
    return (int)d->n;
}
const char *dr_dataset_name(const dr_dataset *d, int i) {
    return d->e[i].name;
}
const char *dr_dataset_fingerprint(const dr_dataset *d) {
    return d->fingerprint;
}
const char *dr_dataset_describe(const dr_dataset *d) {
    return d->describe;
}

void dr_dataset_size(const dr_dataset *d, int i, int *ret_w, int *ret_h) {
    *ret_w = d->e[i].w;
    *ret_h = d->e[i].h;
}

uint64_t dr_dataset_key(const dr_dataset *d, int i) {
    uint64_t key = 0;
    for (int j = 0; j < 8; j++) key = key << 8 | d->e[i].sha[j];
    return key;
}

int dr_dataset_smaller(const dr_dataset *d, int side) {
    int n = 0;
    for (size_t i = 0; i < d->n; i++) n += d->e[i].w < side || d->e[i].h < side;
    return n;
}

dr_status dr_dataset_get(dr_dataset *d, int i, dr_pixels *ret, dr_error *err) {
    entry *e = &d->e[i];
    const uint8_t *data = e->data;
    if (!data && d->spare_i != i) {
        char *file = NULL;
        uint8_t *pixels = NULL;
        size_t len = 0;
        entry now = {0};
        dr_status s = dr_fs_read(e->path, (size_t)d->opts.file_max, &file, &len, err);
        if (!s) s = decode(d, &now, file, len, &pixels, err);
        dr_free(file);
        if (!s && (now.w != e->w || now.h != e->h)) {
            dr_free(pixels);
            s = dr_fail(err, DR_CONFLICT, "its size has changed since the start");
        }
        if (s) return dr_wrap(err, s, "%s picture '%s'", d->label, e->path);
        dr_free(d->spare);
        d->spare = pixels;
        d->spare_i = i;
    }
    *ret = (dr_pixels){data ? data : d->spare, e->w, e->h, d->opts.channels};
    return DR_OK;
}
