/* memory.c - device memory, and pictures and weights between the host's memory and the device's.
 *
 * Transfers go through one pinned buffer in pieces. An upload returns when the piece is on its way to the device, not
 * when it is there; the next use of the buffer waits. */
#include "cuda/gpu.h"

#include <string.h>

enum { GROW = 32 << 20 };

size_t gpu_tensor_bytes(dr_backend *be, dr_shape s) {
    return gpu_aligned(dk_bytes(gpu_map(gpu_of(be), s)));
}

dr_status gpu_alloc(dr_backend *be, size_t bytes, void **ret, dr_error *err) {
    gpu *g = gpu_of(be);
    void *p = NULL;
    cudaError_t e = cudaMalloc(&p, bytes ? bytes : 1);
    if (e == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();
        size_t left = 0, all = 0;
        (void)cudaMemGetInfo(&left, &all);
        return g->host.fail(err, DR_NOMEM, "cuda: no room for %zu MB on the device, %zu of %zu MB are free",
                            bytes >> 20, left >> 20, all >> 20);
    }
    dr_status s = gpu_check(g, e, "cudaMalloc", err);
    if (!s) *ret = p;
    return s;
}

void gpu_free(dr_backend *be, void *p) {
    (void)be;
    if (cudaFree(p)) (void)cudaGetLastError(); /* waits for the work that uses it; a failure is not the next launch's */
}

dr_status gpu_scratch(gpu *g, size_t bytes, void **ret, dr_error *err) {
    if (bytes > g->scratch_bytes) {
        size_t want = (bytes + GROW - 1) / GROW * GROW;
        if (g->scratch) (void)cudaFree(g->scratch);
        g->scratch = NULL;
        g->scratch_bytes = 0;
        dr_status s = gpu_alloc(&g->base, want, &g->scratch, err);
        if (s) return s;
        g->scratch_bytes = want;
    }
    *ret = g->scratch;
    return DR_OK;
}

dr_status gpu_sync(dr_backend *be, dr_error *err) {
    gpu *g = gpu_of(be);
    return gpu_check(g, cudaStreamSynchronize(g->stream), "cudaStreamSynchronize", err);
}

static size_t piece(const gpu *g, size_t left) {
    return left < g->staging_bytes ? left : g->staging_bytes;
}

dr_status gpu_upload_raw(dr_backend *be, const void *src, void *dst, size_t bytes, dr_error *err) {
    gpu *g = gpu_of(be);
    dr_status s = DR_OK;
    for (size_t at = 0; at < bytes && !s; at += piece(g, bytes - at)) {
        s = gpu_sync(be, err);
        if (s) break;
        memcpy(g->staging, (const char *)src + at, piece(g, bytes - at));
        s = gpu_check(
            g, cudaMemcpyAsync((char *)dst + at, g->staging, piece(g, bytes - at), cudaMemcpyHostToDevice, g->stream),
            "cudaMemcpyAsync", err);
    }
    return s;
}

dr_status gpu_download_raw(dr_backend *be, const void *src, void *dst, size_t bytes, dr_error *err) {
    gpu *g = gpu_of(be);
    dr_status s = DR_OK;
    for (size_t at = 0; at < bytes && !s; at += piece(g, bytes - at)) {
        s = gpu_check(g,
                      cudaMemcpyAsync(g->staging, (const char *)src + at, piece(g, bytes - at), cudaMemcpyDeviceToHost,
                                      g->stream),
                      "cudaMemcpyAsync", err);
        if (!s) s = gpu_sync(be, err);
        if (!s) memcpy((char *)dst + at, g->staging, piece(g, bytes - at));
    }
    return s;
}

dr_status gpu_upload(dr_backend *be, const float *nchw, dr_tensor dst, dr_error *err) {
    gpu *g = gpu_of(be);
    dk_map m = gpu_map(g, dst.shape);
    void *flat = dst.data;
    dr_status s = m.wide ? gpu_scratch(g, 4 * dk_count(m), &flat, err) : DR_OK;
    if (!s) s = gpu_upload_raw(be, nchw, flat, 4 * dk_count(m), err);
    if (s || !m.wide) return s;
    dk_from_nchw(g->stream, m, flat, dst.data);
    return gpu_launched(g, "upload", err);
}

dr_status gpu_download(dr_backend *be, dr_tensor src, float *nchw, dr_error *err) {
    gpu *g = gpu_of(be);
    dk_map m = gpu_map(g, src.shape);
    void *flat = src.data;
    if (m.wide) {
        dr_status s = gpu_scratch(g, 4 * dk_count(m), &flat, err);
        if (s) return s;
        dk_to_nchw(g->stream, m, src.data, flat);
        if ((s = gpu_launched(g, "download", err))) return s;
    }
    return gpu_download_raw(be, flat, nchw, 4 * dk_count(m), err);
}
