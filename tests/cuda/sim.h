/* sim.h - the levers of the emulated device (tests/cusim), found in the module that the test has loaded. */
#ifndef SIM_H
#define SIM_H

#include "tests/cuda/emulated.h"
#include <dlfcn.h>
#include <stdbool.h>
#include <string.h>

typedef struct cusim_time { /* as in tests/cusim/include */
    double now, busy, waited, most;
    long spins;
} cusim_time;

static struct {
    void (*fail_with)(long n, int error);
    long (*calls)(void);
    size_t (*live)(void);
    size_t (*live_bytes)(void);
    void (*set_memory)(size_t bytes);
    void (*set_devices)(int n);
    void (*clock)(double work, double host, double wake);
    void (*clock_read)(cusim_time *ret);
} sim;

/* False: there is no emulated module (the real one is tested). */
static inline bool find_sim(void) {
    char path[600];
    snprintf(path, sizeof path, "%s/derain-cuda.so", getenv("DERAIN_MODULE_DIR"));
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    const struct {
        const char *name;
        void *to;
    } levers[] = {{"cusim_fail_with", &sim.fail_with},
                  {"cusim_calls", &sim.calls},
                  {"cusim_live", &sim.live},
                  {"cusim_live_bytes", &sim.live_bytes},
                  {"cusim_set_memory", &sim.set_memory},
                  {"cusim_set_devices", &sim.set_devices},
                  {"cusim_clock", &sim.clock},
                  {"cusim_clock_read", &sim.clock_read}};
    for (size_t i = 0; lib && i < sizeof levers / sizeof levers[0]; i++) {
        void *p = dlsym(lib, levers[i].name);
        if (!p) return false;
        memcpy(levers[i].to, &p, sizeof p);
    }
    return lib;
}

#endif
