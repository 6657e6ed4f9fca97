/* registry_engines.c - see registry_engines.h. */
#include "server/registry_engines.h"
#include "core/base/alloc.h"
#include "core/base/log.h"
#include "server/devices.h"
#include <math.h>
#include <string.h>
#include <unistd.h>

enum {
    WARM_SIDE = 64,
    GPU_ENGINES = 2,
    GPU_WORKERS_MAX = 8 /* automatic */
};

void srv_engines_count(const char *backend, int wanted, int *ret_workers, int *ret_engines) {
    const bool gpu = strcmp(backend, "cpu") != 0;
    const long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int n = wanted;
    if (!n) n = !gpu || cores < 1 ? 1 : cores > GPU_WORKERS_MAX ? GPU_WORKERS_MAX : (int)cores;
    *ret_workers = n;
    *ret_engines = gpu && n > GPU_ENGINES ? GPU_ENGINES : n;
}

dr_status srv_engine_open(const srv_registry_opts *o, dr_engine **ret, dr_error *err) {
    const dr_engine_opts opts = {.backend = o->backend,
                                 .threads = o->threads,
                                 .precision = o->precision,
                                 .fallback = true,
                                 .plan_cache = o->plan_cache};
    dr_status s = dr_engine_open(&opts, ret, err);
    if (s) return dr_wrap(err, s, "backend '%s'", o->backend);
    srv_devices_add_engine(*ret);
    return DR_OK;
}

void srv_engine_close(dr_engine *e) {
    srv_devices_remove(e);
    dr_engine_close(e);
}

/* A picture that every later run resembles: gradients and a few lines. What comes back must be numbers. */
static dr_status warm(dr_model *m, dr_error *err) {
    size_t n = (size_t)3 * WARM_SIDE * WARM_SIDE;
    float *x = dr_malloc(2 * n * sizeof *x);
    if (!x) return dr_fail(err, DR_NOMEM, "no memory for the test picture");
    for (size_t i = 0; i < n; i++) {
        size_t col = i % WARM_SIDE, row = i / WARM_SIDE % WARM_SIDE;
        x[i] = (float)(col + row) / (float)WARM_SIDE - 1.0f + (col % 11 == row % 3 ? 0.5f : 0.0f);
    }
    dr_status s = dr_model_forward(m, x, WARM_SIDE, WARM_SIDE, x + n, err);
    for (size_t i = n; i < 2 * n && !s; i++)
        if (!isfinite(x[i]))
            s = dr_fail_as(err, DR_CORRUPT, "bad_model",
                           "the network answers a test picture with a value that is none");
    dr_free(x);
    return s;
}

dr_status srv_pair_load(const srv_registry_opts *o, const char *path, const char *sha256, srv_pair *p, dr_error *err) {
    dr_status s = p->engine ? DR_OK : srv_engine_open(o, &p->engine, err);
    if (s) return s;
    s = dr_model_open(p->engine, path, &p->model, err);
    if (s) return dr_wrap(err, s, "model '%s'", path);
    if (*dr_model_note(p->model)) dr_log(DR_LOG_INFO, NULL, "model '%s': %s", path, dr_model_note(p->model));
    const dr_model_info *i = dr_model_get_info(p->model);
    if (sha256 && *sha256 && strcmp(i->sha256, sha256))
        return dr_fail_as(err, DR_CORRUPT, "bad_model", "'%s' is not what was registered: its sha-256 differs", path);
    return warm(p->model, err);
}

void srv_pair_close(srv_pair *p) {
    dr_model_close(p->model);
    srv_engine_close(p->engine);
    *p = (srv_pair){0};
}
