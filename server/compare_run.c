/* compare_run.c - see compare_run.h.
 *
 * An engine of its own holds all versions, which takes as much memory as they have weights; each picture goes through
 * them one after the other, under the limits of a derain job. What is wrong with a picture is its row's problem and
 * nobody else's. Files come first (report, then sheet, each under another name, synced and renamed), then the row that
 * names them: after a crash the job is either done with both or done again.
 *
 * Networks run inside the gate, measurements beside others after they have asked it; so a request waits for one layer.
 * Where a device fails, the whole comparison goes on with the CPU: versions are compared on the same one. */
#include "server/compare_run.h"
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/fs.h"
#include "core/base/hash.h"
#include "core/base/log.h"
#include "server/blobs.h"
#include "server/compare_params.h"
#include "server/compare_report.h"
#include "server/devices.h"
#include "server/finish.h"
#include "server/model_files.h"
#include "server/problem.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct run {
    srv_app *app;
    const db_job *job;
    srv_compare_signals *sig;
    srv_model_id version[DR_COMPARE_MAX];
    int n;
    dr_engine *engine;
    dr_model *model[DR_COMPARE_MAX];
    bool on_cpu; /* the device was given up */
    db_picture *pictures;
    srv_compare_row *rows;
    size_t n_pictures, done, n_strips;
    bool mute; /* the store does not take our events: said once */
    bool lost; /* the job is no longer ours */
} run;

/* --- giving way --- */

static bool enter(void *arg) {
    run *r = arg;
    return srv_gate_side_begin(r->app->gate, &r->sig->stop);
}
static void leave(void *arg) {
    srv_gate_side_end(((run *)arg)->app->gate);
}
static void drain(void *arg) {
    dr_engine_drain(arg);
}
static bool between_layers(void *arg) {
    run *r = arg;
    return srv_gate_side_pass(r->app->gate, &r->sig->stop, drain, r->engine);
}

/* --- models --- */

static dr_status unusable(const run *r, const srv_model_id *v, const dr_error *why, dr_error *err) {
    dr_log(DR_LOG_ERROR, r->job->request_id, "job %s: %s version %lld: %s", r->job->id, v->name, (long long)v->version,
           why->text);
    return dr_fail_as(err, DR_CONFLICT, "version_unusable", "the weights of %s version %lld are missing or damaged",
                      v->name, (long long)v->version);
}

/* The very bytes that were named when the job was made. */
static dr_status open_version(run *r, const srv_model_id *v, dr_model **ret, dr_error *err) {
    char path[SRV_PATH];
    db_model m = {0};
    dr_model *model = NULL;
    dr_error why = {0};
    dr_status s = db_model_get(r->app->db, v->name, v->version, &m, &why);
    if (!s && !srv_registry_path(r->app->registry, &m, SRV_MODEL_WEIGHTS, path, sizeof path))
        s = dr_fail(&why, DR_NOT_FOUND, "there is no file of weights");
    db_model_clear(&m);
    if (!s) s = dr_model_open(r->engine, path, &model, &why);
    if (!s && strcmp(dr_model_get_info(model)->sha256, v->sha256))
        s = dr_fail(&why, DR_CORRUPT, "it is not what was registered: its sha-256 differs");
    if (!s) {
        dr_model_set_yield(model, between_layers, r);
        *ret = model;
        return DR_OK;
    }
    dr_model_close(model);
    return s == DR_NOMEM ? dr_fail(err, s, "%s", why.text) : unusable(r, v, &why, err);
}

static void close_models(run *r) {
    for (int i = 0; i < r->n; i++) {
        dr_model_close(r->model[i]);
        r->model[i] = NULL;
    }
    srv_devices_remove(r->engine);
    dr_engine_close(r->engine);
    r->engine = NULL;
}

static dr_status open_models(run *r, const char *backend, dr_error *err) {
    const dr_engine_opts opts = {.backend = backend,
                                 .threads = (int)r->app->cfg->threads,
                                 .precision = r->app->cfg->precision,
                                 .plan_cache = r->app->cfg->plan_cache,
                                 .background = true};
    dr_status s = dr_engine_open(&opts, &r->engine, err);
    if (!s) srv_devices_add_engine(r->engine);
    for (int i = 0; i < r->n && !s; i++)
        s = atomic_load(&r->sig->stop) ? dr_fail(err, DR_CANCELLED, "broken off")
                                       : open_version(r, &r->version[i], &r->model[i], err);
    return s;
}

