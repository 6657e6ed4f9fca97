/* memory.h - one budget for pictures and a training: mem_budget bounds what both take together.
 *
 * A picture is let in when it can be done within the budget at all, in bands if not as a whole
 * (dr_model_run_bytes_min), and its run gets the budget of the moment, so that it takes bands where it must.
 *
 * A training holds what it needs from its start to its end (core's dr_train_plan(), and the pictures of its data set).
 * It is refused when that does not fit beside the smallest inference, and while it is there a picture may take what is
 * left: those that cannot are refused at their header. Pictures that were let in before, and runs that took more, are
 * done first, so that no job fails because a training began. Any thread may call. */
#ifndef SRV_MEMORY_H
#define SRV_MEMORY_H

#include "core/derain.h"
#include <stdatomic.h>

struct srv_app;

enum { SRV_MEMORY_POINTS = 48, SRV_MEMORY_RUNS = 64 /* engines, as many as the setting "workers" allows */ };
typedef struct srv_memory {
    uint64_t budget; /* of all runs at a time and the training */
    uint64_t least;  /* what the runs take for the smallest pictures */
    struct {         /* what one run can do with, by rising sides */
        uint64_t pixels, bytes;
    } point[SRV_MEMORY_POINTS];
    int n;
    uint64_t per_mpix, least_per_mpix;     /* what a run takes as a whole, and can do with */
    _Atomic uint64_t training;             /* held by the running training; 0 = none */
    _Atomic uint64_t run[SRV_MEMORY_RUNS]; /* what the run of each engine may take; 0 = none runs */
} srv_memory;

/* Once, before requests: what runs of this model take, and the pixels that the budget allows (app->limits). */
void srv_memory_measure(struct srv_app *app, const dr_model *m);
/* app->limits with the pixels that are possible beside the training at hand. */
void srv_memory_limits(const struct srv_app *app, dr_limits *ret);
/* Most bytes that a training may take, and bytes that a run of the network may take now. */
uint64_t srv_memory_for_training(const struct srv_app *app);
uint64_t srv_memory_for_run(const struct srv_app *app);
/* Bytes that a picture of so many pixels takes as a whole, and can do with. */
uint64_t srv_memory_of_picture(const struct srv_app *app, uint64_t pixels);
uint64_t srv_memory_least(const struct srv_app *app, uint64_t pixels);

/* Around each run of an engine, of n pictures of this size: what it may take (pictures that were let in under a larger
 * budget get that one). */
uint64_t srv_memory_begin_run(struct srv_app *app, int engine, const dr_model *m, int width, int height, int n);
void srv_memory_end_run(struct srv_app *app, int engine);
/* The most that any run may take now. A training that has noted its part waits until this is what it leaves. */
uint64_t srv_memory_largest_run(const struct srv_app *app);

#endif
