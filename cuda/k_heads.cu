/* k_heads.cu - the projection heads: gather and scatter of feature rows, products of small f32 matrices, L2 norm.
 *
 * gemm: a block makes one tile of C; a tile of A and one of B stand in shared memory, k by k, and each thread keeps a
 * 4 x 4 piece in registers while the next tiles are on their way. Where C has few tiles (weight gradients: a small C,
 * a long K) the tile is 32 x 32 and four groups of 64 threads take every fourth run of 8 k; their sums are added in
 * the order of the groups. Both ways have a fixed order of additions, which depends on the sizes only. */
#include "cuda/vec.cuh"

/* A thread moves one piece of one row: rows are n*s, idx the same for all images. */
template <class T>
static __global__ void gather_wide(size_t rows, int pieces, size_t hw, int s, const int32_t *idx, const T *x,
                                   float *y) {
    constexpr int V = VEC<T>;
    for (size_t i = thread_id(); i < rows * (size_t)pieces; i += thread_count()) {
        const size_t row = i / (size_t)pieces, piece = i % (size_t)pieces, image = row / (size_t)s;
        float v[V];
        load<V>(x + ((image * hw + (size_t)idx[row % (size_t)s]) * (size_t)pieces + piece) * V, v);
#pragma unroll
        for (int k = 0; k < V; k += 4) store<4>(v + k, y + i * V + k);
    }
}
template <class T>
static __global__ void scatter_wide(size_t rows, int pieces, size_t hw, int s, const int32_t *idx, const float *dy,
                                    T *dx) {
    constexpr int V = VEC<T>;
    for (size_t i = thread_id(); i < rows * (size_t)pieces; i += thread_count()) {
        const size_t row = i / (size_t)pieces, piece = i % (size_t)pieces, image = row / (size_t)s;
        float v[V];
#pragma unroll
        for (int k = 0; k < V; k += 4) load<4>(dy + i * V + k, v + k);
        store<V>(v, dx + ((image * hw + (size_t)idx[row % (size_t)s]) * (size_t)pieces + piece) * V);
    }
}
static __global__ void gather_planar(size_t rows, int c, size_t hw, int s, const int32_t *idx, const float *x,
                                     float *y) {
    for (size_t i = thread_id(); i < rows * (size_t)c; i += thread_count()) {
        const size_t row = i / (size_t)c, channel = i % (size_t)c, image = row / (size_t)s;
        y[i] = x[(image * (size_t)c + channel) * hw + (size_t)idx[row % (size_t)s]];
    }
}
static __global__ void scatter_planar(size_t rows, int c, size_t hw, int s, const int32_t *idx, const float *dy,
                                      float *dx) {
    for (size_t i = thread_id(); i < rows * (size_t)c; i += thread_count()) {
        const size_t row = i / (size_t)c, channel = i % (size_t)c, image = row / (size_t)s;
        dx[(image * (size_t)c + channel) * hw + (size_t)idx[row % (size_t)s]] = dy[i];
    }
}

void dk_gather(cudaStream_t st, dk_map x, const int32_t *idx, int s, const void *px, float *rows) {
    const size_t hw = (size_t)x.h * (size_t)x.w, n = (size_t)x.n * (size_t)s;
    if (!x.wide)
        DR_LAUNCH(gather_planar, dim3(dk_grid(n * (size_t)x.c, BLOCK)), dim3(BLOCK), 0, st, n, x.c, hw, s, idx,
                  (const float *)px, rows);
    else
        DK_TYPED(x.type, T,
                 DR_LAUNCH(gather_wide<T>, dim3(dk_grid(n * (size_t)x.c / VEC<T>, BLOCK)), dim3(BLOCK), 0, st, n,
                           x.c / VEC<T>, hw, s, idx, (const T *)px, rows));
}
void dk_gather_bwd(cudaStream_t st, dk_map x, const int32_t *idx, int s, const float *drows, void *dx) {
    const size_t hw = (size_t)x.h * (size_t)x.w, n = (size_t)x.n * (size_t)s;
    dk_fill(st, x.type, dk_count(x), 0, dx);
    if (!x.wide)
        DR_LAUNCH(scatter_planar, dim3(dk_grid(n * (size_t)x.c, BLOCK)), dim3(BLOCK), 0, st, n, x.c, hw, s, idx, drows,
                  (float *)dx);
    else
        DK_TYPED(x.type, T,
                 DR_LAUNCH(scatter_wide<T>, dim3(dk_grid(n * (size_t)x.c / VEC<T>, BLOCK)), dim3(BLOCK), 0, st, n,
                           x.c / VEC<T>, hw, s, idx, drows, (T *)dx));
}

