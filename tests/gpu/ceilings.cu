/* ceilings.cu - what this device can do at best, measured: the numbers that all other figures are held against.
 *
 *   ceilings [--quick]      one line a figure on stdout, "NAME VALUE UNIT"; under 10 s, --quick under 3 s
 *
 * Copies: device to device (bytes read + bytes written, as the kernels are counted) by cudaMemcpyAsync and by a plain
 * 16-byte copy kernel; pinned host to device, back, and both at once. Launches: an empty kernel queued from one thread,
 * and the same kernel as a chain of nodes in a graph. Times are medians of several rounds between events on one stream;
 * the first round is not counted. Exit 77 with the reason on stderr where there is no device, 1 on an error. */
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include <cuda_runtime.h>

#define CK(call)                                                                                                       \
    do {                                                                                                               \
        cudaError_t ck_e = (call);                                                                                     \
        if (ck_e != cudaSuccess) {                                                                                     \
            fprintf(stderr, "ceilings: %s: %s (line %d)\n", #call, cudaGetErrorString(ck_e), __LINE__);                \
            return 1;                                                                                                  \
        }                                                                                                              \
    } while (0)

__global__ void empty_kernel() {}

/* n 16-byte words, read once and written once */
__global__ void copy_kernel(const uint4 *__restrict__ x, uint4 *__restrict__ y, size_t n) {
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x)
        y[i] = x[i];
}

static void figure(const char *name, double value, const char *unit) {
    printf("%-22s %12.3f %s\n", name, value, unit);
    fflush(stdout);
}

static double median(std::vector<double> v) {
    std::sort(v.begin(), v.end());
    return v[v.size() / 2];
}

/* median milliseconds of `rounds` runs of `body` on st, after one that is not counted */
template <typename F> static int timed(cudaStream_t st, int rounds, double *ret_ms, F body) {
    cudaEvent_t a, b;
    CK(cudaEventCreate(&a));
    CK(cudaEventCreate(&b));
    std::vector<double> all;
    for (int i = 0; i <= rounds; i++) {
        float ms = 0;
        CK(cudaEventRecord(a, st));
        if (body()) return 1;
        CK(cudaEventRecord(b, st));
        CK(cudaEventSynchronize(b));
        CK(cudaEventElapsedTime(&ms, a, b));
        if (i) all.push_back(ms);
    }
    CK(cudaEventDestroy(a));
    CK(cudaEventDestroy(b));
    *ret_ms = median(all);
    return 0;
}

static int device_copies(cudaStream_t st, int rounds, size_t bytes, int sms) {
    char *x = NULL, *y = NULL;
    double ms;
    CK(cudaMalloc(&x, bytes));
    CK(cudaMalloc(&y, bytes));
    CK(cudaMemsetAsync(x, 0x5a, bytes, st));
    CK(cudaMemsetAsync(y, 0, bytes, st));
    if (timed(st, rounds, &ms, [&] {
            CK(cudaMemcpyAsync(y, x, bytes, cudaMemcpyDeviceToDevice, st));
            return 0;
        }))
        return 1;
    figure("copy_d2d_memcpy", 2.0 * bytes / ms / 1e6, "GB/s");
    CK(cudaMemsetAsync(y, 0, bytes, st));
    if (timed(st, rounds, &ms, [&] {
            copy_kernel<<<sms * 16, 256, 0, st>>>((const uint4 *)x, (uint4 *)y, bytes / 16);
            CK(cudaGetLastError());
            return 0;
        }))
        return 1;
    figure("copy_d2d_kernel", 2.0 * bytes / ms / 1e6, "GB/s");
    /* a copy that copied nothing would be the fastest of all */
    uint32_t last[4] = {0};
    CK(cudaMemcpy(last, y + (bytes / 16 - 1) * 16, 16, cudaMemcpyDeviceToHost));
    for (int i = 0; i < 4; i++)
        if (last[i] != 0x5a5a5a5a) {
            fprintf(stderr, "ceilings: the copy kernel did not copy\n");
            return 1;
        }
    CK(cudaFree(x));
    CK(cudaFree(y));
    return 0;
}

