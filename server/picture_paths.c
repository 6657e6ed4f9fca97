/* picture_paths.c - see picture_paths.h. */
#include "server/picture_paths.h"
#include "core/base/alloc.h"
#include "core/base/fs.h"
#include <string.h>

enum { LIST_MAX = 16 << 20 };

void srv_paths_done(srv_paths *l) {
    for (size_t i = 0; i < l->n; i++) dr_free(l->path[i]);
    dr_free(l->path);
    *l = (srv_paths){0};
}

static dr_status add(srv_paths *l, const char *dir, const char *name, dr_error *err) {
    char **grown = dr_realloc(l->path, (l->n + 1) * sizeof *grown);
    if (grown) l->path = grown;
    if (!grown || !(l->path[l->n] = dr_fs_join(dir, name))) return dr_fail(err, DR_NOMEM, "no memory for a list");
    l->n++;
    return DR_OK;
}

dr_status srv_paths_read(const char *dir, const char *file, srv_paths *l, dr_error *err) {
    char *path = dr_fs_join(dir, file), *text = NULL;
    size_t len;
    dr_status s = DR_OK;
    if (!path) return dr_fail(err, DR_NOMEM, "no memory for a path");
    if (dr_fs_exists(path)) s = dr_fs_read(path, LIST_MAX, &text, &len, err);
    for (char *p = text, *end; p && *p && !s; p = end + 1) {
        if (!(end = strchr(p, '\n'))) break;
        *end = 0;
        s = add(l, dir, p, err);
    }
    dr_free(text);
    dr_free(path);
    return s;
}

dr_status srv_paths_folder(const char *dir, const char *sub, srv_paths *l, dr_error *err) {
    char *folder = dr_fs_join(dir, sub), **names = NULL;
    size_t n = 0;
    if (!folder) return dr_fail(err, DR_NOMEM, "no memory for a path");
    dr_status s = dr_fs_is_dir(folder) ? dr_fs_list(folder, &names, &n, err) : DR_OK;
    for (size_t i = 0; i < n && !s; i++) s = add(l, folder, names[i], err);
    dr_fs_list_free(names, n);
    dr_free(folder);
    return s;
}
