/* memory.c - see memory.h. The table of points is written before the first request and only read afterwards. */
#include "server/memory.h"
#include "server/app.h"

/* The largest square that the budget allows gives the pixel limit; the exact sum is made by the engine, job by job. */
static int largest_side(const dr_limits *l, const dr_model *m) {
    int lo = l->side_min, hi = l->side_max;
    while (lo < hi) {
        int mid = lo + (hi - lo + 1) / 2;
        if (dr_model_run_bytes_min(m, mid, mid) <= l->mem_budget)
            lo = mid;
        else
            hi = mid - 1;
    }
    return lo;
}

void srv_memory_measure(srv_app *app, const dr_model *m) {
    srv_memory *mem = &app->memory;
    dr_limits *l = &app->limits;
    int top = largest_side(l, m);
    uint64_t pixels = (uint64_t)top * (uint64_t)top;
    mem->per_mpix = (uint64_t)((double)dr_model_run_bytes(m, top, top) / (double)pixels * 1e6);
    mem->least_per_mpix = (uint64_t)((double)dr_model_run_bytes_min(m, top, top) / (double)pixels * 1e6);
    app->pixels_by_memory = pixels < l->pixels_max;
    if (app->pixels_by_memory) l->pixels_max = pixels;
    mem->budget = l->mem_budget * (uint64_t)app->engines;
    mem->least = dr_model_run_bytes_min(m, l->side_min, l->side_min) * (uint64_t)app->engines;
    mem->n = 0;
    for (int side = l->side_min; mem->n < SRV_MEMORY_POINTS - 1 && side < top; side += 4 + side / 4) {
        mem->point[mem->n].pixels = (uint64_t)side * (uint64_t)side;
        mem->point[mem->n++].bytes = dr_model_run_bytes_min(m, side, side);
    }
    mem->point[mem->n].pixels = pixels;
    mem->point[mem->n++].bytes = dr_model_run_bytes_min(m, top, top);
}

uint64_t srv_memory_for_training(const srv_app *app) {
    const srv_memory *mem = &app->memory;
    return mem->budget > mem->least ? mem->budget - mem->least : 0;
}

uint64_t srv_memory_for_run(const srv_app *app) {
    uint64_t held = atomic_load(&app->memory.training), budget = app->memory.budget;
    return held < budget ? (budget - held) / (uint64_t)app->engines : 0;
}

/* Between two points the line between them: what a run takes grows with the pixels. */
static uint64_t pixels_within(const srv_memory *mem, uint64_t bytes) {
    int i = 0;
    while (i < mem->n && mem->point[i].bytes <= bytes) i++;
    if (!i) return 0;
    if (i == mem->n) return mem->point[i - 1].pixels;
    double part = (double)(bytes - mem->point[i - 1].bytes) / (double)(mem->point[i].bytes - mem->point[i - 1].bytes);
    return mem->point[i - 1].pixels + (uint64_t)(part * (double)(mem->point[i].pixels - mem->point[i - 1].pixels));
}

uint64_t srv_memory_of_picture(const srv_app *app, uint64_t pixels) {
    return (uint64_t)((double)app->memory.per_mpix * (double)pixels / 1e6);
}
uint64_t srv_memory_least(const srv_app *app, uint64_t pixels) {
    return (uint64_t)((double)app->memory.least_per_mpix * (double)pixels / 1e6);
}

/* The most it may take is noted before the training's part is looked at, and a training notes its part before it looks
 * at the runs: one of the two sees the other. */
uint64_t srv_memory_begin_run(srv_app *app, int engine, const dr_model *m, int width, int height, int n) {
    const uint64_t full = app->limits.mem_budget;
    atomic_store(&app->memory.run[engine], full);
    uint64_t budget = srv_memory_for_run(app);
    if (budget < full && dr_model_run_bytes_min(m, width, height) > budget) budget = full;
    const uint64_t whole = dr_model_run_bytes(m, width, height);
    atomic_store(&app->memory.run[engine], whole < budget / (uint64_t)n ? whole * (uint64_t)n : budget);
    return budget;
}

void srv_memory_end_run(srv_app *app, int engine) {
    atomic_store(&app->memory.run[engine], 0);
}

uint64_t srv_memory_largest_run(const srv_app *app) {
    uint64_t most = 0;
    for (int i = 0; i < SRV_MEMORY_RUNS; i++) {
        const uint64_t run = atomic_load(&app->memory.run[i]);
        if (run > most) most = run;
    }
    return most;
}

void srv_memory_limits(const srv_app *app, dr_limits *ret) {
    *ret = app->limits;
    if (!atomic_load(&app->memory.training)) return;
    uint64_t least = (uint64_t)ret->side_min * (uint64_t)ret->side_min;
    uint64_t pixels = pixels_within(&app->memory, srv_memory_for_run(app));
    if (pixels < least) pixels = least; /* a training leaves that much */
    if (pixels < ret->pixels_max) ret->pixels_max = pixels;
}
