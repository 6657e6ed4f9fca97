/* cuda_runtime_api.h - stand-in for the CUDA runtime where there is no device: the functions that a backend needs, with
 * the runtime's names and numbers, on ordinary memory. For tests only (-Itests/cusim/include before any toolkit).
 *
 * "Device" memory is malloc of the exact size, filled with 0xFF (NaN in f32 and bf16), so that a sanitizer sees every
 * step outside. A stream runs its work at once, in the caller's thread; while it captures, work is kept in a graph
 * instead. What the real runtime refuses is refused here too: copies beyond an allocation, waiting and allocating
 * during capture. What kills a process there (a wrong launch, freeing what is not ours) aborts with a line on stderr.
 * Not modelled: work that overlaps, streams that join a capture through an event, device memory touched by the host.
 * With CUSIM_LOST_FILE in the environment the device is lost as soon as that file exists.
 *
 * Time can be modelled apart from the work (cusim_clock): then a launch or copy takes the device a set time and the
 * host another, work of all streams goes one after the other, events lie on that clock, and whoever waits moves it. */
#ifndef CUSIM_CUDA_RUNTIME_API_H
#define CUSIM_CUDA_RUNTIME_API_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CUDART_VERSION 13000

typedef enum cudaError {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInitializationError = 3,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorStubLibrary = 34,
    cudaErrorInsufficientDriver = 35,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorECCUncorrectable = 214,
    cudaErrorInvalidResourceHandle = 400,
    cudaErrorNotReady = 600,
    cudaErrorIllegalAddress = 700,
    cudaErrorLaunchTimeout = 702,
    cudaErrorAssert = 710,
    cudaErrorHardwareStackError = 714,
    cudaErrorIllegalInstruction = 715,
    cudaErrorMisalignedAddress = 716,
    cudaErrorInvalidAddressSpace = 717,
    cudaErrorInvalidPc = 718,
    cudaErrorNvlinkUncorrectable = 220,
    cudaErrorLaunchFailure = 719,
    cudaErrorStreamCaptureUnsupported = 900,
    cudaErrorStreamCaptureInvalidated = 901,
    cudaErrorUnknown = 999
} cudaError_t;

typedef struct CUstream_st *cudaStream_t; /* NULL: the default stream */
typedef struct CUevent_st *cudaEvent_t;
typedef struct CUgraph_st *cudaGraph_t;
typedef struct CUgraphExec_st *cudaGraphExec_t;
typedef struct CUgraphNode_st *cudaGraphNode_t;

typedef enum cudaMemcpyKind {
    cudaMemcpyHostToHost,
    cudaMemcpyHostToDevice,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice,
    cudaMemcpyDefault
} cudaMemcpyKind;
typedef enum cudaStreamCaptureMode {
    cudaStreamCaptureModeGlobal,
    cudaStreamCaptureModeThreadLocal,
    cudaStreamCaptureModeRelaxed
} cudaStreamCaptureMode;
typedef enum cudaStreamCaptureStatus {
    cudaStreamCaptureStatusNone,
    cudaStreamCaptureStatusActive,
    cudaStreamCaptureStatusInvalidated
} cudaStreamCaptureStatus;
typedef enum cudaDeviceAttr {
    cudaDevAttrMultiProcessorCount = 16,
    cudaDevAttrComputeCapabilityMajor = 75,
    cudaDevAttrComputeCapabilityMinor = 76
} cudaDeviceAttr;

#define cudaStreamDefault              0u
#define cudaStreamNonBlocking          1u
#define cudaEventDefault               0u
#define cudaEventBlockingSync          1u
#define cudaEventDisableTiming         2u
#define cudaHostAllocDefault           0u
#define cudaDeviceScheduleAuto         0u
#define cudaDeviceScheduleSpin         1u
#define cudaDeviceScheduleYield        2u
#define cudaDeviceScheduleBlockingSync 4u

typedef struct cudaDeviceProp {
    char name[256];
    size_t totalGlobalMem, sharedMemPerBlock, sharedMemPerBlockOptin;
    int major, minor, multiProcessorCount, warpSize, maxThreadsPerBlock, l2CacheSize;
    int pciBusID, pciDeviceID, pciDomainID, asyncEngineCount, memoryBusWidth, ECCEnabled;
} cudaDeviceProp;

