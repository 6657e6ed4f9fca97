/* k_norm.cu - instance norm: statistics, the one fused pass that applies them, and the backward pass.
 *
 * Sums over an image's pixels are taken slab by slab: a block owns a slab of pixels and up to 256 channel groups, adds
 * in registers, then over its rows of threads in a tree, and writes one pair per channel; a second kernel adds the
 * slabs in a fixed order, in double. How slabs are cut depends on the size of one image only: an image has the same
 * statistics alone and in a batch. Sums of values and squares are shifted by the channel's first pixel, or they would
 * cancel where the mean is large against the deviation (relative error of the variance at mean/sigma 30: 2.6e-3 plain,
 * 2e-6 shifted). */
#include "cuda/rows.cuh"

#include <assert.h>

static const int64_t SLABS_MAX = 1056, SLAB_PER_THREAD = 4;

struct slabs {
    int groups, n; /* channel groups; slabs of an image */
    unsigned bx, by;
    int64_t pixels, len; /* of an image, of a slab */
};

static slabs cut(dk_rows g, int v) {
    slabs s;
    s.groups = g.c / v;
    s.bx = s.groups < 256 ? (unsigned)s.groups : 256u;
    s.by = 256 / s.bx;
    s.pixels = (int64_t)g.h * g.w;
    int64_t n = (s.pixels + s.by * SLAB_PER_THREAD - 1) / (s.by * SLAB_PER_THREAD);
    if (n > SLABS_MAX) n = SLABS_MAX;
    s.len = (s.pixels + n - 1) / n;
    s.n = (int)((s.pixels + s.len - 1) / s.len);
    return s;
}

static slabs cut_map(dk_map m) {
    return cut(dk_rows_of(m), m.wide ? 8 : 1);
}

/* Scratch: n * slabs * c pairs of sums, then n * c pairs of means for the backward pass. */
static size_t part_count(dk_map m) {
    return (size_t)m.n * (size_t)m.c * (size_t)cut_map(m).n;
}
size_t dk_norm_scratch(dk_map m) {
    return (part_count(m) + (size_t)m.n * (size_t)m.c) * sizeof(float2);
}

static float slope_of(dk_act act) {
    assert(act != DK_ACT_TANH); /* not after a norm: the table allows NONE, RELU and LRELU */
    return act == DK_ACT_RELU ? 0.f : act == DK_ACT_LRELU ? 0.2f : 1.f;
}

/* Forward (dy NULL): sums of (x - first pixel) and its square. Backward: of g = act'(xh)*dy and g*xh. */
template <class T, int V, bool BWD>
__global__ void __launch_bounds__(256, 2)
    norm_sums(int images, int c, int64_t pixels, int64_t len, float slope, const T *__restrict__ x,
              const float2 *__restrict__ stats, const T *__restrict__ dy, float2 *__restrict__ part) {
    DR_DYN_SHARED(float2, sh); /* V arrays of blockDim.y x blockDim.x */
    unsigned tx = threadIdx.x, ty = threadIdx.y, bx = blockDim.x, by = blockDim.y;
    int ch = (int)(blockIdx.z * bx + tx) * V;
    bool mine = ch < c;
    int64_t p0 = (int64_t)blockIdx.x * len, p1 = min(p0 + len, pixels);
    for (int n = (int)blockIdx.y; n < images; n += (int)gridDim.y) {
        dk_vec<V> s, q, mean, rstd;
#pragma unroll
        for (int i = 0; i < V; i++) s.v[i] = q.v[i] = 0.f;
        if (mine) {
            const T *px = x + (size_t)n * (size_t)pixels * c + ch;
            if constexpr (BWD) {
                const T *pd = dy + (size_t)n * (size_t)pixels * c + ch;
#pragma unroll
                for (int i = 0; i < V; i++) {
                    float2 m = stats[(size_t)n * c + ch + i];
                    mean.v[i] = m.x;
                    rstd.v[i] = m.y;
                }
#pragma unroll 2
                for (int64_t p = p0 + ty; p < p1; p += by) {
                    dk_vec<V> a = dk_get<V>(px + (size_t)p * c), d = dk_get<V>(pd + (size_t)p * c);
#pragma unroll
                    for (int i = 0; i < V; i++) {
                        float xh = (a.v[i] - mean.v[i]) * rstd.v[i], g = xh > 0.f ? d.v[i] : slope * d.v[i];
                        s.v[i] += g;
                        q.v[i] += g * xh;
                    }
                }
            } else {
                dk_vec<V> first = dk_get<V>(px);
#pragma unroll 4
                for (int64_t p = p0 + ty; p < p1; p += by) {
                    dk_vec<V> a = dk_get<V>(px + (size_t)p * c);
#pragma unroll
                    for (int i = 0; i < V; i++) {
                        float f = a.v[i] - first.v[i];
                        s.v[i] += f;
                        q.v[i] += f * f;
                    }
                }
            }
        }
        unsigned at = ty * bx + tx, plane = bx * by, half = 1;
        while (half < by) half *= 2;
#pragma unroll
        for (int i = 0; i < V; i++) sh[i * plane + at] = make_float2(s.v[i], q.v[i]);
        __syncthreads();
        for (half /= 2; half > 0; half /= 2) {
            if (ty < half && ty + half < by) {
#pragma unroll
                for (int i = 0; i < V; i++) {
                    float2 a = sh[i * plane + at], b = sh[i * plane + at + half * bx];
                    sh[i * plane + at] = make_float2(a.x + b.x, a.y + b.y);
                }
            }
            __syncthreads();
        }
        if (mine && ty == 0) {
            float2 *to = part + ((size_t)n * gridDim.x + blockIdx.x) * c + ch;
#pragma unroll
            for (int i = 0; i < V; i++) to[i] = sh[i * plane + tx];
        }
        __syncthreads(); /* before the next image's sums */
    }
}

