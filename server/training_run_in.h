/* training_run_in.h - what the files of a running training share; nobody else sees it.
 *
 *   training_run.c   the order of things: prepare, steps, checkpoints, evaluations, the end
 *   training_tell.c  rows and events: what people and the next life read
 *   training_end.c   from weights to a version with a verdict */
#ifndef SRV_TRAINING_RUN_IN_H
#define SRV_TRAINING_RUN_IN_H

#include "core/trainer.h"
#include "db/training.h"
#include "server/training_params.h"
#include "server/training_run.h"
#include "server/training_watch.h"
#include <jansson.h>

typedef struct srv_run {
    srv_app *app;
    const db_job *job;
    srv_training_signals *sig;
    srv_training_params p;
    dr_trainer *t;
    dr_engine *engine; /* for evaluations, opened when needed */
    size_t n_pairs;
    bool made;            /* they are no pairs of the data set's, but made of what is held out (server/made_pairs.h) */
    double seconds, pace; /* spent in steps; a step's, smoothed */
    int64_t saved, saved_ns, evaluated;
    int64_t best_step;
    double best;
    bool reserved;        /* its part of mem_budget is taken */
    bool owes_evaluation; /* the checkpoint it goes on from was to be scored, and the last life did not get to it */
    dr_train_metrics sum;
    int64_t n_sum, steps;
    srv_training_watch watch;
    char *owed; /* a `log` event that the store could not take yet (a full disk is its disk too); owned */
    bool mute;  /* the store does not take our rows: said once */
    bool lost;  /* the job is no longer ours */
} srv_run;

/* --- training_tell.c --- */

/* A write of a row that failed: is the job still ours? */
void srv_run_note_failed(srv_run *r, const char *doing, dr_status s, const dr_error *err);
void srv_run_event(srv_run *r, const char *type, json_t *o); /* takes o */
/* A `log` event. */
void srv_run_tell(srv_run *r, const char *level, const char *code, const char *text);
/* The same of something that failed. What a file system says may hold paths: people get the cause without them. */
void srv_run_tell_failure(srv_run *r, const char *doing, dr_status s, const dr_error *err);
/* A step that took fewer pictures of its batch at a time than before: the bits are not those of a run with more memory.
 */
void srv_run_tell_parts(srv_run *r, int before);
/* How far it is; with_metrics: and the means of the losses since the last time. */
void srv_run_note(srv_run *r, const dr_train_metrics *m, bool with_metrics);
void srv_run_add_up(srv_run *r, const dr_train_metrics *m);

/* --- training_run.c --- */

/* Between the layers of what e computes, arg is the run: lets requests pass; false when it is to stop. */
bool srv_run_between_layers(void *arg, dr_engine *e);

/* --- training_end.c --- */

/* latest, best and train.safetensors. */
DR_MUSTUSE dr_status srv_run_export_all(srv_run *r, dr_error *err);
/* The registry gets the best weights as a new version of the parent's name, and all nets to go on from. A crash after
 * it finds the same version again. */
DR_MUSTUSE dr_status srv_run_hand_over(srv_run *r, int64_t *ret_version, dr_error *err);
/* The gate's word over the new version. What it cannot judge stays without a verdict, and the job succeeds all the
 * same: the version is there. */
DR_MUSTUSE dr_status srv_run_pass_gate(srv_run *r, int64_t version, dr_error *err);

#endif
