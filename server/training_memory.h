/* training_memory.h - what a training will hold, and whether mem_budget has room for it. */
#ifndef SRV_TRAINING_MEMORY_H
#define SRV_TRAINING_MEMORY_H

#include "db/jobs.h"
#include "server/app.h"
#include "server/training_params.h"

/* The file that a training of this parent begins with; "" where it starts from nothing. *ret_lone: it holds a generator
 * only. CONFLICT version_unusable. */
DR_MUSTUSE dr_status srv_training_parent(const srv_app *app, const char *parent, const db_job *job, char ret[SRV_PATH],
                                         bool *ret_lone, dr_error *err);

/* o: the options that the trainer is opened with; its pictures_max is set to what may be kept of each side. *ret: bytes
 * of host memory. TOO_LARGE training_too_large with limit, actual and mem_budget; else what dr_train_plan() says. Reads
 * rows and the header of a file; allocates nothing of the training. */
DR_MUSTUSE dr_status srv_training_size(const srv_app *app, const char *dataset, dr_train_opts *o, uint64_t *ret,
                                       dr_error *err);

#endif
