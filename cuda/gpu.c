/* gpu.c - what the runtime's errors mean here.
 *
 * Some errors end the context for good (an illegal address, a failed launch, lost hardware): after one of them every
 * call of the process fails, so the instance remembers it and answers at once. The others (no memory, a bad argument)
 * end only the call. */
#include "cuda/gpu.h"

static bool is_sticky(cudaError_t e) {
    switch (e) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorAssert:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorUnknown:
        return true;
    default:
        return false;
    }
}

dr_status gpu_check(gpu *g, cudaError_t e, const char *call, dr_error *err) {
    if (!e) return DR_OK;
    (void)cudaGetLastError(); /* it would be reported a second time by the next launch */
    if (is_sticky(e)) g->lost = true;
    return g->host.fail(err, e == cudaErrorMemoryAllocation ? DR_NOMEM : DR_BACKEND, "cuda: %s: %s (%s)%s", call,
                        cudaGetErrorString(e), cudaGetErrorName(e), g->lost ? "; the device is lost" : "");
}

dr_status gpu_launched(gpu *g, const char *entry, dr_error *err) {
    if (g->lost) return g->host.fail(err, DR_BACKEND, "cuda: %s: the device is lost", entry);
    return gpu_check(g, cudaGetLastError(), entry, err);
}
