/* training_watch.h - looks at the losses of a training for the ways in which such trainings go wrong: says once what
 * was seen and what to try. It ends nothing; losses that are not finite end a training by themselves ("diverged"). */
#ifndef SRV_TRAINING_WATCH_H
#define SRV_TRAINING_WATCH_H

#include "core/trainer.h"

enum { SRV_SIGN_NCE_STUCK, SRV_SIGN_HINGE_SATURATED, SRV_SIGN_HINGE_BLIND, SRV_SIGN_FLAT, SRV_N_SIGNS };

typedef struct srv_training_watch {
    double mean[SRV_N_SIGNS]; /* moving averages of what each sign looks at */
    int64_t seen[SRV_N_SIGNS];
    bool said[SRV_N_SIGNS];
} srv_training_watch;

/* A step's losses. True: *ret_code ("contrastive_stuck" ...) and text say what is wrong; each sign is told once. */
bool srv_training_watch_step(srv_training_watch *w, const dr_train_metrics *m, const char **ret_code, char text[400]);
/* The spread of the outputs over that of the inputs (dr_trainer_spread). */
bool srv_training_watch_spread(srv_training_watch *w, double ratio, int64_t step, const char **ret_code,
                               char text[400]);

#endif
