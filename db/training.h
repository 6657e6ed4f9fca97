/* training.h - trainings: jobs of type `train` from their claim to their end, their metrics and checkpoints.
 *
 * validating -> queued -> running <-> yielding -> evaluating -> gated -> succeeded; queued and paused go back and
 * forth, and so do those with which a trainer works ("held": running, yielding, evaluating, gated). Claim by
 * db_job_claim() with type "train"; events by db_event_append(). As in jobs.h each write of the trainer names its epoch
 * and is refused (CONFLICT "stale_epoch") when the job is no longer its own. Files are the caller's (see
 * server/training_files.h). */
#ifndef DB_TRAINING_H
#define DB_TRAINING_H

#include "db/jobs.h"

typedef struct db_training {
    char dataset[DB_ID];
    int64_t step, steps; /* done, planned (0 = not known yet) */
    double seconds, seconds_per_step;
    bool pause_requested;
    int64_t best_step; /* -1 = no evaluation yet */
    double best_score;
    int64_t version; /* of the model that it made; 0 = none yet */
    int64_t skipped; /* steps left out since something in them was not finite */
} db_training;
DR_MUSTUSE dr_status db_training_get(db_store *db, const char *id, db_training *ret, dr_error *err);

/* --- the trainer's --- */

/* One transaction: how far it is, and where metrics_json is given a row of metrics and a `metric` event with it. */
typedef struct db_training_note {
    int64_t step, steps, skipped;
    double seconds, seconds_per_step;
    const char *metrics_json; /* object of numbers, or NULL */
} db_training_note;
DR_MUSTUSE dr_status db_training_progress(db_store *db, const char *id, int64_t epoch, const db_training_note *in,
                                          dr_error *err);

/* Between held states. */
DR_MUSTUSE dr_status db_training_move(db_store *db, const char *id, int64_t epoch, db_state to, dr_error *err);

/* A checkpoint's file is on disk: its row, its event, and the attempts that crashed since the last one are forgiven. */
typedef struct db_checkpoint {
    int64_t step, at_ms, bytes;
    double seconds;
    bool has_score;
    double score;
} db_checkpoint;
DR_MUSTUSE dr_status db_training_checkpoint(db_store *db, const char *id, int64_t epoch, const db_checkpoint *in,
                                            dr_error *err);
DR_MUSTUSE dr_status db_training_checkpoint_drop(db_store *db, const char *id, int64_t epoch, int64_t step,
                                                 dr_error *err);
/* The score of the evaluation at a step, with an event; becomes the best where better is set. */
DR_MUSTUSE dr_status db_training_score(db_store *db, const char *id, int64_t epoch, int64_t step, double score,
                                       bool better, dr_error *err);
/* The training goes on from `step`: forget metrics, scores and checkpoints behind it. skipped, seconds: left out, spent
 * up to there. */
DR_MUSTUSE dr_status db_training_rewind(db_store *db, const char *id, int64_t epoch, int64_t step, int64_t skipped,
                                        double seconds, dr_error *err);

/* What it made is registered as this version. */
DR_MUSTUSE dr_status db_training_made(db_store *db, const char *id, int64_t epoch, int64_t version, dr_error *err);

/* Hand a held job back: to QUEUED (orderly stop, the attempt does not count) or to PAUSED. A cancel that came meanwhile
 * takes effect. */
DR_MUSTUSE dr_status db_training_release(db_store *db, const char *id, int64_t epoch, db_state to, dr_error *err);
/* SUCCEEDED, FAILED or CANCELLED. problem_json may be NULL. */
DR_MUSTUSE dr_status db_training_finish(db_store *db, const char *id, int64_t epoch, db_state state,
                                        const char *problem_json, dr_error *err);

/* --- people's --- */

/* pause: queued or validating becomes paused; a held job gets pause_requested, its trainer is to be told. resume:
 * paused becomes queued; a pause that was asked for and not made yet is taken back. Otherwise CONFLICT "not_pausable",
 * "not_resumable". flag of the call-back: it is paused (or queued again), not only asked for. */
void db_training_pause_async(db_store *db, const char *id, db_job_done done, void *arg);
void db_training_resume_async(db_store *db, const char *id, db_job_done done, void *arg);

/* The data set of a job that is `validating` is there (problem NULL: it is queued) or was rejected (it fails). Not
 * validating any more: nothing happens. */
DR_MUSTUSE dr_status db_training_validated(db_store *db, const char *id, const char *problem_json, dr_error *err);

typedef struct db_metric {
    int64_t step, at_ms;
    char *data_json; /* owned */
} db_metric;
typedef struct db_metric_page {
    db_metric *rows; /* by rising step */
    size_t n;
} db_metric_page;
#define DB_METRICS_MAX 10000
DR_MUSTUSE dr_status db_training_metrics(db_store *db, const char *id, int64_t step_from, int limit,
                                         db_metric_page *ret, dr_error *err);
void db_metric_page_clear(db_metric_page *p);

/* At most max of them, newest first. */
DR_MUSTUSE dr_status db_training_checkpoints(db_store *db, const char *id, db_checkpoint *ret, size_t max,
                                             size_t *ret_n, dr_error *err);

#endif
