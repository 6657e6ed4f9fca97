/* registry.c - see registry.h: what is resident, what is served, and how that changes; new versions are made by
 * registry_versions.c, engines opened by registry_engines.c. One leaf lock guards the pointer to what is served, the
 * counts of its users and the list of tasks; engines are opened, run and freed without it. */
#include "core/base/alloc.h"
#include "core/base/fs.h"
#include "core/base/log.h"
#include "server/model_files.h"
#include "server/registry_engines.h"
#include "server/registry_in.h"
#include <jansson.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct served { /* a resident version */
    srv_model_id id;
    int users; /* borrowers, and one for being the served one */
    int n;
    srv_pair pairs[];
} served;

typedef struct other { /* an engine's place for the last version that it was asked for besides the served one */
    srv_model_id id;
    srv_pair p;
} other;

typedef struct change_task {
    srv_registry_task t;
    char name[64];
    int64_t version, revision;
    bool force;
} change_task;

struct srv_registry {
    srv_registry_opts o;
    char root[SRV_PATH], backend[16], device[160];
    int workers, engines;
    other *others; /* one an engine */
    pthread_t thread;
    bool started;
    pthread_mutex_t mu; /* guards what follows */
    pthread_cond_t cond;
    served *now;
    srv_registry_task *head, **tail;
    bool stop;
    srv_registry_stats stats;
};

/* --- resident versions --- */

dr_status srv_registry_try(const srv_registry *r, const char *path, const char *sha256, dr_error *err) {
    srv_pair p = {0};
    dr_status s = srv_pair_load(&r->o, path, sha256, &p, err);
    srv_pair_close(&p);
    return s;
}

static void served_free(served *v) {
    for (int i = 0; v && i < v->n; i++) srv_pair_close(&v->pairs[i]);
    dr_free(v);
}

/* first: an open engine that becomes the version's, or NULL. */
static dr_status served_load(const srv_registry *r, const srv_model_id *id, const char *path, dr_engine *first,
                             served **ret, dr_error *err) {
    served *v = dr_calloc(1, sizeof *v + (size_t)r->engines * sizeof v->pairs[0]);
    if (!v) {
        srv_engine_close(first);
        return dr_fail(err, DR_NOMEM, "no memory for a model");
    }
    dr_status s = DR_OK;
    v->id = *id;
    v->users = 1;
    v->pairs[0].engine = first;
    for (; v->n < r->engines && !s; v->n++) s = srv_pair_load(&r->o, path, id->sha256, &v->pairs[v->n], err);
    if (s) {
        served_free(v);
        return s;
    }
    *ret = v;
    return DR_OK;
}

/* Frees it when nobody is left. */
static void leave(srv_registry *r, served *v) {
    if (!v) return;
    pthread_mutex_lock(&r->mu);
    bool last = --v->users == 0;
    pthread_mutex_unlock(&r->mu);
    if (last) served_free(v);
}

static void turn(srv_registry *r, served *v) {
    pthread_mutex_lock(&r->mu);
    served *old = r->now;
    r->now = v;
    r->stats.swaps++;
    pthread_mutex_unlock(&r->mu);
    leave(r, old);
}

/* --- rows and files --- */

/* X.safetensors -> X-train.safetensors: where the nets of configured weights lie, if anywhere. */
static void beside(const char *model, char ret[SRV_PATH]) {
    const char *dot = strrchr(model, '.');
    int n = dot ? (int)(dot - model) : (int)strlen(model);
    if (snprintf(ret, SRV_PATH, "%.*s-train.safetensors", n, model) >= SRV_PATH) *ret = 0;
}

bool srv_registry_path(srv_registry *r, const db_model *m, const char *file, char *ret, size_t cap) {
    char path[SRV_PATH];
    const char *from = path;
    if (m->origin != DB_CONFIGURED)
        srv_mfiles_path(r->root, m->name, m->version, file, path);
    else if (!strcmp(file, SRV_MODEL_WEIGHTS))
        from = m->path ? m->path : "";
    else if (!strcmp(file, SRV_MODEL_TRAIN))
        beside(m->path ? m->path : "", path);
    else
        from = !strcmp(file, SRV_MODEL_CARD) && m->card ? m->card : "";
    return *from && (size_t)snprintf(ret, cap, "%s", from) < cap && dr_fs_exists(ret);
}

