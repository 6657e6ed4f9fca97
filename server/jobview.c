/* jobview.c - a job as its JSON object, and its result as an answer. */
#include "core/base/clock.h"
#include "db/training.h"
#include "server/api.h"
#include <string.h>

static json_t *time_or_null(int64_t ms) {
    char text[DR_RFC3339];
    if (!ms) return json_null();
    dr_clock_rfc3339(ms, text);
    return json_string(text);
}

static json_t *text_or_null(const char *s) {
    return *s ? json_string(s) : json_null();
}
static json_t *int_or_null(int64_t n) {
    return n ? json_integer(n) : json_null();
}
static json_t *ms_or_null(double ms) {
    return ms >= 0 ? json_real(ms) : json_null();
}

static json_t *parsed(const char *text) {
    json_t *o = text ? json_loads(text, 0, NULL) : NULL;
    return o ? o : json_null();
}

/* Seconds until a job of this size is done, from measured times; null until there are some. */
static json_t *eta(srv_app *app, const db_job *job, double progress) {
    if (!strcmp(job->type, "train")) return json_null();
    if (!strcmp(job->type, "compare")) { /* by its own pace */
        double spent = (double)(dr_clock_wall_ms() - job->started_ms) / 1e3;
        bool known = job->state == DB_RUNNING && progress > 0 && spent > 0;
        return known ? json_real(spent * (1 - progress) / progress) : json_null();
    }
    double job_s = srv_queue_job_seconds(app->queue);
    double own = srv_queue_mpix_seconds(app->queue) * (double)job->input.width * (double)job->input.height / 1e6;
    if (db_state_final(job->state) || job_s <= 0) return json_null();
    if (job->state == DB_RUNNING) return json_real(own * (1 - progress));
    double ahead = (double)(job->queue_position > 0 ? job->queue_position - 1 : 0) + srv_queue_n_running(app->queue);
    return json_real(ahead * job_s / (double)app->workers + own);
}

/* Of a training: how far it is, and its parameters. *ret_eta: seconds left by its own pace, null where not known. */
static json_t *training(srv_app *app, const db_job *job, json_t **ret_eta) {
    db_training t;
    if (strcmp(job->type, "train") || db_training_get(app->db, job->id, &t, NULL)) return json_null();
    if (!db_state_final(job->state) && t.steps > 0 && t.seconds_per_step > 0) {
        json_decref(*ret_eta);
        *ret_eta = json_real((double)(t.steps - t.step) * t.seconds_per_step);
    }
    json_t *best = t.best_step < 0 ? json_null()
                                   : json_pack("{s:I, s:f}", "step", (json_int_t)t.best_step, "psnr_y", t.best_score);
    return json_pack("{s:s, s:I, s:o, s:I, s:f, s:f, s:b, s:o, s:o, s:o}", "dataset", t.dataset, "step",
                     (json_int_t)t.step, "steps", int_or_null(t.steps), "skipped", (json_int_t)t.skipped, "seconds",
                     t.seconds, "seconds_per_step", t.seconds_per_step, "pause_requested", (int)t.pause_requested,
                     "best", best, "version", int_or_null(t.version), "params", parsed(job->params_json));
}

static json_t *input(const db_job *job) {
    if (!*job->input.format) return json_null();
    return json_pack("{s:s, s:I, s:I, s:i, s:i, s:I, s:s}", "format", job->input.format, "width",
                     (json_int_t)job->input.width, "height", (json_int_t)job->input.height, "bit_depth",
                     job->input.bit_depth, "channels", job->input.channels, "bytes", (json_int_t)job->input.bytes,
                     "sha256", job->input.sha256);
}

static json_t *links(const db_job *job) {
    json_t *o = json_object();
    bool report = !strcmp(job->type, "compare") && job->state == DB_SUCCEEDED;
    json_object_set_new(o, "self", json_sprintf("/v1/jobs/%s", job->id));
    json_object_set_new(o, "result",
                        job->state == DB_SUCCEEDED && job->has_result ? json_sprintf("/v1/jobs/%s/result", job->id)
                                                                      : json_null());
    json_object_set_new(o, "report", report ? json_sprintf("/v1/jobs/%s/report", job->id) : json_null());
    json_object_set_new(o, "events", json_sprintf("/v1/jobs/%s/events", job->id));
    json_object_set_new(o, "cancel",
                        db_state_final(job->state) ? json_null() : json_sprintf("/v1/jobs/%s/cancel", job->id));
    return o;
}

