/* conv.c - convolutions of the CPU backend: who computes which.
 *
 * Our own AMX kernels (amx.h) take everything but planar-to-planar where the CPU has AMX: in plain bf16 for
 * DR_PREC_BF16, else in split arithmetic of f32 quality. Without AMX: 3x3, channels in multiples of 16   our Winograd
 * (wino.h) forward and dx, oneDNN's Winograd for dw forward to few channels            our few_out kernel: oneDNN would
 * run at a sixth of peak dx to few channels                 the same, on weights flipped and transposed, with padding
 * k-1-pad dx from few channels               oneDNN's forward from few channels, on flipped and transposed weights dw
 * of a layer to few channels      oneDNN's dw of the mirrored layer (x and dy change places), flipped back the rest
 * oneDNN, in bf16 if wanted and the CPU has it
 *
 * oneDNN's primitives live in the caller's slot, or, for callers without one (training records its graph anew each
 * step), in a table keyed by the shape; frozen weights in the order of our kernels live in the slot and serve any
 * picture size. All temporary memory is the instance's one scratch block. */
#include "core/cpu/conv.h"
#include "core/base/alloc.h"
#include "core/base/log.h"
#include "core/cpu/amx.h"
#include "core/cpu/conv_kern.h"
#include "core/cpu/dnnl.h"
#include "core/cpu/wino.h"
#include <assert.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

enum { CACHE_SIZE = 1024, CACHE_MAX = 700 };

struct dr_cpu_conv {
    dr_dnnl *dnnl;
    const dr_conv_kern *kern;
    bool bf16; /* arithmetic of the products */
    bool amx;  /* our AMX kernels run */
    int n_cached;
    dr_dnnl_conv *cache[CACHE_SIZE];
    char text[64];
};

/* What a slot holds. */
typedef struct conv_slot {
    dr_dnnl_conv *conv;
    void *prepared;       /* frozen weights in conv's format */
    void *ours;           /* frozen weights for our kernels */
    const float *ours_of; /* made from these */
    size_t ours_bytes;
} conv_slot;

static bool amx_wanted = true;

void dr_cpu_conv_limit(bool amx) {
    amx_wanted = amx;
}

/* Large blocks that are read in long runs want large pages; a hint, and none for small ones. */
static void *big_alloc(size_t bytes) {
    void *p = dr_malloc_aligned(bytes);
    const uintptr_t huge = 2 << 20, at = ((uintptr_t)p + huge - 1) / huge * huge,
                    end = ((uintptr_t)p + bytes) / huge * huge;
    if (p && end > at) (void)madvise((void *)at, end - at, MADV_HUGEPAGE);
    return p;
}

/* ---- open, close, scratch ---------------------------------------------------------------------------------------- */

dr_status dr_cpu_conv_open(dr_cpu *c, dr_error *err) {
    struct dr_cpu_conv *v = dr_calloc(1, sizeof *v);
    if (!v) return dr_fail(err, DR_NOMEM, "no memory for the convolutions");
    c->conv = v;
    v->kern = c->isa == DR_CPU_AVX512 ? &dr_conv_kern_avx512
              : c->isa == DR_CPU_AVX2 ? &dr_conv_kern_avx2
                                      : &dr_conv_kern_base;
    dr_status s = dr_dnnl_open(&v->dnnl, err);
    if (s) return s;
    v->amx = amx_wanted && c->isa == DR_CPU_AVX512 && dr_amx_open();
    v->bf16 = c->precision == DR_PREC_BF16 && (v->amx || dr_dnnl_bf16());
    if (c->precision == DR_PREC_BF16 && !v->bf16)
        dr_log(DR_LOG_DEBUG, NULL, "this CPU has no bf16 arithmetic: convolutions stay in f32");
    snprintf(v->text, sizeof v->text, "oneDNN %s%s%s", dr_dnnl_version(), v->amx ? ", AMX" : "",
             v->bf16 ? ", bf16" : "");
    return DR_OK;
}

static void cache_drop(struct dr_cpu_conv *v) {
    for (int i = 0; i < CACHE_SIZE; i++) {
        dr_dnnl_conv_destroy(v->cache[i]);
        v->cache[i] = NULL;
    }
    v->n_cached = 0;
}

