/* batcher.h - pictures that wait for the GPU at the same time and have the same size run as one batch.
 *
 * A device is barely filled by one small picture, and eight of them take it little longer. So batches form by
 * themselves: at most `engines` runs are on the device at a time, each on an engine of its own, and what comes in
 * meanwhile collects. When an engine is free, the oldest picture that waits is its leader: it takes the others of its
 * key along, up to `batch`, in the order in which they came, and runs them on its own thread, while their threads sleep
 * until they have their results. With one engine computing, the other one copies: two keep the device busy, more would
 * only make the batches smaller.
 *
 * Nobody waits for company that is not there: a picture alone on an idle device runs at once. Only where others of its
 * very key are known to be on their way (claimed, being read and decoded) does it wait for them, `window_ms` after its
 * offer at most, and only while nothing runs; pictures of other keys pass it meanwhile. No key starves, since the
 * oldest picture decides what runs next.
 *
 * It knows neither pictures nor engines: `run` does the work. An item is its owner's and lives from its first call to
 * the end of the offer. Any thread; each item's calls come from one. */
#ifndef SRV_BATCHER_H
#define SRV_BATCHER_H

#include "core/base/status.h"
#include "server/telemetry.h"
#include <stdatomic.h>
#include <stdbool.h>

typedef struct srv_batcher srv_batcher;

/* What may share a run: one version of one model, one size. */
typedef struct srv_batch_key {
    char name[64];
    int64_t version; /* 0 = whatever is served when it runs */
    int w, h;
} srv_batch_key;

typedef struct srv_batch_item {
    srv_batch_key key;
    void *picture;             /* for run */
    const atomic_bool *cancel; /* while it waits; NULL = never. Whoever sets it calls srv_batcher_wake() */
    /* the batcher's */
    struct srv_batch_item *next;
    enum { SRV_BATCH_NEW, SRV_BATCH_COMING, SRV_BATCH_WAITING, SRV_BATCH_TAKEN, SRV_BATCH_DONE } state;
    int64_t offered_ns;
    dr_status status;
    dr_error err;
} srv_batch_item;

/* Runs n items of one key on engine 0..engines-1, which nobody else has meanwhile. A status that is not OK is that of
 * all of them; what differs is kept in their pictures. */
typedef dr_status srv_batch_run(void *arg, int engine, srv_batch_item *const *items, int n, dr_error *err);

typedef struct srv_batcher_opts {
    int engines, batch; /* runs at a time; pictures a run at most (1 = no batches), up to SRV_BATCH_MOST */
    int64_t window_ms;  /* 0 = never wait */
    srv_batch_run *run;
    void *arg;
    srv_hist *waits; /* receives what each picture waited for its run; borrowed, NULL = nobody asks */
    _Atomic uint64_t *batches, *pictures; /* runs, and pictures in them; as waits */
} srv_batcher_opts;

enum { SRV_BATCH_MOST = 64 };

DR_MUSTUSE dr_status srv_batcher_open(const srv_batcher_opts *opts, srv_batcher **ret, dr_error *err);
void srv_batcher_close(srv_batcher *b); /* nobody may use it any more; NULL is fine */

/* A picture of this key will be offered soon. */
void srv_batcher_expect(srv_batcher *b, srv_batch_item *item);
/* It will not. */
void srv_batcher_forget(srv_batcher *b, srv_batch_item *item);
/* Blocks until it has been run (with others, perhaps on this thread). What its run returned; CANCELLED: it was
 * cancelled, or the batcher stopped, before it came to that. */
DR_MUSTUSE dr_status srv_batcher_offer(srv_batcher *b, srv_batch_item *item, dr_error *err);

void srv_batcher_wake(srv_batcher *b); /* after a cancel; NULL is fine */
/* From now on pictures run one by one: what runs them (a CPU in the place of a lost device) gains nothing by company.
 */
void srv_batcher_one_by_one(srv_batcher *b);
/* All that wait leave as cancelled, and so does whoever comes later. Runs end as they would. NULL is fine. */
void srv_batcher_stop(srv_batcher *b);
int srv_batcher_waiting(srv_batcher *b); /* pictures that wait for a run now */

#endif
