#include "core/nn/params.h"
#include "core/base/alloc.h"
#include "core/base/rng.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static size_t rounded(size_t n) {
    return (n + 15) / 16 * 16;
}

int dr_params_declare(dr_params *ps, dr_shape shape, const char *fmt, ...) {
    if (ps->status) return -1;
    if (ps->n == ps->cap) {
        int cap = ps->cap ? ps->cap * 2 : 64;
        dr_param *p = dr_realloc(ps->p, (size_t)cap * sizeof *p);
        if (!p) {
            ps->status = DR_NOMEM;
            return -1;
        }
        ps->p = p;
        ps->cap = cap;
    }
    dr_param *p = &ps->p[ps->n];
    *p = (dr_param){.shape = shape, .trainable = true};
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p->name, sizeof p->name, fmt, ap);
    va_end(ap);
    ps->floats += rounded(dr_shape_count(shape));
    return ps->n++;
}

/* A block of zeroed device memory. */
static dr_status make_block(dr_params *ps, float **ret, dr_error *err) {
    void *p;
    dr_status s = dr_be_alloc(ps->be, ps->floats * sizeof(float), &p, err);
    if (s) return s;
    dr_tensor t = {{1, 1, 1, (int)ps->floats}, p};
    if ((s = dr_be_fill(ps->be, 0.0f, t, err))) {
        dr_be_free(ps->be, p);
        return s;
    }
    *ret = p;
    return DR_OK;
}

dr_status dr_params_make(dr_params *ps, dr_backend *be, bool with_grad, dr_error *err) {
    if (ps->status) return dr_fail(err, ps->status, "no memory for the list of parameters");
    ps->be = be;
    if (!be) return DR_OK;
    dr_status s = make_block(ps, &ps->value, err);
    if (!s && with_grad) s = make_block(ps, &ps->grad, err);
    if (s) return dr_wrap(err, s, "%zu parameters", ps->floats);
    size_t at = 0;
    for (int i = 0; i < ps->n; i++) {
        ps->p[i].value = ps->value + at;
        ps->p[i].grad = ps->grad ? ps->grad + at : NULL;
        at += rounded(dr_param_count(&ps->p[i]));
    }
    return DR_OK;
}

void dr_params_done(dr_params *ps) {
    if (ps->be) {
        if (ps->value) dr_be_free(ps->be, ps->value);
        if (ps->grad) dr_be_free(ps->be, ps->grad);
    }
    dr_free(ps->p);
    *ps = (dr_params){0};
}

size_t dr_params_total(const dr_params *ps) {
    size_t n = 0;
    for (int i = 0; i < ps->n; i++) n += dr_param_count(&ps->p[i]);
    return n;
}

size_t dr_params_offset(const dr_params *ps, int i) {
    size_t at = 0;
    for (int k = 0; k < i; k++) at += rounded(dr_param_count(&ps->p[k]));
    return at;
}

int dr_params_find(const dr_params *ps, const char *name) {
    for (int i = 0; i < ps->n; i++)
        if (!strcmp(ps->p[i].name, name)) return i;
    return -1;
}

void dr_params_set_trainable(dr_params *ps, bool on) {
    for (int i = 0; i < ps->n; i++) ps->p[i].trainable = on;
}

dr_status dr_params_upload(dr_params *ps, int i, const float *src, dr_error *err) {
    return dr_be_upload_raw(ps->be, src, ps->p[i].value, dr_param_count(&ps->p[i]) * sizeof(float), err);
}

dr_status dr_params_download(const dr_params *ps, int i, float *dst, dr_error *err) {
    return dr_be_download_raw(ps->be, ps->p[i].value, dst, dr_param_count(&ps->p[i]) * sizeof(float), err);
}

dr_status dr_params_zero_grad(dr_params *ps, dr_error *err) {
    dr_tensor t = {{1, 1, 1, (int)ps->floats}, ps->grad};
    return dr_be_fill(ps->be, 0.0f, t, err);
}

/* FNV-1a: names to streams. */
static uint64_t hash_text(uint64_t h, const char *s) {
    for (; *s; s++) h = (h ^ (unsigned char)*s) * 0x100000001b3ull;
    return h;
}

dr_status dr_params_init_xavier(dr_params *ps, uint64_t seed, const char *net, double gain, dr_error *err) {
    size_t most = 0;
    for (int i = 0; i < ps->n; i++)
        if (dr_param_count(&ps->p[i]) > most) most = dr_param_count(&ps->p[i]);
    float *v = dr_malloc(most * sizeof *v);
    if (!v) return dr_fail(err, DR_NOMEM, "no memory for %zu parameters", most);
    dr_status s = DR_OK;
    for (int i = 0; i < ps->n && !s; i++) {
        dr_shape d = ps->p[i].shape;
        size_t n = dr_shape_count(d), len = strlen(ps->p[i].name);
        bool bias = len >= 4 && !strcmp(ps->p[i].name + len - 4, "bias");
        double area = (double)d.h * d.w, std = gain * sqrt(2.0 / (area * d.c + area * d.n));
        dr_rng r;
        dr_rng_seed(&r, seed, hash_text(hash_text(0xcbf29ce484222325ull, net), ps->p[i].name));
        for (size_t k = 0; k < n; k++) v[k] = bias ? 0.0f : (float)(std * dr_rng_normal(&r));
        s = dr_params_upload(ps, i, v, err);
    }
    dr_free(v);
    return s;
}
