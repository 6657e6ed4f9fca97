/* api.h - the handlers that router.c lists, and the objects they share. */
#ifndef SRV_API_H
#define SRV_API_H

#include "server/request.h"

/* api_images.c */
srv_next srv_derain_begin(srv_req *r);
srv_next srv_derain_data(srv_req *r, const char *data, size_t len);
srv_next srv_derain_ready(srv_req *r);

/* api_jobs.c */
srv_next srv_jobs_list(srv_req *r);
srv_next srv_jobs_get(srv_req *r);
srv_next srv_jobs_delete(srv_req *r);
srv_next srv_jobs_result(srv_req *r);
srv_next srv_jobs_cancel(srv_req *r);

/* api_events.c */
srv_next srv_jobs_events(srv_req *r);

/* api_create.c */
srv_next srv_jobs_create(srv_req *r);

/* api_compare.c */
srv_next srv_jobs_report(srv_req *r);

/* api_training.c */
srv_next srv_jobs_pause(srv_req *r);
srv_next srv_jobs_resume(srv_req *r);
srv_next srv_jobs_metrics(srv_req *r);
srv_next srv_jobs_curves(srv_req *r);
srv_next srv_jobs_sample(srv_req *r);
srv_next srv_jobs_checkpoints(srv_req *r);
srv_next srv_is_training(srv_req *r); /* SRV_GO: {id} is a training */

/* api_publish.c */
srv_next srv_jobs_publish(srv_req *r);

/* api_blobs.c */
srv_next srv_blobs_begin(srv_req *r);
srv_next srv_blobs_data(srv_req *r, const char *data, size_t len);
srv_next srv_blobs_ready(srv_req *r);
srv_next srv_blobs_get(srv_req *r);
srv_next srv_blobs_delete(srv_req *r);
/* For whoever takes uploads: not while we stop, not without disk space. SRV_GO or a refusal. */
srv_next srv_check_intake(srv_req *r);
srv_next srv_read_digest(srv_req *r, bool *ret_has, uint8_t ret[32]); /* Content-Digest */

/* api_datasets.c */
srv_next srv_datasets_begin(srv_req *r);
srv_next srv_datasets_data(srv_req *r, const char *data, size_t len);
srv_next srv_datasets_ready(srv_req *r);
srv_next srv_datasets_list(srv_req *r);
srv_next srv_datasets_get(srv_req *r);
srv_next srv_datasets_delete(srv_req *r);
srv_next srv_datasets_seal(srv_req *r);
srv_next srv_datasets_report(srv_req *r);
srv_next srv_datasets_sheet(srv_req *r);
/* The body as an object that has no other members than these (NULL-ended); an empty body is {}. NULL: *ret is a
 * refusal.
 */
json_t *srv_read_object(srv_req *r, const char *const *members, srv_next *ret);

/* api_entries.c */
srv_next srv_entries_begin(srv_req *r);
srv_next srv_entries_data(srv_req *r, const char *data, size_t len);
srv_next srv_entries_ready(srv_req *r);
srv_next srv_entries_delete(srv_req *r);

/* api_models.c */
srv_next srv_models_list(srv_req *r);
srv_next srv_models_get(srv_req *r);
srv_next srv_models_version(srv_req *r);
srv_next srv_models_card(srv_req *r);
srv_next srv_models_weights(srv_req *r);
srv_next srv_models_default(srv_req *r);
srv_next srv_models_rollback(srv_req *r);

/* api_import.c */
srv_next srv_import_begin(srv_req *r);
srv_next srv_import_data(srv_req *r, const char *data, size_t len);
srv_next srv_import_ready(srv_req *r);

/* A version as JSON (new reference, NULL without memory); with its revision in ETag when the name's is known. */
json_t *srv_model_json(srv_app *app, const db_model *m);
void srv_model_etag(srv_req *r, int64_t revision);

/* api_system.c */
srv_next srv_system_limits(srv_req *r);
srv_next srv_system_version(srv_req *r);
srv_next srv_system_live(srv_req *r);
srv_next srv_system_ready(srv_req *r);
srv_next srv_system_model_ready(srv_req *r);
srv_next srv_system_metrics(srv_req *r);
srv_next srv_system_error_page(srv_req *r);
srv_next srv_system_openapi(srv_req *r);
srv_next srv_system_index(srv_req *r);

/* jobview.c: a job as JSON (new reference, NULL without memory), and its picture as an answer */
json_t *srv_job_json(srv_app *app, const db_job *job);
void srv_job_location(srv_req *r, const db_job *job); /* Location, Retry-After and Link of a job that is not done */
/* 200, 206, 304 or 416 with the result's bytes; 410 when the file is gone. `job` succeeded. */
srv_next srv_job_picture(srv_req *r, const db_job *job);

#endif
