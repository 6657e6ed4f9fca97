/* micro.h - a training step with every term, on any backend: for tests of steps in parts of the batch. */
#ifndef TESTS_MICRO_H
#define TESTS_MICRO_H

#include "core/base/alloc.h"
#include "core/base/rng.h"
#include "core/train/step.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MICRO_CROP = 64, MICRO_BATCH = 3, MICRO_POOL = 2, MICRO_STEPS = 3 };

static const dr_objective micro_all = {.w_gan = 1,
                                       .w_nce = 1,
                                       .w_idt = 1,
                                       .w_cycle = 1,
                                       .w_nce_extra = 0.5,
                                       .w_transplant = 1,
                                       .w_color = 1,
                                       .w_freq = 0.1,
                                       .w_brighter = 2,
                                       .w_low = 1,
                                       .transplant_gain = 2,
                                       .dual = true,
                                       .g_gan = DR_GAN_HINGE_REAL};

/* What some steps leave behind. The rates are 0, so that steps differ by the pictures alone and gradients of two ways
 * can be compared. */
typedef struct micro_run {
    float *grad[DR_NETS];
    size_t n[DR_NETS];
    dr_train_metrics m[MICRO_STEPS];
    float *pool[2];
    dr_rng rng[2];
    size_t pool_floats;
    size_t high_water; /* of the step's memory */
    int micro;         /* in the end */
} micro_run;

static inline void micro_done(micro_run *r) {
    for (int i = 0; i < DR_NETS; i++) free(r->grad[i]);
    for (int i = 0; i < 2; i++) free(r->pool[i]);
    *r = (micro_run){0};
}

/* before(i, arg) is called before step i; NULL = none. */
static inline dr_status micro_steps(const char *backend, const dr_objective *obj, int batch, int micro, int steps,
                                    void (*before)(int i, void *arg), void *arg, micro_run *ret, dr_error *err) {
    const size_t image = (size_t)3 * MICRO_CROP * MICRO_CROP, n = 2 * image * (size_t)batch;
    float *x = malloc(n * sizeof *x);
    dr_nets_config c = {.g = {16, 5, 1}, .d = {16, 2}, .ema = true};
    dr_backend *be = NULL;
    dr_nets nets = {0};
    dr_step s = {0};
    dr_image_pool pool[2] = {{0}};
    dr_rng rng;
    *ret = (micro_run){0};
    dr_status st = dr_backend_open(backend, &(dr_backend_opts){.threads = 1, .precision = DR_PREC_F32}, &be, NULL, err);
    if (!st) st = dr_nets_init(&nets, &c, be, err);
    if (!st) st = dr_nets_random(&nets, 5, 1, err);
    for (int i = 0; i < 2 && !st; i++) st = dr_image_pool_init(&pool[i], MICRO_POOL, image, 11 + (uint64_t)i, err);
    if (!st) {
        dr_step_init(&s, &nets, obj);
        s.micro = micro;
        s.seed = 9;
        s.pool_a = &pool[0], s.pool_b = &pool[1];
        dr_rng_seed(&rng, 3, 3);
    }
    for (int k = 0; k < steps && !st; k++) {
        for (size_t i = 0; i < n; i++) x[i] = (float)dr_rng_range(&rng, -1, 1);
        if (before) before(k, arg);
        st = dr_step_run(&s, k, 1.0, batch, MICRO_CROP, x, x + n / 2, &ret->m[k], err);
    }
    for (dr_net i = 0; i < DR_NETS && !st; i++) {
        ret->n[i] = dr_nets_params(&nets, i)->floats;
        ret->grad[i] = malloc(ret->n[i] * sizeof(float));
        st = dr_be_download_raw(be, dr_nets_params(&nets, i)->grad, ret->grad[i], ret->n[i] * sizeof(float), err);
    }
    for (int i = 0; i < 2 && !st; i++) {
        ret->pool_floats = image * MICRO_POOL;
        ret->pool[i] = malloc(ret->pool_floats * sizeof(float));
        memcpy(ret->pool[i], pool[i].data, ret->pool_floats * sizeof(float));
        ret->rng[i] = pool[i].rng;
    }
    ret->high_water = s.pool.high_water;
    ret->micro = s.micro;
    if (s.nets) dr_step_done(&s);
    for (int i = 0; i < 2; i++) dr_image_pool_done(&pool[i]);
    if (nets.be) dr_nets_done(&nets);
    dr_backend_close(be);
    free(x);
    return st;
}

static inline double micro_distance(const float *a, const float *b, size_t n) {
    double d = 0, r = 0;
    for (size_t i = 0; i < n; i++) {
        d += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        r += (double)a[i] * (double)a[i];
    }
    return r > 0 ? sqrt(d / r) : d > 0 ? INFINITY : 0;
}

#endif
