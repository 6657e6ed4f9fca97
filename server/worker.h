/* worker.h - threads that derain: each takes a job from the store, reads its file, has it derained by the model that is
 * served at that moment (or the version that the job asks for), on the CPU itself, on a GPU through the batcher; writes
 * the result's file, and ends the row with the version it really ran with. */
#ifndef SRV_WORKER_H
#define SRV_WORKER_H

#include "server/app.h"

typedef struct srv_workers srv_workers;

/* Starts app->workers threads, and opens app->batcher on a GPU; serve.c closes it. app->registry is open; fills what
 * app->limits and app->memory owe to the memory budget. app->limits must hold the settings. */
DR_MUSTUSE dr_status srv_workers_start(srv_app *app, srv_workers **ret, dr_error *err);
void srv_workers_go(srv_workers *all); /* start taking jobs: app is complete */
/* After srv_queue_stop(): waits for the threads and frees. NULL is fine. */
void srv_workers_join(srv_workers *all);

#endif
