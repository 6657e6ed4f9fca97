/* runtime.cpp - the runtime's stand-in: allocations that are counted, streams that work at once or record, faults on
 * order. One lock guards the books; work itself runs outside of it. */
#include "cusim.h"
#include <map>
#include <mutex>
#include <unistd.h>
#include <vector>

typedef std::function<void()> work;

struct CUgraph_st {
    std::vector<work> nodes;
};
struct CUgraphExec_st {
    std::vector<work> nodes;
};
struct CUstream_st {
    CUgraph_st *capture; /* not NULL while capturing */
    cudaStreamCaptureMode mode;
};
struct CUevent_st {
    bool timed, blocking, recorded;
    cusim::moment at;
};

namespace cusim {
void run(const char *name, dim3 g, dim3 b, size_t shared, const std::function<void()> &kernel);
}

static std::recursive_mutex lock;
typedef std::lock_guard<std::recursive_mutex> hold;

struct area {
    size_t bytes;
    bool device;
};
static std::map<char *, area> areas; /* by address: finds the allocation around a pointer */
static size_t live_objects, device_used, device_total = (size_t)4 << 30;
static int n_devices = 1;
static long calls, fail_at; /* fail_at: value of calls at which to fail; 0 never */
static cudaError_t fail_code;
static int capturing;                   /* streams in global capture: they bind every thread */
static thread_local int capturing_here; /* those that this thread has in thread-local capture */
static thread_local cudaError_t last;

static CUstream_st null_stream;

static cudaError_t fail(cudaError_t e) {
    if (e) last = e;
    return e;
}

/* For programs that are started whole: once this file is there, the device is lost to the whole process. */
static bool is_lost() {
    static const char *const path = getenv("CUSIM_LOST_FILE");
    return path && access(path, F_OK) == 0;
}

/* Counts a call; the error it must answer with, if it is the one. */
static cudaError_t call(cudaError_t usual) {
    hold h(lock);
    calls++;
    if (is_lost()) return fail(cudaErrorLaunchFailure);
    if (fail_at && calls == fail_at) {
        fail_at = 0;
        return fail(fail_code ? fail_code : usual);
    }
    return n_devices < 1 ? fail(cudaErrorNoDevice) : cudaSuccess;
}
#define CALL(usual)                                                                                                    \
    do {                                                                                                               \
        cudaError_t e_ = call(usual);                                                                                  \
        if (e_) return e_;                                                                                             \
    } while (0)

static CUstream_st *stream(cudaStream_t st) {
    return st ? st : &null_stream;
}

/* Do it now, or keep it for the graph. */
static void queue(cudaStream_t st, work w, bool takes_time = true) {
    CUstream_st *s = stream(st);
    if (s->capture) {
        s->capture->nodes.push_back(std::move(w));
        return;
    }
    if (takes_time) cusim::spend();
    w();
}

/* Waiting for a stream that captures would wait for ever. */
static cudaError_t no_capture() {
    hold h(lock);
    return capturing || capturing_here ? fail(cudaErrorStreamCaptureUnsupported) : cudaSuccess;
}

/* ---- devices -------------------------------------------------------------------------------------------------------
 */

cudaError_t cudaGetDeviceCount(int *n) {
    CALL(cudaErrorInitializationError);
    *n = n_devices;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device) {
    CALL(cudaErrorInvalidDevice);
    if (device < 0 || device >= n_devices) return fail(cudaErrorInvalidDevice);
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "cusim");
    p->totalGlobalMem = device_total;
    p->sharedMemPerBlock = p->sharedMemPerBlockOptin = 48 << 10;
    p->major = 9;
    p->multiProcessorCount = 132;
    p->warpSize = 32;
    p->maxThreadsPerBlock = 1024;
    p->l2CacheSize = 50 << 20;
    p->asyncEngineCount = 1;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *v, cudaDeviceAttr a, int device) {
    CALL(cudaErrorInvalidDevice);
    if (device < 0 || device >= n_devices) return fail(cudaErrorInvalidDevice);
    switch (a) {
    case cudaDevAttrMultiProcessorCount:
        *v = 132;
        return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
        *v = 9;
        return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
        *v = 0;
        return cudaSuccess;
    }
    return fail(cudaErrorInvalidValue);
}

