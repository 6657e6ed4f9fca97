/* cudnn_graph.h - cuDNN's backend (graph) API, as much of it as one convolution needs, in plain C.
 *
 * A graph holds one convolution. The heuristics turn it into a list of configurations (an engine and its knobs), a
 * configuration is made into a plan, a plan runs. All of it but cg_execute() also works with no device at all: the
 * target then carries a description of one (cuDNN >= 9.8), which is how plans are tested on machines without a GPU.
 *
 * Every function that makes something destroys all it made on the way when it fails. Errors carry cuDNN's own last
 * message: NOMEM where memory ran out, UNSUPPORTED where cuDNN says that it does not do this, else BACKEND. */
#ifndef DR_CUDA_CUDNN_GRAPH_H
#define DR_CUDA_CUDNN_GRAPH_H

#include <cudnn.h>

#include "core/base/status.h"
#include "core/tensor/backend.h"
#include "cuda/conv_cache.h"

/* Where plans are for: a handle (a device is there) or a description of a device; the other one is NULL. Borrowed. */
typedef struct cg_target {
    const dr_host_api *host;
    cudnnHandle_t handle;
    cudnnBackendDescriptor_t device;
} cg_target;

typedef enum cg_op { CG_FORWARD, CG_BACKWARD_DATA, CG_BACKWARD_WEIGHTS } cg_op;

/* x (n,h,w,i), w (o,k,kw,i), y (n,h+2pad-k+1,w+2pad-kw+1,o), all NHWC of one type; stride 1, f32 sums. */
typedef struct cg_conv {
    int64_t n, i, h, w, o, k, kw, pad;
    cudnnDataType_t type;
} cg_conv;

/* Places of x, w and y (or their gradients) in cg_execute()'s pointers. */
enum { CG_X, CG_W, CG_Y, CG_N_TENSORS };

typedef struct cg_graph cg_graph;

typedef struct cg_configs {
    cudnnBackendDescriptor_t *d; /* configurations, the heuristic's favourite first */
    int n;
} cg_configs;

/* What an engine is like, before its plan is made. */
typedef struct cg_traits {
    bool tensor_core, nondeterministic;
    bool reduced;   /* converts inputs down or sums in less than f32 */
    bool transform; /* Winograd or FFT: right, but with rounding of its own */
    bool compiles;  /* at run time, with NVRTC: 0.2 to 1.2 s a plan */
    bool cublaslt;  /* needs a library that is not asked for otherwise */
} cg_traits;

typedef struct cg_plan {
    cudnnBackendDescriptor_t config, plan;
    cv_plan_id id;
    cg_traits traits;
    size_t workspace; /* bytes */
} cg_plan;

const char *cg_version(void); /* "cuDNN 9.19.0" */

/* A description of a device from its JSON, or of a real one; and back to JSON (the caller frees *ret). */
dr_status cg_device_from_json(const dr_host_api *host, const char *json, size_t len, cudnnBackendDescriptor_t *ret,
                              dr_error *err);
dr_status cg_device_open(const dr_host_api *host, int device, cudnnBackendDescriptor_t *ret, dr_error *err);
dr_status cg_device_to_json(const dr_host_api *host, cudnnBackendDescriptor_t device, char **ret, dr_error *err);
void cg_device_close(cudnnBackendDescriptor_t device);

dr_status cg_graph_create(const cg_target *t, cg_op op, const cg_conv *c, cg_graph **ret, dr_error *err);
void cg_graph_destroy(cg_graph *g);

/* No configuration at all is not an error: ret->n is 0. */
dr_status cg_heuristics(const cg_target *t, const cg_graph *g, cudnnBackendHeurMode_t mode, cg_configs *ret,
                        dr_error *err);
void cg_configs_done(cg_configs *c);
dr_status cg_traits_of(const cg_target *t, cudnnBackendDescriptor_t config, cg_traits *ret, dr_error *err);

/* A plan from a heuristic's configuration, which then belongs to the plan (and is destroyed if this fails); or from the
 * engine and knobs that an earlier plan's id named. */
dr_status cg_plan_from_config(const cg_target *t, cudnnBackendDescriptor_t config, cg_plan *ret, dr_error *err);
dr_status cg_plan_from_id(const cg_target *t, const cg_graph *g, const cv_plan_id *id, cg_plan *ret, dr_error *err);
void cg_plan_done(cg_plan *p);

/* Queues the plan on the handle's stream. at: device pointers by CG_X, CG_W, CG_Y. */
dr_status cg_execute(const cg_target *t, const cg_plan *p, void *const at[CG_N_TENSORS], void *workspace,
                     dr_error *err);

#endif
