/* trainer.h - public door 2 of the engine: unpaired training. Options in, steps and metrics out, checkpoints.
 *
 * dr_trainer_open() makes or resumes a training; dr_trainer_step() runs one optimisation step; the caller decides when
 * to evaluate, save and stop, so that a daemon can let inference pass between two steps. One thread at a time. The same
 * options, data, seed, backend and thread count give the same bits, across save and resume. METHOD.md sections 7 to 10
 * and 15 are the formulas. */
#ifndef DR_TRAINER_H
#define DR_TRAINER_H

#include "core/base/device.h"
#include "core/base/status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct dr_trainer dr_trainer;

typedef struct dr_train_opts {
    const char *const *rainy, *const *clean; /* folders, or text files with a path a line */
    int n_rainy, n_clean;
    const char *streaks; /* folder of rain layers, "procedural", NULL = none */
    const char *out;     /* folder for what the training leaves behind */
    const char *preset;  /* "released", "full" or "product" */
    const char *init;    /* generator or training file to start from, NULL = random */
    const char *resume;  /* checkpoint, NULL = new */
    const char *terms;   /* what the weights may be used for, kept in every file; NULL = those of init or resume */
    const char *eval_rainy, *eval_clean; /* both or none */
    const char *backend, *precision;     /* "auto"/"cpu"/"cuda"; "f32"/"bf16", NULL: f32 on the CPU, bf16 on a GPU */
    const char *plan_cache;              /* file of convolution plans tuned for this GPU; NULL or "" = none */
    int threads;
    int64_t steps;
    int crop, batch, ngf, blocks, ndf, d_layers, residual;          /* -1 = the preset's value */
    double lr, lr_f;                                                /* of G and D; of F; negative = the preset's */
    double w_gan, w_nce, w_idt, w_cycle, w_nce_extra, w_transplant; /* loss weights; negative = the preset's */
    double w_color, w_freq;   /* of broad colours against the source's, of spectra of reconstructions */
    double w_brighter, w_low; /* weights against output brighter than its input, and against broad changes */
    double
        transplant_gain; /* strength of transplanted rain: gain^-1/2 to gain, drawn a step; negative = the preset's */
    double ema_decay;    /* negative = the preset's; 0 = none */
    double ema_age;    /* steps that the average has behind it; negative = many where the generator comes from init, so
                          that it moves away from that slowly, else 0 */
    double decay_part; /* last part of the steps, whose rates fall to zero; negative = the preset's */
    double warmup;     /* steps in which the generators stand still while the other nets learn; negative = 0 */
    double streaks_share;  /* part of the rainy samples that are rendered; negative = 0.5 */
    int pool;              /* image pool size; -1 = the preset's */
    uint64_t pictures_max; /* bytes of decoded pictures to keep of each side, others are decoded again and again: the
                              bits are the same; 0 = 4 GiB */
    uint64_t seed;         /* 0 = 1, or the checkpoint's */
    int micro_batch; /* most pictures of a batch at a time, whose gradients then add up: less memory, more time, other
                        rounding; 0 = the checkpoint's, or all of them. A GPU without room for so many takes fewer */
} dr_train_opts;
void dr_train_opts_init(dr_train_opts *o);

/* New, or resumed from o->resume: then what the checkpoint fixed (nets, crop, batch, seed) must not be given otherwise,
 * and what is left open is taken from it. dr_trainer_describe() says where data, backend or threads are not those of
 * the checkpoint, so that the bits will differ from an unbroken run's. Errors: INVALID (an option), NOT_FOUND, CORRUPT
 * (files), NOMEM, BACKEND. */
DR_MUSTUSE dr_status dr_trainer_open(const dr_train_opts *o, dr_trainer **ret, dr_error *err);
void dr_trainer_close(dr_trainer *t);

#define DR_TRAIN_LOSSES_MAX 24
typedef struct dr_train_metrics {
    int64_t step, steps;                   /* done, planned */
    double lr_factor, seconds;             /* of this step's schedule; seconds of the step */
    bool skipped;                          /* the step, or its second half, was left out: no losses */
    const char *not_finite;                /* then: the loss ("adv_A"), or the net ("G_A") of the gradient; static */
    int64_t n_skipped;                     /* steps left out so far, over all lives of the training */
    int n;                                 /* losses */
    const char *name[DR_TRAIN_LOSSES_MAX]; /* static texts: "adv_A", "nce_1", ... in METHOD.md's words */
    double value[DR_TRAIN_LOSSES_MAX];
} dr_train_metrics;
/* A step with a loss or gradient that is not finite teaches nothing (core/train/step.h says what stays as it was): it
 * is counted, and the next batch has its turn. Errors: CORRUPT "diverged" where 10 in a row, or 16 of the last 64, were
 * left out (ret is filled then too); after that only the close is left. Others as they come. */
