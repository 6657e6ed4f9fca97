/* training_memory.c - see training_memory.h.
 *
 *   need = dr_train_plan() + decoded pictures kept + a run of the largest picture that it is measured with: of the
 * paired hold-out, or of what the gate and made pairs look at
 *
 * Decoded pictures are kept for speed alone (others are decoded again), so they take at most half of what the rest
 * leaves. On a GPU the nets and the step are the device's memory: refused here is what the device never has room for,
 * and when it starts the trainer looks at what is free (and takes fewer pictures at a time); the host's is counted
 * here. */
#include "server/training_memory.h"
#include "db/datasets.h"
#include "server/devices.h"
#include "server/memory.h"
#include "server/model_files.h"
#include "server/verdict.h"
#include <string.h>

enum { MEASURED = SRV_VERDICT_SIDE * SRV_VERDICT_SIDE }; /* pixels */
#define KEEP_MAX ((uint64_t)4 << 30)                     /* of one side, as the trainer's own default */

dr_status srv_training_parent(const srv_app *app, const char *parent, const db_job *job, char ret[SRV_PATH],
                              bool *ret_lone, dr_error *err) {
    db_model m = {0};
    *ret = 0;
    *ret_lone = false;
    if (!strcmp(parent, "none")) return DR_OK;
    dr_status s = db_model_get(app->db, job->model.name, job->model.version, &m, err);
    if (s) return s;
    *ret_lone = !srv_registry_path(app->registry, &m, SRV_MODEL_TRAIN, ret, SRV_PATH);
    if (*ret_lone && !srv_registry_path(app->registry, &m, SRV_MODEL_WEIGHTS, ret, SRV_PATH))
        s = dr_fail_as(err, DR_CONFLICT, "version_unusable", "the weights of %s version %lld are missing or damaged",
                       m.name, (long long)m.version);
    db_model_clear(&m);
    return s;
}

static uint64_t at_most(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

/* One picture at a time is the least that a step takes. */
static dr_status check_device(const dr_train_size *z, dr_error *err) {
    dr_device_state d;
    if (!srv_devices_read(&d) || z->device_least <= d.memory_all) return DR_OK;
    return dr_fail_limit(err, "training_too_large", "", (int64_t)d.memory_all, (int64_t)z->device_least,
                         "the training needs about %lld MB of the GPU's memory, which has %lld MB: try a smaller crop "
                         "or ngf",
                         (long long)(z->device_least >> 20), (long long)(d.memory_all >> 20));
}

dr_status srv_training_size(const srv_app *app, const char *dataset, dr_train_opts *o, uint64_t *ret, dr_error *err) {
    dr_train_size z;
    db_set_pixels px = {0};
    dr_status s = dr_train_plan(o, &z, err);
    if (!s) s = db_dataset_pixels(app->db, dataset, &px, err);
    if (s) return s;
    uint64_t room = srv_memory_for_training(app);
    bool gpu = strcmp(srv_registry_backend(app->registry), "cpu") != 0;
    uint64_t need = gpu ? z.host + z.file : z.total;
    if (gpu && (s = check_device(&z, err))) return s;
    need += srv_memory_of_picture(app, px.pair_max > MEASURED ? (uint64_t)px.pair_max : MEASURED);
    if (need > room)
        return dr_fail_limit(
            err, "training_too_large", "mem_budget", (int64_t)room, (int64_t)need,
            "the training needs about %lld MB, and beside the smallest pictures mem_budget has room for "
            "%lld MB: try a smaller crop, batch or micro_batch",
            (long long)(need >> 20), (long long)(room >> 20));
    uint64_t side = at_most((room - need) / 4, KEEP_MAX);
    if (side < 1) side = 1; /* 0 would be the trainer's default */
    o->pictures_max = side;
    *ret = need + at_most(3 * (uint64_t)px.rainy, side) + at_most(3 * (uint64_t)px.clean, side);
    return DR_OK;
}
