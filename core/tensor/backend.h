/* backend.h - THE interface between the networks and a device: everything that differs between CPU and CUDA.
 *
 * A backend is one const table of functions. core calls them through the dr_be_*() wrappers of backend.c, which check
 * shapes by assert and host the fault countdown for tests. A tensor is a view: a logical shape and an address on the
 * device; it owns nothing. The layout behind the address belongs to the backend: on the CPU it is nChw16c f32 where C
 * is a multiple of 16 and planar NCHW otherwise; either way a tensor holds exactly n*c*h*w floats, and for h = w = 1
 * both are plain row-major matrices. Only upload and download convert. core never sees strides.
 *
 * Parameters and their gradients are plain f32 arrays in PyTorch's order: convolutions (O,I,kh,kw), linear layers
 * (O,I), biases (O). Kernels reorder as they need.
 *
 * All values are f32 to the caller. Every entry returns a status; entries that write a tensor overwrite it unless a
 * parameter says that they accumulate. Outputs never alias inputs unless a comment allows it. A backend instance has
 * one owner thread at a time. */
#ifndef DR_TENSOR_BACKEND_H
#define DR_TENSOR_BACKEND_H

#include "core/base/status.h"
#include "core/tensor/shape.h"
#include <stdatomic.h>
#include <stdint.h>

#define DR_BACKEND_ABI 3u

typedef struct dr_backend dr_backend; /* first member of every implementation's struct, see below */

typedef struct dr_tensor {
    dr_shape shape;
    void *data; /* device address, 64-byte aligned */
} dr_tensor;

/* Something that a backend keeps for one place in a graph or plan (primitive, descriptor, reordered weights).
 * Zeroed at first; filled on first use; freed with dr_slot_clear. Optional everywhere: NULL means no memory. */
typedef struct dr_slot {
    void *p;
    void (*destroy)(void *p);
} dr_slot;

/* Stride-1 convolution (cross-correlation) with `pad` zeros on every side; k x k weights. */
typedef struct dr_conv2d_desc {
    int k, pad;
    bool frozen; /* the weights do not change while the slot lives: it may keep them reordered (inference) */
} dr_conv2d_desc;

typedef enum dr_act { DR_ACT_NONE, DR_ACT_RELU, DR_ACT_LRELU, DR_ACT_TANH } dr_act; /* LRELU: slope 0.2 */

/* Adversarial losses over raw scores s, mean over all n scores (METHOD.md 7.1):
 * HINGE_REAL max(0,1-s); HINGE_FAKE max(0,1+s); LSGAN_REAL (s-1)^2; LSGAN_FAKE s^2; NEG_MEAN -s. */
typedef enum dr_gan_loss {
    DR_GAN_HINGE_REAL,
    DR_GAN_HINGE_FAKE,
    DR_GAN_LSGAN_REAL,
    DR_GAN_LSGAN_FAKE,
    DR_GAN_NEG_MEAN
} dr_gan_loss;

/* What follows normalisation and activation in norm_apply. y is (n,c) and: NONE h x w; REFLECT h+2p x w+2p;
 * BLUR_DOWN and BLUR_UP as blur_down, blur_up; ADD: adds resid (no activation after it), then reflect pad p (0: none).
 */
typedef enum dr_norm_then {
    DR_THEN_NONE,
    DR_THEN_REFLECT,
    DR_THEN_BLUR_DOWN,
    DR_THEN_BLUR_UP,
    DR_THEN_ADD
} dr_norm_then;

/* What a fused convolution does on the way in and out. */
typedef struct dr_conv_fuse {
    const float *in_stats; /* n*c pairs (mean, rstd): x stands for in_act((x-mean)*rstd); NULL: for itself */
    dr_act in_act;         /* NONE or RELU */
    dr_norm_then in_then;  /* after that: NONE, BLUR_DOWN or BLUR_UP */
    bool reflect;          /* the padding d.pad mirrors the result of all this instead of being zero */
    float *out_stats;      /* receives n*c pairs (mean, rstd) of y, as norm_stats; NULL: not wanted */
    float eps;             /* of out_stats */
} dr_conv_fuse;

