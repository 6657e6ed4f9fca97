/* training_watch.c - see training_watch.h.
 *
 * Contrastive loss: 256 patches a picture, so a head that tells none apart has the loss ln 256 = 5.545 of guessing.
 * Hinge: a discriminator that is always right by its margin has the losses 0 and 0, and one that answers 0 to
 * everything has 1 and 1; from neither does the generator learn anything. */
#include "server/training_watch.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

#define WINDOW     200 /* steps of the averages */
#define NCE_GUESS  5.545
#define NCE_STUCK  5.50
#define SATURATED  0.02
#define BLIND_SLOP 0.01
#define FLAT       0.1

static double value(const dr_train_metrics *m, const char *name) {
    for (int i = 0; i < m->n; i++)
        if (!strcmp(m->name[i], name)) return m->value[i];
    return NAN;
}

/* The average once a window of it is there, else NAN. */
static double average(srv_training_watch *w, int sign, double v) {
    if (!isfinite(v)) return NAN;
    int64_t n = ++w->seen[sign] < WINDOW ? w->seen[sign] : WINDOW;
    w->mean[sign] += (v - w->mean[sign]) / (double)n;
    return w->seen[sign] >= WINDOW ? w->mean[sign] : NAN;
}

static bool tell(srv_training_watch *w, int sign, bool yes) {
    if (!yes || w->said[sign]) return false;
    return w->said[sign] = true;
}

bool srv_training_watch_step(srv_training_watch *w, const dr_train_metrics *m, const char **ret_code, char text[400]) {
    double nce = average(w, SRV_SIGN_NCE_STUCK, fmin(value(m, "nce_1"), value(m, "nce_2")));
    if (tell(w, SRV_SIGN_NCE_STUCK, m->step >= 2 * WINDOW && nce > NCE_STUCK)) {
        *ret_code = "contrastive_stuck";
        snprintf(text, 400,
                 "the contrastive loss stays at %.3f, which is guessing (ln 256 = %.3f): patches are not told apart. "
                 "Try a higher lr_f, a lower w_gan, or larger crops with more structure",
                 nce, NCE_GUESS);
        return true;
    }
    double d = fmax(fmax(value(m, "d_A_real"), value(m, "d_A_fake")), fmax(value(m, "d_B_real"), value(m, "d_B_fake")));
    double hinge = average(w, SRV_SIGN_HINGE_SATURATED, d);
    if (tell(w, SRV_SIGN_HINGE_SATURATED, hinge < SATURATED)) {
        *ret_code = "discriminator_saturated";
        snprintf(text, 400,
                 "the discriminators' hinge losses are all below %.3f: they are always right, and the generator learns "
                 "nothing from them. Often the two sides differ in more than rain (size, compression, brightness). Try "
                 "sets that are more alike, a lower lr, or more pictures",
                 SATURATED);
        return true;
    }
    double off = fmax(fmax(fabs(value(m, "d_A_real") - 1), fabs(value(m, "d_A_fake") - 1)),
                      fmax(fabs(value(m, "d_B_real") - 1), fabs(value(m, "d_B_fake") - 1)));
    double blind = average(w, SRV_SIGN_HINGE_BLIND, off);
    if (tell(w, SRV_SIGN_HINGE_BLIND, m->step >= 2 * WINDOW && blind < BLIND_SLOP)) {
        *ret_code = "discriminator_blind";
        snprintf(
            text, 400,
            "the discriminators answer the same to everything (hinge losses within %.2f of 1): they do not see the "
            "rain. Try a higher lr, larger crops, and look whether the rainy pictures show rain",
            BLIND_SLOP);
        return true;
    }
    return false;
}

bool srv_training_watch_spread(srv_training_watch *w, double ratio, int64_t step, const char **ret_code,
                               char text[400]) {
    if (!tell(w, SRV_SIGN_FLAT, ratio >= 0 && ratio < FLAT)) return false;
    *ret_code = "output_flat";
    snprintf(text, 400,
             "at step %lld the outputs have %.0f %% of the contrast of their inputs: the generator has collapsed to a "
             "flat picture. Go back to an earlier checkpoint, with a lower lr and a higher w_idt",
             (long long)step, 100 * ratio);
    return true;
}
