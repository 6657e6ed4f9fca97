#include "core/train/state.h"
#include "core/base/alloc.h"
#include "core/base/hash.h"
#include "core/base/parse.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

static const char *group_of(dr_net n) {
    return n <= DR_NET_G_B ? "adam_g" : n <= DR_NET_D_B ? "adam_d" : "adam_f";
}

/* ---- options as metadata ---- */

typedef struct int_key {
    const char *key;
    size_t offset;
} int_key;
#define AT(m) offsetof(dr_train_opts, m)
static const int_key sizes[] = {{"derain.ngf", AT(ngf)},           {"derain.blocks", AT(blocks)},
                                {"derain.residual", AT(residual)}, {"train.ndf", AT(ndf)},
                                {"train.d_layers", AT(d_layers)},  {"train.crop", AT(crop)},
                                {"train.batch", AT(batch)},        {"train.pool", AT(pool)}};
static const int_key reals[] = {{"train.lr", AT(lr)},
                                {"train.lr_f", AT(lr_f)},
                                {"train.w_gan", AT(w_gan)},
                                {"train.w_nce", AT(w_nce)},
                                {"train.w_idt", AT(w_idt)},
                                {"train.w_cycle", AT(w_cycle)},
                                {"train.w_nce_extra", AT(w_nce_extra)},
                                {"train.w_color", AT(w_color)},
                                {"train.w_freq", AT(w_freq)},
                                {"train.w_transplant", AT(w_transplant)},
                                {"train.w_brighter", AT(w_brighter)},
                                {"train.w_low", AT(w_low)},
                                {"train.transplant_gain", AT(transplant_gain)},
                                {"train.ema_decay", AT(ema_decay)},
                                {"train.ema_age", AT(ema_age)},
                                {"train.streaks_share", AT(streaks_share)},
                                {"train.decay_part", AT(decay_part)},
                                {"train.warmup", AT(warmup)}};
enum { N_SIZES = sizeof sizes / sizeof *sizes, N_REALS = sizeof reals / sizeof *reals };

static int *int_at(dr_train_opts *o, size_t off) {
    return (int *)(void *)((char *)o + off);
}
static double *real_at(dr_train_opts *o, size_t off) {
    return (double *)(void *)((char *)o + off);
}

void dr_state_about(dr_st_writer *w, const dr_train_opts *o, int64_t step, const char *kind) {
    dr_st_writer_meta(w, "derain.arch", "resnet");
    dr_st_writer_meta(w, "derain.kind", kind);
    dr_st_writer_meta(w, "derain.name", "derain");
    dr_st_writer_meta(w, "derain.version", "1");
    dr_st_writer_meta(w, "train.preset", o->preset);
    dr_st_writer_metaf(w, "train.step", "%lld", (long long)step);
    dr_st_writer_metaf(w, "train.steps", "%lld", (long long)o->steps);
    dr_st_writer_metaf(w, "train.seed", "%llu", (unsigned long long)o->seed);
    for (int i = 0; i < N_SIZES; i++)
        dr_st_writer_metaf(w, sizes[i].key, "%d", *int_at((dr_train_opts *)o, sizes[i].offset));
    for (int i = 0; i < N_REALS; i++)
        dr_st_writer_metaf(w, reals[i].key, "%.17g", *real_at((dr_train_opts *)o, reals[i].offset));
    if (o->micro_batch > 0) dr_st_writer_metaf(w, "train.micro_batch", "%d", o->micro_batch);
    if (o->terms && *o->terms) dr_st_writer_meta(w, "derain.terms", o->terms);
    dr_st_writer_meta(w, "train.precision", o->precision ? o->precision : "f32");
}

static bool meta_int(const dr_st *f, const char *key, int64_t *ret) {
    const char *v = dr_st_meta(f, key);
    return v && dr_parse_i64(v, 0, INT64_MAX, ret);
}