/* Adds the slabs of a channel. Forward: (mean, rstd), shifted back. Backward (x NULL): the means of both sums. */
template <class T>
__global__ void __launch_bounds__(1024)
    norm_finish(int images, int c, int slabs, double pixels, float eps, const T *__restrict__ x,
                const float2 *__restrict__ part, float2 *__restrict__ out) {
    DR_DYN_SHARED(double2, sh);
    unsigned tx = threadIdx.x, ty = threadIdx.y, bx = blockDim.x, by = blockDim.y; /* by is a power of 2 */
    int ch = (int)(blockIdx.x * bx + tx);
    for (int n = (int)blockIdx.y; n < images; n += (int)gridDim.y) {
        double s = 0, q = 0;
        if (ch < c) {
#pragma unroll 4
            for (int i = (int)ty; i < slabs; i += (int)by) {
                float2 a = part[((size_t)n * slabs + i) * c + ch];
                s += (double)a.x;
                q += (double)a.y;
            }
        }
        unsigned at = ty * bx + tx;
        sh[at] = make_double2(s, q);
        __syncthreads();
        for (unsigned half = by / 2; half > 0; half /= 2) {
            if (ty < half) {
                sh[at].x += sh[at + half * bx].x;
                sh[at].y += sh[at + half * bx].y;
            }
            __syncthreads();
        }
        if (ty == 0 && ch < c) {
            double a = sh[tx].x / pixels, b = sh[tx].y / pixels;
            float2 r = make_float2((float)a, (float)b);
            if (x) {
                double var = b - a * a;
                r.x = (float)(a + (double)dk_load(x + (size_t)n * (size_t)pixels * c + ch));
                r.y = (float)(1.0 / sqrt((var < 0 ? 0 : var) + (double)eps)); /* a NaN stays one */
            }
            out[(size_t)n * c + ch] = r;
        }
        __syncthreads();
    }
}

/* dx = rstd*(g - mean(g) - xh*mean(g*xh)); `per` pixels of a thread, by blockDim.y apart. */
template <class T, int V>
__global__ void __launch_bounds__(256, 2)
    norm_dx(int images, int c, int64_t pixels, int per, float slope, const T *__restrict__ x,
            const float2 *__restrict__ stats, const float2 *__restrict__ means, const T *__restrict__ dy,
            T *__restrict__ dx) {
    int ch = (int)(blockIdx.z * blockDim.x + threadIdx.x) * V;
    int64_t p0 = (int64_t)blockIdx.x * blockDim.y * per + threadIdx.y, p1 = min(p0 + (int64_t)blockDim.y * per, pixels);
    if (ch >= c) return;
    for (int n = (int)blockIdx.y; n < images; n += (int)gridDim.y) {
        float2 s[V], m[V];
#pragma unroll
        for (int i = 0; i < V; i++) {
            s[i] = stats[(size_t)n * c + ch + i];
            m[i] = means[(size_t)n * c + ch + i];
        }
        size_t base = (size_t)n * (size_t)pixels * c + ch;
#pragma unroll 2
        for (int64_t p = p0; p < p1; p += blockDim.y) {
            size_t o = base + (size_t)p * c;
            dk_vec<V> a = dk_get<V>(x + o), d = dk_get<V>(dy + o);
#pragma unroll
            for (int i = 0; i < V; i++) {
                float xh = (a.v[i] - s[i].x) * s[i].y, g = xh > 0.f ? d.v[i] : slope * d.v[i];
                a.v[i] = s[i].y * (g - m[i].x - xh * m[i].y);
            }
            dk_put<V>(dx + o, a);
        }
    }
}