json_t *srv_job_json(srv_app *app, const db_job *job) {
    static const char *const timing[DB_N_TIMINGS] = {"queue", "decode", "infer", "encode"};
    double progress = job->progress;
    if (job->state == DB_RUNNING) srv_queue_progress(app->queue, job->id, &progress);
    json_t *o = json_object(), *times = json_object(), *result = json_null();
    for (int i = 0; i < DB_N_TIMINGS; i++) json_object_set_new(times, timing[i], ms_or_null(job->timings_ms[i]));
    if (job->has_result)
        result = json_pack("{s:s, s:I, s:s}", "format", job->result.format, "bytes", (json_int_t)job->result.bytes,
                           "sha256", job->result.sha256);
    json_object_set_new(o, "id", json_string(job->id));
    json_object_set_new(o, "type", json_string(job->type));
    json_object_set_new(o, "state", json_string(db_state_name(job->state)));
    json_object_set_new(o, "created_at", time_or_null(job->created_ms));
    json_object_set_new(o, "started_at", time_or_null(job->started_ms));
    json_object_set_new(o, "finished_at", time_or_null(job->finished_ms));
    json_object_set_new(o, "model",
                        json_pack("{s:s, s:I, s:o}", "name", job->model.name, "version", (json_int_t)job->model.version,
                                  "sha256", text_or_null(job->model.sha256)));
    json_object_set_new(o, "input", input(job));
    json_object_set_new(o, "result", result);
    json_object_set_new(o, "progress", json_real(job->state == DB_SUCCEEDED ? 1.0 : progress));
    json_object_set_new(o, "queue_position", int_or_null(job->queue_position));
    json_t *left = eta(app, job, progress), *trained = training(app, job, &left);
    json_object_set_new(o, "eta_s", left);
    json_object_set_new(o, "training", trained);
    json_object_set_new(o, "compare", !strcmp(job->type, "compare") ? parsed(job->params_json) : json_null());
    json_object_set_new(o, "attempt", json_integer(job->attempt));
    json_object_set_new(o, "cancel_requested", json_boolean(job->cancel_requested));
    json_object_set_new(o, "timings_ms", times);
    json_object_set_new(o, "problem", job->problem_json ? srv_problem_stored(job->problem_json, job->id) : json_null());
    json_object_set_new(o, "labels", parsed(job->labels_json));
    json_object_set_new(o, "links", links(job));
    if (json_object_size(o) == 20) return o; /* a member that could not be made is missing */
    json_decref(o);
    return NULL;
}

void srv_job_location(srv_req *r, const db_job *job) {
    srv_reply_header(r, "Location", "/v1/jobs/%s", job->id);
    if (strcmp(job->type, "train")) srv_reply_header(r, "Link", "</v1/jobs/%s/result>; rel=\"result\"", job->id);
    if (!db_state_final(job->state))
        srv_reply_header(r, "Retry-After", "%d", srv_queue_retry_after(r->app->queue, job->queue_position));
}

/* "queue;dur=1.2, decode;dur=3" of what is known. */
static void server_timing(srv_req *r, const db_job *job) {
    static const char *const name[DB_N_TIMINGS] = {"queue", "decode", "infer", "encode"};
    char text[200] = "";
    size_t n = 0;
    for (int i = 0; i < DB_N_TIMINGS; i++)
        if (job->timings_ms[i] >= 0 && n < sizeof text)
            n += (size_t)snprintf(text + n, sizeof text - n, "%s%s;dur=%.1f", n ? ", " : "", name[i],
                                  job->timings_ms[i]);
    if (n) srv_reply_header(r, "Server-Timing", "%s", text);
}

srv_next srv_job_picture(srv_req *r, const db_job *job) {
    int fd = -1;
    uint64_t total = 0;
    dr_error err = {0};
    bool jpeg = !strcmp(job->result.format, "jpeg");
    dr_status s = srv_spool_open_result(r->app->spool, job->id, &fd, &total, &err);
    if (s == DR_NOT_FOUND) return srv_reply_error(r, "result_gone", "the file of this result is no longer there");
    if (s) return srv_reply_failed(r, s, &err);
    srv_next next =
        srv_reply_blob(r, jpeg ? "image/jpeg" : "image/png", job->result.sha256, "private, immutable", fd, total);
    if (r->reply.status != 200 && r->reply.status != 206) return next;
    srv_reply_header(r, "Content-Disposition", "attachment; filename=\"%s.%s\"", job->id, jpeg ? "jpg" : "png");
    srv_reply_header(r, "X-Derain-Model", "%s/%lld", job->model.name, (long long)job->model.version);
    srv_reply_header(r, "Link", "</v1/jobs/%s>; rel=\"describedby\"", job->id);
    server_timing(r, job);
    return next;
}
