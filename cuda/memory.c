/* memory.c - device memory, and pictures and weights between the host's memory and the device's.
 *
 * Transfers go through a ring of pinned pieces: while the bus moves one, the host copies the next. An upload returns
 * when its pieces are on their way to the device, not when they are there; the next use of a place in the ring waits.
 */
#include "cuda/gpu.h"

#include <stdlib.h>
#include <string.h>

enum { GROW = 32 << 20 };

size_t gpu_tensor_bytes(dr_backend *be, dr_shape s) {
    return gpu_aligned(dk_bytes(gpu_map(gpu_of(be), s)));
}

static bool note_block(gpu *g, void *p, size_t bytes) {
    if (g->n_blocks == g->cap_blocks) {
        const int cap = g->cap_blocks ? 2 * g->cap_blocks : 64;
        void *more = realloc(g->blocks, (size_t)cap * sizeof *g->blocks);
        if (!more) return false;
        g->blocks = more;
        g->cap_blocks = cap;
    }
    g->blocks[g->n_blocks].p = p;
    g->blocks[g->n_blocks++].bytes = bytes;
    g->allocated += bytes;
    return true;
}

/* Scratch memory and workspace, which grow again where they are needed. */
static void give_back(gpu *g, bool scratch_too) {
    if (g->scratch && scratch_too) {
        g->generation++;
        gpu_free(&g->base, g->scratch); /* waits for the work that uses it */
        g->scratch = NULL;
        g->scratch_bytes = 0;
    }
    cv_trim(g->conv);
}

void gpu_trim(dr_backend *be) {
    gpu *g = gpu_of(be);
    if (!g->recording) give_back(g, true);
}

static dr_status take(gpu *g, size_t bytes, bool scratch_too, void **ret, dr_error *err) {
    void *p = NULL;
    if (g->recording) return g->host.fail(err, DR_BACKEND, "cuda: memory was asked for while recording");
    cudaError_t e = cudaMalloc(&p, bytes ? bytes : 1);
    if (e == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();
        give_back(g, scratch_too);
        p = NULL;
        e = cudaMalloc(&p, bytes ? bytes : 1);
    }
    if (e == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();
        size_t left = 0, all = 0;
        (void)cudaMemGetInfo(&left, &all);
        return g->host.fail(err, DR_NOMEM, "cuda: no room for %zu MB on the device, %zu of %zu MB are free",
                            bytes >> 20, left >> 20, all >> 20);
    }
    dr_status s = gpu_check(g, e, "cudaMalloc", err);
    if (s) return s;
    if (!note_block(g, p, bytes)) {
        (void)cudaFree(p);
        return g->host.fail(err, DR_NOMEM, "cuda: no memory for the list of allocations");
    }
    *ret = p;
    return DR_OK;
}

dr_status gpu_alloc(dr_backend *be, size_t bytes, void **ret, dr_error *err) {
    return take(gpu_of(be), bytes, true, ret, err);
}

dr_status gpu_alloc_beside(gpu *g, size_t bytes, void **ret, dr_error *err) {
    return take(g, bytes, false, ret, err);
}

void gpu_free(dr_backend *be, void *p) {
    gpu *g = gpu_of(be);
    for (int i = 0; i < g->n_blocks; i++)
        if (g->blocks[i].p == p) {
            g->allocated -= g->blocks[i].bytes;
            g->blocks[i] = g->blocks[--g->n_blocks];
            break;
        }
    if (cudaFree(p)) (void)cudaGetLastError(); /* waits for the work that uses it; a failure is not the next launch's */
}

