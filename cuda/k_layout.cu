/* k_layout.cu - between layouts: pictures and features (NCHW <-> NHWC), packed weights, and biases.
 *
 * NCHW <-> NHWC is a transpose of channels x pixels per image. It goes through a shared tile of 64 channels x 32
 * pixels, so that both sides move whole lines; where there are only 8 channels (pictures and scores), one thread moves
 * a pixel, which is already contiguous on both sides. Weights are the same with kernel positions for pixels.
 * Bias gradients: partial sums by slab to scratch, then one warp a channel adds them in order. */
#include "cuda/vec.cuh"

enum { TILE_C = 64, TILE_P = 32, PITCH = TILE_P + 1 };

/* V divides cpad. Grid: pixel tiles, channel tiles, images. */
template <class T, int V>
static __global__ void widen(int n, int c, size_t hw, int cpad, const float *__restrict__ x, T *__restrict__ y) {
    DR_DYN_SHARED(float, sh); /* TILE_C x PITCH */
    const size_t p0 = (size_t)blockIdx.x * TILE_P;
    const int c0 = blockIdx.y * TILE_C, t = threadIdx.x;
    constexpr int GROUPS = TILE_C / V;
    for (int image = blockIdx.z; image < n; image += gridDim.z) {
        const size_t p = p0 + t % TILE_P;
        for (int j = t / TILE_P; j < TILE_C; j += BLOCK / TILE_P)
            sh[j * PITCH + t % TILE_P] = c0 + j < c && p < hw ? x[((size_t)image * c + c0 + j) * hw + p] : 0.0f;
        __syncthreads();
        for (int i = t; i < TILE_P * GROUPS; i += BLOCK) {
            const int pix = i / GROUPS, g = i % GROUPS * V;
            if (p0 + pix >= hw || c0 + g >= cpad) continue;
            float v[V];
#pragma unroll
            for (int k = 0; k < V; k++) v[k] = sh[(g + k) * PITCH + pix];
            store<V>(v, y + ((size_t)image * hw + p0 + pix) * cpad + c0 + g);
        }
        __syncthreads();
    }
}
template <class T, int V>
static __global__ void narrow(int n, int c, size_t hw, int cpad, const T *__restrict__ x, const float *bias,
                              float *__restrict__ y) {
    DR_DYN_SHARED(float, sh); /* TILE_C x PITCH */
    const size_t p0 = (size_t)blockIdx.x * TILE_P;
    const int c0 = blockIdx.y * TILE_C, t = threadIdx.x;
    constexpr int GROUPS = TILE_C / V;
    for (int image = blockIdx.z; image < n; image += gridDim.z) {
        for (int i = t; i < TILE_P * GROUPS; i += BLOCK) {
            const int pix = i / GROUPS, g = i % GROUPS * V;
            if (p0 + pix >= hw || c0 + g >= cpad) continue;
            float v[V];
            load<V>(x + ((size_t)image * hw + p0 + pix) * cpad + c0 + g, v);
#pragma unroll
            for (int k = 0; k < V; k++) sh[(g + k) * PITCH + pix] = v[k];
        }
        __syncthreads();
        const size_t p = p0 + t % TILE_P;
        for (int j = t / TILE_P; j < TILE_C && c0 + j < c; j += BLOCK / TILE_P)
            if (p < hw)
                y[((size_t)image * c + c0 + j) * hw + p] = sh[j * PITCH + t % TILE_P] + (bias ? bias[c0 + j] : 0.0f);
        __syncthreads();
    }
}

/* cpad = 8: a thread moves pixels. Grid: pixels, images. */
template <class T>
static __global__ void widen8(int n, int c, size_t hw, const float *__restrict__ x, T *__restrict__ y) {
    constexpr int V = VEC<T>;
    for (int image = blockIdx.y; image < n; image += gridDim.y)
        for (size_t p = thread_id(); p < hw; p += thread_count()) {
            float v[8];
#pragma unroll
            for (int k = 0; k < 8; k++) v[k] = k < c ? x[((size_t)image * c + k) * hw + p] : 0.0f;
            T *to = y + ((size_t)image * hw + p) * 8;
#pragma unroll
            for (int k = 0; k < 8; k += V) store<V>(v + k, to + k);
        }
}
template <class T>
static __global__ void narrow8(int n, int c, size_t hw, const T *__restrict__ x, const float *bias,
                               float *__restrict__ y) {
    constexpr int V = VEC<T>;
    for (int image = blockIdx.y; image < n; image += gridDim.y)
        for (size_t p = thread_id(); p < hw; p += thread_count()) {
            float v[8];
            const T *from = x + ((size_t)image * hw + p) * 8;
#pragma unroll
            for (int k = 0; k < 8; k += V) load<V>(from + k, v + k);
#pragma unroll
            for (int k = 0; k < 8; k++)
                if (k < c) y[((size_t)image * c + k) * hw + p] = v[k] + (bias ? bias[k] : 0.0f);
        }
}