/* Files that are older than this count have none. */
static bool read_skips(const dr_st *f, int64_t step, dr_skips *ret) {
    const char *all = dr_st_meta(f, "train.skipped"), *lately = dr_st_meta(f, "train.skipped_lately");
    uint8_t raw[8];
    *ret = (dr_skips){0};
    if (!all && !lately) return true;
    if (!all || !lately || !dr_parse_i64(all, 0, step, &ret->all)) return false;
    if (strlen(lately) != 16 || !dr_unhex(lately, 8, raw)) return false;
    for (int i = 0; i < 8; i++) ret->lately = ret->lately << 8 | raw[i];
    return dr_skips_lately(ret) <= ret->all;
}

dr_status dr_state_options(const dr_st *f, dr_train_opts *o, char preset[32], dr_state_info *ret, dr_error *err) {
    const char *kind = dr_st_meta(f, "derain.kind"), *name = dr_st_meta(f, "train.preset");
    int64_t v, step;
    if (!kind || strcmp(kind, "checkpoint") || !name || strlen(name) >= 32 || !meta_int(f, "train.step", &step))
        return dr_fail_as(err, DR_CORRUPT, "bad_checkpoint", "this is no training checkpoint");
    if (o->preset && strcmp(o->preset, name))
        return dr_fail(err, DR_INVALID, "the checkpoint was made with preset %s, not %s", name, o->preset);
    snprintf(preset, 32, "%s", name);
    o->preset = preset;
    for (int i = 0; i < N_SIZES; i++) {
        int *at = int_at(o, sizes[i].offset);
        if (!meta_int(f, sizes[i].key, &v) || v > 1 << 20)
            return dr_fail_as(err, DR_CORRUPT, "bad_checkpoint", "the checkpoint has no usable %s", sizes[i].key);
        if (*at >= 0 && *at != v)
            return dr_fail(err, DR_INVALID, "the checkpoint was made with %s %lld, not %d", sizes[i].key, (long long)v,
                           *at);
        *at = (int)v;
    }
    for (int i = 0; i < N_REALS; i++) {
        double d, *at = real_at(o, reals[i].offset);
        const char *text = dr_st_meta(f, reals[i].key);
        if (!text) continue; /* younger than the file: the preset's */
        if (!dr_parse_double(text, -1e30, 1e30, &d))
            return dr_fail_as(err, DR_CORRUPT, "bad_checkpoint", "the checkpoint has no usable %s", reals[i].key);
        if (*at < 0) *at = d;
    }
    uint64_t seed;
    const char *text = dr_st_meta(f, "train.seed");
    if (!text || !dr_parse_u64(text, 1, UINT64_MAX, &seed) || !meta_int(f, "train.steps", &v))
        return dr_fail_as(err, DR_CORRUPT, "bad_checkpoint", "the checkpoint has no usable train.seed or train.steps");
    if (o->seed && o->seed != seed)
        return dr_fail(err, DR_INVALID, "the checkpoint was made with another seed (%llu)", (unsigned long long)seed);
    o->seed = seed;
    if (o->steps < 0) o->steps = v;
    if (dr_st_meta(f, "train.micro_batch")) { /* absent: whole batches */
        if (!meta_int(f, "train.micro_batch", &v) || v < 1 || v > 64)
            return dr_fail_as(err, DR_CORRUPT, "bad_checkpoint", "the checkpoint has no usable train.micro_batch");
        if (!o->micro_batch) o->micro_batch = (int)v;
    }
    text = dr_st_meta(f, "train.precision");
    if (!o->precision) o->precision = text && !strcmp(text, "bf16") ? "bf16" : "f32";
    dr_skips skips;
    if (!read_skips(f, step, &skips))
        return dr_fail_as(err, DR_CORRUPT, "bad_checkpoint", "the checkpoint has no usable train.skipped");
    *ret = (dr_state_info){.step = step, .skips = skips};
    text = dr_st_meta(f, "train.data");
    snprintf(ret->fingerprint, sizeof ret->fingerprint, "%s", text ? text : "");
    text = dr_st_meta(f, "train.device");
    snprintf(ret->device, sizeof ret->device, "%s", text ? text : "");
    return DR_OK;
}

