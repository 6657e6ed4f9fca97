/* k_pixels.cu - interleaved pixels of 8 or 16 bits to planar floats and back, as core/image/convert.c does it: the same
 * operations in the same order, none of them contracted, so that the bits are equal. A thread makes pixels of one row;
 * rows and columns outside the picture are read from its mirror. */
#include "cuda/vec.cuh"

/* Index i >= 0 mirrored into 0..n-1 without repeating the edge. */
DK_INLINE int mirrored(int i, int n) {
    if (i < n) return i;
    if (n == 1) return 0;
    const int period = 2 * (n - 1);
    i %= period;
    return i < n ? i : period - i;
}

/* (v+1) * half, rounded to the nearest of 0 .. 2*half. A NaN fails the first comparison. */
DK_INLINE int level(float v, float half) {
    v = v > -1.0f ? v : -1.0f;
    v = v < 1.0f ? v : 1.0f;
    return (int)__fadd_rn(__fmul_rn(v, half), half + 0.5f);
}

/* Grid: columns, rows. */
template <class S>
static __global__ void pixels_in(int channels, int w, int h, float half, const S *__restrict__ px,
                                 float *__restrict__ x, int pw, int ph) {
    const size_t plane = (size_t)ph * pw;
    for (int row = blockIdx.y; row < ph; row += gridDim.y) {
        const S *from = px + (size_t)mirrored(row, h) * w * channels;
        for (int col = (int)thread_id(); col < pw; col += (int)thread_count()) {
            const S *at = from + (size_t)mirrored(col, w) * channels;
            float *to = x + (size_t)row * pw + col;
#pragma unroll
            for (int k = 0; k < 3; k++) to[k * plane] = (float)at[channels < 3 ? 0 : k] / half - 1.0f;
        }
    }
}

template <class S>
static __global__ void pixels_out(int colours, int w, int h, float half, const float *__restrict__ y, int pw, int ph,
                                  S *__restrict__ px) {
    const size_t plane = (size_t)ph * pw;
    for (int row = blockIdx.y; row < h; row += gridDim.y)
        for (int col = (int)thread_id(); col < w; col += (int)thread_count()) {
            const float *from = y + (size_t)row * pw + col;
            const float r = from[0], g = from[plane], b = from[2 * plane];
            S *to = px + ((size_t)row * w + col) * colours;
            if (colours == 1) {
                to[0] = (S)level((r + g + b) / 3.0f, half);
            } else {
                to[0] = (S)level(r, half);
                to[1] = (S)level(g, half);
                to[2] = (S)level(b, half);
            }
        }
}

static dim3 pixel_grid(int w, int h) {
    return dim3((unsigned)ceil_div((size_t)w, BLOCK), (unsigned)(h < 65535 ? h : 65535));
}

void dk_pixels_in(cudaStream_t st, int depth, int channels, int w, int h, const void *px, float *x, int pw, int ph) {
    if (depth == 8)
        DR_LAUNCH(pixels_in<uint8_t>, pixel_grid(pw, ph), dim3(BLOCK), 0, st, channels, w, h, 127.5f,
                  (const uint8_t *)px, x, pw, ph);
    else
        DR_LAUNCH(pixels_in<uint16_t>, pixel_grid(pw, ph), dim3(BLOCK), 0, st, channels, w, h, 32767.5f,
                  (const uint16_t *)px, x, pw, ph);
}

void dk_pixels_out(cudaStream_t st, int depth, int colours, int w, int h, const float *y, int pw, int ph, void *px) {
    if (depth == 8)
        DR_LAUNCH(pixels_out<uint8_t>, pixel_grid(w, h), dim3(BLOCK), 0, st, colours, w, h, 127.5f, y, pw, ph,
                  (uint8_t *)px);
    else
        DR_LAUNCH(pixels_out<uint16_t>, pixel_grid(w, h), dim3(BLOCK), 0, st, colours, w, h, 32767.5f, y, pw, ph,
                  (uint16_t *)px);
}
