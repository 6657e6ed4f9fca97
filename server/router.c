/* router.c - see router.h. To add a route: a row here, its handler in an api_*.c, its entry in docs/api/openapi.yaml (a
 * test compares the two). */
#include "server/router.h"
#include "server/api.h"
#include <stdio.h>
#include <string.h>

const srv_route srv_routes[] = {
    {"POST", "/v1/derain", srv_derain_begin, srv_derain_data, srv_derain_ready, false, "Derain a picture"},
    {"GET", "/v1/jobs", NULL, NULL, srv_jobs_list, false, "List jobs, newest first"},
    {"POST", "/v1/jobs", NULL, NULL, srv_jobs_create, false, "Make a training or a comparison"},
    {"GET", "/v1/jobs/{id}", NULL, NULL, srv_jobs_get, false, "A job, with long poll"},
    {"DELETE", "/v1/jobs/{id}", NULL, NULL, srv_jobs_delete, false, "Erase a job, its input and its result"},
    {"GET", "/v1/jobs/{id}/result", NULL, NULL, srv_jobs_result, false,
     "The derained picture, or the sheet of a comparison"},
    {"GET", "/v1/jobs/{id}/report", NULL, NULL, srv_jobs_report, false, "What a comparison found"},
    {"POST", "/v1/jobs/{id}/cancel", NULL, NULL, srv_jobs_cancel, false, "Cancel a job"},
    {"POST", "/v1/jobs/{id}/pause", NULL, NULL, srv_jobs_pause, false, "Pause a training"},
    {"POST", "/v1/jobs/{id}/resume", NULL, NULL, srv_jobs_resume, false, "Go on with a paused training"},
    {"GET", "/v1/jobs/{id}/events", NULL, NULL, srv_jobs_events, false, "A job's history, as a list or live"},
    {"GET", "/v1/jobs/{id}/metrics", NULL, NULL, srv_jobs_metrics, false, "A training's losses"},
    {"GET", "/v1/jobs/{id}/curves.svg", NULL, NULL, srv_jobs_curves, false, "A training's losses, drawn"},
    {"GET", "/v1/jobs/{id}/samples/{name}", NULL, NULL, srv_jobs_sample, false, "A training's pictures at a step"},
    {"GET", "/v1/jobs/{id}/checkpoints", NULL, NULL, srv_jobs_checkpoints, false, "A training's checkpoints"},
    {"POST", "/v1/jobs/{id}/checkpoints/{step}/publish", NULL, NULL, srv_jobs_publish, false,
     "Make a checkpoint a version of its model"},
    {"GET", "/v1/blobs/{sha256}", NULL, NULL, srv_blobs_get, false, "A picture by its content"},
    {"PUT", "/v1/blobs/{sha256}", srv_blobs_begin, srv_blobs_data, srv_blobs_ready, false, "Upload a picture"},
    {"DELETE", "/v1/blobs/{sha256}", NULL, NULL, srv_blobs_delete, false, "Erase a picture that no set holds"},
    {"POST", "/v1/datasets", srv_datasets_begin, srv_datasets_data, srv_datasets_ready, false, "Make a data set"},
    {"GET", "/v1/datasets", NULL, NULL, srv_datasets_list, false, "List data sets, newest first"},
    {"GET", "/v1/datasets/{id}", NULL, NULL, srv_datasets_get, false, "A data set, with long poll"},
    {"DELETE", "/v1/datasets/{id}", NULL, NULL, srv_datasets_delete, false, "Erase a data set"},
    {"POST", "/v1/datasets/{id}/seal", NULL, NULL, srv_datasets_seal, false, "Close a data set and validate it"},
    {"GET", "/v1/datasets/{id}/report", NULL, NULL, srv_datasets_report, false, "What the validation found"},
    {"GET", "/v1/datasets/{id}/contact-sheet.png", NULL, NULL, srv_datasets_sheet, false, "Some of its pictures"},
    {"PUT", "/v1/datasets/{id}/rainy/{name}", srv_entries_begin, srv_entries_data, srv_entries_ready, false,
     "Put a picture in"},
    {"DELETE", "/v1/datasets/{id}/rainy/{name}", NULL, NULL, srv_entries_delete, false, "Take a picture out"},
    {"PUT", "/v1/datasets/{id}/clean/{name}", srv_entries_begin, srv_entries_data, srv_entries_ready, false,
     "Put a picture in"},
    {"DELETE", "/v1/datasets/{id}/clean/{name}", NULL, NULL, srv_entries_delete, false, "Take a picture out"},
    {"PUT", "/v1/datasets/{id}/paired/rainy/{name}", srv_entries_begin, srv_entries_data, srv_entries_ready, false,
     "Put a picture in"},
    {"DELETE", "/v1/datasets/{id}/paired/rainy/{name}", NULL, NULL, srv_entries_delete, false, "Take a picture out"},
    {"PUT", "/v1/datasets/{id}/paired/clean/{name}", srv_entries_begin, srv_entries_data, srv_entries_ready, false,
     "Put a picture in"},
    {"DELETE", "/v1/datasets/{id}/paired/clean/{name}", NULL, NULL, srv_entries_delete, false, "Take a picture out"},
    {"GET", "/v1/models", NULL, NULL, srv_models_list, false, "List models"},
    {"GET", "/v1/models/{model}", NULL, NULL, srv_models_get, false, "The default version of a model"},
    {"GET", "/v1/models/{model}/versions/{version}", NULL, NULL, srv_models_version, false, "A version of a model"},
    {"GET", "/v1/models/{model}/versions/{version}/card", NULL, NULL, srv_models_card, false, "A model's card"},
    {"GET", "/v1/models/{model}/versions/{version}/weights", NULL, NULL, srv_models_weights, false,
     "A model's weights"},
    {"POST", "/v1/models/{model}/versions", srv_import_begin, srv_import_data, srv_import_ready, false,
     "Import weights as a new version"},
    {"PUT", "/v1/models/{model}/default", NULL, NULL, srv_models_default, false, "Serve another version"},
    {"POST", "/v1/models/{model}/rollback", NULL, NULL, srv_models_rollback, false,
     "Serve the last good version again"},
    {"GET", "/v1/limits", NULL, NULL, srv_system_limits, false, "What this daemon takes"},
    {"GET", "/v1/version", NULL, NULL, srv_system_version, false, "What this daemon is"},
    {"GET", "/health/live", NULL, NULL, srv_system_live, true, "Is the process alive"},
    {"GET", "/health/ready", NULL, NULL, srv_system_ready, true, "May it get work"},
    {"GET", "/v2/health/live", NULL, NULL, srv_system_live, true, "Is the process alive"},
    {"GET", "/v2/health/ready", NULL, NULL, srv_system_ready, true, "May it get work"},
    {"GET", "/v2/models/{model}/ready", NULL, NULL, srv_system_model_ready, true, "May this model get work"},
    {"GET", "/metrics", NULL, NULL, srv_system_metrics, false, "Counters for Prometheus"},
    {"GET", "/errors/{code}", NULL, NULL, srv_system_error_page, true, "What an error means"},
    {"GET", "/openapi.json", NULL, NULL, srv_system_openapi, true, "This interface, for machines"},
    {"GET", "/", NULL, NULL, srv_system_index, true, "Where to find what"},
};
const size_t srv_n_routes = sizeof srv_routes / sizeof srv_routes[0];

