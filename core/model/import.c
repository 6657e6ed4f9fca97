/* import.c - a generator file out of what others write (the rest of derain.h on files is in model_file.c).
 *
 *   our generator file      as it is, bit for bit
 *   our training file       the net G_A (its average, where the training kept one), with the metadata that describes it
 *   a PyTorch state dict    the tensors under their own names, METHOD.md section 12, without a leading "module."
 *
 * The result is checked like every model file: shapes, names, finite values, and blur filters that are ours. */
#include "core/base/alloc.h"
#include "core/base/fs.h"
#include "core/derain.h"
#include "core/model/pth.h"
#include "core/model/safetensors.h"
#include "core/model/spec.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PARALLEL "module."
#define NET      "G_A."

/* --- PyTorch --- */

static dr_status fetch_pth(void *arg, float *dst, size_t count, dr_error *err) {
    const dr_pth_tensor *t = arg;
    (void)err;
    for (size_t i = 0; i < count; i++) {
        double wide;
        if (t->type == DR_PTH_F32) {
            memcpy(&dst[i], t->data + 4 * i, 4);
        } else {
            memcpy(&wide, t->data + 8 * i, 8);
            dst[i] = (float)wide;
        }
    }
    return DR_OK;
}

static void write_pth(const dr_pth_tensor *t, dr_st_writer *w) {
    const char *name = t->name;
    while (!strncmp(name, PARALLEL, sizeof PARALLEL - 1)) name += sizeof PARALLEL - 1;
    switch (t->type) {
    case DR_PTH_F32:
    case DR_PTH_F64:
        dr_st_writer_fetch(w, name, DR_ST_F32, t->rank, t->dims, fetch_pth, (void *)(uintptr_t)t);
        break;
    case DR_PTH_F16:
    case DR_PTH_BF16:
        dr_st_writer_raw(w, name, t->type == DR_PTH_F16 ? DR_ST_F16 : DR_ST_BF16, t->rank, t->dims, t->data);
        break;
    default: /* counters of other norms; the check says that they do not belong here */
        dr_st_writer_raw(w, name, DR_ST_U8, t->rank, t->dims, t->data);
        break;
    }
}

static dr_status from_pth(const void *data, size_t len, const char *out, dr_error *err) {
    dr_pth *f;
    dr_status s = dr_pth_parse(data, len, &f, err);
    if (s) return s;
    dr_st_writer *w = dr_st_writer_create();
    dr_st_writer_meta(w, "derain.source", "PyTorch state dict");
    for (size_t i = 0; i < dr_pth_count(f); i++)
        if (dr_pth_at(f, i)->type <= DR_PTH_F64) write_pth(dr_pth_at(f, i), w);
    s = dr_st_writer_save(w, out, err);
    if (s == DR_INVALID) s = DR_CORRUPT; /* a value that is not finite */
    dr_st_writer_destroy(w);
    dr_pth_close(f);
    return s;
}

/* --- our own --- */

static dr_status from_training(const dr_st *f, const char *out, dr_error *err) {
    dr_st_writer *w = dr_st_writer_create();
    for (size_t i = 0; i < dr_st_meta_count(f); i++) {
        const char *key, *value;
        dr_st_meta_at(f, i, &key, &value);
        if (!strncmp(key, "derain.", 7) && strcmp(key, "derain.crc32") && strcmp(key, "derain.kind"))
            dr_st_writer_meta(w, key, value);
    }
    for (size_t i = 0; i < dr_st_count(f); i++) {
        const dr_st_tensor *t = dr_st_at(f, i);
        if (strncmp(t->name, NET, sizeof NET - 1)) continue;
        dr_st_writer_raw(w, t->name + sizeof NET - 1, t->dtype, t->rank, t->dims, t->data);
    }
    dr_status s = dr_st_writer_save(w, out, err);
    dr_st_writer_destroy(w);
    return s;
}

static dr_status from_safetensors(const void *data, size_t len, const char *out, bool *ret_training, dr_error *err) {
    dr_st *f;
    dr_status s = dr_st_parse(data, len, &f, err);
    if (s) return s;
    *ret_training = !dr_st_find(f, "model.1.weight") && dr_st_find(f, NET "model.1.weight");
    if (!*ret_training)
        s = dr_fs_write_atomic(out, data, len, err);
    else if (!(s = dr_st_verify(f, err)))
        s = from_training(f, out, err);
    dr_st_close(f);
    return s;
}

static dr_status check(const char *path, dr_error *err) {
    dr_st *f;
    dr_spec spec;
    dr_status s = dr_st_open(path, &f, err);
    if (s) return s;
    s = dr_spec_check_file(f, &spec, err);
    dr_st_close(f);
    return s;
}

/* Under another name first, so that `out` is a checked model or what it was before. */
dr_status dr_model_import_file(const char *in, const char *out, bool *ret_training, dr_error *err) {
    char *data, part[4096];
    size_t len;
    bool training = false;
    if (snprintf(part, sizeof part, "%s.part", out) >= (int)sizeof part)
        return dr_fail(err, DR_INVALID, "the path of the new file is too long");
    dr_status s = dr_fs_read(in, DR_ST_FILE_MAX, &data, &len, err);
    if (s) return s;
    if (dr_pth_looks(data, len))
        s = from_pth(data, len, part, err);
    else
        s = from_safetensors(data, len, part, &training, err);
    dr_free(data);
    if (!s) s = check(part, err);
    if (!s && rename(part, out)) s = dr_fail_errno(err, errno, "rename", part);
    if (s) (void)unlink(part);
    if (!s && ret_training) *ret_training = training;
    return s;
}