/* The tensor with the most specific name of the ones that the file kinds use. */
static const dr_st_tensor *find_param(const dr_st *f, dr_net n, const char *param) {
    char name[160];
    snprintf(name, sizeof name, "%s.%s", dr_net_name(n), param);
    const dr_st_tensor *t = dr_st_find(f, name);
    return t || n != DR_NET_G_A ? t : dr_st_find(f, param);
}

void dr_state_sizes(const dr_st *f, dr_train_opts *o) {
    const dr_st_tensor *t = find_param(f, DR_NET_G_A, "model.1.weight");
    if (t && t->rank == 4 && o->ngf < 0 && t->dims[0] <= DR_NGF_MAX) o->ngf = (int)t->dims[0];
    if (o->blocks < 0) {
        int b = 0;
        char name[64];
        for (; b < DR_BLOCKS_MAX; b++) {
            snprintf(name, sizeof name, "model.%d.conv_block.1.weight", 12 + b);
            if (!find_param(f, DR_NET_G_A, name)) break;
        }
        if (b) o->blocks = b;
    }
    int64_t v;
    if (o->residual < 0 && meta_int(f, "derain.residual", &v) && v <= 3) o->residual = (int)v;
    if (o->ndf < 0 && (t = find_param(f, DR_NET_D_A, "model.0.weight")) && t->rank == 4 && t->dims[0] <= 256)
        o->ndf = (int)t->dims[0];
    if (o->d_layers < 0 && meta_int(f, "train.d_layers", &v) && v <= DR_D_LAYERS_MAX) o->d_layers = (int)v;
}

/* ---- tensors ---- */

int dr_state_dims(const dr_param *p, int64_t d[4]) {
    size_t len = strlen(p->name);
    bool bias = len >= 4 && !strcmp(p->name + len - 4, "bias");
    int rank = bias ? 1 : strncmp(p->name, "mlp_", 4) == 0 ? 2 : 4;
    d[0] = p->shape.n, d[1] = p->shape.c, d[2] = p->shape.h, d[3] = p->shape.w;
    return rank;
}

/* One parameter-shaped array of the file to the device; absent is an error. */
static dr_status load_one(const dr_st_tensor *t, const char *name, const dr_param *p, dr_backend *be, float *dst,
                          dr_error *err) {
    int64_t d[4];
    int rank = dr_state_dims(p, d);
    if (!t) return dr_fail_as(err, DR_CORRUPT, "bad_model", "tensor '%s' is missing", name);
    if (!dr_st_has_shape(t, rank, d))
        return dr_fail_as(err, DR_CORRUPT, "bad_model", "tensor '%s' has another shape than this net", t->name);
    float *v = dr_malloc(t->count * sizeof *v);
    if (!v) return dr_fail(err, DR_NOMEM, "no memory for tensor '%s'", t->name);
    dr_status s = dr_st_read_f32(t, v, err);
    if (!s) s = dr_be_upload_raw(be, v, dst, t->count * sizeof *v, err);
    dr_free(v);
    return s;
}

static dr_status load_block(const dr_st *f, const char *prefix, dr_params *ps, float *block, dr_error *err) {
    dr_status s = DR_OK;
    char name[160];
    for (int i = 0; i < ps->n && !s; i++) {
        snprintf(name, sizeof name, "%s.%s", prefix, ps->p[i].name);
        s = load_one(dr_st_find(f, name), name, &ps->p[i], ps->be, block + dr_params_offset(ps, i), err);
    }
    return s;
}

dr_status dr_state_load(const dr_st *f, dr_nets *m, dr_error *err) {
    dr_status s = dr_st_verify(f, err);
    char prefix[64];
    for (dr_net n = 0; n < DR_NETS && !s; n++) {
        dr_params *ps = dr_nets_params(m, n);
        s = load_block(f, dr_net_name(n), ps, ps->value, err);
        snprintf(prefix, sizeof prefix, "%s.m.%s", group_of(n), dr_net_name(n));
        if (!s) s = load_block(f, prefix, ps, m->adam_m[n], err);
        snprintf(prefix, sizeof prefix, "%s.v.%s", group_of(n), dr_net_name(n));
        if (!s) s = load_block(f, prefix, ps, m->adam_v[n], err);
    }
    if (!s && m->ema) s = load_block(f, "ema.G_A", &m->g[0].params, m->ema, err);
    return s;
}