dr_status srv_registry_weights(srv_registry *r, const char *name, int64_t version, char *ret, size_t cap,
                               dr_error *err) {
    db_model m = {0};
    dr_status s = db_model_get(r->o.db, name, version, &m, err);
    if (!s && !srv_registry_path(r, &m, SRV_MODEL_WEIGHTS, ret, cap))
        s = dr_fail_as(err, DR_CONFLICT, "version_unusable", "the weights of %s version %lld are missing", name,
                       (long long)version);
    db_model_clear(&m);
    return s;
}

static srv_model_id id_of(const db_model *m) {
    srv_model_id id = {.version = m->version};
    memcpy(id.name, m->name, sizeof id.name);
    memcpy(id.sha256, m->sha256, sizeof id.sha256);
    return id;
}

/* The weights of a row as a problem of that row, not of the file. */
static dr_status unusable(const db_model *m, dr_error *err) {
    dr_log(DR_LOG_ERROR, NULL, "%s version %lld: %s", m->name, (long long)m->version, err ? err->text : "");
    if (err) *err = (dr_error){0};
    return dr_fail_as(err, DR_CONFLICT, "version_unusable", "the weights of %s version %lld are missing or damaged",
                      m->name, (long long)m->version);
}

static dr_status weights_of(srv_registry *r, const db_model *m, char path[SRV_PATH], dr_error *err) {
    if (srv_registry_path(r, m, SRV_MODEL_WEIGHTS, path, SRV_PATH)) return DR_OK;
    return dr_fail(err, DR_NOT_FOUND, "there is no file of weights");
}

bool srv_registry_describe(const dr_model_info *i, char **ret_arch, char **ret_about) {
    json_t *meta = json_loads(i->metadata_json ? i->metadata_json : "{}", 0, NULL);
    if (!json_is_object(meta)) {
        json_decref(meta);
        meta = json_object();
    }
    json_t *arch =
        json_pack("{s:s, s:i, s:i, s:i}", "kind", i->arch, "ngf", i->ngf, "blocks", i->blocks, "residual", i->residual);
    json_t *about = json_pack("{s:s, s:I, s:o}", "dtype", i->dtype, "params", (json_int_t)i->params, "metadata", meta);
    *ret_arch = arch ? json_dumps(arch, JSON_COMPACT) : NULL;
    *ret_about = about ? json_dumps(about, JSON_COMPACT) : NULL;
    json_decref(arch);
    json_decref(about);
    return *ret_arch && *ret_about;
}

static void row_from(const dr_model_info *i, db_model *m) {
    memcpy(m->sha256, i->sha256, sizeof m->sha256);
    m->bytes = (int64_t)i->bytes;
}

/* --- the default --- */

static dr_status may_serve(const db_model *m, bool force, dr_error *err) {
    if (m->verdict != DB_REJECTED || force) return DR_OK;
    return dr_fail_as(err, DR_CONFLICT, "version_rejected", "the gate has rejected %s version %lld", m->name,
                      (long long)m->version);
}

static bool is_served(srv_registry *r, const char *name, int64_t version) {
    srv_model_id now;
    srv_registry_served(r, &now);
    return !strcmp(now.name, name) && (!version || now.version == version);
}

static void count_load(srv_registry *r, bool good) {
    pthread_mutex_lock(&r->mu);
    r->stats.loads++;
    r->stats.loads_failed += !good;
    pthread_mutex_unlock(&r->mu);
}

static dr_status check_revision(srv_registry *r, const change_task *t, dr_error *err) {
    int64_t now;
    dr_status s = db_model_revision(r->o.db, t->name, &now, err);
    if (s || !t->revision || now == t->revision) return s;
    return dr_fail_as(err, DR_CONFLICT, "revision_changed", "model %s was changed meanwhile: its revision is %lld",
                      t->name, (long long)now);
}

