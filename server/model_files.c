/* model_files.c - see model_files.h. Paths are made from checked names and numbers only. */
#include "server/model_files.h"
#include "core/base/alloc.h"
#include "core/base/fs.h"
#include "core/base/log.h"
#include "core/base/parse.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define STAGE      "tmp."
#define WEIGHT_MAX ((size_t)4 << 30)

bool srv_model_name_ok(const char *name) {
    static const char ok[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t n = strlen(name);
    return n && n < 64 && name[0] != '.' && strspn(name, ok) == n && strncmp(name, STAGE, sizeof STAGE - 1);
}

void srv_mfiles_path(const char *root, const char *name, int64_t version, const char *file, char ret[SRV_PATH]) {
    if (snprintf(ret, SRV_PATH, "%s/%s/%lld%s%s", root, name, (long long)version, *file ? "/" : "", file) >= SRV_PATH)
        *ret = 0; /* opens nothing */
}

dr_status srv_mfiles_open(const char *root, dr_error *err) {
    return dr_fs_mkdirs(root, 0700, err);
}

dr_status srv_mfiles_stage(const char *root, char ret_dir[SRV_PATH], dr_error *err) {
    char id[DB_ID];
    db_id_new("mdl_", id);
    if (snprintf(ret_dir, SRV_PATH, "%s/" STAGE "%s", root, id) >= SRV_PATH)
        return dr_fail(err, DR_INVALID, "the data folder's path is too long");
    return mkdir(ret_dir, 0700) ? dr_fail_errno(err, errno, "make", ret_dir) : DR_OK;
}

/* What lies in it, then the folder itself; no folder in there is ours. */
void srv_mfiles_discard(const char *dir) {
    DIR *d = opendir(dir);
    for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d))
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..")) (void)unlinkat(dirfd(d), e->d_name, 0);
    if (d) closedir(d);
    (void)rmdir(dir);
}

static dr_status copy_fd(int to, void *arg, dr_error *err) {
    const char *from = arg;
    char part[65536];
    int fd = open(from, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return dr_fail_errno(err, errno, "open", from);
    dr_status s = DR_OK;
    for (ssize_t n; !s && (n = read(fd, part, sizeof part)) != 0;)
        s = n < 0 ? dr_fail_errno(err, errno, "read", from) : dr_fs_write_all(to, part, (size_t)n, err);
    close(fd);
    return s;
}

dr_status srv_mfiles_adopt(const char *dir, const char *file, const char *from, dr_error *err) {
    char to[SRV_PATH];
    struct stat st;
    if (snprintf(to, sizeof to, "%s/%s", dir, file) >= (int)sizeof to)
        return dr_fail(err, DR_INVALID, "the data folder's path is too long");
    if (stat(from, &st)) return dr_fail_errno(err, errno, "look at", from);
    if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size > WEIGHT_MAX)
        return dr_fail(err, DR_INVALID, "%s is no file of weights", from);
    if (!link(from, to)) return DR_OK;
    return dr_fs_write_atomic_fn(to, copy_fd, (void *)(uintptr_t)from, err);
}

static dr_status sync_files(const char *dir, dr_error *err) {
    DIR *d = opendir(dir);
    dr_status s = d ? DR_OK : dr_fail_errno(err, errno, "open", dir);
    for (struct dirent *e = d ? readdir(d) : NULL; e && !s; e = readdir(d)) {
        if (e->d_name[0] == '.') continue;
        int fd = openat(dirfd(d), e->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0 || fsync(fd)) s = dr_fail_errno(err, errno, "sync", e->d_name);
        if (fd >= 0) close(fd);
    }
    if (d) closedir(d);
    return s ? s : dr_fs_sync_dir(dir, err);
}

dr_status srv_mfiles_publish(const char *root, const char *dir, const char *name, int64_t version, dr_error *err) {
    char parent[SRV_PATH], to[SRV_PATH];
    if (!srv_model_name_ok(name)) return dr_fail(err, DR_INVALID, "'%.80s' cannot be the name of a model", name);
    if (snprintf(parent, sizeof parent, "%s/%s", root, name) >= (int)sizeof parent)
        return dr_fail(err, DR_INVALID, "the data folder's path is too long");
    srv_mfiles_path(root, name, version, "", to);
    dr_status s = dr_fs_mkdirs(parent, 0700, err);
    if (!s) s = sync_files(dir, err);
    if (s) return s;
    if (rename(dir, to)) /* fails over a folder that is not empty, and ours never are */
        return errno == ENOTEMPTY || errno == EEXIST
                   ? dr_fail_as(err, DR_CONFLICT, "model_version_exists", "model %s has a version %lld already", name,
                                (long long)version)
                   : dr_fail_errno(err, errno, "rename", dir);
    s = dr_fs_sync_dir(parent, err);
    return s ? s : dr_fs_sync_dir(root, err);
}

void srv_mfiles_erase(const char *root, const char *name, int64_t version) {
    char dir[SRV_PATH];
    srv_mfiles_path(root, name, version, "", dir);
    if (*dir) srv_mfiles_discard(dir);
}

/* --- sweep --- */

static void sweep_name(const char *root, const char *name, bool (*known)(void *, const char *, int64_t), void *arg) {
    char dir[SRV_PATH];
    int64_t version;
    snprintf(dir, sizeof dir, "%s/%s", root, name);
    DIR *d = opendir(dir);
    for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d)) {
        if (e->d_name[0] == '.' || !dr_parse_i64(e->d_name, 1, INT64_MAX, &version) || known(arg, name, version))
            continue;
        dr_log(DR_LOG_INFO, NULL, "erased the files of %s version %lld, which nothing names", name, (long long)version);
        srv_mfiles_erase(root, name, version);
    }
    if (d) closedir(d);
    (void)rmdir(dir); /* stays while anything is in it */
}

void srv_mfiles_sweep(const char *root, bool (*known)(void *arg, const char *name, int64_t version), void *arg) {
    char dir[SRV_PATH];
    DIR *d = opendir(root);
    for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d)) {
        if (!strncmp(e->d_name, STAGE, sizeof STAGE - 1)) {
            if (snprintf(dir, sizeof dir, "%s/%s", root, e->d_name) < (int)sizeof dir) srv_mfiles_discard(dir);
        } else if (srv_model_name_ok(e->d_name)) {
            sweep_name(root, e->d_name, known, arg);
        }
    }
    if (d) closedir(d);
}
