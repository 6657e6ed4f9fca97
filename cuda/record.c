/* record.c - runs recorded as CUDA graphs: a launch costs the host 2 to 4 us, a node of a graph less than one.
 *
 * The stream is captured while the entries queue their kernels and convolutions as ever; their arguments, addresses in
 * scratch memory and workspace included, go into the graph. Where one of those has moved since, the recording is of no
 * use. Nothing allocates while recording: gpu_alloc, gpu_scratch and the workspace refuse, and the caller runs plainly.
 */
#include "cuda/gpu.h"

#include <stdlib.h>

typedef struct recording {
    cudaGraphExec_t exec;
    unsigned scratch, conv; /* generations that it was made with */
} recording;

static void destroy(void *p) {
    recording *r = p;
    if (r->exec) (void)cudaGraphExecDestroy(r->exec); /* one that runs ends first */
    free(r);
}

dr_status gpu_record_begin(dr_backend *be, dr_error *err) {
    gpu *g = gpu_of(be);
    if (g->recording) return g->host.fail(err, DR_INTERNAL, "cuda: recording already");
    if (cv_is_tuning(g->conv)) return g->host.fail(err, DR_BACKEND, "cuda: no recording while plans are tuned");
    dr_status s = gpu_launched(g, "record_begin", err);
    /* thread-local: what other threads do with other instances does not disturb */
    if (!s)
        s = gpu_check(g, cudaStreamBeginCapture(g->stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture",
                      err);
    g->recording = !s;
    return s;
}

static dr_status make(gpu *g, cudaGraph_t graph, dr_slot *ret, dr_error *err) {
    recording *r = calloc(1, sizeof *r);
    if (!r) return g->host.fail(err, DR_NOMEM, "cuda: no memory for a recording");
    dr_status s = gpu_check(g, cudaGraphInstantiate(&r->exec, graph, 0), "cudaGraphInstantiate", err);
    if (s) {
        r->exec = NULL;
        destroy(r);
        return s;
    }
    r->scratch = g->generation;
    r->conv = cv_generation(g->conv);
    *ret = (dr_slot){r, destroy};
    return DR_OK;
}

dr_status gpu_record_end(dr_backend *be, dr_slot *ret, dr_error *err) {
    gpu *g = gpu_of(be);
    cudaGraph_t graph = NULL;
    if (!g->recording) return g->host.fail(err, DR_INTERNAL, "cuda: nothing is recorded");
    g->recording = false;
    dr_status s = gpu_check(g, cudaStreamEndCapture(g->stream, &graph), "cudaStreamEndCapture", ret ? err : NULL);
    if (!s && ret) s = make(g, graph, ret, err);
    if (graph) (void)cudaGraphDestroy(graph);
    return ret ? s : DR_OK;
}

dr_status gpu_replay(dr_backend *be, const dr_slot *slot, bool *ret_done, dr_error *err) {
    gpu *g = gpu_of(be);
    const recording *r = slot->p;
    *ret_done = false;
    dr_status s = gpu_launched(g, "replay", err);
    if (s || r->scratch != g->generation || r->conv != cv_generation(g->conv)) return s;
    s = gpu_check(g, cudaGraphLaunch(r->exec, g->stream), "cudaGraphLaunch", err);
    *ret_done = !s;
    return s;
}
