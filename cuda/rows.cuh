/* rows.cuh - output rows made from input rows: mirrored copies and the two anti-alias filters (METHOD.md 2.2, 3), each
 * with something done to every input value first (PRE): nothing, or normalisation and activation. k_resample.cu and
 * k_norm.cu share these kernels, so that the fused pass and the plain one cannot disagree.
 *
 * A thread owns V neighbouring channels (8 of a wide tensor, 1 of a planar one, whose channels count as images) of a
 * few pixels of one row. blockDim.x runs over the channel groups, y over the pixels of a row, z over rows: neighbouring
 * threads read neighbouring memory, and rows are found without a division per pixel. */
#ifndef DR_CUDA_ROWS_CUH
#define DR_CUDA_ROWS_CUH

#include "cuda/dev.cuh"

/* n images of h x w pixels of c channels, channels innermost. */
struct dk_rows {
    int n, c, h, w;
    int per; /* pixels of a thread, side by side */
};

static inline dk_rows dk_rows_of(dk_map m) {
    return m.wide ? dk_rows{m.n, m.c, m.h, m.w, 1} : dk_rows{m.n * m.c, 1, m.h, m.w, 1};
}

struct dk_shape3 {
    dim3 grid, block;
};

/* Threads for `rows` rows of `width` places, each place taking `per` pixels at once. */
static inline dk_shape3 dk_cover(int groups, int width, int per, int64_t rows) {
    unsigned bx = groups < 256 ? (unsigned)groups : 256u, by = 1, bz;
    unsigned places = (unsigned)((width + per - 1) / per);
    while (by < places && bx * by * 2 <= 256) by *= 2;
    bz = 256 / (bx * by);
    if (bz > 64) bz = 64;
    while (bz > 1 && (int64_t)bz > rows) bz /= 2;
    int64_t gy = (rows + bz - 1) / bz;
    return dk_shape3{
        dim3((places + by - 1) / by, (unsigned)(gy < 65535 ? gy : 65535), ((unsigned)groups + bx - 1) / bx),
        dim3(bx, by, bz)};
}

/* The most pixels per thread that still leave work for the whole device. */
static inline int dk_per(int groups, int width, int64_t rows) {
    for (int per = 4; per > 1; per /= 2) {
        dk_shape3 s = dk_cover(groups, width, per, rows);
        if ((uint64_t)s.grid.x * s.grid.y * s.grid.z >= DK_PER_GPU) return per;
    }
    return 1;
}

template <int V> struct dk_vec { float v[V]; };
template <int V, class T> DK_INLINE dk_vec<V> dk_get(const T *p) {
    dk_vec<V> r;
    if constexpr (V == 8) {
        f8 f = dk_load8(p);
#pragma unroll
        for (int i = 0; i < V; i++) r.v[i] = f.v[i];
    } else {
        r.v[0] = dk_load(p);
    }
    return r;
}
template <int V, class T> DK_INLINE void dk_put(T *p, const dk_vec<V> &a) {
    if constexpr (V == 8) {
        f8 f;
#pragma unroll
        for (int i = 0; i < V; i++) f.v[i] = a.v[i];
        dk_store8(p, f);
    } else {
        dk_store(p, a.v[0]);
    }
}
/* a*x + b*y */
template <int V> DK_INLINE dk_vec<V> dk_mix(float a, const dk_vec<V> &x, float b, const dk_vec<V> &y) {
    dk_vec<V> r;
#pragma unroll
    for (int i = 0; i < V; i++) r.v[i] = a * x.v[i] + b * y.v[i];
    return r;
}

template <int V> struct dk_as_is {
    DK_MEMBER void at(int, int, int) {}
    DK_MEMBER void apply(dk_vec<V> &) const {}
};

/* act((x-mean)*rstd); slope is what a negative value is multiplied by: 1 NONE, 0 RELU, 0.2 LRELU. */
template <int V> struct dk_normed {
    const float *stats;
    float slope;
    float mean[V], rstd[V];

    DK_MEMBER void at(int n, int c, int ch) {
        const float2 *s = reinterpret_cast<const float2 *>(stats) + ((size_t)n * c + ch);
#pragma unroll
        for (int i = 0; i < V; i++) {
            float2 p = s[i];
            mean[i] = p.x;
            rstd[i] = p.y;
        }
    }
    DK_MEMBER void apply(dk_vec<V> &a) const {
#pragma unroll
        for (int i = 0; i < V; i++) {
            float f = (a.v[i] - mean[i]) * rstd[i];
            a.v[i] = f < 0.f ? slope * f : f;
        }
    }
};

template <int V, class PRE, class T> DK_INLINE dk_vec<V> dk_take(const T *p, const PRE &pre) {
    dk_vec<V> a = dk_get<V>(p);
    pre.apply(a);
    return a;
}

