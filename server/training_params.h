/* training_params.h - what a training was asked for: the JSON object of POST /v1/jobs with type "train", checked member
 * by member, and the same object with every default filled in, which is what the row keeps. A run reads only the row,
 * so that it goes on after a restart as it began, whatever the settings are then. */
#ifndef SRV_TRAINING_PARAMS_H
#define SRV_TRAINING_PARAMS_H

#include "core/trainer.h"
#include "db/ulid.h"
#include "server/problem.h"
#include <jansson.h>

typedef struct srv_training_params {
    char dataset[DB_ID];
    char parent[96]; /* "none", "" (the model in use), "NAME" (its default) or "NAME/VERSION" */
    char preset[16];
    int64_t steps, time_budget_s; /* 0 = open; 0 = none */
    int64_t crop, batch, threads; /* 0 = open */
    int64_t micro_batch;          /* 0 = the whole batch */
    int64_t ngf, blocks, ndf;     /* 0 = the parent's or the preset's */
    int64_t warmup;               /* steps in which the generators stand still; -1 = srv_training_warmup() */
    int64_t seed;
    int64_t eval_every, eval_pictures, sample_every, metric_every, save_every, save_every_s; /* 0 = open */
    int64_t early_stop; /* evaluations without a better one that end the training; 0 = never, -1 = open */
    double lr, lr_f;    /* negative = the preset's */
    double w_gan, w_nce, w_idt, w_cycle, w_nce_extra, w_color, w_freq, w_transplant, w_brighter;
    json_t *gate; /* object, may be NULL; owned */
} srv_training_params;

/* False: *ret_problem says which member is wrong (unknown_member or invalid_member). Members of the job itself (type,
 * labels) are passed over. */
bool srv_training_params_read(json_t *o, srv_training_params *ret, srv_problem *ret_problem);
void srv_training_params_done(srv_training_params *p);
/* New reference, NULL without memory; srv_training_params_read() takes it back. */
json_t *srv_training_params_json(const srv_training_params *p);

/* Put the defaults of the service where a member is open. */
void srv_training_params_fill(srv_training_params *p, bool has_parent, int threads);
/* Steps to stand still where the parent is a lone generator and nothing else was asked for: fresh discriminators know
 * nothing, and what they say in their first steps would only harm a good generator. */
int64_t srv_training_warmup(const srv_training_params *p);
/* The engine's options. Texts point into p. */
void srv_training_params_apply(const srv_training_params *p, dr_train_opts *o);

#endif
