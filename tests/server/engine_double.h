/* engine_double.h - an engine for tests of the server: "derains" by handing back the input with a mark of its own
 * behind it, after as many milliseconds as DERAIN_DOUBLE_MS says, in steps that look at the cancel flag; it calls
 * itself a CPU, or what DERAIN_DOUBLE_BACKEND says. Include it in one C file: its functions take the place of
 * core/model's. dr_probe() and the limits stay the real ones. */
#ifndef ENGINE_DOUBLE_H
#define ENGINE_DOUBLE_H

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/compare.h"
#include "core/derain.h"
#include "core/image/strip.h"
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct dr_engine {
    int unused;
};
struct dr_model {
    dr_model_info info;
    unsigned sum; /* of the file's bytes: what its score follows from */
};

dr_status dr_engine_open(const dr_engine_opts *opts, dr_engine **ret, dr_error *err) {
    (void)opts;
    *ret = dr_calloc(1, sizeof **ret);
    return *ret ? DR_OK : dr_fail(err, DR_NOMEM, "out of memory");
}
void dr_engine_close(dr_engine *e) {
    dr_free(e);
}
const char *dr_engine_backend(const dr_engine *e) {
    const char *name = getenv("DERAIN_DOUBLE_BACKEND");
    return (void)e, name ? name : "cpu";
}
const char *dr_engine_describe(const dr_engine *e) {
    return (void)e, "double, none";
}
bool dr_engine_device(const dr_engine *e, dr_device_state *ret) {
    return (void)e, (void)ret, false;
}
void dr_engine_drain(dr_engine *e) {
    (void)e;
}
const char *dr_engine_note(const dr_engine *e) {
    return (void)e, "";
}

dr_status dr_model_open(dr_engine *e, const char *path, dr_model **ret, dr_error *err) {
    (void)e;
    if (strstr(path, "bad")) return dr_fail(err, DR_CORRUPT, "tensor 'model.1.weight' holds a NaN");
    dr_model *m = dr_calloc(1, sizeof *m);
    if (!m) return dr_fail(err, DR_NOMEM, "out of memory");
    m->info = (dr_model_info){
        .name = "derain", .version = 1, .bytes = 1, .dtype = "F16", .arch = "resnet", .ngf = 32, .blocks = 6};
    memset(m->info.sha256, 'a', 64);
    FILE *f = fopen(path, "rb");
    for (int c; f && (c = getc(f)) != EOF;) m->sum = m->sum * 31 + (unsigned)c;
    if (f) fclose(f);
    *ret = m;
    return DR_OK;
}
void dr_model_close(dr_model *m) {
    dr_free(m);
}
const char *dr_model_device(const dr_model *m) {
    return (void)m, "double, none";
}
const char *dr_model_note(const dr_model *m) {
    return (void)m, "";
}
const dr_model_info *dr_model_get_info(const dr_model *m) {
    return &m->info;
}
dr_status dr_model_forward(dr_model *m, const float *rgb, int width, int height, float *ret, dr_error *err) {
    (void)m, (void)err;
    memcpy(ret, rgb, (size_t)3 * (size_t)width * (size_t)height * sizeof *ret);
    return DR_OK;
}
uint64_t dr_model_run_bytes(const dr_model *m, int width, int height) {
    return (void)m, (uint64_t)width * (uint64_t)height * 100;
}
uint64_t dr_model_run_bytes_min(const dr_model *m, int width, int height) {
    return (void)m, (uint64_t)width * (uint64_t)height * 50;
}

/* A version that helps: what the gate is to see of a training that ran with this engine. */
dr_status dr_model_check(dr_model *m, const void *data, size_t len, const void *clean, size_t clean_len,
                         const dr_check_opts *opts, dr_check *ret, dr_error *err) {
    (void)m, (void)data, (void)len, (void)clean, (void)clean_len, (void)opts, (void)err;
    *ret = (dr_check){.width = 64, .height = 64, .finite = true, .rain_in = 60, .rain_out = 50};
    ret->change.psnr_rgb = 50;
    ret->input.psnr_y = 25;
    ret->output.psnr_y = 30;
    return DR_OK;
}

