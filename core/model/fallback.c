#include "core/model/fallback.h"

#include "core/base/log.h"

#include <stdio.h>
#include <string.h>

bool dr_fallback_wanted(const dr_model *m) {
    return m->e->fallback && m->e->lost[0];
}

bool dr_fallback_after(dr_model *m, dr_status s, const dr_error *err) {
    dr_engine *e = m->e;
    if (!e->fallback || !strcmp(dr_engine_backend(e), "cpu") || (s != DR_BACKEND && s != DR_NOMEM)) return false;
    if (s == DR_BACKEND && !e->lost[0]) {
        snprintf(e->lost, sizeof e->lost, "%.190s", err && *err->text ? err->text : "the device failed");
        dr_log(DR_LOG_DEBUG, NULL, "the CPU goes on: %s", e->lost);
    }
    return true;
}

dr_status dr_fallback_open(const dr_model *m, dr_engine *e, dr_model **ret, dr_error *err) {
    dr_model *same;
    dr_status s = dr_model_open(e, m->path, &same, err);
    if (s) return s;
    if (strcmp(same->info.sha256, m->info.sha256)) {
        dr_model_close(same);
        return dr_fail(err, DR_CORRUPT, "the weights of %s are needed once more, and it holds other weights now",
                       m->path);
    }
    *ret = same;
    return DR_OK;
}

dr_status dr_fallback_model(dr_model *m, dr_model **ret, dr_error *err) {
    if (!m->twin) {
        const dr_engine_opts o = {.backend = "cpu", .threads = m->e->threads};
        dr_status s = m->twin_engine ? DR_OK : dr_engine_open(&o, &m->twin_engine, err);
        if (!s) s = dr_fallback_open(m, m->twin_engine, &m->twin, err);
        if (s) return s;
        dr_model_set_yield(m->twin, m->between, m->between_arg);
    }
    *ret = m->twin;
    return DR_OK;
}

void dr_fallback_done(dr_model *m) {
    dr_model_close(m->twin);
    dr_engine_close(m->twin_engine);
    m->twin = NULL;
    m->twin_engine = NULL;
}