/* AUTO: f32 on the CPU, f16 on a GPU. F16 (IEEE half) and BF16: the operands of convolutions are of that type, sums
 * f32; a GPU also stores features (channels a multiple of 8) in it, the CPU everything in f32. The CPU takes F16 for
 * F32. Pictures, losses, weights, statistics: always f32.
 * F16 has 11 bits and ends at 65504, BF16 8 bits and f32's range: F16 is for inference, where core/model/range.h sees
 * what does not fit; a training's gradients need the range. What is too large for F16 comes out as infinity or NaN. */
typedef enum dr_precision { DR_PREC_AUTO, DR_PREC_F32, DR_PREC_BF16, DR_PREC_F16 } dr_precision;

/* "auto" (and NULL), "f32", "bf16", "f16"; false: none of them. */
bool dr_precision_from_name(const char *name, dr_precision *ret);
const char *dr_precision_name(dr_precision p);

typedef struct dr_backend_opts {
    int device;  /* GPU index */
    int threads; /* CPU: 0 = all cores */
    dr_precision precision;
    bool background;        /* GPU: its work is queued behind that of instances without this (training) */
    const char *plan_cache; /* GPU: file of tuned convolution plans (entry tune); NULL or "" = none. Copied */
} dr_backend_opts;

/* What an instance holds on its device, and what that has; entry info. Bytes and counts. */
typedef struct dr_device_info {
    uint64_t memory_used;             /* by this instance: allocations, scratch and workspace */
    uint64_t memory_free, memory_all; /* of the device, all processes */
    uint32_t plans, plans_tuned;      /* convolution plans made so far; of them from tuning or its cache */
} dr_device_info;

typedef struct dr_adam_desc {
    float lr, beta1, beta2, eps;
    int64_t t; /* step number, from 1, for the bias corrections */
} dr_adam_desc;

/* Interleaved samples in host memory, as core/image/image.h has them: row y begins at pixels + y * stride. */
typedef struct dr_pixel_view {
    int width, height, channels; /* 1 grey, 2 grey+alpha, 3 RGB, 4 RGBA */
    int depth;                   /* 8 or 16 bits a sample, the latter in the machine's byte order */
    size_t stride;               /* bytes */
    void *pixels;
} dr_pixel_view;

/* What the host gives to a module: nothing of ours is linked into it. */
typedef struct dr_host_api {
    void (*log_debug)(const char *text);
    dr_status (*fail)(dr_error *err, dr_status code, const char *fmt, ...);
} dr_host_api;

