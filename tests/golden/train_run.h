/* train_run.h - the training runs of make_train.py: weights, pictures and patch positions from the hash, on any
 * backend.
 *
 * The pictures are smooth and the seeds chosen so that rounding alone switches hardly any ReLU: gradients of two
 * implementations can then be compared tensor by tensor. Header only, for tests. */
#ifndef TESTS_GOLDEN_TRAIN_RUN_H
#define TESTS_GOLDEN_TRAIN_RUN_H

#include "core/train/step.h"
#include "tests/golden/hashgen.h"

#include <stdio.h>

/* Values are u * scale, their magnitude raised by offset; zero: the gradient is exactly 0. */
typedef struct golden_tensor {
    const char *name;
    size_t n;
    float scale, offset;
    int zero;
    double norm, projection[64]; /* of the gradient of step 1 */
} golden_tensor;

typedef struct golden_loss {
    const char *name;
    double value[10];
} golden_loss;

typedef struct golden_run {
    int ngf, blocks, ndf, crop, cell, seed, steps;
    const golden_tensor *tensors;
    int n_tensors;
    const golden_loss *losses;
    int n_losses;
} golden_run;

#include "tests/golden/train_cycle.inc"
#include "tests/golden/train_full.inc"
#include "tests/golden/train_released.inc"
#include "tests/golden/train_transplant.inc"

typedef struct fixture {
    dr_backend *be;
    dr_nets nets;
    dr_step step;
    const golden_run *run;
    int at; /* step, from 1 */
    float *data;
} fixture;

static dr_error err; /* of the last failure */

/* "G_A.model.1.weight": its network and its index there; false for a name that the trainer does not know. */
static inline bool find_param(dr_nets *nets, const char *full, dr_params **ret, int *ret_i) {
    for (dr_net n = 0; n < DR_NETS; n++) {
        size_t len = strlen(dr_net_name(n));
        if (strncmp(full, dr_net_name(n), len) || full[len] != '.') continue;
        *ret = dr_nets_params(nets, n);
        *ret_i = dr_params_find(*ret, full + len + 1);
        return *ret_i >= 0;
    }
    return false;
}

static inline dr_status given_patches(void *arg, int call, const dr_shape taps[DR_TAPS], dr_patches *ret, dr_error *e) {
    const fixture *f = arg;
    for (int t = 0; t < DR_TAPS; t++) {
        char name[64];
        int n = taps[t].h * taps[t].w;
        snprintf(name, sizeof name, "pos.%d.nce_%d.%d", f->at, call + 1, t);
        ret->count[t] = n < DR_PATCHES ? n : DR_PATCHES;
        if (hg_positions(name, n, ret->count[t], ret->idx[t])) return dr_fail(e, DR_NOMEM, "no memory for positions");
    }
    return DR_OK;
}

/* Every tensor of the run gets its values; a trained tensor that PyTorch's side does not know is an error. */
static inline dr_status set_weights(fixture *f) {
    int known = 0, there = 0;
    dr_status s = DR_OK;
    for (int i = 0; i < f->run->n_tensors && !s; i++) {
        const golden_tensor *t = &f->run->tensors[i];
        dr_params *ps;
        int at;
        if (!find_param(&f->nets, t->name, &ps, &at)) return dr_fail(&err, DR_INTERNAL, "no tensor '%s'", t->name);
        if (dr_param_count(&ps->p[at]) != t->n)
            return dr_fail(&err, DR_INTERNAL, "%s has %zu values, PyTorch %zu", t->name, dr_param_count(&ps->p[at]),
                           t->n);
        hg_fill_offset(t->name, t->scale, t->offset, t->n, f->data);
        s = dr_params_upload(ps, at, f->data, &err);
        known++;
    }
    bool alone = !f->step.obj->dual; /* G_A, D_A and D_B are all that takes part */
    for (dr_net n = 0; n < DR_NETS; n++)
        if (!alone || n == DR_NET_G_A || n == DR_NET_D_A || n == DR_NET_D_B) there += dr_nets_params(&f->nets, n)->n;
    if (!s && known != there) s = dr_fail(&err, DR_INTERNAL, "the nets have %d tensors, PyTorch %d", there, known);
    return s;
}

static inline dr_status open_fixture(fixture *f, const char *backend, dr_precision precision, const golden_run *run,
                                     const dr_objective *obj, double lr, double lr_f, int d_layers, int residual) {
    *f = (fixture){.run = run};
    err = (dr_error){0};
    size_t most = 0;
    for (int i = 0; i < f->run->n_tensors; i++) most = f->run->tensors[i].n > most ? f->run->tensors[i].n : most;
    size_t pictures = 2 * 3 * (size_t)run->crop * (size_t)run->crop;
    f->data = malloc((most > pictures ? most : pictures) * sizeof *f->data);
    if (!f->data) return dr_fail(&err, DR_NOMEM, "no memory for the weights");
    dr_nets_config c = {.g = {run->ngf, run->blocks, residual}, .d = {run->ndf, d_layers}};
    dr_status s =
        dr_backend_open(backend, &(dr_backend_opts){.threads = 1, .precision = precision}, &f->be, NULL, &err);
    if (!s) s = dr_nets_init(&f->nets, &c, f->be, &err);
    if (s) return s;
    dr_step_init(&f->step, &f->nets, obj);
    f->step.lr = lr;
    f->step.lr_f = lr_f;
    f->step.patches = given_patches;
    f->step.patches_arg = f;
    return set_weights(f);
}

static inline void close_fixture(fixture *f) {
    if (f->step.nets) dr_step_done(&f->step);
    if (f->nets.be) dr_nets_done(&f->nets);
    if (f->be) dr_backend_close(f->be);
    free(f->data);
}

static inline dr_status run_step(fixture *f, dr_train_metrics *ret) {
    char name[64];
    int crop = f->run->crop;
    float *a = f->data, *b = f->data + 3 * crop * crop;
    f->at++;
    snprintf(name, sizeof name, "a.%d.%d", f->at, f->run->seed);
    hg_smooth_picture(name, 3, crop, f->run->cell, a);
    snprintf(name, sizeof name, "b.%d.%d", f->at, f->run->seed);
    hg_smooth_picture(name, 3, crop, f->run->cell, b);
    return dr_step_run(&f->step, f->at - 1, 1.0, 1, crop, a, b, ret, &err);
}

#endif
