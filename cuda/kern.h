/* kern.h - launchers of the module's own kernels: everything on the device that is not a convolution.
 *
 * The .cu files behind it compile two ways: with nvcc for the device, and with g++ and tests/cusim for tests without
 * one. A launcher only queues work on the stream; the caller asks cudaGetLastError() afterwards. Nothing here
 * allocates: where scratch memory is needed, dk_*_scratch() says how many bytes, and launchers overwrite it freely.
 * No atomics; every sum has a fixed order, so equal inputs give equal bits.
 *
 * How a tensor lies in memory (dk_map):
 *   planar  f32, NCHW without gaps: pictures, scores, rows of the heads (h = w = 1), losses. Every tensor whose channel
 *           count is not a multiple of 8, and every one with h = w = 1.
 *   wide    NHWC without gaps, f32, bf16 or f16 (IEEE half): all other tensors (features). c is a multiple of 8.
 * Arithmetic and statistics are f32 whatever is stored; 16-bit types round to nearest even. What is too large for f16
 * (beyond 65504) becomes infinite there, as in cuDNN's results, and shows as NaN in all that is computed from it: see
 * dk_sum_rows and core/model/range.h. Sizes may be anything from 1 up; offsets are 64-bit (a feature map can pass 2^31
 * elements). Tensors begin at multiples of 64 bytes. */
#ifndef DR_CUDA_KERN_H
#define DR_CUDA_KERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum dk_type { DK_F32, DK_BF16, DK_F16 } dk_type;

static inline size_t dk_elt(dk_type t) { /* bytes */
    return t == DK_F32 ? 4 : 2;
}
static inline const char *dk_type_name(dk_type t) {
    return t == DK_BF16 ? "bf16" : t == DK_F16 ? "f16" : "f32";
}

typedef struct dk_map {
    int n, c, h, w;
    bool wide;
    dk_type type; /* DK_F32 if planar */
} dk_map;

static inline size_t dk_count(dk_map m) {
    return (size_t)m.n * (size_t)m.c * (size_t)m.h * (size_t)m.w;
}
static inline size_t dk_bytes(dk_map m) {
    return dk_count(m) * dk_elt(m.type);
}

/* Same numbers as dr_act, dr_norm_then and dr_gan_loss of core/tensor/backend.h. */
typedef enum dk_act { DK_ACT_NONE, DK_ACT_RELU, DK_ACT_LRELU, DK_ACT_TANH } dk_act;
typedef enum dk_then { DK_THEN_NONE, DK_THEN_REFLECT, DK_THEN_BLUR_DOWN, DK_THEN_BLUR_UP, DK_THEN_ADD } dk_then;
typedef enum dk_gan { DK_HINGE_REAL, DK_HINGE_FAKE, DK_LSGAN_REAL, DK_LSGAN_FAKE, DK_NEG_MEAN } dk_gan;

/* ---- elementwise (k_elt.cu): n elements of one type; y may be an input ------------------------------------------ */
void dk_fill(cudaStream_t st, dk_type t, size_t n, float v, void *y);
void dk_axpy(cudaStream_t st, dk_type t, size_t n, float a, const void *x, void *y); /* y += a x */
void dk_add(cudaStream_t st, dk_type t, size_t n, const void *a, const void *b, void *y);
void dk_scale(cudaStream_t st, dk_type t, size_t n, float a, const void *x, void *y);
void dk_activate(cudaStream_t st, dk_type t, size_t n, dk_act act, const void *x, void *y);
/* from the OUTPUT y of the activation, as act_bwd of the table */
void dk_activate_bwd(cudaStream_t st, dk_type t, size_t n, dk_act act, const void *y, const void *dy, void *dx);
void dk_clamp(cudaStream_t st, dk_type t, size_t n, float lo, float hi, const void *x, void *y);
void dk_clamp_bwd(cudaStream_t st, dk_type t, size_t n, float lo, float hi, const void *x, const void *dy, void *dx);
/* y = a + s*b; b has a's map, or one channel (then it is planar, and a may be either) */
void dk_add_bcast(cudaStream_t st, dk_map a, float s, const void *pa, int b_channels, const void *b, void *y);
void dk_add_bcast_bwd(cudaStream_t st, dk_map a, float s, const void *dy, int b_channels, void *db);

