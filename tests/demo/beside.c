/* beside.c - pictures side by side in one PNG, two in a row, with labels above: the demo's before/after sheet.
 *
 * beside OUT.png LABEL FILE [LABEL FILE]... */
#include "core/base/alloc.h"
#include "core/base/fs.h"
#include "core/image/codec.h"
#include "core/image/draw.h"
#include <stdio.h>

enum { PICTURES_MAX = 16 };

static dr_status load(const char *path, dr_image *ret, dr_error *err) {
    char *data = NULL;
    size_t len = 0;
    dr_status s = dr_fs_read(path, 64u << 20, &data, &len, err);
    if (!s) s = dr_image_decode(data, len, NULL, ret, err);
    dr_free(data);
    return s;
}

int main(int argc, char **argv) {
    dr_image img[PICTURES_MAX] = {0}, sheet = {0};
    dr_sheet_cell cell[PICTURES_MAX] = {0};
    dr_error err = {0};
    void *data = NULL;
    size_t len = 0;
    int n = (argc - 2) / 2;
    if (argc < 4 || argc % 2 || n > PICTURES_MAX) {
        fprintf(stderr, "usage: beside OUT.png LABEL FILE [LABEL FILE]...\n");
        return 2;
    }
    dr_status s = DR_OK;
    for (int i = 0; !s && i < n; i++) {
        s = load(argv[3 + 2 * i], &img[i], &err);
        cell[i] = (dr_sheet_cell){.img = &img[i], .label = argv[2 + 2 * i]};
    }
    if (!s) s = dr_sheet(cell, n, 2, &sheet, &err);
    if (!s) s = dr_image_encode(&sheet, DR_FORMAT_PNG, 0, true, &data, &len, &err);
    if (!s) s = dr_fs_write_atomic(argv[1], data, len, &err);
    if (s) fprintf(stderr, "beside: %s\n", err.text);
    dr_free(data);
    dr_image_done(&sheet);
    for (int i = 0; i < n; i++) dr_image_done(&img[i]);
    return s != DR_OK;
}