static dr_status set_default(srv_registry *r, const change_task *t, srv_change *ret, dr_error *err) {
    char path[SRV_PATH];
    db_model m = {0};
    served *fresh = NULL;
    int64_t version = t->version;
    dr_status s = check_revision(r, t, err);
    if (!s && !version) s = db_model_previous(r->o.db, t->name, &version, err);
    if (!s) s = db_model_get(r->o.db, t->name, version, &m, err);
    if (!s) s = may_serve(&m, t->force, err);
    if (!s && is_served(r, t->name, 0) && !is_served(r, t->name, version)) {
        srv_model_id id = id_of(&m);
        s = weights_of(r, &m, path, err);
        if (!s) s = served_load(r, &id, path, NULL, &fresh, err);
        count_load(r, !s);
        if (s && s != DR_NOMEM) s = unusable(&m, err);
    }
    if (!s) s = db_model_set_default(r->o.db, t->name, version, t->revision, !t->version, &ret->revision, err);
    if (!s && fresh) {
        turn(r, fresh);
        fresh = NULL;
        dr_log(DR_LOG_INFO, NULL, "serving %s version %lld", t->name, (long long)version);
    }
    ret->version = version;
    served_free(fresh);
    db_model_clear(&m);
    return s;
}

static dr_status run_change(srv_registry *r, srv_registry_task *t, srv_change *ret, dr_error *err) {
    return set_default(r, (const change_task *)t, ret, err);
}
static void drop_change(srv_registry_task *t) {
    dr_free(t);
}

/* --- the thread --- */

static void work(srv_registry *r, srv_registry_task *t) {
    dr_error err = {0};
    srv_change c = {0};
    const srv_registry_done done = t->done;
    void *arg = t->arg;
    dr_status s = t->run(r, t, &c, &err);
    t->drop(t); /* what was staged is gone when the answer is out */
    done(arg, s, &c, &err);
}

static void *run(void *arg) {
    srv_registry *r = arg;
    for (;;) {
        pthread_mutex_lock(&r->mu);
        while (!r->head && !r->stop) pthread_cond_wait(&r->cond, &r->mu);
        srv_registry_task *t = r->head;
        if (t && !(r->head = t->next)) r->tail = &r->head;
        pthread_mutex_unlock(&r->mu);
        if (!t) return NULL;
        work(r, t);
    }
}

void srv_registry_submit(srv_registry *r, srv_registry_task *t) {
    t->next = NULL;
    pthread_mutex_lock(&r->mu);
    *r->tail = t;
    r->tail = &t->next;
    pthread_cond_signal(&r->cond);
    pthread_mutex_unlock(&r->mu);
}

void srv_registry_no_memory(srv_registry_done done, void *arg) {
    dr_error err = {0};
    dr_status s = dr_fail(&err, DR_NOMEM, "out of memory");
    done(arg, s, &(srv_change){0}, &err);
}

void srv_registry_set_default_async(srv_registry *r, const char *name, int64_t version, int64_t revision, bool force,
                                    srv_registry_done done, void *arg) {
    change_task *c = dr_calloc(1, sizeof *c);
    if (!c) {
        srv_registry_no_memory(done, arg);
        return;
    }
    *c = (change_task){.t = {.run = run_change, .drop = drop_change, .done = done, .arg = arg},
                       .version = version,
                       .revision = revision,
                       .force = force};
    snprintf(c->name, sizeof c->name, "%s", name);
    srv_registry_submit(r, &c->t);
}

typedef struct waiter {
    sem_t sem;
    dr_status status;
    srv_change change;
    dr_error err;
} waiter;

static void on_done(void *arg, dr_status s, const srv_change *c, const dr_error *err) {
    waiter *w = arg;
    w->status = s;
    w->change = *c;
    w->err = *err;
    sem_post(&w->sem);
}

dr_status srv_registry_set_default(srv_registry *r, const char *name, int64_t version, int64_t revision, bool force,
                                   int64_t *ret_version, int64_t *ret_revision, dr_error *err) {
    waiter w = {0};
    sem_init(&w.sem, 0, 0);
    srv_registry_set_default_async(r, name, version, revision, force, on_done, &w);
    while (sem_wait(&w.sem)) {
    }
    sem_destroy(&w.sem);
    if (w.status) {
        if (err) *err = w.err;
        return w.status;
    }
    if (ret_version) *ret_version = w.change.version;
    if (ret_revision) *ret_revision = w.change.revision;
    return DR_OK;
}

/* --- borrowing --- */

