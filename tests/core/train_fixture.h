/* train_fixture.h - folders of made pictures for the tests of core/train. */
#ifndef TRAIN_FIXTURE_H
#define TRAIN_FIXTURE_H

#include "core/base/alloc.h"
#include "core/base/fs.h"
#include "core/image/codec.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct fixture {
    char dir[256];
} fixture;

static inline bool fixture_init(fixture *f) {
    const char *tmp = getenv("TMPDIR");
    int n = snprintf(f->dir, sizeof f->dir, "%s/derain-train-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    return n > 0 && (size_t)n < sizeof f->dir && mkdtemp(f->dir) != NULL;
}

static inline void fixture_remove(const char *path) {
    DIR *d = opendir(path);
    struct dirent *e;
    while (d && (e = readdir(d))) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        char *sub = dr_fs_join(path, e->d_name);
        struct stat st;
        if (sub && lstat(sub, &st) == 0 && S_ISDIR(st.st_mode))
            fixture_remove(sub);
        else if (sub)
            unlink(sub);
        dr_free(sub);
    }
    if (d) closedir(d);
    rmdir(path);
}

static inline void fixture_done(fixture *f) {
    fixture_remove(f->dir);
}

static inline const char *fixture_path(const fixture *f, const char *name) {
    static char path[4][600];
    static int i;
    i = (i + 1) % 4;
    snprintf(path[i], sizeof path[i], "%s/%s", f->dir, name);
    return path[i];
}

static inline bool fixture_mkdir(const fixture *f, const char *name) {
    return mkdir(fixture_path(f, name), 0777) == 0;
}

static inline bool fixture_write(const fixture *f, const char *name, const void *data, size_t len) {
    return dr_fs_write_atomic(fixture_path(f, name), data, len, NULL) == DR_OK;
}

/* A picture whose pixel (x, y) is (x, y, tone), so that a sample tells where it was cut. */
static inline bool fixture_picture(const fixture *f, const char *name, int w, int h, int channels, int tone) {
    dr_image img = {0};
    void *data = NULL;
    size_t len = 0;
    if (dr_image_init(&img, w, h, channels, 8, NULL)) return false;
    for (int y = 0; y < h; y++) {
        uint8_t *p = dr_image_row8(&img, y);
        for (int x = 0; x < w; x++, p += channels) {
            p[0] = channels >= 3 ? (uint8_t)x : (uint8_t)tone;
            if (channels >= 3) p[1] = (uint8_t)y, p[2] = (uint8_t)tone;
            if (channels == 4 || channels == 2) p[channels - 1] = 255;
        }
    }
    bool ok = !dr_image_encode(&img, DR_FORMAT_PNG, 0, true, &data, &len, NULL) && fixture_write(f, name, data, len);
    dr_free(data);
    dr_image_done(&img);
    return ok;
}

#endif
