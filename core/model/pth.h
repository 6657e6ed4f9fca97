/* pth.h - tensors out of the files that torch.save() writes: state dicts, in the ZIP form (PyTorch 1.6 and later) and
 * in the older one of five pickles in a row.
 *
 * Names, shapes and where the bytes are; nothing in the file is run (core/model/pickle.h), and every length is held
 * against the file's own size. The dict may stand alone or under "state_dict", "model", "params" or "net"; entries that
 * are no tensors are passed over. */
#ifndef DR_MODEL_PTH_H
#define DR_MODEL_PTH_H

#include "core/base/status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DR_PTH_RANK_MAX 8

typedef enum dr_pth_type {
    DR_PTH_F32,
    DR_PTH_F16,
    DR_PTH_BF16,
    DR_PTH_F64,
    DR_PTH_I64,
    DR_PTH_I32,
    DR_PTH_U8
} dr_pth_type;

typedef struct dr_pth_tensor {
    const char *name;
    dr_pth_type type;
    int rank;
    int64_t dims[DR_PTH_RANK_MAX];
    size_t count, bytes;
    const uint8_t *data; /* into the file, little-endian, no alignment promised */
} dr_pth_tensor;

typedef struct dr_pth dr_pth;

bool dr_pth_looks(const void *data, size_t len); /* by the first bytes */

/* data is borrowed until dr_pth_close. CORRUPT: bad_zip, bad_pickle, pickle_refused (a name that a state dict does not
 * need), bad_model (no tensors, sizes that disagree); UNSUPPORTED: transposed or sliced tensors, big-endian files. */
DR_MUSTUSE dr_status dr_pth_parse(const void *data, size_t len, dr_pth **ret, dr_error *err);
void dr_pth_close(dr_pth *f);
size_t dr_pth_count(const dr_pth *f);
const dr_pth_tensor *dr_pth_at(const dr_pth *f, size_t i);

#endif
