/* training_gate.h - from a training's weights to a verdict: which pictures were held out, what the gate says of them
 * (server/verdict.h), and what follows. */
#ifndef SRV_TRAINING_GATE_H
#define SRV_TRAINING_GATE_H

#include "server/training_params.h"
#include "server/verdict.h"

struct srv_app;
struct db_job;

/* Limits out of the job's "gate" object over the defaults; *ret_make_default: its wish, or else the setting. */
void srv_training_gate_limits(const json_t *gate, bool policy, srv_verdict_limits *ret, bool *ret_make_default);

/* Judge `version` of the job's model on what DATA/training/ID holds out, keep the verdict with the version, and make it
 * the default where it is accepted and that is wished for. A version that has its verdict already (an earlier life got
 * so far) keeps it. *ret_event: what the job's `gate` event says (new reference); {"verdict":null,...} where nothing
 * was held out. yield as in dr_model_set_yield, called with arg. CANCELLED when it says so. */
DR_MUSTUSE dr_status srv_training_gate(struct srv_app *app, const struct db_job *job, const srv_training_params *p,
                                       int64_t version, bool (*yield)(void *arg, dr_engine *e), void *arg,
                                       json_t **ret_event, dr_error *err);

#endif
