/* files.c - see files.h. */
#include "client/files.h"
#include "core/base/alloc.h"
#include "core/base/fs.h"
#include "core/base/hash.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PART = 65536 };

static dr_status nameless(int *ret, dr_error *err) {
    const char *dir = getenv("TMPDIR");
    char path[4096];
    if (snprintf(path, sizeof path, "%s/derain-XXXXXX", dir && *dir ? dir : "/tmp") >= (int)sizeof path)
        return dr_fail(err, DR_INVALID, "TMPDIR is too long");
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0) return dr_fail_errno(err, errno, "make a file in", dir && *dir ? dir : "/tmp");
    (void)unlink(path);
    *ret = fd;
    return DR_OK;
}

/* --- in --- */

/* A pipe, to its end. */
static dr_status copy_in(int from, cli_file *ret, dr_error *err) {
    char part[PART];
    int fd = -1;
    uint64_t len = 0;
    dr_status s = nameless(&fd, err);
    while (!s) {
        ssize_t n = read(from, part, sizeof part);
        if (n < 0 && errno == EINTR) {
            if (atomic_load(&cli_stop)) s = dr_fail_as(err, DR_CANCELLED, "interrupted", "interrupted");
            continue;
        }
        if (n < 0) s = dr_fail_errno(err, errno, "read", "standard input");
        if (n <= 0) break;
        s = dr_fs_write_all(fd, part, (size_t)n, err);
        len += (uint64_t)n;
    }
    if (s) {
        if (fd >= 0) close(fd);
        return s;
    }
    *ret = (cli_file){fd, len};
    return DR_OK;
}

dr_status cli_input_open(const char *path, cli_file *ret, dr_error *err) {
    struct stat st;
    bool from_stdin = strcmp(path, "-") == 0;
    int fd = from_stdin ? fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3) : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st)) {
        dr_status s = dr_fail_errno(err, errno, "open", from_stdin ? "standard input" : path);
        if (fd >= 0) close(fd);
        return s;
    }
    dr_status s = DR_OK;
    if (S_ISREG(st.st_mode) && (!from_stdin || lseek(fd, 0, SEEK_CUR) == 0)) {
        *ret = (cli_file){fd, (uint64_t)st.st_size};
        return DR_OK;
    }
    if (S_ISDIR(st.st_mode))
        s = dr_fail(err, DR_INVALID, "'%s' is a folder", path);
    else
        s = copy_in(fd, ret, err);
    close(fd);
    return s;
}

void cli_input_close(cli_file *f) {
    if (f->fd >= 0) close(f->fd);
    *f = (cli_file){.fd = -1};
}

dr_status cli_input_sha256(const cli_file *f, char ret[65], dr_error *err) {
    char part[PART];
    uint8_t sum[32];
    dr_sha256 h;
    dr_sha256_init(&h);
    for (uint64_t at = 0; at < f->len;) {
        ssize_t n = pread(f->fd, part, sizeof part, (off_t)at);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return dr_fail_errno(err, errno, "read", "a picture");
        if (n == 0) return dr_fail(err, DR_CONFLICT, "it has become shorter while it was read");
        dr_sha256_add(&h, part, (size_t)n);
        at += (uint64_t)n;
    }
    dr_sha256_end(&h, sum);
    dr_hex(sum, 32, ret);
    return DR_OK;
}

/* --- out --- */

dr_status cli_output_open(const char *near, cli_output *ret, dr_error *err) {
    static atomic_uint serial;
    cli_output o = {.file = {.fd = -1}};
    if (!near) {
        dr_status s = nameless(&o.file.fd, err);
        if (!s) *ret = o;
        return s;
    }
    size_t n = strlen(near) + 32;
    if (!(o.tmp = dr_malloc(n))) return dr_fail(err, DR_NOMEM, "out of memory");
    /* open() with 0666 leaves the mode to the umask, which mkstemp() would not */
    snprintf(o.tmp, n, "%s.tmp-%u-%u", near, (unsigned)getpid(), atomic_fetch_add(&serial, 1));
    (void)unlink(o.tmp); /* left by a process that died and had our number */
    o.file.fd = open(o.tmp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (o.file.fd < 0) {
        dr_status s = dr_fail_errno(err, errno, "create", near);
        dr_free(o.tmp);
        return s;
    }
    *ret = o;
    return DR_OK;
}

dr_status cli_output_name(cli_output *o, const char *path, dr_error *err) {
    const char *slash = strrchr(path, '/');
    char *dir = slash ? dr_strndup(path, (size_t)(slash - path) + 1) : dr_strdup(".");
    dr_status s = DR_OK;
    if (!dir) return dr_fail(err, DR_NOMEM, "out of memory");
    if (fsync(o->file.fd) || rename(o->tmp, path)) s = dr_fail_errno(err, errno, "write", path);
    if (!s) {
        dr_free(o->tmp);
        o->tmp = NULL;
        s = dr_fs_sync_dir(dir, err);
    }
    dr_free(dir);
    return s;
}

bool cli_output_print(const cli_output *o) {
    char part[PART];
    for (uint64_t at = 0; at < o->file.len;) {
        ssize_t n = pread(o->file.fd, part, sizeof part, (off_t)at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0 || fwrite(part, 1, (size_t)n, stdout) != (size_t)n) return false;
        at += (uint64_t)n;
    }
    return fflush(stdout) == 0;
}

size_t cli_output_head(const cli_output *o, void *ret, size_t max) {
    ssize_t n = pread(o->file.fd, ret, max < o->file.len ? max : (size_t)o->file.len, 0);
    return n > 0 ? (size_t)n : 0;
}

void cli_output_close(cli_output *o) {
    if (o->file.fd >= 0) close(o->file.fd);
    if (o->tmp) (void)unlink(o->tmp);
    dr_free(o->tmp);
    *o = (cli_output){.file = {.fd = -1}};
}
