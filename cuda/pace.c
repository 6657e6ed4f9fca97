/* pace.c - how far the host may run ahead of the device (entry pace), so that others on it wait for a few milliseconds
 * at most and not for all that a long work has queued.
 *
 * A call only queues its work. Events cut the stream into slices of a few calls; where one is cut, the slice before it
 * must have ended. So what is queued is the rest of one slice and the next, and the device has work while the host
 * sleeps (blocking events: a waiting thread burns no core).
 *
 * How many calls make a slice follows from how long slices took: as many as take SLICE_MS, and so few that SLICE_MAX_MS
 * hold even if they are as slow as the slowest of late, which is forgotten slowly: a training has fast and slow
 * stretches that come again in every step. Time counts only where the device had work throughout; where it was faster
 * than the host the queue is short anyhow, and nothing is waited for. A slice at most doubles. */
#include "cuda/gpu.h"

enum { CALLS_MAX = 32 };
static const float SLICE_MS = 2.0f, SLICE_MAX_MS = 2.5f, KEEP = 0.9995f;

static dr_status make_events(gpu *g, dr_error *err) {
    dr_status s = DR_OK;
    for (int i = 0; i < GPU_N_SLICES && !s; i++)
        if (!g->slices[i].end)
            s = gpu_check(g, cudaEventCreateWithFlags(&g->slices[i].end, cudaEventBlockingSync),
                          "cudaEventCreateWithFlags", err);
    return s;
}

/* Is the device not yet there? Not an error, though the runtime may note it as one. */
static dr_status is_pending(gpu *g, cudaEvent_t ev, bool *ret, dr_error *err) {
    cudaError_t e = cudaEventQuery(ev);
    *ret = e == cudaErrorNotReady;
    if (!*ret) return gpu_check(g, e, "cudaEventQuery", err);
    (void)cudaGetLastError();
    return DR_OK;
}

static int clamped(float calls, int most) {
    return calls < 1 ? 1 : calls > (float)most ? most : (int)calls;
}

/* A slice is over that took so long. */
static void learn(gpu *g, const gpu_slice *s, float ms) {
    const float call = ms / (float)s->calls;
    const int most = 2 * g->slice_calls < CALLS_MAX ? 2 * g->slice_calls : CALLS_MAX;
    if (!(ms > 0)) return; /* below the clock's resolution */
    g->slowest_ms *= KEEP;
    if (s->busy && call > g->slowest_ms) g->slowest_ms = call;
    if (!s->busy && ms > SLICE_MS) return; /* the device was idle in between: nobody knows how long */
    g->slice_calls = clamped(SLICE_MS / call, most);
    if (g->slowest_ms > 0) g->slice_calls = clamped(SLICE_MAX_MS / g->slowest_ms, g->slice_calls);
}

static dr_status cut(gpu *g, dr_error *err) {
    gpu_slice *now = &g->slices[g->n_slices % GPU_N_SLICES], *last = &g->slices[(g->n_slices + 2) % GPU_N_SLICES],
              *before = &g->slices[(g->n_slices + 1) % GPU_N_SLICES];
    bool pending = false;
    float ms = 0;
    dr_status s = make_events(g, err);
    if (!s && g->n_slices >= 1) s = is_pending(g, last->end, &pending, err);
    if (!s) s = gpu_check(g, cudaEventRecord(now->end, g->stream), "cudaEventRecord", err);
    if (s) return s;
    now->calls = g->n_calls;
    now->busy = pending; /* all of it was queued before the device came to it */
    g->n_calls = 0;
    g->n_slices++;
    if (pending) s = gpu_check(g, cudaEventSynchronize(last->end), "cudaEventSynchronize", err);
    if (s || g->n_slices < 3) return s;
    s = gpu_check(g, cudaEventElapsedTime(&ms, before->end, last->end), "cudaEventElapsedTime", err);
    if (!s) learn(g, last, ms);
    return s;
}

dr_status gpu_pace(dr_backend *be, dr_error *err) {
    gpu *g = gpu_of(be);
    if (g->recording || ++g->n_calls < g->slice_calls) return DR_OK;
    return cut(g, err);
}

void gpu_pace_close(gpu *g) {
    for (int i = 0; i < GPU_N_SLICES; i++)
        if (g->slices[i].end) (void)cudaEventDestroy(g->slices[i].end);
}
