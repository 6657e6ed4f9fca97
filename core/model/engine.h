/* engine.h - what the files of core/model share of an open engine and model. Nobody outside core/model sees it. */
#ifndef DR_MODEL_ENGINE_H
#define DR_MODEL_ENGINE_H

#include "core/derain.h"
#include "core/image/image.h"
#include "core/model/plan.h"
#include "core/nn/generator.h"

/* Shapes whose plan a model remembers: a few sizes in batches of every length. A plan is small, weights and activations
 * are not in it. */
#define DR_PLANS_MAX 32

struct dr_engine {
    dr_backend *be;
    char note[160];
    void *block; /* activations; shared by all plans of all models, since one run follows the other */
    size_t block_bytes;
    uint64_t scratch; /* that much of what runs need beside it the backend has by now */
    int n_small;      /* runs in a row that needed less than half of it */
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
        int n, w, h;    /* pictures; padded sides */
        uint64_t limit; /* chosen for so much memory; UINT64_MAX = the whole plan */
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

/* The whole plan for n pictures of a padded size, owned by m and good until another one is asked for. */
DR_MUSTUSE dr_status dr_model_plan(dr_model *m, int n, int pw, int ph, dr_plan **ret, dr_error *err);
/* e->block with at least `bytes`. */
DR_MUSTUSE dr_status dr_engine_block(dr_engine *e, size_t bytes, dr_error *err);
void dr_engine_release(dr_engine *e); /* gives the block back */
void dr_engine_trim(dr_engine *e);    /* and all else that is only kept for speed */
/* On e->block; asks m's `between`, unless watch has one of its own. watch may be NULL. Whether the output fits is the
 * caller's to look at (range.h). */
DR_MUSTUSE dr_status dr_model_run_plan(dr_model *m, dr_plan *p, const dr_plan_watch *watch, dr_error *err);

/* How many of n pictures of a padded size may run at once, at least 1: within `budget` bytes of a run, and in what the
 * device has free. */
int dr_model_room(const dr_model *m, int n, int pw, int ph, uint64_t budget);
/* The picture as a backend takes it. */
dr_pixel_view dr_pixels_of(const dr_image *img);

/* planes (3,ph,pw) in, the output over it (half of it, where that fails). Sides are padded ones. TOO_LARGE memory: not
 * even in bands within mem_budget. */
DR_MUSTUSE dr_status dr_model_run_planes(dr_model *m, float *planes, int pw, int ph, uint64_t mem_budget,
                                         const dr_plan_watch *watch, dr_error *err);

/* Derain the decoded picture in place; its depth becomes `depth` (0: stays). Where it fails, the picture may be half
 * done. TOO_LARGE memory: not even in bands within mem_budget. */
DR_MUSTUSE dr_status dr_model_run_image(dr_model *m, dr_image *img, int depth, uint64_t mem_budget,
                                        const dr_plan_watch *watch, dr_error *err);

/* TOO_LARGE memory: a picture of w x h pixels takes more than that, even in bands. */
DR_MUSTUSE dr_status dr_model_check_budget(const dr_model *m, int w, int h, uint64_t mem_budget, dr_error *err);

#endif
