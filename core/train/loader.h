/* loader.h - the stream of training batches, made ahead by one thread.
 *
 * Batch k depends on the options, the data and k alone: every sample draws from its own generator, seeded by (seed,
 * k, slot, side). So the only state is the counter, and a resumed training opens the loader at its step.
 *
 * Rainy pictures are taken without replacement from a permutation of each pass, clean ones uniformly with replacement
 * (METHOD.md section 10). With streaks, the clean pictures are split by a hash of (seed, content): one part serves
 * only as backgrounds of rendered rain, the rest only as the clean side, so that the two sides stay unpaired; of every
 * 1/streaks_share rainy samples one is rendered, evenly spread.
 *
 * The ring holds a few batches; the thread blocks when it is full. Owner: the trainer's thread calls next, the loader's
 * thread owns the data sets until close. */
#ifndef DR_TRAIN_LOADER_H
#define DR_TRAIN_LOADER_H

#include "core/train/augment.h"
#include "core/train/dataset.h"
#include "core/train/streaks.h"
#include <stdbool.h>
#include <stdint.h>

typedef struct dr_loader dr_loader;

typedef struct dr_loader_opts {
    int crop, batch;
    uint64_t seed;
    bool released;          /* METHOD.md section 10's pictures instead of native crops */
    int64_t squeeze_from;   /* released: from this batch on the whole picture is squeezed to the crop; < 0 = never */
    bool flip_y, turn;      /* native: also upside down, also transposed; off by default. flip_x is always on */
    double scale_min;       /* native: see dr_augment_opts; 1 = as they are */
    double lattice_share;   /* native: part of the clean samples and backgrounds with a drawn lattice (lattice.h) */
    double streaks_share;   /* part of the rainy samples that are rendered, 0..1; 1 where there are no rainy pictures */
    double background_part; /* part of the clean pictures that serve as backgrounds of rendered rain */
    int ring;               /* batches made ahead, 0 = no thread: made when asked for */
} dr_loader_opts;
void dr_loader_opts_init(dr_loader_opts *o); /* crop 256, batch 1, native, share and background part 0.5, ring 3 */

/* Borrowed until the next dr_loader_next() or the close. */
typedef struct dr_batch {
    int64_t k; /* number of the batch */
    int n, crop;
    const float *rainy, *clean; /* (n,3,crop,crop) planar, [-1,1] */
    const int *rainy_id;        /* n: index in the rainy set, or -1-i for a rendered sample over clean picture i */
    const int *clean_id;        /* n: index in the clean set */
} dr_batch;

/* rainy may be NULL where streaks is given; streaks may be NULL. The data sets and streaks stay the caller's but are
 * not to be touched before the close. start is the first batch to come. Errors: INVALID (options, or no picture left
 * for a side), NOMEM. */
DR_MUSTUSE dr_status dr_loader_open(const dr_loader_opts *o, dr_dataset *rainy, dr_dataset *clean, dr_streaks *streaks,
                                    int64_t start, dr_loader **ret, dr_error *err);
void dr_loader_close(dr_loader *l);
DR_MUSTUSE dr_status dr_loader_next(dr_loader *l, dr_batch *ret, dr_error *err);
/* Is clean picture i one of the backgrounds? */
bool dr_loader_is_background(const dr_loader *l, int i);
double dr_loader_waited(const dr_loader *l); /* seconds that next() had to wait so far */

#endif
