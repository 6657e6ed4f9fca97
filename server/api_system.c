/* api_system.c - what the daemon is, takes and how it feels. */
#include "core/base/alloc.h"
#include "core/base/fs.h"
#include "core/base/parse.h"
#include "db/blobs.h"
#include "server/api.h"
#include "server/devices.h"
#include "server/router.h"
#include "server/version.h"
#include "server/worker.h"
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static bool no_query(srv_req *r) {
    srv_query q[] = {{0, 0}};
    return srv_query_read(r, q);
}

srv_next srv_system_limits(srv_req *r) {
    const srv_app *app = r->app;
    dr_limits lim, *l = &lim;
    srv_memory_limits(app, l);
    if (!no_query(r)) return SRV_REPLY;
    return srv_reply_json(
        r, 200,
        json_pack("{s:I, s:I, s:i, s:i, s:i, s:I, s:I, s:I, s:[s,s], s:[s,s], s:I, s:I, s:I, s:I, s:I, s:I, s:I}",
                  "body_max_bytes", (json_int_t)l->body_max_bytes, "pixels_max", (json_int_t)l->pixels_max, "side_max",
                  l->side_max, "side_min", l->side_min, "aspect_max", l->aspect_max, "queue_max",
                  (json_int_t)app->cfg->queue_max, "mem_budget_bytes", (json_int_t)l->mem_budget, "training_bytes_max",
                  (json_int_t)srv_memory_for_training(app), "formats_in", "png", "jpeg", "formats_out", "png", "jpeg",
                  "sync_wait_max_s", (json_int_t)app->cfg->sync_wait_max_s, "result_ttl_s",
                  (json_int_t)app->cfg->result_ttl, "spool_max_bytes", (json_int_t)app->cfg->spool_max_bytes,
                  "dataset_files_max", (json_int_t)app->cfg->dataset_files_max, "dataset_bytes_max",
                  (json_int_t)app->cfg->dataset_bytes_max, "blob_ttl_s", (json_int_t)app->cfg->blob_ttl,
                  "compare_pictures_max", (json_int_t)app->cfg->compare_pictures_max));
}

static json_t *gpu_json(const dr_device_state *d, bool lost) {
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b}", "memory_bytes", (json_int_t)d->memory_all,
                     "memory_free_bytes", (json_int_t)d->memory_free, "memory_used_bytes", (json_int_t)d->memory_used,
                     "plans", (json_int_t)d->plans, "plans_tuned", (json_int_t)d->plans_tuned, "runs_recorded",
                     (json_int_t)d->recorded, "runs_replayed", (json_int_t)d->replayed, "lost", (int)lost);
}

srv_next srv_system_version(srv_req *r) {
    const char *device = srv_registry_device(r->app->registry);
    dr_device_state d;
    size_t kernels = strcspn(device, " ("); /* of "AVX-512 (oneDNN 2.6.3, 2 threads)" */
    if (!no_query(r)) return SRV_REPLY;
    return srv_reply_json(
        r, 200,
        json_pack("{s:s, s:s, s:s, s:s, s:s%, s:o, s:[s,s,s,s,s,s]}", "version", srv_version(), "commit", srv_commit(),
                  "backend", srv_registry_backend(r->app->registry), "device", device, "cpu_kernels", device, kernels,
                  "gpu", srv_devices_read(&d) ? gpu_json(&d, atomic_load(&r->app->tele.device_lost)) : json_null(),
                  "features", "derain", "jobs", "wait", "idempotency", "datasets", "compare"));
}

/* --- health --- */

srv_next srv_system_live(srv_req *r) {
    srv_query q[] = {{"verbose", 0}, {0, 0}};
    if (!srv_query_read(r, q)) return SRV_REPLY;
    return srv_reply_json(r, 200, json_pack("{s:s}", "status", "live"));
}

static json_t *check(const char *name, bool ok, const char *why) {
    return json_pack("{s:s, s:b, s:o}", "name", name, "ok", (int)ok, "reason", ok ? json_null() : json_string(why));
}

