/* same_file.h - do two files hold the same bytes? A file that cannot be read is like no other. */
#ifndef TESTS_CORE_SAME_FILE_H
#define TESTS_CORE_SAME_FILE_H

#include "core/base/alloc.h"
#include "core/base/fs.h"
#include <string.h>

static inline bool same_file(const char *a, const char *b) {
    char *x = NULL, *y = NULL;
    size_t n = 0, m = 1;
    bool same =
        !dr_fs_read(a, 1 << 28, &x, &n, NULL) && !dr_fs_read(b, 1 << 28, &y, &m, NULL) && n == m && !memcmp(x, y, n);
    dr_free(x);
    dr_free(y);
    return same;
}

#endif
