/* archive.c - see archive.h. libarchive does the formats; which of them, how deep and how far is decided here: no
 * format or filter but those named is compiled into the reader, and one layer of gzip at most. */
#include "server/archive.h"
#include "core/base/alloc.h"
#include <archive.h>
#include <archive_entry.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RATIO_FLOOR (INT64_C(16) << 20)
enum { BLOCK = 65536, NAME_CHARS = 128 };

typedef struct reader {
    struct archive *a;
    const srv_archive_limits *lim;
    const srv_archive_sink *sink;
    int64_t packed, unpacked, n_files, n_entries;
    char shown[200]; /* the entry, for messages */
} reader;

/* --- names --- */

/* Length of the UTF-8 character at p; 0 = it is none (overlong, surrogate, cut, beyond U+10FFFF). */
static size_t utf8_length(const unsigned char *p) {
    if (p[0] < 0x80) return 1;
    size_t n = p[0] >= 0xC2 && p[0] <= 0xDF ? 2 : (p[0] & 0xF0) == 0xE0 ? 3 : p[0] >= 0xF0 && p[0] <= 0xF4 ? 4 : 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xC0) != 0x80) return 0;
    if (p[0] == 0xE0 && p[1] < 0xA0) return 0;
    if (p[0] == 0xED && p[1] > 0x9F) return 0;
    if (p[0] == 0xF0 && p[1] < 0x90) return 0;
    if (p[0] == 0xF4 && p[1] > 0x8F) return 0;
    return n;
}

bool srv_entry_name_ok(const char *name) {
    const unsigned char *p = (const unsigned char *)name;
    size_t chars = 0;
    if (*p == '.') return false;
    for (size_t n; *p; p += n, chars++) {
        if (*p < 0x20 || *p == 0x7F || *p == '/' || *p == '\\' || !(n = utf8_length(p))) return false;
        if (p[0] == 0xC2 && p[1] < 0xA0) return false; /* C1 controls */
    }
    return chars >= 1 && chars <= NAME_CHARS;
}

static const char *const folders[] = {"rainy/", "clean/", "paired/rainy/", "paired/clean/"};

bool srv_entry_path(const char *path, int *ret_part, const char **ret_name) {
    while (!strncmp(path, "./", 2)) path += 2;
    for (int i = 0; i < 4; i++) {
        size_t n = strlen(folders[i]);
        if (strncmp(path, folders[i], n)) continue;
        *ret_part = i;
        *ret_name = path + n;
        return true;
    }
    return false;
}

/* One of our folders, or the way to it. */
static bool is_our_folder(const char *path) {
    static const char *const known[] = {"", ".", "rainy", "clean", "paired", "paired/rainy", "paired/clean"};
    while (!strncmp(path, "./", 2)) path += 2;
    size_t n = strlen(path);
    while (n && path[n - 1] == '/') n--;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strlen(known[i]) == n && !memcmp(known[i], path, n)) return true;
    return false;
}

static bool has_dotdot(const char *path) {
    for (const char *p = path; (p = strstr(p, "..")); p += 2)
        if ((p == path || p[-1] == '/' || p[-1] == '\\') && (!p[2] || p[2] == '/' || p[2] == '\\')) return true;
    return false;
}

/* Printable ASCII as it is, everything else as '?': for messages. */
static void show(const char *name, char ret[200]) {
    size_t n = 0;
    for (; *name && n < 160; name++) ret[n++] = *name >= 0x20 && *name < 0x7F ? *name : '?';
    snprintf(ret + n, 200 - n, "%s", *name ? "..." : "");
}

/* --- errors --- */

static dr_status refuse(const reader *r, const char *why, dr_error *err) {
    return dr_fail_as(err, DR_INVALID, "archive_entry", "entry '%s': %s", r->shown, why);
}

static dr_status broken(const reader *r, dr_error *err) {
    const char *why = archive_error_string(r->a);
    if (!r->n_entries)
        return dr_fail_as(err, DR_UNSUPPORTED, "unsupported_archive",
                          "the body is no tar, tar.gz or zip archive (%.120s)", why ? why : "unknown format");
    return dr_fail_as(err, DR_CORRUPT, "archive_corrupt", "after entry '%s': %.120s", r->shown,
                      why ? why : "the archive cannot be read on");
}

static dr_status too_large(const reader *r, const char *setting, int64_t limit, int64_t actual, const char *what,
                           dr_error *err) {
    return dr_fail_limit(err, "archive_too_large", setting, limit, actual, "entry '%s': %s %lld", r->shown, what,
                         (long long)limit);
}

/* --- one entry --- */

/* Which of our files is it? false in *ret_file: a folder to be passed over. */
static dr_status judge(reader *r, struct archive_entry *e, int *ret_part, const char **ret_name, bool *ret_file,
                       dr_error *err) {
    const char *path = archive_entry_pathname_utf8(e);
    if (!path) path = archive_entry_pathname(e); /* bytes that are no known character set */
    show(path ? path : "?", r->shown);
    *ret_file = false;
    if (!path || !*path) return refuse(r, "it has no readable name", err);
    if (archive_entry_is_encrypted(e)) return refuse(r, "encrypted entries are not taken", err);
    if (archive_entry_hardlink(e)) return refuse(r, "hard links are not taken", err);
    if (archive_entry_symlink(e) || archive_entry_filetype(e) == AE_IFLNK)
        return refuse(r, "symbolic links are not taken", err);
    if (path[0] == '/' || path[0] == '\\' || (path[0] && path[1] == ':'))
        return refuse(r, "absolute paths are not taken", err);
    if (has_dotdot(path)) return refuse(r, "paths with '..' are not taken", err);
    if (archive_entry_filetype(e) == AE_IFDIR)
        return is_our_folder(path) ? DR_OK
                                   : refuse(r, "it is outside rainy/, clean/, paired/rainy/ and paired/clean/", err);
    if (archive_entry_filetype(e) != AE_IFREG) return refuse(r, "only files and folders are taken", err);
    if (!srv_entry_path(path, ret_part, ret_name))
        return refuse(r, "it is outside rainy/, clean/, paired/rainy/ and paired/clean/", err);
    if (strchr(*ret_name, '/')) return refuse(r, "folders inside the four folders are not taken", err);
    if (!srv_entry_name_ok(*ret_name))
        return refuse(r, "a name has 1 to 128 characters, no control character and no dot in front", err);
    *ret_file = true;
    return DR_OK;
}