/* ---- between layouts (k_layout.cu) ------------------------------------------------------------------------------- */
void dk_from_nchw(cudaStream_t st, dk_map m, const float *nchw, void *y); /* host order, on the device */
void dk_to_nchw(cudaStream_t st, dk_map m, const void *x, float *nchw);
/* planar (n,c,h,w) -> NHWC of type t with cpad >= c channels, the rest zero */
void dk_widen(cudaStream_t st, dk_map m, int cpad, dk_type t, const float *x, void *y);
/* NHWC of type t with cpad channels -> planar (n,c,h,w), plus bias[c] if not NULL */
void dk_narrow(cudaStream_t st, dk_map m, int cpad, dk_type t, const void *x, const float *bias, float *y);
/* weights (O,I,k,k) f32 -> (opad,k,k,ipad) of type t, zero where padded */
void dk_pack_weights(cudaStream_t st, int o, int i, int k, int opad, int ipad, dk_type t, const float *w, void *y);
/* A k x k convolution as k horizontal ones: channel r*O + o of a 1 x k convolution over all rows is row r of output o's
 * window. Weights (O,I,k,k) f32 -> (opad,1,k,ipad), opad >= k*O, zero where padded. */
void dk_pack_rows(cudaStream_t st, int o, int i, int k, int opad, int ipad, dk_type t, const float *w, void *y);
/* Their sums: x NHWC of type t with cpad channels and h+k-1 rows -> planar (n,c,h,w) plus bias[c] if not NULL; c 1
 * or 3. In f16, a sum with an infinite part is NaN and not infinite, which tanh would hide. */
void dk_sum_rows(cudaStream_t st, dk_map m, int k, int cpad, dk_type t, const void *x, const float *bias, float *y);
/* The other way round: the k columns of a window as channels. Of planar x (n,c,h,w) the rows from `row` on become NHWC
 * (n,rows,w-k+1,cpad) of type t, whose channel s*c + i is x's channel i, s pixels to the right; cpad >= k*c a multiple
 * of 8, at most 256, the rest zero. Weights (O,I,k,k) f32 -> (opad,k,1,cpad) for the k x 1 convolution over it. */
void dk_gather_columns(cudaStream_t st, dk_map m, int k, int row, int rows, int cpad, dk_type t, const float *x,
                       void *y);
void dk_pack_columns(cudaStream_t st, int o, int i, int k, int opad, int cpad, dk_type t, const float *w, void *y);
/* dw (O,I,k,k) f32 += the (opad,k,k,ipad) gradient of type t */
void dk_unpack_weights(cudaStream_t st, int o, int i, int k, int opad, int ipad, dk_type t, const void *x, float *dw);
/* y += b[c] for a wide tensor; db[c] += sum of dy over n,h,w for any map */
void dk_bias_add(cudaStream_t st, dk_map m, const float *b, void *y);
size_t dk_bias_grad_scratch(dk_map m);
void dk_bias_grad(cudaStream_t st, dk_map m, const void *dy, float *db, void *scratch);

/* ---- pixels (k_pixels.cu): rows of samples without gaps on the device, w x h; planes (3,ph,pw). The values are those
 * of core/image/convert.h to the bit.
 * ---------------------------------------------------------------------------------- */
/* channels 1..4 of depth 8 or 16; mirrored right and bottom; alpha is left out */
void dk_pixels_in(cudaStream_t st, int depth, int channels, int w, int h, const void *px, float *x, int pw, int ph);
/* colours: 1 (mean of the planes) or 3, without alpha */
void dk_pixels_out(cudaStream_t st, int depth, int colours, int w, int h, const float *y, int pw, int ph, void *px);

/* ---- instance norm (k_norm.cu); stats: n*c pairs (mean, rstd), sums shifted by the channel's first pixel ----------
 */
size_t dk_norm_scratch(dk_map m); /* for stats and bwd */
void dk_norm_stats(cudaStream_t st, dk_map m, float eps, const void *x, float *stats, void *scratch);
/* y = f(act((x-mean)*rstd)) as norm_apply of the table: `then`, p, and resid of rh x rw (rh = h+2q) for DK_THEN_ADD */
void dk_norm_apply(cudaStream_t st, dk_map m, const void *x, const float *stats, dk_act act, dk_then then, int p,
                   const void *resid, int rh, int rw, void *y);
void dk_norm_bwd(cudaStream_t st, dk_map m, dk_act act, const void *x, const float *stats, const void *dy, void *dx,
                 void *scratch);

/* ---- resampling (k_resample.cu); m is the map of the smaller-or-equal side named ----------------------------------
 */
