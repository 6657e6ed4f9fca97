/* problem.c - see problem.h. To add an error: one row here, and its code in openapi.yaml (a test compares). */
#include "server/problem.h"
#include "core/base/alloc.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const srv_problem_row srv_problem_rows[] = {
    {"bad_request", 400, false, "Bad request", "The request is not well-formed."},
    {"bad_framing", 400, false, "Ambiguous message framing",
     "The header leaves open where the body ends: two Content-Length, Content-Length with Transfer-Encoding, a "
     "transfer coding "
     "other than chunked, or white space in a header's name. The connection is closed."},
    {"bad_path", 400, false, "Path not allowed", "The path holds %00, %2F or a '..' segment."},
    {"empty_body", 400, false, "Empty body", "A picture was expected in the body and there was not one byte."},
    {"bad_multipart", 400, false, "Broken form", "The multipart/form-data body does not follow RFC 7578."},
    {"bad_json", 400, false, "Broken JSON", "The body is not a JSON object."},
    {"bad_digest", 400, false, "Broken Content-Digest", "Content-Digest holds no valid sha-256 (RFC 9530)."},
    {"bad_idempotency_key", 400, false, "Bad Idempotency-Key", "The key must be 1 to 255 printable ASCII characters."},
    {"unauthorized", 401, false, "No or unknown token", "Send one of the daemon's tokens as Authorization: Bearer."},
    {"foreign_host", 403, false, "Host not allowed",
     "A daemon on a loopback address answers only requests made to a loopback name, so that a web page cannot reach it "
     "by a "
     "name of its own. The setting allowed_hosts adds names."},
    {"foreign_origin", 403, false, "Origin not allowed",
     "A web page of another site may not use a daemon on a loopback address."},
    {"not_found", 404, false, "Not found", "There is nothing under this path."},
    {"job_not_found", 404, false, "No such job", "No job ever had this id."},
    {"model_not_found", 404, false, "No such model", "This daemon serves no model of that name and version."},
    {"card_not_found", 404, false, "No card", "This version has no card beside its weights."},
    {"blob_not_found", 404, false, "No such blob", "No picture of this SHA-256 is here; upload it."},
    {"dataset_not_found", 404, false, "No such data set", "No data set ever had this id."},
    {"checkpoint_not_found", 404, false, "No such checkpoint",
     "The training has no checkpoint of this step: the last ones and the best are kept."},
    {"entry_not_found", 404, false, "No such picture", "The data set has no picture of this name in this part."},
    {"method_not_allowed", 405, false, "Method not allowed", "The path exists; the Allow header lists its methods."},
    {"not_acceptable", 406, false, "No acceptable format", "Accept rules out every form in which this answer exists."},
    {"alpha_jpeg", 406, false, "JPEG cannot hold transparency", "The picture has an alpha channel; ask for PNG."},
    {"body_too_slow", 408, true, "Body too slow",
     "The body came in slower than the least rate; the connection is closed."},
    {"conflict", 409, false, "Conflict", "The state of the thing does not allow this."},
    {"job_exists", 409, false, "Job exists", "A job with this id is there already."},
    {"job_running", 409, true, "Job is running", "A running job cannot be erased; cancel it first."},
    {"version_rejected", 409, false, "Version was rejected",
     "The gate found this version worse than its parent. Send \"force\": true to use it all the same."},
    {"version_unusable", 409, false, "Version cannot be used", "The weights of this version are missing or damaged."},
    {"checkpoint_unusable", 409, false, "Checkpoint cannot be used", "The file of this checkpoint is damaged."},
    {"no_previous_version", 409, false, "Nothing to go back to", "This model has had no other default version."},
    {"not_ready", 409, true, "Result not ready", "The job has not finished yet."},
    {"no_result", 409, false, "Job has no result", "The job ended without a result; its problem member says why."},
    {"job_cancelled", 409, false, "Job was cancelled", "The job was cancelled before it had a result."},
    {"dataset_unusable", 409, false, "Data set cannot be used",
     "A training needs a data set that is sealed and was found ready, a comparison one that is open or ready: see its "
     "report."},
    {"not_pausable", 409, false, "Job cannot be paused", "Only a training that has not ended can be paused."},
    {"not_resumable", 409, false, "Job cannot be resumed", "Only a paused training can be resumed."},
    {"blob_in_use", 409, false, "Blob in use",
     "A data set or a comparison holds this picture; delete the set, its entry or the job first."},
    {"dataset_sealed", 409, false, "Data set is sealed", "A sealed data set takes no changes; make a new one."},
    {"dataset_in_use", 409, true, "Data set in use", "A job that has not ended works on this data set."},
    {"dataset_not_validated", 409, true, "Data set not validated",
     "The report is there once the data set was sealed and its validation has ended."},
    {"idempotency_in_progress", 409, true, "First request still in progress",
     "A request with this Idempotency-Key is being worked on; ask again later with the same key."},
    {"job_gone", 410, false, "Job was erased", "The job existed; it was deleted, or it was removed after result_ttl."},
    {"dataset_gone", 410, false, "Data set was deleted", "The data set existed; it was deleted."},
    {"result_gone", 410, false, "Result was erased", "The file of this result is no longer there."},
    {"revision_changed", 412, true, "Changed meanwhile",
     "If-Match names a revision that is not the last one; read the model again."},
    {"length_required", 411, false, "Length required",
     "POST and PUT need a Content-Length or Transfer-Encoding: chunked, also where the body is empty (curl: -d '')."},
    {"body_too_large", 413, false, "Body too large", "The body has more bytes than this resource takes."},
    {"image_too_large", 413, false, "Picture too large",
     "The picture passes a limit; limit, actual and setting say which."},
    {"memory", 413, false, "Picture needs too much memory",
     "Working on this picture would take more than mem_budget, also in bands."},
    {"training_too_large", 413, false, "Training needs too much memory",
     "The nets, one step and the pictures of this training do not fit into mem_budget beside the smallest derain "
     "request, or not onto the GPU. A smaller crop, batch, micro_batch or network does."},
    {"dataset_too_large", 413, false, "Data set too large",
     "The data set would hold more pictures or bytes than it may."},
    {"archive_too_large", 413, false, "Archive too large",
     "The archive, or what it unpacks to, passes a limit; detail names the entry, setting the limit."},
    {"compare_too_large", 413, false, "Comparison too large",
     "The comparison would take more versions or pictures than it may."},
    {"unsupported_format", 415, false, "Unknown picture format",
     "The bytes are no PNG and no JPEG. Their beginning decides, not Content-Type."},
    {"unsupported_archive", 415, false, "Unknown archive format",
     "The bytes are no tar, no tar.gz and no zip archive."},
    {"unsupported_color", 415, false, "Unsupported colours", "CMYK and other four-ink JPEG files are not supported."},
    {"unsupported_encoding", 415, false, "Content-Encoding not supported", "Send the body without a content coding."},
    {"range_not_satisfiable", 416, false, "Range not satisfiable", "The range begins behind the end of the result."},
    {"image_corrupt", 422, false, "Picture is damaged",
     "The file is cut off or its data does not match its checksums."},
    {"image_too_small", 422, false, "Picture too small", "Both sides must have at least 16 pixels."},
    {"bad_model", 422, false, "Weights cannot be used",
     "The file is damaged, or holds no generator of the kind that this service runs."},
    {"bad_pickle", 422, false, "Broken state dict", "The PyTorch file is damaged or of a kind that is not read here."},
    {"bad_zip", 422, false, "Broken archive", "The PyTorch file's archive is damaged, compressed or encrypted."},
    {"pickle_refused", 422, false, "State dict refused",
     "The PyTorch file names something that a file of weights does not need. Nothing in it was run."},
    {"invalid_name", 422, false, "Name cannot be used",
     "Names are 1 to 63 letters, digits and . _ -, not beginning with a dot."},
    {"archive_corrupt", 422, false, "Archive is damaged", "The archive cannot be read to its end."},
    {"archive_entry", 422, false, "Archive entry not allowed",
     "An archive may hold folders and files in rainy/, clean/, paired/rainy/ and paired/clean/, and nothing else: no "
     "links, "
     "no devices, no absolute paths, no '..'."},
    {"dataset_empty", 422, false, "Data set is empty", "A data set needs pictures before it is sealed."},
    {"bad_entry_name", 422, false, "Name not allowed",
     "A picture's name has 1 to 128 characters, no slash, no control character, and does not begin with a dot."},
    {"unknown_parameter", 422, false, "Unknown parameter",
     "The query holds a parameter that this resource does not have."},
    {"invalid_parameter", 422, false, "Invalid parameter",
     "A parameter has a value that is not allowed, or stands there twice."},
    {"unknown_member", 422, false, "Unknown member", "The JSON body holds a member that this resource does not have."},
    {"invalid_member", 422, false, "Invalid member", "A member of the JSON body has the wrong type or value."},
    {"unknown_field", 422, false, "Unknown form field", "The form may hold one field, 'image'."},
    {"bad_cursor", 422, false, "Bad cursor", "The cursor was not made by this service; begin without one."},
    {"digest_mismatch", 422, true, "Body differs from its digest",
     "The body's SHA-256 is not the one in Content-Digest: it was damaged on its way."},
    {"idempotency_key_reused", 422, false, "Idempotency-Key reused",
     "The key came before with another method, path or body."},
    {"nothing_compared", 422, false, "No picture could be compared", "Each picture of the comparison had a problem."},
    {"diverged", 422, false, "Training diverged",
     "Losses or gradients were not finite in too many steps, which were left out. Try lower learning rates (lr, lr_f), "
     "a larger batch, or f32; the weights of the last checkpoint are from before."},
    {"if_match_required", 428, false, "If-Match is missing",
     "Send If-Match with the ETag of the model as it was read, so that two changes cannot undo each other."},
    {"queue_full", 429, true, "Queue full", "queue_max jobs are waiting; come back after Retry-After seconds."},
    {"internal", 500, true, "Internal error",
     "Something failed inside the service; its log has the details under the incident id."},
    {"crashed_repeatedly", 500, false, "Job crashed repeatedly",
     "The daemon ended job_attempts_max times while it worked on this job."},
    {"input_missing", 500, false, "Input is missing", "The uploaded file of this job is no longer there."},
    {"draining", 503, true, "Shutting down", "The service is about to stop and takes no new work."},
    {"not_serving", 503, true, "Not ready", "The service is starting or cannot reach its store."},
    {"deadline_exceeded", 504, true, "Took too long",
     "The picture was not done in time; the job goes on and can be asked for."},
    {"job_expired", 504, false, "Job expired", "The job's deadline passed before it was its turn."},
    {"disk_full", 507, true, "No disk space", "The disk is too full to take new work."},
    {"out_of_memory", 507, true, "Out of memory", "The machine had no memory left for this."},
};
const size_t srv_n_problem_rows = sizeof srv_problem_rows / sizeof srv_problem_rows[0];