static dim3 tiles(dk_map m, int cpad) {
    return dim3((unsigned)ceil_div((size_t)m.h * (size_t)m.w, TILE_P), (unsigned)ceil_div((size_t)cpad, TILE_C),
                (unsigned)(m.n < 1024 ? m.n : 1024));
}
static dim3 pixels8(dk_map m) {
    return dim3(dk_grid((size_t)m.h * (size_t)m.w, BLOCK), (unsigned)(m.n < 65535 ? m.n : 65535));
}

template <class T> static void widen_as(cudaStream_t st, dk_map m, int cpad, const float *x, T *y) {
    const size_t hw = (size_t)m.h * (size_t)m.w, shared = TILE_C * PITCH * sizeof(float);
    if (cpad == 8)
        DR_LAUNCH(widen8<T>, pixels8(m), dim3(BLOCK), 0, st, m.n, m.c, hw, x, y);
    else if (cpad % VEC<T> == 0)
        DR_LAUNCH((widen<T, VEC<T>>), tiles(m, cpad), dim3(BLOCK), shared, st, m.n, m.c, hw, cpad, x, y);
    else
        DR_LAUNCH((widen<T, 1>), tiles(m, cpad), dim3(BLOCK), shared, st, m.n, m.c, hw, cpad, x, y);
}
template <class T> static void narrow_as(cudaStream_t st, dk_map m, int cpad, const T *x, const float *bias, float *y) {
    const size_t hw = (size_t)m.h * (size_t)m.w, shared = TILE_C * PITCH * sizeof(float);
    if (cpad == 8)
        DR_LAUNCH(narrow8<T>, pixels8(m), dim3(BLOCK), 0, st, m.n, m.c, hw, x, bias, y);
    else if (cpad % VEC<T> == 0)
        DR_LAUNCH((narrow<T, VEC<T>>), tiles(m, cpad), dim3(BLOCK), shared, st, m.n, m.c, hw, cpad, x, bias, y);
    else
        DR_LAUNCH((narrow<T, 1>), tiles(m, cpad), dim3(BLOCK), shared, st, m.n, m.c, hw, cpad, x, bias, y);
}

void dk_widen(cudaStream_t st, dk_map m, int cpad, dk_type t, const float *x, void *y) {
    DK_TYPED(t, T, widen_as(st, m, cpad, x, (T *)y));
}
void dk_narrow(cudaStream_t st, dk_map m, int cpad, dk_type t, const void *x, const float *bias, float *y) {
    DK_TYPED(t, T, narrow_as(st, m, cpad, (const T *)x, bias, y));
}

struct copy_op {
    static constexpr int inputs = 1;
    __device__ float operator()(float x, float) const { return x; }
};
void dk_from_nchw(cudaStream_t st, dk_map m, const float *nchw, void *y) {
    if (m.wide)
        dk_widen(st, m, m.c, m.type, nchw, y);
    else
        map(st, DK_F32, copy_op{}, dk_count(m), nchw, NULL, y);
}
void dk_to_nchw(cudaStream_t st, dk_map m, const void *x, float *nchw) {
    if (m.wide)
        dk_narrow(st, m, m.c, m.type, x, NULL, nchw);
    else
        map(st, DK_F32, copy_op{}, dk_count(m), x, NULL, nchw);
}

/* ---- weights ------------------------------------------------------------------------------------------------------
 */

/* Block: output channel blockIdx.x, `chunk` input channels from blockIdx.y * chunk; they lie together on the (O,I,k,k)
 * side, and in k*k runs on the other. Shared: chunk rows of kk, an odd pitch apart. */
