/* preset.h - the named objectives of METHOD.md section 15, and the options of a training with nothing left open.
 *
 * released  section 7 exactly: hinge, dual PatchNCE (2.0), identity (1.0); tanh output; the pictures of section 10;
 *           half of the steps constant, half linear to zero
 * full      section 8 on top of that: cycle, broad colours, spectra of the reconstructions, and the two contrastive
 *           blocks on these; native crops; EMA
 * product   rain transplant: r = x - G_A(x) of a rainy picture is laid over a clean one, which G_A must give back;
 *           generator term -mean D; native crops; residual output; EMA; the last 40 % linear to zero */
#ifndef DR_TRAIN_PRESET_H
#define DR_TRAIN_PRESET_H

#include "core/tensor/backend.h"
#include "core/trainer.h"

/* Derived from the options: what one step does. Each weight is that of the mean over the directions it exists in. */
typedef struct dr_objective {
    double w_gan, w_nce, w_idt, w_cycle, w_nce_extra, w_transplant;
    double w_color;         /* L1 between the broad colours of a translated picture and of its source */
    double w_freq;          /* mean |FFT2(x*) - FFT2(x)| of the reconstructions */
    double w_brighter;      /* mean of max(0, G_A(a) - a): rain adds light, so taking it off does not */
    double w_low;           /* mean square of what G_A takes off, averaged over about 8 x 8 pixels */
    double transplant_gain; /* strength of transplanted rain that G_A must take off: gain^-1/2 to gain, drawn a step */
    bool dual;              /* the second generator takes part */
    dr_gan_loss g_gan;      /* the generators' side; the discriminators' is the hinge */
    double gain;            /* of the random start of discriminators and heads */
    double decay_part;      /* last part of the steps, linear to zero */
} dr_objective;

/* Put the preset's values where an option is open (negative, NULL) and check all of them. */
DR_MUSTUSE dr_status dr_preset_fill(dr_train_opts *o, dr_objective *ret, dr_error *err);

/* What its convolutions are computed in: as asked, else bf16 on a GPU and f32 on the CPU. */
bool dr_trains_in_bf16(const dr_train_opts *o, bool on_gpu);

/* Factor of the learning rates at `step` (0-based): 1, then 1 - k/(n+1) for the k-th of the n decaying steps. */
double dr_schedule(int64_t step, int64_t steps, double decay_part);

#endif
