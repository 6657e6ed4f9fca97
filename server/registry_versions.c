/* registry_versions.c - how a version comes to be: from a training's files, from a file that somebody sent, or from a
 * checkpoint of a training. All end the same way: a staged folder that was checked whole gets a number by one rename,
 * and then its row; what fails before that leaves neither. Imports and checkpoints are read, checked and tried on the
 * registry's thread. */
#include "core/base/alloc.h"
#include "core/base/fs.h"
#include "core/base/log.h"
#include "core/trainer.h"
#include "server/model_files.h"
#include "server/registry_in.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { VERSIONS_MAX = 500 };

/* *ret_version stays where the job made none. */
static dr_status of_job(db_store *db, const srv_version_new *in, int64_t *ret_version, dr_error *err) {
    dr_error none = {0};
    if (!in->job || !*in->job) return DR_OK;
    dr_status s = db_model_of_job(db, in->name, in->job, in->step, ret_version, &none);
    if (s == DR_NOT_FOUND) return DR_OK;
    if (s && err) *err = none;
    return s;
}

/* A version that was made by this job (at its end, or from the checkpoint of a step), or imported with these bytes. */
static dr_status find_same(db_store *db, const srv_version_new *in, const char *sha, int64_t *ret_version,
                           int64_t *ret_next, dr_error *err) {
    db_model *list;
    size_t n;
    dr_status s = db_model_list(db, in->name, 0, &list, &n, err);
    if (s) return s;
    *ret_version = 0;
    *ret_next = n ? list[0].version + 1 : 1;
    for (size_t i = 0; i < n && in->origin == DB_IMPORTED; i++)
        if (!strcmp(list[i].sha256, sha)) *ret_version = list[i].version;
    db_model_list_clear(list, n);
    return of_job(db, in, ret_version, err);
}

static dr_status write_card(const char *dir, const char *text, dr_error *err) {
    char *path = text ? dr_fs_join(dir, SRV_MODEL_CARD) : NULL;
    if (!text) return DR_OK;
    if (!path) return dr_fail(err, DR_NOMEM, "out of memory");
    dr_status s = dr_fs_write_atomic(path, text, strlen(text), err);
    dr_free(path);
    return s;
}

static dr_status fill_stage(const srv_version_new *in, const char *dir, dr_error *err) {
    dr_status s = srv_mfiles_adopt(dir, SRV_MODEL_WEIGHTS, in->weights, err);
    if (!s && in->train) s = srv_mfiles_adopt(dir, SRV_MODEL_TRAIN, in->train, err);
    return s ? s : write_card(dir, in->card, err);
}

/* Files first, then the row. A number that a crashed life left a folder under is passed over. */
static dr_status give_number(srv_registry *r, const char *dir, db_model *row, dr_error *err) {
    dr_status s = DR_CONFLICT;
    for (int i = 0; i < VERSIONS_MAX && s == DR_CONFLICT; i++, row->version++) {
        if (err) *err = (dr_error){0};
        s = srv_mfiles_publish(srv_registry_root(r), dir, row->name, row->version, err);
        if (!s) break;
    }
    if (s) return s;
    s = db_model_add(srv_registry_db(r), row, err);
    if (s) srv_mfiles_erase(srv_registry_root(r), row->name, row->version);
    return s;
}

/* The staged folder `dir` holds a generator that was checked. */
static dr_status register_stage(srv_registry *r, const srv_version_new *in, const dr_model_info *info, const char *dir,
                                int64_t *ret_version, bool *ret_made, dr_error *err) {
    db_model row = {.origin = in->origin, .verdict = in->verdict, .parent = in->parent}, top = {0};
    int64_t same = 0;
    dr_status s = find_same(srv_registry_db(r), in, info->sha256, &same, &row.version, err);
    *ret_made = !s && !same;
    if (s || same) {
        *ret_version = same;
        return s;
    }
    snprintf(row.name, sizeof row.name, "%s", in->name);
    snprintf(row.dataset, sizeof row.dataset, "%s", in->dataset ? in->dataset : "");
    snprintf(row.job, sizeof row.job, "%s", in->job ? in->job : "");
    memcpy(row.sha256, info->sha256, sizeof row.sha256);
    row.bytes = (int64_t)info->bytes;
    row.step = in->step;
    row.measures_json = (char *)(uintptr_t)in->measures_json;
    row.gate_json = (char *)(uintptr_t)in->gate_json;
    if (!srv_registry_describe(info, &row.arch_json, &row.about_json)) s = dr_fail(err, DR_NOMEM, "out of memory");
    if (!s) s = give_number(r, dir, &row, err);
    free(row.arch_json); /* jansson's */
    free(row.about_json);
    if (s) return s;
    *ret_version = row.version;
    /* the first version of a new name is what the name stands for */
    if (db_model_get(srv_registry_db(r), in->name, 0, &top, NULL) == DR_NOT_FOUND)
        s = db_model_set_default(srv_registry_db(r), in->name, row.version, 0, false, NULL, err);
    db_model_clear(&top);
    return s;
}

