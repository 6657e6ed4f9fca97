/* registry_in.h - what the two halves of the registry share: registry.c (what is resident and served) and
 * registry_versions.c (how new versions come to be). Nobody else includes it. */
#ifndef SRV_REGISTRY_IN_H
#define SRV_REGISTRY_IN_H

#include "server/registry.h"

/* Work for the registry's thread: the first member of what a task needs. `run`, then `drop`, then `done`. */
typedef struct srv_registry_task {
    struct srv_registry_task *next;
    dr_status (*run)(srv_registry *r, struct srv_registry_task *t, srv_change *ret, dr_error *err);
    void (*drop)(struct srv_registry_task *t); /* frees it, whether it was run or not */
    srv_registry_done done;
    void *arg;
} srv_registry_task;
void srv_registry_submit(srv_registry *r, srv_registry_task *t); /* takes t */
/* For what could not even be submitted. */
void srv_registry_no_memory(srv_registry_done done, void *arg);

db_store *srv_registry_db(const srv_registry *r);
/* Load it as a worker would and run a small picture through it, on the registry's thread. */
DR_MUSTUSE dr_status srv_registry_try(const srv_registry *r, const char *path, const char *sha256, dr_error *err);
/* What the file says about itself, as the texts of a row (free() them). False without memory. */
bool srv_registry_describe(const dr_model_info *i, char **ret_arch, char **ret_about);

#endif
