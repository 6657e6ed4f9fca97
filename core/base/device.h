/* device.h - what a device holds, for those who watch it: part of both public doors of core. */
#ifndef DR_BASE_DEVICE_H
#define DR_BASE_DEVICE_H

#include <stdint.h>

typedef struct dr_device_state {
    uint64_t memory_used;             /* bytes, by the one that was asked */
    uint64_t memory_free, memory_all; /* bytes of the device, for all processes */
    uint32_t plans, plans_tuned;      /* convolution plans made; of them from tuning or its cache */
    uint64_t recorded, replayed;      /* runs noted as one, and repeated so, since it was opened */
} dr_device_state;

#endif