/* y (h+2p x w+2p) = pre(x) mirrored outward by p pixels, plus the inner part of resid (h+2q x w+2q), mirrored as well.
 * All K pixels of a thread are read before the first is written: y may be x or resid if p = q = 0. */
template <class T, int V, int K, class PRE>
__global__ void __launch_bounds__(256, 2)
    dk_k_mirror(dk_rows g, int p, PRE pre, const T *x, const T *resid, int q, T *y) {
    int ch = (int)(blockIdx.z * blockDim.x + threadIdx.x) * V, oh = g.h + 2 * p, ow = g.w + 2 * p;
    int x0 = (int)(blockIdx.x * K * blockDim.y + threadIdx.y);
    if (ch >= g.c) return;
    for (int64_t row = (int64_t)blockIdx.y * blockDim.z + threadIdx.z; row < (int64_t)g.n * oh;
         row += (int64_t)gridDim.y * blockDim.z) {
        int n = (int)(row / oh), iy = dk_reflect((int)(row - (int64_t)n * oh) - p, g.h);
        const T *from = x + ((size_t)n * g.h + iy) * g.w * g.c + ch;
        const T *add = resid ? resid + (((size_t)n * (g.h + 2 * q) + iy + q) * (g.w + 2 * q) + q) * g.c + ch : nullptr;
        T *to = y + (size_t)row * ow * g.c + ch;
        dk_vec<V> a[K] = {};
        pre.at(n, g.c, ch);
#pragma unroll
        for (int k = 0; k < K; k++) {
            int ox = x0 + k * (int)blockDim.y;
            if (ox < ow) a[k] = dk_get<V>(from + (size_t)dk_reflect(ox - p, g.w) * g.c);
        }
#pragma unroll
        for (int k = 0; k < K; k++) pre.apply(a[k]);
        if (add) {
#pragma unroll
            for (int k = 0; k < K; k++) {
                int ox = x0 + k * (int)blockDim.y;
                if (ox < ow) a[k] = dk_mix(1.f, a[k], 1.f, dk_get<V>(add + (size_t)dk_reflect(ox - p, g.w) * g.c));
            }
        }
#pragma unroll
        for (int k = 0; k < K; k++) {
            int ox = x0 + k * (int)blockDim.y;
            if (ox < ow) dk_put<V>(to + (size_t)ox * g.c, a[k]);
        }
    }
}

/* Blur (1,2,1)/4 both ways and every second pixel, borders mirrored. A thread walks along its pixels and keeps the
 * vertical sum of the column between two of them. */
template <class T, int V, class PRE>
__global__ void __launch_bounds__(256, 2) dk_k_down(dk_rows g, PRE pre, const T *__restrict__ x, T *__restrict__ y) {
    int ch = (int)(blockIdx.z * blockDim.x + threadIdx.x) * V, oh = (g.h + 1) / 2, ow = (g.w + 1) / 2;
    int x0 = (int)(blockIdx.x * blockDim.y + threadIdx.y) * g.per, x1 = min(x0 + g.per, ow);
    if (ch >= g.c || x0 >= ow) return;
    for (int64_t row = (int64_t)blockIdx.y * blockDim.z + threadIdx.z; row < (int64_t)g.n * oh;
         row += (int64_t)gridDim.y * blockDim.z) {
        int n = (int)(row / oh), iy = 2 * (int)(row - (int64_t)n * oh);
        const T *image = x + (size_t)n * g.h * g.w * g.c + ch;
        const T *a = image + (size_t)dk_reflect(iy - 1, g.h) * g.w * g.c, *b = image + (size_t)iy * g.w * g.c,
                *c = image + (size_t)dk_reflect(iy + 1, g.h) * g.w * g.c;
        T *to = y + (size_t)row * ow * g.c + ch;
        pre.at(n, g.c, ch);
        auto column = [&](int ix) {
            size_t o = (size_t)ix * g.c;
            dk_vec<V> outer = dk_mix(0.25f, dk_take<V>(a + o, pre), 0.25f, dk_take<V>(c + o, pre));
            return dk_mix(1.f, outer, 0.5f, dk_take<V>(b + o, pre));
        };
        dk_vec<V> left = column(dk_reflect(2 * x0 - 1, g.w));
        for (int ox = x0; ox < x1; ox++) {
            dk_vec<V> mid = column(2 * ox), right = column(dk_reflect(2 * ox + 1, g.w));
            dk_put<V>(to + (size_t)ox * g.c, dk_mix(1.f, dk_mix(0.25f, left, 0.25f, right), 0.5f, mid));
            left = right;
        }
    }
}

/* Twice the size: y[2k] = x[k-1]/4 + 3x[k]/4, y[2k+1] = 3x[k]/4 + x[k+1]/4 both ways, borders repeated. A thread makes
 * the four outputs of its input pixels and keeps the columns left and right of them. */