template <class T, int V>
static __global__ void pack(int o, int i, int kk, int ipad, int chunk, const float *__restrict__ w, T *__restrict__ y) {
    DR_DYN_SHARED(float, sh);
    const int i0 = blockIdx.y * chunk, pitch = kk | 1, there = (int)blockIdx.x < o ? min(chunk, i - i0) : 0;
    const float *from = w + ((size_t)blockIdx.x * i + i0) * kk;
    for (int e = threadIdx.x; e < there * kk; e += BLOCK) sh[e / kk * pitch + e % kk] = from[e];
    __syncthreads();
    const int groups = min(chunk, ipad - i0) / V;
    for (int e = threadIdx.x; e < groups * kk; e += BLOCK) {
        const int r = e / groups, g = e % groups * V;
        float v[V];
#pragma unroll
        for (int k = 0; k < V; k++) v[k] = g + k < there ? sh[(g + k) * pitch + r] : 0.0f;
        store<V>(v, y + ((size_t)blockIdx.x * kk + r) * ipad + i0 + g);
    }
}
template <class T, int V>
static __global__ void unpack(int i, int kk, int ipad, int chunk, const T *__restrict__ x, float *__restrict__ dw) {
    DR_DYN_SHARED(float, sh);
    const int i0 = blockIdx.y * chunk, pitch = kk | 1, groups = min(chunk, ipad - i0) / V;
    for (int e = threadIdx.x; e < groups * kk; e += BLOCK) {
        const int r = e / groups, g = e % groups * V;
        float v[V];
        load<V>(x + ((size_t)blockIdx.x * kk + r) * ipad + i0 + g, v);
#pragma unroll
        for (int k = 0; k < V; k++) sh[(g + k) * pitch + r] = v[k];
    }
    __syncthreads();
    float *to = dw + ((size_t)blockIdx.x * i + i0) * kk;
    const int there = min(chunk, i - i0) * kk;
    for (int e = threadIdx.x; e < there; e += BLOCK) to[e] += sh[e / kk * pitch + e % kk];
}

static int weight_chunk(int kk) {
    return (kk | 1) * 64 * 4 <= 48 * 1024 ? 64 : 8; /* 8: up to k = 38 */
}

template <class T> static void pack_as(cudaStream_t st, int o, int i, int k, int opad, int ipad, const float *w, T *y) {
    const int chunk = weight_chunk(k * k);
    const size_t shared = (size_t)chunk * ((size_t)(k * k) | 1) * sizeof(float);
    const dim3 grid((unsigned)opad, (unsigned)ceil_div((size_t)ipad, (size_t)chunk));
    if (ipad % VEC<T> == 0)
        DR_LAUNCH((pack<T, VEC<T>>), grid, dim3(BLOCK), shared, st, o, i, k * k, ipad, chunk, w, y);
    else
        DR_LAUNCH((pack<T, 1>), grid, dim3(BLOCK), shared, st, o, i, k * k, ipad, chunk, w, y);
}
template <class T> static void unpack_as(cudaStream_t st, int o, int i, int k, int ipad, const T *x, float *dw) {
    const int chunk = weight_chunk(k * k);
    const size_t shared = (size_t)chunk * ((size_t)(k * k) | 1) * sizeof(float);
    const dim3 grid((unsigned)o, (unsigned)ceil_div((size_t)i, (size_t)chunk));
    if (ipad % VEC<T> == 0)
        DR_LAUNCH((unpack<T, VEC<T>>), grid, dim3(BLOCK), shared, st, i, k * k, ipad, chunk, x, dw);
    else
        DR_LAUNCH((unpack<T, 1>), grid, dim3(BLOCK), shared, st, i, k * k, ipad, chunk, x, dw);
}

void dk_pack_weights(cudaStream_t st, int o, int i, int k, int opad, int ipad, dk_type t, const float *w, void *y) {
    DK_TYPED(t, T, pack_as(st, o, i, k, opad, ipad, w, (T *)y));
}
void dk_unpack_weights(cudaStream_t st, int o, int i, int k, int opad, int ipad, dk_type t, const void *x, float *dw) {
    (void)opad; /* the padded output channels are not read */
    DK_TYPED(t, T, unpack_as(st, o, i, k, ipad, (const T *)x, dw));
}

/* ---- biases -------------------------------------------------------------------------------------------------------
 */

/* y is rows of `pieces` pieces of V; the number of threads that work is a multiple of it, so each keeps its bias. */
template <class T, int V> static __global__ void bias_add(size_t rows, int pieces, const float *b, T *y) {
    const size_t first = thread_id(), step = thread_count() / (size_t)pieces * (size_t)pieces;
    if (first >= step) return;
    float vb[V];
#pragma unroll
    for (int k = 0; k < V; k++) vb[k] = b[first % (size_t)pieces * V + k];
    for (size_t i = first; i < rows * (size_t)pieces; i += step) {
        float v[V];
        load<V>(y + i * V, v);
#pragma unroll
        for (int k = 0; k < V; k++) v[k] += vb[k];
        store<V>(v, y + i * V);
    }
}

