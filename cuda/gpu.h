/* gpu.h - the CUDA backend's instance, shared by the files of cuda/ and seen by nobody else.
 *
 * One owner thread at a time (as every backend); all work goes to one stream in order. Nothing of the host program is
 * linked in: messages go through the dr_host_api given to open. */
#ifndef DR_CUDA_GPU_H
#define DR_CUDA_GPU_H

#include "core/tensor/backend.h"
#include "cuda/conv.h"
#include "cuda/kern.h"

#define GPU_PIECE ((size_t)1 << 20)
enum { GPU_N_PIECES = 16, GPU_N_SLICES = 3 };

/* A stretch of the stream, for pace.c. */
typedef struct gpu_slice {
    cudaEvent_t end; /* NULL until the first is cut */
    int calls;
    bool busy; /* the device had work all along: the time between the two ends is its own */
} gpu_slice;

typedef struct gpu {
    dr_backend base; /* first: a dr_backend * of this table is a gpu * */
    dr_host_api host;
    int device;
    dk_type type; /* of wide tensors */
    cudaStream_t stream;
    cv_engine *conv;
    struct {
        void *p;
        size_t bytes;
    } * blocks; /* what gpu_alloc gave and nobody freed yet */
    int n_blocks, cap_blocks;
    atomic_size_t allocated; /* their bytes, scratch memory included */
    void *scratch;           /* on the device; grows, nobody keeps it over a call */
    size_t scratch_bytes;
    char *staging; /* pinned host memory between the caller's pages and the device: a ring of GPU_N_PIECES pieces */
    cudaEvent_t moved[GPU_N_PIECES]; /* the device is done with the piece */
    unsigned i_piece;                /* next of the ring, counts on */
    unsigned generation;             /* of the scratch memory: counts its moves */
    bool recording;                  /* the stream is being captured: no memory may be taken */
    cudaEvent_t idle;                /* background work: to sleep until the device is done; else NULL */
    gpu_slice slices[GPU_N_SLICES];  /* the last ones, a ring */
    unsigned n_slices;               /* cut so far */
    int n_calls, slice_calls;        /* of the slice at hand: made, wanted */
    float slowest_ms;                /* a call's, in the slowest slice of late */
    atomic_bool lost;                /* a sticky error: every later call says so at once */
    char text[160];
} gpu;

static inline gpu *gpu_of(dr_backend *be) {
    return (gpu *)be;
}

/* ---- status of the runtime (gpu.c) ---- */

/* DR_OK, or the call's name and the runtime's text. Errors of a broken context make the instance lost. */
dr_status gpu_check(gpu *g, cudaError_t e, const char *call, dr_error *err);
/* After launches: DR_OK unless the instance is lost or a launch was refused. */
dr_status gpu_launched(gpu *g, const char *entry, dr_error *err);

/* ---- memory (memory.c) ---- */

size_t gpu_tensor_bytes(dr_backend *be, dr_shape s);
dr_status gpu_alloc(dr_backend *be, size_t bytes, void **ret, dr_error *err);
/* The same while scratch memory is in use: where there is no room, it is not given back for it. */
dr_status gpu_alloc_beside(gpu *g, size_t bytes, void **ret, dr_error *err);
void gpu_free(dr_backend *be, void *p);
dr_status gpu_upload(dr_backend *be, const float *nchw, dr_tensor dst, dr_error *err);
dr_status gpu_download(dr_backend *be, dr_tensor src, float *nchw, dr_error *err);
dr_status gpu_upload_raw(dr_backend *be, const void *src, void *dst, size_t bytes, dr_error *err);
dr_status gpu_download_raw(dr_backend *be, const void *src, void *dst, size_t bytes, dr_error *err);
dr_status gpu_sync(dr_backend *be, dr_error *err);
void gpu_trim(dr_backend *be);
dr_status gpu_info(dr_backend *be, dr_device_info *ret, dr_error *err);
/* Between the device and anything on the host, in pieces of whole units (bytes) that overlap: `move` copies the n bytes
 * of the stream from byte `at` on between the staging memory and where they belong. gpu_send returns when all is on its
 * way, gpu_receive when all is there. */
typedef void gpu_move(void *arg, size_t at, void *staging, size_t n);
dr_status gpu_send(gpu *g, gpu_move *move, void *arg, size_t unit, void *dst, size_t bytes, dr_error *err);
dr_status gpu_receive(gpu *g, const void *src, gpu_move *move, void *arg, size_t unit, size_t bytes, dr_error *err);
/* *ret: `bytes` of scratch memory, 256-byte aligned, until the next call of this. */
dr_status gpu_scratch(gpu *g, size_t bytes, void **ret, dr_error *err);

