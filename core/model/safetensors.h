/* safetensors.h - the one file format for weights and checkpoints: a strict reader and a deterministic writer.
 *
 * A file is an 8-byte little-endian length, a JSON header of that length, and the tensors' bytes without gaps. The
 * header maps names to {"dtype","shape","data_offsets"}; "__metadata__" maps texts to texts. The reader trusts nothing:
 * lengths before looking, no key twice, no unknown key or dtype, sizes with overflow checks, and tensors that tile the
 * data exactly (no gap, no overlap, nothing behind). Every error names the tensor.
 *
 * The writer takes tensors in the caller's order, puts wider elements first (so that each tensor is aligned to its
 * element, as other readers of the format want) and gives the same bytes for the same input. */
#ifndef DR_MODEL_SAFETENSORS_H
#define DR_MODEL_SAFETENSORS_H

#include "core/base/status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DR_ST_RANK_MAX    8
#define DR_ST_NAME_MAX    255         /* bytes of a tensor's name */
#define DR_ST_TENSORS_MAX 65536       /* in a file */
#define DR_ST_HEADER_MAX  (16u << 20) /* bytes of JSON */
#define DR_ST_FILE_MAX    ((size_t)16 << 30)

typedef enum dr_st_dtype { DR_ST_F32, DR_ST_F16, DR_ST_BF16, DR_ST_I64, DR_ST_U8 } dr_st_dtype;

const char *dr_st_dtype_name(dr_st_dtype d); /* "F32" */
bool dr_st_dtype_parse(const char *s, dr_st_dtype *ret);
size_t dr_st_dtype_size(dr_st_dtype d); /* bytes of an element */
bool dr_st_dtype_is_float(dr_st_dtype d);

/* ---- reading -------------------------------------------------------------------------------------------------- */

typedef struct dr_st_tensor {
    const char *name;
    dr_st_dtype dtype;
    int rank; /* 0 = a scalar */
    int64_t dims[DR_ST_RANK_MAX];
    size_t count, bytes;
    const void *data; /* into the file's bytes; no alignment promised */
} dr_st_tensor;

typedef struct dr_st dr_st;

/* Parse data, which is borrowed until dr_st_close. Errors: CORRUPT bad_model (what is wrong where), UNSUPPORTED (dtype
 * or rank that we do not read), NOMEM. */
DR_MUSTUSE dr_status dr_st_parse(const void *data, size_t len, dr_st **ret, dr_error *err);

/* The same for a file, which is read whole. Also NOT_FOUND, IO, TOO_LARGE. */
DR_MUSTUSE dr_status dr_st_open(const char *path, dr_st **ret, dr_error *err);
void dr_st_close(dr_st *f);

size_t dr_st_count(const dr_st *f);
const dr_st_tensor *dr_st_at(const dr_st *f, size_t i);           /* in the order of the data */
const dr_st_tensor *dr_st_find(const dr_st *f, const char *name); /* NULL: not there */
bool dr_st_has_shape(const dr_st_tensor *t, int rank, const int64_t *dims);

/* All t->count elements as float; F32, F16 and BF16 only. CORRUPT not_finite names the tensor and the element. */
DR_MUSTUSE dr_status dr_st_read_f32(const dr_st_tensor *t, float *ret, dr_error *err);
/* t->count elements; I64 only. */
DR_MUSTUSE dr_status dr_st_read_i64(const dr_st_tensor *t, int64_t *ret, dr_error *err);

/* Every float of every tensor is finite, and the checksum is right where the file has one. */
DR_MUSTUSE dr_status dr_st_verify(const dr_st *f, dr_error *err);

const char *dr_st_meta(const dr_st *f, const char *key); /* NULL: not there */
size_t dr_st_meta_count(const dr_st *f);
void dr_st_meta_at(const dr_st *f, size_t i, const char **ret_key, const char **ret_value);
/* __metadata__ as a JSON object text ("{}" if there is none); the caller frees with dr_free; NULL without memory. */
char *dr_st_meta_json(const dr_st *f);
/* The whole file, for its size and its hash. */
const void *dr_st_bytes(const dr_st *f, size_t *ret_len);

/* ---- writing -------------------------------------------------------------------------------------------------- */

/* Collects descriptions; the first error sticks and comes out of dr_st_writer_save. Names must differ. */
typedef struct dr_st_writer dr_st_writer;

dr_st_writer *dr_st_writer_create(void); /* NULL without memory; all calls below take that and fail at the end */
void dr_st_writer_destroy(dr_st_writer *w);
void dr_st_writer_meta(dr_st_writer *w, const char *key, const char *value); /* copied */
void dr_st_writer_metaf(dr_st_writer *w, const char *key, const char *fmt, ...) DR_PRINTF(3, 4);
/* Floats that become `dtype` (F32, F16, BF16) in the file. data is borrowed until the save. */
void dr_st_writer_f32(dr_st_writer *w, const char *name, dr_st_dtype dtype, int rank, const int64_t *dims,
                      const float *data);
/* Elements as they are (I64 or U8; also floats that have their dtype already). Borrowed until the save. */
void dr_st_writer_raw(dr_st_writer *w, const char *name, dr_st_dtype dtype, int rank, const int64_t *dims,
                      const void *data);
/* Floats fetched when they are written: fetch(arg, dst, count) fills dst. Called once, twice with a checksum. */
typedef dr_status (*dr_st_fetch)(void *arg, float *dst, size_t count, dr_error *err);
void dr_st_writer_fetch(dr_st_writer *w, const char *name, dr_st_dtype dtype, int rank, const int64_t *dims,
                        dr_st_fetch fetch, void *arg);
/* Memory that lives as long as the writer, for a fetch's arg; NULL without memory (which sticks). */
void *dr_st_writer_alloc(dr_st_writer *w, size_t n);
/* Put the CRC-32 of all tensor bytes into the metadata as "derain.crc32" (8 hex digits); dr_st_verify looks at it. */
void dr_st_writer_checksum(dr_st_writer *w);

/* Write the file (temporary file, fsync, rename). INVALID for a bad name, metadata that is not UTF-8 or a float that is
 * not finite or does not fit F16; otherwise what the file system says. */
DR_MUSTUSE dr_status dr_st_writer_save(dr_st_writer *w, const char *path, dr_error *err);

#endif
