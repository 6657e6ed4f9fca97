/* k_loss.cu - adversarial losses, mean absolute difference, PatchNCE.
 *
 * Values are summed in double: partial sums by block to scratch, then one block adds them in order. PatchNCE takes a
 * warp per row of similarities; the largest exponent is subtracted first. */
#include "cuda/vec.cuh"

/* ---- means over all elements ------------------------------------------------------------------------------------- */

static const size_t parts_max = 512;

static unsigned parts_for(size_t n) {
    const size_t parts = ceil_div(n, 4096);
    return (unsigned)(parts < parts_max ? parts : parts_max);
}
size_t dk_loss_scratch(size_t n) {
    return parts_for(n) * sizeof(double);
}

/* Thread 0 gets the sum of v over the block. */
static __device__ double block_sum(double v) {
    DR_SHARED(double, sh, [BLOCK / 32]);
    v = warp_sum(v);
    if (threadIdx.x % 32 == 0) sh[threadIdx.x / 32] = v;
    __syncthreads();
    if (threadIdx.x == 0)
        for (int i = 1; i < BLOCK / 32; i++) v += sh[i];
    return v;
}

template <class T, class F> static __global__ void sum_kernel(F f, size_t n, const T *a, const T *b, double *part) {
    constexpr int V = VEC<T>;
    const size_t first = thread_id(), step = thread_count(), pieces = n / V;
    double sum = 0;
    for (size_t i = first; i < pieces; i += step) {
        float va[V], vb[V] = {};
        load<V>(a + i * V, va);
        if constexpr (F::inputs > 1) load<V>(b + i * V, vb);
#pragma unroll
        for (int k = 0; k < V; k++) sum += f(va[k], vb[k]);
    }
    const size_t i = pieces * V + first;
    if (i < n) sum += f(dk_load(a + i), F::inputs > 1 ? dk_load(b + i) : 0.0f);
    sum = block_sum(sum);
    if (threadIdx.x == 0) part[blockIdx.x] = sum;
}
static __global__ void mean_kernel(size_t parts, double count, const double *part, float *loss) {
    double sum = 0;
    for (size_t i = threadIdx.x; i < parts; i += BLOCK) sum += part[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *loss = (float)(sum / count);
}

void dk_mean_of_parts(cudaStream_t st, size_t parts, double count, const double *part, float *loss) {
    DR_LAUNCH(mean_kernel, dim3(1), dim3(BLOCK), 0, st, parts, count, part, loss);
}

template <class F>
static void mean(cudaStream_t st, dk_type t, F f, size_t n, const void *a, const void *b, float *loss, void *scratch) {
    const unsigned parts = parts_for(n);
    double *part = (double *)scratch;
    DK_TYPED(t, T,
             DR_LAUNCH((sum_kernel<T, F>), dim3(parts), dim3(BLOCK), 0, st, f, n, (const T *)a, (const T *)b, part));
    dk_mean_of_parts(st, parts, (double)n, part, loss);
}

struct gan_op {
    static constexpr int inputs = 1;
    dk_gan mode;
    __device__ double operator()(float score, float) const {
        const double s = (double)score;
        switch (mode) {
        case DK_HINGE_REAL:
            return s > 1 ? 0.0 : 1 - s; /* NaN stays NaN */
        case DK_HINGE_FAKE:
            return s < -1 ? 0.0 : 1 + s;
        case DK_LSGAN_REAL:
            return (s - 1) * (s - 1);
        case DK_LSGAN_FAKE:
            return s * s;
        case DK_NEG_MEAN:
            break;
        }
        return -s;
    }
};
struct gan_bwd_op {
    static constexpr int inputs = 1;
    dk_gan mode;
    float each; /* g/n */
    __device__ float operator()(float s, float) const {
        switch (mode) {
        case DK_HINGE_REAL:
            return s < 1 ? -each : 0.0f;
        case DK_HINGE_FAKE:
            return s > -1 ? each : 0.0f;
        case DK_LSGAN_REAL:
            return 2 * (s - 1) * each;
        case DK_LSGAN_FAKE:
            return 2 * s * each;
        case DK_NEG_MEAN:
            break;
        }
        return -each;
    }
};
struct l1_op {
    static constexpr int inputs = 2;
    __device__ double operator()(float a, float b) const { return (double)fabsf(a - b); }
};
struct l1_bwd_op {
    static constexpr int inputs = 2;
    float each;
    __device__ float operator()(float a, float b) const { return each * (float)((a > b) - (a < b)); }
};

static float share(float g, size_t n) {
    return (float)((double)g / (double)n);
}

void dk_gan_loss(cudaStream_t st, dk_gan mode, dk_type t, size_t n, const void *s, float *loss, void *scratch) {
    mean(st, t, gan_op{mode}, n, s, NULL, loss, scratch);
}
void dk_gan_loss_bwd(cudaStream_t st, dk_gan mode, dk_type t, size_t n, const void *s, float g, void *ds) {
    map(st, t, gan_bwd_op{mode, share(g, n)}, n, s, NULL, ds);
}
void dk_l1(cudaStream_t st, dk_type t, size_t n, const void *a, const void *b, float *loss, void *scratch) {
    mean(st, t, l1_op{}, n, a, b, loss, scratch);
}
void dk_l1_bwd(cudaStream_t st, dk_type t, size_t n, const void *a, const void *b, float g, void *da) {
    map(st, t, l1_bwd_op{share(g, n)}, n, a, b, da);
}

/* ---- PatchNCE -----------------------------------------------------------------------------------------------------
 */

/* The reference leaves e^(-10/T) on the diagonal of the negatives (METHOD.md 7.2): one more candidate. */
static const float placeholder_sim = -10;

/* The largest similarity of a row and the sum of e^((c - top)/T), in every lane. */
DK_INLINE float row_softmax(int s, float inv_tau, float placeholder, const float *c, double *ret_sum) {
    float top = placeholder;
    for (int j = threadIdx.x % 32; j < s; j += 32) top = fmaxf(top, c[j]);
    for (int o = 16; o > 0; o >>= 1) top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, o));
    double sum = 0;
    for (int j = threadIdx.x % 32; j < s; j += 32) sum += (double)expf((c[j] - top) * inv_tau);
    *ret_sum = warp_sum(sum) + (double)expf((placeholder - top) * inv_tau);
    return top;
}

