/* trainer.h - the thread that trains: one job of type `train` at a time, beside the workers, giving way to them through
 * app->gate. The queue is the store's; the doorbell is app->queue's. */
#ifndef SRV_TRAINER_H
#define SRV_TRAINER_H

#include "server/app.h"

typedef struct srv_trainer srv_trainer;

/* app must be complete. */
DR_MUSTUSE dr_status srv_trainer_start(srv_app *app, srv_trainer **ret, dr_error *err);
/* Orderly stop: the training at hand saves after its step and is queued again. Returns at once. NULL is fine. */
void srv_trainer_put_back(srv_trainer *t);
bool srv_trainer_busy(srv_trainer *t);
/* After srv_queue_stop(): waits for the thread and frees. NULL is fine. */
void srv_trainer_join(srv_trainer *t);

bool srv_trainer_holds(srv_trainer *t, const char *id); /* this job is the one at hand */
/* Tell the running training, any thread; false when this job is not the one. */
bool srv_trainer_cancel(srv_trainer *t, const char *id);
bool srv_trainer_pause(srv_trainer *t, const char *id, bool on);

#endif
