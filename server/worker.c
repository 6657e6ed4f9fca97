/* worker.c - see worker.h.
 *
 * A worker's loop: claim -> file -> borrowed model -> result file (synced) -> row. On the CPU the picture goes through
 * the worker's own engine in one call. On a GPU the worker decodes, offers the picture to the batcher, which may run it
 * on another worker's thread together with others, and encodes: so all cores work beside the device. The row changes
 * last, so that after a crash either the job is done with its result on disk or it is queued again; a claim's epoch
 * keeps a late write from a job that was taken over meanwhile. In an orderly stop workers go on while any client waits
 * for a picture, so that nobody who has been let in is turned away without need; the rest stays queued for the next
 * life. */
#include "server/worker.h"
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/hash.h"
#include "core/base/log.h"
#include "server/finish.h"
#include "server/problem.h"
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define LEASE_MS 120000 /* the janitor reports progress every second, which renews it */
#define IDLE_MS  5000   /* a look at the store even if nobody rang */

typedef struct worker {
    srv_workers *all;
    pthread_t thread;
    int index;
} worker;

struct srv_workers {
    srv_app *app;
    int n;
    worker *w;
    pthread_mutex_t mu; /* guards what follows */
    pthread_cond_t cond;
    bool go, stop;
};

/* --- one job --- */

typedef struct wish { /* params_json of the row */
    dr_format format;
    int depth;
    bool strip, pinned; /* pinned: the version in the row was asked for */
} wish;

static wish read_wish(const char *params_json) {
    json_t *o = json_loads(params_json, 0, NULL);
    const char *format = json_string_value(json_object_get(o, "format"));
    const char *metadata = json_string_value(json_object_get(o, "metadata"));
    wish w = {.format = format && !strcmp(format, "jpeg") ? DR_FORMAT_JPEG : DR_FORMAT_PNG,
              .depth = (int)json_integer_value(json_object_get(o, "depth")),
              .strip = metadata && !strcmp(metadata, "strip"),
              .pinned = json_is_true(json_object_get(o, "pinned"))};
    json_decref(o);
    return w;
}

typedef struct batched { /* a decoded picture and what it ran with */
    dr_picture *p;
    srv_model_id model;
} batched;

typedef struct outcome {
    dr_status status;
    dr_error err;
    dr_run_stats stats;
    size_t bytes;
    char sha[DR_SHA256_HEX];
    wish wish;
    srv_model_id model; /* what it ran with; version 0 = it did not come to that */
} outcome;

static void note_device(srv_app *app, const db_job *job, const dr_run_stats *stats) {
    if (stats->on_cpu) srv_count(&app->tele, SRV_CPU_TAKEOVERS, 1);
    if (stats->reran) srv_count(&app->tele, SRV_RANGE_RERUNS, 1);
    if (!*stats->lost || atomic_exchange(&app->tele.device_lost, true)) return;
    dr_log(DR_LOG_ERROR, job->request_id, "the GPU is given up, the CPU goes on: %s", stats->lost);
    if (app->batcher) srv_batcher_one_by_one(app->batcher);
}

/* --- the two ways through the network --- */

/* The CPU's: all of it on this worker's engine. */
static dr_status derain_here(worker *w, const db_job *job, const void *in, size_t len, const dr_run_opts *opts,
                             void **ret, outcome *o) {
    srv_app *app = w->all->app;
    srv_borrow b = {0};
    dr_limits lim = app->limits;
    dr_run_opts with = *opts;
    dr_status s = srv_registry_borrow(app->registry, w->index, job->model.name, o->wish.pinned ? job->model.version : 0,
                                      &b, &o->err);
    if (s) return s;
    o->model = b.id;
    with.limits = &lim;
    lim.mem_budget = srv_memory_begin_run(app, w->index, b.model, (int)job->input.width, (int)job->input.height, 1);
    srv_gate_enter(app->gate);
    s = dr_derain(b.model, in, len, &with, ret, &o->bytes, &o->stats, &o->err);
    srv_gate_leave(app->gate);
    srv_memory_end_run(app, w->index);
    srv_registry_give_back(app->registry, &b);
    return s;
}

