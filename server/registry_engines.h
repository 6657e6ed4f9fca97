/* registry_engines.h - an engine with a model on it, as the registry keeps them resident: how many there are, and what
 * one has to show before it may serve. */
#ifndef SRV_REGISTRY_ENGINES_H
#define SRV_REGISTRY_ENGINES_H

#include "server/registry.h"

typedef struct srv_pair {
    dr_engine *engine;
    dr_model *model;
} srv_pair;

/* Counted among the devices (server/devices.h) while it is open. NULL may be closed. */
DR_MUSTUSE dr_status srv_engine_open(const srv_registry_opts *o, dr_engine **ret, dr_error *err);
void srv_engine_close(dr_engine *e);

/* Opens the engine unless p has one, loads the weights and runs a small picture through them. sha256 NULL or "":
 * whatever the file holds. CORRUPT bad_model. Where it fails, p may hold a part: close it. */
DR_MUSTUSE dr_status srv_pair_load(const srv_registry_opts *o, const char *path, const char *sha256, srv_pair *p,
                                   dr_error *err);
void srv_pair_close(srv_pair *p);

/* What depends on the device: on the CPU a worker computes itself, on an engine of its own; on a GPU workers decode and
 * encode, and two engines serve them all, one computing while the other one copies. wanted: workers, 0 = automatic. */
void srv_engines_count(const char *backend, int wanted, int *ret_workers, int *ret_engines);

#endif
