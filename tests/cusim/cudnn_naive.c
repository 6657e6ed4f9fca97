/* cudnn_naive.c - stands where cuda/cudnn_graph.c and cuDNN stand on a device, so that the module's choice of plans,
 * its tuning and its file of tuned plans run in emulation as they are. Its engines compute with plain loops, and are
 * what a library's engines can be: good and bad, with knobs and without. Which is fast is told by the emulated clock
 * alone (cusim_pass), so that tuning finds the same on every machine. A plan's work is done when it returns, unless the
 * stream is being captured: then it goes into the graph.
 *
 *   11  what the heuristic puts first: half as fast as it could be
 *   12  the fast one; knob 2 says from which end it sums (1: from the last tap), so that its results differ in rounding
 *   13  not deterministic: must never run
 *   14  looks good, and fails when it runs
 *   15  wants more workspace than may be had: must never run
 *   16  finds no plan
 *   21  only in the fallback list; compiles at run time (a lower tier) */
#include "cuda/conv_select.h"
#include "cuda/cudnn_graph.h"
#include "tests/cusim/conv_naive.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KNOB_END = 2 };

typedef struct engine {
    int id;
    bool nondeterministic, compiles, fails, no_plan, knob;
    double slowness;
    size_t workspace;
} engine;

static const engine first[] = {{.id = 16, .no_plan = true, .slowness = 1},
                               {.id = 13, .nondeterministic = true, .slowness = 0.1},
                               {.id = 11, .slowness = 2},
                               {.id = 15, .slowness = 0.1, .workspace = CV_MAX_WORKSPACE + 1},
                               {.id = 14, .fails = true, .slowness = 0.1},
                               {.id = 12, .knob = true, .slowness = 1, .workspace = 4096}},
                    fallback[] = {{.id = 21, .compiles = true, .slowness = 0.1}};
enum { N_FIRST = sizeof first / sizeof *first, N_FALLBACK = sizeof fallback / sizeof *fallback };

struct cudnnContext {
    cudaStream_t st;
};

/* A configuration, and the plan made of it. */
struct naive_config {
    const engine *e;
    cv_kind kind;
    cv_shape s;
    int from_end; /* the knob */
};

struct cg_graph {
    cv_kind kind;
    cv_shape s;
};

/* ---- the library --------------------------------------------------------------------------------------------------
 */

size_t cudnnGetVersion(void) {
    return 90000;
}
cudnnStatus_t cudnnCreate(cudnnHandle_t *handle) {
    *handle = calloc(1, sizeof **handle);
    return *handle ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_NOT_INITIALIZED;
}
cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) {
    free(handle);
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t st) {
    handle->st = st;
    return CUDNN_STATUS_SUCCESS;
}
const char *cudnnGetErrorString(cudnnStatus_t status) {
    return status ? "CUDNN_STATUS_NOT_INITIALIZED" : "CUDNN_STATUS_SUCCESS";
}
void cudnnGetLastErrorString(char *message, size_t max_size) {
    if (max_size) *message = 0;
}
const char *cg_version(void) {
    return "plain loops";
}

/* ---- cudnn_graph.h ------------------------------------------------------------------------------------------------
 */

dr_status cg_graph_create(const cg_target *t, cg_op op, const cg_conv *c, cg_graph **ret, dr_error *err) {
    cg_graph *g = calloc(1, sizeof *g);
    if (!g) return t->host->fail(err, DR_NOMEM, "out of memory for a graph");
    g->kind = op == CG_FORWARD ? CV_FORWARD : op == CG_BACKWARD_DATA ? CV_BACKWARD_DATA : CV_BACKWARD_WEIGHTS;
    g->s = (cv_shape){.n = (int)c->n,
                      .i = (int)c->i,
                      .h = (int)c->h,
                      .w = (int)c->w,
                      .o = (int)c->o,
                      .k = (int)c->k,
                      .kw = (int)c->kw,
                      .pad = (int)c->pad,
                      .type = c->type == CUDNN_DATA_BFLOAT16 ? DK_BF16
                              : c->type == CUDNN_DATA_HALF   ? DK_F16
                                                             : DK_F32};
    *ret = g;
    return DR_OK;
}
void cg_graph_destroy(cg_graph *g) {
    free(g);
}

static cudnnBackendDescriptor_t config_of(const cg_graph *g, const engine *e, int from_end) {
    struct naive_config *c = calloc(1, sizeof *c);
    if (c) *c = (struct naive_config){e, g->kind, g->s, from_end};
    return c;
}

dr_status cg_heuristics(const cg_target *t, const cg_graph *g, cudnnBackendHeurMode_t mode, cg_configs *ret,
                        dr_error *err) {
    const engine *from = mode == CUDNN_HEUR_MODE_A ? first : fallback;
    const int n = mode == CUDNN_HEUR_MODE_A ? N_FIRST : N_FALLBACK;
    cg_configs r = {.d = calloc((size_t)n, sizeof(cudnnBackendDescriptor_t))};
    for (; r.d && r.n < n; r.n++)
        if (!(r.d[r.n] = config_of(g, &from[r.n], from[r.n].knob))) break;
    if (r.n < n) {
        cg_configs_done(&r);
        return t->host->fail(err, DR_NOMEM, "out of memory for configurations");
    }
    *ret = r;
    return DR_OK;
}
void cg_configs_done(cg_configs *c) {
    for (int i = 0; i < c->n; i++) free(c->d[i]);
    free(c->d);
    *c = (cg_configs){0};
}

