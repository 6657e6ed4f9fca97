/* k_elt.cu - elementwise kernels. Flat ones are function objects over vec.cuh's map; what differs by layout is the one
 * channel that serves all (add_bcast): planar walks planes, wide walks pixels, whose channels lie side by side. */
#include "cuda/vec.cuh"

struct fill_op {
    static constexpr int inputs = 0;
    float v;
    __device__ float operator()(float, float) const { return v; }
};
struct axpy_op { /* a x + y */
    static constexpr int inputs = 2;
    float a;
    __device__ float operator()(float x, float y) const { return a * x + y; }
};
struct scale_op {
    static constexpr int inputs = 1;
    float a;
    __device__ float operator()(float x, float) const { return a * x; }
};
struct clamp_op { /* comparisons as on the CPU: NaN stays NaN */
    static constexpr int inputs = 1;
    float lo, hi;
    __device__ float operator()(float x, float) const { return x < lo ? lo : x > hi ? hi : x; }
};
struct clamp_bwd_op {
    static constexpr int inputs = 2;
    float lo, hi;
    __device__ float operator()(float x, float dy) const { return x < lo || x > hi ? 0.0f : dy; }
};

template <dk_act A> struct act_op {
    static constexpr int inputs = 1;
    __device__ float operator()(float x, float) const {
        if constexpr (A == DK_ACT_RELU) return x < 0 ? 0.0f : x;
        if constexpr (A == DK_ACT_LRELU) return x < 0 ? 0.2f * x : x;
        if constexpr (A == DK_ACT_TANH) return tanhf(x);
        return x;
    }
};
template <dk_act A> struct act_bwd_op { /* y is the activation's output */
    static constexpr int inputs = 2;
    __device__ float operator()(float y, float dy) const {
        if constexpr (A == DK_ACT_RELU) return y > 0 ? dy : 0.0f;
        if constexpr (A == DK_ACT_LRELU) return y > 0 ? dy : 0.2f * dy;
        if constexpr (A == DK_ACT_TANH) return (1.0f - y * y) * dy;
        return dy;
    }
};

void dk_fill(cudaStream_t st, dk_type t, size_t n, float v, void *y) {
    map(st, t, fill_op{v}, n, NULL, NULL, y);
}
void dk_axpy(cudaStream_t st, dk_type t, size_t n, float a, const void *x, void *y) {
    map(st, t, axpy_op{a}, n, x, y, y);
}
void dk_add(cudaStream_t st, dk_type t, size_t n, const void *a, const void *b, void *y) {
    map(st, t, axpy_op{1}, n, a, b, y);
}
void dk_scale(cudaStream_t st, dk_type t, size_t n, float a, const void *x, void *y) {
    map(st, t, scale_op{a}, n, x, NULL, y);
}
void dk_clamp(cudaStream_t st, dk_type t, size_t n, float lo, float hi, const void *x, void *y) {
    map(st, t, clamp_op{lo, hi}, n, x, NULL, y);
}
void dk_clamp_bwd(cudaStream_t st, dk_type t, size_t n, float lo, float hi, const void *x, const void *dy, void *dx) {
    map(st, t, clamp_bwd_op{lo, hi}, n, x, dy, dx);
}

template <template <dk_act> class F>
static void map_act(cudaStream_t st, dk_type t, dk_act act, size_t n, const void *a, const void *b, void *y) {
    switch (act) {
    case DK_ACT_RELU:
        return map(st, t, F<DK_ACT_RELU>(), n, a, b, y);
    case DK_ACT_LRELU:
        return map(st, t, F<DK_ACT_LRELU>(), n, a, b, y);
    case DK_ACT_TANH:
        return map(st, t, F<DK_ACT_TANH>(), n, a, b, y);
    case DK_ACT_NONE:
        break;
    }
    map(st, t, F<DK_ACT_NONE>(), n, a, b, y);
}
void dk_activate(cudaStream_t st, dk_type t, size_t n, dk_act act, const void *x, void *y) {
    map_act<act_op>(st, t, act, n, x, NULL, y);
}
void dk_activate_bwd(cudaStream_t st, dk_type t, size_t n, dk_act act, const void *y, const void *dy, void *dx) {
    map_act<act_bwd_op>(st, t, act, n, y, dy, dx);
}

/* ---- one channel for all ----------------------------------------------------------------------------------------- */

/* blockIdx.y: plane (n,c); b has plane n. V divides hw. */
template <int V>
static __global__ void bcast_planar(size_t hw, int c, size_t planes, float s, const float *a, const float *b,
                                    float *y) {
    for (size_t plane = blockIdx.y; plane < planes; plane += gridDim.y) {
        const float *pa = a + plane * hw, *pb = b + plane / (size_t)c * hw;
        for (size_t i = thread_id() * V; i < hw; i += thread_count() * V) {
            float va[V], vb[V];
            load<V>(pa + i, va);
            load<V>(pb + i, vb);
#pragma unroll
            for (int k = 0; k < V; k++) va[k] += s * vb[k];
            store<V>(va, y + plane * hw + i);
        }
    }
}

