/* registry.h - the versions of models: which exist (rows and files), which one is served, and how that changes while
 * pictures are being derained.
 *
 * A resident version is some engines with a model each: on the CPU one a worker, which nobody else uses; on a GPU two,
 * whose turns the batcher gives (server/batcher.h), since weights lie on the device once for each. A change of the
 * default goes through the registry's own thread: load the new one beside the old, check its hash, run a small picture
 * through it, write the row, and only then turn the pointer. Who has borrowed the old one finishes with it; the last to
 * leave frees it. What fails before the row leaves everything as it was. Any thread may call; the borrowed model is the
 * borrower's until it is given back. */
#ifndef SRV_REGISTRY_H
#define SRV_REGISTRY_H

#include "core/derain.h"
#include "db/models.h"
#include <stdatomic.h>

typedef struct srv_registry srv_registry;

typedef struct srv_registry_opts {
    db_store *db;
    const char *data;                             /* folder; versions lie in its models/ */
    const char *model;                            /* configured weights */
    const char *card;                             /* of the configured weights, NULL = none */
    const char *backend, *precision, *plan_cache; /* as in dr_engine_opts */
    int threads;
    int workers; /* 0 = automatic: 1 on the CPU, on a GPU as many as cores, at most 8 */
} srv_registry_opts;

/* Sweeps the files, opens the configured weights, registers them and serves the default that the store remembers. The
 * configured weights become the default when they are new, or were not the configured ones last time. A remembered
 * default that cannot be loaded is logged, and the configured weights serve. opts' texts are borrowed. */
DR_MUSTUSE dr_status srv_registry_open(const srv_registry_opts *opts, srv_registry **ret, dr_error *err);
void srv_registry_close(srv_registry *r); /* answers what was submitted, then frees; nothing may be borrowed */

typedef struct srv_model_id {
    char name[64];
    int64_t version;
    char sha256[65];
} srv_model_id;
void srv_registry_served(srv_registry *r, srv_model_id *ret);
const char *srv_registry_backend(const srv_registry *r); /* "cpu" */
const char *srv_registry_device(const srv_registry *r);  /* device and kernels, for people */
int srv_registry_workers(const srv_registry *r);
int srv_registry_engines(const srv_registry *r); /* runs at a time */
bool srv_registry_on_gpu(const srv_registry *r); /* at the start; it may be lost since */
bool srv_registry_resident(srv_registry *r, const char *name, int64_t version);

/* Path of a version's file (SRV_MODEL_WEIGHTS, ...); false: there is none of that kind. */
bool srv_registry_path(srv_registry *r, const db_model *m, const char *file, char *ret, size_t cap);
/* Path of the weights of NAME VERSION. NOT_FOUND model_not_found, CONFLICT version_unusable (the file is gone). */
DR_MUSTUSE dr_status srv_registry_weights(srv_registry *r, const char *name, int64_t version, char *ret, size_t cap,
                                          dr_error *err);

/* --- for workers --- */

typedef struct srv_borrow {
    dr_model *model;
    srv_model_id id; /* what it really is */
    void *held;
} srv_borrow;
/* The served version (version 0 and the served name), or any other, which is kept loaded until this engine is asked for
 * yet another. engine < srv_registry_engines(), one borrower of it at a time. NOT_FOUND model_not_found; CONFLICT
 * version_unusable. */
DR_MUSTUSE dr_status srv_registry_borrow(srv_registry *r, int engine, const char *name, int64_t version,
                                         srv_borrow *ret, dr_error *err);
void srv_registry_give_back(srv_registry *r, srv_borrow *b);

/* --- new versions --- */

typedef struct srv_version_new {
    const char *name;
    db_origin origin;
    db_verdict verdict;
    int64_t parent;            /* 0 = none */
    const char *dataset, *job; /* NULL = none */
    int64_t step;              /* of the job's checkpoint that this is, 0 = made at its end */
    const char *weights;       /* generator (safetensors); becomes ours under a second name, the caller may erase it */
    const char *train;         /* all nets, NULL = none */
    const char *card;          /* text of the card, NULL = none */
    const char *measures_json, *gate_json; /* NULL = none */
} srv_version_new;
/* Checks the weights whole and gives them the next number of the name; durable when it returns. A version that this job
 * has made already, or an imported one with the same bytes, is answered with its old number and *ret_made false.
 * Blocking. CORRUPT bad_model and what the file system says. */
DR_MUSTUSE dr_status srv_registry_add(srv_registry *r, const srv_version_new *in, int64_t *ret_version, bool *ret_made,
                                      dr_error *err);

/* --- changes of the default; all go through the registry's thread --- */

typedef struct srv_change {
    int64_t version, revision; /* what became the default or was made; the name's revision after it */
    bool made;                 /* import, publish: false = it was there */
} srv_change;
/* On the registry's thread; err is borrowed. */
typedef void (*srv_registry_done)(void *arg, dr_status s, const srv_change *c, const dr_error *err);

/* version 0 = roll back to the last good one. revision > 0: only while the name has it. force: even a rejected one.
 * NOT_FOUND model_not_found; CONFLICT revision_changed, version_rejected, version_unusable, no_previous_version. */
void srv_registry_set_default_async(srv_registry *r, const char *name, int64_t version, int64_t revision, bool force,
                                    srv_registry_done done, void *arg);
/* The same for threads that may wait; ret_revision may be NULL. */
DR_MUSTUSE dr_status srv_registry_set_default(srv_registry *r, const char *name, int64_t version, int64_t revision,
                                              bool force, int64_t *ret_version, int64_t *ret_revision, dr_error *err);

/* A new version of `name` from a file that somebody sent: safetensors of a generator or of a training, or a PyTorch
 * state dict. The staged folder `dir` holds it as `file`; the folder is taken over. */
void srv_registry_import_async(srv_registry *r, const char *name, const char *dir, const char *file,
                               srv_registry_done done, void *arg);
/* The weights of a training's checkpoint (the moving average where there is one) as a new version, with all nets to go
 * on from. in: name, parent, dataset, job, step, measures_json, card, which are copied; the rest is not looked at. A
 * checkpoint that was published before is answered with its version (made false), whether it is still there or not.
 * NOT_FOUND checkpoint_not_found, CONFLICT checkpoint_unusable. */
void srv_registry_publish_async(srv_registry *r, const srv_version_new *in, const char *checkpoint,
                                srv_registry_done done, void *arg);
const char *srv_registry_root(const srv_registry *r); /* DATA/models, for staging */

typedef struct srv_registry_stats {
    int64_t swaps, loads, loads_failed;
} srv_registry_stats;
void srv_registry_stats_get(srv_registry *r, srv_registry_stats *ret);

#endif