/* The pictures as they came. */
dr_status dr_model_transplant(dr_model *m, const void *data, size_t len, const void *clean, size_t clean_len,
                              const dr_check_opts *opts, void **ret_rainy, size_t *ret_rainy_len, void **ret_clean,
                              size_t *ret_clean_len, dr_error *err) {
    (void)m, (void)opts;
    char *a = dr_malloc(len), *b = dr_malloc(clean_len);
    if (!a || !b) {
        dr_free(a);
        dr_free(b);
        return dr_fail(err, DR_NOMEM, "out of memory");
    }
    memcpy(a, data, len);
    memcpy(b, clean, clean_len);
    *ret_rainy = a, *ret_rainy_len = len;
    *ret_clean = b, *ret_clean_len = clean_len;
    return DR_OK;
}

/* Version i takes i + 1 points of rain away; "fail-me" is a damaged picture. */
dr_status dr_compare_picture(dr_model *const *models, int n, const void *data, size_t len, const void *clean,
                             size_t clean_len, const dr_compare_opts *opts, dr_compare_row *ret, dr_error *err) {
    const char *ms = getenv("DERAIN_DOUBLE_MS");
    dr_compare_row row = {.n = n, .has_truth = clean != NULL};
    dr_picture_info info;
    dr_image img = {0}, out[DR_COMPARE_MAX] = {{0}};
    (void)models, (void)clean_len;
    if (!opts) return dr_fail(err, DR_INVALID, "the double wants options");
    dr_status s = dr_probe(data, len, len, opts->limits, &info, err);
    if (!s && memmem(data, len, "fail-me", 7))
        s = dr_fail_as(err, DR_CORRUPT, "image_corrupt", "the double was asked to fail");
    for (int i = 0; i <= n && !s; i++) {
        row.col[i] = (dr_compare_column){.rain = 60 - i, .finite = true, .truth.psnr_y = clean ? 25 + i : 0};
        bool go = opts->before(opts->arg);
        for (long left = ms ? strtol(ms, NULL, 10) : 0; left > 0 && go; left -= 5) {
            poll(NULL, 0, 5);
            go = !atomic_load(opts->cancel);
        }
        opts->after(opts->arg);
        if (!go) s = dr_fail(err, DR_CANCELLED, "broken off");
    }
    if (s) return s;
    s = dr_image_init(&img, 16, 16, 3, 8, err);
    for (int i = 0; i < n && !s; i++) s = dr_image_copy(&img, &out[i], err);
    if (!s) s = dr_strip_make(&img, out, n, NULL, opts->side, &row.strip, &row.spread, err);
    for (int i = 0; i < n; i++) dr_image_done(&out[i]);
    dr_image_done(&img);
    row.width = info.width;
    row.height = info.height;
    if (!s) *ret = row;
    return s;
}

/* The way of a picture, step by step as derain.h has it. A batch takes as long as one picture. */
struct dr_picture {
    const void *data;
    size_t len;
    dr_run_opts opts;
    dr_run_stats stats;
    dr_status status; /* of its run */
};