template <class T, int V, class PRE>
__global__ void __launch_bounds__(256, 2) dk_k_up(dk_rows g, PRE pre, const T *__restrict__ x, T *__restrict__ y) {
    int ch = (int)(blockIdx.z * blockDim.x + threadIdx.x) * V;
    int x0 = (int)(blockIdx.x * blockDim.y + threadIdx.y) * g.per, x1 = min(x0 + g.per, g.w);
    if (ch >= g.c || x0 >= g.w) return;
    for (int64_t row = (int64_t)blockIdx.y * blockDim.z + threadIdx.z; row < (int64_t)g.n * g.h;
         row += (int64_t)gridDim.y * blockDim.z) {
        int n = (int)(row / g.h), iy = (int)(row - (int64_t)n * g.h);
        const T *image = x + (size_t)n * g.h * g.w * g.c + ch;
        const T *a = image + (size_t)max(iy - 1, 0) * g.w * g.c, *b = image + (size_t)iy * g.w * g.c,
                *c = image + (size_t)min(iy + 1, g.h - 1) * g.w * g.c;
        T *to = y + (size_t)row * 4 * g.w * g.c + ch, *below = to + (size_t)2 * g.w * g.c;
        pre.at(n, g.c, ch);
        struct pair {
            dk_vec<V> top, bottom; /* of the two output rows */
        };
        auto column = [&](int ix) {
            size_t o = (size_t)ix * g.c;
            dk_vec<V> m = dk_take<V>(b + o, pre);
            return pair{dk_mix(0.25f, dk_take<V>(a + o, pre), 0.75f, m),
                        dk_mix(0.75f, m, 0.25f, dk_take<V>(c + o, pre))};
        };
        pair left = column(max(x0 - 1, 0)), mid = column(x0);
        for (int ix = x0; ix < x1; ix++) {
            pair right = column(min(ix + 1, g.w - 1));
            size_t o = (size_t)2 * ix * g.c;
            dk_put<V>(to + o, dk_mix(0.25f, left.top, 0.75f, mid.top));
            dk_put<V>(to + o + g.c, dk_mix(0.75f, mid.top, 0.25f, right.top));
            dk_put<V>(below + o, dk_mix(0.25f, left.bottom, 0.75f, mid.bottom));
            dk_put<V>(below + o + g.c, dk_mix(0.75f, mid.bottom, 0.25f, right.bottom));
            left = mid;
            mid = right;
        }
    }
}

template <class T, int V, class PRE>
static void dk_mirror(cudaStream_t st, dk_rows g, int p, PRE pre, const void *x, const void *resid, int q, void *y) {
    int64_t rows = (int64_t)g.n * (g.h + 2 * p);
    const T *px = (const T *)x, *pr = (const T *)resid;
    if (dk_per(g.c / V, g.w + 2 * p, rows) == 4) {
        dk_shape3 s = dk_cover(g.c / V, g.w + 2 * p, 4, rows);
        DR_LAUNCH((dk_k_mirror<T, V, 4, PRE>), s.grid, s.block, 0, st, g, p, pre, px, pr, q, (T *)y);
    } else {
        dk_shape3 s = dk_cover(g.c / V, g.w + 2 * p, 1, rows);
        DR_LAUNCH((dk_k_mirror<T, V, 1, PRE>), s.grid, s.block, 0, st, g, p, pre, px, pr, q, (T *)y);
    }
}
template <class T, int V, class PRE> static void dk_down(cudaStream_t st, dk_rows g, PRE pre, const void *x, void *y) {
    int64_t rows = (int64_t)g.n * ((g.h + 1) / 2);
    g.per = dk_per(g.c / V, (g.w + 1) / 2, rows);
    dk_shape3 s = dk_cover(g.c / V, (g.w + 1) / 2, g.per, rows);
    DR_LAUNCH((dk_k_down<T, V, PRE>), s.grid, s.block, 0, st, g, pre, (const T *)x, (T *)y);
}
template <class T, int V, class PRE> static void dk_up(cudaStream_t st, dk_rows g, PRE pre, const void *x, void *y) {
    int64_t rows = (int64_t)g.n * g.h;
    g.per = dk_per(g.c / V, g.w, rows);
    dk_shape3 s = dk_cover(g.c / V, g.w, g.per, rows);
    DR_LAUNCH((dk_k_up<T, V, PRE>), s.grid, s.block, 0, st, g, pre, (const T *)x, (T *)y);
}

/* Calls f<T, V>(...) for the storage of a map. */
#define DK_BY_MAP(m, f, ...)                                                                                           \
    do {                                                                                                               \
        if (!(m).wide)                                                                                                 \
            f<float, 1>(__VA_ARGS__);                                                                                  \
        else if ((m).type == DK_BF16)                                                                                  \
            f<bf16, 8>(__VA_ARGS__);                                                                                   \
        else if ((m).type == DK_F16)                                                                                   \
            f<f16, 8>(__VA_ARGS__);                                                                                    \
        else                                                                                                           \
            f<float, 8>(__VA_ARGS__);                                                                                  \
    } while (0)

#endif