dr_status srv_registry_add(srv_registry *r, const srv_version_new *in, int64_t *ret_version, bool *ret_made,
                           dr_error *err) {
    char dir[SRV_PATH];
    dr_model_info info = {0};
    if (!srv_model_name_ok(in->name))
        return dr_fail(err, DR_INVALID, "'%.80s' cannot be the name of a model", in->name);
    dr_status s = dr_model_describe(in->weights, &info, err);
    if (s) return s;
    s = srv_mfiles_stage(srv_registry_root(r), dir, err);
    if (!s) {
        s = fill_stage(in, dir, err);
        if (!s) s = register_stage(r, in, &info, dir, ret_version, ret_made, err);
        srv_mfiles_discard(dir); /* gone already where it was published */
    }
    dr_model_info_done(&info);
    return s;
}

static dr_status join(char ret[SRV_PATH], const char *dir, const char *file, dr_error *err) {
    return snprintf(ret, SRV_PATH, "%s/%s", dir, file) < SRV_PATH
               ? DR_OK
               : dr_fail(err, DR_INVALID, "the data folder's path is too long");
}

/* The staged folder's weights, checked whole and run once, get a number. */
static dr_status check_and_register(srv_registry *r, const srv_version_new *in, const char *dir, const char *weights,
                                    srv_change *ret, dr_error *err) {
    dr_model_info info = {0};
    dr_status s = dr_model_describe(weights, &info, err);
    if (!s && srv_registry_try(r, weights, info.sha256, NULL)) /* does it run? */
        s = dr_fail_as(err, DR_CORRUPT, "bad_model", "the network does not run, or answers with values that are none");
    if (!s) s = register_stage(r, in, &info, dir, &ret->version, &ret->made, err);
    if (!s) s = db_model_revision(srv_registry_db(r), in->name, &ret->revision, err);
    dr_model_info_done(&info);
    return s;
}

/* --- import --- */

typedef struct import_task {
    srv_registry_task t;
    char name[64], dir[SRV_PATH], file[64];
} import_task;

static dr_status run_import(srv_registry *r, srv_registry_task *task, srv_change *ret, dr_error *err) {
    const import_task *t = (const import_task *)task;
    char sent[SRV_PATH], weights[SRV_PATH], train[SRV_PATH] = "";
    bool training = false;
    const srv_version_new in = {.name = t->name, .origin = DB_IMPORTED};
    dr_status s = join(sent, t->dir, t->file, err);
    if (!s) s = join(weights, t->dir, SRV_MODEL_WEIGHTS, err);
    if (!s) s = join(train, t->dir, SRV_MODEL_TRAIN, err);
    if (!s) s = dr_model_import_file(sent, weights, &training, err);
    if (!s && training && rename(sent, train)) s = dr_fail(err, DR_IO, "cannot keep the file of the training");
    if (!s && !training) (void)unlink(sent);
    return s ? s : check_and_register(r, &in, t->dir, weights, ret, err);
}

static void drop_import(srv_registry_task *task) {
    srv_mfiles_discard(((import_task *)task)->dir); /* gone already where it was published */
    dr_free(task);
}

