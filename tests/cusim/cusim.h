/* cusim.h - run CUDA kernels on the CPU, block by block, with one fiber for each CUDA thread.
 *
 * The same .cu file is compiled by nvcc for a device and by g++ for this (-DDR_CUSIM; cuda/dev.cuh chooses). A kernel
 * that passes here has kept CUDA's rules as far as they can be seen on a CPU:
 *   - all live threads of a block wait at the same __syncthreads(), all lanes of a mask at the same warp operation, and
 *     no lane of a mask has left; otherwise the program ends with the kernel, block and line;
 *   - shared memory starts as 0xFF bytes (NaN) in every block and has its exact size; with ASan every access is
 *     checked, with UBSan the alignment of vector loads;
 *   - a warp runs as far as it can before the next starts, and a lane before the next lane: with CUSIM_ORDER=fwd, rev
 *     or rand[:seed], which also order the blocks, a missing barrier changes the results.
 * Not modelled: races within what runs between two barriers of one thread, memory order between blocks, tensor cores,
 * asynchronous copies. More than 48 KiB of dynamic shared memory is refused, as a launch without opt-in would be. */
#ifndef CUSIM_H
#define CUSIM_H

#include <cuda_runtime_api.h>
#include <functional>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tuple>

#define __global__
#define __device__
#define __host__
#define __constant__    static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define __align__(n) __attribute__((aligned(n)))
/* Plain __shared__ arrays work outside templates; DR_SHARED of dev.cuh works everywhere and is checked better. */
#define __shared__ static __attribute__((section("cusim_shared")))

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
struct __align__(8) float2 {
    float x, y;
};
struct __align__(16) float4 {
    float x, y, z, w;
};
struct __align__(8) uint2 {
    unsigned x, y;
};
struct __align__(16) uint4 {
    unsigned x, y, z, w;
};
struct __align__(8) int2 {
    int x, y;
};
struct __align__(16) int4 {
    int x, y, z, w;
};
struct __align__(16) double2 {
    double x, y;
};
static inline float2 make_float2(float a, float b) {
    return float2{a, b};
}
static inline float4 make_float4(float a, float b, float c, float d) {
    return float4{a, b, c, d};
}
static inline uint2 make_uint2(unsigned a, unsigned b) {
    return uint2{a, b};
}
static inline uint4 make_uint4(unsigned a, unsigned b, unsigned c, unsigned d) {
    return uint4{a, b, c, d};
}
static inline int2 make_int2(int a, int b) {
    return int2{a, b};
}
static inline double2 make_double2(double a, double b) {
    return double2{a, b};
}