static dr_status borrow_other(srv_registry *r, other *o, const char *name, int64_t version, srv_borrow *ret,
                              dr_error *err) {
    char path[SRV_PATH];
    db_model m = {0};
    dr_status s = db_model_get(r->o.db, name, version, &m, err);
    if (s) return s;
    if (!o->p.model || strcmp(o->id.name, name) || o->id.version != m.version || strcmp(o->id.sha256, m.sha256)) {
        dr_model_close(o->p.model);
        o->p.model = NULL;
        o->id = id_of(&m);
        s = weights_of(r, &m, path, err);
        if (!s) s = srv_pair_load(&r->o, path, m.sha256, &o->p, err);
        count_load(r, !s);
        if (s) srv_pair_close(&o->p);
        if (s && s != DR_NOMEM) s = unusable(&m, err);
    }
    db_model_clear(&m);
    if (s) return s;
    *ret = (srv_borrow){.model = o->p.model, .id = o->id};
    return DR_OK;
}

dr_status srv_registry_borrow(srv_registry *r, int engine, const char *name, int64_t version, srv_borrow *ret,
                              dr_error *err) {
    pthread_mutex_lock(&r->mu);
    served *v = r->now;
    bool it = !strcmp(v->id.name, name) && (!version || version == v->id.version);
    if (it) v->users++;
    pthread_mutex_unlock(&r->mu);
    if (!it) return borrow_other(r, &r->others[engine], name, version, ret, err);
    *ret = (srv_borrow){.model = v->pairs[engine].model, .id = v->id, .held = v};
    return DR_OK;
}

void srv_registry_give_back(srv_registry *r, srv_borrow *b) {
    leave(r, b->held);
    *b = (srv_borrow){0};
}

/* --- looking --- */

void srv_registry_served(srv_registry *r, srv_model_id *ret) {
    pthread_mutex_lock(&r->mu);
    *ret = r->now->id;
    pthread_mutex_unlock(&r->mu);
}

bool srv_registry_resident(srv_registry *r, const char *name, int64_t version) {
    return is_served(r, name, version);
}
int srv_registry_workers(const srv_registry *r) {
    return r->workers;
}
int srv_registry_engines(const srv_registry *r) {
    return r->engines;
}
bool srv_registry_on_gpu(const srv_registry *r) {
    return strcmp(r->backend, "cpu") != 0;
}
const char *srv_registry_backend(const srv_registry *r) {
    return r->backend;
}
const char *srv_registry_device(const srv_registry *r) {
    return r->device;
}
const char *srv_registry_root(const srv_registry *r) {
    return r->root;
}
db_store *srv_registry_db(const srv_registry *r) {
    return r->o.db;
}

void srv_registry_stats_get(srv_registry *r, srv_registry_stats *ret) {
    pthread_mutex_lock(&r->mu);
    *ret = r->stats;
    pthread_mutex_unlock(&r->mu);
}

/* --- open and close --- */

static bool known(void *arg, const char *name, int64_t version) {
    db_model m = {0};
    dr_status s = db_model_get(arg, name, version, &m, NULL);
    bool ours = s != DR_NOT_FOUND && (s || m.origin != DB_CONFIGURED); /* when in doubt, keep */
    db_model_clear(&m);
    return ours;
}

/* The number of the configured weights: the file's own, unless that belongs to a version made here. */
static dr_status configured_number(srv_registry *r, const dr_model_info *i, int64_t *ret, bool *ret_again,
                                   dr_error *err) {
    db_model *list;
    size_t n;
    dr_status s = db_model_list(r->o.db, i->name, 0, &list, &n, err);
    if (s) return s;
    bool taken = false;
    int64_t number = i->version, known_as = 0;
    *ret_again = false;
    for (size_t k = 0; k < n; k++) {
        bool same = !strcmp(list[k].sha256, i->sha256) && list[k].origin == DB_CONFIGURED;
        if (list[k].version == number && list[k].origin != DB_CONFIGURED) taken = true;
        if (same) known_as = list[k].version;
        if (same && list[k].configured) *ret_again = true;
    }
    *ret = known_as ? known_as : taken ? list[0].version + 1 : number;
    db_model_list_clear(list, n);
    return DR_OK;
}

