/* training_run.h - one training from its claim to its end, on the trainer's thread. */
#ifndef SRV_TRAINING_RUN_H
#define SRV_TRAINING_RUN_H

#include "server/app.h"
#include <stdatomic.h>

/* Looked at between ops (cancel) and between steps (the others), so that what a pause or a stop leaves is a checkpoint
 * of a whole step. */
typedef struct srv_training_signals {
    atomic_bool cancel, pause, put_back;
} srv_training_signals;

/* The job is claimed; when this returns it is finished, paused or queued again, unless another claim overtook it. */
void srv_training_run(srv_app *app, const db_job *job, srv_training_signals *sig);

#endif
