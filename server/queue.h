/* queue.h - what is shared between requests and workers beside the store: a doorbell, the jobs running now with their
 * cancel flags, and measured times. The queue itself is the store's; nothing here must survive a crash. */
#ifndef SRV_QUEUE_H
#define SRV_QUEUE_H

#include "core/base/status.h"
#include "db/ulid.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct srv_queue srv_queue;

typedef struct srv_running { /* a slot: one a worker */
    char id[DB_ID];
    int64_t epoch;
    atomic_bool cancel;   /* the engine looks at it */
    atomic_bool put_back; /* cancelled for an orderly stop: queue it again */
    _Atomic float progress;
    bool used;
} srv_running;

DR_MUSTUSE dr_status srv_queue_open(int workers, srv_queue **ret, dr_error *err);
void srv_queue_close(srv_queue *q);

void srv_queue_ring(srv_queue *q); /* there may be work */
uint64_t srv_queue_rings(srv_queue *q);
void srv_queue_wait(srv_queue *q, uint64_t rings_seen, int64_t timeout_ms); /* until it rang since, or stop */

srv_running *srv_queue_start(srv_queue *q, const char *id, int64_t epoch); /* never NULL: as many slots as workers */
void srv_queue_end(srv_queue *q, srv_running *slot);
bool srv_queue_cancel(srv_queue *q, const char *id); /* false when it is not running */
bool srv_queue_progress(srv_queue *q, const char *id, double *ret);
int srv_queue_n_running(srv_queue *q);
/* Calls `see` for each running job, without a lock held. */
void srv_queue_each(srv_queue *q, void (*see)(void *arg, const char *id, int64_t epoch, double progress), void *arg);

/* Orderly stop: `stop` makes workers end when their job is done, put_back makes them break it off. */
void srv_queue_stop(srv_queue *q);
void srv_queue_put_back(srv_queue *q);
bool srv_queue_stopping(srv_queue *q);

/* Seconds that a job takes (moving average; 0 until measured) and those of a megapixel. */
void srv_queue_learn(srv_queue *q, double seconds, double mpix);
double srv_queue_job_seconds(srv_queue *q);
double srv_queue_mpix_seconds(srv_queue *q);
/* Whole seconds >= 1 until `ahead` jobs are done, spread by 20 % so that clients do not return together. */
int srv_queue_retry_after(srv_queue *q, int64_t ahead);

/* Jobs waiting, as far as is known without asking the store; corrected by the janitor. */
void srv_queue_count_add(srv_queue *q, int64_t n);
void srv_queue_count_set(srv_queue *q, int64_t n);
int64_t srv_queue_count(srv_queue *q);

#endif
