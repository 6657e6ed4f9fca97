/* auth.h - who may talk to the daemon: tokens from a file, and on loopback the rule about foreign Host and Origin. */
#ifndef SRV_AUTH_H
#define SRV_AUTH_H

#include "core/base/status.h"
#include <stdbool.h>

typedef struct srv_auth srv_auth;

/* token_file "" = no tokens asked for. allowed_hosts: further names, with commas. check_host: we listen on loopback.
 * INVALID with the line for a token below 16 characters, for a file without any, and for one that others may read. */
DR_MUSTUSE dr_status srv_auth_open(const char *token_file, const char *allowed_hosts, bool check_host, srv_auth **ret,
                                   dr_error *err);
void srv_auth_close(srv_auth *a);

bool srv_auth_needed(const srv_auth *a);
/* Value of Authorization, may be NULL. Constant time over all tokens. */
bool srv_auth_token_ok(const srv_auth *a, const char *authorization);
/* NULL when fine, else the problem code: foreign_host or foreign_origin. Both values may be NULL. */
const char *srv_auth_origin_problem(const srv_auth *a, const char *host, const char *origin);

#endif