static dr_status check_bytes(const reader *r, int64_t file, dr_error *err) {
    const srv_archive_limits *l = r->lim;
    if (file > l->file_max)
        return too_large(r, "body_max_bytes", l->file_max, file, "a picture file may have so many bytes:", err);
    if (r->unpacked > l->bytes_max)
        return too_large(r, "dataset_bytes_max", l->bytes_max, r->unpacked,
                         "all files together may have so many bytes:", err);
    if (r->unpacked > RATIO_FLOOR && r->unpacked / l->ratio_max > r->packed)
        return too_large(r, "archive_ratio_max", l->ratio_max, r->unpacked / (r->packed ? r->packed : 1),
                         "the archive unpacks to more than so many times its size:", err);
    return DR_OK;
}

static dr_status copy(reader *r, uint8_t *block, dr_error *err) {
    int64_t file = 0;
    for (;;) {
        la_ssize_t n = archive_read_data(r->a, block, BLOCK);
        if (n < 0) return broken(r, err);
        if (!n) break;
        file += n;
        r->unpacked += n;
        dr_status s = check_bytes(r, file, err);
        if (!s) s = r->sink->data(r->sink->arg, block, (size_t)n, err);
        if (s) return s;
    }
    return file ? r->sink->end(r->sink->arg, err) : refuse(r, "the file is empty", err);
}

static dr_status take(reader *r, struct archive_entry *e, uint8_t *block, dr_error *err) {
    int part = 0;
    const char *name = NULL;
    bool file = false;
    const srv_archive_limits *l = r->lim;
    const int64_t entries_max = 3 * l->files_max + 1000;
    dr_status s = judge(r, e, &part, &name, &file, err);
    if (s) return s;
    if (++r->n_entries > entries_max)
        return too_large(r, "dataset_files_max", l->files_max, r->n_entries,
                         "too many entries for this many pictures:", err);
    if (!file) return DR_OK;
    if (++r->n_files > l->files_max)
        return too_large(r, "dataset_files_max", l->files_max, r->n_files,
                         "a data set holds at most so many pictures:", err);
    /* What the header claims is refused before a byte of it is unpacked; what it hides, while it is. */
    if (archive_entry_size_is_set(e) && archive_entry_size(e) > l->file_max)
        return too_large(r, "body_max_bytes", l->file_max, archive_entry_size(e),
                         "a picture file may have so many bytes:", err);
    s = r->sink->begin(r->sink->arg, part, name, err);
    return s ? s : copy(r, block, err);
}

static dr_status read_all(reader *r, uint8_t *block, dr_error *err) {
    struct archive_entry *e = NULL;
    for (;;) {
        int rc = archive_read_next_header(r->a, &e);
        if (rc == ARCHIVE_EOF) break;
        /* A warning is about a name that does not fit the locale; the name is judged below. */
        if (rc != ARCHIVE_OK && rc != ARCHIVE_WARN) return broken(r, err);
        if (archive_filter_count(r->a) > 2) /* gzip and "none" */
            return dr_fail_as(err, DR_UNSUPPORTED, "unsupported_archive", "the archive is compressed more than once");
        dr_status s = take(r, e, block, err);
        if (s) return s;
    }
    if (!r->n_files) return dr_fail_as(err, DR_INVALID, "archive_entry", "the archive holds no pictures");
    return DR_OK;
}

dr_status srv_archive_read(int fd, const srv_archive_limits *lim, const srv_archive_sink *sink, dr_error *err) {
    struct stat st;
    reader r = {.lim = lim, .sink = sink};
    uint8_t *block = dr_malloc(BLOCK);
    dr_status s = DR_OK;
    snprintf(r.shown, sizeof r.shown, "none");
    if (fstat(fd, &st) || lseek(fd, 0, SEEK_SET) < 0) s = dr_fail(err, DR_IO, "cannot read the archive");
    r.packed = s ? 0 : (int64_t)st.st_size;
    if (!block || !(r.a = archive_read_new())) s = dr_fail(err, DR_NOMEM, "no memory to read an archive");
    if (!s &&
        (archive_read_support_filter_gzip(r.a) != ARCHIVE_OK || archive_read_support_format_tar(r.a) != ARCHIVE_OK ||
         archive_read_support_format_zip_seekable(r.a) != ARCHIVE_OK))
        s = dr_fail(err, DR_INTERNAL, "libarchive lacks gzip, tar or zip");
    if (!s && archive_read_open_fd(r.a, fd, BLOCK) != ARCHIVE_OK) s = broken(&r, err);
    if (!s) s = read_all(&r, block, err);
    if (r.a) archive_read_free(r.a);
    dr_free(block);
    return s;
}
