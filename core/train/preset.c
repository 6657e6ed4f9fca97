#include "core/train/preset.h"

#include "core/nn/generator.h"

#include <math.h>
#include <string.h>

typedef struct preset {
    const char *name;
    int crop, batch, ngf, blocks, ndf, d_layers, residual, pool;
    int64_t steps;
    double lr, lr_f, w_gan, w_nce, w_idt, w_cycle, w_nce_extra, w_color, w_freq, w_transplant, w_brighter, w_low,
        transplant_gain, ema_decay, streaks_share, decay_part;
    dr_gan_loss g_gan;
    double gain;
} preset;

/* METHOD.md 5, 7, 9: what `full` builds on. */
#define RELEASED                                                                                                       \
    .crop = 256, .batch = 1, .ngf = 64, .blocks = 9, .ndf = 64, .d_layers = 3, .steps = 200000, .lr = 1e-4,            \
    .lr_f = 1e-3, .w_gan = 1, .w_nce = 2, .w_idt = 1, .transplant_gain = 1, .streaks_share = 0.5,                      \
    .g_gan = DR_GAN_HINGE_REAL, .gain = 0.02, .decay_part = 0.5

static const preset presets[] = {
    {.name = "released", RELEASED},
    /* METHOD.md 8 weighs the sum over both directions, we their mean: cycle 10, colour 5 and spectra 0.1 there are
     * twice that here. Colour: strong enough against the cycle that both generators do not learn negatives, which the
     * cycle cannot see (at 1 they do, at 5 and 10 they do not). Spectra: per unit of weight their gradient is as long
     * as that of an L1 (a unit vector a bin, a sign a pixel), so that 0.1 is a hundredth of the cycle's, spread over
     * all bins alike instead of over the strong ones. */
    {.name = "full", RELEASED, .w_cycle = 20, .w_nce_extra = 2, .w_color = 10, .w_freq = 0.2, .ema_decay = 0.999},
    {.name = "product",
     .crop = 128,
     .batch = 1,
     .ngf = 32,
     .blocks = 6,
     .ndf = 32,
     .d_layers = 2,
     .residual = 1,
     .steps = 20000,
     .lr = 2e-4,
     .lr_f = 1e-3,
     .w_gan = 1,
     .w_idt = 5,
     .w_transplant = 10,
     .w_brighter = 5,
     .transplant_gain = 1,
     .ema_decay = 0.999,
     .streaks_share = 0.5,
     .g_gan = DR_GAN_NEG_MEAN,
     .gain = 1,
     .decay_part = 0.4},
};

static const double EMA_OLD = 1e9; /* an average that is young no more */

void dr_train_opts_init(dr_train_opts *o) {
    *o = (dr_train_opts){.steps = -1,
                         .crop = -1,
                         .batch = -1,
                         .ngf = -1,
                         .blocks = -1,
                         .ndf = -1,
                         .d_layers = -1,
                         .residual = -1,
                         .lr = -1,
                         .lr_f = -1,
                         .w_gan = -1,
                         .w_nce = -1,
                         .w_idt = -1,
                         .w_cycle = -1,
                         .w_nce_extra = -1,
                         .w_color = -1,
                         .w_freq = -1,
                         .w_transplant = -1,
                         .w_brighter = -1,
                         .w_low = -1,
                         .transplant_gain = -1,
                         .ema_decay = -1,
                         .ema_age = -1,
                         .streaks_share = -1,
                         .decay_part = -1,
                         .warmup = -1,
                         .pool = -1};
}

static void put_int(int *v, int d) {
    if (*v < 0) *v = d;
}

static void put(double *v, double d) {
    if (*v < 0) *v = d;
}

