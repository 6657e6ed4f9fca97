/* tune.h - public door 5 of the engine, for one job: finding, on the GPU at hand, the fastest plans for the
 * convolutions of given pictures and trainings, and writing them to a file that engines and trainings read when they
 * open (plan_cache).
 *
 * Tuning takes seconds and has the device to itself, so it happens here or not at all: both functions open a backend of
 * their own, and nothing that serves or trains can turn it on (tests/layers.sh keeps this header from everybody but
 * deraind tune). Tuned plans change results by rounding at most; equal files give equal bits. */
#ifndef DR_TUNE_H
#define DR_TUNE_H

#include "core/base/status.h"
#include "core/trainer.h"

typedef struct dr_tune_size {
    int width, height;
    int batch; /* pictures at a time, up to DR_BATCH_MAX of core/derain.h */
} dr_tune_size;

typedef struct dr_tuned {
    int plans;                  /* tuned now; what the file knew already is not done again */
    double before_ms, after_ms; /* of the whole run, or training step: median of a few */
} dr_tuned;

typedef struct dr_tune_opts {
    const char *backend, *precision; /* as in dr_engine_opts */
    int threads;                     /* of the CPU backend */
    const char *plan_cache;          /* the file; need not be there */
    /* called after each size, when its plans are in the file; NULL = not wanted */
    void (*on_size)(const dr_tune_size *size, const dr_tuned *found, void *arg);
    void *arg;
} dr_tune_opts;

/* The convolutions of a model file at these sizes. Errors: UNSUPPORTED nothing_to_tune (a backend with one way for each
 * convolution, as the CPU: the file is not touched); those of opening and running; IO of the file. Sizes that were done
 * before an error are in the file. */
DR_MUSTUSE dr_status dr_tune_model(const dr_tune_opts *o, const char *model, const dr_tune_size *sizes, int n,
                                   dr_error *err);

/* Those of a training step, as dr_trainer_bench() runs it; into t->plan_cache. Errors as above. */
DR_MUSTUSE dr_status dr_tune_training(const dr_train_opts *t, dr_tuned *ret, dr_error *err);

#endif
