/* dnnl.c - see dnnl.h.
 *
 * Winograd (backward-weights of 3x3 in f32; the other passes have our own) is asked for by name: `auto` never picks it.
 * Where no fast kernel takes our layout (AVX2 machines want nChw8c, the bf16 kernels
 * nhwc), the primitive is created with formats of its own choice and the tensors are reordered through scratch. */
#include "core/cpu/dnnl.h"
#include "core/base/alloc.h"
#include "core/base/log.h"
#include <dnnl.h>
#include <stdio.h>
#include <string.h>

enum { SCRATCH_MAX = 256 << 20 }; /* Winograd's is the whole picture's; direct kernels have next to none */

struct dr_dnnl {
    dnnl_engine_t eng;
    dnnl_stream_t stream;
};

/* One operand: our memory, the primitive's memory, and how to get from one to the other. */
typedef struct operand {
    dnnl_memory_t ours, theirs; /* theirs == NULL: the same format */
    dnnl_primitive_t reorder;
    size_t offset; /* of theirs in scratch */
} operand;

struct dr_dnnl_conv {
    dr_dnnl *d;
    dr_dnnl_key key;
    dnnl_primitive_desc_t pd;
    dnnl_primitive_t prim;
    operand x, w, y;
    dnnl_memory_t b, pad; /* pad: the primitive's own scratchpad */
    size_t scratch, pad_offset, weights;
};

static dr_status bad(dr_error *err, dnnl_status_t s, const char *what) {
    return dr_fail(err, s == dnnl_out_of_memory ? DR_NOMEM : DR_BACKEND, "oneDNN: %s failed (%d)", what, (int)s);
}

dr_status dr_dnnl_open(dr_dnnl **ret, dr_error *err) {
    dr_dnnl *d = dr_calloc(1, sizeof *d);
    if (!d) return dr_fail(err, DR_NOMEM, "no memory for the oneDNN engine");
    dnnl_status_t s = dnnl_engine_create(&d->eng, dnnl_cpu, 0);
    if (!s) s = dnnl_stream_create(&d->stream, d->eng, dnnl_stream_default_flags);
    if (s) {
        dr_dnnl_close(d);
        return bad(err, s, "creating the CPU engine");
    }
    *ret = d;
    return DR_OK;
}

void dr_dnnl_close(dr_dnnl *d) {
    if (!d) return;
    if (d->stream) dnnl_stream_destroy(d->stream);
    if (d->eng) dnnl_engine_destroy(d->eng);
    dr_free(d);
}

bool dr_dnnl_bf16(void) {
    unsigned isa = (unsigned)dnnl_get_effective_cpu_isa(), need = dnnl_cpu_isa_avx512_core_bf16;
    return (isa & need) == need;
}

const char *dr_dnnl_version(void) {
    static char text[24];
    const dnnl_version_t *v = dnnl_version();
    snprintf(text, sizeof text, "%d.%d.%d", v->major, v->minor, v->patch);
    return text;
}

static dnnl_status_t tensor_md(dnnl_memory_desc_t *md, int n, int c, int h, int w, dnnl_data_type_t t, bool any) {
    dnnl_dims_t dims = {n, c, h, w};
    dnnl_format_tag_t tag = any ? dnnl_format_tag_any : c % 16 ? dnnl_nchw : dnnl_nChw16c;
    return dnnl_memory_desc_init_by_tag(md, 4, dims, t, tag);
}

