/* memory.h - one budget for pictures and a training: mem_budget bounds what both take together.
 *
 * A training holds what it needs from its start to its end (core's dr_train_plan(), and the pictures of its data set).
 * It is refused when that does not fit beside the smallest inference, and while it is there a picture may take what is
 * left: larger ones are refused at their header. Pictures that were let in before are done first, so that no job fails
 * because a training began. Any thread may call. */
#ifndef SRV_MEMORY_H
#define SRV_MEMORY_H

#include "core/derain.h"
#include <stdatomic.h>

struct srv_app;

enum { SRV_MEMORY_POINTS = 48 };
typedef struct srv_memory {
    uint64_t budget; /* of all runs at a time and the training */
    uint64_t least;  /* what the runs take for the smallest pictures */
    struct {         /* what one run takes, by rising sides */
        uint64_t pixels, bytes;
    } point[SRV_MEMORY_POINTS];
    int n;
    _Atomic uint64_t training; /* held by the running training; 0 = none */
} srv_memory;

/* Once, before requests: what runs of this model take, and the pixels that the budget allows (app->limits). */
void srv_memory_measure(struct srv_app *app, const dr_model *m);
/* app->limits with the pixels that are possible beside the training at hand. */
void srv_memory_limits(const struct srv_app *app, dr_limits *ret);
/* Most bytes that a training may take, and bytes that a run of the network may take now. */
uint64_t srv_memory_for_training(const struct srv_app *app);
uint64_t srv_memory_for_run(const struct srv_app *app);
/* Bytes that a picture of so many pixels takes. */
uint64_t srv_memory_of_picture(const struct srv_app *app, uint64_t pixels);

#endif