/* For the batcher: one version, one ticket, one run. */
static dr_status run_batch(void *arg, int engine, srv_batch_item *const *items, int n, dr_error *err) {
    _Static_assert((int)SRV_BATCH_MOST <= DR_BATCH_MAX, "every batch of the batcher is one of the engine");
    srv_app *app = arg;
    const srv_batch_key *key = &items[0]->key;
    dr_picture *p[SRV_BATCH_MOST];
    srv_borrow b = {0};
    dr_status s = srv_registry_borrow(app->registry, engine, key->name, key->version, &b, err);
    if (s) return s;
    for (int i = 0; i < n; i++) {
        batched *one = items[i]->picture;
        one->model = b.id;
        p[i] = one->p;
    }
    const uint64_t budget = srv_memory_begin_run(app, engine, b.model, key->w, key->h, n);
    for (int i = 0; i < n; i++) dr_picture_set_budget(p[i], budget);
    srv_gate_enter(app->gate);
    s = dr_model_run_pictures(b.model, p, n, err);
    srv_gate_leave(app->gate);
    srv_memory_end_run(app, engine);
    srv_registry_give_back(app->registry, &b);
    return s;
}

/* The GPU's: decode here, run in a batch, encode here. */
static dr_status derain_in_batch(srv_app *app, const db_job *job, const void *in, size_t len, const dr_run_opts *opts,
                                 void **ret, outcome *o) {
    batched one = {0};
    dr_status s = dr_picture_open(in, len, opts, &one.p, &o->err);
    if (s) return s;
    srv_batch_item item = {
        .key = {.version = o->wish.pinned ? job->model.version : 0}, .picture = &one, .cancel = opts->cancel};
    memcpy(item.key.name, job->model.name, sizeof item.key.name);
    dr_picture_grid(one.p, &item.key.w, &item.key.h);
    srv_batcher_expect(app->batcher, &item);
    s = dr_picture_decode(one.p, &o->err);
    if (s)
        srv_batcher_forget(app->batcher, &item);
    else
        s = srv_batcher_offer(app->batcher, &item, &o->err);
    o->model = one.model;
    if (!s) s = dr_picture_encode(one.p, ret, &o->bytes, &o->stats, &o->err);
    dr_picture_close(one.p);
    return s;
}

static void derain(worker *w, const db_job *job, srv_running *slot, outcome *o) {
    srv_app *app = w->all->app;
    char *in = NULL;
    void *out = NULL;
    size_t in_len = 0;
    o->wish = read_wish(job->params_json);
    o->status = srv_spool_read_input(app->spool, job->id, app->limits.body_max_bytes, &in, &in_len, &o->err);
    if (o->status == DR_NOT_FOUND) {
        o->err = (dr_error){0};
        o->status = dr_fail_as(&o->err, DR_INTERNAL, "input_missing", "the uploaded file is no longer there");
    }
    if (o->status) return;
    dr_run_opts opts = {.format = o->wish.format,
                        .depth = o->wish.depth,
                        .strip_metadata = o->wish.strip,
                        .limits = &app->limits,
                        .cancel = &slot->cancel,
                        .progress = &slot->progress};
    o->status = app->batcher ? derain_in_batch(app, job, in, in_len, &opts, &out, o)
                             : derain_here(w, job, in, in_len, &opts, &out, o);
    dr_free(in);
    if (o->status) return;
    note_device(app, job, &o->stats);
    dr_sha256_hex(out, o->bytes, o->sha);
    o->status = srv_spool_write_result(app->spool, job->id, out, o->bytes, &o->err);
    dr_free(out);
}