static dr_status prepare(run *r, dr_error *err) {
    r->n = srv_compare_row_read(r->job->params_json, r->version);
    if (!r->n) return dr_fail(err, DR_INTERNAL, "the parameters in its row are none of a comparison");
    dr_status s = db_compare_pictures(r->app->db, r->job->id, &r->pictures, &r->n_pictures, err);
    if (!s && !(r->rows = dr_calloc(r->n_pictures + 1, sizeof *r->rows))) s = dr_fail(err, DR_NOMEM, "out of memory");
    for (size_t i = 0; i < r->n_pictures && !s; i++) r->rows[i].picture = &r->pictures[i];
    return s ? s : open_models(r, r->app->cfg->backend, err);
}

/* --- pictures --- */

static dr_status read_blob(const run *r, const char *sha256, char **ret, size_t *ret_len, dr_error *err) {
    char path[SRV_PATH];
    dr_error why = {0};
    srv_blobs_path(r->app->blobs, sha256, path);
    dr_status s = dr_fs_read(path, (size_t)r->app->limits.body_max_bytes, ret, ret_len, &why);
    if (s == DR_NOT_FOUND) return dr_fail_as(err, s, "blob_not_found", "the file of this picture is no longer there");
    if (s && err) *err = why;
    return s;
}

static dr_status compare_one(run *r, const db_picture *p, dr_compare_row *ret, dr_error *err) {
    char *data = NULL, *clean = NULL;
    size_t len = 0, clean_len = 0;
    const dr_compare_opts opts = {.limits = &r->app->limits,
                                  .side = SRV_COMPARE_SIDE,
                                  .cancel = &r->sig->stop,
                                  .before = enter,
                                  .after = leave,
                                  .arg = r};
    dr_status s = read_blob(r, p->sha256, &data, &len, err);
    if (!s && *p->clean && (s = read_blob(r, p->clean, &clean, &clean_len, err))) dr_wrap(err, s, "its clean picture");
    if (!s) s = dr_compare_picture(r->model, r->n, data, len, clean, clean_len, &opts, ret, err);
    dr_free(data);
    dr_free(clean);
    return s;
}

/* A device that fails, or has no room for what the CPU has. */
static bool device_failed(const run *r, dr_status s) {
    return (s == DR_BACKEND || s == DR_NOMEM) && !r->on_cpu && strcmp(dr_engine_backend(r->engine), "cpu");
}

static dr_status compare_somewhere(run *r, const db_picture *p, dr_compare_row *ret, dr_error *err) {
    dr_error first = {0};
    dr_status s = compare_one(r, p, ret, &first);
    if (!s || !device_failed(r, s)) {
        if (s && err) *err = first;
        return s;
    }
    dr_log(DR_LOG_WARN, r->job->request_id, "job %s goes on with the CPU: %s", r->job->id, first.text);
    srv_count(&r->app->tele, SRV_CPU_TAKEOVERS, 1);
    close_models(r);
    r->on_cpu = true;
    s = open_models(r, "cpu", err);
    return s ? s : compare_one(r, p, ret, err);
}

/* The code as the sets' reports name it where the table of problems has none of its own. */
static json_t *problem_of(dr_status s, const dr_error *err) {
    srv_problem p;
    srv_problem_from(&p, s, err);
    const char *code = *err->what && !srv_problem_find(err->what) ? err->what : p.row->code;
    return json_pack("{s:s, s:s, s:o, s:o, s:o}", "code", code, "detail", p.detail, "limit",
                     p.has_limit ? json_integer(p.limit) : json_null(), "actual",
                     p.has_limit ? json_integer(p.actual) : json_null(), "setting",
                     *p.setting ? json_string(p.setting) : json_null());
}

