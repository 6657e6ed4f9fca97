/* finish.c - see finish.h. */
#include "server/finish.h"
#include "core/base/log.h"

#define RETRY_MS 500 /* until a store that cannot write is asked again */

dr_status srv_job_finish(srv_app *app, const db_job *job, const db_finish *f, db_job *ret_done, dr_error *err) {
    for (;;) {
        *err = (dr_error){0};
        uint64_t rings = srv_queue_rings(app->queue);
        dr_status s = db_job_finish(app->db, job->id, job->epoch, f, ret_done, err);
        if (!s || s == DR_CONFLICT || s == DR_NOT_FOUND || srv_queue_stopping(app->queue)) return s;
        dr_log(DR_LOG_WARN, job->request_id, "job %s: cannot store how it ended yet: %s", job->id, err->text);
        srv_queue_wait(app->queue, rings, RETRY_MS);
    }
}

void srv_job_put_back(srv_app *app, const db_job *job) {
    dr_error err = {0};
    if (db_job_requeue(app->db, job->id, job->epoch, &err))
        dr_log(DR_LOG_WARN, job->request_id, "job %s: cannot put it back: %s", job->id, err.text);
    else
        dr_log(DR_LOG_INFO, job->request_id, "job %s goes on after the restart", job->id);
    srv_count(&app->tele, SRV_JOBS_REQUEUED, 1);
}