DR_MUSTUSE dr_status dr_trainer_step(dr_trainer *t, dr_train_metrics *ret, dr_error *err);
int64_t dr_trainer_skipped(const dr_trainer *t); /* steps left out so far */
/* `between` is asked between the ops of every step and sheet: while it does not return, nothing of this training runs,
 * and the result does not depend on it. False breaks the step off (CANCELLED); such a trainer can only be closed. NULL
 * = not asked. */
void dr_trainer_set_yield(dr_trainer *t, bool (*between)(void *arg), void *arg);
/* Within `between`, before it stands still: returns when the device has done what this training has queued on it, so
 * that others have it alone. */
void dr_trainer_drain(dr_trainer *t);
/* As dr_engine_device(). */
bool dr_trainer_device(const dr_trainer *t, dr_device_state *ret);
bool dr_trainer_finished(const dr_trainer *t);
int64_t dr_trainer_at(const dr_trainer *t); /* steps done */
/* Pictures of a batch that are worked on at a time; becomes smaller in a step that finds a GPU without room for them.
 */
int dr_trainer_at_once(const dr_trainer *t);

/* checkpoint.safetensors: everything, for resume. */
DR_MUSTUSE dr_status dr_trainer_save(dr_trainer *t, const char *path, dr_error *err);
/* The generator to serve (EMA where there is one), F16 or F32. */
DR_MUSTUSE dr_status dr_trainer_export(dr_trainer *t, const char *path, const char *dtype, dr_error *err);
/* All nets in F16, to fine-tune from. */
DR_MUSTUSE dr_status dr_trainer_export_all(dr_trainer *t, const char *path, dr_error *err);
/* Without a trainer: the same two files out of a checkpoint, byte for byte as a trainer at its step would write them
 * (dr_trainer_export in F16, dr_trainer_export_all); either path may be NULL. The checkpoint is checked like every file
 * from outside: header, checksum, finite values, names and shapes of all tensors that are read. It is held in memory
 * whole. NOT_FOUND where it is not there; CORRUPT bad_model, bad_checkpoint; where it fails no file is left behind. */
DR_MUSTUSE dr_status dr_checkpoint_export(const char *path, const char *weights, const char *train, dr_error *err);
/* Contact sheet PNG of the current batch's domain: rows of (input, output) and of (clean, clean through the net). */
DR_MUSTUSE dr_status dr_trainer_sheet(dr_trainer *t, const char *path, dr_error *err);
/* Contrast of the outputs over that of their inputs (standard deviations) on the rainy half of the last sheet; negative
 * before there is one. */
double dr_trainer_spread(const dr_trainer *t);
/* Without a trainer: a PNG of n rainy and n clean samples as the first batches would have them. */
DR_MUSTUSE dr_status dr_train_preview(const dr_train_opts *o, int n, const char *path, dr_error *err);
/* What a training with these options will hold at most, from its shapes alone: nothing of it is allocated, only the
 * header and sizes of o->init or o->resume are read. Sums are of host memory where the backend is the CPU. */
typedef struct dr_train_size {
    uint64_t nets;         /* the six nets: weights, gradients, moments, average */
    uint64_t step;         /* one step: activations, gradients on their way, scratch of the kernels */
    uint64_t sheet;        /* of a sample sheet, beside a step's */
    uint64_t file;         /* the checkpoint or weights that it begins with, while they are read */
    uint64_t device;       /* of a GPU's memory: nets and a step, whole or in parts as o->micro_batch says, at least */
    uint64_t device_least; /* the same one picture at a time */
    uint64_t host;         /* batches made ahead, image pools, buffers of files: host memory on every backend */
    uint64_t total;        /* on the CPU, without the pictures that are kept (pictures_max) */
} dr_train_size;
DR_MUSTUSE dr_status dr_train_plan(const dr_train_opts *o, dr_train_size *ret, dr_error *err);
/* Time `runs` steps of the objective of METHOD.md section 9 on made-up pictures; o needs only the sizes and the
 * backend. */
DR_MUSTUSE dr_status dr_trainer_bench(const dr_train_opts *o, int runs, double *ret_median_ms, double *ret_min_ms,
                                      dr_error *err);
const char *dr_trainer_describe(const dr_trainer *t); /* one line: nets, objective, pictures found, device */

#endif