dr_status dr_state_init(const dr_st *f, dr_nets *m, int *ret_nets, dr_error *err) {
    dr_status s = DR_OK;
    int nets = 0;
    for (dr_net n = 0; n < DR_NETS && !s; n++) {
        dr_params *ps = dr_nets_params(m, n);
        if (!find_param(f, n, ps->p[0].name)) continue; /* a bare generator has only G_A */
        for (int i = 0; i < ps->n && !s; i++)
            s = load_one(find_param(f, n, ps->p[i].name), ps->p[i].name, &ps->p[i], ps->be, ps->p[i].value, err);
        nets++;
    }
    if (!s && !nets) s = dr_fail_as(err, DR_CORRUPT, "bad_model", "there is no generator in this file");
    if (!s) s = dr_nets_reset_ema(m, err);
    if (!s) *ret_nets = nets;
    return s;
}

/* ---- writing ---- */

/* A device array that is fetched when its turn comes. */
typedef struct source {
    dr_backend *be;
    const float *device;
} source;

static dr_status fetch(void *arg, float *dst, size_t count, dr_error *err) {
    const source *s = arg;
    return dr_be_download_raw(s->be, s->device, dst, count * sizeof *dst, err);
}

typedef struct sink {
    dr_st_writer *w;
    source *sources;
    int n, cap;
} sink;

static dr_status sink_init(sink *k, dr_nets *m, dr_error *err) {
    *k = (sink){.w = dr_st_writer_create()};
    for (dr_net n = 0; n < DR_NETS; n++) k->cap += 4 * dr_nets_params(m, n)->n;
    k->sources = dr_calloc((size_t)k->cap, sizeof *k->sources);
    if (k->w && k->sources) return DR_OK;
    dr_st_writer_destroy(k->w);
    dr_free(k->sources);
    return dr_fail(err, DR_NOMEM, "no memory to write the training state");
}

static void put_block(sink *k, const char *prefix, const dr_params *ps, const float *block, dr_st_dtype dtype) {
    char name[160];
    for (int i = 0; i < ps->n && k->n < k->cap; i++) {
        int64_t d[4];
        int rank = dr_state_dims(&ps->p[i], d);
        source *s = &k->sources[k->n++];
        *s = (source){ps->be, block + dr_params_offset(ps, i)};
        snprintf(name, sizeof name, "%s%s%s", prefix, *prefix ? "." : "", ps->p[i].name);
        dr_st_writer_fetch(k->w, name, dtype, rank, d, fetch, s);
    }
}

static dr_status sink_save(sink *k, const char *path, dr_error *err) {
    dr_st_writer_checksum(k->w);
    dr_status s = dr_st_writer_save(k->w, path, err);
    dr_st_writer_destroy(k->w);
    dr_free(k->sources);
    return s;
}

/* An image pool: its pictures as one tensor and its random state as texts. */
static void put_pool(dr_st_writer *w, const char *name, const dr_image_pool *p) {
    if (!p->size) return;
    char key[32];
    snprintf(key, sizeof key, "%s.rng", name);
    dr_st_writer_metaf(w, key, "%016llx%016llx%016llx%016llx", (unsigned long long)p->rng.s[0],
                       (unsigned long long)p->rng.s[1], (unsigned long long)p->rng.s[2],
                       (unsigned long long)p->rng.s[3]);
    int64_t d[2] = {p->count, (int64_t)p->image_floats};
    if (p->count) dr_st_writer_f32(w, name, DR_ST_F32, 2, d, p->data);
}

