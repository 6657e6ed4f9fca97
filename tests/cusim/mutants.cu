/* mutants.cu - kernels with one planted bug each, chosen by -DMUTANT=n (0: the right one). mutants.sh builds them and
 * asks that the emulation finds every one: it is what the kernel tests stand on. The program ends with 0 only if no
 * check failed and the result is right. */
#include "cuda/dev.cuh"

enum { N = 256, GROUPS = 4 };

/* y[b] = sum of 256 values of block b, by shared memory and one warp; then y2[i] = x[idx[i]] in vectors of 8. */
__global__ void sum_rows(const float *x, float *y) {
    DR_DYN_SHARED(float, sh);
    DR_SHARED(float, top, [32]);
    unsigned t = threadIdx.x;
    const float *row = x + (size_t)blockIdx.x * N;
    for (int round = 0; round < 2; round++) {
        sh[t] = row[t] + (float)round;
#if MUTANT != 1 /* no barrier before a shared read */
        __syncthreads();
#endif
        float v = sh[N - 1 - t] + sh[t] * 0.5f;
#if MUTANT != 2 /* no barrier after it: places are cleared that others have yet to read */
        __syncthreads();
#endif
        sh[t] = 0.f;
#if MUTANT == 3 /* a barrier in a divergent branch */
        if (t < 64) __syncthreads();
#endif
#if MUTANT == 4 /* half the warp left out of its own mask */
        for (int o = 16; o > 0; o >>= 1) v += __shfl_xor_sync(0x0000ffffu, v, o);
#elif MUTANT == 5 /* a lane leaves before its warp has met */
        if (t == 37) return;
        v = dk_warp_sum(v);
#else
        v = dk_warp_sum(v);
#endif
#if MUTANT == 6 /* past the end of a shared array */
        top[t / 32 == 7 ? 32 : t / 32] = v;
#else
        if (t % 32 == 0) top[t / 32] = v;
#endif
        __syncthreads();
        if (t < 32) {
            v = dk_warp_sum(t < N / 32 ? top[t] : 0.f);
#if MUTANT == 8 /* the last block's sum is not written */
            if (t == 0 && blockIdx.x + 1 < gridDim.x) y[blockIdx.x * 2 + (unsigned)round] = v;
#else
            if (t == 0) y[blockIdx.x * 2 + (unsigned)round] = v;
#endif
        }
        __syncthreads();
    }
}

__global__ void pick(const bf16 *x, const int *idx, bf16 *y, int n) {
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= n) return;
#if MUTANT == 10 /* a gather one past the end */
    int from = idx[i] + 1;
#else
    int from = idx[i];
#endif
#if MUTANT == 11 /* 16 bytes from an address that is a multiple of 2 */
    dk_store8(y + i * 8, dk_load8(x + (from ? from * 8 - 1 : 0)));
#else
    dk_store8(y + i * 8, dk_load8(x + from * 8));
#endif
}

/* Neighbours' values through shared memory within a warp. */
__global__ void turn(const float *x, float *y) {
    DR_SHARED(float, sh, [32]);
    sh[threadIdx.x] = x[threadIdx.x];
#if MUTANT != 12 /* lanes are not in step by themselves */
    __syncwarp();
#endif
    y[threadIdx.x] = sh[(threadIdx.x + 1) & 31];
}

static int wrong(float got, float want) {
    return !(fabsf(got - want) <= 1e-3f * fabsf(want));
}

int main() {
    float x[GROUPS * N], y[2 * GROUPS], *dx, *dy;
    for (int i = 0; i < GROUPS * N; i++) x[i] = (float)(i % 17) - 5.f;
    cudaMalloc((void **)&dx, sizeof x);
    cudaMalloc((void **)&dy, sizeof y);
    cudaMemcpy(dx, x, sizeof x, cudaMemcpyHostToDevice);
    size_t shared = N * sizeof(float);
#if MUTANT == 7 /* dynamic shared memory too short */
    shared -= 8;
#endif
    DR_LAUNCH(sum_rows, dim3(GROUPS), dim3(N), shared, nullptr, dx, dy);
    cudaMemcpy(y, dy, sizeof y, cudaMemcpyDeviceToHost);
    int bad = 0;
    for (int b = 0; b < GROUPS; b++)
        for (int round = 0; round < 2; round++) {
            float sum = 0;
            for (int i = 0; i < N; i++) sum += 1.5f * (x[b * N + i] + (float)round);
            bad += wrong(y[2 * b + round], sum);
        }

    DR_LAUNCH(turn, dim3(1), dim3(32), 0, nullptr, dx, dx + 32);
    float z[32];
    cudaMemcpy(z, dx + 32, sizeof z, cudaMemcpyDeviceToHost);
    for (int i = 0; i < 32; i++) bad += z[i] != x[(i + 1) & 31];

    int n = 24, idx[24];
    bf16 h[24 * 8], got[24 * 8], *dh, *dg;
    int *di;
    for (int i = 0; i < n; i++) idx[i] = n - 1 - i;
    for (int i = 0; i < n * 8; i++) h[i] = __float2bfloat16((float)i);
    cudaMalloc((void **)&di, sizeof idx);
    cudaMalloc((void **)&dh, sizeof h);
#if MUTANT == 9 /* an output buffer 32 bytes short */
    cudaMalloc((void **)&dg, sizeof got - 32);
#else
    cudaMalloc((void **)&dg, sizeof got);
#endif
    cudaMemcpy(di, idx, sizeof idx, cudaMemcpyHostToDevice);
    cudaMemcpy(dh, h, sizeof h, cudaMemcpyHostToDevice);
    DR_LAUNCH(pick, dim3(1), dim3(32), 0, nullptr, dh, di, dg, n);
    cudaMemcpy(got, dg, sizeof got, cudaMemcpyDeviceToHost);
    for (int i = 0; i < n * 8; i++) bad += got[i].v != h[idx[i / 8] * 8 + i % 8].v;
    return bad || cudaGetLastError();
}
