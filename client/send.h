/* send.h - what several commands send: JSON calls, and pictures by content. */
#ifndef CLI_SEND_H
#define CLI_SEND_H

#include "client/out.h"

/* A call with a JSON body (NULL = none); a POST carries an Idempotency-Key of its own. ret may be NULL. */
DR_MUSTUSE dr_status cli_send_json(cli_http *h, const cli_env *env, const char *method, const char *path,
                                   const char *body, cli_answer *a, json_t **ret, dr_error *err);

/* Upload a file under its SHA-256. */
DR_MUSTUSE dr_status cli_send_blob(cli_http *h, const cli_env *env, const char *sha, const cli_file *in, cli_answer *a,
                                   dr_error *err);
/* Does the service have it? Other errors than its absence are errors. */
DR_MUSTUSE dr_status cli_blob_there(cli_http *h, const cli_env *env, const char *sha, cli_answer *a, bool *ret,
                                    dr_error *err);

#endif