dr_status gpu_scratch(gpu *g, size_t bytes, void **ret, dr_error *err) {
    if (bytes > g->scratch_bytes) {
        if (g->recording) return g->host.fail(err, DR_BACKEND, "cuda: more scratch memory while recording");
        g->generation++;
        size_t want = (bytes + GROW - 1) / GROW * GROW;
        if (g->scratch) gpu_free(&g->base, g->scratch);
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
    if (!g->idle) return gpu_check(g, cudaStreamSynchronize(g->stream), "cudaStreamSynchronize", err);
    dr_status s = gpu_check(g, cudaEventRecord(g->idle, g->stream), "cudaEventRecord", err);
    return s ? s : gpu_check(g, cudaEventSynchronize(g->idle), "cudaEventSynchronize", err);
}

/* From any thread: it sets the device, which the runtime keeps for each of them. */
dr_status gpu_info(dr_backend *be, dr_device_info *ret, dr_error *err) {
    gpu *g = gpu_of(be);
    size_t left = 0, all = 0;
    dr_status s = gpu_check(g, cudaSetDevice(g->device), "cudaSetDevice", err);
    if (!s) s = gpu_check(g, cudaMemGetInfo(&left, &all), "cudaMemGetInfo", err);
    if (s) return s;
    *ret = (dr_device_info){.memory_used = g->allocated + cv_workspace_bytes(g->conv),
                            .memory_free = left,
                            .memory_all = all,
                            .plans = (uint32_t)cv_plan_count(g->conv),
                            .plans_tuned = (uint32_t)cv_tuned_count(g->conv)};
    return DR_OK;
}

/* ---- transfers ----------------------------------------------------------------------------------------------------
 */

static size_t piece_bytes(size_t unit) {
    return unit < GPU_PIECE ? GPU_PIECE / unit * unit : GPU_PIECE;
}

/* A copy of a piece is queued; its place in the ring is free again when the event has come. */
static dr_status queue_piece(gpu *g, unsigned i, void *dst, const void *src, size_t n, enum cudaMemcpyKind kind,
                             dr_error *err) {
    dr_status s = gpu_check(g, cudaMemcpyAsync(dst, src, n, kind, g->stream), "cudaMemcpyAsync", err);
    if (!s) s = gpu_check(g, cudaEventRecord(g->moved[i], g->stream), "cudaEventRecord", err);
    if (s) (void)cudaStreamSynchronize(g->stream); /* without its event nobody would know */
    return s;
}

static dr_status wait_piece(gpu *g, unsigned i, dr_error *err) {
    return gpu_check(g, cudaEventSynchronize(g->moved[i]), "cudaEventSynchronize", err);
}

dr_status gpu_send(gpu *g, gpu_move *move, void *arg, size_t unit, void *dst, size_t bytes, dr_error *err) {
    const size_t most = piece_bytes(unit);
    for (size_t at = 0; at < bytes; at += most) {
        const size_t n = bytes - at < most ? bytes - at : most;
        const unsigned i = g->i_piece++ % GPU_N_PIECES;
        char *staging = g->staging + i * GPU_PIECE;
        dr_status s = wait_piece(g, i, err);
        if (s) return s;
        move(arg, at, staging, n);
        s = queue_piece(g, i, (char *)dst + at, staging, n, cudaMemcpyHostToDevice, err);
        if (s) return s;
    }
    return DR_OK;
}

/* All places of the ring are on their way before the first piece is taken. */
dr_status gpu_receive(gpu *g, const void *src, gpu_move *move, void *arg, size_t unit, size_t bytes, dr_error *err) {
    const size_t most = piece_bytes(unit);
    const unsigned base = g->i_piece;
    size_t asked = 0;
    for (size_t at = 0; at < bytes; at += most) {
        for (; asked < bytes && asked - at < GPU_N_PIECES * most; asked += most) {
            const unsigned i = (base + (unsigned)(asked / most)) % GPU_N_PIECES;
            dr_status s = queue_piece(g, i, g->staging + i * GPU_PIECE, (const char *)src + asked,
                                      bytes - asked < most ? bytes - asked : most, cudaMemcpyDeviceToHost, err);
            if (s) return s;
        }
        const unsigned i = (base + (unsigned)(at / most)) % GPU_N_PIECES;
        dr_status s = wait_piece(g, i, err);
        if (s) return s;
        move(arg, at, g->staging + i * GPU_PIECE, bytes - at < most ? bytes - at : most);
    }
    g->i_piece = base + (unsigned)((bytes + most - 1) / most);
    return DR_OK;
}

static void from_bytes(void *arg, size_t at, void *staging, size_t n) {
    memcpy(staging, (const char *)arg + at, n);
}
static void to_bytes(void *arg, size_t at, void *staging, size_t n) {
    memcpy((char *)arg + at, staging, n);
}

dr_status gpu_upload_raw(dr_backend *be, const void *src, void *dst, size_t bytes, dr_error *err) {
    return gpu_send(gpu_of(be), from_bytes, (void *)(uintptr_t)src, 1, dst, bytes, err);
}

dr_status gpu_download_raw(dr_backend *be, const void *src, void *dst, size_t bytes, dr_error *err) {
    return gpu_receive(gpu_of(be), src, to_bytes, dst, 1, bytes, err);
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
