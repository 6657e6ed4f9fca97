#include "core/base/fs.h"
#include "core/base/alloc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

char *dr_fs_join(const char *dir, const char *name) {
    size_t a = strlen(dir), b = strlen(name);
    while (a && dir[a - 1] == '/') a--;
    char *p = dr_malloc(a + b + 2);
    if (!p) return NULL;
    memcpy(p, dir, a);
    p[a] = '/';
    memcpy(p + a + 1, name, b + 1);
    return p;
}

dr_status dr_fs_read(const char *path, size_t max, char **ret_data, size_t *ret_len, dr_error *err) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return dr_fail_errno(err, errno, "open", path);
    dr_status s = DR_OK;
    char *data = NULL;
    size_t len = 0;
    struct stat st;
    if (fstat(fd, &st)) {
        s = dr_fail_errno(err, errno, "read", path);
        goto out;
    }
    if (S_ISDIR(st.st_mode)) {
        s = dr_fail(err, DR_INVALID, "'%s' is a folder", path);
        goto out;
    }
    if (st.st_size > 0 && (uint64_t)st.st_size > max) {
        s = dr_fail(err, DR_TOO_LARGE, "'%s' has %lld bytes, the most is %zu", path, (long long)st.st_size, max);
        goto out;
    }
    size_t cap = (st.st_size > 0 ? (size_t)st.st_size : 4096) + 1; /* size 0: pipes and /proc tell nothing */
    if (!(data = dr_malloc(cap))) {
        s = dr_fail(err, DR_NOMEM, "no memory for %zu bytes of '%s'", cap, path);
        goto out;
    }
    for (;;) {
        if (len + 1 >= cap) {
            if (len > max) {
                s = dr_fail(err, DR_TOO_LARGE, "'%s' has more than %zu bytes", path, max);
                goto out;
            }
            char *p = dr_realloc(data, cap * 2);
            if (!p) {
                s = dr_fail(err, DR_NOMEM, "no memory for '%s'", path);
                goto out;
            }
            data = p;
            cap *= 2;
        }
        ssize_t n = read(fd, data + len, cap - 1 - len);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            s = dr_fail_errno(err, errno, "read", path);
            goto out;
        }
        if (n == 0) break;
        len += (size_t)n;
    }
    if (len > max) {
        s = dr_fail(err, DR_TOO_LARGE, "'%s' has more than %zu bytes", path, max);
        goto out;
    }
    data[len] = 0;
    *ret_data = data;
    *ret_len = len;
    data = NULL;
out:
    dr_free(data);
    close(fd);
    return s;
}

dr_status dr_fs_write_all(int fd, const void *data, size_t len, dr_error *err) {
    const char *p = data;
    while (len) {
        ssize_t n = write(fd, p, len);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return dr_fail_errno(err, errno, "write", "file");
        p += n;
        len -= (size_t)n;
    }
    return DR_OK;
}

/* Folder of a path, for the fsync that makes a rename last. */
static char *parent_of(const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash) return dr_strdup(".");
    return dr_strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

dr_status dr_fs_sync_dir(const char *path, dr_error *err) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return dr_fail_errno(err, errno, "open", path);
    int bad = fsync(fd) ? errno : 0;
    close(fd);
    return bad ? dr_fail_errno(err, bad, "sync", path) : DR_OK;
}

dr_status dr_fs_write_atomic_fn(const char *path, dr_fs_fill fill, void *arg, dr_error *err) {
    static atomic_uint serial;
    size_t n = strlen(path) + 32;
    char *tmp = dr_malloc(n), *dir = parent_of(path);
    dr_status s = DR_OK;
    int fd = -1;
    bool made = false;
    if (!tmp || !dir) {
        s = dr_fail(err, DR_NOMEM, "no memory to write '%s'", path);
        goto out;
    }
    /* open() with 0666 leaves the mode to the umask, which mkstemp() would not */
    snprintf(tmp, n, "%s.tmp-%u-%u", path, (unsigned)getpid(), atomic_fetch_add(&serial, 1));
    unlink(tmp); /* left by a process that died and had our number */
    if ((fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666)) < 0) {
        s = dr_fail_errno(err, errno, "create", path);
        goto out;
    }
    made = true;
    if ((s = fill(fd, arg, err))) {
        dr_wrap(err, s, "'%s'", path);
        goto out;
    }
    if (fsync(fd)) {
        s = dr_fail_errno(err, errno, "sync", path);
        goto out;
    }
    int bad = close(fd) ? errno : 0;
    fd = -1;
    if (bad || rename(tmp, path)) {
        s = dr_fail_errno(err, bad ? bad : errno, "write", path);
        goto out;
    }
    made = false;
    s = dr_fs_sync_dir(dir, err);
