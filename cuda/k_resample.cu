/* k_resample.cu - reflection pads, the two anti-alias filters and their adjoints (METHOD.md 2.2, 3.1, 3.2).
 *
 * The forward kernels are rows.cuh's. The adjoints gather: every input pixel adds up the outputs that it went into, in
 * one order, so no two threads write one place and equal inputs give equal bits. Along one axis those are up to
 *   3 outputs of a reflection pad (itself, its mirror images left and right),
 *   2 of the blur down (even pixels: one, with weight 1/2; odd ones: their neighbours, with 1/4, twice that next to an
 *     end where the mirrored border came from the same pixel),
 *   4 of the blur up (3/4 twice, 1/4 twice, clamped at the ends). */
#include "cuda/rows.cuh"

enum { PAD, DOWN, UP };

/* The outputs that pixel i of n went into, and with what weight. */
struct taps {
    int count, at[4];
    float w[4];
};

template <int KIND> DK_INLINE taps taps_of(int i, int n, int p) {
    taps t;
    if constexpr (KIND == PAD) {
        t.count = 1;
        t.at[0] = i + p;
        t.at[1] = t.at[2] = 0;
        if (i >= 1 && i <= p) t.at[t.count++ == 1 ? 1 : 2] = p - i;
        if (i >= n - 1 - p && i <= n - 2) {
            int mirror = 2 * (n - 1) - i + p;
            if (t.count == 1)
                t.at[1] = mirror;
            else
                t.at[2] = mirror;
            t.count++;
        }
        t.at[3] = 0;
        t.w[0] = t.w[1] = t.w[2] = t.w[3] = 1.f;
    } else if constexpr (KIND == DOWN) {
        int on = (n + 1) / 2, odd = i & 1;
        t.at[0] = i / 2;
        t.w[0] = !odd ? 0.5f : i == 1 ? 0.5f : 0.25f;
        t.at[1] = i / 2 + 1;
        t.w[1] = i == n - 2 ? 0.5f : 0.25f; /* then n is odd and the last output's right side mirrors onto i */
        t.count = odd && i / 2 + 1 < on ? 2 : 1;
        t.at[2] = t.at[3] = 0;
        t.w[2] = t.w[3] = 0.f;
    } else {
        t.count = 4;
        t.at[0] = i > 0 ? 2 * i - 1 : 0;
        t.at[1] = 2 * i;
        t.at[2] = 2 * i + 1;
        t.at[3] = i < n - 1 ? 2 * i + 2 : 2 * n - 1;
        t.w[0] = t.w[3] = 0.25f;
        t.w[1] = t.w[2] = 0.75f;
    }
    return t;
}

template <int KIND> static __host__ __device__ __forceinline__ int side_of(int n, int p) {
    return KIND == PAD ? n + 2 * p : KIND == DOWN ? (n + 1) / 2 : 2 * n;
}

/* g is dx's. */
template <class T, int V, int KIND>
__global__ void __launch_bounds__(256, 2) gather_back(dk_rows g, int p, const T *__restrict__ dy, T *__restrict__ dx) {
    int ch = (int)(blockIdx.z * blockDim.x + threadIdx.x) * V, ix = (int)(blockIdx.x * blockDim.y + threadIdx.y);
    int oh = side_of<KIND>(g.h, p), ow = side_of<KIND>(g.w, p);
    if (ch >= g.c || ix >= g.w) return;
    taps h = taps_of<KIND>(ix, g.w, p);
    for (int64_t row = (int64_t)blockIdx.y * blockDim.z + threadIdx.z; row < (int64_t)g.n * g.h;
         row += (int64_t)gridDim.y * blockDim.z) {
        int n = (int)(row / g.h);
        taps v = taps_of<KIND>((int)(row - (int64_t)n * g.h), g.h, p);
        const T *image = dy + (size_t)n * oh * ow * g.c + ch;
        dk_vec<V> sum;
#pragma unroll
        for (int i = 0; i < V; i++) sum.v[i] = 0.f;
#pragma unroll
        for (int a = 0; a < 4; a++) {
            if (a >= v.count) continue;
            const T *line = image + (size_t)v.at[a] * ow * g.c;
            dk_vec<V> across;
#pragma unroll
            for (int i = 0; i < V; i++) across.v[i] = 0.f;
#pragma unroll
            for (int b = 0; b < 4; b++) {
                if (b < h.count) across = dk_mix(1.f, across, h.w[b], dk_get<V>(line + (size_t)h.at[b] * g.c));
            }
            sum = dk_mix(1.f, sum, v.w[a], across);
        }
        dk_put<V>(dx + ((size_t)row * g.w + ix) * g.c + ch, sum);
    }
}

template <class T, int V, int KIND> static void back(cudaStream_t st, dk_map x, int p, const void *dy, void *dx) {
    dk_rows g = dk_rows_of(x);
    dk_shape3 s = dk_cover(g.c / V, g.w, 1, (int64_t)g.n * g.h);
    DR_LAUNCH((gather_back<T, V, KIND>), s.grid, s.block, 0, st, g, p, (const T *)dy, (T *)dx);
}
template <class T, int V> static void pad_back(cudaStream_t st, dk_map x, int p, const void *dy, void *dx) {
    back<T, V, PAD>(st, x, p, dy, dx);
}
template <class T, int V> static void down_back(cudaStream_t st, dk_map x, const void *dy, void *dx) {
    back<T, V, DOWN>(st, x, 0, dy, dx);
}
template <class T, int V> static void up_back(cudaStream_t st, dk_map x, const void *dy, void *dx) {
    back<T, V, UP>(st, x, 0, dy, dx);
}

template <class T, int V> static void pad(cudaStream_t st, dk_map x, int p, const void *px, void *y) {
    dk_mirror<T, V>(st, dk_rows_of(x), p, dk_as_is<V>{}, px, nullptr, 0, y);
}
template <class T, int V> static void down(cudaStream_t st, dk_map x, const void *px, void *y) {
    dk_down<T, V>(st, dk_rows_of(x), dk_as_is<V>{}, px, y);
}
template <class T, int V> static void up(cudaStream_t st, dk_map x, const void *px, void *y) {
    dk_up<T, V>(st, dk_rows_of(x), dk_as_is<V>{}, px, y);
}

void dk_pad_reflect(cudaStream_t st, dk_map x, int p, const void *px, void *y) {
    DK_BY_MAP(x, pad, st, x, p, px, y);
}
void dk_pad_reflect_bwd(cudaStream_t st, dk_map x, int p, const void *dy, void *dx) {
    DK_BY_MAP(x, pad_back, st, x, p, dy, dx);
}
void dk_blur_down(cudaStream_t st, dk_map x, const void *px, void *y) {
    DK_BY_MAP(x, down, st, x, px, y);
}
void dk_blur_down_bwd(cudaStream_t st, dk_map x, const void *dy, void *dx) {
    DK_BY_MAP(x, down_back, st, x, dy, dx);
}
void dk_blur_up(cudaStream_t st, dk_map x, const void *px, void *y) {
    DK_BY_MAP(x, up, st, x, px, y);
}
void dk_blur_up_bwd(cudaStream_t st, dk_map x, const void *dy, void *dx) {
    DK_BY_MAP(x, up_back, st, x, dy, dx);
}
