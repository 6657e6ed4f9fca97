/* validate.h - the thread that validates sealed data sets, one after the other, the longest waiting first.
 *
 * It reads which set is next from the store and writes what it found there before it takes another, so that a set is
 * taken up again after a crash; facts about pictures are stored as they are made, so that it goes on where it was. It
 * runs at a lower priority than everything else. */
#ifndef SRV_VALIDATE_H
#define SRV_VALIDATE_H

#include "server/app.h"

typedef struct srv_validator srv_validator;

DR_MUSTUSE dr_status srv_validator_start(srv_app *app, srv_validator **ret, dr_error *err);
void srv_validator_ring(srv_validator *v); /* a set was sealed */
void srv_validator_stop(srv_validator *v); /* after at most one picture; NULL is fine */
/* How far it is with this set, 0..1; negative: not at work on it. */
double srv_validator_progress(srv_validator *v, const char *id);

#endif
