/* weights.h - between a network's parameters on the device and named tensors in a file.
 *
 * A tensor's name is a prefix ("" in a generator file, "G_A." in a training file, "adam_g.m." ...) and the parameter's
 * PyTorch name. Convolutions are (O,I,k,k), linear layers (O,I), biases (O) in the file. A `block` is device memory
 * laid out like the parameters' own (core/nn/params.h): moments of Adam and averages are stored with the same calls. */
#ifndef DR_MODEL_WEIGHTS_H
#define DR_MODEL_WEIGHTS_H

#include "core/model/safetensors.h"
#include "core/nn/params.h"

/* Read every parameter of ps from f into block (NULL: the parameters themselves). CORRUPT bad_model names a tensor that
 * is missing or has another shape; values that are not finite are refused. */
DR_MUSTUSE dr_status dr_weights_load(const dr_st *f, const char *prefix, dr_params *ps, float *block, dr_error *err);

/* Names and shapes only, without a backend (ps may be a mere description). */
DR_MUSTUSE dr_status dr_weights_check(const dr_st *f, const char *prefix, const dr_params *ps, dr_error *err);

/* Add every parameter of ps to w, values from block (NULL: the parameters themselves); they are downloaded when the
 * file is saved, so ps and block must live until then. Errors stick to w. */
void dr_weights_save(dr_st_writer *w, const char *prefix, const dr_params *ps, const float *block, dr_st_dtype dtype);

#endif
