/* be.c - the wrappers around a backend's table: shapes asserted, faults injected, nothing else. */
#include "core/tensor/be.h"
#include <assert.h>
#include <math.h>
#include <stdatomic.h>

static atomic_long fail_after; /* 0 = no fault wanted */
static atomic_long poison_at;  /* losses until the first that is poisoned; the last one is at 1 - poison_count */
static atomic_long poison_count;

void dr_backend_fail_after(long n) {
    fail_after = n;
}

void dr_backend_poison(long n, long count) {
    poison_count = n > 0 ? count : 0;
    poison_at = n;
}

/* The value of a loss as the entry has left it, or spoiled by a test. */
static dr_status spoiled(dr_backend *be, dr_status s, dr_tensor loss, dr_error *err) {
    if (s || poison_count <= 0) return s;
    const long at = atomic_fetch_sub(&poison_at, 1);
    return at <= 1 && at > 1 - poison_count ? be->ops->fill(be, NAN, loss, err) : DR_OK;
}

static bool is_fault(void) {
    return fail_after > 0 && atomic_fetch_sub(&fail_after, 1) == 1;
}

/* ENTER(entry): give back the injected fault instead of calling the entry. */
#define ENTER(entry)                                                                                                   \
    do {                                                                                                               \
        if (is_fault()) return dr_fail(err, DR_BACKEND, "%s: " #entry ": fault injected by a test", be->ops->name);    \
    } while (0)

static bool ok(dr_tensor t) {
    return t.data && dr_shape_valid(t.shape);
}
static bool same(dr_tensor a, dr_tensor b) {
    return ok(a) && ok(b) && dr_shape_eq(a.shape, b.shape);
}
static bool is_scalar(dr_tensor t) {
    return ok(t) && dr_shape_eq(t.shape, dr_shape_make(1, 1, 1, 1));
}
static bool is_matrix(dr_tensor t, int rows) {
    return ok(t) && t.shape.h == 1 && t.shape.w == 1 && t.shape.n == rows;
}
/* Is y of x's images and channels, with these sides? */
static bool is_sized(dr_tensor x, dr_tensor y, int h, int w) {
    return ok(x) && ok(y) && y.shape.n == x.shape.n && y.shape.c == x.shape.c && y.shape.h == h && y.shape.w == w;
}
static bool is_padded(dr_tensor x, dr_tensor y, int p) {
    return p >= 0 && p < x.shape.h && p < x.shape.w && is_sized(x, y, x.shape.h + 2 * p, x.shape.w + 2 * p);
}
/* The reflection in the filter needs two pixels on each side. */
static bool is_down(dr_tensor x, dr_tensor y) {
    return x.shape.h > 1 && x.shape.w > 1 && is_sized(x, y, dr_blur_down_side(x.shape.h), dr_blur_down_side(x.shape.w));
}
static bool is_up(dr_tensor x, dr_tensor y) {
    return is_sized(x, y, dr_blur_up_side(x.shape.h), dr_blur_up_side(x.shape.w));
}
static bool is_conv(dr_conv2d_desc d, dr_tensor x, dr_tensor y) {
    return ok(x) && ok(y) && d.k > 0 && d.pad >= 0 && x.shape.n == y.shape.n &&
           y.shape.h == dr_conv_side(x.shape.h, d) && y.shape.w == dr_conv_side(x.shape.w, d);
}
static bool is_bcast(dr_tensor a, dr_tensor b) {
    return ok(a) && ok(b) && b.shape.n == a.shape.n && (b.shape.c == a.shape.c || b.shape.c == 1) &&
           b.shape.h == a.shape.h && b.shape.w == a.shape.w;
}
static bool is_norm_act(dr_act act) {
    return act == DR_ACT_NONE || act == DR_ACT_RELU || act == DR_ACT_LRELU;
}

bool dr_be_is_fused(const dr_backend *be) {
    return be->ops->norm_stats && be->ops->norm_apply;
}

const char *dr_be_describe(dr_backend *be) {
    return be->ops->describe(be);
}

size_t dr_be_tensor_bytes(dr_backend *be, dr_shape s) {
    assert(dr_shape_valid(s));
    return be->ops->tensor_bytes(be, s);
}

dr_status dr_be_alloc(dr_backend *be, size_t bytes, void **ret, dr_error *err) {
    ENTER(alloc);
    return be->ops->alloc(be, bytes, ret, err);
}

void dr_be_free(dr_backend *be, void *p) {
    if (p) be->ops->free(be, p);
}

dr_status dr_be_upload(dr_backend *be, const float *nchw, dr_tensor dst, dr_error *err) {
    assert(ok(dst) && nchw);
    ENTER(upload);
    return be->ops->upload(be, nchw, dst, err);
}

dr_status dr_be_download(dr_backend *be, dr_tensor src, float *nchw, dr_error *err) {
    assert(ok(src) && nchw);
    ENTER(download);
    return be->ops->download(be, src, nchw, err);
}

dr_status dr_be_upload_raw(dr_backend *be, const void *src, void *dst, size_t bytes, dr_error *err) {
    ENTER(upload_raw);
    return be->ops->upload_raw(be, src, dst, bytes, err);
}

dr_status dr_be_download_raw(dr_backend *be, const void *src, void *dst, size_t bytes, dr_error *err) {
    ENTER(download_raw);
    return be->ops->download_raw(be, src, dst, bytes, err);
}

dr_status dr_be_sync(dr_backend *be, dr_error *err) {
    ENTER(sync);
    return be->ops->sync(be, err);
}

dr_status dr_be_fill(dr_backend *be, float v, dr_tensor y, dr_error *err) {
    assert(ok(y));
    ENTER(fill);
    return be->ops->fill(be, v, y, err);
}

dr_status dr_be_copy(dr_backend *be, dr_tensor x, dr_tensor y, dr_error *err) {
    assert(same(x, y));
    ENTER(copy);
    return be->ops->copy(be, x, y, err);
}

dr_status dr_be_copy_rows(dr_backend *be, dr_tensor x, int from_x, dr_tensor y, int from_y, int rows, dr_error *err) {
    assert(is_sized(x, y, y.shape.h, x.shape.w) && from_x >= 0 && from_y >= 0 && rows > 0);
    assert(rows <= x.shape.h - from_x && rows <= y.shape.h - from_y);
    ENTER(copy_rows);
    return be->ops->copy_rows(be, x, from_x, y, from_y, rows, err);
}

dr_status dr_be_axpy(dr_backend *be, float a, dr_tensor x, dr_tensor y, dr_error *err) {
    assert(same(x, y));
    ENTER(axpy);
    return be->ops->axpy(be, a, x, y, err);
}

dr_status dr_be_add(dr_backend *be, dr_tensor a, dr_tensor b, dr_tensor y, dr_error *err) {
    assert(same(a, b) && same(a, y));
    ENTER(add);
    return be->ops->add(be, a, b, y, err);
}

dr_status dr_be_scale(dr_backend *be, float a, dr_tensor x, dr_tensor y, dr_error *err) {
    assert(same(x, y));
    ENTER(scale);
    return be->ops->scale(be, a, x, y, err);
}

dr_status dr_be_act(dr_backend *be, dr_act act, dr_tensor x, dr_tensor y, dr_error *err) {
    assert(same(x, y));
    ENTER(act);
    return be->ops->act(be, act, x, y, err);
}

dr_status dr_be_act_bwd(dr_backend *be, dr_act act, dr_tensor y, dr_tensor dy, dr_tensor dx, dr_error *err) {
    assert(same(y, dy) && same(y, dx));
    ENTER(act_bwd);
    return be->ops->act_bwd(be, act, y, dy, dx, err);
}

dr_status dr_be_add_bcast(dr_backend *be, dr_tensor a, float s, dr_tensor b, dr_tensor y, dr_error *err) {
    assert(is_bcast(a, b) && same(a, y));
    ENTER(add_bcast);
    return be->ops->add_bcast(be, a, s, b, y, err);
}

dr_status dr_be_add_bcast_bwd(dr_backend *be, float s, dr_tensor dy, dr_tensor db, dr_error *err) {
    assert(is_bcast(dy, db));
    ENTER(add_bcast_bwd);
    return be->ops->add_bcast_bwd(be, s, dy, db, err);
}

dr_status dr_be_clamp(dr_backend *be, float lo, float hi, dr_tensor x, dr_tensor y, dr_error *err) {
    assert(same(x, y) && lo <= hi);
    ENTER(clamp);
    return be->ops->clamp(be, lo, hi, x, y, err);
}

dr_status dr_be_clamp_bwd(dr_backend *be, float lo, float hi, dr_tensor x, dr_tensor dy, dr_tensor dx, dr_error *err) {
    assert(same(x, dy) && same(x, dx) && lo <= hi);
    ENTER(clamp_bwd);
    return be->ops->clamp_bwd(be, lo, hi, x, dy, dx, err);
}

dr_status dr_be_conv2d(dr_backend *be, dr_conv2d_desc d, dr_tensor x, const float *w, const float *b, dr_tensor y,
                       dr_slot *slot, dr_error *err) {
    assert(is_conv(d, x, y) && w);
    ENTER(conv2d);
    return be->ops->conv2d(be, d, x, w, b, y, slot, err);
}

dr_status dr_be_conv2d_dx(dr_backend *be, dr_conv2d_desc d, dr_tensor dy, const float *w, dr_tensor dx, dr_slot *slot,
                          dr_error *err) {
    assert(is_conv(d, dx, dy) && w);
    ENTER(conv2d_dx);
    return be->ops->conv2d_dx(be, d, dy, w, dx, slot, err);
}

dr_status dr_be_conv2d_dw(dr_backend *be, dr_conv2d_desc d, dr_tensor x, dr_tensor dy, float *dw, float *db,
                          dr_slot *slot, dr_error *err) {
    assert(is_conv(d, x, dy) && dw);
    ENTER(conv2d_dw);
    return be->ops->conv2d_dw(be, d, x, dy, dw, db, slot, err);
}

dr_status dr_be_norm_act(dr_backend *be, float eps, dr_act act, dr_tensor x, float *stats, dr_tensor y, dr_error *err) {
    assert(same(x, y) && stats && eps > 0 && is_norm_act(act));
    ENTER(norm_act);
    return be->ops->norm_act(be, eps, act, x, stats, y, err);
}

dr_status dr_be_norm_act_bwd(dr_backend *be, dr_act act, dr_tensor x, const float *stats, dr_tensor dy, dr_tensor dx,
                             dr_error *err) {
    assert(same(x, dy) && same(x, dx) && stats && is_norm_act(act));
    ENTER(norm_act_bwd);
    return be->ops->norm_act_bwd(be, act, x, stats, dy, dx, err);
}

dr_status dr_be_pad_reflect(dr_backend *be, int p, dr_tensor x, dr_tensor y, dr_error *err) {
    assert(is_padded(x, y, p));
    ENTER(pad_reflect);
    return be->ops->pad_reflect(be, p, x, y, err);
}

dr_status dr_be_pad_reflect_bwd(dr_backend *be, int p, dr_tensor dy, dr_tensor dx, dr_error *err) {
    assert(is_padded(dx, dy, p));
    ENTER(pad_reflect_bwd);
    return be->ops->pad_reflect_bwd(be, p, dy, dx, err);
}

dr_status dr_be_blur_down(dr_backend *be, dr_tensor x, dr_tensor y, dr_error *err) {
    assert(is_down(x, y));
    ENTER(blur_down);
    return be->ops->blur_down(be, x, y, err);
}

dr_status dr_be_blur_down_bwd(dr_backend *be, dr_tensor dy, dr_tensor dx, dr_error *err) {
    assert(is_down(dx, dy));
    ENTER(blur_down_bwd);
    return be->ops->blur_down_bwd(be, dy, dx, err);
}

dr_status dr_be_blur_up(dr_backend *be, dr_tensor x, dr_tensor y, dr_error *err) {
    assert(is_up(x, y));
    ENTER(blur_up);
    return be->ops->blur_up(be, x, y, err);
}

dr_status dr_be_blur_up_bwd(dr_backend *be, dr_tensor dy, dr_tensor dx, dr_error *err) {
    assert(is_up(dx, dy));
    ENTER(blur_up_bwd);
    return be->ops->blur_up_bwd(be, dy, dx, err);
}

static bool is_gathered(dr_tensor x, int s, dr_tensor rows) {
    return ok(x) && s > 0 && is_matrix(rows, x.shape.n * s) && rows.shape.c == x.shape.c;
}

dr_status dr_be_gather(dr_backend *be, dr_tensor x, const int32_t *idx, int s, dr_tensor rows, dr_error *err) {
    assert(is_gathered(x, s, rows) && idx);
    ENTER(gather);
    return be->ops->gather(be, x, idx, s, rows, err);
}

dr_status dr_be_gather_bwd(dr_backend *be, dr_tensor drows, const int32_t *idx, int s, dr_tensor dx, dr_error *err) {
    assert(is_gathered(dx, s, drows) && idx);
    ENTER(gather_bwd);
    return be->ops->gather_bwd(be, drows, idx, s, dx, err);
}

dr_status dr_be_linear(dr_backend *be, dr_tensor x, const float *w, const float *b, dr_tensor y, dr_error *err) {
    assert(is_matrix(x, y.shape.n) && is_matrix(y, x.shape.n) && w);
    ENTER(linear);
    return be->ops->linear(be, x, w, b, y, err);
}

dr_status dr_be_linear_dx(dr_backend *be, dr_tensor dy, const float *w, dr_tensor dx, dr_error *err) {
    assert(is_matrix(dy, dx.shape.n) && is_matrix(dx, dy.shape.n) && w);
    ENTER(linear_dx);
    return be->ops->linear_dx(be, dy, w, dx, err);
}

dr_status dr_be_linear_dw(dr_backend *be, dr_tensor x, dr_tensor dy, float *dw, float *db, dr_error *err) {
    assert(is_matrix(x, dy.shape.n) && is_matrix(dy, x.shape.n) && dw);
    ENTER(linear_dw);
    return be->ops->linear_dw(be, x, dy, dw, db, err);
}

dr_status dr_be_l2norm(dr_backend *be, dr_tensor v, float *norms, dr_tensor y, dr_error *err) {
    assert(same(v, y) && is_matrix(v, v.shape.n) && norms);
    ENTER(l2norm);
    return be->ops->l2norm(be, v, norms, y, err);
}

dr_status dr_be_l2norm_bwd(dr_backend *be, dr_tensor y, const float *norms, dr_tensor dy, dr_tensor dv, dr_error *err) {
    assert(same(y, dy) && same(y, dv) && is_matrix(y, y.shape.n) && norms);
    ENTER(l2norm_bwd);
    return be->ops->l2norm_bwd(be, y, norms, dy, dv, err);
}

static bool is_nce(int groups, float temperature, dr_tensor q, dr_tensor k) {
    return groups > 0 && temperature > 0 && same(q, k) && is_matrix(q, q.shape.n) && q.shape.n % groups == 0;
}

dr_status dr_be_nce(dr_backend *be, int groups, float temperature, dr_tensor q, dr_tensor k, dr_tensor loss,
                    dr_error *err) {
    assert(is_nce(groups, temperature, q, k) && is_scalar(loss));
    ENTER(nce);
    return spoiled(be, be->ops->nce(be, groups, temperature, q, k, loss, err), loss, err);
}

dr_status dr_be_nce_bwd(dr_backend *be, int groups, float temperature, dr_tensor q, dr_tensor k, float g, dr_tensor dq,
                        dr_error *err) {
    assert(is_nce(groups, temperature, q, k) && same(q, dq));
    ENTER(nce_bwd);
    return be->ops->nce_bwd(be, groups, temperature, q, k, g, dq, err);
}

dr_status dr_be_gan(dr_backend *be, dr_gan_loss mode, dr_tensor s, dr_tensor loss, dr_error *err) {
    assert(ok(s) && is_scalar(loss));
    ENTER(gan);
    return spoiled(be, be->ops->gan(be, mode, s, loss, err), loss, err);
}

dr_status dr_be_gan_bwd(dr_backend *be, dr_gan_loss mode, dr_tensor s, float g, dr_tensor ds, dr_error *err) {
    assert(same(s, ds));
    ENTER(gan_bwd);
    return be->ops->gan_bwd(be, mode, s, g, ds, err);
}

dr_status dr_be_l1(dr_backend *be, dr_tensor a, dr_tensor b, dr_tensor loss, dr_error *err) {
    assert(same(a, b) && is_scalar(loss));
    ENTER(l1);
    return spoiled(be, be->ops->l1(be, a, b, loss, err), loss, err);
}

dr_status dr_be_l1_bwd(dr_backend *be, dr_tensor a, dr_tensor b, float g, dr_tensor da, dr_error *err) {
    assert(same(a, b) && same(a, da));
    ENTER(l1_bwd);
    return be->ops->l1_bwd(be, a, b, g, da, err);
}

/* Channels of a picture: planar on every backend. */
static bool is_spectral(dr_tensor a, dr_tensor b) {
    return same(a, b) && a.shape.c < 8;
}

dr_status dr_be_freq(dr_backend *be, dr_tensor a, dr_tensor b, dr_tensor loss, dr_error *err) {
    assert(is_spectral(a, b) && is_scalar(loss));
    ENTER(freq);
    return spoiled(be, be->ops->freq(be, a, b, loss, err), loss, err);
}

dr_status dr_be_freq_bwd(dr_backend *be, dr_tensor a, dr_tensor b, float g, dr_tensor da, dr_error *err) {
    assert(is_spectral(a, b) && same(a, da));
    ENTER(freq_bwd);
    return be->ops->freq_bwd(be, a, b, g, da, err);
}

dr_status dr_be_adam(dr_backend *be, const dr_adam_desc *d, size_t n, float *p, const float *g, float *m, float *v,
                     dr_error *err) {
    assert(d && d->t >= 1 && p && g && m && v);
    ENTER(adam);
    return be->ops->adam(be, d, n, p, g, m, v, err);
}

dr_status dr_be_ema(dr_backend *be, float decay, size_t n, const float *p, float *ema, dr_error *err) {
    assert(p && ema);
    ENTER(ema);
    return be->ops->ema(be, decay, n, p, ema, err);
}

dr_status dr_be_norm_stats(dr_backend *be, float eps, dr_tensor x, float *stats, dr_error *err) {
    assert(ok(x) && stats && eps > 0 && be->ops->norm_stats);
    ENTER(norm_stats);
    return be->ops->norm_stats(be, eps, x, stats, err);
}

/* The skip of norm_apply: x's size, or more by the same even number on both sides. */
static bool is_resid(dr_tensor x, dr_tensor r) {
    int dh = r.shape.h - x.shape.h, dw = r.shape.w - x.shape.w;
    return ok(r) && r.shape.n == x.shape.n && r.shape.c == x.shape.c && dh == dw && dh >= 0 && dh % 2 == 0;
}

static bool is_then(dr_tensor x, dr_norm_then then, int p, dr_tensor resid, dr_tensor y) {
    switch (then) {
    case DR_THEN_NONE:
        return p == 0 && same(x, y);
    case DR_THEN_REFLECT:
        return is_padded(x, y, p);
    case DR_THEN_BLUR_DOWN:
        return p == 0 && is_down(x, y);
    case DR_THEN_BLUR_UP:
        return p == 0 && is_up(x, y);
    case DR_THEN_ADD:
        return is_resid(x, resid) && is_padded(x, y, p);
    }
    return false;
}

dr_status dr_be_norm_apply(dr_backend *be, dr_tensor x, const float *stats, dr_act act, dr_norm_then then, int p,
                           dr_tensor resid, dr_tensor y, dr_error *err) {
    assert(ok(x) && stats && is_norm_act(act) && is_then(x, then, p, resid, y) && be->ops->norm_apply);
    ENTER(norm_apply);
    return be->ops->norm_apply(be, x, stats, act, then, p, resid, y, err);
}

/* y belongs to the resampled x. */
static bool is_fused_conv(dr_conv2d_desc d, const dr_conv_fuse *f, dr_shape x, dr_shape y) {
    int h = x.h, w = x.w;
    if (f->in_then == DR_THEN_BLUR_UP) h *= 2, w *= 2;
    if (f->in_then == DR_THEN_BLUR_DOWN) h = (h + 1) / 2, w = (w + 1) / 2;
    return y.n == x.n && y.h == h + 2 * d.pad - d.k + 1 && y.w == w + 2 * d.pad - d.k + 1;
}

bool dr_be_conv2d_fuses(dr_backend *be, dr_conv2d_desc d, const dr_conv_fuse *f, dr_shape x, dr_shape y) {
    return be->ops->conv2d_fuses && is_fused_conv(d, f, x, y) && be->ops->conv2d_fuses(be, d, f, x, y);
}

dr_status dr_be_conv2d_fused(dr_backend *be, dr_conv2d_desc d, const dr_conv_fuse *f, dr_tensor x, const float *w,
                             const float *b, dr_tensor y, dr_slot *slot, dr_error *err) {
    assert(ok(x) && ok(y) && w && is_fused_conv(d, f, x.shape, y.shape) && be->ops->conv2d_fused);
    ENTER(conv2d_fused);
    return be->ops->conv2d_fused(be, d, f, x, w, b, y, slot, err);
}

bool dr_be_takes_pixels(const dr_backend *be) {
    return be->ops->pixels_in && be->ops->pixels_out;
}

/* Is t a padded picture of this one? */
static bool is_picture(const dr_pixel_view *v, dr_tensor t) {
    return v->pixels && v->width > 0 && v->height > 0 && v->channels >= 1 && v->channels <= 4 &&
           (v->depth == 8 || v->depth == 16) &&
           v->stride >= (size_t)v->width * (size_t)v->channels * (size_t)(v->depth / 8) && ok(t) && t.shape.n == 1 &&
           t.shape.c == 3 && t.shape.h >= v->height && t.shape.w >= v->width;
}

dr_status dr_be_pixels_in(dr_backend *be, const dr_pixel_view *img, dr_tensor x, dr_error *err) {
    assert(is_picture(img, x) && be->ops->pixels_in);
    ENTER(pixels_in);
    return be->ops->pixels_in(be, img, x, err);
}

dr_status dr_be_pixels_out(dr_backend *be, dr_tensor y, const dr_pixel_view *img, dr_error *err) {
    assert(is_picture(img, y) && be->ops->pixels_out);
    ENTER(pixels_out);
    return be->ops->pixels_out(be, y, img, err);
}

bool dr_be_records(const dr_backend *be) {
    return be->ops->record_begin && be->ops->record_end && be->ops->replay;
}

dr_status dr_be_record_begin(dr_backend *be, dr_error *err) {
    assert(be->ops->record_begin);
    ENTER(record_begin);
    return be->ops->record_begin(be, err);
}

/* A fault here must not leave the backend recording. */
dr_status dr_be_record_end(dr_backend *be, dr_slot *ret, dr_error *err) {
    assert(be->ops->record_end && (!ret || !ret->p));
    bool fault = is_fault();
    dr_status s = be->ops->record_end(be, fault ? NULL : ret, err);
    if (fault) return dr_fail(err, DR_BACKEND, "%s: record_end: fault injected by a test", be->ops->name);
    if (!s && ret) be->n_recorded++;
    return s;
}

dr_status dr_be_replay(dr_backend *be, const dr_slot *recording, bool *ret_done, dr_error *err) {
    assert(be->ops->replay && recording->p);
    ENTER(replay);
    dr_status s = be->ops->replay(be, recording, ret_done, err);
    if (!s && *ret_done) be->n_replayed++;
    return s;
}

bool dr_be_info(dr_backend *be, dr_device_info *ret) {
    *ret = (dr_device_info){0};
    return be->ops->info && !be->ops->info(be, ret, NULL);
}

dr_status dr_be_pace(dr_backend *be, dr_error *err) {
    if (!be->ops->pace) return DR_OK;
    ENTER(pace);
    return be->ops->pace(be, err);
}

void dr_be_trim(dr_backend *be) {
    if (be->ops->trim) be->ops->trim(be);
}

bool dr_be_tunes(const dr_backend *be) {
    return be->ops->tune;
}

dr_status dr_be_tune(dr_backend *be, bool on, int *ret_tuned, dr_error *err) {
    assert(be->ops->tune);
    ENTER(tune);
    return be->ops->tune(be, on, ret_tuned, err);
}