/* ---- products -----------------------------------------------------------------------------------------------------
 */

enum { LARGE = 64, SMALL = 32, LARGE_RUN = 16, SMALL_RUN = 8 }; /* run: k of one group in one tile */

typedef struct matrix {
    const float *p;
    size_t ld;
} matrix;

/* Element (row, k) of op(A); T: stored with k as rows. */
template <bool T> DK_INLINE float element(matrix a, int rows, int K, int row, int k) {
    if (row >= rows || k >= K) return 0;
    return T ? a.p[(size_t)k * a.ld + row] : a.p[(size_t)row * a.ld + k];
}
/* Which (row, k) of a tile thread t moves at step j: along what lies together in memory. */
template <int SIDE, int DEPTH, bool T> DK_INLINE void spot(int j, int *row, int *k) {
    const int e = j * BLOCK + threadIdx.x;
    *row = T ? e % SIDE : e / DEPTH;
    *k = T ? e / SIDE : e % DEPTH;
}

/* Tiles of M are in grid.x, of N in grid.y, matrices in grid.z. SIDE x SIDE tile, GROUPS of (SIDE/4)^2 threads. */
template <int SIDE, int GROUPS, int RUN, bool TA, bool TB>
static __global__ void __launch_bounds__(BLOCK, 2)
    gemm(int M, int N, int K, float alpha, matrix a, size_t stride_a, matrix b, size_t stride_b, float beta, float *c,
         size_t ldc, size_t stride_c, int batch) {
    constexpr int DEPTH = RUN * GROUPS, ROW = SIDE + 4, MOVES = SIDE * DEPTH / BLOCK, ACROSS = SIDE / 4;
    static_assert(ACROSS * ACROSS * GROUPS == BLOCK, "every thread has a piece");
    DR_DYN_SHARED(float, sh); /* two tiles, DEPTH rows of ROW; in the end the sums of the groups after the first */
    float *sa = sh, *sb = sh + DEPTH * ROW;
    const int m0 = blockIdx.x * SIDE, n0 = blockIdx.y * SIDE;
    const int t = threadIdx.x % (ACROSS * ACROSS), group = threadIdx.x / (ACROSS * ACROSS);
    const int ty = t / ACROSS * 4, tx = t % ACROSS * 4;

    for (int z = blockIdx.z; z < batch; z += gridDim.z) {
        const matrix az = {a.p + (size_t)z * stride_a, a.ld}, bz = {b.p + (size_t)z * stride_b, b.ld};
        float acc[4][4] = {}, na[MOVES], nb[MOVES];
        int row, k;
#pragma unroll
        for (int j = 0; j < MOVES; j++) {
            spot<SIDE, DEPTH, TA>(j, &row, &k);
            na[j] = element<TA>(az, M, K, m0 + row, k);
            spot<SIDE, DEPTH, !TB>(j, &row, &k);
            nb[j] = element<!TB>(bz, N, K, n0 + row, k);
        }
        for (int k0 = 0; k0 < K; k0 += DEPTH) {
#pragma unroll
            for (int j = 0; j < MOVES; j++) {
                spot<SIDE, DEPTH, TA>(j, &row, &k);
                sa[k * ROW + row] = na[j];
                spot<SIDE, DEPTH, !TB>(j, &row, &k);
                sb[k * ROW + row] = nb[j];
            }
            __syncthreads();
            if (k0 + DEPTH < K) {
#pragma unroll
                for (int j = 0; j < MOVES; j++) {
                    spot<SIDE, DEPTH, TA>(j, &row, &k);
                    na[j] = element<TA>(az, M, K, m0 + row, k0 + DEPTH + k);
                    spot<SIDE, DEPTH, !TB>(j, &row, &k);
                    nb[j] = element<!TB>(bz, N, K, n0 + row, k0 + DEPTH + k);
                }
            }
#pragma unroll
            for (int i = 0; i < RUN; i++) {
                float va[4], vb[4];
                load<4>(sa + (group * RUN + i) * ROW + ty, va);
                load<4>(sb + (group * RUN + i) * ROW + tx, vb);
#pragma unroll
                for (int y = 0; y < 4; y++)
#pragma unroll
                    for (int x = 0; x < 4; x++) acc[y][x] += va[y] * vb[x];
            }
            __syncthreads();
        }
        if constexpr (GROUPS > 1) {
            constexpr int PIECES = ACROSS * ACROSS;
            if (group > 0)
#pragma unroll
                for (int y = 0; y < 4; y++) store<4>(acc[y], sh + (((group - 1) * 4 + y) * PIECES + t) * 4);
            __syncthreads();
            if (group == 0)
                for (int g = 0; g < GROUPS - 1; g++)
#pragma unroll
                    for (int y = 0; y < 4; y++) {
                        float v[4];
                        load<4>(sh + ((g * 4 + y) * PIECES + t) * 4, v);
#pragma unroll
                        for (int x = 0; x < 4; x++) acc[y][x] += v[x];
                    }
            __syncthreads();
        }
        if (group == 0)
#pragma unroll
            for (int y = 0; y < 4; y++)
#pragma unroll
                for (int x = 0; x < 4; x++) {
                    if (m0 + ty + y >= M || n0 + tx + x >= N) continue;
                    float *to = c + (size_t)z * stride_c + (size_t)(m0 + ty + y) * ldc + n0 + tx + x;
                    *to = beta == 0 ? alpha * acc[y][x] : alpha * acc[y][x] + beta * *to;
                }
    }
}