static dr_status register_configured(srv_registry *r, const dr_model_info *i, srv_model_id *ret, dr_error *err) {
    db_model row = {0}, top = {0};
    bool again = false;
    snprintf(row.name, sizeof row.name, "%s", i->name);
    row_from(i, &row);
    dr_status s = configured_number(r, i, &row.version, &again, err);
    if (s) return s;
    bool has_default = !db_model_get(r->o.db, row.name, 0, &top, NULL);
    db_model_clear(&top);
    row.is_default = !again || !has_default;
    row.card = (char *)(uintptr_t)r->o.card;
    row.path = realpath(r->o.model, NULL); /* the daemon may start elsewhere next time */
    if (!row.path) s = dr_fail(err, DR_IO, "cannot find '%s' any more", r->o.model);
    if (!s && !srv_registry_describe(i, &row.arch_json, &row.about_json)) s = dr_fail(err, DR_NOMEM, "out of memory");
    if (!s) s = db_model_put(r->o.db, &row, true, err);
    *ret = id_of(&row);
    free(row.arch_json);
    free(row.about_json);
    free(row.path);
    return s;
}

/* The configured weights are loaded and serve; put the remembered default in their place, if it is another one. */
static dr_status serve_default(srv_registry *r, const char *name, dr_error *err) {
    char path[SRV_PATH];
    db_model m = {0};
    served *v = NULL;
    dr_error why = {0};
    dr_status s = db_model_get(r->o.db, name, 0, &m, err);
    if (s) return s;
    if (!is_served(r, m.name, m.version)) {
        srv_model_id id = id_of(&m);
        dr_status l = weights_of(r, &m, path, &why);
        if (!l) l = served_load(r, &id, path, NULL, &v, &why);
        count_load(r, !l);
        if (l)
            dr_log(DR_LOG_ERROR, NULL,
                   "%s version %lld is the default but cannot be loaded (%s): the configured weights serve", m.name,
                   (long long)m.version, why.text);
        else
            turn(r, v);
    }
    db_model_clear(&m);
    return DR_OK;
}

static dr_status open_configured(srv_registry *r, dr_error *err) {
    srv_model_id id = {0};
    dr_engine *e = NULL;
    dr_status s = srv_engine_open(&r->o, &e, err);
    if (s) return s;
    snprintf(r->backend, sizeof r->backend, "%s", dr_engine_backend(e));
    const char *note = dr_engine_note(e);
    if (note && *note) dr_log(DR_LOG_INFO, NULL, "%s", note);
    srv_engines_count(r->backend, r->o.workers, &r->workers, &r->engines);
    if (!(r->others = dr_calloc((size_t)r->engines, sizeof *r->others))) {
        srv_engine_close(e);
        return dr_fail(err, DR_NOMEM, "out of memory");
    }
    s = served_load(r, &id, r->o.model, e, &r->now, err);
    if (s) return s;
    snprintf(r->device, sizeof r->device, "%s", dr_model_device(r->now->pairs[0].model));
    s = register_configured(r, dr_model_get_info(r->now->pairs[0].model), &r->now->id, err);
    return s ? s : serve_default(r, r->now->id.name, err);
}

dr_status srv_registry_open(const srv_registry_opts *opts, srv_registry **ret, dr_error *err) {
    srv_registry *r = dr_calloc(1, sizeof *r);
    if (!r) return dr_fail(err, DR_NOMEM, "out of memory");
    r->o = *opts;
    r->tail = &r->head;
    pthread_mutex_init(&r->mu, NULL);
    pthread_cond_init(&r->cond, NULL);
    dr_status s = snprintf(r->root, sizeof r->root, "%s/models", opts->data) < (int)sizeof r->root
                      ? DR_OK
                      : dr_fail(err, DR_INVALID, "the data folder's path is too long");
    if (!s) s = srv_mfiles_open(r->root, err);
    if (!s) srv_mfiles_sweep(r->root, known, opts->db);
    if (!s) s = open_configured(r, err);
    if (!s && pthread_create(&r->thread, NULL, run, r)) s = dr_fail(err, DR_NOMEM, "cannot start a thread");
    if (s) {
        srv_registry_close(r);
        return s;
    }
    r->started = true;
    *ret = r;
    return DR_OK;
}

void srv_registry_close(srv_registry *r) {
    if (!r) return;
    pthread_mutex_lock(&r->mu);
    r->stop = true;
    pthread_cond_signal(&r->cond);
    pthread_mutex_unlock(&r->mu);
    if (r->started) pthread_join(r->thread, NULL);
    leave(r, r->now);
    for (int i = 0; r->others && i < r->engines; i++) srv_pair_close(&r->others[i].p);
    pthread_cond_destroy(&r->cond);
    pthread_mutex_destroy(&r->mu);
    dr_free(r->others);
    dr_free(r);
}