/* The problem as the client of a waiting request would see it. */
static char *problem_of(const db_job *job, const outcome *o) {
    srv_problem p;
    srv_problem_from(&p, o->status, &o->err);
    snprintf(p.job, sizeof p.job, "%s", job->id);
    if (p.row->status >= 500)
        dr_log(DR_LOG_ERROR, job->request_id, "job %s failed: %s", job->id,
               *o->err.text ? o->err.text : dr_status_text(o->status));
    return srv_problem_text(&p, job->request_id);
}

static void end_job(srv_app *app, const db_job *job, const outcome *o) {
    db_finish f = {.state = DB_SUCCEEDED,
                   .model_version = o->model.version,
                   .model_sha256 = o->model.sha256,
                   .timings_ms = {-1, o->stats.decode_ms, o->stats.infer_ms, o->stats.encode_ms}};
    db_job done = {0};
    dr_error err = {0};
    char *problem = NULL;
    if (!o->status) {
        f.result_format = dr_format_name(o->wish.format);
        f.result_sha256 = o->sha;
        f.result_bytes = (int64_t)o->bytes;
        f.result_width = o->stats.input.width;
        f.result_height = o->stats.input.height;
        srv_count(&app->tele, SRV_JOBS_SUCCEEDED, 1);
    } else {
        f.state = o->status == DR_CANCELLED ? DB_CANCELLED : DB_FAILED;
        f.timings_ms[DB_T_DECODE] = f.timings_ms[DB_T_INFER] = f.timings_ms[DB_T_ENCODE] = -1;
        f.problem_json = problem = problem_of(job, o);
        srv_count(&app->tele, f.state == DB_CANCELLED ? SRV_JOBS_CANCELLED : SRV_JOBS_FAILED, 1);
    }
    dr_status s = srv_job_finish(app, job, &f, &done, &err);
    if (s)
        dr_log(DR_LOG_ERROR, job->request_id, "job %s: cannot store how it ended: %s", job->id, err.text);
    else if (!o->status) {
        srv_hist_add(&app->tele.queue, done.timings_ms[DB_T_QUEUE] / 1e3);
        srv_hist_add(&app->tele.decode, o->stats.decode_ms / 1e3);
        srv_hist_add(&app->tele.infer, o->stats.infer_ms / 1e3);
        srv_hist_add(&app->tele.encode, o->stats.encode_ms / 1e3);
    }
    db_job_clear(&done);
    dr_free(problem);
}

/* A cancel that came between the claim and our entry in the table of running jobs has only reached the row. */
static bool cancelled_early(srv_app *app, const db_job *job) {
    db_job now = {0};
    bool cancelled = !db_job_get(app->db, job->id, &now, NULL) && now.cancel_requested;
    db_job_clear(&now);
    return cancelled;
}

static void run_job(worker *w, const db_job *job) {
    srv_app *app = w->all->app;
    outcome o = {0};
    int64_t start = dr_clock_ns();
    srv_running *slot = srv_queue_start(app->queue, job->id, job->epoch);
    srv_park_wake_key(app->watch, job->id); /* queued -> running */
    if (cancelled_early(app, job)) atomic_store(&slot->cancel, true);
    derain(w, job, slot, &o);
    bool back = o.status == DR_CANCELLED && atomic_load(&slot->put_back);
    if (back)
        srv_job_put_back(app, job);
    else
        end_job(app, job, &o);
    srv_queue_end(app->queue, slot);
    if (!o.status)
        srv_queue_learn(app->queue, (double)(dr_clock_ns() - start) / 1e9,
                        (double)job->input.width * (double)job->input.height / 1e6);
    if (!back) srv_park_wake_key(app->watch, job->id);
}

/* --- the thread --- */

static bool may_claim(srv_app *app) {
    if (srv_queue_stopping(app->queue)) return false;
    return !atomic_load(&app->draining) || srv_park_waiting(app->watch) > 0;
}

