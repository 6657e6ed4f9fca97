/* test_runtime.cpp - the runtime's stand-in itself (tests/cusim/runtime.cpp): what the module's tests on it rely on. */
#include "cuda/kern.h"
#include "tests/t.h"
#include <thread>

TEST(allocations_are_counted_and_poisoned) {
    size_t before = cusim_live();
    void *d, *h;
    CHECK(!cudaMalloc(&d, 12) && !cudaMallocHost(&h, 12));
    CHECK(cusim_live() == before + 2 && cusim_live_bytes() == 12);
    CHECK(!cudaMemcpy(h, d, 12, cudaMemcpyDeviceToHost));
    for (int i = 0; i < 12; i++) CHECK(((unsigned char *)h)[i] == 0xff);
    CHECK(cudaMemcpy(d, h, 13, cudaMemcpyHostToDevice) == cudaErrorInvalidValue); /* one byte too many */
    CHECK(cudaMemcpy(h, d, 12, cudaMemcpyHostToDevice) == cudaErrorInvalidValue); /* the wrong way round */
    CHECK(cudaPeekAtLastError() == cudaErrorInvalidValue);
    CHECK(cudaGetLastError() == cudaErrorInvalidValue && !cudaGetLastError());
    CHECK(!cudaFree(d) && !cudaFreeHost(h) && cusim_live() == before && cusim_live_bytes() == 0);
}

TEST(memory_ends) {
    void *p = NULL;
    cusim_set_memory(1000);
    CHECK(cudaMalloc(&p, 1001) == cudaErrorMemoryAllocation && !p);
    CHECK(!cudaMalloc(&p, 600));
    size_t left, total;
    CHECK(!cudaMemGetInfo(&left, &total) && left == 400 && total == 1000);
    CHECK(!cudaFree(p));
    cusim_set_memory((size_t)4 << 30);
    cudaGetLastError();
}

TEST(the_nth_call_fails_once) {
    void *p[3] = {NULL, NULL, NULL};
    cusim_fail_after(2);
    CHECK(!cudaMalloc(&p[0], 8));
    CHECK(cudaMalloc(&p[1], 8) == cudaErrorMemoryAllocation && !p[1]);
    CHECK(!cudaMalloc(&p[2], 8));
    cudaGetLastError();
    size_t live = cusim_live();
    cusim_fail_with(1, cudaErrorIllegalAddress);
    CHECK(cudaFree(p[0]) == cudaErrorIllegalAddress && cusim_live() == live - 1); /* freed all the same */
    CHECK(!cudaFree(p[2]));
    cudaGetLastError();
}

/* A launch has no status of its own: cudaGetLastError tells, and nothing was written. */
TEST(a_launch_fails) {
    void *p;
    float f[4] = {1, 2, 3, 4};
    CHECK(!cudaMalloc(&p, sizeof f) && !cudaMemcpy(p, f, sizeof f, cudaMemcpyHostToDevice));
    cusim_fail_after(1);
    dk_fill(NULL, DK_F32, 4, 9, p);
    CHECK(cudaGetLastError() == cudaErrorLaunchFailure);
    CHECK(!cudaMemcpy(f, p, sizeof f, cudaMemcpyDeviceToHost) && f[0] == 1 && f[3] == 4);
    dk_fill(NULL, DK_F32, 4, 9, p);
    CHECK(!cudaGetLastError() && !cudaMemcpy(f, p, sizeof f, cudaMemcpyDeviceToHost) && f[0] == 9 && f[3] == 9);
    CHECK(!cudaFree(p));
}

static void add_two(void *arg) {
    **(float **)arg += 2;
}