void dr_cpu_conv_close(dr_cpu *c) {
    if (!c) return;
    if (c->conv) {
        cache_drop(c->conv);
        dr_dnnl_close(c->conv->dnnl);
        dr_free(c->conv);
        c->conv = NULL;
    }
    dr_free(c->scratch);
    c->scratch = NULL;
    c->scratch_bytes = 0;
}

const char *dr_cpu_conv_text(dr_cpu *c) {
    return c->conv->text;
}

dr_status dr_cpu_scratch(dr_cpu *c, size_t bytes, void **ret, dr_error *err) {
    if (bytes > c->scratch_bytes) {
        dr_free(c->scratch);
        c->scratch_bytes = 0;
        c->scratch = big_alloc(bytes);
        if (!c->scratch) return dr_fail(err, DR_NOMEM, "no memory for %zu bytes of scratch", bytes);
        c->scratch_bytes = bytes;
    }
    *ret = c->scratch;
    return DR_OK;
}

static size_t round64(size_t n) {
    return (n + 63) & ~(size_t)63;
}

/* ---- primitives: slot or cache ----------------------------------------------------------------------------------- */

static void slot_destroy(void *p) {
    conv_slot *s = p;
    if (!s) return;
    dr_dnnl_conv_destroy(s->conv);
    dr_free(s->prepared);
    dr_free(s->ours);
    dr_free(s);
}

static unsigned key_hash(const dr_dnnl_key *k) {
    const unsigned char *p = (const unsigned char *)k;
    unsigned h = 2166136261u;
    for (size_t i = 0; i < sizeof *k; i++) h = (h ^ p[i]) * 16777619u;
    return h;
}

static bool same_key(const dr_dnnl_conv *c, const dr_dnnl_key *k) {
    return c && memcmp(dr_dnnl_conv_key(c), k, sizeof *k) == 0;
}

static dr_status from_cache(struct dr_cpu_conv *v, const dr_dnnl_key *k, const dr_dnnl_conv **ret, dr_error *err) {
    unsigned i = key_hash(k) % CACHE_SIZE;
    while (v->cache[i] && !same_key(v->cache[i], k)) i = (i + 1) % CACHE_SIZE;
    if (!v->cache[i]) {
        if (v->n_cached >= CACHE_MAX) {
            cache_drop(v);
            i = key_hash(k) % CACHE_SIZE;
        }
        dr_status s = dr_dnnl_conv_create(v->dnnl, k, &v->cache[i], err);
        if (s) return s;
        v->n_cached++;
    }
    *ret = v->cache[i];
    return DR_OK;
}

/* The primitive of `k`; *ret_prepared receives the slot's frozen weights, or NULL. */
static dr_status primitive(struct dr_cpu_conv *v, const dr_dnnl_key *k, dr_slot *slot, const float *w,
                           const dr_dnnl_conv **ret, void **ret_prepared, dr_error *err) {
    *ret_prepared = NULL;
    if (!slot) return from_cache(v, k, ret, err);
    conv_slot *cs = slot->p;
    if (cs && !same_key(cs->conv, k)) {
        slot_destroy(cs);
        slot->p = cs = NULL;
    }
    if (!cs) {
        cs = dr_calloc(1, sizeof *cs);
        if (!cs) return dr_fail(err, DR_NOMEM, "no memory for a convolution's slot");
        dr_status s = dr_dnnl_conv_create(v->dnnl, k, &cs->conv, err);
        size_t bytes = s ? 0 : dr_dnnl_conv_weights(cs->conv);
        if (!s && bytes) {
            cs->prepared = dr_malloc_aligned(bytes);
            s = cs->prepared ? dr_dnnl_conv_prepare(cs->conv, w, cs->prepared, err)
                             : dr_fail(err, DR_NOMEM, "no memory for %zu bytes of weights", bytes);
        }
        if (s) {
            slot_destroy(cs);
            return s;
        }
        slot->p = cs;
        slot->destroy = slot_destroy;
    }
    *ret = cs->conv;
    *ret_prepared = cs->prepared;
    return DR_OK;
}

static dr_dnnl_key key_for(const dr_cpu *c, dr_dnnl_pass pass, dr_shape x, int oc, int k, int pad) {
    dr_dnnl_key key = {0};
    key.pass = (int)pass;
    key.n = x.n;
    key.ic = x.c;
    key.ih = x.h;
    key.iw = x.w;
    key.oc = oc;
    key.k = k;
    key.pad = pad;
    key.bf16 = c->conv->bf16;
    return key;
}

