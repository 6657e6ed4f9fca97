/* serve.c - deraind serve: config -> socket -> store -> spool -> workers -> http -> wait for a signal -> down in
 * reverse.
 *
 * The socket comes first, so that a second daemon fails before it touches the data. On SIGTERM or SIGINT /health/ready
 * turns to 503 at once and new work is refused, while questions are still answered; workers go on as long as clients
 * wait for pictures, at most drain_s; then running jobs are put back, waiting clients get 503 with their job's id, and
 * the process ends with 0. A second signal skips the patience. */
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/fs.h"
#include "core/base/log.h"
#include "server/blobs.h"
#include "server/commands.h"
#include "server/comparer.h"
#include "server/http.h"
#include "server/janitor.h"
#include "server/listen.h"
#include "server/router.h"
#include "server/trainer.h"
#include "server/validate.h"
#include "server/version.h"
#include "server/worker.h"
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_FILE  "/etc/derain/deraind.conf"
#define STOP_GRACE_MS 5000 /* for answers that are still going out */

/* --- defaults that depend on the machine --- */

static char *join_env(const char *name, const char *tail) {
    const char *dir = secure_getenv(name);
    return dir && *dir ? dr_fs_join(dir, tail) : NULL;
}

static dr_status fill_data(srv_config *cfg, dr_error *err) {
    const char *state = secure_getenv("STATE_DIRECTORY");
    char *path = NULL;
    if (*cfg->data) return DR_OK;
    if (state && *state) path = dr_strndup(state, strcspn(state, ":"));
    if (!path) path = join_env("XDG_STATE_HOME", "derain");
    if (!path) path = join_env("HOME", ".local/state/derain");
    if (!path) return dr_fail(err, DR_INVALID, "no folder for the data: set 'data'");
    dr_free(cfg->data);
    cfg->data = path;
    return DR_OK;
}

static dr_status fill_plans(srv_config *cfg, dr_error *err) {
    if (*cfg->plan_cache) return DR_OK;
    char *path = dr_fs_join(cfg->data, "plans.tsv");
    if (!path) return dr_fail(err, DR_NOMEM, "out of memory");
    dr_free(cfg->plan_cache);
    cfg->plan_cache = path;
    return DR_OK;
}

/* models/ beside this program's build folder, or the installed one. */
static dr_status fill_model(srv_config *cfg, dr_error *err) {
    char exe[4096], path[4200];
    if (*cfg->model) return DR_OK;
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    exe[n > 0 ? n : 0] = 0;
    char *slash = strrchr(exe, '/');
    if (slash) *slash = 0;
    const char *const places[] = {"../models", "../share/derain/models"};
    const char *found = NULL;
    for (size_t i = 0; i < 2 && slash && !found; i++) {
        snprintf(path, sizeof path, "%s/%s/derain.safetensors", exe, places[i]);
        if (dr_fs_exists(path)) found = path;
    }
    if (!found && dr_fs_exists(DR_SHARE_DIR "/models/derain.safetensors"))
        found = DR_SHARE_DIR "/models/derain.safetensors";
    if (!found) return dr_fail(err, DR_NOT_FOUND, "no weights found: set 'model' to a safetensors file");
    char *copy = dr_strdup(found);
    if (!copy) return dr_fail(err, DR_NOMEM, "out of memory");
    dr_free(cfg->model);
    cfg->model = copy;
    return DR_OK;
}

/* FILE.safetensors -> FILE.md, if it is there. */
static char *find_card(const char *model) {
    size_t n = strlen(model);
    const char *dot = strrchr(model, '.');
    if (dot && dot > model) n = (size_t)(dot - model);
    char *path = dr_malloc(n + 4);
    if (!path) return NULL;
    memcpy(path, model, n);
    memcpy(path + n, ".md", 4);
    if (dr_fs_exists(path)) return path;
    dr_free(path);
    return NULL;
}

/* --- up --- */

typedef struct daemon {
    srv_app app;
    srv_workers *workers;
    char *card;
    srv_janitor *janitor;
    int listen_fd;
    char url[320];
} daemon_parts;

static dr_status open_db(srv_app *app, dr_error *err) {
    const db_options opt = {.job_attempts_max = (int)app->cfg->job_attempts_max};
    db_recovered back = {0};
    dr_status s = db_open(app->cfg->data, &opt, &app->db, err);
    if (s) return dr_wrap(err, s, "data folder '%s'", app->cfg->data);
    db_recovery(app->db, &back);
    if (back.requeued || back.failed)
        dr_log(DR_LOG_WARN, NULL, "the last life ended badly: %lld jobs run again, %lld have crashed too often",
               (long long)back.requeued, (long long)back.failed);
    return DR_OK;
}