dr_status cg_traits_of(const cg_target *t, cudnnBackendDescriptor_t config, cg_traits *ret, dr_error *err) {
    (void)t, (void)err;
    *ret = (cg_traits){.tensor_core = config->s.type != DK_F32,
                       .nondeterministic = config->e->nondeterministic,
                       .compiles = config->e->compiles};
    return DR_OK;
}

dr_status cg_plan_from_config(const cg_target *t, cudnnBackendDescriptor_t config, cg_plan *ret, dr_error *err) {
    const engine *e = config->e;
    if (e->no_plan) {
        free(config);
        return t->host->fail(err, DR_UNSUPPORTED, "engine %d has no plan for this", e->id);
    }
    cg_plan p = {.config = config, .plan = config, .id = {.engine = e->id}, .workspace = e->workspace};
    if (e->knob) {
        p.id.n_knobs = 1;
        p.id.knob[0].type = KNOB_END;
        p.id.knob[0].value = config->from_end;
    }
    (void)cg_traits_of(t, config, &p.traits, err);
    *ret = p;
    return DR_OK;
}

dr_status cg_plan_from_id(const cg_target *t, const cg_graph *g, const cv_plan_id *id, cg_plan *ret, dr_error *err) {
    const engine *e = NULL;
    for (int i = 0; i < N_FIRST; i++)
        if (first[i].id == id->engine) e = &first[i];
    for (int i = 0; i < N_FALLBACK; i++)
        if (fallback[i].id == id->engine) e = &fallback[i];
    if (!e) return t->host->fail(err, DR_UNSUPPORTED, "there is no engine %d", id->engine);
    const bool knobs =
        e->knob ? id->n_knobs == 1 && id->knob[0].type == KNOB_END && id->knob[0].value >= 0 && id->knob[0].value <= 1
                : id->n_knobs == 0;
    if (!knobs) return t->host->fail(err, DR_UNSUPPORTED, "engine %d has no such knobs", id->engine);
    cudnnBackendDescriptor_t c = config_of(g, e, e->knob ? (int)id->knob[0].value : 0);
    return c ? cg_plan_from_config(t, c, ret, err) : t->host->fail(err, DR_NOMEM, "out of memory for a plan");
}

void cg_plan_done(cg_plan *p) {
    free(p->config);
    *p = (cg_plan){0};
}

typedef struct job {
    const dr_host_api *host;
    struct naive_config c;
    const void *a, *b;
    void *out, *workspace;
} job;

/* A billion operations are a millisecond. */
static dr_status work(const job *j, dr_error *err) {
    const cv_shape s = j->c.s;
    const double oh = s.h + 2 * s.pad - s.k + 1, ow = s.w + 2 * s.pad - cv_kw(s) + 1;
    if (j->workspace) memset(j->workspace, 0x5a, j->c.e->workspace); /* it must be there */
    dr_status st = naive_conv(j->host, j->c.kind, s, j->c.from_end, j->a, j->b, j->out, err);
    cusim_pass(j->c.e->slowness * (2e-6 + 2e-12 * s.n * oh * ow * s.i * s.o * s.k * cv_kw(s)));
    return st;
}

static void queued(void *arg) {
    if (!work(arg, NULL)) return;
    fprintf(stderr, "cudnn_naive: a recorded convolution failed\n");
    abort();
}

dr_status cg_execute(const cg_target *t, const cg_plan *p, void *const at[CG_N_TENSORS], void *workspace,
                     dr_error *err) {
    const struct naive_config *c = p->config;
    if (c->e->nondeterministic || c->e->workspace > CV_MAX_WORKSPACE || (c->e->workspace && !workspace)) {
        fprintf(stderr, "cudnn_naive: engine %d must not run so\n", c->e->id);
        abort();
    }
    if (c->e->fails) return t->host->fail(err, DR_BACKEND, "engine %d does not run here", c->e->id);
    const job j = {.host = t->host,
                   .c = *c,
                   .a = c->kind == CV_BACKWARD_DATA ? at[CG_Y] : at[CG_X],
                   .b = c->kind == CV_BACKWARD_WEIGHTS ? at[CG_Y] : at[CG_W],
                   .out = c->kind == CV_FORWARD         ? at[CG_Y]
                          : c->kind == CV_BACKWARD_DATA ? at[CG_X]
                                                        : at[CG_W],
                   .workspace = c->e->workspace ? workspace : NULL};
    enum cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
    (void)cudaStreamIsCapturing(t->handle->st, &capture);
    if (capture == cudaStreamCaptureStatusNone) {
        cusim_spend(t->handle->st);
        return work(&j, err);
    }
    cusim_enqueue(t->handle->st, queued, &j, sizeof j);
    return DR_OK;
}
