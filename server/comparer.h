/* comparer.h - the thread that compares versions of models: one job of type `compare` at a time, beside the workers. It
 * is a thread of its own, with an engine of its own, so that a comparison of hundreds of pictures never holds a worker:
 * it gives way to requests between two layers, and the training gives way to it (app->gate). The queue is the store's;
 * the doorbell is app->queue's. */
#ifndef SRV_COMPARER_H
#define SRV_COMPARER_H

#include "server/app.h"

typedef struct srv_comparer srv_comparer;

/* app must be complete. */
DR_MUSTUSE dr_status srv_comparer_start(srv_app *app, srv_comparer **ret, dr_error *err);
/* Orderly stop: the job at hand is broken off and queued again. Returns at once. NULL is fine. */
void srv_comparer_put_back(srv_comparer *c);
bool srv_comparer_busy(srv_comparer *c);
/* After srv_queue_stop(): waits for the thread and frees. NULL is fine. */
void srv_comparer_join(srv_comparer *c);

/* Tell the running comparison, any thread; false when this job is not the one. */
bool srv_comparer_cancel(srv_comparer *c, const char *id);

#endif
