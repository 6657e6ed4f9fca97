/* picture.c - test pictures for gpu_check.sh, and how far two pictures are apart.
 *
 *   picture make WxH FILE.png     slopes, disks, noise and slanted bright streaks; the same bytes for the same size
 *   picture diff A B              "MAX PSNR": greatest difference in grey levels, PSNR in dB over all samples (100 if
 * equal)
 *
 * diff takes any pictures that deraind reads, both of one size, as 8-bit samples; another size is an error. */
#include "core/base/alloc.h"
#include "core/base/fs.h"
#include "core/image/codec.h"
#include "tests/gpu/paint.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static dr_status load(const char *path, dr_image *ret, dr_error *err) {
    char *data = NULL;
    size_t len = 0;
    dr_status s = dr_fs_read(path, 256u << 20, &data, &len, err);
    if (!s) s = dr_image_decode(data, len, NULL, ret, err);
    dr_free(data);
    if (!s) s = dr_image_set_depth(ret, 8, err);
    return s;
}

static dr_status make(const char *size, const char *path, dr_error *err) {
    dr_image img = {0};
    void *data = NULL;
    size_t len = 0;
    int w = 0, h = 0;
    char rest;
    if (sscanf(size, "%dx%d%c", &w, &h, &rest) != 2 || w < 1 || h < 1 || w > 32768 || h > 32768)
        return dr_fail(err, DR_INVALID, "size '%s': not WxH", size);
    dr_status s = dr_image_init(&img, w, h, 3, 8, err);
    if (!s) {
        paint(&img);
        s = dr_image_encode(&img, DR_FORMAT_PNG, 0, true, &data, &len, err);
    }
    if (!s) s = dr_fs_write_atomic(path, data, len, err);
    dr_free(data);
    dr_image_done(&img);
    return s;
}

static dr_status diff(const char *a, const char *b, dr_error *err) {
    dr_image p = {0}, q = {0};
    dr_status s = load(a, &p, err);
    if (!s) s = load(b, &q, err);
    if (!s && (p.width != q.width || p.height != q.height || p.channels != q.channels))
        s = dr_fail(err, DR_INVALID, "%dx%d of %d channels and %dx%d of %d: not comparable", p.width, p.height,
                    p.channels, q.width, q.height, q.channels);
    if (!s) {
        int most = 0;
        double sum = 0;
        size_t row = (size_t)p.width * (size_t)p.channels;
        for (int y = 0; y < p.height; y++) {
            const uint8_t *u = dr_image_row8(&p, y), *v = dr_image_row8(&q, y);
            for (size_t i = 0; i < row; i++) {
                int d = abs(u[i] - v[i]);
                if (d > most) most = d;
                sum += (double)d * d;
            }
        }
        double mse = sum / ((double)row * p.height);
        printf("%d %.2f\n", most, mse > 0 ? fmin(10 * log10(255.0 * 255.0 / mse), 100) : 100);
    }
    dr_image_done(&p);
    dr_image_done(&q);
    return s;
}

int main(int argc, char **argv) {
    dr_error err = {0};
    bool is_make = argc == 4 && !strcmp(argv[1], "make");
    if (!is_make && (argc != 4 || strcmp(argv[1], "diff"))) {
        fprintf(stderr, "usage: picture make WxH FILE.png | picture diff A B\n");
        return 2;
    }
    dr_status s = is_make ? make(argv[2], argv[3], &err) : diff(argv[2], argv[3], &err);
    if (s) fprintf(stderr, "picture: %s\n", err.text);
    return s != DR_OK;
}
