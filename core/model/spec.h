/* spec.h - what generator a file holds: from its metadata, and from its shapes where metadata is absent.
 *
 * Metadata keys: derain.arch ("resnet"), derain.ngf, derain.blocks, derain.residual ("0": tanh output; "3" or "1":
 * channels of the residual; older files say "1" for either and the shape decides), derain.name, derain.version. They
 * must agree with the shapes. Without derain.residual a last layer of one channel is a residual and one of three is a
 * tanh output. */
#ifndef DR_MODEL_SPEC_H
#define DR_MODEL_SPEC_H

#include "core/derain.h"
#include "core/model/safetensors.h"
#include "core/nn/generator.h"

typedef struct dr_spec {
    dr_generator_config cfg;
    char name[64]; /* [A-Za-z0-9._-], other characters became '-'; "" if the file does not say */
    int version;   /* 1 if the file does not say */
} dr_spec;

/* Find the generator under `prefix` ("" or "G_A."). CORRUPT bad_model. */
DR_MUSTUSE dr_status dr_spec_read(const dr_st *f, const char *prefix, dr_spec *ret, dr_error *err);

/* A generator file whole: spec, every parameter, `filt` buffers with their right values, nothing else, all finite. */
DR_MUSTUSE dr_status dr_spec_check_file(const dr_st *f, dr_spec *ret, dr_error *err);

/* What a generator file says about itself. */
void dr_spec_write(dr_st_writer *w, const dr_spec *spec);

/* The public description of a checked file; path gives the name where the file has none. */
DR_MUSTUSE dr_status dr_spec_info(const dr_st *f, const dr_spec *spec, const char *path, dr_model_info *ret,
                                  dr_error *err);

#endif
