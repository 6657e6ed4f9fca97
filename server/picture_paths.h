/* picture_paths.h - lists of pictures by path: from a file of names, a line each, or from a folder. */
#ifndef SRV_PICTURE_PATHS_H
#define SRV_PICTURE_PATHS_H

#include "core/base/status.h"
#include <stddef.h>

typedef struct srv_paths {
    char **path; /* owned */
    size_t n;
} srv_paths;
void srv_paths_done(srv_paths *l);

/* Names relative to dir in the file dir/file, in their order; a file that is not there is an empty list. */
DR_MUSTUSE dr_status srv_paths_read(const char *dir, const char *file, srv_paths *l, dr_error *err);
/* What is in the folder dir/sub, by name; a folder that is not there is an empty list. */
DR_MUSTUSE dr_status srv_paths_folder(const char *dir, const char *sub, srv_paths *l, dr_error *err);

#endif
