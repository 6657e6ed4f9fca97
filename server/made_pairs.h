/* made_pairs.h - pairs to measure a training with where its data set has none: rain that the parent takes off held-out
 * rainy pictures, laid over held-out clean ones (dr_model_transplant). They say which evaluation was the best, when to
 * stop, and to the gate whether the new version still takes off what its parent did, and no more than that.
 *
 *   DATA/training/ID/made/rainy, made/clean   equal names, PNG
 *
 * Made once a training, whole or not at all (a folder of another name, renamed). */
#ifndef SRV_MADE_PAIRS_H
#define SRV_MADE_PAIRS_H

#include "core/derain.h"

#define SRV_MADE       "made"
#define SRV_MADE_RAINY "made/rainy"
#define SRV_MADE_CLEAN "made/clean"

typedef struct srv_made_in {
    const char *dir;                              /* DATA/training/ID, with the lists of what is held out */
    const char *weights;                          /* of the parent */
    int64_t pairs_max;                            /* evenly spread; 0 = 20 */
    const char *backend, *precision, *plan_cache; /* as in dr_engine_opts */
    int threads;
    const dr_limits *limits;                              /* NULL = defaults */
    void (*before)(void *around), (*after)(void *around); /* called around each pair; NULL = none */
    void *around;
    /* between two layers, with the engine that computes; false ends it as CANCELLED; NULL = none */
    bool (*yield)(void *arg, dr_engine *e);
    void *arg;
} srv_made_in;

/* *ret_n: how many there are, 0 where nothing is held out on one of the sides. */
DR_MUSTUSE dr_status srv_made_pairs(const srv_made_in *in, size_t *ret_n, dr_error *err);

#endif