template <class T, int V> static void bias_add_as(cudaStream_t st, size_t rows, int c, const float *b, T *y) {
    const int pieces = c / V;
    const unsigned need = (unsigned)ceil_div((size_t)pieces, BLOCK), g = dk_grid(rows * (size_t)pieces, BLOCK);
    DR_LAUNCH((bias_add<T, V>), dim3(g < need ? need : g), dim3(BLOCK), 0, st, rows, pieces, b, y);
}
/* Also for planar rows (h = w = 1), which lie as if wide. */
void dk_bias_add(cudaStream_t st, dk_map m, const float *b, void *y) {
    const size_t rows = (size_t)m.n * (size_t)m.h * (size_t)m.w;
    if (m.type == DK_BF16)
        bias_add_as<bf16, 8>(st, rows, m.c, b, (bf16 *)y);
    else if (m.type == DK_F16)
        bias_add_as<f16, 8>(st, rows, m.c, b, (f16 *)y);
    else if (m.c % 4 == 0)
        bias_add_as<float, 4>(st, rows, m.c, b, (float *)y);
    else
        bias_add_as<float, 1>(st, rows, m.c, b, (float *)y);
}

/* How a tensor is cut for its bias gradient: part[(k/slabs*c + channel)*slabs + k%slabs] for k < terms. */
typedef struct grad_cut {
    bool rows;    /* rows of c channels; else planes */
    size_t count; /* rows, or pixels of a plane */
    int slabs, terms;
    size_t slab;
} grad_cut;

static grad_cut cut(dk_map m) {
    const size_t hw = (size_t)m.h * (size_t)m.w;
    grad_cut r = {};
    r.rows = m.wide || hw == 1;
    r.count = r.rows ? (size_t)m.n * hw : hw;
    size_t n = ceil_div(r.count, r.rows ? 512 : 4096), most = r.rows ? 256 : 64;
    n = n < most ? n : most;
    r.slab = ceil_div(r.count, n);
    n = ceil_div(r.count, r.slab);
    r.slabs = r.rows ? 1 : (int)n;
    r.terms = r.rows ? (int)n : (int)n * m.n;
    return r;
}
size_t dk_bias_grad_scratch(dk_map m) {
    return (size_t)cut(m).terms * (size_t)m.c * sizeof(float);
}

/* Grid: slabs of rows, groups of `lanes` pieces (a power of two up to 8); part is (slab, c). */
template <class T, int V>
static __global__ void grad_rows(size_t rows, size_t slab, int pieces, int lanes, const T *dy, float *part) {
    DR_DYN_SHARED(float, sh); /* BLOCK * V */
    const int lane = threadIdx.x % lanes, line = threadIdx.x / lanes, lines = BLOCK / lanes;
    const int piece = blockIdx.y * lanes + lane;
    const size_t from = (size_t)blockIdx.x * slab, to = from + slab < rows ? from + slab : rows;
    float sum[V] = {};
    if (piece < pieces)
        for (size_t r = from + line; r < to; r += lines) {
            float v[V];
            load<V>(dy + (r * pieces + piece) * V, v);
#pragma unroll
            for (int k = 0; k < V; k++) sum[k] += v[k];
        }
#pragma unroll
    for (int k = 0; k < V; k++) sh[(line * lanes + lane) * V + k] = sum[k];
    __syncthreads();
    const int channel = blockIdx.y * lanes * V + threadIdx.x;
    if ((int)threadIdx.x >= lanes * V || channel >= pieces * V) return;
    float total = 0;
    for (int i = 0; i < lines; i++) total += sh[i * lanes * V + threadIdx.x];
    part[(size_t)blockIdx.x * pieces * V + channel] = total;
}

/* Block: one slab of one plane. */
static __global__ void grad_planes(size_t hw, size_t slab, int slabs, const float *dy, float *part) {
    DR_SHARED(float, sh, [BLOCK / 32]);
    const size_t plane = blockIdx.x / slabs, from = blockIdx.x % slabs * slab;
    const size_t to = from + slab < hw ? from + slab : hw;
    float sum = 0;
    for (size_t i = from + threadIdx.x; i < to; i += BLOCK) sum += dy[plane * hw + i];
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) sh[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x) return;
    sum = 0;
    for (int i = 0; i < BLOCK / 32; i++) sum += sh[i];
    part[blockIdx.x] = sum;
}

