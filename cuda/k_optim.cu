/* k_optim.cu - Adam and the moving average over flat f32 arrays: one pass, four elements a thread. */
#include "cuda/vec.cuh"

struct adam_step {
    float b1, b2, rest1, rest2, step, root, eps; /* rest = 1 - b, step = lr/c1, root = sqrt(c2) */
    __device__ __forceinline__ void operator()(float *p, float g, float *m, float *v) const {
        *m = b1 * *m + rest1 * g;
        *v = b2 * *v + rest2 * (g * g);
        *p -= step * *m / (sqrtf(*v) / root + eps);
    }
};

static __global__ void adam(adam_step s, size_t n, float *p, const float *g, float *m, float *v) {
    const size_t first = thread_id(), step = thread_count(), pieces = n / 4;
    for (size_t i = first; i < pieces; i += step) {
        float vp[4], vg[4], vm[4], vv[4];
        load<4>(p + i * 4, vp);
        load<4>(g + i * 4, vg);
        load<4>(m + i * 4, vm);
        load<4>(v + i * 4, vv);
#pragma unroll
        for (int k = 0; k < 4; k++) s(vp + k, vg[k], vm + k, vv + k);
        store<4>(vp, p + i * 4);
        store<4>(vm, m + i * 4);
        store<4>(vv, v + i * 4);
    }
    const size_t i = pieces * 4 + first; /* fewer than four are left */
    if (i < n) s(p + i, g[i], m + i, v + i);
}

void dk_adam(cudaStream_t st, size_t n, float lr, float beta1, float beta2, float eps, float c1, float c2, float *p,
             const float *g, float *m, float *v) {
    const adam_step s = {beta1, beta2, 1 - beta1, 1 - beta2, (float)((double)lr / (double)c1), sqrtf(c2), eps};
    DR_LAUNCH(adam, dim3(dk_grid(ceil_div(n, 4), BLOCK)), dim3(BLOCK), 0, st, s, n, p, g, m, v);
}

struct ema_op {
    static constexpr int inputs = 2;
    float decay, rest;
    __device__ float operator()(float p, float e) const { return decay * e + rest * p; }
};
void dk_ema(cudaStream_t st, size_t n, float decay, const float *p, float *ema) {
    map(st, DK_F32, ema_op{decay, 1 - decay}, n, p, ema, ema);
}
