/* worker.h - threads that derain: each owns an engine and a copy of the model, takes a job from the store, reads its
 * file, writes the result's file, and ends the row. */
#ifndef SRV_WORKER_H
#define SRV_WORKER_H

#include "server/app.h"

typedef struct srv_workers srv_workers;

/* Starts app->cfg->workers threads and waits until each has loaded the model. Fills app->model (caller frees with
 * srv_model_done) and what app->limits and app->bytes_per_mpix owe to the memory budget. app->limits must hold the
 * settings. */
DR_MUSTUSE dr_status srv_workers_start(srv_app *app, srv_workers **ret, dr_error *err);
void srv_workers_go(srv_workers *all); /* start taking jobs: app is complete */
/* After srv_queue_stop(): waits for the threads and frees. NULL is fine. */
void srv_workers_join(srv_workers *all);
void srv_model_done(srv_model *m);

#endif