/* ---- our own kernels ---- */

/* One forward pass (or, on turned weights, backward-data) by AMX or Winograd. */
typedef struct own {
    bool is_amx;
    dr_amx_conv amx;
    dr_wino_conv wino;
} own;

/* `f` may be NULL. False: neither takes it. xs: what lies in memory; flip: as backward-data. */
static bool own_of(const dr_cpu *c, dr_shape xs, int oc, int k, int pad, bool turned, const dr_conv_fuse *f, own *o) {
    const struct dr_cpu_conv *v = c->conv;
    dr_norm_then then = f ? f->in_then : DR_THEN_NONE;
    bool is_up = then == DR_THEN_BLUR_UP, is_down = then == DR_THEN_BLUR_DOWN;
    int h = is_up ? 2 * xs.h : is_down ? (xs.h + 1) / 2 : xs.h, w = is_up ? 2 * xs.w : is_down ? (xs.w + 1) / 2 : xs.w;
    if (then != DR_THEN_NONE && !is_up && !is_down) return false;
    if (f && f->in_stats && f->in_act != DR_ACT_NONE && f->in_act != DR_ACT_RELU) return false;
    if (f && f->reflect && (pad >= h || pad >= w)) return false;
    if (is_down && (xs.h < 2 || xs.w < 2)) return false;
    if (f && xs.c % 16 && (f->in_stats || then != DR_THEN_NONE)) return false;
    if (f && oc % 16 && f->out_stats) return false;
    bool relu = f && f->in_stats && f->in_act == DR_ACT_RELU, reflect = f && f->reflect;
    *o = (own){.is_amx = v->amx};
    o->amx = (dr_amx_conv){.n = xs.n,
                           .ic = xs.c,
                           .ih = h,
                           .iw = w,
                           .oc = oc,
                           .k = k,
                           .pad = pad,
                           .flip = turned,
                           .split = !v->bf16,
                           .reflect = reflect,
                           .relu = relu,
                           .in_stats = f ? f->in_stats : NULL,
                           .then = then,
                           .rh = xs.h,
                           .rw = xs.w,
                           .out_stats = f ? f->out_stats : NULL,
                           .eps = f ? f->eps : 0};
    o->wino = (dr_wino_conv){.n = xs.n,
                             .ic = xs.c,
                             .ih = xs.h,
                             .iw = xs.w,
                             .oc = oc,
                             .pad = pad,
                             .flip = turned,
                             .reflect = reflect,
                             .relu = relu,
                             .in_stats = f ? f->in_stats : NULL,
                             .out_stats = f ? f->out_stats : NULL,
                             .eps = f ? f->eps : 0};
    /* split arithmetic is for gradients: forward, its error would reach the eighth bit of too many pixels */
    if (v->amx && (turned || v->bf16) && dr_amx_takes(&o->amx)) return true;
    o->is_amx = false;
    return k == 3 && xs.c % 16 == 0 && oc % 16 == 0 && then == DR_THEN_NONE && !v->bf16;
}

static size_t own_weights(const own *o) {
    return round64(o->is_amx ? dr_amx_weights_bytes(&o->amx) : dr_wino_weights_bytes(&o->wino));
}

static void own_prepare(const dr_cpu *c, const own *o, const float *w, void *to) {
    if (o->is_amx)
        dr_amx_prepare(&o->amx, w, to);
    else
        dr_wino_prepare(c->conv->kern, &o->wino, w, to);
}

/* The prepared weights that the slot keeps. */
static dr_status own_frozen(const dr_cpu *c, const own *o, const float *w, dr_slot *slot, const void **ret,
                            dr_error *err) {
    conv_slot *cs = slot->p;
    size_t bytes = own_weights(o);
    if (cs && (!cs->ours || cs->ours_of != w || cs->ours_bytes != bytes)) {
        slot_destroy(cs);
        slot->p = cs = NULL;
    }
    if (!cs) {
        cs = dr_calloc(1, sizeof *cs);
        if (cs) cs->ours = big_alloc(bytes);
        if (!cs || !cs->ours) {
            dr_free(cs);
            return dr_fail(err, DR_NOMEM, "no memory for %zu bytes of weights", bytes);
        }
        cs->ours_of = w;
        cs->ours_bytes = bytes;
        own_prepare(c, o, w, cs->ours);
        slot->p = cs;
        slot->destroy = slot_destroy;
    }
    *ret = cs->ours;
    return DR_OK;
}

