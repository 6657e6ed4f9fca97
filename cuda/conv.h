/* conv.h - the convolutions of the module, behind one door: cuDNN on a device (conv_cudnn.c), plain loops where there
 * is none (tests/cusim/conv_naive.c). Both take NHWC tensors of one type and packed weights (O,k,k,I); channel counts
 * are multiples of 8 (the callers widen, cuda/ops_conv.c). Sums are f32; results round once to the type. */
#ifndef DR_CUDA_CONV_H
#define DR_CUDA_CONV_H

#include "core/base/status.h"
#include "core/tensor/backend.h"
#include "cuda/kern.h"

typedef struct cv_engine cv_engine; /* handle, plans by shape, workspace; one stream, one owner thread */

typedef enum cv_kind { CV_FORWARD, CV_BACKWARD_DATA, CV_BACKWARD_WEIGHTS } cv_kind;

/* Stride 1, zero padding; windows of k x k, or k x kw; x is (n,h,w,i), y is (n,h+2pad-k+1,w+2pad-kw+1,o). */
typedef struct cv_shape {
    int n, i, h, w, o, k, pad;
    dk_type type; /* DK_F32: full f32 arithmetic, no tf32 */
    int kw;       /* width of a window that is not square; 0: k */
} cv_shape;

static inline int cv_kw(cv_shape s) {
    return s.kw ? s.kw : s.k;
}

/* host: for messages. cache_path: file of tuned engines, NULL: none (never written outside cv_tune). */
dr_status cv_open(const dr_host_api *host, cudaStream_t st, const char *cache_path, cv_engine **ret, dr_error *err);
void cv_close(cv_engine *e); /* NULL is fine */

/* FORWARD: (x, w) -> y. BACKWARD_DATA: (dy, w) -> dx. BACKWARD_WEIGHTS: (x, dy) -> dw, packed as w. Overwrites out.
 * Deterministic engines only. Plans are made on first use (0.05 ms each) and kept. Errors: BACKEND, NOMEM. */
dr_status cv_run(cv_engine *e, cv_kind kind, cv_shape s, const void *a, const void *b, void *out, dr_error *err);

/* Times the candidates for a shape on the device and keeps the fastest; dw of equal plans has equal bits. Not inside
 * requests. */
dr_status cv_tune(cv_engine *e, cv_kind kind, cv_shape s, dr_error *err);
/* Writes what cv_tune found to the cache path (temporary file, rename). */
dr_status cv_save(cv_engine *e, dr_error *err);

/* Changes when work queued before and repeated now would not be what cv_run does now: the workspace has moved, or a
 * shape has another plan. */
unsigned cv_generation(const cv_engine *e);
/* From any thread. */
size_t cv_workspace_bytes(const cv_engine *e);
int cv_plan_count(const cv_engine *e);
int cv_tuned_count(const cv_engine *e); /* of these, from cv_tune or the cache */
const char *cv_version(void);           /* "cuDNN 9.19.0", "plain loops" */

#endif
