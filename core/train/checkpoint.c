/* checkpoint.c - implements dr_checkpoint_export(): from a checkpoint to the two files that others use, with no
 * trainer, no backend and no picture.
 *
 * The nets are only described (names and shapes, no memory), which says what the checkpoint must hold and in which
 * order the files have it; the values go straight from the file that was read to the one that is written. Options that
 * the checkpoint is too old to have come from its preset, as when it is resumed. */
#include "core/base/alloc.h"
#include "core/model/safetensors.h"
#include "core/train/state.h"
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct source {
    const dr_st *f;
    dr_nets nets; /* described only */
    dr_train_opts o;
    char preset[32];
    dr_state_info info;
} source;

static dr_status describe(source *c, dr_error *err) {
    dr_objective unused;
    dr_train_opts_init(&c->o);
    dr_status s = dr_state_options(c->f, &c->o, c->preset, &c->info, err);
    c->o.terms = dr_st_meta(c->f, "derain.terms");
    if (!s) s = dr_preset_fill(&c->o, &unused, err);
    for (int i = 0; i < 2 && !s; i++) {
        const dr_generator_config g = {c->o.ngf, c->o.blocks, c->o.residual};
        const dr_discriminator_config d = {c->o.ndf, c->o.d_layers};
        s = dr_generator_init(&c->nets.g[i], g, NULL, false, err);
        if (!s) s = dr_discriminator_init(&c->nets.d[i], d, NULL, false, err);
        if (!s) s = dr_heads_init(&c->nets.f[i], c->o.ngf, NULL, false, err);
    }
    return s == DR_INVALID ? DR_CORRUPT : s; /* the options are the file's */
}

static dr_status fetch(void *arg, float *dst, size_t count, dr_error *err) {
    (void)count; /* the shapes were compared */
    return dr_st_read_f32(arg, dst, err);
}

/* Net n under its own names, "NET." before them where `named`. G_A comes from the moving average where there is one. */
static dr_status put_net(source *c, dr_net n, bool named, dr_st_writer *w, dr_error *err) {
    const dr_params *ps = dr_nets_params(&c->nets, n);
    const char *from = n == DR_NET_G_A && c->o.ema_decay > 0 ? "ema." : "";
    char name[160];
    for (int i = 0; i < ps->n; i++) {
        int64_t d[4];
        int rank = dr_state_dims(&ps->p[i], d);
        snprintf(name, sizeof name, "%s%s.%s", from, dr_net_name(n), ps->p[i].name);
        const dr_st_tensor *t = dr_st_find(c->f, name);
        if (!t) return dr_fail_as(err, DR_CORRUPT, "bad_model", "tensor '%s' is missing", name);
        if (!dr_st_has_shape(t, rank, d))
            return dr_fail_as(err, DR_CORRUPT, "bad_model", "tensor '%s' has another shape than this net", name);
        dr_st_writer_fetch(w, named ? name + strlen(from) : ps->p[i].name, DR_ST_F16, rank, d, fetch,
                           (void *)(uintptr_t)t);
    }
    return DR_OK;
}

static dr_status write_file(source *c, bool all, const char *path, dr_error *err) {
    dr_status s = DR_OK;
    if (!path) return s;
    dr_st_writer *w = dr_st_writer_create();
    dr_state_about(w, &c->o, c->info.step, all ? "training" : "generator");
    for (dr_net n = 0; n < (all ? DR_NETS : 1) && !s; n++) s = put_net(c, n, all, w, err);
    dr_st_writer_checksum(w);
    if (!s) s = dr_st_writer_save(w, path, err);
    dr_st_writer_destroy(w);
    return s;
}

dr_status dr_checkpoint_export(const char *path, const char *weights, const char *train, dr_error *err) {
    source c = {0};
    dr_st *f = NULL;
    dr_status s = dr_st_open(path, &f, err);
    if (s) return s;
    c.f = f;
    s = dr_st_verify(f, err);
    if (!s) s = describe(&c, err);
    if (!s) s = write_file(&c, false, weights, err);
    if (!s) {
        s = write_file(&c, true, train, err);
        if (s && weights) (void)unlink(weights);
    }
    dr_nets_done(&c.nets);
    dr_st_close(f);
    return s;
}
