/* conv_host.c - the plain loops once more, under other names, so that they stand beside cuDNN in one program. */
#define cv_open            host_cv_open
#define cv_close           host_cv_close
#define cv_run             host_cv_run
#define cv_tune            host_cv_tune
#define cv_save            host_cv_save
#define cv_generation      host_cv_generation
#define cv_workspace_bytes host_cv_workspace_bytes
#define cv_plan_count      host_cv_plan_count
#define cv_tuned_count     host_cv_tuned_count
#define cv_version         host_cv_version
#include <cuda_runtime_api.h>
#include <stddef.h>
/* of tests/cusim; never called here, since no stream is captured */
void cusim_enqueue(cudaStream_t st, void (*fn)(void *), const void *arg, size_t arg_bytes) __attribute__((weak));
#include "tests/cusim/conv_naive.c"