struct __nv_bfloat16 {
    uint16_t v;
};
struct __align__(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};
static inline float __bfloat162float(__nv_bfloat16 h) {
    uint32_t u = (uint32_t)h.v << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static inline __nv_bfloat16 __float2bfloat16(float f) { /* to nearest even */
    uint32_t u;
    memcpy(&u, &f, 4);
    if ((u & 0x7fffffffu) > 0x7f800000u) return __nv_bfloat16{0x7fff};
    return __nv_bfloat16{(uint16_t)((u + 0x7fffu + ((u >> 16) & 1)) >> 16)};
}
static inline __nv_bfloat162 __floats2bfloat162_rn(float a, float b) {
    return __nv_bfloat162{__float2bfloat16(a), __float2bfloat16(b)};
}
static inline float2 __bfloat1622float2(__nv_bfloat162 h) {
    return float2{__bfloat162float(h.x), __bfloat162float(h.y)};
}

struct __half {
    uint16_t v;
};
struct __align__(4) __half2 {
    __half x, y;
};
static inline float __half2float(__half h) {
    uint32_t sign = (uint32_t)(h.v & 0x8000u) << 16, a = h.v & 0x7fffu, u;
    float f;
    if (a >= 0x400u) { /* 2^-14 and above; the exponent of infinity and NaN moves to the end of its range */
        u = (a << 13) + (a >= 0x7c00u ? 0x70000000u : 0x38000000u);
        u |= sign;
        memcpy(&f, &u, 4);
        return f;
    }
    f = (float)a * 0x1p-24f; /* subnormal: exact */
    return sign ? -f : f;
}
static inline __half __float2half(float f) { /* to nearest even; too large is infinite, as cvt.rn has it */
    uint32_t u;
    memcpy(&u, &f, 4);
    const uint16_t sign = (uint16_t)(u >> 16 & 0x8000u);
    u &= 0x7fffffffu;
    if (u > 0x7f800000u) return __half{0x7fff};
    if (u >= 0x477ff000u) return __half{(uint16_t)(sign | 0x7c00u)};
    if (u >= 0x38800000u) {
        u -= 0x38000000u;
        return __half{(uint16_t)(sign | (u + 0x0fffu + (u >> 13 & 1)) >> 13)};
    }
    /* 2^-24 is the unit: adding 2^-1 leaves it in the last place of a float, rounded */
    memcpy(&f, &u, 4);
    f += 0.5f;
    memcpy(&u, &f, 4);
    return __half{(uint16_t)(sign | (u - 0x3f000000u))};
}
static inline __half2 __floats2half2_rn(float a, float b) {
    return __half2{__float2half(a), __float2half(b)};
}
static inline float2 __half22float2(__half2 h) {
    return float2{__half2float(h.x), __half2float(h.y)};
}

static inline float __fmul_rn(float a, float b) { /* never part of a fused multiply-add */
    return a * b;
}
static inline float __fadd_rn(float a, float b) {
    return a + b;
}
static inline float rsqrtf(float x) {
    return 1.f / sqrtf(x);
}
static inline double rsqrt(double x) {
    return 1.0 / sqrt(x);
}
/* Of pi x, exact at the quarters of the circle, for 0 <= x < 2. */
static inline double cospi(double x) {
    return x == 0.5 || x == 1.5 ? 0.0 : x == 1.0 ? -1.0 : cos(M_PI * x);
}
static inline double sinpi(double x) {
    return x == 1.0 ? 0.0 : x == 0.5 ? 1.0 : x == 1.5 ? -1.0 : sin(M_PI * x);
}
static inline float __uint_as_float(unsigned u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static inline unsigned __float_as_uint(float f) {
    unsigned u;
    memcpy(&u, &f, 4);
    return u;
}
template <class T> static inline T min(T a, T b) {
    return b < a ? b : a;
}
template <class T> static inline T max(T a, T b) {
    return a < b ? b : a;
}
template <class T> static inline T __ldg(const T *p) {
    return *p;
}

enum { warpSize = 32 };

namespace cusim {
/* Modelled time (clock.cpp). Without a clock everything is done at once. */
struct moment {
    double at;      /* seconds */
    unsigned clock; /* the modelled one that it lies on; 0: cusim_pass's */
};
void spend();    /* a piece of work is handed to the device */
void wait_all(); /* the host spins until the device is done */
bool all_done();
moment when_done(); /* of what is queued now */
void wait_for(moment m, bool sleeps);
bool has_come(moment m);

enum op { OP_SHFL, OP_BALLOT, OP_SYNC };
/* What a thread sees of itself. */
struct self {
    uint3 tid, bid;
    dim3 gd, bd;
    int lane;
    char *dyn;
};
extern self *me;
[[noreturn]] void die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void sync_block(int line);
/* Meet the lanes of mask; returns what lane src brought, and by *ballot the lanes that brought something odd. */
uint64_t meet(op what, unsigned mask, uint64_t v, int src, int line, unsigned *ballot);
/* Block-wide memory of a DR_SHARED array: the same for all threads of a block. */
void *block_shared(const void *key, size_t bytes);
void launch_any(const char *name, dim3 g, dim3 b, size_t shared, cudaStream_t st, std::function<void()> kernel);

template <class... P, class... A>
void launch(const char *name, void (*k)(P...), dim3 g, dim3 b, size_t shared, cudaStream_t st, A... a) {
    std::tuple<P...> args(a...);
    launch_any(name, g, b, shared, st, [k, args] { std::apply(k, args); });
}
template <class T> static inline T shfl(unsigned mask, T v, int src, int line) {
    static_assert(sizeof(T) <= 8, "shuffles move at most 8 bytes");
    uint64_t u = 0;
    memcpy(&u, &v, sizeof v);
    u = meet(OP_SHFL, mask, u, src, line, nullptr);
    memcpy(&v, &u, sizeof v);
    return v;
}
} // namespace cusim

#define threadIdx (cusim::me->tid)
#define blockIdx  (cusim::me->bid)
#define blockDim  (cusim::me->bd)
#define gridDim   (cusim::me->gd)

static inline void __syncthreads(int line = __builtin_LINE()) {
    cusim::sync_block(line);
}
static inline void __syncwarp(unsigned mask = 0xffffffffu, int line = __builtin_LINE()) {
    cusim::meet(cusim::OP_SYNC, mask, 0, cusim::me->lane, line, nullptr);
}
static inline unsigned __ballot_sync(unsigned mask, int p, int line = __builtin_LINE()) {
    unsigned r;
    cusim::meet(cusim::OP_BALLOT, mask, p != 0, cusim::me->lane, line, &r);
    return r;
}
static inline int __any_sync(unsigned mask, int p, int line = __builtin_LINE()) {
    return __ballot_sync(mask, p, line) != 0;
}
static inline int __all_sync(unsigned mask, int p, int line = __builtin_LINE()) {
    return __ballot_sync(mask, p, line) == mask;
}
template <class T>
static inline T __shfl_sync(unsigned mask, T v, int src, int width = 32, int line = __builtin_LINE()) {
    int base = cusim::me->lane & -width;
    return cusim::shfl(mask, v, base + (src & (width - 1)), line);
}
template <class T>
static inline T __shfl_xor_sync(unsigned mask, T v, int by, int width = 32, int line = __builtin_LINE()) {
    int at = cusim::me->lane, src = at ^ by;
    return cusim::shfl(mask, v, src >= (at & -width) + width ? at : src, line);
}
template <class T>
static inline T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32, int line = __builtin_LINE()) {
    int at = cusim::me->lane, src = at + (int)by;
    return cusim::shfl(mask, v, src >= (at & -width) + width ? at : src, line);
}
template <class T>
static inline T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32, int line = __builtin_LINE()) {
    int at = cusim::me->lane, src = at - (int)by;
    return cusim::shfl(mask, v, src < (at & -width) ? at : src, line);
}

#define DR_DYN_SHARED(T, name) T *name = (T *)(void *)cusim::me->dyn
#define DR_SHARED(T, name, ...)                                                                                        \
    static char name##_key;                                                                                            \
    typedef T name##_array __VA_ARGS__;                                                                                \
    name##_array &name = *(name##_array *)cusim::block_shared(&name##_key, sizeof(name##_array))
#define DR_LAUNCH(k, g, b, sh, st, ...) cusim::launch(#k, k, (g), (b), (sh), (st), __VA_ARGS__)

#endif
