/* bench.c - how long a served picture takes from pixels to pixels: 8-bit RGB, without its decoder and encoder. */
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/model/made_up.h"
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

dr_status dr_bench_run(dr_model *m, int width, int height, int batch, int runs, dr_bench *ret, dr_error *err) {
    if (runs < 1 || runs > RUNS_MAX)
        return dr_fail(err, DR_INVALID, "runs %d: it must be from 1 to %d", runs, RUNS_MAX);
    dr_made_up made;
    dr_status s = dr_made_up_init(&made, m, width, height, batch, err);
    if (s) return s;
    double *ms = dr_malloc((size_t)runs * sizeof *ms);
    if (!ms) s = dr_fail(err, DR_NOMEM, "no memory for %d runs", runs);
    for (int i = -WARM_UPS; i < runs && !s; i++) {
        dr_made_up_fill(&made);
        int64_t t = dr_clock_ns();
        s = dr_made_up_run(&made, err);
        if (i >= 0) ms[i] = (double)(dr_clock_ns() - t) / 1e6;
    }
    if (!s) {
        qsort(ms, (size_t)runs, sizeof *ms, by_value);
        dr_bench b = {.batch = batch, .runs = runs, .min_ms = ms[0], .peak_rss_mb = peak_rss_mb()};
        b.median_ms = runs % 2 ? ms[runs / 2] : (ms[runs / 2 - 1] + ms[runs / 2]) / 2;
        b.mpix_per_s = (double)batch * (double)width * (double)height / 1e3 / b.median_ms;
        *ret = b;
    }
    dr_made_up_done(&made);
    dr_free(ms);
    return s;
}