const srv_problem_row *srv_problem_find(const char *code) {
    for (size_t i = 0; code && i < srv_n_problem_rows; i++) {
        const char *a = srv_problem_rows[i].code, *b = code;
        while (*a && (*a == *b || (*a == '_' && *b == '-'))) a++, b++;
        if (!*a && !*b) return &srv_problem_rows[i];
    }
    return NULL;
}

void srv_problem_make(srv_problem *p, const char *code, const char *fmt, ...) {
    va_list ap;
    const srv_problem_row *row = srv_problem_find(code);
    *p = (srv_problem){.row = row ? row : srv_problem_find("internal")};
    va_start(ap, fmt);
    vsnprintf(p->detail, sizeof p->detail, fmt, ap);
    va_end(ap);
}

void srv_problem_point(srv_problem *p, const char *pointer) {
    snprintf(p->pointer, sizeof p->pointer, "%s", pointer);
}

static const char *code_of(dr_status s) {
    switch (s) {
    case DR_INVALID:
        return "bad_request";
    case DR_UNSUPPORTED:
        return "unsupported_format";
    case DR_TOO_LARGE:
        return "image_too_large";
    case DR_NOT_FOUND:
        return "not_found";
    case DR_CONFLICT:
        return "conflict";
    case DR_BUSY:
        return "queue_full";
    case DR_CANCELLED:
        return "job_cancelled";
    case DR_NOMEM:
        return "out_of_memory";
    case DR_NOSPACE:
        return "disk_full";
    case DR_UNAVAILABLE:
        return "not_serving";
    default:
        return "internal";
    }
}

