/* dataset.h - one side of unpaired training: a stable list of pictures, decoded once into memory.
 *
 * A source is a folder (searched with its subfolders, links followed, files recognised as PNG or JPEG by their first
 * bytes) or a text file with a path a line (relative to that file; empty lines and lines that begin with # are left
 * out). The order is that of the sources, within a folder that of the relative names by bytes: it does not depend on
 * the file system. A picture that occurs twice (same bytes) is taken once. What cannot be read or decoded is left out
 * and counted; nothing left is an error.
 *
 * Pictures are 8-bit, interleaved, upright. Up to mem_max bytes of pixels are kept; what is beyond is decoded when
 * asked for. One thread at a time (the loader's). */
#ifndef DR_TRAIN_DATASET_H
#define DR_TRAIN_DATASET_H

#include "core/base/status.h"
#include <stddef.h>
#include <stdint.h>

typedef struct dr_dataset dr_dataset;

typedef struct dr_dataset_opts {
    int channels;      /* 3 = RGB (0 means 3), 1 = grey */
    uint64_t mem_max;  /* bytes of decoded pixels to keep, 0 = 4 GiB */
    int n_max;         /* most pictures, 0 = 1,000,000 */
    uint64_t file_max; /* most bytes of one file, 0 = 256 MiB */
} dr_dataset_opts;

/* Borrowed from the data set; a picture that is not kept in memory is valid until the next dr_dataset_get(). */
typedef struct dr_pixels {
    const uint8_t *data; /* h rows of w pixels of `channels` bytes, no padding */
    int w, h, channels;
} dr_pixels;

/* label names the side in messages ("rainy", "clean", "streaks"). opts may be NULL.
 * Errors: NOT_FOUND (a source does not exist), INVALID no_pictures, NOMEM, TOO_LARGE (n_max). */
DR_MUSTUSE dr_status dr_dataset_open(const char *label, const char *const *sources, int n_sources,
                                     const dr_dataset_opts *opts, dr_dataset **ret, dr_error *err);
void dr_dataset_close(dr_dataset *d);

int dr_dataset_count(const dr_dataset *d);
const char *dr_dataset_name(const dr_dataset *d, int i); /* relative to its source, '/' between folders */
void dr_dataset_size(const dr_dataset *d, int i, int *ret_w, int *ret_h);
/* First 8 bytes of the SHA-256 of the file: what a split of the pictures is derived from. */
uint64_t dr_dataset_key(const dr_dataset *d, int i);
DR_MUSTUSE dr_status dr_dataset_get(dr_dataset *d, int i, dr_pixels *ret, dr_error *err);

/* SHA-256 over every relative name, size and content, in order, as 64 hex digits: kept in checkpoints. */
const char *dr_dataset_fingerprint(const dr_dataset *d);
/* "303 pictures, 41.2 Mpixel (2 skipped, first: real/x.jpg: image_corrupt; 1 duplicate)", one line. */
const char *dr_dataset_describe(const dr_dataset *d);
int dr_dataset_smaller(const dr_dataset *d, int side); /* pictures with a side below this */

#endif
