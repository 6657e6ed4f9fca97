/* create.h - making a job of any type: what POST /v1/jobs does before and after the part that knows the type. */
#ifndef SRV_CREATE_H
#define SRV_CREATE_H

#include "db/compare.h"
#include "server/api.h"

/* 422 with a pointer to the member. */
srv_next srv_bad_member(srv_req *r, const char *code, const char *pointer, const char *text);

/* Store the job and answer 201 with it, or with the job that the Idempotency-Key made before. Takes params (NULL = out
 * of memory); o is the request's object, whose labels are checked already; job, pictures are read. */
srv_next srv_create_job(srv_req *r, const json_t *o, db_job *job, json_t *params, const db_picture *pictures,
                        size_t n_pictures);

/* The types: o is the body, its labels are fine. */
srv_next srv_create_training(srv_req *r, json_t *o);
srv_next srv_create_comparison(srv_req *r, json_t *o);

#endif