static dr_status open_registry(daemon_parts *d, dr_error *err) {
    srv_app *app = &d->app;
    d->card = find_card(app->cfg->model);
    const srv_registry_opts opts = {.db = app->db,
                                    .data = app->cfg->data,
                                    .model = app->cfg->model,
                                    .card = d->card,
                                    .backend = app->cfg->backend,
                                    .precision = app->cfg->precision,
                                    .plan_cache = app->cfg->plan_cache,
                                    .threads = (int)app->cfg->threads,
                                    .workers = (int)app->cfg->workers};
    dr_status s = srv_registry_open(&opts, &app->registry, err);
    if (s) return s;
    app->workers = srv_registry_workers(app->registry);
    app->engines = srv_registry_engines(app->registry);
    app->limits.mem_budget /= (uint64_t)app->engines;
    return DR_OK;
}

static dr_status start(daemon_parts *d, const srv_config *cfg, dr_error *err) {
    srv_app *app = &d->app;
    srv_address addr;
    db_counts counts;
    const srv_watch_opts watch = {.header_ms = cfg->header_timeout_s * 1000,
                                  .idle_ms = 40000,
                                  .body_grace_ms = cfg->body_grace_s * 1000,
                                  .body_max_ms = cfg->body_time_max_s * 1000,
                                  .body_rate_min = cfg->body_rate_min,
                                  .resume = srv_http_resume,
                                  .too_slow = srv_http_too_slow,
                                  .arg = app};
    dr_status s = srv_address_parse(cfg->listen, &addr, err);
    if (!s) s = srv_auth_open(cfg->token_file, cfg->allowed_hosts, addr.loopback, &app->auth, err);
    if (!s) s = srv_listen(&addr, &d->listen_fd, d->url, err);
    if (!s) s = open_db(app, err);
    if (!s) s = srv_spool_open(cfg->data, &app->spool, err);
    if (!s) s = srv_janitor_sweep(app, err);
    if (!s) s = srv_blobs_open(cfg->data, app->db, &app->blobs, err);
    if (!s) s = srv_gate_open(&app->tele.yield, &app->tele.counter[SRV_TRAIN_PREEMPTIONS], &app->gate, err);
    if (!s) s = srv_watch_open(&watch, &app->watch, err);
    if (!s) s = open_registry(d, err);
    if (!s) s = srv_queue_open(app->workers, &app->queue, err);
    if (!s) s = srv_workers_start(app, &d->workers, err);
    if (!s) s = db_job_counts(app->db, &counts, err);
    if (s) return s;
    srv_queue_count_set(app->queue, counts.state[DB_QUEUED]);
    s = srv_validator_start(app, &app->validator, err);
    if (s) return s;
    int fd = d->listen_fd;
    d->listen_fd = -1;
    s = srv_http_open(app, fd, srv_routes, srv_n_routes, err);
    if (!s) s = srv_janitor_start(app, &d->janitor, err);
    if (!s) s = srv_trainer_start(app, &app->trainer, err);
    if (!s) s = srv_comparer_start(app, &app->comparer, err);
    if (!s) srv_workers_go(d->workers);
    return s;
}

/* --- down --- */

static bool wait_signal(const sigset_t *set, int64_t ms) {
    const struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    return sigtimedwait(set, NULL, &ts) > 0;
}

static void drain(daemon_parts *d, const sigset_t *set) {
    srv_app *app = &d->app;
    int64_t end = dr_clock_ns() + app->cfg->drain_s * 1000000000;
    atomic_store(&app->draining, true);
    dr_log(DR_LOG_INFO, NULL, "stopping: %d jobs run, %zu clients wait", srv_queue_n_running(app->queue),
           srv_park_waiting(app->watch));
    srv_trainer_put_back(app->trainer);
    srv_comparer_put_back(app->comparer);
    while (dr_clock_ns() < end && (srv_queue_n_running(app->queue) || srv_park_waiting(app->watch) ||
                                   srv_trainer_busy(app->trainer) || srv_comparer_busy(app->comparer)))
        if (wait_signal(set, 50)) break;
    srv_queue_stop(app->queue);
    srv_queue_put_back(app->queue);
    srv_batcher_stop(app->batcher); /* after the flags that say why */
}

