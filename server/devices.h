/* devices.h - what the engines and trainings of this process hold on a GPU, summed up for /metrics and /v1/version.
 *
 * Whoever opens one adds it, and removes it before closing it; any thread may. The list is the process's, as the
 * device's context is. Engines on the CPU are in it too and count for nothing. */
#ifndef SRV_DEVICES_H
#define SRV_DEVICES_H

#include "core/derain.h"
#include "core/trainer.h"

/* NULL is fine for each. Without memory for its place, one is not counted. */
void srv_devices_add_engine(const dr_engine *e);
void srv_devices_add_trainer(const dr_trainer *t);
void srv_devices_remove(const void *p);

/* The sums; recorded and replayed those of closed ones included. False: none is on a GPU, or it does not answer. */
bool srv_devices_read(dr_device_state *ret);

#endif
