/* conv.h - the convolutions of the module, behind one door: cuDNN's plans (conv_cudnn.c), tuned where that was asked
 * for (conv_tune.c). Where there is no device, plain loops stand for the library (tests/cusim/cudnn_naive.c). They take
 * NHWC tensors of one type and packed weights (O,k,k,I); channel counts are multiples of 8 (the callers widen,
 * cuda/ops_conv.c). Sums are f32; results round once to the type. */
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

/* host: for messages. cache_path: file of tuned plans, NULL: none (only cv_save writes it). */
dr_status cv_open(const dr_host_api *host, cudaStream_t st, const char *cache_path, cv_engine **ret, dr_error *err);
void cv_close(cv_engine *e); /* NULL is fine */

/* FORWARD: (x, w) -> y. BACKWARD_DATA: (dy, w) -> dx. BACKWARD_WEIGHTS: (x, dy) -> dw, packed as w. Overwrites out.
 * Deterministic engines only. Plans are made on first use (0.05 ms each) and kept. Errors: BACKEND, NOMEM. */
dr_status cv_run(cv_engine *e, cv_kind kind, cv_shape s, const void *a, const void *b, void *out, dr_error *err);

/* Times the candidates for a shape on the device, on random numbers, and keeps the fastest. Not inside requests. */
dr_status cv_tune(cv_engine *e, cv_kind kind, cv_shape s, dr_error *err);
/* While on, cv_run() does the same with its operands before the first use of a shape that is not tuned yet. */
void cv_set_tuning(cv_engine *e, bool on);
bool cv_is_tuning(const cv_engine *e);
int cv_tuned_now(const cv_engine *e); /* shapes tuned since it was last set on */
/* Writes what tuning found to the cache path (temporary file, rename); without a path, or news, nothing. IO, NOMEM. */
dr_status cv_save(cv_engine *e, dr_error *err);

/* Lines of the file that count here, as it was opened; *ret_sum tells equal sets from others. */
int cv_known(const cv_engine *e, uint32_t *ret_sum);

/* Is a forward convolution of this shape done faster with the columns of its window as channels (ops_conv_in.c)? 1 or 0
 * as it was found, by this engine or by the file; -1: nobody knows. */
int cv_columns(const cv_engine *e, cv_shape s);
dr_status cv_set_columns(cv_engine *e, cv_shape s, bool yes, dr_error *err);

/* Changes when work queued before and repeated now would not be what cv_run does now: the workspace has moved, or a
 * shape has another plan. */
unsigned cv_generation(const cv_engine *e);
/* Gives the workspace back, after the work that uses it; the next cv_run takes what it needs. */
void cv_trim(cv_engine *e);
/* From any thread. */
size_t cv_workspace_bytes(const cv_engine *e);
int cv_plan_count(const cv_engine *e);
int cv_tuned_count(const cv_engine *e); /* of these, from cv_tune or the cache */
const char *cv_version(void);           /* "cuDNN 9.19.0", "plain loops" */

#endif
