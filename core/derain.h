/* derain.h - public door 1 of the engine: open a model, derain pictures, describe, measure. No tensor in sight.
 *
 * Bytes, paths and plain structs only. An engine is a backend instance (CPU threads or a GPU) and may be used by one
 * thread at a time; models belong to their engine and are used by its owner. dr_probe() is free of both and can be
 * called from any thread. */
#ifndef DR_DERAIN_H
#define DR_DERAIN_H

#include "core/base/device.h"
#include "core/base/status.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct dr_engine dr_engine;
typedef struct dr_model dr_model;

/* ---- limits and probing -------------------------------------------------------------------------------------- */

/* Checked from the header, before anything is allocated. A zero field takes the default in brackets. */
typedef struct dr_limits {
    uint64_t body_max_bytes; /* encoded bytes [256 MiB] */
    int side_min, side_max;  /* pixels [16, 32768] */
    uint64_t pixels_max;     /* [100e6] */
    int aspect_max;          /* longer side over shorter [200] */
    int ratio_max;           /* decoded bytes over encoded bytes, checked above 64 MiB decoded [2000] */
    uint64_t mem_budget;     /* bytes a run may take; setting "mem_budget" [half of RAM or of the cgroup limit] */
} dr_limits;
void dr_limits_fill(dr_limits *lim); /* put the defaults where a field is 0 */

typedef enum dr_format { DR_FORMAT_NONE, DR_FORMAT_PNG, DR_FORMAT_JPEG } dr_format;
const char *dr_format_name(dr_format f); /* "png", "jpeg" */
const char *dr_format_mime(dr_format f); /* "image/png", "image/jpeg" */

typedef struct dr_picture_info {
    dr_format format;
    int width, height; /* upright: after the EXIF orientation */
    int bit_depth;     /* 8 or 16 (PNG below 8 counts as 8) */
    int channels;      /* 1 grey, 2 grey+alpha, 3 RGB, 4 RGBA; palettes count as RGB or RGBA */
} dr_picture_info;

/* Look at the header of an encoded picture. data may be only its beginning: total is the full size (0 = len).
 * Errors: INVALID empty_body; UNSUPPORTED unsupported_format (also CMYK JPEG: unsupported_color); CORRUPT
 * image_corrupt; TOO_LARGE image_too_large (setting side_max, pixels_max, aspect_max, ratio_max or body_max_bytes);
 * INVALID image_too_small (limit, actual); UNAVAILABLE header_incomplete (len < total and the header ends behind data:
 * come back with more). */
DR_MUSTUSE dr_status dr_probe(const void *data, size_t len, uint64_t total, const dr_limits *lim, dr_picture_info *ret,
                              dr_error *err);

/* ---- engine --------------------------------------------------------------------------------------------------- */

typedef struct dr_engine_opts {
    const char *backend;   /* "auto" (NULL), "cpu", "cuda" */
    int threads;           /* 0 = all cores */
    bool fallback;         /* a device that fails, or is too small for a picture in bands: the CPU takes over */
    const char *precision; /* "auto" (NULL): f16 on a GPU, f32 on the CPU; "f32", "f16", "bf16" (docs: deraind(8)) */
    bool background; /* on a GPU its work is queued behind that of other engines (comparisons, gates of versions) */
    const char *plan_cache; /* file of convolution plans tuned for this GPU; NULL or "" = none */
} dr_engine_opts;

DR_MUSTUSE dr_status dr_engine_open(const dr_engine_opts *opts, dr_engine **ret, dr_error *err);
void dr_engine_close(dr_engine *e);                 /* after its models */
const char *dr_engine_backend(const dr_engine *e);  /* "cpu" or "cuda" */
const char *dr_engine_describe(const dr_engine *e); /* device and kernels, for people */
/* What the engine's device holds; any thread may ask while the engine is open. False: it has no memory of its own (the
 * CPU), or does not answer any more. */
bool dr_engine_device(const dr_engine *e, dr_device_state *ret);
/* Within a yield (dr_model_set_yield), before it stands still: returns when the device has done what was queued through
 * this engine, so that others have it alone. */
void dr_engine_drain(dr_engine *e);
const char *dr_engine_note(const dr_engine *e); /* why "auto" did not take the GPU, "" otherwise */

/* ---- models --------------------------------------------------------------------------------------------------- */

typedef struct dr_model_info {
    char name[64];
    int version;
    char sha256[65];
    uint64_t bytes; /* of the file */
    char dtype[8];  /* "F32", "F16", "BF16" */
    char arch[16];  /* "resnet" */
    int ngf, blocks;
    int residual; /* 0 = tanh output, 3 or 1 = channels of the residual that is subtracted */
    uint64_t params;
    char *metadata_json; /* the file's __metadata__ as a JSON object text; freed by dr_model_info_done */
} dr_model_info;
void dr_model_info_done(dr_model_info *i);

/* Check a model file whole (header, offsets, shapes, finite values) without an engine. */
DR_MUSTUSE dr_status dr_model_describe(const char *path, dr_model_info *ret, dr_error *err);

