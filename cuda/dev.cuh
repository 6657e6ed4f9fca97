/* dev.cuh - what every .cu file starts with: one source for nvcc and, with -DDR_CUSIM, for g++ on tests/cusim.
 *
 * Rules that this asks for: launch with DR_LAUNCH(kernel, grid, block, shared bytes, stream, arguments...), a kernel
 * with commas in its name in parentheses; arrays of a block with DR_SHARED(float, tile, [32][33]) or, sized at launch,
 * DR_DYN_SHARED(float, rows), at most 48 KiB, one per kernel. Only what cusim.h knows of CUDA may be used.
 *
 * Storage is float, bf16 or f16; arithmetic is float. Wide tensors are read and written 8 channels at a time (f8): 16
 * bytes of a 16-bit type, 32 of f32, aligned since channel counts are multiples of 8. */
#ifndef DR_CUDA_DEV_CUH
#define DR_CUDA_DEV_CUH

#ifdef DR_CUSIM
#include <cusim.h>
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#define DR_SHARED(T, name, ...)         __shared__ T name __VA_ARGS__
/* one untyped symbol, since templates of several types share it */
extern __shared__ __align__(16) unsigned char dk_dyn_shared[];
#define DR_DYN_SHARED(T, name)          T *name = reinterpret_cast<T *>(dk_dyn_shared)
#define DR_LAUNCH(k, g, b, sh, st, ...) k<<<(g), (b), (sh), (st)>>>(__VA_ARGS__)
#endif

#include "cuda/kern.h"

typedef __nv_bfloat16 bf16;
typedef __half f16;

#define DK_FULL   0xffffffffu
#define DK_INLINE static __device__ __forceinline__
#define DK_MEMBER __device__ __forceinline__

/* Blocks of 256 threads that fill the largest device at hand twice over; more work goes into longer loops. Tests set it
 * low, so that small tensors reach those loops. */
#ifndef DK_PER_GPU
#define DK_PER_GPU (132 * 16)
#endif

/* The kernel for a storage type: DK_TYPED(t, T, f<T>(...)). */
#define DK_TYPED(t, T, ...)                                                                                            \
    do {                                                                                                               \
        if ((t) == DK_BF16) {                                                                                          \
            typedef bf16 T;                                                                                            \
            __VA_ARGS__;                                                                                               \
        } else if ((t) == DK_F16) {                                                                                    \
            typedef f16 T;                                                                                             \
            __VA_ARGS__;                                                                                               \
        } else {                                                                                                       \
            typedef float T;                                                                                           \
            __VA_ARGS__;                                                                                               \
        }                                                                                                              \
    } while (0)

/* Grid-stride loop of a one-dimensional launch, and a grid for it. */
#define DK_LOOP(i, n)                                                                                                  \
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x, step_##i = (size_t)gridDim.x * blockDim.x; i < (n); \
         i += step_##i)

static inline unsigned dk_grid(size_t items, unsigned block) {
    size_t g = (items + block - 1) / block;
    return g < 1 ? 1u : g > DK_PER_GPU ? (unsigned)DK_PER_GPU : (unsigned)g;
}

struct f8 {
    float v[8];
};

DK_INLINE float dk_load(const float *p) {
    return *p;
}
DK_INLINE float dk_load(const bf16 *p) {
    return __bfloat162float(*p);
}
DK_INLINE float dk_load(const f16 *p) {
    return __half2float(*p);
}
DK_INLINE void dk_store(float *p, float v) {
    *p = v;
}
DK_INLINE void dk_store(bf16 *p, float v) {
    *p = __float2bfloat16(v);
}
DK_INLINE void dk_store(f16 *p, float v) {
    *p = __float2half(v);
}