/* slot: where frozen weights live, else NULL. */
static dr_status own_run(dr_cpu *c, const own *o, const float *x, const float *w, const float *b, float *y,
                         dr_slot *slot, dr_error *err) {
    void *scratch = NULL;
    const void *prepared = NULL;
    dr_status s = slot ? own_frozen(c, o, w, slot, &prepared, err) : DR_OK;
    size_t w_bytes = slot ? 0 : own_weights(o);
    size_t bytes = o->is_amx ? dr_amx_conv_scratch(&o->amx, c->threads) : dr_wino_scratch(&o->wino, c->threads);
    if (!s) s = dr_cpu_scratch(c, w_bytes + bytes, &scratch, err);
    if (s) return s;
    if (!slot) {
        own_prepare(c, o, w, scratch);
        prepared = scratch;
    }
    if (o->is_amx)
        dr_amx_conv_run(&o->amx, x, prepared, b, y, (char *)scratch + w_bytes);
    else
        dr_wino_run(c->conv->kern, &o->wino, x, prepared, b, y, (char *)scratch + w_bytes);
    return DR_OK;
}

/* ---- small helpers on weights --------------------------------------------------------------------------------------
 */

/* to(I,O,k,k) = from(O,I,k,k) transposed and turned by 180 degrees. */
static void flip(const float *from, int o, int i, int k, float *to) {
    int kk = k * k;
#pragma omp parallel for schedule(static)
    for (int b = 0; b < i; b++)
        for (int a = 0; a < o; a++)
            for (int t = 0; t < kk; t++)
                to[((size_t)b * (size_t)o + (size_t)a) * (size_t)kk + (size_t)t] =
                    from[((size_t)a * (size_t)i + (size_t)b) * (size_t)kk + (size_t)(kk - 1 - t)];
}

/* to(O,I,k,k) += from(I,O,k,k) transposed and turned. */
static void add_flipped(const float *from, int o, int i, int k, float *to) {
    int kk = k * k;
#pragma omp parallel for schedule(static)
    for (int a = 0; a < o; a++)
        for (int b = 0; b < i; b++)
            for (int t = 0; t < kk; t++)
                to[((size_t)a * (size_t)i + (size_t)b) * (size_t)kk + (size_t)t] +=
                    from[((size_t)b * (size_t)o + (size_t)a) * (size_t)kk + (size_t)(kk - 1 - t)];
}

static void add_to(const float *from, size_t n, float *to) {
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i++) to[i] += from[i];
}

/* db[c] += sum of dy over pictures and pixels: f32 along a row, double across rows, rows in order. */
static void add_bias_grad(dr_tensor dy, float *db) {
    dr_shape s = dy.shape;
    const float *p = dy.data;
    int lanes = s.c % 16 ? 1 : 16, blocks = s.c / lanes;
#pragma omp parallel for schedule(dynamic, 1)
    for (int cb = 0; cb < blocks; cb++) {
        double sum[16] = {0};
        for (int n = 0; n < s.n; n++) {
            for (int y = 0; y < s.h; y++) {
                const float *r = p + (((size_t)n * (size_t)blocks + (size_t)cb) * (size_t)s.h + (size_t)y) *
                                         (size_t)s.w * (size_t)lanes;
                float row[16] = {0};
                if (lanes == 16)
                    for (int x = 0; x < s.w; x++, r += 16)
                        for (int l = 0; l < 16; l++) row[l] += r[l];
                else
                    for (int x = 0; x < s.w; x++) row[0] += r[x];
                for (int l = 0; l < lanes; l++) sum[l] += (double)row[l];
            }
        }
        for (int l = 0; l < lanes; l++) db[cb * lanes + l] += (float)sum[l];
    }
}

/* ---- few output channels -------------------------------------------------------------------------------------------
 */

/* (C/16, ky, kx, oc, 16) for outputs o0.. of w(O,C,k,k). */
static void few_pack(const float *w, int o0, int oc, int c, int k, float *to) {
    for (int cb = 0; cb < c / 16; cb++)
        for (int t = 0; t < k * k; t++)
            for (int o = 0; o < oc; o++)
                for (int l = 0; l < 16; l++)
                    *to++ = w[((size_t)(o0 + o) * (size_t)c + (size_t)(cb * 16 + l)) * (size_t)(k * k) + (size_t)t];
}

