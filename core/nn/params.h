/* params.h - the named parameters of one network, in one block of device memory, with gradients in a second one.
 *
 * A network declares its parameters in the order of PyTorch's state dict, then the block is made; offsets are rounded
 * to 16 floats and the gaps stay zero, so optimizers treat the block as one flat array. */
#ifndef DR_NN_PARAMS_H
#define DR_NN_PARAMS_H

#include "core/grad/param.h"
#include "core/tensor/backend.h"
#include <stdint.h>

typedef struct dr_params {
    dr_param *p;
    int n, cap;
    size_t floats; /* of the whole block, gaps included */
    dr_backend *be;
    float *value, *grad; /* device; grad NULL where none was asked for */
    dr_status status;    /* sticky: a declaration that failed */
} dr_params;

/* Index of the new parameter; -1 after a failure, which dr_params_make reports. */
int dr_params_declare(dr_params *ps, dr_shape shape, const char *fmt, ...) DR_PRINTF(3, 4);
/* Take device memory, zeroed. be NULL: only the description (shapes and names), for planning. */
DR_MUSTUSE dr_status dr_params_make(dr_params *ps, dr_backend *be, bool with_grad, dr_error *err);
void dr_params_done(dr_params *ps);

static inline size_t dr_param_count(const dr_param *p) {
    return dr_shape_count(p->shape);
}
size_t dr_params_total(const dr_params *ps);               /* parameters without the gaps */
size_t dr_params_offset(const dr_params *ps, int i);       /* of parameter i in a block, in floats */
int dr_params_find(const dr_params *ps, const char *name); /* -1: not there */
void dr_params_set_trainable(dr_params *ps, bool on);

DR_MUSTUSE dr_status dr_params_upload(dr_params *ps, int i, const float *src, dr_error *err);
DR_MUSTUSE dr_status dr_params_download(const dr_params *ps, int i, float *dst, dr_error *err);
DR_MUSTUSE dr_status dr_params_zero_grad(dr_params *ps, dr_error *err);

/* Normal numbers of deviation gain*sqrt(2/(fan_in+fan_out)) for weights, 0 for biases (METHOD.md section 5). Each
 * tensor has its own stream of (seed, net, name): the same numbers whatever else the model holds. */
DR_MUSTUSE dr_status dr_params_init_xavier(dr_params *ps, uint64_t seed, const char *net, double gain, dr_error *err);

#endif