static void loop(worker *w) {
    srv_app *app = w->all->app;
    const db_claim claim = {.type = "derain", .lease_ms = LEASE_MS};
    while (!srv_queue_stopping(app->queue)) {
        db_job job = {0};
        dr_error err = {0};
        uint64_t rings = srv_queue_rings(app->queue); /* before the look, so that no ring is missed */
        dr_status s = may_claim(app) ? db_job_claim(app->db, &claim, &job, &err) : DR_NOT_FOUND;
        if (s) {
            if (s != DR_NOT_FOUND) dr_log(DR_LOG_ERROR, NULL, "cannot claim a job: %s", err.text);
            srv_queue_wait(app->queue, rings, s == DR_NOT_FOUND ? IDLE_MS : 1000);
            continue;
        }
        srv_queue_count_add(app->queue, -1);
        run_job(w, &job);
        db_job_clear(&job);
    }
}

static void *run(void *arg) {
    worker *w = arg;
    srv_workers *all = w->all;
    pthread_mutex_lock(&all->mu);
    while (!all->go && !all->stop) pthread_cond_wait(&all->cond, &all->mu);
    bool go = all->go;
    pthread_mutex_unlock(&all->mu);
    if (go) loop(w);
    return NULL;
}

/* --- start and stop --- */

static dr_status open_batcher(srv_app *app, dr_error *err) {
    if (!srv_registry_on_gpu(app->registry)) return DR_OK;
    const srv_batcher_opts opts = {.engines = app->engines,
                                   .batch = (int)app->cfg->batch,
                                   .window_ms = app->cfg->batch_window_ms,
                                   .run = run_batch,
                                   .arg = app,
                                   .waits = &app->tele.batch_wait,
                                   .batches = &app->tele.counter[SRV_BATCHES],
                                   .pictures = &app->tele.counter[SRV_BATCH_PICTURES]};
    return srv_batcher_open(&opts, &app->batcher, err);
}

dr_status srv_workers_start(srv_app *app, srv_workers **ret, dr_error *err) {
    srv_workers *all = dr_calloc(1, sizeof *all);
    int n = app->workers;
    srv_model_id id;
    srv_borrow b = {0};
    if (!all || !(all->w = dr_calloc((size_t)n, sizeof *all->w))) {
        dr_free(all);
        return dr_fail(err, DR_NOMEM, "out of memory");
    }
    all->app = app;
    pthread_mutex_init(&all->mu, NULL);
    pthread_cond_init(&all->cond, NULL);
    srv_registry_served(app->registry, &id);
    dr_status s = srv_registry_borrow(app->registry, 0, id.name, 0, &b, err); /* nobody runs yet */
    if (!s) srv_memory_measure(app, b.model);
    if (!s) srv_registry_give_back(app->registry, &b);
    if (!s) s = open_batcher(app, err);
    for (; all->n < n && !s; all->n++) {
        all->w[all->n] = (worker){.all = all, .index = all->n};
        if (pthread_create(&all->w[all->n].thread, NULL, run, &all->w[all->n])) {
            s = dr_fail(err, DR_NOMEM, "cannot start a worker thread");
            break;
        }
    }
    if (s) {
        srv_workers_join(all);
        return s;
    }
    *ret = all;
    return DR_OK;
}

void srv_workers_go(srv_workers *all) {
    pthread_mutex_lock(&all->mu);
    all->go = true;
    pthread_cond_broadcast(&all->cond);
    pthread_mutex_unlock(&all->mu);
}

void srv_workers_join(srv_workers *all) {
    if (!all) return;
    pthread_mutex_lock(&all->mu);
    all->stop = true;
    pthread_cond_broadcast(&all->cond);
    pthread_mutex_unlock(&all->mu);
    for (int i = 0; i < all->n; i++) pthread_join(all->w[i].thread, NULL);
    pthread_cond_destroy(&all->cond);
    pthread_mutex_destroy(&all->mu);
    dr_free(all->w);
    dr_free(all);
}