typedef struct dr_backend_ops {
    unsigned abi;
    size_t size; /* sizeof(dr_backend_ops) of the implementation; both are checked before anything is called */
    const char *name;

    dr_status (*open)(const dr_host_api *host, const dr_backend_opts *opts, dr_backend **ret, dr_error *err);
    void (*close)(dr_backend *be);
    /* "AVX-512 (oneDNN 2.6.3, 2 threads)": device and kernels chosen, for --version and logs; valid until close */
    const char *(*describe)(dr_backend *be);

    /* memory */
    size_t (*tensor_bytes)(dr_backend *be, dr_shape s); /* multiple of 64 */
    dr_status (*alloc)(dr_backend *be, size_t bytes, void **ret, dr_error *err);
    void (*free)(dr_backend *be, void *p);
    dr_status (*upload)(dr_backend *be, const float *nchw, dr_tensor dst, dr_error *err);
    dr_status (*download)(dr_backend *be, dr_tensor src, float *nchw, dr_error *err); /* waits for the device */
    dr_status (*upload_raw)(dr_backend *be, const void *src, void *dst, size_t bytes, dr_error *err);
    dr_status (*download_raw)(dr_backend *be, const void *src, void *dst, size_t bytes, dr_error *err);
    dr_status (*sync)(dr_backend *be, dr_error *err);

    /* elementwise; y may alias an input of the same shape */
    dr_status (*fill)(dr_backend *be, float v, dr_tensor y, dr_error *err);
    dr_status (*copy)(dr_backend *be, dr_tensor x, dr_tensor y, dr_error *err);
    /* `rows` rows of x from row from_x on, into y from row from_y on; all images and channels; equal n, c and w; x and
     * y do not overlap, and y's other rows stay */
    dr_status (*copy_rows)(dr_backend *be, dr_tensor x, int from_x, dr_tensor y, int from_y, int rows, dr_error *err);
    dr_status (*axpy)(dr_backend *be, float a, dr_tensor x, dr_tensor y, dr_error *err); /* y += a x */
    dr_status (*add)(dr_backend *be, dr_tensor a, dr_tensor b, dr_tensor y, dr_error *err);
    dr_status (*scale)(dr_backend *be, float a, dr_tensor x, dr_tensor y, dr_error *err); /* y = a x */
    dr_status (*act)(dr_backend *be, dr_act act, dr_tensor x, dr_tensor y, dr_error *err);
    /* dx from the OUTPUT y of the activation (its sign decides for RELU and LRELU; tanh: (1-y^2) dy) */
    dr_status (*act_bwd)(dr_backend *be, dr_act act, dr_tensor y, dr_tensor dy, dr_tensor dx, dr_error *err);
    /* y = a + s*b, b has a's shape or one channel that serves all of a's (the residual output) */
    dr_status (*add_bcast)(dr_backend *be, dr_tensor a, float s, dr_tensor b, dr_tensor y, dr_error *err);
    /* db = s * dy summed over the channels that shared it; db has b's shape */
    dr_status (*add_bcast_bwd)(dr_backend *be, float s, dr_tensor dy, dr_tensor db, dr_error *err);
    dr_status (*clamp)(dr_backend *be, float lo, float hi, dr_tensor x, dr_tensor y, dr_error *err);
    dr_status (*clamp_bwd)(dr_backend *be, float lo, float hi, dr_tensor x, dr_tensor dy, dr_tensor dx, dr_error *err);

    /* convolution; w (O,I,k,k), b (O) or NULL; db or NULL; dw and db are ACCUMULATED into (+=) */
    dr_status (*conv2d)(dr_backend *be, dr_conv2d_desc d, dr_tensor x, const float *w, const float *b, dr_tensor y,
                        dr_slot *slot, dr_error *err);
    dr_status (*conv2d_dx)(dr_backend *be, dr_conv2d_desc d, dr_tensor dy, const float *w, dr_tensor dx, dr_slot *slot,
                           dr_error *err);
    dr_status (*conv2d_dw)(dr_backend *be, dr_conv2d_desc d, dr_tensor x, dr_tensor dy, float *dw, float *db,
                           dr_slot *slot, dr_error *err);

    /* instance norm (no affine) with a following activation (NONE, RELU or LRELU): biased variance over H*W of each
     * (n,c), eps inside the root; y = act((x-mean)*rstd); stats receives n*c pairs (mean, rstd) */
    dr_status (*norm_act)(dr_backend *be, float eps, dr_act act, dr_tensor x, float *stats, dr_tensor y, dr_error *err);
    /* dx = rstd*(g - mean(g) - xh*mean(g*xh)), g = act'(xh)*dy, xh = (x-mean)*rstd */
    dr_status (*norm_act_bwd)(dr_backend *be, dr_act act, dr_tensor x, const float *stats, dr_tensor dy, dr_tensor dx,
                              dr_error *err);

    /* resampling; shapes per METHOD.md 2.2, 3.1, 3.2 */
    dr_status (*pad_reflect)(dr_backend *be, int p, dr_tensor x, dr_tensor y, dr_error *err);
    dr_status (*pad_reflect_bwd)(dr_backend *be, int p, dr_tensor dy, dr_tensor dx, dr_error *err);
    dr_status (*blur_down)(dr_backend *be, dr_tensor x, dr_tensor y, dr_error *err);
    dr_status (*blur_down_bwd)(dr_backend *be, dr_tensor dy, dr_tensor dx, dr_error *err);
    dr_status (*blur_up)(dr_backend *be, dr_tensor x, dr_tensor y, dr_error *err);
    dr_status (*blur_up_bwd)(dr_backend *be, dr_tensor dy, dr_tensor dx, dr_error *err);

    /* projection heads: idx holds s positions y*W+x; rows are (n*s, C, 1, 1), image by image */
    dr_status (*gather)(dr_backend *be, dr_tensor x, const int32_t *idx, int s, dr_tensor rows, dr_error *err);
    dr_status (*gather_bwd)(dr_backend *be, dr_tensor drows, const int32_t *idx, int s, dr_tensor dx,
                            dr_error *err); /* zero elsewhere; idx are distinct */
    dr_status (*linear)(dr_backend *be, dr_tensor x, const float *w, const float *b, dr_tensor y, dr_error *err);
    dr_status (*linear_dx)(dr_backend *be, dr_tensor dy, const float *w, dr_tensor dx, dr_error *err);
    dr_status (*linear_dw)(dr_backend *be, dr_tensor x, dr_tensor dy, float *dw, float *db, dr_error *err); /* += */
    /* y = v/(|v|+1e-7) by row; norms receives |v| of each row; backward of a zero row is 0 */
    dr_status (*l2norm)(dr_backend *be, dr_tensor v, float *norms, dr_tensor y, dr_error *err);
    dr_status (*l2norm_bwd)(dr_backend *be, dr_tensor y, const float *norms, dr_tensor dy, dr_tensor dv, dr_error *err);

    /* losses: the value goes to loss (1,1,1,1); backward multiplies by g */
    /* PatchNCE of METHOD.md 7.2: q, k are (groups*s, C) unit rows, candidates are the s keys of the same group;
     * mean over all rows; keys get no gradient */
    dr_status (*nce)(dr_backend *be, int groups, float temperature, dr_tensor q, dr_tensor k, dr_tensor loss,
                     dr_error *err);
    dr_status (*nce_bwd)(dr_backend *be, int groups, float temperature, dr_tensor q, dr_tensor k, float g, dr_tensor dq,
                         dr_error *err);
    dr_status (*gan)(dr_backend *be, dr_gan_loss mode, dr_tensor s, dr_tensor loss, dr_error *err);
    dr_status (*gan_bwd)(dr_backend *be, dr_gan_loss mode, dr_tensor s, float g, dr_tensor ds, dr_error *err);
    dr_status (*l1)(dr_backend *be, dr_tensor a, dr_tensor b, dr_tensor loss, dr_error *err); /* mean |a-b| */
    dr_status (*l1_bwd)(dr_backend *be, dr_tensor a, dr_tensor b, float g, dr_tensor da, dr_error *err); /* sign(0)=0 */
    /* Mean magnitude of the spectrum of a - b, over all n*c*h*w bins of the orthonormal two-dimensional transform
     * F[u][v] = sum over y,x of (a-b)[y][x] e^(-2 pi i (uy/h + vx/w)) / sqrt(hw) of each plane; pictures of fewer than
     * 8 channels and any sides. The gradient of |F| is F/|F|, and 0 at F = 0. */
    dr_status (*freq)(dr_backend *be, dr_tensor a, dr_tensor b, dr_tensor loss, dr_error *err);
    dr_status (*freq_bwd)(dr_backend *be, dr_tensor a, dr_tensor b, float g, dr_tensor da, dr_error *err);

    /* optimizer over flat arrays of n floats */
    dr_status (*adam)(dr_backend *be, const dr_adam_desc *d, size_t n, float *p, const float *g, float *m, float *v,
                      dr_error *err);
    dr_status (*ema)(dr_backend *be, float decay, size_t n, const float *p, float *ema,
                     dr_error *err); /* e = d e + (1-d) p */

    /* Fused entries for inference. NULL is allowed (the planner then uses the simple ones); both or none. The values
     * are those of the simple entries in sequence, to the bit or within 1e-6. */
    /* the statistics of norm_act without its output: n*c pairs (mean, rstd) */
    dr_status (*norm_stats)(dr_backend *be, float eps, dr_tensor x, float *stats, dr_error *err);
    /* y = f(act((x-mean)*rstd)) in one read and one write, act as in norm_act, f as dr_norm_then says. resid is read
     * for DR_THEN_ADD only: it has x's n and c, and h+2q, w+2q with some q >= 0, of which the inner h x w is added (so
     * that a reflect-padded tensor serves as the skip). p is the reflect padding after REFLECT and ADD, 0 for the
     * others. With NONE, and ADD without padding, y may alias x, and resid if q = 0. */
    dr_status (*norm_apply)(dr_backend *be, dr_tensor x, const float *stats, dr_act act, dr_norm_then then, int p,
                            dr_tensor resid, dr_tensor y, dr_error *err);
    /* conv2d with norm, activation, resampling and padding of its input and the statistics of its output: neither the
     * prepared input nor the padded one ever exists. x is as it lies in memory, before in_then; y as conv2d would make
     * it from the prepared input. Only where conv2d_fuses says so (the pointers in f count as there or not there). */
    bool (*conv2d_fuses)(dr_backend *be, dr_conv2d_desc d, const dr_conv_fuse *f, dr_shape x, dr_shape y);
    dr_status (*conv2d_fused)(dr_backend *be, dr_conv2d_desc d, const dr_conv_fuse *f, dr_tensor x, const float *w,
                              const float *b, dr_tensor y, dr_slot *slot, dr_error *err);

    /* Pixels over the bus instead of planes of floats, for backends with memory of their own; NULL is allowed, both or
     * none. Values, mirroring and rounding are those of core/image/convert.h, to the bit. */
    /* x is (1,3,ph,pw) with ph >= height, pw >= width. The picture may go when this returns. */
    dr_status (*pixels_in)(dr_backend *be, const dr_pixel_view *img, dr_tensor x, dr_error *err);
    /* The upper left part of y, (1,3,ph,pw), into the colours or grey of img; alpha stays. Waits for the device. */
    dr_status (*pixels_out)(dr_backend *be, dr_tensor y, const dr_pixel_view *img, dr_error *err);

    /* Many calls recorded once and repeated as one, for backends where a call costs more than its work; NULL is
     * allowed, all three or none. Between begin and end, entries that compute are noted with all their arguments
     * instead of being carried out; no other entry may be called, and none may need memory that it has not had before:
     * a recording follows a plain run of the same calls. The results are those of the plain calls, to the bit. */
    dr_status (*record_begin)(dr_backend *be, dr_error *err);
    /* Ends the recording in any case. ret: an empty slot, or NULL to forget what was noted. */
    dr_status (*record_end)(dr_backend *be, dr_slot *ret, dr_error *err);
    /* *ret_done: false, and nothing done, if the recording is of no use any more, since memory of the backend's own
     * that it works with has moved. */
    dr_status (*replay)(dr_backend *be, const dr_slot *recording, bool *ret_done, dr_error *err);

    /* For backends that work behind the caller's back (a queue on a device); NULL is allowed for each. */
    /* From any thread, not only the owner's. */
    dr_status (*info)(dr_backend *be, dr_device_info *ret, dr_error *err);
    /* Between two calls of a long work: waits until no more than a few milliseconds of it are queued, so that others on
     * the device get their turn soon. The results do not depend on it. */
    dr_status (*pace)(dr_backend *be, dr_error *err);
    /* Gives memory back that is only kept for speed (scratch, workspace). Recordings made before are of no use then. */
    void (*trim)(dr_backend *be);
    /* on: from now on every convolution of a shape that was not tuned yet has its candidates timed on the device first
     * (seconds). off: no more, and what was found goes into the file opts.plan_cache. *ret_tuned: shapes tuned since
     * `on`. Never while requests wait. */
    dr_status (*tune)(dr_backend *be, bool on, int *ret_tuned, dr_error *err);
} dr_backend_ops;