/* A pixel is `pieces` 16-byte pieces. */
template <class T>
static __global__ void bcast_wide(size_t pixels, int pieces, float s, const T *a, const float *b, T *y) {
    constexpr int V = VEC<T>;
    for (size_t i = thread_id(); i < pixels * (size_t)pieces; i += thread_count()) {
        const float sb = s * b[i / (size_t)pieces];
        float v[V];
        load<V>(a + i * V, v);
#pragma unroll
        for (int k = 0; k < V; k++) v[k] += sb;
        store<V>(v, y + i * V);
    }
}

template <int V> static __global__ void bcast_bwd_planar(size_t hw, int c, int n, float s, const float *dy, float *db) {
    for (size_t image = blockIdx.y; image < (size_t)n; image += gridDim.y) {
        const float *p = dy + image * (size_t)c * hw;
        for (size_t i = thread_id() * V; i < hw; i += thread_count() * V) {
            float sum[V] = {};
            for (int j = 0; j < c; j++) {
                float v[V];
                load<V>(p + (size_t)j * hw + i, v);
#pragma unroll
                for (int k = 0; k < V; k++) sum[k] += v[k];
            }
#pragma unroll
            for (int k = 0; k < V; k++) sum[k] *= s;
            store<V>(sum, db + image * hw + i);
        }
    }
}

/* Eight lanes per pixel. All lanes take part in the shuffles: those past the end carry zeros. */
template <class T> static __global__ void bcast_bwd_wide(size_t pixels, int pieces, float s, const T *dy, float *db) {
    constexpr int V = VEC<T>;
    const int lane = threadIdx.x & 7;
    const size_t step = thread_count() / 8;
    for (size_t from = (size_t)blockIdx.x * (BLOCK / 8); from < pixels; from += step) {
        const size_t pixel = from + threadIdx.x / 8;
        float sum = 0;
        for (int j = lane; pixel < pixels && j < pieces; j += 8) {
            float v[V];
            load<V>(dy + (pixel * (size_t)pieces + (size_t)j) * V, v);
#pragma unroll
            for (int k = 0; k < V; k++) sum += v[k];
        }
        for (int o = 4; o > 0; o >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, o);
        if (lane == 0 && pixel < pixels) db[pixel] = s * sum;
    }
}

static unsigned grid_y(size_t n) {
    return (unsigned)(n < 65535 ? n : 65535);
}

void dk_add_bcast(cudaStream_t st, dk_map a, float s, const void *pa, int b_channels, const void *b, void *y) {
    const size_t hw = (size_t)a.h * (size_t)a.w, planes = (size_t)a.n * (size_t)a.c;
    const float *pb = (const float *)b;
    if (b_channels == a.c) return map(st, a.type, axpy_op{s}, dk_count(a), b, pa, y);
    if (a.wide) {
        const unsigned g = dk_grid(dk_count(a) * dk_elt(a.type) / 16, BLOCK);
        DK_TYPED(a.type, T,
                 DR_LAUNCH(bcast_wide<T>, dim3(g), dim3(BLOCK), 0, st, (size_t)a.n * hw, a.c / VEC<T>, s, (const T *)pa,
                           pb, (T *)y));
    } else if (hw % 4 == 0) {
        DR_LAUNCH(bcast_planar<4>, dim3(dk_grid(hw / 4, BLOCK), grid_y(planes)), dim3(BLOCK), 0, st, hw, a.c, planes, s,
                  (const float *)pa, pb, (float *)y);
    } else {
        DR_LAUNCH(bcast_planar<1>, dim3(dk_grid(hw, BLOCK), grid_y(planes)), dim3(BLOCK), 0, st, hw, a.c, planes, s,
                  (const float *)pa, pb, (float *)y);
    }
}

void dk_add_bcast_bwd(cudaStream_t st, dk_map a, float s, const void *dy, int b_channels, void *db) {
    const size_t hw = (size_t)a.h * (size_t)a.w, pixels = (size_t)a.n * hw;
    float *pb = (float *)db;
    if (b_channels == a.c) return dk_scale(st, a.type, dk_count(a), s, dy, db);
    if (a.wide)
        DK_TYPED(a.type, T,
                 DR_LAUNCH(bcast_bwd_wide<T>, dim3(dk_grid(pixels * 8, BLOCK)), dim3(BLOCK), 0, st, pixels,
                           a.c / VEC<T>, s, (const T *)dy, pb));
    else if (hw % 4 == 0)
        DR_LAUNCH(bcast_bwd_planar<4>, dim3(dk_grid(hw / 4, BLOCK), grid_y((size_t)a.n)), dim3(BLOCK), 0, st, hw, a.c,
                  a.n, s, (const float *)dy, pb);
    else
        DR_LAUNCH(bcast_bwd_planar<1>, dim3(dk_grid(hw, BLOCK), grid_y((size_t)a.n)), dim3(BLOCK), 0, st, hw, a.c, a.n,
                  s, (const float *)dy, pb);
}
