/* bench.c - how long a served picture takes from pixels to pixels: 8-bit RGB, without its decoder and encoder. */
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

/* Waves of changing length, so that neighbours are alike as in a picture and no two rows equal. */
static void fill(dr_image *img) {
    uint8_t *p = img->pixels;
    for (size_t k = 0, n = img->stride * (size_t)img->height; k < n; k++)
        p[k] = (uint8_t)(128 + (int)(120 * sinf((float)(k % 8191) * 0.05f)));
}

dr_status dr_bench_run(dr_model *m, int width, int height, int runs, dr_bench *ret, dr_error *err) {
    if (runs < 1 || runs > RUNS_MAX)
        return dr_fail(err, DR_INVALID, "runs %d: it must be from 1 to %d", runs, RUNS_MAX);
    dr_limits lim = {0};
    dr_limits_fill(&lim);
    if (width < lim.side_min || height < lim.side_min || width > lim.side_max || height > lim.side_max)
        return dr_fail(err, DR_INVALID, "%d x %d pixels: sides must be from %d to %d", width, height, lim.side_min,
                       lim.side_max);
    dr_status fits = dr_model_check_budget(m, width, height, lim.mem_budget, err); /* before the picture is made */
    if (fits) return fits;
    dr_image img = {0};
    double *ms = dr_malloc((size_t)runs * sizeof *ms);
    dr_status s =
        ms ? dr_image_init(&img, width, height, 3, 8, err) : dr_fail(err, DR_NOMEM, "no memory for %d runs", runs);
    for (int i = -WARM_UPS; i < runs && !s; i++) {
        fill(&img); /* the last run's output is in it */
        int64_t t = dr_clock_ns();
        s = dr_model_run_image(m, &img, 0, lim.mem_budget, NULL, err);
        if (i >= 0) ms[i] = (double)(dr_clock_ns() - t) / 1e6;
    }
    if (!s) {
        qsort(ms, (size_t)runs, sizeof *ms, by_value);
        dr_bench b = {.runs = runs, .min_ms = ms[0], .peak_rss_mb = peak_rss_mb()};
        b.median_ms = runs % 2 ? ms[runs / 2] : (ms[runs / 2 - 1] + ms[runs / 2]) / 2;
        b.mpix_per_s = (double)width * (double)height / 1e3 / b.median_ms;
        *ret = b;
    }
    dr_image_done(&img);
    dr_free(ms);
    return s;
}
