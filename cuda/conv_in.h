/* conv_in.h - the inside of cuda/conv.h's engine on cuDNN, shared by conv_cudnn.c and conv_tune.c. */
#ifndef DR_CUDA_CONV_IN_H
#define DR_CUDA_CONV_IN_H

#include "cuda/conv_cudnn.h"
#include "cuda/conv_file.h"

#include <stdatomic.h>

typedef struct cv_key {
    cv_kind kind;
    cv_shape s;
} cv_key;

typedef struct cv_entry {
    bool used;
    cv_key k;
    cg_plan plan;
    bool tuned; /* from the file or from timing; else candidate number n_failed */
    bool tried; /* timed already, with whatever result */
    int n_failed;
} cv_entry;

struct cv_engine {
    const dr_host_api *host;
    cudaStream_t st;
    cg_target target;
    cv_entry *table; /* open addressing; cap is a power of two, at most half full */
    int cap;
    atomic_int n, n_tuned; /* read from other threads too */
    void *workspace;
    atomic_size_t workspace_bytes;
    unsigned generation; /* see cv_generation */
    bool tuning;
    int n_tuned_now; /* since cv_set_tuning(true) */
    cv_file file;
};

void cv_debug(const cv_engine *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
dr_status cv_cuda_fail(const cv_engine *e, cudaError_t c, const char *doing, dr_error *err);

/* The entry of a shape, with a plan; valid until the next call. */
dr_status cv_find(cv_engine *e, cv_kind kind, cv_shape s, cv_entry **ret, dr_error *err);
/* Queues a plan, after the workspace has grown for it. */
dr_status cv_execute(cv_engine *e, const cg_plan *p, cv_kind kind, const void *a, const void *b, void *out,
                     dr_error *err);
/* Times the candidates of an entry, with the operands of cv_run(), and gives it the fastest. A shape of which no
 * candidate can be timed keeps its plan, which is no error; a device that failed is one. */
dr_status cv_tune_entry(cv_engine *e, cv_entry *at, void *const buf[3], dr_error *err);

#endif