/* The primitive descriptor for one algorithm and one choice of formats; dnnl_unimplemented is an answer. */
static dnnl_status_t make_pd(const dr_dnnl *d, const dr_dnnl_key *k, dnnl_alg_kind_t alg, bool any,
                             dnnl_primitive_desc_t *ret) {
    int oh = k->ih + 2 * k->pad - k->k + 1, ow = k->iw + 2 * k->pad - k->k + 1;
    dnnl_data_type_t low = k->bf16 ? dnnl_bf16 : dnnl_f32;
    dnnl_dims_t wd = {k->oc, k->ic, k->k, k->k}, bd = {k->oc}, one = {1, 1}, pad = {k->pad, k->pad};
    dnnl_memory_desc_t x, w, b, y;
    dnnl_status_t s = tensor_md(&x, k->n, k->ic, k->ih, k->iw, k->pass == DR_DNNL_DX ? dnnl_f32 : low, any);
    if (!s) s = tensor_md(&y, k->n, k->oc, oh, ow, k->pass == DR_DNNL_FWD ? dnnl_f32 : low, any);
    if (!s) s = dnnl_memory_desc_init_by_tag(&w, 4, wd, k->pass == DR_DNNL_DW ? dnnl_f32 : low, dnnl_format_tag_any);
    if (!s) s = dnnl_memory_desc_init_by_tag(&b, 1, bd, dnnl_f32, dnnl_x);
    if (s) return s;

    dnnl_primitive_attr_t attr = NULL;
    s = dnnl_primitive_attr_create(&attr);
    if (s) return s;
    dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);

    dnnl_convolution_desc_t fd, cd;
    dnnl_primitive_desc_t hint = NULL;
    if (k->pass == DR_DNNL_FWD) {
        s = dnnl_convolution_forward_desc_init(&cd, k->frozen ? dnnl_forward_inference : dnnl_forward_training, alg, &x,
                                               &w, k->bias ? &b : NULL, &y, one, pad, pad);
        if (!s) s = dnnl_primitive_desc_create(ret, &cd, attr, d->eng, NULL);
    } else {
        /* the hint only has to be a forward pass of the same shape */
        dnnl_memory_desc_t hx = x, hw = w, hy = y;
        hx.data_type = hw.data_type = low;
        hy.data_type = low;
        s = dnnl_convolution_forward_desc_init(&fd, dnnl_forward_training, alg, &hx, &hw, NULL, &hy, one, pad, pad);
        if (!s) s = dnnl_primitive_desc_create(&hint, &fd, attr, d->eng, NULL);
        if (!s && k->pass == DR_DNNL_DX)
            s = dnnl_convolution_backward_data_desc_init(&cd, alg, &x, &w, &y, one, pad, pad);
        if (!s && k->pass == DR_DNNL_DW)
            s = dnnl_convolution_backward_weights_desc_init(&cd, alg, &x, &w, NULL, &y, one, pad, pad);
        if (!s) s = dnnl_primitive_desc_create(ret, &cd, attr, d->eng, hint);
        if (hint) dnnl_primitive_desc_destroy(hint);
    }
    dnnl_primitive_attr_destroy(attr);
    return s;
}

static const char *impl_of(const_dnnl_primitive_desc_t pd) {
    const char *name = "?";
    dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name);
    return name;
}

static bool slow(const_dnnl_primitive_desc_t pd) {
    return strstr(impl_of(pd), "ref") != NULL || strstr(impl_of(pd), "gemm") != NULL;
}

/* Winograd, else direct in our layout, else direct in any layout, else whatever there is. */
static dnnl_status_t choose(const dr_dnnl *d, const dr_dnnl_key *k, dnnl_primitive_desc_t *ret) {
    bool wino = k->k == 3 && k->pass == DR_DNNL_DW && !k->bf16 && k->ic % 16 == 0 && k->oc % 16 == 0;
    if (wino && make_pd(d, k, dnnl_convolution_winograd, false, ret) == dnnl_success) {
        const dnnl_memory_desc_t *pad = dnnl_primitive_desc_query_md(*ret, dnnl_query_scratchpad_md, 0);
        if (!slow(*ret) && (!pad || dnnl_memory_desc_get_size(pad) <= SCRATCH_MAX)) return dnnl_success;
        dnnl_primitive_desc_destroy(*ret);
    }
    dnnl_primitive_desc_t ours = NULL, any = NULL;
    dnnl_status_t s = k->bf16 ? dnnl_unimplemented : make_pd(d, k, dnnl_convolution_direct, false, &ours);
    if (!s && !slow(ours)) {
        *ret = ours;
        return dnnl_success;
    }
    dnnl_status_t s2 = make_pd(d, k, dnnl_convolution_direct, true, &any);
    if (!s2 && (s || !slow(any))) {
        if (ours) dnnl_primitive_desc_destroy(ours);
        *ret = any;
        return dnnl_success;
    }
    if (any) dnnl_primitive_desc_destroy(any);
    if (!s) *ret = ours;
    return s;
}

static size_t take(dr_dnnl_conv *c, size_t bytes) {
    size_t at = c->scratch;
    c->scratch += (bytes + 63) & ~(size_t)63;
    return at;
}

