/* feed.c - opens the sources in order, puts their fingerprints into one, and owns them all. */
#include "core/train/feed.h"
#include "core/base/alloc.h"
#include "core/base/buf.h"
#include "core/base/hash.h"
#include <stdio.h>
#include <string.h>

struct dr_feed {
    dr_dataset *rainy, *clean;
    dr_streaks *streaks;
    dr_loader *loader;
    char fingerprint[DR_SHA256_HEX];
    char describe[1024];
};

static void describe(dr_feed *f, int crop) {
    dr_buf b;
    dr_buf_init(&b, sizeof f->describe - 1);
    if (f->rainy) dr_buf_printf(&b, "rainy: %s; ", dr_dataset_describe(f->rainy));
    dr_buf_printf(&b, "clean: %s", dr_dataset_describe(f->clean));
    if (f->streaks) {
        int n = 0, all = dr_dataset_count(f->clean);
        for (int i = 0; i < all; i++) n += dr_loader_is_background(f->loader, i);
        dr_buf_printf(&b, "; %s, over %d of the clean ones", dr_streaks_describe(f->streaks), n);
    }
    int small = (f->rainy ? dr_dataset_smaller(f->rainy, crop) : 0) + dr_dataset_smaller(f->clean, crop);
    if (small) dr_buf_printf(&b, "; %d smaller than the crop of %d are padded by reflection", small, crop);
    if (b.data) snprintf(f->describe, sizeof f->describe, "%s", b.data); /* as much as fitted */
    dr_buf_done(&b);
}

dr_status dr_feed_open(const dr_train_opts *o, int64_t start, dr_feed **ret, dr_error *err) {
    dr_feed *f = dr_calloc(1, sizeof *f);
    if (!f) return dr_fail(err, DR_NOMEM, "no memory for the training pictures");
    dr_loader_opts lo;
    dr_loader_opts_init(&lo);
    bool released = o->preset && strcmp(o->preset, "released") == 0;
    lo.crop = o->crop;
    lo.batch = o->batch;
    lo.seed = o->seed;
    lo.released = released;
    lo.squeeze_from = released ? o->steps / 2 : -1;
    if (o->preset && strcmp(o->preset, "product") == 0) {
        lo.scale_min = 0.5;
        lo.lattice_share = 0.1;
    }
    if (o->streaks_share >= 0) lo.streaks_share = o->streaks_share;

    const dr_dataset_opts keep = {.mem_max = o->pictures_max};
    dr_status s = DR_OK;
    if (o->n_rainy == 0 && !o->streaks) s = dr_fail(err, DR_INVALID, "training needs --rainy pictures or --streaks");
    if (!s && o->n_clean == 0) s = dr_fail(err, DR_INVALID, "training needs --clean pictures");
    if (!s && o->n_rainy > 0) s = dr_dataset_open("rainy", o->rainy, o->n_rainy, &keep, &f->rainy, err);
    if (!s) s = dr_dataset_open("clean", o->clean, o->n_clean, &keep, &f->clean, err);
    if (!s && o->streaks) s = dr_streaks_open(o->streaks, NULL, &f->streaks, err);
    if (!s) s = dr_loader_open(&lo, f->rainy, f->clean, f->streaks, start, &f->loader, err);
    if (s) {
        dr_feed_close(f);
        return s;
    }
    dr_buf b;
    dr_buf_init(&b, 1024);
    dr_buf_printf(&b, "rainy %s clean %s streaks %s", f->rainy ? dr_dataset_fingerprint(f->rainy) : "-",
                  dr_dataset_fingerprint(f->clean), f->streaks ? dr_streaks_fingerprint(f->streaks) : "-");
    if (b.status) {
        s = dr_fail(err, b.status, "no memory for the training pictures");
        dr_buf_done(&b);
        dr_feed_close(f);
        return s;
    }
    dr_sha256_hex(b.data, b.len, f->fingerprint);
    dr_buf_done(&b);
    describe(f, lo.crop);
    *ret = f;
    return DR_OK;
}

void dr_feed_close(dr_feed *f) {
    if (!f) return;
    dr_loader_close(f->loader); /* first: its thread reads the sets */
    dr_streaks_close(f->streaks);
    dr_dataset_close(f->clean);
    dr_dataset_close(f->rainy);
    dr_free(f);
}

dr_status dr_feed_next(dr_feed *f, dr_batch *ret, dr_error *err) {
    return dr_loader_next(f->loader, ret, err);
}
const char *dr_feed_fingerprint(const dr_feed *f) {
    return f->fingerprint;
}
const char *dr_feed_describe(const dr_feed *f) {
    return f->describe;
}