/* A warp per channel. */
static __global__ void grad_finish(int c, int slabs, int terms, const float *part, float *db) {
    const size_t channel = thread_id() / 32;
    if (channel >= (size_t)c) return; /* the whole warp */
    double sum = 0;
    for (int k = threadIdx.x % 32; k < terms; k += 32)
        sum += (double)part[((size_t)(k / slabs) * c + channel) * slabs + k % slabs];
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) db[channel] += (float)sum;
}

template <class T, int V> static void grad_rows_as(cudaStream_t st, grad_cut s, int c, const void *dy, float *part) {
    int pieces = c / V, lanes = 1;
    while (lanes < 8 && lanes * 2 <= pieces) lanes *= 2;
    DR_LAUNCH((grad_rows<T, V>), dim3((unsigned)s.terms, (unsigned)ceil_div((size_t)pieces, (size_t)lanes)),
              dim3(BLOCK), BLOCK * V * sizeof(float), st, s.count, s.slab, pieces, lanes, (const T *)dy, part);
}

void dk_bias_grad(cudaStream_t st, dk_map m, const void *dy, float *db, void *scratch) {
    const grad_cut s = cut(m);
    float *part = (float *)scratch;
    if (!s.rows)
        DR_LAUNCH(grad_planes, dim3((unsigned)(s.terms * m.c)), dim3(BLOCK), 0, st, s.count, s.slab, s.slabs,
                  (const float *)dy, part);
    else if (m.type == DK_BF16)
        grad_rows_as<bf16, 8>(st, s, m.c, dy, part);
    else if (m.type == DK_F16)
        grad_rows_as<f16, 8>(st, s, m.c, dy, part);
    else if (m.c % 4 == 0)
        grad_rows_as<float, 4>(st, s, m.c, dy, part);
    else
        grad_rows_as<float, 1>(st, s, m.c, dy, part);
    DR_LAUNCH(grad_finish, dim3((unsigned)ceil_div((size_t)m.c * 32, BLOCK)), dim3(BLOCK), 0, st, m.c, s.slabs, s.terms,
              part, db);
}

/* ---- a square window as rows ------------------------------------------------------------------------------------- */

template <class T>
static __global__ void pack_rows(int o, int i, int k, size_t n, int ipad, const float *__restrict__ w,
                                 T *__restrict__ y) {
    for (size_t at = thread_id(); at < n; at += thread_count()) {
        const int in = (int)(at % ipad), s = (int)(at / ipad % k), q = (int)(at / ipad / k), r = q / o;
        dk_store(y + at, in < i && r < k ? w[(((size_t)(q % o) * i + in) * k + r) * k + s] : 0.0f);
    }
}

void dk_pack_rows(cudaStream_t st, int o, int i, int k, int opad, int ipad, dk_type t, const float *w, void *y) {
    const size_t n = (size_t)opad * (size_t)k * (size_t)ipad;
    DK_TYPED(t, T, DR_LAUNCH(pack_rows<T>, dim3(dk_grid(n, BLOCK)), dim3(BLOCK), 0, st, o, i, k, n, ipad, w, (T *)y));
}

/* A part as it counts: beyond the range of f16 it is infinite, and a number that is none says so where an infinite sum
 * would only be a bright or dark pixel behind tanh. */
template <class T> DK_INLINE float part_of(const T *p) {
    return dk_load(p);
}
DK_INLINE float part_of(const f16 *p) {
    const float v = dk_load(p);
    return v - v == 0.f ? v : NAN;
}

/* A thread makes pixels of one row. Grid: columns, rows of all images. */
template <class T, int C>
static __global__ void sum_rows(int n, int h, int w, int k, int cpad, const T *__restrict__ x, const float *bias,
                                float *__restrict__ y) {
    for (int64_t row = blockIdx.y; row < (int64_t)n * h; row += gridDim.y) {
        const int image = (int)(row / h), line = (int)(row - (int64_t)image * h);
        const T *from = x + ((size_t)image * (h + k - 1) + line) * w * cpad;
        for (int col = (int)thread_id(); col < w; col += (int)thread_count()) {
            float sum[C];
#pragma unroll
            for (int c = 0; c < C; c++) sum[c] = bias ? bias[c] : 0.0f;
            for (int r = 0; r < k; r++)
#pragma unroll
                for (int c = 0; c < C; c++) sum[c] += part_of(from + ((size_t)r * w + col) * cpad + r * C + c);
#pragma unroll
            for (int c = 0; c < C; c++) y[(((size_t)image * C + c) * h + line) * w + col] = sum[c];
        }
    }
}