cudaError_t cudaGetDeviceCount(int *n);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device);
cudaError_t cudaDeviceGetAttribute(int *v, cudaDeviceAttr a, int device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDevice(int *device);
cudaError_t cudaSetDeviceFlags(unsigned flags);
cudaError_t cudaDeviceSynchronize(void);
cudaError_t cudaDeviceReset(void);
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest);
cudaError_t cudaRuntimeGetVersion(int *v);
cudaError_t cudaDriverGetVersion(int *v);
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total);

cudaError_t cudaMalloc(void **p, size_t bytes);
cudaError_t cudaFree(void *p);
cudaError_t cudaMallocHost(void **p, size_t bytes);
cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void *p);
cudaError_t cudaMemcpy(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind, cudaStream_t st);
cudaError_t cudaMemset(void *p, int v, size_t bytes);
cudaError_t cudaMemsetAsync(void *p, int v, size_t bytes, cudaStream_t st);

cudaError_t cudaStreamCreate(cudaStream_t *st);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *st, unsigned flags);
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *st, unsigned flags, int priority);
cudaError_t cudaStreamDestroy(cudaStream_t st);
cudaError_t cudaStreamSynchronize(cudaStream_t st);
cudaError_t cudaStreamQuery(cudaStream_t st);
cudaError_t cudaStreamWaitEvent(cudaStream_t st, cudaEvent_t ev, unsigned flags);
cudaError_t cudaLaunchHostFunc(cudaStream_t st, void (*fn)(void *), void *arg);

cudaError_t cudaEventCreate(cudaEvent_t *ev);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *ev, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t ev);
cudaError_t cudaEventRecord(cudaEvent_t ev, cudaStream_t st);
cudaError_t cudaEventSynchronize(cudaEvent_t ev);
cudaError_t cudaEventQuery(cudaEvent_t ev);
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to); /* wall time */

cudaError_t cudaStreamBeginCapture(cudaStream_t st, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t st, cudaGraph_t *graph);
cudaError_t cudaStreamIsCapturing(cudaStream_t st, cudaStreamCaptureStatus *status);
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *n); /* nodes NULL: the count */
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t st);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t st);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);

cudaError_t cudaGetLastError(void); /* and forgets it */
cudaError_t cudaPeekAtLastError(void);
const char *cudaGetErrorName(cudaError_t e);
const char *cudaGetErrorString(cudaError_t e);

/* ---- what only the emulation has: levers for tests ----------------------------------------------------------------
 */

/* The n-th call from now fails (1: the next; 0: never), once. Calls are all of the above but the last four, and kernel
 * launches, whose error cudaGetLastError tells. Destroying calls do their work and then fail. */
void cusim_fail_after(long n);                   /* with the error usual for that call */
void cusim_fail_with(long n, cudaError_t error); /* with this one */
long cusim_calls(void);                          /* calls made so far */

size_t cusim_live(void);       /* device and host allocations, streams, events, graphs and executables that live */
size_t cusim_live_bytes(void); /* device memory in use */
void cusim_set_memory(size_t bytes); /* size of the "device", 4 GiB at first; more is cudaErrorMemoryAllocation */
void cusim_set_devices(int n);       /* 1 at first; 0: calls answer cudaErrorNoDevice */

/* Events tell the time of a clock of the emulation's own, so that timings are the same everywhere: a kernel takes 2 us
 * and a nanosecond for each of its threads, and what plays a kernel says how many seconds it takes. */
void cusim_pass(double seconds);

/* Queue host code that plays a kernel: fn(copy of arg) runs at its place in the stream, or in the graph captured. It
 * counts as a launch. */
/* Modelled time in seconds, from 0 on: what a piece of work takes the device, a call the host, and a thread that slept
 * to wake. May be called again to change the figures; work < 0 ends it. */
void cusim_clock(double work, double host, double wake);
typedef struct cusim_time {
    double now;    /* the host's clock */
    double busy;   /* the device's time for all that was queued */
    double waited; /* spent in waiting, wakes included */
    double most;   /* the most that was queued at any time since cusim_clock() was last called */
    long spins;    /* waits that burn a core: streams, and events without cudaEventBlockingSync */
} cusim_time;
void cusim_clock_read(cusim_time *ret);
/* One piece of work, for stand-ins that compute without a launch. */
void cusim_spend(cudaStream_t st);

void cusim_enqueue(cudaStream_t st, void (*fn)(void *), const void *arg, size_t arg_bytes);

#ifdef __cplusplus
}
#endif
#endif