static bool match(const char *pattern, const char *path, char params[SRV_N_PARAMS][SRV_PARAM]) {
    int n = 0;
    while (*pattern) {
        if (*pattern != '{') {
            if (*pattern++ != *path++) return false;
            continue;
        }
        size_t len = strcspn(path, "/");
        if (!len || len >= sizeof params[0] || n == SRV_N_PARAMS) return false;
        memcpy(params[n], path, len);
        params[n++][len] = 0;
        path += len;
        pattern = strchr(pattern, '}') + 1;
    }
    return !*path;
}

const srv_route *srv_route_find(const srv_route *table, size_t n, const char *method, const char *path,
                                char params[SRV_N_PARAMS][SRV_PARAM], char ret_allow[SRV_ALLOW]) {
    size_t used = 0;
    *ret_allow = 0;
    for (size_t i = 0; i < n; i++) {
        const srv_route *r = &table[i];
        if (!match(r->path, path, params)) continue;
        bool get = !strcmp(r->method, "GET");
        if (!strcmp(r->method, method) || (get && !strcmp(method, "HEAD"))) return r;
        used += (size_t)snprintf(ret_allow + used, SRV_ALLOW - used, "%s%s%s", used ? ", " : "", r->method,
                                 get ? ", HEAD" : "");
        if (used >= SRV_ALLOW) break;
    }
    return NULL;
}