/* Every implementation's instance starts with this. */
struct dr_backend {
    const dr_backend_ops *ops;
    atomic_ullong n_recorded, n_replayed; /* counted by the wrappers; anybody may read */
};

extern const dr_backend_ops dr_cpu_ops; /* core/cpu; the one link upward, by name only */

/* Open by name: "cpu", "cuda", or "auto" (cuda if its module, driver and device are there, else cpu; *ret_note, if
 * not NULL, then says in a static or thread-local text why not). Close with dr_backend_close. */
DR_MUSTUSE dr_status dr_backend_open(const char *name, const dr_backend_opts *opts, dr_backend **ret,
                                     const char **ret_note, dr_error *err);
void dr_backend_close(dr_backend *be); /* NULL is fine */

/* The one symbol of a module: its table, valid for ever. */
#define DR_BACKEND_ENTRY "dr_backend_entry"
typedef const dr_backend_ops *dr_backend_entry_fn(void);

/* ABI number, size, name, and every required pointer of a table; names the first that is missing. */
DR_MUSTUSE dr_status dr_backend_check(const dr_backend_ops *ops, dr_error *err);

void dr_slot_clear(dr_slot *s);

/* Tests only: the n-th table call from now fails with DR_BACKEND (0 = never). */
void dr_backend_fail_after(long n);
/* Tests only: of the values of losses (nce, gan, l1, freq) that are computed from now, `count` from the n-th on come
 * out as NaN (n 0 = none). */
void dr_backend_poison(long n, long count);

#include "core/tensor/be.h" /* the dr_be_*() wrappers */

#endif
