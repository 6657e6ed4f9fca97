/* janitor.h - one thread for what must happen now and then: signs of life of running jobs, retention, expiry, and the
 * count of waiting jobs set right. At start it also makes files and rows agree. */
#ifndef SRV_JANITOR_H
#define SRV_JANITOR_H

#include "server/app.h"

typedef struct srv_janitor srv_janitor;

/* Before the workers run: erase files without a row. */
DR_MUSTUSE dr_status srv_janitor_sweep(srv_app *app, dr_error *err);

DR_MUSTUSE dr_status srv_janitor_start(srv_app *app, srv_janitor **ret, dr_error *err);
void srv_janitor_stop(srv_janitor *j); /* NULL is fine */

#endif
