/* findings_rain.c - see findings_rain.h. */
#include "server/findings_rain.h"
#include "core/base/alloc.h"
#include <stdlib.h>

static bool scored(const db_entry *e, db_part part, int side_min) {
    return e->part == part && !*e->facts.code && e->facts.rain >= 0 && e->facts.width >= side_min &&
           e->facts.height >= side_min;
}

static int by_value(const void *a, const void *b) {
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

dr_status srv_rain_mean_of(const db_entry_list *l, db_part part, int side_min, srv_rain_mean *ret, dr_error *err) {
    double *v = dr_calloc(l->n + 1, sizeof *v), sum = 0;
    srv_rain_mean m = {0};
    if (!v) return dr_fail(err, DR_NOMEM, "no memory for the rain scores");
    for (size_t i = 0; i < l->n; i++)
        if (scored(&l->e[i], part, side_min)) sum += v[m.n++] = l->e[i].facts.rain;
    if (m.n) {
        qsort(v, m.n, sizeof *v, by_value);
        m.mean = sum / (double)m.n;
        m.median = (v[(m.n - 1) / 2] + v[m.n / 2]) / 2;
    }
    dr_free(v);
    *ret = m;
    return DR_OK;
}

/* The pictures of a part beyond the threshold, the most suspicious first; `up`: above it. What is left out anyway is
 * not told twice. */
static dr_status tell_some(srv_findings *f, const db_entry_list *l, db_part part, bool up, const char *code,
                           double threshold, dr_error *err) {
    size_t told[SRV_RAIN_TOLD], n = 0;
    for (size_t i = 0; i < l->n; i++) {
        double x = l->e[i].facts.rain;
        if (f->aside[i] || !scored(&l->e[i], part, SRV_RAIN_SIDE) || (up ? x < threshold : x >= threshold)) continue;
        size_t at = n < SRV_RAIN_TOLD ? n++ : SRV_RAIN_TOLD; /* insertion; who falls off the end is not told */
        for (; at > 0 && (up ? l->e[told[at - 1]].facts.rain < x : l->e[told[at - 1]].facts.rain > x); at--)
            if (at < SRV_RAIN_TOLD) told[at] = told[at - 1];
        if (at < SRV_RAIN_TOLD) told[at] = i;
    }
    dr_status s = DR_OK;
    for (size_t k = 0; k < n && !s; k++) {
        srv_finding one = {.code = code, .grade = SRV_NOTE, .entry = told[k], .other = SRV_NO_OTHER, .distance = -1};
        one.has_score = true;
        one.score = l->e[told[k]].facts.rain;
        one.threshold = threshold;
        s = srv_findings_add(f, one, err);
    }
    return s;
}

dr_status srv_findings_rain(srv_findings *f, const db_entry_list *l, dr_error *err) {
    srv_rain_mean rainy = {0}, clean = {0};
    dr_status s = srv_rain_mean_of(l, DB_RAINY, SRV_RAIN_SIDE, &rainy, err);
    if (!s) s = srv_rain_mean_of(l, DB_CLEAN, SRV_RAIN_SIDE, &clean, err);
    if (!s && rainy.n >= SRV_RAIN_SET && clean.n >= SRV_RAIN_SET && rainy.mean <= clean.mean) {
        srv_finding one = {.code = "sets_look_swapped", .grade = SRV_WARNING, .entry = SRV_NO_OTHER, .distance = -1};
        one.other = SRV_NO_OTHER;
        one.has_score = true;
        one.score = rainy.mean;
        one.threshold = clean.mean;
        s = srv_findings_add(f, one, err);
    }
    if (!s) s = tell_some(f, l, DB_CLEAN, true, "looks_rainy", SRV_RAIN_LIKE, err);
    return s ? s : tell_some(f, l, DB_RAINY, false, "looks_dry", SRV_RAIN_DRY, err);
}
