/* finish.h - the end of a job, stored even if the store cannot write just now. */
#ifndef SRV_FINISH_H
#define SRV_FINISH_H

#include "server/app.h"

/* db_job_finish, again and again while the store cannot write (no memory, disk full): without its row the job would
 * count as running until the next start. Gives up when the daemon stops. CONFLICT and NOT_FOUND: somebody else has
 * ended it. ret_done may be NULL. */
DR_MUSTUSE dr_status srv_job_finish(srv_app *app, const db_job *job, const db_finish *f, db_job *ret_done,
                                    dr_error *err);
/* Orderly stop: queued again, the attempt does not count. */
void srv_job_put_back(srv_app *app, const db_job *job);

#endif