void dk_pad_reflect(cudaStream_t st, dk_map x, int p, const void *px, void *y);
void dk_pad_reflect_bwd(cudaStream_t st, dk_map x, int p, const void *dy, void *dx); /* gathers: no atomics */
void dk_blur_down(cudaStream_t st, dk_map x, const void *px, void *y);
void dk_blur_down_bwd(cudaStream_t st, dk_map x, const void *dy, void *dx);
void dk_blur_up(cudaStream_t st, dk_map x, const void *px, void *y);
void dk_blur_up_bwd(cudaStream_t st, dk_map x, const void *dy, void *dx);

/* ---- projection heads (k_heads.cu); rows are planar f32 -----------------------------------------------------------
 */
void dk_gather(cudaStream_t st, dk_map x, const int32_t *idx, int s, const void *px, float *rows);
void dk_gather_bwd(cudaStream_t st, dk_map x, const int32_t *idx, int s, const float *drows, void *dx);
/* row-major C = alpha op(A) op(B) + beta C for `batch` matrices at the given strides; op(A) is M x K, op(B) is K x N.
 * ta/tb: stored transposed. beta 0 does not read C. f32 throughout (no tf32). */
void dk_gemm(cudaStream_t st, bool ta, bool tb, int M, int N, int K, float alpha, const float *A, size_t lda,
             size_t stride_a, const float *B, size_t ldb, size_t stride_b, float beta, float *C, size_t ldc,
             size_t stride_c, int batch);
void dk_row_bias(cudaStream_t st, int rows, int cols, const float *b, float *y); /* y[r][c] += b[c] */
void dk_col_sum(cudaStream_t st, int rows, int cols, const float *x, float *db); /* db[c] += sum over rows */
void dk_l2norm(cudaStream_t st, int rows, int cols, const float *v, float *norms, float *y);
void dk_l2norm_bwd(cudaStream_t st, int rows, int cols, const float *y, const float *norms, const float *dy, float *dv);

/* ---- spectra (k_freq.cu): mean |FFT2(a - b)| over all bins, orthonormal, of planar pictures of any size, by products
 * with tables of waves; da = g * its derivative --------------------------------------------------------------------
 */
size_t dk_freq_scratch(dk_map m); /* for both */
void dk_freq(cudaStream_t st, dk_map m, const float *a, const float *b, float *loss, void *scratch);
void dk_freq_bwd(cudaStream_t st, dk_map m, const float *a, const float *b, float g, float *da, void *scratch);

/* ---- losses (k_loss.cu): the value goes to *loss on the device; gradients as the table says -----------------------
 */
/* *loss = (sum of the parts)/count, in the order of one block */
void dk_mean_of_parts(cudaStream_t st, size_t parts, double count, const double *part, float *loss);
size_t dk_loss_scratch(size_t n); /* for gan and l1 over n elements */
void dk_gan_loss(cudaStream_t st, dk_gan mode, dk_type t, size_t n, const void *s, float *loss, void *scratch);
void dk_gan_loss_bwd(cudaStream_t st, dk_gan mode, dk_type t, size_t n, const void *s, float g, void *ds);
void dk_l1(cudaStream_t st, dk_type t, size_t n, const void *a, const void *b, float *loss, void *scratch);
void dk_l1_bwd(cudaStream_t st, dk_type t, size_t n, const void *a, const void *b, float g, void *da);
/* sim: groups x s x s similarities q.k (from dk_gemm). Loss: mean over rows of -log softmax(sim/tau)[i][i], the
 * constant e^(-10/tau) among the candidates. bwd turns sim into its gradient in place: (softmax - identity) * g / (tau
 * * groups * s). */
size_t dk_nce_scratch(int groups, int s);
void dk_nce(cudaStream_t st, int groups, int s, float tau, const float *sim, float *loss, void *scratch);
void dk_nce_bwd(cudaStream_t st, int groups, int s, float tau, float g, float *sim);

/* ---- optimizer (k_optim.cu) -------------------------------------------------------------------------------------- */
/* Adam as torch.optim.Adam: c1 = 1 - beta1^t, c2 = 1 - beta2^t; p -= lr/c1 * m / (sqrt(v/c2) + eps) */
void dk_adam(cudaStream_t st, size_t n, float lr, float beta1, float beta2, float eps, float c1, float c2, float *p,
             const float *g, float *m, float *v);
void dk_ema(cudaStream_t st, size_t n, float decay, const float *p, float *ema); /* e = d e + (1-d) p */

#ifdef __cplusplus
}
#endif
#endif
