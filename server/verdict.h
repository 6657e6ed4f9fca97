/* verdict.h - is a new version of a model better than its parent? What the gate measures on pictures that were held out
 * of the training, and what it decides.
 *
 *   finite  no value of any output is NaN or infinite
 *   pairs   with a paired hold-out: mean PSNR and SSIM (luma) not lower than the parent's less psnr_loss_max and
 *           ssim_loss_max; without a parent, than the rainy pictures' own
 *   transplant  without pairs: on pairs that were made (server/made_pairs.h: rain that the parent took off, laid over
 * clean pictures) mean PSNR not lower than the parent's less transplant_loss_max. A version that darkens, blurs or
 *           leaves what its parent took off falls behind here
 *   rain    the mean rain score of rainy pictures (docs/rain-score.md) falls by at least rain_fall_min; without pairs,
 *           also by no less than the parent's fall less rain_loss_max
 *   detail  rainy pictures keep their fine structure: of what core/image/detail.h measures at least detail_min is left.
 *           Looked at only without pairs, which say more. It catches what the clean check cannot: a network that
 * learned to blur from clean pictures that are blurred themselves clean   do no harm: clean pictures come back at a
 * mean PSNR (RGB, against themselves) of at least clean_psnr_min colour  no cast: the channels' mean shifts differ from
 * each other's mean by at most shift_max grey levels on every kind of picture, and on clean pictures no channel moves
 * by more
 *
 * A check for which there are no pictures is left out and says so. All that are there must hold. */
#ifndef SRV_VERDICT_H
#define SRV_VERDICT_H

#include "core/derain.h"
#include <stdatomic.h>

typedef struct srv_verdict_limits {
    double psnr_loss_max;       /* dB */
    double ssim_loss_max;       /* 0..1 */
    double transplant_loss_max; /* dB */
    double rain_fall_min;       /* points of 100 */
    double rain_loss_max;       /* points of 100 */
    double detail_min;          /* share, 0..1 */
    double clean_psnr_min;      /* dB */
    double shift_max;           /* grey levels of 255 */
} srv_verdict_limits;
extern const srv_verdict_limits srv_verdict_defaults;

enum { SRV_VERDICT_SIDE = 512 }; /* of larger pictures this middle is looked at */

typedef struct srv_picture_list {
    const char *const *path; /* borrowed */
    size_t n;
} srv_picture_list;

typedef struct srv_verdict_in {
    const char *weights;                     /* of the new version */
    const char *parent;                      /* weights, NULL = none */
    srv_picture_list rainy, clean;           /* unpaired hold-out; may be empty */
    srv_picture_list pair_rainy, pair_clean; /* paired hold-out, the same number of each; may be empty */
    srv_picture_list made_rainy,
        made_clean;                   /* pairs made of the unpaired hold-out, the same number of each; likewise */
    const srv_verdict_limits *limits; /* NULL = defaults */
    int pictures_max;                 /* of each kind, evenly spread; 0 = 24 */
    int side_max;                     /* of larger pictures the middle; 0 = SRV_VERDICT_SIDE */
    const char *backend, *precision, *plan_cache; /* as in dr_engine_opts */
    int threads;
    const dr_limits *image_limits;                        /* NULL = defaults */
    atomic_bool *cancel;                                  /* NULL = never */
    void (*before)(void *around), (*after)(void *around); /* called around each picture; NULL = none */
    void *around;
    /* between two layers, with the engine that computes; false ends it as CANCELLED; NULL = none */
    bool (*yield)(void *arg, dr_engine *e);
    void *arg;
} srv_verdict_in;

typedef struct srv_verdict {
    bool accepted;
    char *json;   /* {"verdict","reasons","checks","pictures"}; caller frees with dr_free */
    char *reason; /* the first check that failed, for people; NULL when accepted */
} srv_verdict;
void srv_verdict_done(srv_verdict *v);

/* INVALID nothing_held_out: no pictures at all. CANCELLED. What the files and the engine say. Pictures that cannot be
 * read are an error: a data set that was accepted has none. */
DR_MUSTUSE dr_status srv_verdict_run(const srv_verdict_in *in, srv_verdict *ret, dr_error *err);

#endif