DK_INLINE f8 dk_load8(const float *p) {
    float4 a = reinterpret_cast<const float4 *>(p)[0], b = reinterpret_cast<const float4 *>(p)[1];
    return f8{{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
}
DK_INLINE void dk_store8(float *p, const f8 &f) {
    reinterpret_cast<float4 *>(p)[0] = make_float4(f.v[0], f.v[1], f.v[2], f.v[3]);
    reinterpret_cast<float4 *>(p)[1] = make_float4(f.v[4], f.v[5], f.v[6], f.v[7]);
}
/* bf16 is the upper half of a float; the lower address is the lower half of a word. */
DK_INLINE f8 dk_load8(const bf16 *p) {
    uint4 u = *reinterpret_cast<const uint4 *>(p);
    unsigned w[4] = {u.x, u.y, u.z, u.w};
    f8 r;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        r.v[2 * i] = __uint_as_float(w[i] << 16);
        r.v[2 * i + 1] = __uint_as_float(w[i] & 0xffff0000u);
    }
    return r;
}
DK_INLINE f8 dk_load8(const f16 *p) {
    union {
        uint4 u;
        __half2 h[4];
    } c = {*reinterpret_cast<const uint4 *>(p)};
    f8 r;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float2 v = __half22float2(c.h[i]);
        r.v[2 * i] = v.x;
        r.v[2 * i + 1] = v.y;
    }
    return r;
}
DK_INLINE void dk_store8(bf16 *p, const f8 &f) {
    union {
        __nv_bfloat162 h[4];
        uint4 u;
    } c;
#pragma unroll
    for (int i = 0; i < 4; i++) c.h[i] = __floats2bfloat162_rn(f.v[2 * i], f.v[2 * i + 1]);
    *reinterpret_cast<uint4 *>(p) = c.u;
}
DK_INLINE void dk_store8(f16 *p, const f8 &f) {
    union {
        __half2 h[4];
        uint4 u;
    } c;
#pragma unroll
    for (int i = 0; i < 4; i++) c.h[i] = __floats2half2_rn(f.v[2 * i], f.v[2 * i + 1]);
    *reinterpret_cast<uint4 *>(p) = c.u;
}

/* Sum over the 32 lanes, the same in all of them; every lane must take part. */
DK_INLINE float dk_warp_sum(float v) {
#pragma unroll
    for (int o = 16; o > 0; o >>= 1) v += __shfl_xor_sync(DK_FULL, v, o);
    return v;
}
DK_INLINE float dk_warp_max(float v) {
#pragma unroll
    for (int o = 16; o > 0; o >>= 1) v = fmaxf(v, __shfl_xor_sync(DK_FULL, v, o));
    return v;
}
/* Sum over a one-dimensional block of whole warps, the same in all threads; tmp is 32 floats of shared memory, free for
 * other use after the next __syncthreads(). */
DK_INLINE float dk_block_sum(float v, float *tmp) {
    unsigned lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
    v = dk_warp_sum(v);
    if (lane == 0) tmp[warp] = v;
    __syncthreads();
    return dk_warp_sum(lane < warps ? tmp[lane] : 0.f);
}

DK_INLINE int dk_reflect(int i, int n) {
    i = i < 0 ? -i : i;
    return i >= n ? 2 * (n - 1) - i : i;
}

/* NaN passes through, as in the CPU's kernels. */
DK_INLINE float dk_act_of(dk_act act, float v) {
    switch (act) {
    case DK_ACT_RELU:
        return v < 0.f ? 0.f : v;
    case DK_ACT_LRELU:
        return v < 0.f ? 0.2f * v : v;
    case DK_ACT_TANH:
        return tanhf(v);
    default:
        return v;
    }
}
/* Derivative from the output of the activation. */
DK_INLINE float dk_act_slope(dk_act act, float y) {
    switch (act) {
    case DK_ACT_RELU:
        return y > 0.f ? 1.f : 0.f;
    case DK_ACT_LRELU:
        return y > 0.f ? 1.f : 0.2f;
    case DK_ACT_TANH:
        return 1.f - y * y;
    default:
        return 1.f;
    }
}

#endif