/* How a tensor of this shape lies in memory; see kern.h. */
static inline dk_map gpu_map(const gpu *g, dr_shape s) {
    bool wide = s.c % 8 == 0 && (s.h > 1 || s.w > 1);
    return (dk_map){s.n, s.c, s.h, s.w, wide, wide ? g->type : DK_F32};
}
static inline dk_type gpu_type(const gpu *g, dr_shape s) {
    return gpu_map(g, s).type;
}
static inline size_t gpu_count(dr_shape s) {
    return (size_t)s.n * (size_t)s.c * (size_t)s.h * (size_t)s.w;
}
/* Sizes of parts that share the scratch memory. */
static inline size_t gpu_aligned(size_t bytes) {
    return (bytes + 255) & ~(size_t)255;
}

/* ---- slices (pace.c) ---- */

dr_status gpu_pace(dr_backend *be, dr_error *err);
void gpu_pace_close(gpu *g);

/* ---- entries of the table, by family; semantics in core/tensor/backend.h ---- */

#define T                  dr_tensor
#define DECLARE(name, ...) dr_status name(dr_backend *be, __VA_ARGS__, dr_error *err)
/* ops_elt.c */
DECLARE(gpu_fill, float v, T y);
DECLARE(gpu_copy, T x, T y);
DECLARE(gpu_copy_rows, T x, int from_x, T y, int from_y, int rows);
DECLARE(gpu_axpy, float a, T x, T y);
DECLARE(gpu_add, T a, T b, T y);
DECLARE(gpu_scale, float a, T x, T y);
DECLARE(gpu_act, dr_act act, T x, T y);
DECLARE(gpu_act_bwd, dr_act act, T y, T dy, T dx);
DECLARE(gpu_add_bcast, T a, float s, T b, T y);
DECLARE(gpu_add_bcast_bwd, float s, T dy, T db);
DECLARE(gpu_clamp, float lo, float hi, T x, T y);
DECLARE(gpu_clamp_bwd, float lo, float hi, T x, T dy, T dx);
/* record.c */
dr_status gpu_record_begin(dr_backend *be, dr_error *err);
DECLARE(gpu_record_end, dr_slot *ret);
DECLARE(gpu_replay, const dr_slot *recording, bool *ret_done);
/* ops_pixels.c */
DECLARE(gpu_pixels_in, const dr_pixel_view *img, T x);
DECLARE(gpu_pixels_out, T y, const dr_pixel_view *img);
/* ops_conv.c */
DECLARE(gpu_conv2d, dr_conv2d_desc d, T x, const float *w, const float *b, T y, dr_slot *slot);
DECLARE(gpu_conv2d_dx, dr_conv2d_desc d, T dy, const float *w, T dx, dr_slot *slot);
DECLARE(gpu_conv2d_dw, dr_conv2d_desc d, T x, T dy, float *dw, float *db, dr_slot *slot);
DECLARE(gpu_tune, bool on, int *ret_tuned);
/* ops_norm.c */
DECLARE(gpu_norm_act, float eps, dr_act act, T x, float *stats, T y);
DECLARE(gpu_norm_act_bwd, dr_act act, T x, const float *stats, T dy, T dx);
DECLARE(gpu_norm_stats, float eps, T x, float *stats);
DECLARE(gpu_norm_apply, T x, const float *stats, dr_act act, dr_norm_then then, int p, T resid, T y);
DECLARE(gpu_pad_reflect, int p, T x, T y);
DECLARE(gpu_pad_reflect_bwd, int p, T dy, T dx);
DECLARE(gpu_blur_down, T x, T y);
DECLARE(gpu_blur_down_bwd, T dy, T dx);
DECLARE(gpu_blur_up, T x, T y);
DECLARE(gpu_blur_up_bwd, T dy, T dx);
/* ops_heads.c */
DECLARE(gpu_gather, T x, const int32_t *idx, int s, T rows);
DECLARE(gpu_gather_bwd, T drows, const int32_t *idx, int s, T dx);
DECLARE(gpu_linear, T x, const float *w, const float *b, T y);
DECLARE(gpu_linear_dx, T dy, const float *w, T dx);
DECLARE(gpu_linear_dw, T x, T dy, float *dw, float *db);
DECLARE(gpu_l2norm, T v, float *norms, T y);
DECLARE(gpu_l2norm_bwd, T y, const float *norms, T dy, T dv);
/* ops_loss.c */
DECLARE(gpu_nce, int groups, float temperature, T q, T k, T loss);
DECLARE(gpu_nce_bwd, int groups, float temperature, T q, T k, float g, T dq);
DECLARE(gpu_gan, dr_gan_loss mode, T s, T loss);
DECLARE(gpu_gan_bwd, dr_gan_loss mode, T s, float g, T ds);
DECLARE(gpu_l1, T a, T b, T loss);
DECLARE(gpu_l1_bwd, T a, T b, float g, T da);
DECLARE(gpu_freq, T a, T b, T loss);
DECLARE(gpu_freq_bwd, T a, T b, float g, T da);
DECLARE(gpu_adam, const dr_adam_desc *d, size_t n, float *p, const float *g, float *m, float *v);
DECLARE(gpu_ema, float decay, size_t n, const float *p, float *ema);
#undef DECLARE
#undef T

#endif