static size_t gemm_shared(size_t side, size_t groups, size_t run) {
    const size_t tiles = 2 * run * groups * (side + 4), sums = (groups - 1) * side * side;
    return (tiles > sums ? tiles : sums) * sizeof(float);
}

void dk_gemm(cudaStream_t st, bool ta, bool tb, int M, int N, int K, float alpha, const float *A, size_t lda,
             size_t stride_a, const float *B, size_t ldb, size_t stride_b, float beta, float *C, size_t ldc,
             size_t stride_c, int batch) {
    const size_t tiles = ceil_div((size_t)M, 64) * ceil_div((size_t)N, 64) * (size_t)batch;
    const bool large = tiles >= 96; /* else the small tile keeps four times as many multiprocessors busy */
    const unsigned side = large ? LARGE : SMALL;
    const dim3 grid((unsigned)ceil_div((size_t)M, side), (unsigned)ceil_div((size_t)N, side),
                    (unsigned)(batch < 1024 ? batch : 1024));
    const matrix a = {A, lda}, b = {B, ldb};
#define GEMM(side, groups, run, ta, tb)                                                                                \
    DR_LAUNCH((gemm<side, groups, run, ta, tb>), grid, dim3(BLOCK), gemm_shared(side, groups, run), st, M, N, K,       \
              alpha, a, stride_a, b, stride_b, beta, C, ldc, stride_c, batch)
#define GEMM_AS(side, groups, run)                                                                                     \
    do {                                                                                                               \
        if (ta && tb)                                                                                                  \
            GEMM(side, groups, run, true, true);                                                                       \
        else if (ta)                                                                                                   \
            GEMM(side, groups, run, true, false);                                                                      \
        else if (tb)                                                                                                   \
            GEMM(side, groups, run, false, true);                                                                      \
        else                                                                                                           \
            GEMM(side, groups, run, false, false);                                                                     \
    } while (0)
    if (large)
        GEMM_AS(LARGE, 1, LARGE_RUN);
    else
        GEMM_AS(SMALL, 4, SMALL_RUN);
#undef GEMM_AS
#undef GEMM
}