TEST(a_graph_keeps_work_and_repeats_it) {
    size_t before = cusim_live(), nodes;
    cudaStream_t st;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    float *p, f = 0;
    CHECK(!cudaMalloc((void **)&p, sizeof *p) && !cudaStreamCreate(&st));
    CHECK(!cudaStreamBeginCapture(st, cudaStreamCaptureModeThreadLocal));
    CHECK(!cudaMemsetAsync(p, 0, sizeof *p, st));
    dk_fill(st, DK_F32, 1, 5, p);
    cusim_enqueue(st, add_two, &p, sizeof p);
    void *q;
    CHECK(cudaMalloc(&q, 4) == cudaErrorStreamCaptureUnsupported);
    CHECK(cudaStreamSynchronize(st) == cudaErrorStreamCaptureUnsupported);
    cudaGetLastError();
    CHECK(!cudaStreamEndCapture(st, &graph) && !cudaGraphGetNodes(graph, NULL, &nodes) && nodes == 3);
    CHECK(!cudaMemcpy(&f, p, sizeof f, cudaMemcpyDeviceToHost) && f != f); /* nothing has run */
    CHECK(!cudaGraphInstantiate(&exec, graph, 0) && !cudaGraphDestroy(graph));
    for (int i = 0; i < 2; i++) {
        CHECK(!cudaGraphLaunch(exec, st) && !cudaStreamSynchronize(st));
        CHECK(!cudaMemcpy(&f, p, sizeof f, cudaMemcpyDeviceToHost) && f == 7);
        CHECK(!cudaMemset(p, 0xff, sizeof *p));
    }
    CHECK(!cudaGraphExecDestroy(exec) && !cudaStreamDestroy(st) && !cudaFree(p) && cusim_live() == before);
}

/* Two engines of one process: what one thread captures must not disturb the other one's calls. */
TEST(a_capture_of_one_thread_is_none_of_another) {
    cudaStream_t st;
    cudaGraph_t graph;
    void *mine, *theirs = NULL;
    cudaError_t e[3] = {cudaErrorUnknown, cudaErrorUnknown, cudaErrorUnknown};
    CHECK(!cudaStreamCreate(&st) && !cudaStreamBeginCapture(st, cudaStreamCaptureModeThreadLocal));
    std::thread other([&] {
        e[0] = cudaMalloc(&theirs, 8);
        e[1] = cudaDeviceSynchronize();
        e[2] = cudaFree(theirs);
    });
    other.join();
    CHECK(!e[0] && !e[1] && !e[2] && cudaMalloc(&mine, 8) == cudaErrorStreamCaptureUnsupported);
    cudaGetLastError();
    CHECK(!cudaStreamEndCapture(st, &graph) && !cudaGraphDestroy(graph) && !cudaMalloc(&mine, 8) && !cudaFree(mine));
    CHECK(!cudaStreamBeginCapture(st, cudaStreamCaptureModeGlobal)); /* that one binds all */
    std::thread bound([&] { e[0] = cudaMalloc(&theirs, 8); });
    bound.join();
    CHECK(e[0] == cudaErrorStreamCaptureUnsupported && !cudaStreamEndCapture(st, &graph) && !cudaGraphDestroy(graph));
    CHECK(!cudaStreamDestroy(st));
}

TEST(events_and_absent_devices) {
    cudaEvent_t a, b;
    float ms = -1;
    CHECK(!cudaEventCreate(&a) && !cudaEventCreate(&b) && !cudaEventRecord(a, NULL));
    CHECK(cudaEventElapsedTime(&ms, a, b) == cudaErrorInvalidResourceHandle); /* b was never recorded */
    CHECK(!cudaEventRecord(b, NULL) && !cudaEventElapsedTime(&ms, a, b) && ms >= 0);
    CHECK(!cudaEventDestroy(a) && !cudaEventDestroy(b));
    int n = 7;
    cusim_set_devices(0);
    cudaError_t e = cudaGetDeviceCount(&n);
    cusim_set_devices(1);
    CHECK(e == cudaErrorNoDevice && n == 7); /* left unwritten, as the real one leaves it */
    CHECK(!strcmp(cudaGetErrorName(e), "cudaErrorNoDevice"));
    cudaGetLastError();
    CHECK(!cudaGetDeviceCount(&n) && n == 1);
}