dr_status dr_picture_open(const void *data, size_t len, const dr_run_opts *opts, dr_picture **ret, dr_error *err) {
    dr_picture *p = dr_calloc(1, sizeof *p);
    if (!p) return dr_fail(err, DR_NOMEM, "out of memory");
    *p = (dr_picture){.data = data, .len = len, .stats = {.decode_ms = 1, .encode_ms = 1}};
    if (opts) p->opts = *opts;
    dr_status s = dr_probe(data, len, len, p->opts.limits, &p->stats.input, err);
    if (s)
        dr_free(p);
    else
        *ret = p;
    return s;
}
void dr_picture_close(dr_picture *p) {
    dr_free(p);
}
void dr_picture_set_budget(dr_picture *p, uint64_t mem_budget) {
    (void)p, (void)mem_budget;
}
void dr_picture_grid(const dr_picture *p, int *ret_w, int *ret_h) {
    *ret_w = (p->stats.input.width + 3) / 4 * 4;
    *ret_h = (p->stats.input.height + 3) / 4 * 4;
}
dr_status dr_picture_decode(dr_picture *p, dr_error *err) {
    if (!memmem(p->data, p->len, "fail-me", 7)) return DR_OK;
    return dr_fail_as(err, DR_CORRUPT, "image_corrupt", "the double was asked to fail");
}

static bool double_cancelled(const dr_picture *p) {
    return p->opts.cancel && atomic_load(p->opts.cancel);
}

dr_status dr_model_run_pictures(dr_model *m, dr_picture *const *p, int n, dr_error *err) {
    const char *ms = getenv("DERAIN_DOUBLE_MS");
    const long all = ms ? strtol(ms, NULL, 10) : 0;
    int cancelled = 0;
    (void)m, (void)err;
    for (long left = all; left > 0 && cancelled < n; left -= 5) {
        poll(NULL, 0, left < 5 ? (int)left : 5);
        cancelled = 0;
        for (int i = 0; i < n; i++) {
            if (p[i]->opts.progress) atomic_store(p[i]->opts.progress, (float)(1.0 - (double)left / (double)all));
            cancelled += double_cancelled(p[i]);
        }
    }
    for (int i = 0; i < n; i++) {
        p[i]->status = double_cancelled(p[i]) ? DR_CANCELLED : DR_OK;
        p[i]->stats.infer_ms = (double)all;
        p[i]->stats.reran = memmem(p[i]->data, p[i]->len, "run-me-twice", 12) != NULL;
    }
    return DR_OK;
}

dr_status dr_picture_encode(dr_picture *p, void **ret_data, size_t *ret_len, dr_run_stats *ret_stats, dr_error *err) {
    static const char mark[] = "derained";
    if (p->status || double_cancelled(p)) return dr_fail(err, DR_CANCELLED, "cancelled");
    char *out = dr_malloc(p->len + sizeof mark);
    if (!out) return dr_fail(err, DR_NOMEM, "out of memory");
    memcpy(out, p->data, p->len);
    memcpy(out + p->len, mark, sizeof mark);
    *ret_data = out;
    *ret_len = p->len + sizeof mark;
    if (ret_stats) *ret_stats = p->stats;
    return DR_OK;
}

dr_status dr_derain(dr_model *m, const void *data, size_t len, const dr_run_opts *opts, void **ret_data,
                    size_t *ret_len, dr_run_stats *ret_stats, dr_error *err) {
    dr_picture *p = NULL;
    dr_status s = dr_picture_open(data, len, opts, &p, err);
    if (s) return s;
    s = dr_picture_decode(p, err);
    if (!s) s = dr_model_run_pictures(m, &p, 1, err);
    if (!s) s = dr_picture_encode(p, ret_data, ret_len, ret_stats, err);
    dr_picture_close(p);
    return s;
}

void dr_model_set_yield(dr_model *m, bool (*between)(void *arg), void *arg) {
    (void)m, (void)between, (void)arg;
}
dr_status dr_evaluate(dr_model *m, const char *rainy_dir, const char *clean_dir,
                      void (*on_row)(const dr_eval_row *row, size_t i, size_t n, void *arg), void *arg, dr_eval *ret,
                      dr_error *err) {
    (void)rainy_dir, (void)clean_dir, (void)on_row, (void)arg, (void)err;
    *ret = (dr_eval){.n = 1, .mean_output = {.psnr_y = 20 + m->sum % 1000 / 100.0}};
    return DR_OK;
}
void dr_eval_done(dr_eval *e) {
    *e = (dr_eval){0};
}

#endif
