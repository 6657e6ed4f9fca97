/* vec.cuh - shared by the kernels that stream through memory: 16-byte loads and stores of either type as floats, and
 * the elementwise kernel that applies a small function object to whole tensors.
 *
 * A piece of V elements is one 16-byte access (4 f32 or 8 of 16 bits) where V = VEC<T>, or one element where V = 1: the
 * callers choose V = 1 for tails and for rows whose length is not a multiple of VEC<T>. */
#ifndef DR_CUDA_VEC_CUH
#define DR_CUDA_VEC_CUH

#include "cuda/dev.cuh"

enum { BLOCK = 256 };

template <class T> constexpr int VEC = 16 / (int)sizeof(T);

template <int V, class T> DK_INLINE void load(const T *p, float *v) {
    if constexpr (V == 1) {
        v[0] = dk_load(p);
    } else {
        const uint4 u = *reinterpret_cast<const uint4 *>(p);
        const T *h = reinterpret_cast<const T *>(&u);
#pragma unroll
        for (int k = 0; k < V; k++) v[k] = dk_load(h + k);
    }
}
template <int V, class T> DK_INLINE void store(const float *v, T *p) {
    if constexpr (V == 1) {
        dk_store(p, v[0]);
    } else {
        uint4 u;
        T *h = reinterpret_cast<T *>(&u);
#pragma unroll
        for (int k = 0; k < V; k++) dk_store(h + k, v[k]);
        *reinterpret_cast<uint4 *>(p) = u;
    }
}

DK_INLINE size_t thread_id() {
    return (size_t)blockIdx.x * blockDim.x + threadIdx.x;
}
DK_INLINE size_t thread_count() {
    return (size_t)gridDim.x * blockDim.x;
}

/* Sum over the lanes of a warp; every lane gets it, in the same order of additions. */
template <class S> DK_INLINE S warp_sum(S v) {
    for (int o = 16; o > 0; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
    return v;
}

static inline size_t ceil_div(size_t a, size_t b) {
    return (a + b - 1) / b;
}
/* y = f(a, b); F::inputs of a and b are read. y may be an input: a thread reads its piece before it writes it. */
template <class T, class F> static __global__ void map_kernel(F f, size_t n, const T *a, const T *b, T *y) {
    constexpr int V = VEC<T>;
    const size_t first = thread_id(), step = thread_count(), pieces = n / V;
    for (size_t i = first; i < pieces; i += step) {
        float va[V] = {}, vb[V] = {};
        if constexpr (F::inputs > 0) load<V>(a + i * V, va);
        if constexpr (F::inputs > 1) load<V>(b + i * V, vb);
#pragma unroll
        for (int k = 0; k < V; k++) va[k] = f(va[k], vb[k]);
        store<V>(va, y + i * V);
    }
    const size_t i = pieces * V + first; /* fewer than V are left */
    if (i >= n) return;
    const float va = F::inputs > 0 ? dk_load(a + i) : 0, vb = F::inputs > 1 ? dk_load(b + i) : 0;
    dk_store(y + i, f(va, vb));
}

template <class T, class F> static void map_as(cudaStream_t st, F f, size_t n, const void *a, const void *b, void *y) {
    DR_LAUNCH((map_kernel<T, F>), dim3(dk_grid(ceil_div(n, VEC<T>), BLOCK)), dim3(BLOCK), 0, st, f, n, (const T *)a,
              (const T *)b, (T *)y);
}
template <class F> static void map(cudaStream_t st, dk_type t, F f, size_t n, const void *a, const void *b, void *y) {
    DK_TYPED(t, T, map_as<T>(st, f, n, a, b, y));
}

#endif
