/* made_pairs.c - see made_pairs.h. */
#include "server/made_pairs.h"
#include "core/base/alloc.h"
#include "core/base/fs.h"
#include "server/devices.h"
#include "server/picture_paths.h"
#include "server/training_files.h"
#include "server/verdict.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { PAIRS = 20 };

#define TMP "made.tmp"

static dr_status write_one(const srv_made_in *in, const char *side, size_t i, const void *data, size_t len,
                           dr_error *err) {
    char name[64];
    snprintf(name, sizeof name, TMP "/%s/%06zu.png", side, i);
    char *path = dr_fs_join(in->dir, name);
    dr_status s = path ? dr_fs_write_atomic(path, data, len, err) : dr_fail(err, DR_NOMEM, "no memory for a path");
    dr_free(path);
    return s;
}

static dr_status make_one(const srv_made_in *in, dr_model *m, const char *rainy, const char *clean, size_t i,
                          dr_error *err) {
    char *a = NULL, *b = NULL;
    size_t a_len = 0, b_len = 0, rained_len = 0, truth_len = 0;
    void *rained = NULL, *truth = NULL;
    dr_limits lim = in->limits ? *in->limits : (dr_limits){0};
    dr_limits_fill(&lim);
    const dr_check_opts o = {.limits = &lim, .side_max = SRV_VERDICT_SIDE};
    dr_status s = dr_fs_read(rainy, (size_t)lim.body_max_bytes, &a, &a_len, err);
    if (!s) s = dr_fs_read(clean, (size_t)lim.body_max_bytes, &b, &b_len, err);
    if (!s && in->before) in->before(in->around);
    if (!s) {
        s = dr_model_transplant(m, a, a_len, b, b_len, &o, &rained, &rained_len, &truth, &truth_len, err);
        if (in->after) in->after(in->around);
    }
    if (!s) s = write_one(in, "rainy", i, rained, rained_len, err);
    if (!s) s = write_one(in, "clean", i, truth, truth_len, err);
    dr_free(a);
    dr_free(b);
    dr_free(rained);
    dr_free(truth);
    return s;
}

/* Who computes, for the yield. */
typedef struct computing {
    const srv_made_in *in;
    dr_engine *engine;
} computing;

static bool between_layers(void *arg) {
    const computing *c = arg;
    return c->in->yield(c->in->arg, c->engine);
}

static dr_status make_all(const srv_made_in *in, const srv_paths *rainy, const srv_paths *clean, size_t n,
                          dr_error *err) {
    const dr_engine_opts opts = {.backend = in->backend,
                                 .threads = in->threads,
                                 .precision = in->precision,
                                 .plan_cache = in->plan_cache,
                                 .background = true};
    dr_engine *e = NULL;
    dr_model *m = NULL;
    dr_status s = dr_engine_open(&opts, &e, err);
    if (s) return s;
    srv_devices_add_engine(e);
    s = dr_model_open(e, in->weights, &m, err);
    computing c = {in, e};
    if (!s && in->yield) dr_model_set_yield(m, between_layers, &c);
    for (size_t i = 0; i < n && !s; i++)
        s = make_one(in, m, rainy->path[i * rainy->n / n], clean->path[i * clean->n / n], i, err);
    dr_model_close(m);
    srv_devices_remove(e);
    dr_engine_close(e);
    return s;
}

static dr_status make_folder(const srv_made_in *in, const srv_paths *rainy, const srv_paths *clean, size_t n,
                             dr_error *err) {
    char *tmp = dr_fs_join(in->dir, TMP), *made = dr_fs_join(in->dir, SRV_MADE), *r = dr_fs_join(in->dir, TMP "/rainy"),
         *c = dr_fs_join(in->dir, TMP "/clean");
    dr_status s = tmp && made && r && c ? DR_OK : dr_fail(err, DR_NOMEM, "no memory for a path");
    if (!s) {
        srv_erase_tree(tmp); /* of a life that was broken off */
        s = dr_fs_mkdirs(r, 0700, err);
    }
    if (!s) s = dr_fs_mkdirs(c, 0700, err);
    if (!s) s = make_all(in, rainy, clean, n, err);
    if (!s && rename(tmp, made)) s = dr_fail_errno(err, errno, "rename", made);
    if (!s) s = dr_fs_sync_dir(in->dir, err);
    if (s && tmp) srv_erase_tree(tmp);
    dr_free(tmp);
    dr_free(made);
    dr_free(r);
    dr_free(c);
    return s;
}

dr_status srv_made_pairs(const srv_made_in *in, size_t *ret_n, dr_error *err) {
    srv_paths made = {0}, rainy = {0}, clean = {0};
    dr_status s = srv_paths_folder(in->dir, SRV_MADE_RAINY, &made, err);
    size_t n = made.n;
    if (!s && !n) s = srv_paths_read(in->dir, SRV_HELD_RAINY, &rainy, err);
    if (!s && !n) s = srv_paths_read(in->dir, SRV_HELD_CLEAN, &clean, err);
    if (!s && !n && rainy.n && clean.n) {
        n = in->pairs_max > 0 ? (size_t)in->pairs_max : PAIRS;
        if (n > rainy.n) n = rainy.n;
        s = make_folder(in, &rainy, &clean, n, err);
    }
    srv_paths_done(&made);
    srv_paths_done(&rainy);
    srv_paths_done(&clean);
    if (!s) *ret_n = n;
    return s;
}
