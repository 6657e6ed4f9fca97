/* follow.h - watching a training: its events as lines, its progress and losses on a terminal. */
#ifndef CLI_FOLLOW_H
#define CLI_FOLLOW_H

#include "client/out.h"

/* Prints what happens (state, log, checkpoint, evaluation, sample; metrics too where all is set) to `to` until the job
 * has ended; with live, a progress line with the latest losses on a terminal. after: number of the last event that is
 * known. *ret receives the job as it ended (json_decref). OK also when it failed: look at its state. once: only what is
 * there now. */
DR_MUSTUSE dr_status cli_follow_training(cli_http *h, const cli_env *env, const char *id, int64_t after, bool all,
                                         bool live, bool once, json_t **ret, cli_answer *answer, dr_error *err);

#endif
