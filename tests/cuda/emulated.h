/* emulated.h - tests that include it load the emulated module, or the real one where DERAIN_GPU_TEST is set. */
#ifndef EMULATED_H
#define EMULATED_H

#include <stdio.h>
#include <stdlib.h>

/* Before the first open: where the module is. make test names the build folder in DERAIN_MODULE_DIR. */
__attribute__((constructor)) static void choose_module(void) {
    char path[512];
    const char *dir = getenv("DERAIN_MODULE_DIR");
    if (getenv("DERAIN_GPU_TEST")) return;
    snprintf(path, sizeof path, "%s/cusim", dir ? dir : "build");
    setenv("DERAIN_MODULE_DIR", path, 1);
}

#endif