void dk_sum_rows(cudaStream_t st, dk_map m, int k, int cpad, dk_type t, const void *x, const float *bias, float *y) {
    const int64_t rows = (int64_t)m.n * m.h;
    const dim3 grid((unsigned)ceil_div((size_t)m.w, BLOCK), (unsigned)(rows < 65535 ? rows : 65535));
    if (m.c == 1)
        DK_TYPED(t, T,
                 DR_LAUNCH((sum_rows<T, 1>), grid, dim3(BLOCK), 0, st, m.n, m.h, m.w, k, cpad, (const T *)x, bias, y));
    else
        DK_TYPED(t, T,
                 DR_LAUNCH((sum_rows<T, 3>), grid, dim3(BLOCK), 0, st, m.n, m.h, m.w, k, cpad, (const T *)x, bias, y));
}

/* ---- a square window by its columns -------------------------------------------------------------------------------
 */

enum { TILE_X = 128 };

/* Block: TILE_X pixels of a row, made from a strip of every channel in shared memory, c strips `pitch` apart. A thread
 * keeps its piece of channels. Grid: tiles, rows of all images. */
template <class T, int V>
static __global__ void gather_columns(int n, int c, int h, int w, int k, int row, int rows, int cpad,
                                      const float *__restrict__ x, T *__restrict__ y) {
    DR_DYN_SHARED(float, sh);
    const int wide = w - k + 1, x0 = blockIdx.x * TILE_X, there = min((int)TILE_X, wide - x0), strip = there + k - 1;
    const int pitch = TILE_X + k - 1, pieces = cpad / V, lines = BLOCK / pieces, t = threadIdx.x, g = t % pieces * V;
    int at[V];
#pragma unroll
    for (int j = 0; j < V; j++) at[j] = g + j < k * c ? (g + j) % c * pitch + (g + j) / c : -1;
    for (int64_t r = blockIdx.y; r < (int64_t)n * rows; r += gridDim.y) {
        const int image = (int)(r / rows), line = (int)(r - (int64_t)image * rows);
        for (int e = t; e < c * strip; e += BLOCK)
            sh[e / strip * pitch + e % strip] =
                x[(((size_t)image * c + e / strip) * h + row + line) * w + x0 + e % strip];
        __syncthreads();
        T *to = y + ((size_t)r * wide + x0) * cpad;
        if (t < lines * pieces)
            for (int p = t / pieces; p < there; p += lines) {
                float v[V];
#pragma unroll
                for (int j = 0; j < V; j++) v[j] = at[j] < 0 ? 0.0f : sh[at[j] + p];
                store<V>(v, to + (size_t)p * cpad + g);
            }
        __syncthreads();
    }
}

void dk_gather_columns(cudaStream_t st, dk_map m, int k, int row, int rows, int cpad, dk_type t, const float *x,
                       void *y) {
    const int64_t all = (int64_t)m.n * rows;
    const dim3 grid((unsigned)ceil_div((size_t)(m.w - k + 1), TILE_X), (unsigned)(all < 65535 ? all : 65535));
    const size_t shared = (size_t)m.c * (size_t)(TILE_X + k - 1) * sizeof(float);
    DK_TYPED(t, T,
             DR_LAUNCH((gather_columns<T, VEC<T>>), grid, dim3(BLOCK), shared, st, m.n, m.c, m.h, m.w, k, row, rows,
                       cpad, x, (T *)y));
}

template <class T>
static __global__ void pack_columns(int o, int i, int k, size_t n, int cpad, const float *__restrict__ w,
                                    T *__restrict__ y) {
    for (size_t at = thread_id(); at < n; at += thread_count()) {
        const int channel = (int)(at % cpad), r = (int)(at / cpad % k), out = (int)(at / cpad / k);
        const int s = channel / i, in = channel % i;
        dk_store(y + at, out < o && s < k ? w[(((size_t)out * i + in) * k + r) * k + s] : 0.0f);
    }
}

void dk_pack_columns(cudaStream_t st, int o, int i, int k, int opad, int cpad, dk_type t, const float *w, void *y) {
    const size_t n = (size_t)opad * (size_t)k * (size_t)cpad;
    DK_TYPED(t, T,
             DR_LAUNCH(pack_columns<T>, dim3(dk_grid(n, BLOCK)), dim3(BLOCK), 0, st, o, i, k, n, cpad, w, (T *)y));
}