void srv_problem_from(srv_problem *p, dr_status s, const dr_error *err) {
    const srv_problem_row *row = err && *err->what ? srv_problem_find(err->what) : NULL;
    *p = (srv_problem){.row = row ? row : srv_problem_find(code_of(s))};
    if (p->row->status == 500 || p->row->status == 507) { /* such texts may hold paths */
        snprintf(p->detail, sizeof p->detail, "%s", p->row->explain);
        return;
    }
    snprintf(p->detail, sizeof p->detail, "%s", err && *err->text ? err->text : p->row->explain);
    if (err && (*err->setting || err->limit || err->actual)) {
        p->has_limit = true;
        p->limit = err->limit;
        p->actual = err->actual;
        snprintf(p->setting, sizeof p->setting, "%s", err->setting);
    }
}

static void set(json_t *o, const char *key, json_t *v, bool *ok) {
    *ok = !json_object_set_new(o, key, v) && *ok;
}

static json_t *text_or_null(const char *s) {
    return s && *s ? json_string(s) : json_null();
}

json_t *srv_problem_json(const srv_problem *p, const char *request_id) {
    char type[80] = "/errors/", instance[96];
    bool ok = true;
    json_t *o = json_object();
    size_t n = strlen(type);
    for (const char *c = p->row->code; *c && n + 1 < sizeof type; c++) type[n++] = *c == '_' ? '-' : *c;
    type[n] = 0;
    snprintf(instance, sizeof instance, "/requests/%s", request_id ? request_id : "");
    if (!o) return NULL;
    set(o, "type", json_string(type), &ok);
    set(o, "title", json_string(p->row->title), &ok);
    set(o, "status", json_integer(p->row->status), &ok);
    json_t *detail = json_string(p->detail); /* NULL when it is not UTF-8: it may quote the client */
    set(o, "detail", detail ? detail : json_string(p->row->explain), &ok);
    set(o, "instance", request_id ? json_string(instance) : json_null(), &ok);
    set(o, "code", json_string(p->row->code), &ok);
    set(o, "request_id", text_or_null(request_id), &ok);
    set(o, "retryable", json_boolean(p->row->retryable), &ok);
    set(o, "limit", p->has_limit ? json_integer(p->limit) : json_null(), &ok);
    set(o, "actual", p->has_limit ? json_integer(p->actual) : json_null(), &ok);
    set(o, "setting", text_or_null(p->setting), &ok);
    json_t *errors = json_array();
    if (*p->pointer) {
        json_t *d = json_string(p->detail);
        json_t *e = json_pack("{s:s, s:s, s:o}", "pointer", p->pointer, "code", p->row->code, "detail",
                              d ? d : json_string(p->row->explain));
        if (!e || json_array_append_new(errors, e)) ok = false;
    }
    set(o, "errors", errors, &ok);
    set(o, "job", text_or_null(p->job), &ok);
    if (p->row->status == 500) set(o, "incident", text_or_null(request_id), &ok);
    if (ok) return o;
    json_decref(o);
    return NULL;
}

