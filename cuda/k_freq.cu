/* k_freq.cu - mean magnitude of the spectrum of a difference, and its gradient.
 *
 * As core/cpu/freq.c, for all planes at once: two products with tables of waves that a kernel writes, m = w/2 + 1
 * columns for the whole transform (the others are their conjugates), q = 0 for real and 1 for imaginary parts:
 *
 *   d[y][x]  -- along x -->  A[y][q][v]  -- along y -->  F[v][q][u]    and back    P[v][q][u] -> B[v][q][y] -> dd[y][x]
 *
 * The products are dk_gemm's: f32, no tf32, a fixed order of additions. A warp adds one column of magnitudes in double;
 * the columns are added by one block in the end. */
#include "cuda/vec.cuh"

/* ---- tables ------------------------------------------------------------------------------------------------------
 */

/* One side of n pixels: places i with i_parts parts (rows) to places j with j_parts (columns). */
struct side {
    int n, i, i_parts, j, j_parts;
    bool parts_apart; /* rows are (part, i), else (i, part); columns are always (part, j) */
    bool back;        /* the transpose of the transform */
};

/* The real matrix of e^(-2 pi i ij/n)/sqrt(n), or of its conjugate; cospi and sinpi are exact at the quarters. */
static __global__ void wave_kernel(side s, float *t) {
    const size_t cols = (size_t)s.j * (size_t)s.j_parts, all = (size_t)s.i * (size_t)s.i_parts * cols;
    const double unit = 1.0 / sqrt((double)s.n);
    for (size_t at = thread_id(); at < all; at += thread_count()) {
        const int r = (int)(at / cols), c = (int)(at % cols);
        const int i = s.parts_apart ? r % s.i : r / s.i_parts, p = s.parts_apart ? r / s.i : r % s.i_parts;
        const int j = c % s.j, q = c / s.j, k = (int)((long long)i * j % s.n);
        const double angle = 2.0 * (double)k / (double)s.n;
        const double wave = p == q ? cospi(angle) : sinpi(angle);
        t[at] = (float)(p != q && (q > p) != s.back ? -unit * wave : unit * wave);
    }
}

static void waves(cudaStream_t st, side s, float *t) {
    const size_t all = (size_t)s.i * (size_t)s.i_parts * (size_t)s.j * (size_t)s.j_parts;
    DR_LAUNCH(wave_kernel, dim3(dk_grid(all, BLOCK)), dim3(BLOCK), 0, st, s, t);
}

/* ---- between the products ---------------------------------------------------------------------------------------
 */

struct diff_op {
    static constexpr int inputs = 2;
    __device__ float operator()(float a, float b) const { return a - b; }
};

/* How often column v of the half stands in the whole: its conjugate counts too. */
DK_INLINE double times(int v, int w) {
    return v == 0 || 2 * v == w ? 1.0 : 2.0;
}
DK_INLINE double magnitude(float re, float im) {
    return sqrt((double)re * (double)re + (double)im * (double)im);
}

/* A warp a column of h bins: part[row] = sum of |F| in it. */
static __global__ void magnitude_sums(size_t rows, int h, int m, int w, const float *f, double *part) {
    const size_t row = thread_id() / 32;
    if (row >= rows) return; /* the whole warp */
    const float *re = f + row * 2 * (size_t)h, *im = re + h;
    double sum = 0;
    for (int u = threadIdx.x % 32; u < h; u += 32) sum += magnitude(re[u], im[u]);
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) part[row] = sum * times((int)(row % (size_t)m), w);
}

/* F = its direction, as often as it counts, times each; 0 stays 0. */
static __global__ void directions(size_t bins, int h, int m, int w, double each, float *f) {
    for (size_t i = thread_id(); i < bins; i += thread_count()) {
        const size_t row = i / (size_t)h;
        float *re = f + row * 2 * (size_t)h + i % (size_t)h, *im = re + h;
        const double size = magnitude(*re, *im), scale = each * times((int)(row % (size_t)m), w);
        const double by = size > 0 ? scale / size : 0.0;
        *re = (float)(by * (double)*re);
        *im = (float)(by * (double)*im);
    }
}

/* ---- launchers ---------------------------------------------------------------------------------------------------
 */