static int host_copies(cudaStream_t st, cudaStream_t st2, int rounds, size_t bytes) {
    char *h = NULL, *h2 = NULL, *d = NULL, *d2 = NULL;
    double ms;
    CK(cudaMallocHost(&h, bytes));
    CK(cudaMallocHost(&h2, bytes));
    CK(cudaMalloc(&d, bytes));
    CK(cudaMalloc(&d2, bytes));
    memset(h, 1, bytes);
    memset(h2, 2, bytes);
    CK(cudaMemset(d2, 3, bytes));
    if (timed(st, rounds, &ms, [&] {
            CK(cudaMemcpyAsync(d, h, bytes, cudaMemcpyHostToDevice, st));
            return 0;
        }))
        return 1;
    figure("copy_h2d_pinned", bytes / ms / 1e6, "GB/s");
    if (timed(st, rounds, &ms, [&] {
            CK(cudaMemcpyAsync(h2, d2, bytes, cudaMemcpyDeviceToHost, st));
            return 0;
        }))
        return 1;
    figure("copy_d2h_pinned", bytes / ms / 1e6, "GB/s");
    cudaEvent_t go, done;
    CK(cudaEventCreate(&go));
    CK(cudaEventCreate(&done));
    if (timed(st, rounds, &ms, [&] {
            CK(cudaEventRecord(go, st));
            CK(cudaStreamWaitEvent(st2, go, 0));
            CK(cudaMemcpyAsync(d, h, bytes, cudaMemcpyHostToDevice, st));
            CK(cudaMemcpyAsync(h2, d2, bytes, cudaMemcpyDeviceToHost, st2));
            CK(cudaEventRecord(done, st2));
            CK(cudaStreamWaitEvent(st, done, 0));
            return 0;
        }))
        return 1;
    figure("copy_both_ways", 2.0 * bytes / ms / 1e6, "GB/s");
    /* one 1080p RGB picture, the size that a request moves */
    size_t picture = (size_t)1920 * 1080 * 3;
    if (timed(st, rounds, &ms, [&] {
            CK(cudaMemcpyAsync(d, h, picture, cudaMemcpyHostToDevice, st));
            return 0;
        }))
        return 1;
    figure("h2d_1080p_rgb8", ms * 1e3, "us");
    CK(cudaEventDestroy(go));
    CK(cudaEventDestroy(done));
    CK(cudaFreeHost(h));
    CK(cudaFreeHost(h2));
    CK(cudaFree(d));
    CK(cudaFree(d2));
    return 0;
}

static int launches(cudaStream_t st, int rounds) {
    const int n = 2000, nodes = 100, replays = 20;
    double ms;
    if (timed(st, rounds, &ms, [&] {
            for (int i = 0; i < n; i++) empty_kernel<<<1, 32, 0, st>>>();
            CK(cudaGetLastError());
            return 0;
        }))
        return 1;
    figure("launch_kernel", ms * 1e3 / n, "us");
    cudaGraph_t g;
    cudaGraphExec_t exec;
    CK(cudaStreamBeginCapture(st, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < nodes; i++) empty_kernel<<<1, 32, 0, st>>>();
    CK(cudaStreamEndCapture(st, &g));
    CK(cudaGraphInstantiate(&exec, g, 0));
    if (timed(st, rounds, &ms, [&] {
            for (int i = 0; i < replays; i++) CK(cudaGraphLaunch(exec, st));
            return 0;
        }))
        return 1;
    figure("graph_node", ms * 1e3 / (nodes * replays), "us");
    if (timed(st, rounds, &ms, [&] {
            CK(cudaGraphLaunch(exec, st));
            return 0;
        }))
        return 1;
    figure("graph_100_nodes_alone", ms * 1e3, "us");
    CK(cudaGraphExecDestroy(exec));
    CK(cudaGraphDestroy(g));
    return 0;
}

int main(int argc, char **argv) {
    bool quick = argc > 1 && !strcmp(argv[1], "--quick");
    if (argc > 2 || (argc == 2 && !quick)) {
        fprintf(stderr, "usage: ceilings [--quick]\n");
        return 2;
    }
    int n = 0;
    cudaError_t e = cudaGetDeviceCount(&n);
    if (e != cudaSuccess || n < 1) {
        fprintf(stderr, "ceilings: no CUDA device: %s\n", e != cudaSuccess ? cudaGetErrorString(e) : "none found");
        return 77;
    }
    cudaDeviceProp p;
    size_t free_bytes = 0, all_bytes = 0;
    cudaStream_t st, st2;
    CK(cudaSetDevice(0));
    CK(cudaGetDeviceProperties(&p, 0));
    CK(cudaMemGetInfo(&free_bytes, &all_bytes));
    CK(cudaStreamCreateWithFlags(&st, cudaStreamNonBlocking));
    CK(cudaStreamCreateWithFlags(&st2, cudaStreamNonBlocking));
    fprintf(stderr, "%s, sm_%d%d, %d SMs, %.1f GiB (%.1f free), L2 %.0f MiB\n", p.name, p.major, p.minor,
            p.multiProcessorCount, all_bytes / 1073741824.0, free_bytes / 1073741824.0, p.l2CacheSize / 1048576.0);
    /* far above the L2 cache, and never most of what is free */
    size_t bytes = std::min((size_t)1 << 30, free_bytes / 8) & ~(size_t)255;
    int rounds = quick ? 5 : 15;
    if (device_copies(st, rounds, bytes, p.multiProcessorCount)) return 1;
    if (host_copies(st, st2, rounds, std::min(bytes, (size_t)(quick ? 64 : 256) << 20))) return 1;
    if (launches(st, rounds)) return 1;
    CK(cudaStreamDestroy(st));
    CK(cudaStreamDestroy(st2));
    return 0;
}