/* Set up one operand; `out` reorders from theirs to ours. */
static dnnl_status_t bind(dr_dnnl_conv *c, operand *o, const dnnl_memory_desc_t *ours, dnnl_query_t what, bool out,
                          bool prepared) {
    dnnl_engine_t eng = c->d->eng;
    const dnnl_memory_desc_t *theirs = dnnl_primitive_desc_query_md(c->pd, what, 0);
    dnnl_status_t s = dnnl_memory_create(&o->ours, ours, eng, DNNL_MEMORY_NONE);
    if (s || dnnl_memory_desc_equal(ours, theirs)) return s;
    s = dnnl_memory_create(&o->theirs, theirs, eng, DNNL_MEMORY_NONE);
    if (s) return s;
    size_t bytes = dnnl_memory_desc_get_size(theirs);
    if (prepared)
        c->weights = bytes;
    else
        o->offset = take(c, bytes);
    dnnl_primitive_desc_t rpd = NULL;
    s = out ? dnnl_reorder_primitive_desc_create(&rpd, theirs, eng, ours, eng, NULL)
            : dnnl_reorder_primitive_desc_create(&rpd, ours, eng, theirs, eng, NULL);
    if (s) return s;
    s = dnnl_primitive_create(&o->reorder, rpd);
    dnnl_primitive_desc_destroy(rpd);
    return s;
}

dr_status dr_dnnl_conv_create(dr_dnnl *d, const dr_dnnl_key *key, dr_dnnl_conv **ret, dr_error *err) {
    dr_dnnl_conv *c = dr_calloc(1, sizeof *c);
    if (!c) return dr_fail(err, DR_NOMEM, "no memory for a convolution");
    c->d = d;
    c->key = *key;
    const dr_dnnl_key *k = key;
    int oh = k->ih + 2 * k->pad - k->k + 1, ow = k->iw + 2 * k->pad - k->k + 1;
    dnnl_dims_t wd = {k->oc, k->ic, k->k, k->k}, bd = {k->oc};
    dnnl_memory_desc_t x, w, y, b;
    const char *doing = "choosing a kernel";
    dnnl_status_t s = choose(d, k, &c->pd);
    if (s) goto out;
    doing = "creating the convolution";
    s = dnnl_primitive_create(&c->prim, c->pd);
    if (!s) s = tensor_md(&x, k->n, k->ic, k->ih, k->iw, dnnl_f32, false);
    if (!s) s = tensor_md(&y, k->n, k->oc, oh, ow, dnnl_f32, false);
    if (!s) s = dnnl_memory_desc_init_by_tag(&w, 4, wd, dnnl_f32, dnnl_oihw);
    if (!s) s = dnnl_memory_desc_init_by_tag(&b, 1, bd, dnnl_f32, dnnl_x);
    if (s) goto out;

    doing = "reordering for the convolution";
    bool fwd = k->pass == DR_DNNL_FWD, dx = k->pass == DR_DNNL_DX, dw = k->pass == DR_DNNL_DW;
    s = bind(c, &c->x, &x, dx ? dnnl_query_diff_src_md : dnnl_query_src_md, dx, false);
    if (!s) s = bind(c, &c->y, &y, fwd ? dnnl_query_dst_md : dnnl_query_diff_dst_md, fwd, false);
    if (!s) s = bind(c, &c->w, &w, dw ? dnnl_query_diff_weights_md : dnnl_query_weights_md, dw, fwd && k->frozen);
    if (!s && k->bias) s = dnnl_memory_create(&c->b, &b, d->eng, DNNL_MEMORY_NONE);
    const dnnl_memory_desc_t *pad = dnnl_primitive_desc_query_md(c->pd, dnnl_query_scratchpad_md, 0);
    size_t pad_bytes = pad ? dnnl_memory_desc_get_size(pad) : 0;
    if (!s && pad_bytes) s = dnnl_memory_create(&c->pad, pad, d->eng, DNNL_MEMORY_NONE);
    c->pad_offset = take(c, pad_bytes);
out:
    if (s) {
        dr_dnnl_conv_destroy(c);
        return dr_fail(err, s == dnnl_out_of_memory ? DR_NOMEM : DR_BACKEND,
                       "oneDNN: %s failed (%d) for (%d,%d,%d,%d) to %d channels, k %d, pad %d, pass %d", doing, (int)s,
                       k->n, k->ic, k->ih, k->iw, k->oc, k->k, k->pad, k->pass);
    }
    dr_log(DR_LOG_DEBUG, NULL, "conv (%d,%d,%d,%d) to %d, k %d, pad %d, pass %d: %s, scratch %zu", k->n, k->ic, k->ih,
           k->iw, k->oc, k->k, k->pad, k->pass, impl_of(c->pd), c->scratch);
    *ret = c;
    return DR_OK;
}

static void operand_done(operand *o) {
    if (o->ours) dnnl_memory_destroy(o->ours);
    if (o->theirs) dnnl_memory_destroy(o->theirs);
    if (o->reorder) dnnl_primitive_destroy(o->reorder);
}

