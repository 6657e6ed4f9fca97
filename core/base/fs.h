/* fs.h - whole files, atomically; folders; free space. Paths come from configuration or from ids we made. */
#ifndef DR_BASE_FS_H
#define DR_BASE_FS_H

#include "core/base/status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Read a whole file; over max bytes is TOO_LARGE. The caller frees with dr_free. A NUL byte follows the data. */
DR_MUSTUSE dr_status dr_fs_read(const char *path, size_t max, char **ret_data, size_t *ret_len, dr_error *err);

/* Write to a temporary file beside `path`, fsync, rename over it, fsync the folder. The old file stays on failure. */
DR_MUSTUSE dr_status dr_fs_write_atomic(const char *path, const void *data, size_t len, dr_error *err);

/* The same for output too big to hold: `fill` writes to the open file. */
typedef dr_status (*dr_fs_fill)(int fd, void *arg, dr_error *err);
DR_MUSTUSE dr_status dr_fs_write_atomic_fn(const char *path, dr_fs_fill fill, void *arg, dr_error *err);
DR_MUSTUSE dr_status dr_fs_write_all(int fd, const void *data, size_t len, dr_error *err);

DR_MUSTUSE dr_status dr_fs_mkdirs(const char *path, unsigned mode, dr_error *err); /* like mkdir -p */
DR_MUSTUSE dr_status dr_fs_sync_dir(const char *path, dr_error *err);
bool dr_fs_is_dir(const char *path); /* follows links */
bool dr_fs_exists(const char *path);

/* Names (not paths) of the regular files in a folder, sorted by bytes, links followed, dot files left out.
 * Free with dr_fs_list_free. */
DR_MUSTUSE dr_status dr_fs_list(const char *dir, char ***ret_names, size_t *ret_n, dr_error *err);
void dr_fs_list_free(char **names, size_t n);

DR_MUSTUSE dr_status dr_fs_space(const char *path, uint64_t *ret_free, uint64_t *ret_total, dr_error *err);
char *dr_fs_join(const char *dir, const char *name); /* "dir/name", caller frees; NULL without memory */

#endif