static thread_local int current;
cudaError_t cudaSetDevice(int device) {
    CALL(cudaErrorInvalidDevice);
    if (device < 0 || device >= n_devices) return fail(cudaErrorInvalidDevice);
    current = device;
    return cudaSuccess;
}
cudaError_t cudaGetDevice(int *device) {
    CALL(cudaErrorInitializationError);
    *device = current;
    return cudaSuccess;
}
cudaError_t cudaSetDeviceFlags(unsigned) {
    CALL(cudaErrorInvalidValue);
    return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize(void) {
    CALL(cudaErrorLaunchFailure);
    return no_capture();
}
cudaError_t cudaDeviceReset(void) {
    CALL(cudaErrorLaunchFailure);
    return cudaSuccess;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    CALL(cudaErrorInitializationError);
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *v) {
    *v = CUDART_VERSION;
    return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int *v) {
    *v = CUDART_VERSION;
    return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    CALL(cudaErrorInitializationError);
    hold h(lock);
    *free_bytes = device_total - device_used;
    *total = device_total;
    return cudaSuccess;
}

/* ---- memory --------------------------------------------------------------------------------------------------------
 */

static cudaError_t take(void **ret, size_t bytes, bool device) {
    CALL(cudaErrorMemoryAllocation);
    if (no_capture()) return cudaErrorStreamCaptureUnsupported;
    hold h(lock);
    if (!ret) return fail(cudaErrorInvalidValue);
    *ret = nullptr;
    if (!bytes) return cudaSuccess;
    void *p;
    if (device && bytes > device_total - device_used) return fail(cudaErrorMemoryAllocation);
    if (posix_memalign(&p, 256, bytes)) return fail(cudaErrorMemoryAllocation);
    memset(p, 0xff, bytes);
    areas[(char *)p] = area{bytes, device};
    if (device) device_used += bytes;
    live_objects++;
    *ret = p;
    return cudaSuccess;
}

static cudaError_t give(void *p, bool device) {
    cudaError_t e = call(cudaErrorLaunchFailure); /* late news of earlier work: the memory is freed all the same */
    if (!p) return e;
    hold h(lock);
    auto it = areas.find((char *)p);
    if (it == areas.end() || it->second.device != device) {
        fprintf(stderr, "cusim: free of %p, which is no live %s allocation\n", p, device ? "device" : "host");
        abort();
    }
    if (device) device_used -= it->second.bytes;
    areas.erase(it);
    live_objects--;
    free(p);
    return e;
}

cudaError_t cudaMalloc(void **p, size_t bytes) {
    return take(p, bytes, true);
}
cudaError_t cudaFree(void *p) {
    return give(p, true);
}
cudaError_t cudaMallocHost(void **p, size_t bytes) {
    return take(p, bytes, false);
}
cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned) {
    return take(p, bytes, false);
}
cudaError_t cudaFreeHost(void *p) {
    return give(p, false);
}

/* Is [p, p+bytes) inside one device allocation? `touch`: does it lie in one at all? */
static bool inside(const void *p, size_t bytes, bool *touch) {
    hold h(lock);
    char *c = (char *)p;
    auto it = areas.upper_bound(c);
    *touch = false;
    if (it == areas.begin()) return false;
    --it;
    size_t off = (size_t)(c - it->first);
    if (!it->second.device || off >= it->second.bytes) return false;
    *touch = true;
    return bytes <= it->second.bytes - off;
}

static cudaError_t check_side(const void *p, size_t bytes, bool device, bool any) {
    bool touch, in = inside(p, bytes, &touch);
    if (any ? touch && !in : device ? !in : touch) return fail(cudaErrorInvalidValue);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind, cudaStream_t st) {
    CALL(cudaErrorLaunchFailure);
    if (!bytes) return cudaSuccess;
    bool any = kind == cudaMemcpyDefault;
    if (check_side(dst, bytes, kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice, any) ||
        check_side(src, bytes, kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice, any))
        return cudaErrorInvalidValue;
    queue(st, [=] { memmove(dst, src, bytes); });
    return cudaSuccess;
}
cudaError_t cudaMemcpy(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind) {
    if (no_capture()) return cudaErrorStreamCaptureUnsupported;
    return cudaMemcpyAsync(dst, src, bytes, kind, nullptr);
}
cudaError_t cudaMemsetAsync(void *p, int v, size_t bytes, cudaStream_t st) {
    CALL(cudaErrorLaunchFailure);
    if (!bytes) return cudaSuccess;
    if (check_side(p, bytes, true, false)) return cudaErrorInvalidValue;
    queue(st, [=] { memset(p, v, bytes); });
    return cudaSuccess;
}
cudaError_t cudaMemset(void *p, int v, size_t bytes) {
    if (no_capture()) return cudaErrorStreamCaptureUnsupported;
    return cudaMemsetAsync(p, v, bytes, nullptr);
}

