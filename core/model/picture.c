/* picture.c - from encoded bytes to a decoded picture and from a derained one to encoded bytes: what of dr_derain()
 * needs no device, so that it may run on any thread beside one. */
#include "core/model/picture.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/image/codec.h"

static double ms_since(int64_t t) {
    return (double)(dr_clock_ns() - t) / 1e6;
}

bool dr_picture_cancelled(const dr_picture *p) {
    return p->opts.cancel && atomic_load_explicit(p->opts.cancel, memory_order_relaxed);
}

static dr_status check_header(dr_picture *p, dr_error *err) {
    if (p->opts.depth && p->opts.depth != 8 && p->opts.depth != 16)
        return dr_fail(err, DR_INVALID, "output depth %d: it must be 8 or 16", p->opts.depth);
    dr_status s = dr_probe(p->data, p->len, 0, &p->limits, &p->stats.input, err);
    if (!s && p->opts.format == DR_FORMAT_JPEG && p->stats.input.channels % 2 == 0)
        s = dr_fail_as(err, DR_UNSUPPORTED, "alpha_jpeg", "the picture has transparency, which JPEG cannot hold");
    return s;
}

dr_status dr_picture_open(const void *data, size_t len, const dr_run_opts *opts, dr_picture **ret, dr_error *err) {
    dr_picture *p = dr_calloc(1, sizeof *p);
    if (!p) return dr_fail(err, DR_NOMEM, "no memory for a picture");
    int64_t t = dr_clock_ns();
    p->data = data;
    p->len = len;
    if (opts) p->opts = *opts;
    if (p->opts.limits) p->limits = *p->opts.limits;
    dr_limits_fill(&p->limits);
    p->opts.limits = &p->limits;
    if (p->opts.format == DR_FORMAT_NONE) p->opts.format = DR_FORMAT_PNG;
    dr_status s = check_header(p, err);
    p->stats.decode_ms = ms_since(t);
    if (s)
        dr_picture_close(p);
    else
        *ret = p;
    return s;
}

void dr_picture_close(dr_picture *p) {
    if (!p) return;
    dr_image_done(&p->img);
    dr_free(p);
}

void dr_picture_grid(const dr_picture *p, int *ret_w, int *ret_h) {
    *ret_w = dr_padded_side(p->stats.input.width);
    *ret_h = dr_padded_side(p->stats.input.height);
}

void dr_picture_set_budget(dr_picture *p, uint64_t mem_budget) {
    p->limits.mem_budget = mem_budget;
}

dr_status dr_picture_decode(dr_picture *p, dr_error *err) {
    if (p->state != DR_PICTURE_OPEN) return dr_fail(err, DR_INVALID, "the picture is decoded already");
    if (dr_picture_cancelled(p)) return dr_fail(err, DR_CANCELLED, "cancelled");
    int64_t t = dr_clock_ns();
    dr_status s = dr_image_decode(p->data, p->len, &p->limits, &p->img, err);
    if (s) return s;
    p->stats.decode_ms += ms_since(t);
    p->state = DR_PICTURE_DECODED;
    return DR_OK;
}

dr_status dr_picture_restore(dr_picture *p, dr_error *err) {
    if (!p->spoiled) return DR_OK;
    dr_image_done(&p->img);
    p->img = (dr_image){0};
    dr_status s = dr_image_decode(p->data, p->len, &p->limits, &p->img, err);
    if (!s) p->spoiled = false;
    return s;
}

dr_status dr_picture_encode(dr_picture *p, void **ret_data, size_t *ret_len, dr_run_stats *ret_stats, dr_error *err) {
    if (p->state != DR_PICTURE_RUN) return dr_fail(err, DR_INVALID, "the picture has not been run");
    if (p->status) {
        if (err && !err->code) *err = p->err;
        return p->status;
    }
    if (dr_picture_cancelled(p)) return dr_fail(err, DR_CANCELLED, "cancelled");
    int64_t t = dr_clock_ns();
    dr_status s = dr_image_encode(&p->img, p->opts.format, 0, p->opts.strip_metadata, ret_data, ret_len, err);
    if (s) return s;
    p->stats.encode_ms = ms_since(t);
    if (p->opts.progress) atomic_store(p->opts.progress, 1.0f);
    if (ret_stats) *ret_stats = p->stats;
    return DR_OK;
}

/* The budget comes before the first byte is decoded. */
dr_status dr_derain(dr_model *m, const void *data, size_t len, const dr_run_opts *opts, void **ret_data,
                    size_t *ret_len, dr_run_stats *ret_stats, dr_error *err) {
    dr_picture *p = NULL;
    dr_status s = dr_picture_open(data, len, opts, &p, err);
    if (s) return s;
    s = dr_model_check_budget(m, p->stats.input.width, p->stats.input.height, p->limits.mem_budget, err);
    if (!s) s = dr_picture_decode(p, err);
    if (!s) s = dr_model_run_pictures(m, &p, 1, err);
    if (!s) s = dr_picture_encode(p, ret_data, ret_len, ret_stats, err);
    dr_picture_close(p);
    return s;
}