json_t *srv_problem_stored(const char *text, const char *job) {
    json_t *o = text ? json_loads(text, 0, NULL) : NULL;
    const json_t *code = json_object_get(o, "code"), *status = json_object_get(o, "status");
    srv_problem p;
    srv_problem_make(&p, json_is_string(code) ? json_string_value(code) : "internal",
                     "the job failed without saying why");
    snprintf(p.job, sizeof p.job, "%s", job);
    json_t *full = srv_problem_json(&p, NULL);
    int n = json_is_integer(status) ? (int)json_integer_value(status) : 0;
    bool bad = full && n >= 400 && n <= 599 && json_object_update_missing(o, full);
    if (n < 400 || n > 599 || bad) { /* nothing to show but what the table knows */
        json_decref(o);
        return full;
    }
    json_decref(full);
    json_object_set_new(o, "job", json_string(job));
    return o;
}

char *srv_problem_text(const srv_problem *p, const char *request_id) {
    json_t *o = srv_problem_json(p, request_id);
    if (!o) return NULL;
    char *text = NULL;
    size_t n = json_dumpb(o, NULL, 0, JSON_COMPACT);
    if (n && (text = dr_malloc(n + 1))) text[json_dumpb(o, text, n, JSON_COMPACT)] = 0;
    json_decref(o);
    return text;
}