/* ---- streams and events --------------------------------------------------------------------------------------------
 */

static void born() {
    hold h(lock);
    live_objects++;
}
static void dead() {
    hold h(lock);
    live_objects--;
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *st, unsigned, int) {
    CALL(cudaErrorMemoryAllocation);
    *st = new CUstream_st();
    born();
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *st, unsigned flags) {
    return cudaStreamCreateWithPriority(st, flags, 0);
}
cudaError_t cudaStreamCreate(cudaStream_t *st) {
    return cudaStreamCreateWithPriority(st, 0, 0);
}
cudaError_t cudaStreamDestroy(cudaStream_t st) {
    cudaError_t e = call(cudaErrorLaunchFailure);
    if (!st) return fail(cudaErrorInvalidResourceHandle);
    if (st->capture) {
        fprintf(stderr, "cusim: a capturing stream is destroyed\n");
        abort();
    }
    delete st;
    dead();
    return e;
}
cudaError_t cudaStreamSynchronize(cudaStream_t st) {
    CALL(cudaErrorLaunchFailure);
    if (stream(st)->capture) return fail(cudaErrorStreamCaptureUnsupported);
    cusim::wait_all();
    return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t st) {
    CALL(cudaErrorLaunchFailure);
    if (stream(st)->capture) return fail(cudaErrorStreamCaptureUnsupported);
    return cusim::all_done() ? cudaSuccess : fail(cudaErrorNotReady);
}
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { /* work is done when it is queued */
    CALL(cudaErrorLaunchFailure);
    return cudaSuccess;
}
cudaError_t cudaLaunchHostFunc(cudaStream_t st, void (*fn)(void *), void *arg) {
    CALL(cudaErrorLaunchFailure);
    queue(st, [=] { fn(arg); });
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *ev, unsigned flags) {
    CALL(cudaErrorMemoryAllocation);
    *ev = new CUevent_st{!(flags & cudaEventDisableTiming), (flags & cudaEventBlockingSync) != 0, false, {0, 0}};
    born();
    return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t *ev) {
    return cudaEventCreateWithFlags(ev, 0);
}
cudaError_t cudaEventDestroy(cudaEvent_t ev) {
    cudaError_t e = call(cudaErrorLaunchFailure);
    if (!ev) return fail(cudaErrorInvalidResourceHandle);
    delete ev;
    dead();
    return e;
}
cudaError_t cudaEventRecord(cudaEvent_t ev, cudaStream_t st) {
    CALL(cudaErrorLaunchFailure);
    queue(
        st, [=] { ev->at = cusim::when_done(), ev->recorded = true; }, false);
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t ev) {
    CALL(cudaErrorLaunchFailure);
    if (ev->recorded) cusim::wait_for(ev->at, ev->blocking);
    return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t ev) {
    CALL(cudaErrorLaunchFailure);
    return !ev->recorded || cusim::has_come(ev->at) ? cudaSuccess : fail(cudaErrorNotReady);
}
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to) {
    CALL(cudaErrorLaunchFailure);
    if (!from->recorded || !to->recorded || !from->timed || !to->timed) return fail(cudaErrorInvalidResourceHandle);
    *ms = from->at.clock == to->at.clock ? (float)((to->at.at - from->at.at) * 1e3) : 0;
    return cudaSuccess;
}

/* ---- graphs --------------------------------------------------------------------------------------------------------
 */

