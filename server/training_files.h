/* training_files.h - what a training leaves on disk: DATA/training/<job id>/
 *
 *   rainy.txt, clean.txt      the pictures of its data set, a path a line, without
 *   held-rainy.txt, held-clean.txt  a tenth of each side of 20 or more (at most 24), which the gate looks at
 *   pairs/rainy, pairs/clean  its paired hold-out under common names (links)
 *   made/rainy, made/clean    where there are none: pairs made of what is held out (server/made_pairs.h)
 *   step_NNNNNNNNN.safetensors checkpoints: the last SRV_CHECKPOINTS and the one with the best score
 *   best_NNNNNNNNN.safetensors the generator (F16) of the best evaluation so far
 *   best, latest, train.safetensors  at its end: generators to serve (F16) and all nets to go on from
 *   samples/NNNNNNNNN.png     what goes in, what comes out, and the difference
 *
 * Every file is made under another name and renamed; rows follow the files (db/training.h). What no row names is erased
 * when the training goes on, and the whole folder soon after its job is. */
#ifndef SRV_TRAINING_FILES_H
#define SRV_TRAINING_FILES_H

#include "db/training.h"
#include "server/app.h"

#define SRV_HELD_RAINY "held-rainy.txt"
#define SRV_HELD_CLEAN "held-clean.txt"

enum { SRV_CHECKPOINTS = 3 };

/* DATA/training/ID or a file in it. */
void srv_training_path(const srv_app *app, const char *id, const char *file, char ret[SRV_PATH]);
void srv_training_checkpoint_path(const srv_app *app, const char *id, int64_t step, char ret[SRV_PATH]);
void srv_training_best_path(const srv_app *app, const char *id, int64_t step, char ret[SRV_PATH]);
void srv_training_sample_path(const srv_app *app, const char *id, int64_t step, char ret[SRV_PATH]);

/* The folder with lists and links of the job's data set, made anew; n_pairs: hold-out pairs, at most pairs_max of them
 * linked, evenly spread. INVALID dataset_unusable where a side is empty. */
DR_MUSTUSE dr_status srv_training_prepare(const srv_app *app, const char *id, const char *dataset, int64_t pairs_max,
                                          size_t *ret_pairs, dr_error *err);
/* Erase checkpoints that no row names, and what writing left half-done. */
void srv_training_tidy(const srv_app *app, const char *id);
/* A folder and all in it; links are taken off, not followed. */
void srv_erase_tree(const char *path);
/* Erase the folders of jobs that are gone. */
void srv_training_sweep(const srv_app *app);

#endif
