/* app.h - the parts of the running daemon that request handlers and workers share. Made and owned by serve.c, alive
 * from before the first request until after the last; nothing in here changes hands. */
#ifndef SRV_APP_H
#define SRV_APP_H

#include "core/derain.h"
#include "db/jobs.h"
#include "server/auth.h"
#include "server/batcher.h"
#include "server/config.h"
#include "server/gate.h"
#include "server/memory.h"
#include "server/queue.h"
#include "server/registry.h"
#include "server/spool.h"
#include "server/telemetry.h"
#include "server/watcher.h"
#include <stdatomic.h>

typedef struct srv_app {
    const srv_config *cfg;
    dr_limits limits;      /* what intake checks: the settings, and the pixels that mem_budget allows */
    bool pixels_by_memory; /* limits.pixels_max follows from mem_budget */
    int workers, engines;  /* jobs at a time; runs of the network at a time */
    srv_memory memory;
    db_store *db;
    srv_spool *spool;
    srv_watch *watch;
    srv_queue *queue;
    srv_batcher *batcher; /* between workers and a GPU; NULL on the CPU */
    srv_gate *gate;       /* between workers, the comparison and the training */
    srv_auth *auth;
    struct srv_http *http;
    struct srv_trainer *trainer;
    struct srv_comparer *comparer;
    srv_registry *registry;
    struct srv_blobs *blobs;
    struct srv_validator *validator;
    srv_tele tele;
    atomic_bool draining;
} srv_app;

#endif
