/* train_run.h - one training from start or checkpoint to its end, an early stop or a signal. */
#ifndef SRV_TRAIN_RUN_H
#define SRV_TRAIN_RUN_H

#include "core/trainer.h"
#include <stdbool.h>
#include <stdint.h>

/* What the command looks at beside the trainer's own options; all counts are steps. */
typedef struct srv_train_wishes {
    int64_t stop_after; /* end early after this step, 0 = do not */
    int64_t eval_every, save_every, log_every;
    int64_t sheet_every; /* 0 = a twentieth of the training */
    bool overwrite;      /* start anew in a folder that holds a checkpoint */
} srv_train_wishes;

/* o->out is set. Returns the process's exit code; has said on stderr what went wrong. */
int srv_train_run(const dr_train_opts *o, const srv_train_wishes *w);

#endif