/* The sheet has room for so many: the one with the least difference makes room. */
static void drop_a_strip(run *r) {
    size_t least = r->n_pictures;
    for (size_t i = 0; i < r->n_pictures; i++)
        if (r->rows[i].row.strip && (least == r->n_pictures || r->rows[i].row.spread <= r->rows[least].row.spread))
            least = i;
    dr_compare_row_done(&r->rows[least].row);
    r->n_strips--;
}

static void tell(run *r, const srv_compare_row *row) {
    dr_error err = {0};
    db_job_progress(r->app->db, r->job->id, r->job->epoch, (double)r->done / (double)r->n_pictures);
    json_t *o = json_pack("{s:I, s:I, s:s, s:o}", "done", (json_int_t)r->done, "of", (json_int_t)r->n_pictures,
                          "picture", row->picture->name, "problem",
                          row->problem ? json_incref(json_object_get(row->problem, "code")) : json_null());
    char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
    json_decref(o);
    dr_status s = text ? db_event_append(r->app->db, r->job->id, r->job->epoch, "progress", text, NULL, &err) : DR_OK;
    free(text);
    if (s == DR_CONFLICT || s == DR_NOT_FOUND) r->lost = true;
    if (s && !r->mute) dr_log(DR_LOG_WARN, r->job->request_id, "job %s: event: %s", r->job->id, err.text);
    r->mute = s != DR_OK;
    srv_park_wake_key(r->app->watch, r->job->id);
}

static dr_status compare_all(run *r, dr_error *err) {
    for (; r->done < r->n_pictures && !r->lost;) {
        srv_compare_row *row = &r->rows[r->done];
        dr_error why = {0};
        if (atomic_load(&r->sig->stop)) return dr_fail(err, DR_CANCELLED, "broken off");
        dr_status s = compare_somewhere(r, row->picture, &row->row, &why);
        bool lame = !r->model[r->n - 1]; /* the CPU could not take over */
        if (s == DR_CANCELLED || s == DR_BACKEND || lame) {
            *err = why;
            return s;
        }
        if (s && !(row->problem = problem_of(s, &why))) return dr_fail(err, DR_NOMEM, "out of memory");
        if (!s && ++r->n_strips > SRV_COMPARE_ROWS) drop_a_strip(r);
        r->done++;
        tell(r, row);
    }
    return DR_OK;
}

/* --- the end --- */

typedef struct made {
    char *report;
    void *sheet;
    size_t report_len, sheet_len;
    char report_sha[DR_SHA256_HEX], sheet_sha[DR_SHA256_HEX];
    int width, height;
} made;

static void made_done(made *m) {
    free(m->report);
    dr_free(m->sheet);
}

static dr_status make_report(run *r, const srv_compare_rows *all, const char *conclusion, made *ret, dr_error *err) {
    json_t *o = srv_compare_report(all, r->job->id, conclusion);
    ret->report = o ? json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(8)) : NULL;
    json_decref(o);
    if (!ret->report) return dr_fail(err, DR_NOMEM, "no memory for the report");
    ret->report_len = strlen(ret->report);
    dr_sha256_hex(ret->report, ret->report_len, ret->report_sha);
    return DR_OK;
}

static dr_status make_sheet(run *r, const char *conclusion, made *ret, dr_error *err) {
    char names[DR_COMPARE_MAX][96];
    const char *versions[DR_COMPARE_MAX];
    dr_compare_item *items = dr_calloc(r->n_pictures, sizeof *items);
    dr_picture_info info;
    int n = 0;
    if (!items) return dr_fail(err, DR_NOMEM, "no memory for the sheet");
    for (int i = 0; i < r->n; i++) {
        srv_version_text(&r->version[i], names[i]);
        versions[i] = names[i];
    }
    for (size_t i = 0; i < r->n_pictures; i++)
        if (r->rows[i].row.strip) items[n++] = (dr_compare_item){r->rows[i].picture->name, &r->rows[i].row};
    const dr_compare_heads heads = {.versions = versions, .note = conclusion};
    dr_status s = dr_compare_sheet(items, n, &heads, &ret->sheet, &ret->sheet_len, err);
    dr_free(items);
    if (!s) s = dr_probe(ret->sheet, ret->sheet_len, ret->sheet_len, NULL, &info, err);
    if (s) return s;
    ret->width = info.width;
    ret->height = info.height;
    dr_sha256_hex(ret->sheet, ret->sheet_len, ret->sheet_sha);
    return DR_OK;
}