/* ---- rows ---------------------------------------------------------------------------------------------------------
 */

void dk_row_bias(cudaStream_t st, int rows, int cols, const float *b, float *y) {
    const dk_map m = {rows, cols, 1, 1, false, DK_F32};
    dk_bias_add(st, m, b, y);
}

enum { SUM_COLS = 8, SUM_LINES = 64 }; /* 8 columns are a 32-byte sector of each row */

static __global__ void col_sum(int rows, int cols, const float *x, float *db) {
    DR_SHARED(float, sh, [SUM_LINES * SUM_COLS]);
    const int line = threadIdx.x / SUM_COLS, col = blockIdx.x * SUM_COLS + threadIdx.x % SUM_COLS;
    float sum = 0;
    if (col < cols)
        for (int r = line; r < rows; r += SUM_LINES) sum += x[(size_t)r * cols + col];
    sh[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x >= SUM_COLS || col >= cols) return;
    double total = 0;
    for (int i = 0; i < SUM_LINES; i++) total += (double)sh[i * SUM_COLS + threadIdx.x];
    db[col] += (float)total;
}
void dk_col_sum(cudaStream_t st, int rows, int cols, const float *x, float *db) {
    DR_LAUNCH(col_sum, dim3((unsigned)ceil_div((size_t)cols, SUM_COLS)), dim3(SUM_COLS * SUM_LINES), 0, st, rows, cols,
              x, db);
}

/* A warp per row; sums in double, as on the CPU: small rows do not underflow. */
static const float norm_eps = 1e-7f;

static __global__ void l2norm(int rows, int cols, float eps, const float *v, float *norms, float *y) {
    const size_t row = thread_id() / 32, lane = threadIdx.x % 32;
    if (row >= (size_t)rows) return; /* the whole warp */
    const float *pv = v + row * (size_t)cols;
    double sum = 0;
    for (size_t i = lane; i < (size_t)cols; i += 32) sum += (double)pv[i] * (double)pv[i];
    const float norm = (float)sqrt(warp_sum(sum)), scale = 1.0f / (norm + eps);
    if (lane == 0) norms[row] = norm;
    for (size_t i = lane; i < (size_t)cols; i += 32) y[row * (size_t)cols + i] = pv[i] * scale;
}
/* y = v/(a+e), a = |v|: dv = (dy - y (y.dy)(a+e)/a) / (a+e); a row of zeros gets 0. */
static __global__ void l2norm_bwd(int rows, int cols, float eps, const float *y, const float *norms, const float *dy,
                                  float *dv) {
    const size_t row = thread_id() / 32, lane = threadIdx.x % 32, at = row * (size_t)cols;
    if (row >= (size_t)rows) return;
    double dot = 0;
    for (size_t i = lane; i < (size_t)cols; i += 32) dot += (double)y[at + i] * (double)dy[at + i];
    dot = warp_sum(dot);
    const float a = norms[row], e = a + eps, along = a == 0 ? 0.0f : (float)(dot * (double)e / (double)a);
    for (size_t i = lane; i < (size_t)cols; i += 32) dv[at + i] = a == 0 ? 0.0f : (dy[at + i] - along * y[at + i]) / e;
}

void dk_l2norm(cudaStream_t st, int rows, int cols, const float *v, float *norms, float *y) {
    DR_LAUNCH(l2norm, dim3((unsigned)ceil_div((size_t)rows * 32, BLOCK)), dim3(BLOCK), 0, st, rows, cols, norm_eps, v,
              norms, y);
}
void dk_l2norm_bwd(cudaStream_t st, int rows, int cols, const float *y, const float *norms, const float *dy,
                   float *dv) {
    DR_LAUNCH(l2norm_bwd, dim3((unsigned)ceil_div((size_t)rows * 32, BLOCK)), dim3(BLOCK), 0, st, rows, cols, norm_eps,
              y, norms, dy, dv);
}
