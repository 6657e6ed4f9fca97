/* engine.h - what derain.c, evaluate.c and bench.c share of an open engine and model. Nobody outside core/model sees
 * it. */
#ifndef DR_MODEL_ENGINE_H
#define DR_MODEL_ENGINE_H

#include "core/derain.h"
#include "core/image/image.h"
#include "core/model/plan.h"
#include "core/nn/generator.h"

#define DR_PLANS_MAX                                                                                                   \
    8 /* shapes whose plan a model remembers; a plan is small, weights and activations are not in it                   \
       */

struct dr_engine {
    dr_backend *be;
    char note[160];
    void *block; /* activations; shared by all plans of all models, since one run follows the other */
    size_t block_bytes;
    int n_small; /* runs in a row that needed less than half of it */
    int threads;
    dr_precision precision; /* what it computes in: F32, BF16 or F16, never AUTO */
    dr_engine *wide;        /* range.h: the same device in bf16; NULL until needed */
    void *probe;            /* range.h: one float on the device */
    bool background;
    char *plan_cache; /* NULL = none */
    bool fallback;    /* see fallback.h */
    char lost[200];   /* why the device is given up, "" while it is not */
};

struct dr_model {
    dr_engine *e;
    dr_generator g;
    dr_slot *slots; /* one a parameter; prepared weights serve all shapes */
    dr_model_info info;
    struct {
        dr_plan *plan;
        int w, h; /* padded */
        uint64_t used;
    } plans[DR_PLANS_MAX];
    uint64_t clock;
    char *path;             /* of the weights */
    dr_engine *twin_engine; /* fallback.h; NULL until needed */
    dr_model *twin;
    char note[160];             /* range.h: why e is not the engine that was asked, "" otherwise */
    dr_model *wide;             /* range.h: the same weights in bf16; NULL until needed */
    uint64_t n_reruns;          /* pictures that were run again there */
    bool (*between)(void *arg); /* dr_model_set_yield */
    void *between_arg;
};

/* Sides of the planes that a picture is padded to. */
int dr_padded_side(int side);

/* planes (3,ph,pw) in, the output over it. Sides are padded ones. */
DR_MUSTUSE dr_status dr_model_run_planes(dr_model *m, float *planes, int pw, int ph, const dr_plan_watch *watch,
                                         dr_error *err);

/* Derain the decoded picture in place; its depth becomes `depth` (0: stays). TOO_LARGE memory above mem_budget. */
DR_MUSTUSE dr_status dr_model_run_image(dr_model *m, dr_image *img, int depth, uint64_t mem_budget,
                                        const dr_plan_watch *watch, dr_error *err);

#endif