static void few_out(const dr_cpu *c, const float *x, dr_shape xs, const float *w, const float *b, float *y, int oc,
                    int k, int pad, float *packed) {
    int oh = xs.h + 2 * pad - k + 1, ow = xs.w + 2 * pad - k + 1;
    const dr_conv_kern *kern = c->conv->kern;
    for (int o = 0; o < oc; o += DR_FEW_OUT_MAX) {
        int g = oc - o < DR_FEW_OUT_MAX ? oc - o : DR_FEW_OUT_MAX;
        few_pack(w, o, g, xs.c, k, packed);
#pragma omp parallel for schedule(dynamic, 1)
        for (int r = 0; r < xs.n * oh; r++) {
            int n = r / oh;
            dr_few_out a = {.x = x + (size_t)n * (size_t)xs.c * (size_t)xs.h * (size_t)xs.w,
                            .w = packed,
                            .b = b ? b + o : NULL,
                            .y = y + ((size_t)n * (size_t)oc + (size_t)o) * (size_t)oh * (size_t)ow,
                            .c_blocks = xs.c / 16,
                            .h = xs.h,
                            .w_in = xs.w,
                            .oh = oh,
                            .ow = ow,
                            .oc = g,
                            .k = k,
                            .pad = pad};
            kern->few_out_row(&a, r % oh);
        }
    }
}

static size_t few_bytes(int c, int k) {
    return round64(sizeof(float) * (size_t)(c * k * k) * DR_FEW_OUT_MAX);
}

/* ---- table entries -------------------------------------------------------------------------------------------------
 */

dr_status dr_cpu_conv2d(dr_backend *be, dr_conv2d_desc d, dr_tensor x, const float *w, const float *b, dr_tensor y,
                        dr_slot *slot, dr_error *err) {
    dr_cpu *c = dr_cpu_of(be);
    dr_shape xs = x.shape;
    int oc = y.shape.c;
    void *scratch = NULL;
    omp_set_num_threads(c->threads);
    own o;
    if (own_of(c, xs, oc, d.k, d.pad, false, NULL, &o))
        return own_run(c, &o, x.data, w, b, y.data, d.frozen ? slot : NULL, err);
    if (oc % 16 && xs.c % 16 == 0) {
        dr_status s = dr_cpu_scratch(c, few_bytes(xs.c, d.k), &scratch, err);
        if (s) return s;
        few_out(c, x.data, xs, w, b, y.data, oc, d.k, d.pad, scratch);
        return DR_OK;
    }
    dr_dnnl_key key = key_for(c, DR_DNNL_FWD, xs, oc, d.k, d.pad);
    key.bias = b != NULL;
    key.frozen = d.frozen && slot;
    const dr_dnnl_conv *p;
    void *prepared;
    dr_status s = primitive(c->conv, &key, slot, w, &p, &prepared, err);
    if (!s) s = dr_cpu_scratch(c, dr_dnnl_conv_scratch(p), &scratch, err);
    if (!s) s = dr_dnnl_conv_run(p, x.data, prepared ? prepared : (void *)(uintptr_t)w, b, y.data, scratch, err);
    return s;
}

bool dr_cpu_conv2d_fuses(dr_backend *be, dr_conv2d_desc d, const dr_conv_fuse *f, dr_shape x, dr_shape y) {
    own o;
    return own_of(dr_cpu_of(be), x, y.c, d.k, d.pad, false, f, &o);
}

dr_status dr_cpu_conv2d_fused(dr_backend *be, dr_conv2d_desc d, const dr_conv_fuse *f, dr_tensor x, const float *w,
                              const float *b, dr_tensor y, dr_slot *slot, dr_error *err) {
    dr_cpu *c = dr_cpu_of(be);
    own o;
    omp_set_num_threads(c->threads);
    if (!own_of(c, x.shape, y.shape.c, d.k, d.pad, false, f, &o))
        return dr_fail(err, DR_UNSUPPORTED, "this convolution cannot be fused");
    return own_run(c, &o, x.data, w, b, y.data, d.frozen ? slot : NULL, err);
}