static int half_of(dk_map m) {
    return m.w / 2 + 1;
}
static size_t planes_of(dk_map m) {
    return (size_t)m.n * (size_t)m.c;
}
/* floats of one plane's half spectrum */
static size_t plane_floats(dk_map m) {
    return 2 * (size_t)half_of(m) * (size_t)m.h;
}
/* floats of the larger table */
static size_t table_floats(dk_map m) {
    const size_t y = 4 * (size_t)m.h * (size_t)m.h, x = 2 * (size_t)half_of(m) * (size_t)m.w;
    return x > y ? x : y;
}

size_t dk_freq_scratch(dk_map m) {
    return planes_of(m) * (size_t)half_of(m) * sizeof(double) +
           (2 * planes_of(m) * plane_floats(m) + table_floats(m)) * sizeof(float);
}

/* The parts of the scratch memory: two buffers of half spectra, a table, sums. The buffers stand first, where x is
 * aligned for whole pieces; all counts of floats are even, so the sums are aligned too. */
struct room {
    float *x, *y, *table;
    double *part;
};
static room room_in(dk_map m, void *scratch) {
    room r;
    r.x = (float *)scratch;
    r.y = r.x + planes_of(m) * plane_floats(m);
    r.table = r.y + planes_of(m) * plane_floats(m);
    r.part = (double *)(void *)(r.table + table_floats(m));
    return r;
}

/* r.x = F of a - b */
static void transform(cudaStream_t st, dk_map m, const float *a, const float *b, room r) {
    const int half = half_of(m), planes = (int)planes_of(m), h2 = 2 * m.h;
    map(st, DK_F32, diff_op{}, dk_count(m), a, b, r.x);
    waves(st, side{m.w, m.w, 1, half, 2, false, false}, r.table);
    dk_gemm(st, false, false, planes * m.h, 2 * half, m.w, 1, r.x, (size_t)m.w, 0, r.table, 2 * (size_t)half, 0, 0, r.y,
            2 * (size_t)half, 0, 1);
    waves(st, side{m.h, m.h, 2, m.h, 2, false, false}, r.table);
    dk_gemm(st, true, false, half, h2, h2, 1, r.y, (size_t)half, plane_floats(m), r.table, (size_t)h2, 0, 0, r.x,
            (size_t)h2, plane_floats(m), planes);
}

void dk_freq(cudaStream_t st, dk_map m, const float *a, const float *b, float *loss, void *scratch) {
    const room r = room_in(m, scratch);
    const size_t rows = planes_of(m) * (size_t)half_of(m);
    transform(st, m, a, b, r);
    DR_LAUNCH(magnitude_sums, dim3((unsigned)ceil_div(rows * 32, BLOCK)), dim3(BLOCK), 0, st, rows, m.h, half_of(m),
              m.w, r.x, r.part);
    dk_mean_of_parts(st, rows, (double)dk_count(m), r.part, loss);
}

void dk_freq_bwd(cudaStream_t st, dk_map m, const float *a, const float *b, float g, float *da, void *scratch) {
    const room r = room_in(m, scratch);
    const int half = half_of(m), planes = (int)planes_of(m), h2 = 2 * m.h;
    const size_t bins = planes_of(m) * (size_t)half * (size_t)m.h;
    transform(st, m, a, b, r);
    DR_LAUNCH(directions, dim3(dk_grid(bins, BLOCK)), dim3(BLOCK), 0, st, bins, m.h, half, m.w,
              (double)g / (double)dk_count(m), r.x);
    waves(st, side{m.h, m.h, 2, m.h, 2, true, true}, r.table);
    dk_gemm(st, false, false, half, h2, h2, 1, r.x, (size_t)h2, plane_floats(m), r.table, (size_t)h2, 0, 0, r.y,
            (size_t)h2, plane_floats(m), planes);
    waves(st, side{m.w, half, 2, m.w, 1, false, true}, r.table);
    dk_gemm(st, true, false, m.h, m.w, 2 * half, 1, r.y, (size_t)m.h, plane_floats(m), r.table, (size_t)m.w, 0, 0, da,
            (size_t)m.w, (size_t)m.h * (size_t)m.w, planes);
}