static dr_status load_pool(const dr_st *f, const char *name, dr_image_pool *p, dr_error *err) {
    if (!p->size) return DR_OK;
    char key[32];
    snprintf(key, sizeof key, "%s.rng", name);
    const char *text = dr_st_meta(f, key);
    uint8_t raw[32];
    if (!text || strlen(text) != 64 || !dr_unhex(text, 32, raw))
        return dr_fail_as(err, DR_CORRUPT, "bad_checkpoint", "the checkpoint has no usable %s", key);
    dr_rng rng = {{0}};
    for (int i = 0; i < 32; i++) rng.s[i / 8] = rng.s[i / 8] << 8 | raw[i];
    const dr_st_tensor *t = dr_st_find(f, name);
    if (!t) return dr_image_pool_restore(p, 0, NULL, &rng, err);
    if (t->rank != 2 || t->dims[0] > p->size || (size_t)t->dims[1] != p->image_floats)
        return dr_fail_as(err, DR_CORRUPT, "bad_checkpoint", "tensor '%s' does not fit", name);
    float *v = dr_malloc(t->count * sizeof *v);
    if (!v) return dr_fail(err, DR_NOMEM, "no memory for tensor '%s'", name);
    dr_status s = dr_st_read_f32(t, v, err);
    if (!s) s = dr_image_pool_restore(p, (int)t->dims[0], v, &rng, err);
    dr_free(v);
    return s;
}

dr_status dr_state_load_pools(const dr_st *f, dr_image_pool *a, dr_image_pool *b, dr_error *err) {
    dr_status s = load_pool(f, "pool_a", a, err);
    return s ? s : load_pool(f, "pool_b", b, err);
}

dr_status dr_state_save(dr_nets *m, const dr_image_pool *a, const dr_image_pool *b, const dr_train_opts *o,
                        const dr_state_info *info, const char *path, dr_error *err) {
    sink k;
    dr_status s = sink_init(&k, m, err);
    if (s) return s;
    dr_state_about(k.w, o, info->step, "checkpoint");
    dr_st_writer_meta(k.w, "train.data", info->fingerprint);
    dr_st_writer_meta(k.w, "train.device", info->device);
    dr_st_writer_metaf(k.w, "train.skipped", "%lld", (long long)info->skips.all);
    dr_st_writer_metaf(k.w, "train.skipped_lately", "%016llx", (unsigned long long)info->skips.lately);
    char prefix[64];
    for (dr_net n = 0; n < DR_NETS; n++) {
        dr_params *ps = dr_nets_params(m, n);
        put_block(&k, dr_net_name(n), ps, ps->value, DR_ST_F32);
        snprintf(prefix, sizeof prefix, "%s.m.%s", group_of(n), dr_net_name(n));
        put_block(&k, prefix, ps, m->adam_m[n], DR_ST_F32);
        snprintf(prefix, sizeof prefix, "%s.v.%s", group_of(n), dr_net_name(n));
        put_block(&k, prefix, ps, m->adam_v[n], DR_ST_F32);
    }
    put_pool(k.w, "pool_a", a);
    put_pool(k.w, "pool_b", b);
    if (m->ema) put_block(&k, "ema.G_A", &m->g[0].params, m->ema, DR_ST_F32);
    return sink_save(&k, path, err);
}

dr_status dr_state_export(dr_nets *m, const dr_train_opts *o, int64_t step, dr_st_dtype dtype, const char *path,
                          dr_error *err) {
    sink k;
    dr_status s = sink_init(&k, m, err);
    if (s) return s;
    dr_state_about(k.w, o, step, "generator");
    dr_params *ps = &m->g[0].params;
    put_block(&k, "", ps, m->ema ? m->ema : ps->value, dtype);
    return sink_save(&k, path, err);
}

dr_status dr_state_export_all(dr_nets *m, const dr_train_opts *o, int64_t step, const char *path, dr_error *err) {
    sink k;
    dr_status s = sink_init(&k, m, err);
    if (s) return s;
    dr_state_about(k.w, o, step, "training");
    for (dr_net n = 0; n < DR_NETS; n++) {
        dr_params *ps = dr_nets_params(m, n);
        put_block(&k, dr_net_name(n), ps, n == DR_NET_G_A && m->ema ? m->ema : ps->value, DR_ST_F16);
    }
    return sink_save(&k, path, err);
}