/* Load weights onto the engine. They stay resident until dr_model_close. */
DR_MUSTUSE dr_status dr_model_open(dr_engine *e, const char *path, dr_model **ret, dr_error *err);
void dr_model_close(dr_model *m);
const dr_model_info *dr_model_get_info(const dr_model *m);
/* Weights that f16 might not hold are computed in bf16 on the same device (core/model/range.h): what it is, and why it
 * is not what was asked, "" otherwise. */
const char *dr_model_precision(const dr_model *m); /* "f32", "f16", "bf16" */
const char *dr_model_device(const dr_model *m);    /* as dr_engine_describe */
const char *dr_model_note(const dr_model *m);
/* `between` is asked between the layers of every run of this model, so that work of its kind (an evaluation) can let
 * more urgent runs pass; false breaks the run off (CANCELLED). NULL = not asked. */
void dr_model_set_yield(dr_model *m, bool (*between)(void *), void *arg);

/* Most bytes that a run of a w x h picture takes on top of the resident model (activations, scratch, pixels) where
 * there is room, and the least that it can do with: it then goes through the network in bands (docs/performance.md),
 * which takes up to three times as long and gives the same picture. A run keeps within any mem_budget from the least
 * on. 0 for pictures that are too small; UINT64_MAX: more than can be counted. */
uint64_t dr_model_run_bytes(const dr_model *m, int width, int height);
uint64_t dr_model_run_bytes_min(const dr_model *m, int width, int height);

/* Random weights from a seed, METHOD.md section 5 (released) or gain 1 with a zero last layer where residual != 0. */
typedef struct dr_model_spec {
    int ngf, blocks, residual;
    uint64_t seed;
    const char *dtype; /* "F32" (NULL), "F16", "BF16" */
    const char *name;  /* NULL = "derain" */
} dr_model_spec;
DR_MUSTUSE dr_status dr_model_init_file(const dr_model_spec *spec, const char *path, dr_error *err);
/* Make a generator file from a generator file (as it is), a file of all nets of a training (its G_A) or a PyTorch state
 * dict of such a generator (core/model/pth.h). *ret_training (may be NULL): it was the second kind. CORRUPT bad_model,
 * bad_pickle, bad_zip; pickle_refused: the state dict names a function, which was not called. Where it fails, `out`
 * stays as it was. */
DR_MUSTUSE dr_status dr_model_import_file(const char *in, const char *out, bool *ret_training, dr_error *err);
/* Rewrite a generator file in another dtype; metadata is kept. */
DR_MUSTUSE dr_status dr_model_convert_file(const char *in, const char *dtype, const char *out, dr_error *err);

/* ---- deraining ------------------------------------------------------------------------------------------------ */

typedef struct dr_run_opts {
    dr_format format;        /* of the output; NONE = PNG */
    int depth;               /* 0 = as the input, else 8 or 16 */
    bool strip_metadata;     /* drop ICC, EXIF, pHYs, gAMA/cHRM/sRGB */
    const dr_limits *limits; /* NULL = defaults */
    atomic_bool *cancel;     /* looked at between layers; NULL = never */
    _Atomic float *progress; /* 0..1, written as it goes; NULL = not wanted */
} dr_run_opts;

typedef struct dr_run_stats {
    double decode_ms, infer_ms, encode_ms;
    bool on_cpu;    /* the device failed, or had no room for this picture, and the CPU took over */
    bool reran;     /* f16 could not hold this picture's values: it was run again in bf16 */
    char lost[200]; /* why the device is given up for good, "" while it is not */
    dr_picture_info input;
} dr_run_stats;

/* Encoded picture in, encoded picture out (the caller frees *ret_data with dr_free). Any size within the limits; the
 * output has the input's (upright) size. Errors: those of dr_probe; CORRUPT image_corrupt; TOO_LARGE memory
 * (setting mem_budget); UNSUPPORTED alpha_jpeg (alpha with JPEG asked for); CANCELLED. */
DR_MUSTUSE dr_status dr_derain(dr_model *m, const void *data, size_t len, const dr_run_opts *opts, void **ret_data,
                               size_t *ret_len, dr_run_stats *ret_stats, dr_error *err);

/* The same step by step, for callers that decode and encode on other threads than the engine's, or have several
 * pictures at a time. One owner at a time; open, decode, run, encode, close, in that order, close after any of them. */
typedef struct dr_picture dr_picture;

/* From the header: errors of dr_probe(); UNSUPPORTED alpha_jpeg; INVALID (depth). data and what opts points to are
 * borrowed until the close; opts itself (NULL = defaults) is copied. Any thread. */
DR_MUSTUSE dr_status dr_picture_open(const void *data, size_t len, const dr_run_opts *opts, dr_picture **ret,
                                     dr_error *err);
void dr_picture_close(dr_picture *p); /* NULL is fine */
/* Sides of the grid that the network works on: those of the picture, rounded up. Pictures of equal ones run together.
 */
void dr_picture_grid(const dr_picture *p, int *ret_w, int *ret_h);
/* Before its run: what the run may take, in the place of limits.mem_budget. */
void dr_picture_set_budget(dr_picture *p, uint64_t mem_budget);
/* Any thread. CORRUPT image_corrupt; TOO_LARGE memory; CANCELLED; NOMEM. */
DR_MUSTUSE dr_status dr_picture_decode(dr_picture *p, dr_error *err);

