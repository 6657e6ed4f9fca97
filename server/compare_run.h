/* compare_run.h - one comparison from its claim to its end, on the comparer's thread. */
#ifndef SRV_COMPARE_RUN_H
#define SRV_COMPARE_RUN_H

#include "server/app.h"
#include <stdatomic.h>

enum {
    SRV_COMPARE_ROWS = 20, /* of the sheet at most: the pictures on which the versions differ most */
    SRV_COMPARE_SIDE = 320 /* of its pictures */
};

/* stop is set with either of the others; set it last, and wake the gate. */
typedef struct srv_compare_signals {
    atomic_bool cancel, put_back, stop;
} srv_compare_signals;

/* The job is claimed; when this returns it is finished or queued again, unless another claim overtook it. */
void srv_compare_run(srv_app *app, const db_job *job, srv_compare_signals *sig);

#endif