out:
    if (fd >= 0) close(fd);
    if (made) unlink(tmp);
    dr_free(tmp);
    dr_free(dir);
    return s;
}

struct bytes {
    const void *data;
    size_t len;
};

static dr_status fill_bytes(int fd, void *arg, dr_error *err) {
    const struct bytes *b = arg;
    return dr_fs_write_all(fd, b->data, b->len, err);
}

dr_status dr_fs_write_atomic(const char *path, const void *data, size_t len, dr_error *err) {
    struct bytes b = {data, len};
    return dr_fs_write_atomic_fn(path, fill_bytes, &b, err);
}

bool dr_fs_is_dir(const char *path) {
    struct stat st;
    return !stat(path, &st) && S_ISDIR(st.st_mode);
}

bool dr_fs_exists(const char *path) {
    struct stat st;
    return !stat(path, &st);
}

dr_status dr_fs_mkdirs(const char *path, unsigned mode, dr_error *err) {
    char *p = dr_strdup(path);
    if (!p) return dr_fail(err, DR_NOMEM, "no memory to make '%s'", path);
    dr_status s = DR_OK;
    for (char *c = p + 1; !s; c++) {
        if (*c && *c != '/') continue;
        char keep = *c;
        *c = 0;
        if (mkdir(p, mode) && (errno != EEXIST || !dr_fs_is_dir(p)) && !dr_fs_is_dir(p))
            s = dr_fail_errno(err, errno, "make folder", p);
        *c = keep;
        if (!keep) break;
    }
    dr_free(p);
    return s;
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

void dr_fs_list_free(char **names, size_t n) {
    for (size_t i = 0; names && i < n; i++) dr_free(names[i]);
    dr_free(names);
}

dr_status dr_fs_list(const char *dir, char ***ret_names, size_t *ret_n, dr_error *err) {
    DIR *d = opendir(dir);
    if (!d) return dr_fail_errno(err, errno, "open folder", dir);
    char **names = NULL;
    size_t n = 0, cap = 0;
    dr_status s = DR_OK;
    struct dirent *e;
    while ((e = readdir(d))) {
        struct stat st;
        if (e->d_name[0] == '.' || fstatat(dirfd(d), e->d_name, &st, 0) || !S_ISREG(st.st_mode)) continue;
        if (n == cap) {
            size_t more = cap ? cap * 2 : 64;
            char **p = dr_realloc(names, more * sizeof *p);
            if (!p) {
                s = dr_fail(err, DR_NOMEM, "no memory to list '%s'", dir);
                break;
            }
            names = p;
            cap = more;
        }
        if (!(names[n] = dr_strdup(e->d_name))) {
            s = dr_fail(err, DR_NOMEM, "no memory to list '%s'", dir);
            break;
        }
        n++;
    }
    closedir(d);
    if (s) {
        dr_fs_list_free(names, n);
        return s;
    }
    if (n) qsort(names, n, sizeof *names, by_name);
    *ret_names = names;
    *ret_n = n;
    return DR_OK;
}

dr_status dr_fs_space(const char *path, uint64_t *ret_free, uint64_t *ret_total, dr_error *err) {
    struct statvfs v;
    if (statvfs(path, &v)) return dr_fail_errno(err, errno, "look at", path);
    *ret_free = (uint64_t)v.f_bavail * v.f_frsize;
    *ret_total = (uint64_t)v.f_blocks * v.f_frsize;
    return DR_OK;
}
