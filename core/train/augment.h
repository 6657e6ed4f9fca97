/* augment.h - from a picture to one training sample: a window of the (virtually resized) picture, turned, as floats.
 *
 * Resizing is Pillow's bicubic with antialias (a = -0.5, support widened when shrinking, 8 bits after each pass), but
 * only the pixels of the window are computed. Outside of the picture its mirror image continues, edges not repeated. */
#ifndef DR_TRAIN_AUGMENT_H
#define DR_TRAIN_AUGMENT_H

#include "core/base/rng.h"
#include "core/base/status.h"
#include "core/train/dataset.h"
#include <stdbool.h>

/* Where a sample comes from: resize the picture to vw x vh, cut crop x crop at (x, y), flip, turn. */
typedef struct dr_sample_plan {
    int crop;
    int vw, vh;  /* size of the resized picture; the picture's own size = no resampling */
    int x, y;    /* 0 where the resized picture is not larger than the crop */
    bool flip_x; /* left to right */
    bool flip_y; /* upside down */
    bool turn;   /* transposed, after the flips; with them: all multiples of 90 degrees */
} dr_sample_plan;

typedef enum dr_crop_mode {
    DR_CROP_NATIVE,   /* crop of the picture as it is (or shrunk a little, scale_min) */
    DR_CROP_RELEASED, /* METHOD.md section 10: whole picture to 2 crop x 2 crop, then a crop */
    DR_CROP_SQUEEZED  /* the decay half of it: whole picture to crop x crop */
} dr_crop_mode;

typedef struct dr_augment_opts {
    dr_crop_mode mode;
    int crop;
    bool flip_x, flip_y, turn; /* each with probability 1/2 where allowed */
    double scale_min;          /* NATIVE: pictures with both sides above 2*crop are shrunk by a factor drawn from
                                * [scale_min, 1]; 1 = never */
} dr_augment_opts;

/* Draws a plan; takes the same number of random numbers for every picture. */
dr_sample_plan dr_augment_plan(const dr_augment_opts *o, int w, int h, dr_rng *rng);

/* Runs it. p has 3 channels; ret is (3,crop,crop), planar, v/255 in [0,1]. Errors: NOMEM. */
DR_MUSTUSE dr_status dr_augment_run(const dr_sample_plan *plan, dr_pixels p, float *ret, dr_error *err);

#endif
