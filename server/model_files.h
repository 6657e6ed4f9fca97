/* model_files.h - the files of model versions: DATA/models/NAME/VERSION/, made whole under another name and then moved
 * there with one rename, so that a folder of a version is never half written.
 *
 *   model.safetensors   the generator that is served
 *   train.safetensors   all nets of the training, to go on from; not always there
 *   card.md             what people should know; not always there
 *
 * Order: stage -> fill -> publish -> row. A crash before the row leaves a folder that no row names; the sweep at start
 * erases it. */
#ifndef SRV_MODEL_FILES_H
#define SRV_MODEL_FILES_H

#include "core/base/status.h"
#include "db/ulid.h"
#include "server/spool.h"
#include <stdbool.h>
#include <stdint.h>

#define SRV_MODEL_WEIGHTS "model.safetensors"
#define SRV_MODEL_TRAIN   "train.safetensors"
#define SRV_MODEL_CARD    "card.md"

/* A name that may stand in a path: 1 to 63 of letters, digits and . _ -, not beginning with a dot. */
bool srv_model_name_ok(const char *name);

/* root is DATA/models. Made if it is not there (0700). */
DR_MUSTUSE dr_status srv_mfiles_open(const char *root, dr_error *err);
void srv_mfiles_path(const char *root, const char *name, int64_t version, const char *file, char ret[SRV_PATH]);

/* A new empty folder beside the names. */
DR_MUSTUSE dr_status srv_mfiles_stage(const char *root, char ret_dir[SRV_PATH], dr_error *err);
void srv_mfiles_discard(const char *dir); /* a staged folder and the files in it */
/* Put a file into a staged folder: a second name for it where the file system allows, else a copy. */
DR_MUSTUSE dr_status srv_mfiles_adopt(const char *dir, const char *file, const char *from, dr_error *err);
/* Make it durable as NAME/VERSION. CONFLICT: that folder is there already. On failure the staged one stays. */
DR_MUSTUSE dr_status srv_mfiles_publish(const char *root, const char *dir, const char *name, int64_t version,
                                        dr_error *err);
void srv_mfiles_erase(const char *root, const char *name, int64_t version);

/* Erase staged folders, and those of versions that `known` denies. For start-up. */
void srv_mfiles_sweep(const char *root, bool (*known)(void *arg, const char *name, int64_t version), void *arg);

#endif