static void stop(daemon_parts *d) {
    srv_app *app = &d->app;
    if (app->queue) srv_queue_stop(app->queue);
    srv_comparer_join(app->comparer);
    srv_trainer_join(app->trainer);
    srv_blobs_stop(app->blobs);
    srv_workers_join(d->workers);
    srv_janitor_stop(d->janitor);
    srv_http_close(app->http, STOP_GRACE_MS);
    srv_validator_stop(app->validator); /* requests ring it, it wakes requests */
    if (d->listen_fd >= 0) close(d->listen_fd);
    srv_registry_close(app->registry); /* its call-backs answer requests and write to the store */
    srv_watch_close(app->watch);
    srv_blobs_close(app->blobs);
    srv_spool_close(app->spool); /* its call-backs write to the store */
    db_close(app->db);
    srv_queue_close(app->queue);
    srv_batcher_close(app->batcher);
    srv_gate_close(app->gate);
    srv_auth_close(app->auth);
    dr_free(d->card);
}

static int run(const srv_config *cfg) {
    static daemon_parts d; /* too large for comfort on the stack; one daemon a process */
    sigset_t set;
    dr_error err = {0};
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set, NULL); /* before any thread is made: all inherit it */
    signal(SIGPIPE, SIG_IGN);
    d.listen_fd = -1;
    d.app.cfg = cfg;
    srv_tele_init(&d.app.tele);
    d.app.limits = (dr_limits){.body_max_bytes = (uint64_t)cfg->body_max_bytes,
                               .side_max = (int)cfg->side_max,
                               .pixels_max = (uint64_t)cfg->pixels_max,
                               .mem_budget = (uint64_t)cfg->mem_budget};
    dr_limits_fill(&d.app.limits);
    dr_status s = start(&d, cfg, &err);
    if (!s) {
        srv_model_id m;
        srv_registry_served(d.app.registry, &m);
        dr_log(DR_LOG_INFO, NULL, "deraind %s (%s), model %s version %lld, %s", srv_version(), srv_commit(), m.name,
               (long long)m.version, srv_registry_device(d.app.registry));
        dr_log(DR_LOG_INFO, NULL, "listening on %s", d.url);
        while (!wait_signal(&set, 3600 * 1000)) {
        }
        drain(&d, &set);
    }
    stop(&d);
    if (!s) dr_log(DR_LOG_INFO, NULL, "stopped");
    return s ? srv_cmd_fail("serve", &err) : SRV_EXIT_OK;
}

/* --- command --- */

static int usage(const dr_error *err) {
    fprintf(stderr, "deraind serve: %s\n", err->text);
    return SRV_EXIT_USAGE;
}

static dr_status check(const srv_config *cfg, dr_error *err) {
    srv_address addr;
    dr_status s = srv_address_parse(cfg->listen, &addr, err);
    if (s) return s;
    if (!addr.loopback && !*cfg->token_file && !cfg->insecure)
        return dr_fail(
            err, DR_INVALID,
            "%s is not a loopback address: everybody could use this service. Set token_file, or insecure if that "
            "is what you want",
            cfg->listen);
    return DR_OK;
}

static int print(dr_buf *b) {
    bool ok = !b->status && fwrite(b->data, 1, b->len, stdout) == b->len && !fflush(stdout);
    dr_buf_done(b);
    return ok ? SRV_EXIT_OK : SRV_EXIT_FAILED;
}

static int command(srv_config *cfg, int argc, char **argv) {
    srv_config_ask ask = SRV_ASK_RUN;
    dr_error err = {0};
    dr_log_level level = DR_LOG_INFO;
    dr_buf b;
    dr_status s = srv_config_load(cfg, argc, argv, environ, DEFAULT_FILE, &ask, &err);
    dr_buf_init(&b, 1 << 20);
    if (s) return usage(&err);
    if (ask == SRV_ASK_HELP) {
        srv_config_help(&b);
        return print(&b);
    }
    if (!(s = fill_data(cfg, &err)) && !(s = fill_plans(cfg, &err)) && (s = fill_model(cfg, &err)) == DR_NOT_FOUND &&
        ask == SRV_ASK_DUMP)
        s = DR_OK;
    if (!s) s = check(cfg, &err);
    if (s) return usage(&err);
    if (ask == SRV_ASK_DUMP) {
        srv_config_dump(cfg, &b);
        return print(&b);
    }
    if (dr_log_level_parse(cfg->log_level, &level)) dr_log_setup(level, cfg->log_json);
    mallopt(M_ARENA_MAX, 4); /* many threads, few of which allocate much: keeps the resident size flat */
    return run(cfg);
}

int srv_cmd_serve(int argc, char **argv) {
    srv_config cfg;
    srv_config_init(&cfg);
    int rc = command(&cfg, argc, argv);
    srv_config_done(&cfg);
    return rc;
}