static dr_status check(const dr_train_opts *o, dr_error *err) {
    if (o->crop < 64 || o->crop % 4 || o->crop > 4096)
        return dr_fail(err, DR_INVALID, "crop %d: it must be a multiple of 4 from 64 to 4096", o->crop);
    if (o->micro_batch < 0 || o->micro_batch > 64)
        return dr_fail(err, DR_INVALID, "micro batch %d: it must be from 1 to 64, or 0 for the whole batch",
                       o->micro_batch);
    if (o->batch < 1 || o->batch > 64) return dr_fail(err, DR_INVALID, "batch %d: it must be from 1 to 64", o->batch);
    if (o->blocks < DR_BLOCKS_TRAIN)
        return dr_fail(err, DR_INVALID, "blocks %d: training needs at least %d", o->blocks, DR_BLOCKS_TRAIN);
    if (o->steps < 1) return dr_fail(err, DR_INVALID, "steps %lld: it must be 1 or more", (long long)o->steps);
    if (!(o->transplant_gain >= 1 && o->transplant_gain <= 4))
        return dr_fail(err, DR_INVALID, "transplant gain %g: it must be from 1 to 4", o->transplant_gain);
    if (o->ema_decay >= 1) return dr_fail(err, DR_INVALID, "ema decay %g: it must be below 1", o->ema_decay);
    if (o->decay_part > 1) return dr_fail(err, DR_INVALID, "decay part %g: from 0 to 1", o->decay_part);
    if (o->streaks_share > 1) return dr_fail(err, DR_INVALID, "streaks share %g: from 0 to 1", o->streaks_share);
    const double all[] = {o->lr,      o->lr_f,   o->w_gan,        o->w_nce,      o->w_idt, o->w_cycle, o->w_nce_extra,
                          o->w_color, o->w_freq, o->w_transplant, o->w_brighter, o->w_low, o->warmup};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (!isfinite(all[i])) return dr_fail(err, DR_INVALID, "a learning rate or loss weight is not finite");
    if (o->precision && strcmp(o->precision, "f32") && strcmp(o->precision, "bf16"))
        return dr_fail(err, DR_INVALID, "precision '%s': it must be f32 or bf16", o->precision);
    return DR_OK;
}

bool dr_trains_in_bf16(const dr_train_opts *o, bool on_gpu) {
    return o->precision ? !strcmp(o->precision, "bf16") : on_gpu;
}

dr_status dr_preset_fill(dr_train_opts *o, dr_objective *ret, dr_error *err) {
    const preset *p = NULL;
    if (!o->preset) o->preset = "product";
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++)
        if (!strcmp(o->preset, presets[i].name)) p = &presets[i];
    if (!p) return dr_fail(err, DR_INVALID, "preset '%s': there are released, full and product", o->preset);
    put_int(&o->crop, p->crop);
    put_int(&o->batch, p->batch);
    put_int(&o->ngf, p->ngf);
    put_int(&o->blocks, p->blocks);
    put_int(&o->ndf, p->ndf);
    put_int(&o->d_layers, p->d_layers);
    put_int(&o->residual, p->residual);
    put_int(&o->pool, p->pool);
    if (o->steps < 0) o->steps = p->steps;
    put(&o->lr, p->lr);
    put(&o->lr_f, p->lr_f);
    put(&o->w_gan, p->w_gan);
    put(&o->w_nce, p->w_nce);
    put(&o->w_idt, p->w_idt);
    put(&o->w_cycle, p->w_cycle);
    put(&o->w_nce_extra, p->w_nce_extra);
    put(&o->w_color, p->w_color);
    put(&o->w_freq, p->w_freq);
    put(&o->w_transplant, p->w_transplant);
    put(&o->w_brighter, p->w_brighter);
    put(&o->w_low, p->w_low);
    put(&o->transplant_gain, p->transplant_gain);
    put(&o->ema_decay, p->ema_decay);
    put(&o->streaks_share, p->streaks_share);
    put(&o->decay_part, p->decay_part);
    put(&o->warmup, 0);
    put(&o->ema_age, o->init ? EMA_OLD : 0);
    if (!o->seed) o->seed = 1;
    dr_status s = check(o, err);
    if (s) return s;
    *ret = (dr_objective){.w_gan = o->w_gan,
                          .w_nce = o->w_nce,
                          .w_idt = o->w_idt,
                          .w_cycle = o->w_cycle,
                          .w_nce_extra = o->w_nce_extra,
                          .w_color = o->w_color,
                          .w_freq = o->w_freq,
                          .w_transplant = o->w_transplant,
                          .w_brighter = o->w_brighter,
                          .w_low = o->w_low,
                          .transplant_gain = o->transplant_gain,
                          .g_gan = p->g_gan,
                          .gain = p->gain,
                          .decay_part = o->decay_part};
    /* Rain transplant needs one generator alone (broad colours are then those of G_A(a)); every other objective is
     * about two. */
    ret->dual = o->w_transplant == 0 || o->w_nce > 0 || o->w_cycle > 0 || o->w_nce_extra > 0 || o->w_freq > 0;
    return DR_OK;
}

double dr_schedule(int64_t step, int64_t steps, double decay_part) {
    int64_t n = (int64_t)((double)steps * decay_part), hold = steps - n;
    return step < hold ? 1.0 : 1.0 - (double)(step - hold + 1) / (double)(n + 1);
}