void dr_dnnl_conv_destroy(dr_dnnl_conv *c) {
    if (!c) return;
    operand_done(&c->x);
    operand_done(&c->w);
    operand_done(&c->y);
    if (c->b) dnnl_memory_destroy(c->b);
    if (c->pad) dnnl_memory_destroy(c->pad);
    if (c->prim) dnnl_primitive_destroy(c->prim);
    if (c->pd) dnnl_primitive_desc_destroy(c->pd);
    dr_free(c);
}

const dr_dnnl_key *dr_dnnl_conv_key(const dr_dnnl_conv *c) {
    return &c->key;
}
const char *dr_dnnl_conv_impl(const dr_dnnl_conv *c) {
    return impl_of(c->pd);
}
size_t dr_dnnl_conv_scratch(const dr_dnnl_conv *c) {
    return c->scratch;
}
size_t dr_dnnl_conv_weights(const dr_dnnl_conv *c) {
    return c->weights;
}

static dnnl_status_t reorder(const dr_dnnl_conv *c, const operand *o, bool out) {
    dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, out ? o->theirs : o->ours}, {DNNL_ARG_TO, out ? o->ours : o->theirs}};
    return dnnl_primitive_execute(o->reorder, c->d->stream, 2, args);
}

dr_status dr_dnnl_conv_prepare(const dr_dnnl_conv *c, const float *w, void *prepared, dr_error *err) {
    dnnl_status_t s = dnnl_memory_set_data_handle(c->w.ours, (void *)(uintptr_t)w);
    if (!s) s = dnnl_memory_set_data_handle(c->w.theirs, prepared);
    if (!s) s = reorder(c, &c->w, false);
    if (!s) s = dnnl_stream_wait(c->d->stream);
    return s ? bad(err, s, "reordering weights") : DR_OK;
}

/* Give the operand its memory; inputs in another format are reordered now. Returns what the primitive takes. */
static dnnl_status_t feed(const dr_dnnl_conv *c, const operand *o, void *p, char *scratch, bool in,
                          dnnl_memory_t *ret) {
    dnnl_status_t s = dnnl_memory_set_data_handle(o->ours, p);
    *ret = o->ours;
    if (s || !o->theirs) return s;
    *ret = o->theirs;
    s = dnnl_memory_set_data_handle(o->theirs, scratch + o->offset);
    if (!s && in) s = reorder(c, o, false);
    return s;
}

dr_status dr_dnnl_conv_run(const dr_dnnl_conv *c, float *x, void *w, const float *b, float *y, void *scratch,
                           dr_error *err) {
    bool fwd = c->key.pass == DR_DNNL_FWD, dx = c->key.pass == DR_DNNL_DX, dw = c->key.pass == DR_DNNL_DW;
    dnnl_memory_t mx = NULL, mw = NULL, my = NULL;
    dnnl_status_t s = feed(c, &c->x, x, scratch, !dx, &mx);
    if (!s) s = feed(c, &c->y, y, scratch, !fwd, &my);
    if (!s && c->weights) {
        s = dnnl_memory_set_data_handle(c->w.theirs, w);
        mw = c->w.theirs;
    } else if (!s) {
        s = feed(c, &c->w, w, scratch, !dw, &mw);
    }
    if (!s && c->pad) s = dnnl_memory_set_data_handle(c->pad, (char *)scratch + c->pad_offset);
    if (!s && c->b) s = dnnl_memory_set_data_handle(c->b, (void *)(uintptr_t)b);
    if (s) return bad(err, s, "preparing a convolution");
    dnnl_exec_arg_t args[5] = {{dx ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC, mx},
                               {dw ? DNNL_ARG_DIFF_WEIGHTS : DNNL_ARG_WEIGHTS, mw},
                               {fwd ? DNNL_ARG_DST : DNNL_ARG_DIFF_DST, my}};
    int n = 3;
    if (c->b) args[n++] = (dnnl_exec_arg_t){DNNL_ARG_BIAS, c->b};
    if (c->pad) args[n++] = (dnnl_exec_arg_t){DNNL_ARG_SCRATCHPAD, c->pad};
    s = dnnl_primitive_execute(c->prim, c->d->stream, n, args);
    if (!s && dx && c->x.theirs) s = reorder(c, &c->x, true);
    if (!s && fwd && c->y.theirs) s = reorder(c, &c->y, true);
    if (!s && dw && c->w.theirs) s = reorder(c, &c->w, true);
    if (!s) s = dnnl_stream_wait(c->d->stream);
    return s ? bad(err, s, "running a convolution") : DR_OK;
}
