/* state.h - training state in files: what a checkpoint holds and how it comes back.
 *
 * Tensors: "G_A.model.1.weight" ... for the six nets, "adam_g.m.G_A.model.1.weight", "adam_d.v.D_A....", "adam_f...."
 * for the Adam states (the group by the kind of net), "ema.G_A....", "pool_a", "pool_b" for image pools. Metadata:
 * texts only; no time, no host, no path, so that equal runs give equal files. */
#ifndef DR_TRAIN_STATE_H
#define DR_TRAIN_STATE_H

#include "core/model/safetensors.h"
#include "core/train/image_pool.h"
#include "core/train/nets.h"
#include "core/train/preset.h"
#include "core/train/skips.h"

/* What a checkpoint says about its run beside the tensors. */
typedef struct dr_state_info {
    int64_t step;
    dr_skips skips;
    char fingerprint[65]; /* of the data */
    char device[160];     /* backend, instruction set and threads */
} dr_state_info;

/* Options that are still open take the checkpoint's value; nets, crop, batch, seed and preset that differ are INVALID.
 * preset: room for the preset's name, which o->preset then points to. */
DR_MUSTUSE dr_status dr_state_options(const dr_st *f, dr_train_opts *o, char preset[32], dr_state_info *ret,
                                      dr_error *err);
DR_MUSTUSE dr_status dr_state_load(const dr_st *f, dr_nets *nets, dr_error *err);
/* The pools of the checkpoint; nothing where they are off. */
DR_MUSTUSE dr_status dr_state_load_pools(const dr_st *f, dr_image_pool *a, dr_image_pool *b, dr_error *err);
/* Nets only: from a training file or checkpoint (six nets, what is missing stays), or a bare generator (G_A only).
 * Sizes must fit. *ret_nets = how many nets came. */
DR_MUSTUSE dr_status dr_state_init(const dr_st *f, dr_nets *nets, int *ret_nets, dr_error *err);
/* Sizes of the generator in a file: where o leaves ngf, blocks, residual, ndf or d_layers open they are taken from it.
 */
void dr_state_sizes(const dr_st *f, dr_train_opts *o);

DR_MUSTUSE dr_status dr_state_save(dr_nets *nets, const dr_image_pool *a, const dr_image_pool *b,
                                   const dr_train_opts *o, const dr_state_info *info, const char *path, dr_error *err);
/* The generator to serve: the moving average where there is one. */
DR_MUSTUSE dr_status dr_state_export(dr_nets *nets, const dr_train_opts *o, int64_t step, dr_st_dtype dtype,
                                     const char *path, dr_error *err);
/* All six in F16, G_A from the moving average. */
DR_MUSTUSE dr_status dr_state_export_all(dr_nets *nets, const dr_train_opts *o, int64_t step, const char *path,
                                         dr_error *err);

/* What every kind of file says of its nets and options; kind: "checkpoint", "generator" or "training". */
void dr_state_about(dr_st_writer *w, const dr_train_opts *o, int64_t step, const char *kind);
/* Logical dims of a parameter as the files have them: 4 for convolutions, 2 for linear layers, 1 for biases. The rank.
 */
int dr_state_dims(const dr_param *p, int64_t d[4]);

#endif