dr_status dr_cpu_conv2d_dx(dr_backend *be, dr_conv2d_desc d, dr_tensor dy, const float *w, dr_tensor dx, dr_slot *slot,
                           dr_error *err) {
    dr_cpu *c = dr_cpu_of(be);
    int ic = dx.shape.c, oc = dy.shape.c;
    size_t w_bytes = round64(sizeof(float) * (size_t)ic * (size_t)oc * (size_t)(d.k * d.k));
    void *scratch = NULL, *none;
    dr_status s;
    omp_set_num_threads(c->threads);
    own o;
    if (own_of(c, dy.shape, ic, d.k, d.k - 1 - d.pad, true, NULL, &o))
        return own_run(c, &o, dy.data, w, NULL, dx.data, NULL, err);
    if (ic % 16 && oc % 16 == 0) {
        s = dr_cpu_scratch(c, w_bytes + few_bytes(oc, d.k), &scratch, err);
        if (s) return s;
        flip(w, oc, ic, d.k, scratch);
        few_out(c, dy.data, dy.shape, scratch, NULL, dx.data, ic, d.k, d.k - 1 - d.pad,
                (float *)(void *)((char *)scratch + w_bytes));
        return DR_OK;
    }
    bool mirror = oc % 16 && ic % 16 == 0;
    dr_dnnl_key key = mirror ? key_for(c, DR_DNNL_FWD, dy.shape, ic, d.k, d.k - 1 - d.pad)
                             : key_for(c, DR_DNNL_DX, dx.shape, oc, d.k, d.pad);
    const dr_dnnl_conv *p;
    s = primitive(c->conv, &key, slot, NULL, &p, &none, err);
    if (!s) s = dr_cpu_scratch(c, w_bytes + dr_dnnl_conv_scratch(p), &scratch, err);
    if (s) return s;
    if (!mirror) return dr_dnnl_conv_run(p, dx.data, (void *)(uintptr_t)w, NULL, dy.data, scratch, err);
    flip(w, oc, ic, d.k, scratch);
    return dr_dnnl_conv_run(p, dy.data, scratch, NULL, dx.data, (char *)scratch + w_bytes, err);
}

dr_status dr_cpu_conv2d_dw(dr_backend *be, dr_conv2d_desc d, dr_tensor x, dr_tensor dy, float *dw, float *db,
                           dr_slot *slot, dr_error *err) {
    dr_cpu *c = dr_cpu_of(be);
    int ic = x.shape.c, oc = dy.shape.c;
    size_t n = (size_t)ic * (size_t)oc * (size_t)(d.k * d.k), w_bytes = round64(sizeof(float) * n);
    bool mirror = oc % 16 && ic % 16 == 0;
    void *scratch = NULL, *none;
    omp_set_num_threads(c->threads);
    dr_amx_conv amx = {.n = x.shape.n, .ic = ic, .ih = x.shape.h, .iw = x.shape.w, .oc = oc, .k = d.k, .pad = d.pad};
    if (mirror)
        amx = (dr_amx_conv){.n = dy.shape.n,
                            .ic = oc,
                            .ih = dy.shape.h,
                            .iw = dy.shape.w,
                            .oc = ic,
                            .k = d.k,
                            .pad = d.k - 1 - d.pad,
                            .flip = true};
    amx.split = !c->conv->bf16;
    if (c->conv->amx && dr_amx_takes(&amx)) {
        dr_status s = dr_cpu_scratch(c, dr_amx_dw_scratch(&amx, c->threads), &scratch, err);
        if (s) return s;
        dr_amx_dw_run(&amx, mirror ? dy.data : x.data, mirror ? x.data : dy.data, dw, scratch);
        if (db) add_bias_grad(dy, db);
        return DR_OK;
    }
    dr_dnnl_key key = mirror ? key_for(c, DR_DNNL_DW, dy.shape, ic, d.k, d.k - 1 - d.pad)
                             : key_for(c, DR_DNNL_DW, x.shape, oc, d.k, d.pad);
    const dr_dnnl_conv *p;
    dr_status s = primitive(c->conv, &key, slot, NULL, &p, &none, err);
    if (!s) s = dr_cpu_scratch(c, w_bytes + dr_dnnl_conv_scratch(p), &scratch, err);
    if (!s)
        s = dr_dnnl_conv_run(p, mirror ? dy.data : x.data, scratch, NULL, mirror ? x.data : dy.data,
                             (char *)scratch + w_bytes, err);
    if (s) return s;
    if (mirror)
        add_flipped(scratch, oc, ic, d.k, dw);
    else
        add_to(scratch, n, dw);
    if (db) add_bias_grad(dy, db);
    return DR_OK;
}