static srv_next ready(srv_req *r, bool verbose) {
    srv_app *app = r->app;
    dr_error disk = {0}, db = {0};
    bool draining = atomic_load(&app->draining);
    bool room = !srv_spool_room(app->spool, (uint64_t)app->cfg->free_min_bytes, (int)app->cfg->free_min_percent, &disk);
    bool store = !db_ping(app->db, &db);
    bool full = srv_queue_count(app->queue) >= app->cfg->queue_max;
    bool ok = !draining && store && room;
    json_t *o = json_pack("{s:s}", "status", ok ? "ready" : draining ? "draining" : "not_ready");
    if (verbose || !ok)
        json_object_set_new(o, "checks",
                            json_pack("[o, o, o, o, o, o]",
                                      check("accepting", !draining, "the service is shutting down"),
                                      check("store", store, "the database does not answer"),
                                      check("device", !atomic_load(&app->tele.device_lost),
                                            "the GPU failed; the CPU does its work until the next start"),
                                      check("disk", room, "too little free disk space"), check("model", true, ""),
                                      check("queue", !full, "the queue is full")));
    if (!ok) srv_reply_header(r, "Retry-After", "5");
    return srv_reply_json(r, ok ? 200 : 503, o);
}

srv_next srv_system_ready(srv_req *r) {
    srv_query q[] = {{"verbose", 0}, {0, 0}};
    if (!srv_query_read(r, q)) return SRV_REPLY;
    return ready(r, q[0].value && strcmp(q[0].value, "0") != 0);
}

srv_next srv_system_model_ready(srv_req *r) {
    if (!no_query(r)) return SRV_REPLY;
    srv_model_id m;
    srv_registry_served(r->app->registry, &m);
    if (strcmp(r->param[0], m.name)) return srv_reply_error(r, "model_not_found", "this daemon serves %s", m.name);
    return ready(r, false);
}

/* --- metrics --- */

