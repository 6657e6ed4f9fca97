/* dnnl.h - convolutions by oneDNN 2.6: the only file pair that knows its API.
 *
 * A dr_dnnl_conv is one pass of one convolution shape: the primitive, and reorders for whatever it wants in another
 * format than ours (nChw16c f32, or planar where the channels are no multiple of 16; weights OIHW). It is immutable
 * once made, keeps no buffer of its own, and runs in scratch that the caller brings. */
#ifndef DR_CPU_DNNL_H
#define DR_CPU_DNNL_H

#include "core/base/status.h"
#include <stdbool.h>
#include <stddef.h>

typedef struct dr_dnnl dr_dnnl;
typedef struct dr_dnnl_conv dr_dnnl_conv;

typedef enum dr_dnnl_pass { DR_DNNL_FWD, DR_DNNL_DX, DR_DNNL_DW } dr_dnnl_pass;

/* Compared as bytes: make it with {0} and fill it in. x is (n,ic,ih,iw), y is (n,oc,ih+2pad-k+1,iw+2pad-k+1). */
typedef struct dr_dnnl_key {
    int pass, n, ic, ih, iw, oc, k, pad;
    int bias;   /* FWD only */
    int frozen; /* FWD only: prepare weights once with dr_dnnl_conv_prepare */
    int bf16;   /* arithmetic in bf16, see dr_dnnl_bf16 */
} dr_dnnl_key;

DR_MUSTUSE dr_status dr_dnnl_open(dr_dnnl **ret, dr_error *err);
void dr_dnnl_close(dr_dnnl *d);
bool dr_dnnl_bf16(void);           /* does this CPU compute bf16 convolutions natively? */
const char *dr_dnnl_version(void); /* "2.6.3" */

DR_MUSTUSE dr_status dr_dnnl_conv_create(dr_dnnl *d, const dr_dnnl_key *key, dr_dnnl_conv **ret, dr_error *err);
void dr_dnnl_conv_destroy(dr_dnnl_conv *c);
const dr_dnnl_key *dr_dnnl_conv_key(const dr_dnnl_conv *c);
const char *dr_dnnl_conv_impl(const dr_dnnl_conv *c); /* "jit:avx512_core" */

/* Bytes of scratch that a run needs, and of prepared weights (0: a run takes the OIHW weights). */
size_t dr_dnnl_conv_scratch(const dr_dnnl_conv *c);
size_t dr_dnnl_conv_weights(const dr_dnnl_conv *c);
DR_MUSTUSE dr_status dr_dnnl_conv_prepare(const dr_dnnl_conv *c, const float *w, void *prepared, dr_error *err);

/* FWD reads x, w, b and writes y; DX reads y, w and writes x; DW reads x, y and writes w (overwriting).
 * w is OIHW, or the prepared weights of a frozen convolution. */
DR_MUSTUSE dr_status dr_dnnl_conv_run(const dr_dnnl_conv *c, float *x, void *w, const float *b, float *y, void *scratch,
                                      dr_error *err);

#endif