static __global__ void nce_rows(size_t rows, int s, float tau, float placeholder, const float *sim, double *row_loss) {
    const size_t row = thread_id() / 32;
    if (row >= rows) return; /* the whole warp */
    const float *c = sim + row * (size_t)s;
    double sum;
    const float top = row_softmax(s, 1.0f / tau, placeholder, c, &sum);
    if (threadIdx.x % 32 == 0) row_loss[row] = log(sum) + ((double)top - (double)c[row % (size_t)s]) / (double)tau;
}

static __global__ void nce_rows_bwd(size_t rows, int s, float tau, float placeholder, float coef, float *sim) {
    const size_t row = thread_id() / 32;
    if (row >= rows) return;
    float *c = sim + row * (size_t)s;
    const int own = (int)(row % (size_t)s);
    const float inv_tau = 1.0f / tau;
    double sum;
    const float top = row_softmax(s, inv_tau, placeholder, c, &sum), scale = (float)((double)coef / sum);
    for (int j = threadIdx.x % 32; j < s; j += 32) {
        const float e = expf((c[j] - top) * inv_tau);
        /* p - 1 without cancellation where the row is nearly solved */
        c[j] = j == own ? (float)(((double)e - sum) / sum * (double)coef) : e * scale;
    }
}

size_t dk_nce_scratch(int groups, int s) {
    return (size_t)groups * (size_t)s * sizeof(double);
}
void dk_nce(cudaStream_t st, int groups, int s, float tau, const float *sim, float *loss, void *scratch) {
    const size_t rows = (size_t)groups * (size_t)s;
    double *row_loss = (double *)scratch;
    DR_LAUNCH(nce_rows, dim3((unsigned)ceil_div(rows * 32, BLOCK)), dim3(BLOCK), 0, st, rows, s, tau, placeholder_sim,
              sim, row_loss);
    dk_mean_of_parts(st, rows, (double)rows, row_loss, loss);
}
void dk_nce_bwd(cudaStream_t st, int groups, int s, float tau, float g, float *sim) {
    const size_t rows = (size_t)groups * (size_t)s;
    const float coef = (float)((double)g / ((double)rows * (double)tau));
    DR_LAUNCH(nce_rows_bwd, dim3((unsigned)ceil_div(rows * 32, BLOCK)), dim3(BLOCK), 0, st, rows, s, tau,
              placeholder_sim, coef, sim);
}