void srv_registry_import_async(srv_registry *r, const char *name, const char *dir, const char *file,
                               srv_registry_done done, void *arg) {
    import_task *t = dr_calloc(1, sizeof *t);
    if (!t) {
        srv_mfiles_discard(dir);
        srv_registry_no_memory(done, arg);
        return;
    }
    t->t = (srv_registry_task){.run = run_import, .drop = drop_import, .done = done, .arg = arg};
    snprintf(t->name, sizeof t->name, "%s", name);
    snprintf(t->dir, sizeof t->dir, "%s", dir);
    snprintf(t->file, sizeof t->file, "%s", file);
    srv_registry_submit(r, &t->t);
}

/* --- publishing a checkpoint --- */

typedef struct publish_task {
    srv_registry_task t;
    char name[64], dataset[DB_ID], job[DB_ID], checkpoint[SRV_PATH], dir[SRV_PATH];
    int64_t parent, step;
    char *measures, *card; /* owned */
} publish_task;

/* What cannot be read out of a checkpoint is the checkpoint's problem, not the request's. */
static dr_status export_checkpoint(const publish_task *t, const char *weights, const char *train, dr_error *err) {
    dr_error why = {0};
    dr_status s = dr_checkpoint_export(t->checkpoint, weights, train, &why);
    if (s == DR_NOT_FOUND) /* the trainer drops old ones, and whole jobs are erased */
        return dr_fail_as(err, s, "checkpoint_not_found", "the checkpoint of step %lld is no longer there",
                          (long long)t->step);
    if (s == DR_CORRUPT || s == DR_UNSUPPORTED || s == DR_INVALID) {
        dr_log(DR_LOG_ERROR, NULL, "job %s, checkpoint of step %lld: %s", t->job, (long long)t->step, why.text);
        return dr_fail_as(err, DR_CONFLICT, "checkpoint_unusable", "the checkpoint of step %lld is damaged",
                          (long long)t->step);
    }
    if (s && err) *err = why;
    return s;
}

static dr_status run_publish(srv_registry *r, srv_registry_task *task, srv_change *ret, dr_error *err) {
    publish_task *t = (publish_task *)task;
    char weights[SRV_PATH], train[SRV_PATH];
    const srv_version_new in = {.name = t->name,
                                .origin = DB_TRAINED,
                                .parent = t->parent,
                                .dataset = t->dataset,
                                .job = t->job,
                                .step = t->step,
                                .measures_json = t->measures};
    dr_status s = of_job(srv_registry_db(r), &in, &ret->version, err); /* no need to read it again */
    if (s || ret->version) return s ? s : db_model_revision(srv_registry_db(r), t->name, &ret->revision, err);
    if ((s = srv_mfiles_stage(srv_registry_root(r), t->dir, err))) {
        *t->dir = 0;
        return s;
    }
    s = join(weights, t->dir, SRV_MODEL_WEIGHTS, err);
    if (!s) s = join(train, t->dir, SRV_MODEL_TRAIN, err);
    if (!s) s = export_checkpoint(t, weights, train, err);
    if (!s) s = write_card(t->dir, t->card, err);
    return s ? s : check_and_register(r, &in, t->dir, weights, ret, err);
}

static void drop_publish(srv_registry_task *task) {
    publish_task *t = (publish_task *)task;
    if (*t->dir) srv_mfiles_discard(t->dir);
    dr_free(t->measures);
    dr_free(t->card);
    dr_free(t);
}

void srv_registry_publish_async(srv_registry *r, const srv_version_new *in, const char *checkpoint,
                                srv_registry_done done, void *arg) {
    publish_task *t = dr_calloc(1, sizeof *t);
    if (t) {
        t->measures = dr_strdup(in->measures_json ? in->measures_json : "{}");
        t->card = in->card ? dr_strdup(in->card) : NULL;
    }
    if (!t || !t->measures || (in->card && !t->card)) {
        if (t) drop_publish(&t->t);
        srv_registry_no_memory(done, arg);
        return;
    }
    t->t = (srv_registry_task){.run = run_publish, .drop = drop_publish, .done = done, .arg = arg};
    snprintf(t->name, sizeof t->name, "%s", in->name);
    snprintf(t->dataset, sizeof t->dataset, "%s", in->dataset ? in->dataset : "");
    snprintf(t->job, sizeof t->job, "%s", in->job);
    snprintf(t->checkpoint, sizeof t->checkpoint, "%s", checkpoint);
    t->parent = in->parent;
    t->step = in->step;
    srv_registry_submit(r, &t->t);
}