cudaError_t cudaStreamBeginCapture(cudaStream_t st, cudaStreamCaptureMode mode) {
    CALL(cudaErrorStreamCaptureUnsupported);
    if (!st || st->capture) return fail(cudaErrorStreamCaptureUnsupported); /* not on the default stream */
    hold h(lock);
    st->capture = new CUgraph_st();
    st->mode = mode;
    capturing += mode == cudaStreamCaptureModeGlobal;
    capturing_here += mode == cudaStreamCaptureModeThreadLocal;
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t st, cudaGraph_t *graph) {
    cudaError_t e = call(cudaErrorStreamCaptureInvalidated);
    if (!st || !st->capture) return fail(cudaErrorInvalidValue);
    hold h(lock);
    capturing -= st->mode == cudaStreamCaptureModeGlobal;
    capturing_here -= st->mode == cudaStreamCaptureModeThreadLocal;
    if (e) {
        delete st->capture;
        *graph = nullptr;
    } else {
        *graph = st->capture;
        live_objects++;
    }
    st->capture = nullptr;
    return e;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t st, cudaStreamCaptureStatus *status) {
    CALL(cudaErrorLaunchFailure);
    *status = stream(st)->capture ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    return cudaSuccess;
}
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *n) {
    CALL(cudaErrorInvalidValue);
    if (nodes) return fail(cudaErrorInvalidValue); /* only the count is known here */
    *n = graph->nodes.size();
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long) {
    CALL(cudaErrorMemoryAllocation);
    *exec = new CUgraphExec_st{graph->nodes};
    born();
    return cudaSuccess;
}
cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) {
    CALL(cudaErrorLaunchFailure);
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t st) {
    CALL(cudaErrorLaunchFailure);
    for (const work &w : exec->nodes) queue(st, w);
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
    cudaError_t e = call(cudaErrorLaunchFailure);
    delete exec;
    dead();
    return e;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    cudaError_t e = call(cudaErrorLaunchFailure);
    delete graph;
    dead();
    return e;
}

/* ---- errors --------------------------------------------------------------------------------------------------------
 */

cudaError_t cudaGetLastError(void) {
    cudaError_t e = last;
    last = cudaSuccess;
    return e;
}
cudaError_t cudaPeekAtLastError(void) {
    return last;
}

static const struct {
    cudaError_t code;
    const char *name, *text;
} errors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInitializationError, "cudaErrorInitializationError", "initialization error"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorStubLibrary, "cudaErrorStubLibrary", "CUDA driver is a stub library"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver",
     "CUDA driver version is insufficient for CUDA runtime version"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorECCUncorrectable, "cudaErrorECCUncorrectable", "uncorrectable ECC error encountered"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress", "an illegal memory access was encountered"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
     "operation failed due to a previous error during capture"},
    {cudaErrorUnknown, "cudaErrorUnknown", "unknown error"},
};

const char *cudaGetErrorName(cudaError_t e) {
    for (auto &x : errors)
        if (x.code == e) return x.name;
    return "unrecognized error code";
}
const char *cudaGetErrorString(cudaError_t e) {
    for (auto &x : errors)
        if (x.code == e) return x.text;
    return "unrecognized error code";
}

/* ---- levers, launches ----------------------------------------------------------------------------------------------
 */

void cusim_fail_with(long n, cudaError_t error) {
    hold h(lock);
    fail_at = n > 0 ? calls + n : 0;
    fail_code = error;
}
void cusim_fail_after(long n) {
    cusim_fail_with(n, cudaSuccess);
}
long cusim_calls(void) {
    return calls;
}
size_t cusim_live(void) {
    return live_objects;
}
size_t cusim_live_bytes(void) {
    return device_used;
}
void cusim_set_memory(size_t bytes) {
    hold h(lock);
    device_total = bytes < device_used ? device_used : bytes;
}
void cusim_set_devices(int n) {
    hold h(lock);
    n_devices = n;
}

void cusim_spend(cudaStream_t st) {
    if (!stream(st)->capture) cusim::spend();
}

void cusim_enqueue(cudaStream_t st, void (*fn)(void *), const void *arg, size_t arg_bytes) {
    if (call(cudaErrorLaunchFailure)) return;
    /* as max_align_t, so that any struct may lie in it */
    std::vector<max_align_t> copy((arg_bytes + sizeof(max_align_t) - 1) / sizeof(max_align_t));
    memcpy(copy.data(), arg, arg_bytes);
    queue(st, [fn, copy]() mutable { fn(copy.data()); });
}

void cusim::launch_any(const char *name, dim3 g, dim3 b, size_t shared, cudaStream_t st, std::function<void()> kernel) {
    if (call(cudaErrorLaunchFailure)) return;
    const double threads = (double)g.x * g.y * g.z * b.x * b.y * b.z;
    queue(st, [=] {
        cusim::run(name, g, b, shared, kernel);
        cusim_pass(2e-6 + 1e-9 * threads);
    });
}
