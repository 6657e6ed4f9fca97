/* tune.c - dr_tune_model() of core/tune.h: times a size, runs it once with tuning on, times it again.
 *
 * The run in between must be a plain one: a recorded run goes past the backend's entries. A fresh plan's first run is
 * never recorded, so the plans that the timing before it made are forgotten. */
#include "core/tune.h"
#include "core/model/made_up.h"

enum { RUNS = 5 };

static void forget_plans(dr_model *m) {
    for (int i = 0; i < DR_PLANS_MAX; i++) {
        dr_plan_destroy(m->plans[i].plan);
        m->plans[i].plan = NULL;
        m->plans[i].n = m->plans[i].w = m->plans[i].h = 0;
        m->plans[i].used = 0;
    }
}

static dr_status run_once(dr_model *m, const dr_tune_size *size, dr_error *err) {
    dr_made_up made;
    dr_status s = dr_made_up_init(&made, m, size->width, size->height, size->batch, err);
    if (s) return s;
    dr_made_up_fill(&made);
    s = dr_made_up_run(&made, err);
    dr_made_up_done(&made);
    return s;
}

static dr_status tune_size(dr_model *m, const dr_tune_size *size, dr_tuned *ret, dr_error *err) {
    dr_bench before, after;
    dr_tuned r = {0};
    dr_backend *be = m->e->be;
    dr_status s = dr_bench_run(m, size->width, size->height, size->batch, RUNS, &before, err);
    if (s) return s;
    forget_plans(m);
    s = dr_be_tune(be, true, NULL, err);
    if (!s) {
        s = run_once(m, size, err);
        dr_status end = dr_be_tune(be, false, &r.plans, s ? NULL : err); /* what was found stays, whatever came after */
        if (!s) s = end;
    }
    if (!s) s = dr_bench_run(m, size->width, size->height, size->batch, RUNS, &after, err);
    if (s) return s;
    r.before_ms = before.median_ms;
    r.after_ms = after.median_ms;
    *ret = r;
    return DR_OK;
}

dr_status dr_tune_model(const dr_tune_opts *o, const char *model, const dr_tune_size *sizes, int n, dr_error *err) {
    const dr_engine_opts eo = {
        .backend = o->backend, .threads = o->threads, .precision = o->precision, .plan_cache = o->plan_cache};
    dr_engine *e = NULL;
    dr_model *m = NULL;
    dr_status s = dr_engine_open(&eo, &e, err);
    if (s) return s;
    if (!dr_be_tunes(e->be))
        s = dr_fail_as(err, DR_UNSUPPORTED, "nothing_to_tune", "nothing to tune on the backend '%s'%s%s",
                       dr_engine_backend(e), *dr_engine_note(e) ? ": " : "", dr_engine_note(e));
    if (!s) s = dr_model_open(e, model, &m, err);
    for (int i = 0; i < n && !s; i++) {
        dr_tuned found;
        s = tune_size(m, &sizes[i], &found, err);
        if (s)
            s = dr_wrap(err, s, "%d x %d", sizes[i].width, sizes[i].height);
        else if (o->on_size)
            o->on_size(&sizes[i], &found, o->arg);
    }
    dr_model_close(m);
    dr_engine_close(e);
    return s;
}
