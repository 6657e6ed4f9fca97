/* bench.c - how long a forward pass takes: planes of floats in, planes out, as a picture goes through it. */
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/model/engine.h"
#include <math.h>
#include <stdlib.h>
#include <sys/resource.h>

enum { WARM_UPS = 3, RUNS_MAX = 10000 };

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double peak_rss_mb(void) {
    struct rusage u;
    if (getrusage(RUSAGE_SELF, &u)) return 0;
    return (double)u.ru_maxrss * 1024 / 1e6;
}

dr_status dr_bench_run(dr_model *m, int width, int height, int runs, dr_bench *ret, dr_error *err) {
    if (runs < 1 || runs > RUNS_MAX)
        return dr_fail(err, DR_INVALID, "runs %d: it must be from 1 to %d", runs, RUNS_MAX);
    dr_limits lim = {0};
    dr_limits_fill(&lim);
    if (width < lim.side_min || height < lim.side_min || width > lim.side_max || height > lim.side_max)
        return dr_fail(err, DR_INVALID, "%d x %d pixels: sides must be from %d to %d", width, height, lim.side_min,
                       lim.side_max);
    uint64_t need = dr_model_run_bytes(m, width, height);
    if (need > lim.mem_budget)
        return dr_fail_limit(err, "memory", "mem_budget", (int64_t)lim.mem_budget, (int64_t)need,
                             "%d x %d pixels need %.1f GB of memory", width, height, (double)need / 1e9);
    int pw = dr_padded_side(width), ph = dr_padded_side(height);
    size_t n = 3 * (size_t)pw * (size_t)ph;
    float *planes = dr_malloc(n * sizeof *planes);
    double *ms = dr_malloc((size_t)runs * sizeof *ms);
    dr_status s = planes && ms ? DR_OK : dr_fail(err, DR_NOMEM, "no memory for %d x %d pixels", width, height);
    for (int i = -WARM_UPS; i < runs && !s; i++) {
        for (size_t k = 0; k < n; k++) planes[k] = sinf((float)(k % 8191) * 0.05f); /* the last run's output is in it */
        int64_t t = dr_clock_ns();
        s = dr_model_run_planes(m, planes, pw, ph, NULL, err);
        if (i >= 0) ms[i] = (double)(dr_clock_ns() - t) / 1e6;
    }
    if (!s) {
        qsort(ms, (size_t)runs, sizeof *ms, by_value);
        dr_bench b = {.runs = runs, .min_ms = ms[0], .peak_rss_mb = peak_rss_mb()};
        b.median_ms = runs % 2 ? ms[runs / 2] : (ms[runs / 2 - 1] + ms[runs / 2]) / 2;
        b.mpix_per_s = (double)width * (double)height / 1e3 / b.median_ms;
        *ret = b;
    }
    dr_free(planes);
    dr_free(ms);
    return s;
}
