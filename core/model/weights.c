/* weights.c - one tensor at a time through a host buffer; nothing else is copied. */
#include "core/model/weights.h"

#include "core/base/alloc.h"
#include "core/tensor/be.h"
#include <stdio.h>
#include <string.h>

/* A parameter's shape as the file has it; returns the rank. */
static int file_shape(const dr_param *p, int64_t dims[4]) {
    size_t len = strlen(p->name);
    dims[0] = p->shape.n;
    dims[1] = p->shape.c;
    dims[2] = p->shape.h;
    dims[3] = p->shape.w;
    if (len >= 5 && !strcmp(p->name + len - 5, ".bias")) return 1;
    return p->shape.h == 1 && p->shape.w == 1 ? 2 : 4;
}

static dr_status full_name(const char *prefix, const dr_param *p, char ret[DR_ST_NAME_MAX + 1], dr_error *err) {
    int n = snprintf(ret, DR_ST_NAME_MAX + 1, "%s%s", prefix, p->name);
    if (n < 0 || n > DR_ST_NAME_MAX) return dr_fail(err, DR_INVALID, "tensor name '%s%s' is too long", prefix, p->name);
    return DR_OK;
}

static void shape_text(int rank, const int64_t *dims, char *ret, size_t cap) {
    size_t at = (size_t)snprintf(ret, cap, "(");
    for (int i = 0; i < rank && at < cap; i++)
        at += (size_t)snprintf(ret + at, cap - at, i ? ",%lld" : "%lld", (long long)dims[i]);
    if (at < cap) snprintf(ret + at, cap - at, ")");
}

/* The file's tensor for a parameter, with the right shape and kind. */
static dr_status find(const dr_st *f, const char *prefix, const dr_param *p, const dr_st_tensor **ret, dr_error *err) {
    char name[DR_ST_NAME_MAX + 1];
    dr_status s = full_name(prefix, p, name, err);
    if (s) return s;
    const dr_st_tensor *t = dr_st_find(f, name);
    if (!t) return dr_fail_as(err, DR_CORRUPT, "bad_model", "tensor '%s' is missing", name);
    int64_t dims[4];
    int rank = file_shape(p, dims);
    if (!dr_st_has_shape(t, rank, dims)) {
        char has[80], wants[80];
        shape_text(t->rank, t->dims, has, sizeof has);
        shape_text(rank, dims, wants, sizeof wants);
        return dr_fail_as(err, DR_CORRUPT, "bad_model", "tensor '%s' has shape %s, the network needs %s", name, has,
                          wants);
    }
    if (!dr_st_dtype_is_float(t->dtype))
        return dr_fail_as(err, DR_CORRUPT, "bad_model", "tensor '%s' is %s, the network needs floating point", name,
                          dr_st_dtype_name(t->dtype));
    *ret = t;
    return DR_OK;
}

dr_status dr_weights_check(const dr_st *f, const char *prefix, const dr_params *ps, dr_error *err) {
    const dr_st_tensor *t;
    for (int i = 0; i < ps->n; i++) {
        dr_status s = find(f, prefix, &ps->p[i], &t, err);
        if (s) return s;
    }
    return DR_OK;
}

dr_status dr_weights_load(const dr_st *f, const char *prefix, dr_params *ps, float *block, dr_error *err) {
    size_t most = 1;
    for (int i = 0; i < ps->n; i++)
        if (dr_param_count(&ps->p[i]) > most) most = dr_param_count(&ps->p[i]);
    float *host = dr_malloc(most * sizeof *host);
    if (!host) return dr_fail(err, DR_NOMEM, "no memory for %zu weights", most);
    dr_status s = DR_OK;
    for (int i = 0; i < ps->n && !s; i++) {
        const dr_st_tensor *t;
        s = find(f, prefix, &ps->p[i], &t, err);
        if (!s) s = dr_st_read_f32(t, host, err);
        float *to = block ? block + dr_params_offset(ps, i) : ps->p[i].value;
        if (!s) s = dr_be_upload_raw(ps->be, host, to, t->count * sizeof *host, err);
    }
    dr_free(host);
    return s;
}

typedef struct source {
    dr_backend *be;
    const float *from;
} source;

static dr_status fetch(void *arg, float *dst, size_t count, dr_error *err) {
    const source *s = arg;
    return dr_be_download_raw(s->be, s->from, dst, count * sizeof *dst, err);
}

void dr_weights_save(dr_st_writer *w, const char *prefix, const dr_params *ps, const float *block, dr_st_dtype dtype) {
    for (int i = 0; i < ps->n; i++) {
        char name[DR_ST_NAME_MAX + 1];
        int64_t dims[4];
        source *src = dr_st_writer_alloc(w, sizeof *src);
        if (!src || full_name(prefix, &ps->p[i], name, NULL))
            name[0] = 0; /* the writer refuses that and remembers it */
        if (src) *src = (source){ps->be, block ? block + dr_params_offset(ps, i) : ps->p[i].value};
        int rank = file_shape(&ps->p[i], dims);
        dr_st_writer_fetch(w, name, dtype, rank, dims, fetch, src);
    }
}