/* The second number of statm is the resident size in pages. */
static double rss_bytes(void) {
    char *text = NULL;
    size_t len = 0;
    uint64_t pages = 0;
    if (dr_fs_read("/proc/self/statm", 4096, &text, &len, NULL)) return 0;
    char *p = text + strcspn(text, " ");
    p += *p == ' ';
    p[strcspn(p, " ")] = 0;
    if (!dr_parse_u64(p, 0, UINT64_MAX, &pages)) pages = 0;
    dr_free(text);
    return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

static void write_gate(srv_gate *g, dr_buf *b) {
    static const char *const who[SRV_GATE_USERS] = {
        [SRV_GATE_DERAIN] = "derain", [SRV_GATE_COMPARISON] = "comparison", [SRV_GATE_TRAINING] = "training"};
    srv_gate_times t;
    srv_gate_read(g, &t);
    dr_buf_puts(b, "# HELP derain_gate_busy_seconds_total time spent computing, of each of the workers\n"
                   "# TYPE derain_gate_busy_seconds_total counter\n");
    for (int i = 0; i < SRV_GATE_USERS; i++)
        dr_buf_printf(b, "derain_gate_busy_seconds_total{who=\"%s\"} %.6f\n", who[i], t.busy[i]);
    dr_buf_puts(b, "# HELP derain_gate_waited_seconds_total time spent waiting for the others to stand still\n"
                   "# TYPE derain_gate_waited_seconds_total counter\n");
    for (int i = 0; i < SRV_GATE_USERS; i++)
        dr_buf_printf(b, "derain_gate_waited_seconds_total{who=\"%s\"} %.6f\n", who[i], t.waited[i]);
}

/* Nothing where there is no GPU. */
static void write_gpu(dr_buf *b) {
    dr_device_state d;
    if (!srv_devices_read(&d)) return;
    srv_tele_gauge(b, "derain_gpu_memory_bytes", "memory of the GPU", (double)d.memory_all);
    srv_tele_gauge(b, "derain_gpu_memory_free_bytes", "of it free, for all processes", (double)d.memory_free);
    srv_tele_gauge(b, "derain_gpu_memory_used_bytes", "of it held by this daemon's engines and training",
                   (double)d.memory_used);
    srv_tele_gauge(b, "derain_gpu_plans", "convolution plans in use", (double)d.plans);
    srv_tele_gauge(b, "derain_gpu_plans_tuned", "of these, tuned ones", (double)d.plans_tuned);
    srv_tele_counter(b, "derain_gpu_runs_recorded_total", "runs recorded to be repeated as one", d.recorded);
    srv_tele_counter(b, "derain_gpu_runs_replayed_total", "runs that were such repetitions", d.replayed);
}

srv_next srv_system_metrics(srv_req *r) {
    srv_app *app = r->app;
    db_counts counts;
    db_stats stats = {0};
    srv_registry_stats models;
    int64_t blobs = 0, blob_bytes = 0;
    dr_buf b;
    if (!no_query(r)) return SRV_REPLY;
    dr_buf_init(&b, 1 << 20);
    srv_tele_write(&app->tele, &b);
    if (!db_job_counts(app->db, &counts, NULL)) {
        dr_buf_puts(&b, "# HELP derain_jobs jobs known, by state\n# TYPE derain_jobs gauge\n");
        for (int i = 0; i < DB_N_STATES; i++)
            dr_buf_printf(&b, "derain_jobs{state=\"%s\"} %lld\n", db_state_name((db_state)i),
                          (long long)counts.state[i]);
        srv_tele_gauge(&b, "derain_spool_bytes", "bytes of uploads and results", (double)counts.spool_bytes);
    }
    if (!db_blob_totals(app->db, &blobs, &blob_bytes, NULL)) {
        srv_tele_gauge(&b, "derain_blobs", "pictures of data sets", (double)blobs);
        srv_tele_gauge(&b, "derain_blob_bytes", "their bytes", (double)blob_bytes);
    }
    db_stats_get(app->db, &stats);
    srv_tele_gauge(&b, "derain_device_lost", "1 after the GPU failed for good", atomic_load(&app->tele.device_lost));
    srv_tele_gauge(&b, "derain_queue_max", "most jobs that may wait", (double)app->cfg->queue_max);
    srv_tele_gauge(&b, "derain_workers", "jobs that can run at a time", (double)app->workers);
    srv_tele_gauge(&b, "derain_workers_busy", "jobs that run now", srv_queue_n_running(app->queue));
    srv_tele_gauge(&b, "derain_requests_waiting", "suspended requests", (double)srv_park_waiting(app->watch));
    srv_tele_gauge(&b, "derain_job_seconds_average", "moving average of a job's time",
                   srv_queue_job_seconds(app->queue));
    write_gate(app->gate, &b);
    write_gpu(&b);
    srv_registry_stats_get(app->registry, &models);
    srv_tele_gauge(&b, "derain_model_swaps", "changes of the served version since the start", (double)models.swaps);
    srv_tele_gauge(&b, "derain_model_loads", "versions loaded since the start", (double)models.loads);
    srv_tele_gauge(&b, "derain_model_loads_failed", "loads that failed", (double)models.loads_failed);
    srv_tele_gauge(&b, "derain_training_memory_bytes", "what the running training may hold of mem_budget",
                   (double)atomic_load(&app->memory.training));
    srv_tele_gauge(&b, "derain_db_bytes", "size of the database", (double)stats.db_bytes);
    srv_tele_gauge(&b, "derain_db_wal_bytes", "size of its write-ahead log", (double)stats.wal_bytes);
    srv_tele_gauge(&b, "derain_db_commits", "transactions since the start", (double)stats.commits);
    srv_tele_gauge(&b, "derain_db_writes", "writes since the start", (double)stats.requests);
    srv_tele_gauge(&b, "derain_db_fifo", "writes that wait", (double)stats.fifo);
    srv_tele_gauge(&b, "process_resident_memory_bytes", "resident memory", rss_bytes());
    return srv_reply_text(r, 200, "text/plain; version=0.0.4; charset=utf-8", &b);
}

/* --- documents --- */

srv_next srv_system_error_page(srv_req *r) {
    const srv_problem_row *row = srv_problem_find(r->param[0]);
    dr_buf b;
    if (!no_query(r)) return SRV_REPLY;
    if (!row) return srv_reply_error(r, "not_found", "there is no such error code");
    static const char *const types[] = {"text/html", "application/json", "text/plain"};
    int best = srv_accept_best(srv_header(r, "Accept"), types, 3);
    if (best == 1)
        return srv_reply_json(r, 200,
                              json_pack("{s:s, s:i, s:s, s:s, s:b}", "code", row->code, "status", row->status, "title",
                                        row->title, "explanation", row->explain, "retryable", (int)row->retryable));
    dr_buf_init(&b, 16384);
    const char *again = row->retryable ? "Trying again later may help." : "Trying the same again will not help.";
    if (best == 2)
        dr_buf_printf(&b, "%s (%d, %s)\n\n%s\n%s\n", row->title, row->status, row->code, row->explain, again);
    else
        dr_buf_printf(
            &b,
            "<!doctype html>\n<meta charset=\"utf-8\">\n<title>%s</title>\n<h1>%s</h1>\n<p>%s</p>\n<p>%s</p>\n"
            "<p>Status %d, code <code>%s</code></p>\n",
            row->title, row->title, row->explain, again, row->status, row->code);
    return srv_reply_text(r, 200, best == 2 ? "text/plain; charset=utf-8" : "text/html; charset=utf-8", &b);
}

/* A short description from the table of routes; the full one is docs/api/openapi.yaml. */
srv_next srv_system_openapi(srv_req *r) {
    json_t *paths = json_object();
    if (!no_query(r)) return SRV_REPLY;
    for (size_t i = 0; i < srv_n_routes; i++) {
        const srv_route *t = &srv_routes[i];
        json_t *path = json_object_get(paths, t->path), *params = json_array();
        if (!path && !json_object_set_new(paths, t->path, json_object())) path = json_object_get(paths, t->path);
        for (const char *p = strchr(t->path, '{'); p; p = strchr(p + 1, '{'))
            json_array_append_new(params, json_pack("{s:s%, s:s, s:b, s:{s:s}}", "name", p + 1, strcspn(p + 1, "}"),
                                                    "in", "path", "required", 1, "schema", "type", "string"));
        char verb[8] = "";
        for (size_t n = 0; n < sizeof verb - 1 && t->method[n]; n++) verb[n] = (char)(t->method[n] | 0x20);
        json_object_set_new(path, verb,
                            json_pack("{s:s, s:o, s:{s:{s:s}, s:{s:s}}}", "summary", t->summary, "parameters", params,
                                      "responses", "2XX", "description", "as asked", "default", "description",
                                      "problem+json"));
    }
    return srv_reply_json(r, 200,
                          json_pack("{s:s, s:{s:s, s:s}, s:o}", "openapi", "3.0.3", "info", "title", "derain",
                                    "version", srv_version(), "paths", paths));
}

srv_next srv_system_index(srv_req *r) {
    static const char *const types[] = {"application/json", "text/html"};
    dr_buf b;
    if (!no_query(r)) return SRV_REPLY;
    if (srv_accept_best(srv_header(r, "Accept"), types, 2) != 1)
        return srv_reply_json(r, 200,
                              json_pack("{s:s, s:s, s:{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s}}", "service", "derain",
                                        "version", srv_version(), "links", "derain", "/v1/derain", "jobs", "/v1/jobs",
                                        "models", "/v1/models", "limits", "/v1/limits", "version", "/v1/version",
                                        "ready", "/health/ready", "metrics", "/metrics", "openapi", "/openapi.json"));
    dr_buf_init(&b, 65536);
    dr_buf_puts(&b, "<!doctype html>\n<meta charset=\"utf-8\">\n<title>derain</title>\n<h1>derain</h1>\n"
                    "<p>Send a rainy picture, get it back derained:</p>\n"
                    "<pre>curl --data-binary @rainy.png http://HOST/v1/derain -o out.png</pre>\n<ul>\n");
    for (size_t i = 0; i < srv_n_routes; i++)
        dr_buf_printf(&b, "<li><code>%s %s</code> %s\n", srv_routes[i].method, srv_routes[i].path,
                      srv_routes[i].summary);
    dr_buf_puts(&b, "</ul>\n");
    return srv_reply_text(r, 200, "text/html; charset=utf-8", &b);
}
