/* batch_rig.h - for tests: pictures of many kinds through a small network, alone and several at once, and whether the
 * answers are equal byte by byte. The alone ones are made by the same engine before anything else. */
#ifndef BATCH_RIG_H
#define BATCH_RIG_H

#include "core/base/alloc.h"
#include "core/derain.h"
#include "core/image/codec.h"
#include "core/model/engine.h"
#include "core/model/weights.h"
#include "tests/t.h"
#include <unistd.h>

enum { RIG_MOST = 8 };

typedef struct rig_kind {
    int w, h, channels, depth;
    int out_depth;
    dr_format format;
} rig_kind;

/* All on a grid of 40 x 24. */
static const rig_kind rig_kinds[RIG_MOST] = {
    {40, 24, 3, 8, 0, DR_FORMAT_PNG},  {37, 23, 4, 16, 0, DR_FORMAT_PNG}, {39, 24, 1, 8, 16, DR_FORMAT_PNG},
    {40, 21, 3, 16, 8, DR_FORMAT_PNG}, {38, 22, 2, 8, 0, DR_FORMAT_PNG},  {40, 24, 3, 8, 0, DR_FORMAT_JPEG},
    {37, 21, 4, 8, 16, DR_FORMAT_PNG}, {40, 24, 1, 16, 0, DR_FORMAT_PNG},
};

typedef struct rig {
    dr_engine *e;
    dr_model *m;
    void *in[RIG_MOST];
    size_t in_len[RIG_MOST];
    struct rig_answer { /* alone */
        void *data;
        size_t len;
    } alone[RIG_MOST];
    dr_limits lim;
    atomic_bool cancel[RIG_MOST];
    _Atomic float progress[RIG_MOST];
    dr_picture *p[RIG_MOST];
    dr_run_stats stats[RIG_MOST];
    dr_error err;
} rig;

/* A generator whose every layer matters. */
static inline dr_status rig_model_file(const char *path, dr_error *err) {
    dr_backend *be;
    dr_generator g;
    dr_status s = dr_backend_open("cpu", &(dr_backend_opts){.threads = 1}, &be, NULL, err);
    if (s) return s;
    s = dr_generator_init(&g, (dr_generator_config){16, 1, 3}, be, false, err);
    if (!s) s = dr_params_init_xavier(&g.params, 21, "x", 1.0, err);
    dr_st_writer *w = dr_st_writer_create();
    dr_st_writer_metaf(w, "derain.residual", "3");
    dr_weights_save(w, "", &g.params, NULL, DR_ST_F32);
    if (!s) s = dr_st_writer_save(w, path, err);
    dr_st_writer_destroy(w);
    dr_generator_done(&g);
    dr_backend_close(be);
    return s;
}

static inline dr_status rig_encoded(const rig_kind *k, unsigned seed, void **ret, size_t *ret_len, dr_error *err) {
    dr_image img = {0};
    dr_status s = dr_image_init(&img, k->w, k->h, k->channels, k->depth, err);
    if (s) return s;
    for (int y = 0; y < k->h; y++)
        for (int i = 0; i < k->w * k->channels; i++) {
            uint32_t v = ((uint32_t)i * 37 + (uint32_t)y * 101 + seed * 59) * 2654435761u >> 16;
            if (k->depth == 8)
                dr_image_row8(&img, y)[i] = (uint8_t)(v >> 8);
            else
                dr_image_row16(&img, y)[i] = (uint16_t)v;
        }
    s = dr_image_encode(&img, DR_FORMAT_PNG, 0, false, ret, ret_len, err);
    dr_image_done(&img);
    return s;
}

static inline dr_run_opts rig_opts(rig *r, int i) {
    return (dr_run_opts){.format = rig_kinds[i].format,
                         .depth = rig_kinds[i].out_depth,
                         .limits = &r->lim,
                         .cancel = &r->cancel[i],
                         .progress = &r->progress[i]};
}

static inline dr_status rig_load(rig *r, const dr_engine_opts *o) {
    char path[64];
    snprintf(path, sizeof path, "/tmp/batch_rig_%ld", (long)getpid());
    dr_status s = rig_model_file(path, &r->err);
    if (!s) s = dr_engine_open(o, &r->e, &r->err);
    if (!s) s = dr_model_open(r->e, path, &r->m, &r->err);
    return s; /* the file stays for a twin on the CPU; rig_close removes it */
}

static inline dr_status rig_open(rig *r, const dr_engine_opts *o) {
    *r = (rig){0};
    dr_limits_fill(&r->lim);
    dr_status s = rig_load(r, o);
    for (int i = 0; i < RIG_MOST && !s; i++) {
        const dr_run_opts ro = rig_opts(r, i);
        s = rig_encoded(&rig_kinds[i], (unsigned)i, &r->in[i], &r->in_len[i], &r->err);
        if (!s) s = dr_derain(r->m, r->in[i], r->in_len[i], &ro, &r->alone[i].data, &r->alone[i].len, NULL, &r->err);
    }
    return s;
}

static inline void rig_drop(rig *r) {
    for (int i = 0; i < RIG_MOST; i++) {
        dr_picture_close(r->p[i]);
        r->p[i] = NULL;
    }
}

static inline void rig_close(rig *r) {
    char path[64];
    rig_drop(r);
    for (int i = 0; i < RIG_MOST; i++) {
        dr_free(r->in[i]);
        dr_free(r->alone[i].data);
    }
    dr_model_close(r->m);
    dr_engine_close(r->e);
    snprintf(path, sizeof path, "/tmp/batch_rig_%ld", (long)getpid());
    unlink(path);
}

/* The first n kinds from `from` on, decoded, as pictures 0..n-1. */
static inline dr_status rig_decode(rig *r, int from, int n) {
    dr_status s = DR_OK;
    rig_drop(r);
    r->err = (dr_error){0};
    for (int i = 0; i < n && !s; i++) {
        const int k = (from + i) % RIG_MOST;
        const dr_run_opts ro = rig_opts(r, k);
        atomic_store(&r->cancel[k], false);
        atomic_store(&r->progress[k], 0);
        s = dr_picture_open(r->in[k], r->in_len[k], &ro, &r->p[i], &r->err);
        if (!s) s = dr_picture_decode(r->p[i], &r->err);
    }
    return s;
}

/* Encode picture i, which is kind k, and compare. */
static inline dr_status rig_answer_is_alone(rig *r, int i, int k, bool *ret_equal) {
    void *data = NULL;
    size_t len = 0;
    dr_status s = dr_picture_encode(r->p[i], &data, &len, &r->stats[i], &r->err);
    *ret_equal = !s && len == r->alone[k].len && !memcmp(data, r->alone[k].data, len);
    if (!s) dr_free(data);
    return s;
}

/* All of it; how many of the n answers are those that the pictures get alone, -1 on an error. */
static inline int rig_run(rig *r, int from, int n) {
    int equal = 0;
    dr_status s = rig_decode(r, from, n);
    if (!s) s = dr_model_run_pictures(r->m, r->p, n, &r->err);
    for (int i = 0; i < n && !s; i++) {
        bool is;
        s = rig_answer_is_alone(r, i, (from + i) % RIG_MOST, &is);
        equal += is;
    }
    return s ? -1 : equal;
}

/* Was a plan for n pictures made? */
static inline bool rig_has_plan(const rig *r, int n) {
    for (int i = 0; i < DR_PLANS_MAX; i++)
        if (r->m->plans[i].plan && r->m->plans[i].n == n) return true;
    return false;
}

#endif