static unsigned images_grid(int n) {
    return n < 65535 ? (unsigned)n : 65535u;
}

template <class T, int V, bool BWD>
static void sums(cudaStream_t st, dk_rows g, float eps, float slope, const T *x, const float2 *stats, const T *dy,
                 float2 *part, float2 *out) {
    slabs s = cut(g, V);
    unsigned groups_z = ((unsigned)s.groups + s.bx - 1) / s.bx;
    DR_LAUNCH((norm_sums<T, V, BWD>), dim3((unsigned)s.n, images_grid(g.n), groups_z), dim3(s.bx, s.by),
              (size_t)s.bx * s.by * V * sizeof(float2), st, g.n, g.c, s.pixels, s.len, slope, x, stats, dy, part);
    unsigned bx = g.c < 32 ? (unsigned)g.c : 32u, by = 1;
    while (bx * by * 2 <= (bx == 32 ? 1024u : 128u) && by < (unsigned)s.n) by *= 2;
    DR_LAUNCH((norm_finish<T>), dim3(((unsigned)g.c + bx - 1) / bx, images_grid(g.n)), dim3(bx, by),
              (size_t)bx * by * sizeof(double2), st, g.n, g.c, s.n, (double)s.pixels, eps, BWD ? (const T *)nullptr : x,
              (const float2 *)part, out);
}

template <class T, int V>
static void stats_of(cudaStream_t st, dk_map m, float eps, const void *x, float *stats, void *scratch) {
    sums<T, V, false>(st, dk_rows_of(m), eps, 0, (const T *)x, nullptr, nullptr, (float2 *)scratch, (float2 *)stats);
}

void dk_norm_stats(cudaStream_t st, dk_map m, float eps, const void *x, float *stats, void *scratch) {
    DK_BY_MAP(m, stats_of, st, m, eps, x, stats, scratch);
}

template <class T, int V>
static void apply(cudaStream_t st, dk_map m, const void *x, const float *stats, dk_act act, dk_then then, int p,
                  const void *resid, int q, void *y) {
    dk_rows g = dk_rows_of(m);
    dk_normed<V> pre = {stats, slope_of(act), {}, {}};
    switch (then) {
    case DK_THEN_NONE:
    case DK_THEN_REFLECT:
        dk_mirror<T, V>(st, g, p, pre, x, nullptr, 0, y);
        return;
    case DK_THEN_BLUR_DOWN:
        dk_down<T, V>(st, g, pre, x, y);
        return;
    case DK_THEN_BLUR_UP:
        dk_up<T, V>(st, g, pre, x, y);
        return;
    case DK_THEN_ADD:
        dk_mirror<T, V>(st, g, p, pre, x, resid, q, y);
        return;
    }
}

void dk_norm_apply(cudaStream_t st, dk_map m, const void *x, const float *stats, dk_act act, dk_then then, int p,
                   const void *resid, int rh, int rw, void *y) {
    assert(then != DK_THEN_ADD || (rh >= m.h && rh - m.h == rw - m.w && (rh - m.h) % 2 == 0));
    (void)rw;
    DK_BY_MAP(m, apply, st, m, x, stats, act, then, p, resid, (rh - m.h) / 2, y);
}

template <class T, int V>
static void bwd(cudaStream_t st, dk_map m, dk_act act, const void *x, const float *stats, const void *dy, void *dx,
                void *scratch) {
    dk_rows g = dk_rows_of(m);
    slabs s = cut(g, V);
    float2 *part = (float2 *)scratch, *means = part + part_count(m);
    const float2 *ms = (const float2 *)stats;
    sums<T, V, true>(st, g, 0, slope_of(act), (const T *)x, ms, (const T *)dy, part, means);
    int64_t blocks = (s.pixels + s.by - 1) / s.by;
    int per = blocks * g.n >= 4 * DK_PER_GPU ? 4 : 1;
    DR_LAUNCH((norm_dx<T, V>),
              dim3((unsigned)((blocks + per - 1) / per), images_grid(g.n), ((unsigned)s.groups + s.bx - 1) / s.bx),
              dim3(s.bx, s.by), 0, st, g.n, g.c, s.pixels, per, slope_of(act), (const T *)x, ms, (const float2 *)means,
              (const T *)dy, (T *)dx);
}

void dk_norm_bwd(cudaStream_t st, dk_map m, dk_act act, const void *x, const float *stats, const void *dy, void *dx,
                 void *scratch) {
    DK_BY_MAP(m, bwd, st, m, act, x, stats, dy, dx, scratch);
}