/* Report and sheet on disk. */
static dr_status conclude(run *r, made *ret, dr_error *err) {
    const srv_compare_rows all = {r->version, r->n, r->rows, r->n_pictures};
    if (!srv_compare_good(&all, NULL)) {
        const json_t *detail = json_object_get(r->rows[0].problem, "detail");
        return dr_fail_as(err, DR_INVALID, "nothing_compared",
                          "none of the %zu pictures could be compared; '%.60s': %s", r->n_pictures, r->pictures[0].name,
                          json_string_value(detail));
    }
    char *conclusion = srv_compare_conclusion(&all);
    dr_status s = conclusion ? make_report(r, &all, conclusion, ret, err) : dr_fail(err, DR_NOMEM, "out of memory");
    if (!s) s = make_sheet(r, conclusion, ret, err);
    if (!s) s = srv_spool_write_report(r->app->spool, r->job->id, ret->report, ret->report_len, err);
    if (!s) s = srv_spool_write_result(r->app->spool, r->job->id, ret->sheet, ret->sheet_len, err);
    dr_free(conclusion);
    return s;
}

static void finish(run *r, dr_status s, const dr_error *why, const made *m, double ms) {
    srv_app *app = r->app;
    db_finish f = {.state = !s                  ? DB_SUCCEEDED
                            : s == DR_CANCELLED ? DB_CANCELLED
                                                : DB_FAILED,
                   .timings_ms = {-1, -1, s ? -1 : ms, -1}};
    srv_problem p;
    dr_error err = {0};
    char *problem = NULL;
    if (!s) {
        f.result_format = dr_format_name(DR_FORMAT_PNG);
        f.result_sha256 = m->sheet_sha;
        f.result_bytes = (int64_t)m->sheet_len;
        f.result_width = m->width;
        f.result_height = m->height;
        f.report_bytes = (int64_t)m->report_len;
        f.report_sha256 = m->report_sha;
    } else {
        srv_problem_from(&p, s, why);
        snprintf(p.job, sizeof p.job, "%s", r->job->id);
        f.problem_json = problem = srv_problem_text(&p, r->job->request_id);
        if (f.state == DB_FAILED) dr_log(DR_LOG_ERROR, r->job->request_id, "job %s failed: %s", r->job->id, why->text);
    }
    srv_count(&app->tele, !s ? SRV_JOBS_SUCCEEDED : s == DR_CANCELLED ? SRV_JOBS_CANCELLED : SRV_JOBS_FAILED, 1);
    s = srv_job_finish(app, r->job, &f, NULL, &err);
    if (s) dr_log(DR_LOG_ERROR, r->job->request_id, "job %s: cannot store how it ended: %s", r->job->id, err.text);
    dr_free(problem);
}

static void clear(run *r) {
    close_models(r);
    for (size_t i = 0; r->rows && i < r->n_pictures; i++) {
        json_decref(r->rows[i].problem);
        dr_compare_row_done(&r->rows[i].row);
    }
    dr_free(r->rows);
    dr_free(r->pictures);
}

void srv_compare_run(srv_app *app, const db_job *job, srv_compare_signals *sig) {
    run r = {.app = app, .job = job, .sig = sig};
    made m = {0};
    dr_error err = {0};
    int64_t start = dr_clock_ns();
    dr_status s = prepare(&r, &err);
    if (!s) s = compare_all(&r, &err);
    if (!s && !r.lost) s = conclude(&r, &m, &err);
    if (r.lost)
        dr_log(DR_LOG_WARN, job->request_id, "job %s is no longer this comparison's", job->id);
    else if (s == DR_CANCELLED && !atomic_load(&sig->cancel))
        srv_job_put_back(app, job);
    else
        finish(&r, s, &err, &m, (double)(dr_clock_ns() - start) / 1e6);
    made_done(&m);
    clear(&r);
}