#define DR_BATCH_MAX 64
/* Run n decoded pictures of one grid at once, 1 <= n <= DR_BATCH_MAX. True sizes, channels and depths may differ. Each
 * picture's pixels are those that it gets alone: to the bit on the CPU; on a GPU as far as the convolutions chosen for
 * the larger batch add in the same order, else within their rounding. Where n of them do not fit into the smallest
 * mem_budget or on the device, or fail together, they run in smaller batches, down to one by one, and what the device
 * cannot do at all goes to the CPU as in dr_derain(). A picture that is cancelled meanwhile disturbs nobody; when all
 * are, the run ends. How it went with each is told by its encode. stats.infer_ms is the time of the batch.
 * Only INVALID: no such batch; nothing was run. */
DR_MUSTUSE dr_status dr_model_run_pictures(dr_model *m, dr_picture *const *p, int n, dr_error *err);

/* The end of it, as dr_derain() gives it; or why the run failed. ret_stats may be NULL. Any thread, without the
 * model. */
DR_MUSTUSE dr_status dr_picture_encode(dr_picture *p, void **ret_data, size_t *ret_len, dr_run_stats *ret_stats,
                                       dr_error *err);

/* Raw floats, for tests: planar RGB in [-1,1], (3,h,w) in and out, not clamped. Any size from 16x16. */
DR_MUSTUSE dr_status dr_model_forward(dr_model *m, const float *rgb, int width, int height, float *ret, dr_error *err);

/* ---- evaluation ----------------------------------------------------------------------------------------------- */

typedef struct dr_score {
    double psnr_y, ssim_y, psnr_rgb, ssim_rgb; /* dB capped at 100 */
} dr_score;
typedef struct dr_eval_row {
    char *name;
    int width, height;
    dr_score input, output; /* gain = output - input */
} dr_eval_row;
typedef struct dr_eval {
    size_t n;
    dr_eval_row *rows;
    dr_score mean_input, mean_output;
} dr_eval;
/* Pictures of both folders paired by file name; a missing partner or other size is an error. on_row may be NULL. */
DR_MUSTUSE dr_status dr_evaluate(dr_model *m, const char *rainy_dir, const char *clean_dir,
                                 void (*on_row)(const dr_eval_row *row, size_t i, size_t n, void *arg), void *arg,
                                 dr_eval *ret, dr_error *err);
void dr_eval_done(dr_eval *e);

/* How much of a picture looks like rain, without a clean one to compare with: 0 to 100, about 50 without rain
 * (core/image/rainscore.h, docs/rain-score.md). Errors of dr_probe and decoding. */
DR_MUSTUSE dr_status dr_rain_score(const void *data, size_t len, const dr_limits *lim, double *ret, dr_error *err);

/* One picture through a model, measured. With `clean` (its truth, of the same size) input and output are scored too. */
typedef struct dr_check_opts {
    const dr_limits *limits; /* NULL = defaults */
    int side_max;            /* of larger pictures the middle; 0 = all of it */
    atomic_bool *cancel;     /* NULL = never */
} dr_check_opts;
typedef struct dr_check {
    int width, height;            /* looked at */
    bool finite;                  /* every value of the output is a number */
    double rain_in, rain_out;     /* rain scores */
    double detail_in, detail_out; /* fine structure (core/image/detail.h) */
    double shift[3];              /* mean of output - input of R, G, B, in grey levels */
    dr_score change;              /* output against input */
    dr_score input, output;       /* against `clean`; 0 without */
} dr_check;
DR_MUSTUSE dr_status dr_model_check(dr_model *m, const void *data, size_t len, const void *clean, size_t clean_len,
                                    const dr_check_opts *opts, dr_check *ret, dr_error *err);

/* A pair to measure with where there is none: the rain that m takes off a rainy picture, laid over a clean one of
 * another scene. Both come back as PNG (RGB, 8 bits) of the size that the middles of the two have in common, at most
 * side_max; the caller frees with dr_free. A network that takes the same rain off in another place gets the clean one
 * back; one that darkens, blurs or leaves rain does not. Errors as dr_model_check. */
DR_MUSTUSE dr_status dr_model_transplant(dr_model *m, const void *data, size_t len, const void *clean, size_t clean_len,
                                         const dr_check_opts *opts, void **ret_rainy, size_t *ret_rainy_len,
                                         void **ret_clean, size_t *ret_clean_len, dr_error *err);

/* ---- benchmark ------------------------------------------------------------------------------------------------ */

typedef struct dr_bench {
    double median_ms, min_ms, mpix_per_s, peak_rss_mb;
    int batch, runs;
} dr_bench;
/* Times are of a run of `batch` pictures at once. INVALID; TOO_LARGE memory; NOMEM: no room for so many. */
DR_MUSTUSE dr_status dr_bench_run(dr_model *m, int width, int height, int batch, int runs, dr_bench *ret,
                                  dr_error *err);

#endif
