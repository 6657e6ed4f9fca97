/* cmd_bench.c - deraind bench: time and memory of a forward pass, or of a training step on made-up pictures. */
#include "core/derain.h"
#include "core/trainer.h"
#include "server/commands.h"
#include "server/opts.h"
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

static double peak_rss_mb(void) {
    struct rusage u;
    return getrusage(RUSAGE_SELF, &u) ? 0 : (double)u.ru_maxrss * 1024 / 1e6;
}

static bool print(bool json, const char *what, const char *backend, const dr_bench *b, int w, int h) {
    if (!json) {
        char many[32] = "";
        if (b->batch > 1) snprintf(many, sizeof many, ", %d at once", b->batch);
        printf("%s %d x %d%s, %s: median %.1f ms, best %.1f ms of %d; %.2f megapixels/s; peak memory %.0f MB\n", what,
               w, h, many, backend, b->median_ms, b->min_ms, b->runs, b->mpix_per_s, b->peak_rss_mb);
        return true;
    }
    json_t *root = json_pack("{s:s, s:s, s:i, s:i, s:i, s:i, s:f, s:f, s:f, s:f}", "what", what, "backend", backend,
                             "width", w, "height", h, "batch", b->batch, "runs", b->runs, "median_ms", b->median_ms,
                             "min_ms", b->min_ms, "mpix_per_s", b->mpix_per_s, "peak_rss_mb", b->peak_rss_mb);
    bool ok = root && !json_dumpf(root, stdout, JSON_REAL_PRECISION(8));
    if (ok) putchar('\n');
    json_decref(root);
    return ok;
}

static dr_status bench_forward(const char *model, const dr_engine_opts *eo, const int size[2], int batch, int runs,
                               bool json, dr_error *err) {
    dr_engine *engine = NULL;
    dr_model *m = NULL;
    dr_bench b;
    dr_status s = dr_engine_open(eo, &engine, err);
    if (!s) s = dr_model_open(engine, model, &m, err);
    if (!s) s = dr_bench_run(m, size[0], size[1], batch, runs, &b, err);
    if (!s && !print(json, "forward", dr_model_device(m), &b, size[0], size[1]))
        s = dr_fail(err, DR_IO, "could not write the result");
    dr_model_close(m);
    dr_engine_close(engine);
    return s;
}

static dr_status bench_train(const dr_train_opts *o, int runs, bool json, dr_error *err) {
    dr_bench b = {.batch = o->batch > 0 ? o->batch : 1, .runs = runs};
    dr_status s = dr_trainer_bench(o, runs, &b.median_ms, &b.min_ms, err);
    if (s) return s;
    int crop = o->crop;
    b.mpix_per_s = (double)b.batch * crop * crop / 1e3 / b.median_ms;
    b.peak_rss_mb = peak_rss_mb();
    return print(json, "training step", o->backend ? o->backend : "auto", &b, crop, crop)
               ? DR_OK
               : dr_fail(err, DR_IO, "could not write the result");
}

int srv_cmd_bench(int argc, char **argv) {
    const char *model = NULL, *backend = NULL, *precision = NULL;
    int threads = 0, size[2] = {0, 0}, runs = 10;
    bool json = false, train = false;
    dr_train_opts t;
    dr_train_opts_init(&t);
    t.preset = "released"; /* METHOD.md section 9 */
    t.crop = 128;
    t.ngf = 64;
    t.blocks = 9;
    const srv_opt opts[] = {
        {.name = "model", .kind = SRV_OPT_TEXT, .to = &model, .arg = "FILE", .help = "generator (safetensors)"},
        {.name = "size",
         .kind = SRV_OPT_SIZE,
         .to = size,
         .arg = "WxH",
         .lo = 16,
         .hi = 32768,
         .help = "of the picture"},
        {.name = "runs",
         .kind = SRV_OPT_INT,
         .to = &runs,
         .arg = "N",
         .lo = 1,
         .hi = 10000,
         .help = "after the warm-up [10]"},
        {.name = "json", .kind = SRV_OPT_FLAG, .to = &json, .help = "one JSON object"},
        {.name = "train", .kind = SRV_OPT_FLAG, .to = &train, .help = "time a training step instead of a model"},
        SRV_OPTS_STEP(&t),
        {.name = "batch",
         .kind = SRV_OPT_INT,
         .to = &t.batch,
         .arg = "N",
         .lo = 1,
         .hi = 64,
         .help = "pictures at once, or with --train a step [1]"},
        {.name = "precision",
         .kind = SRV_OPT_TEXT,
         .to = &precision,
         .arg = "NAME",
         .choices = SRV_PRECISIONS,
         .help = "arithmetic of the convolutions [auto: f16 on a GPU, f32 on the CPU]; with --train f32 or bf16"},
        SRV_OPTS_ENGINE(&backend, &threads),
        SRV_OPTS_PLAN_CACHE(&t.plan_cache),
        {0},
    };
    const srv_opts_spec spec = {
        .command = "bench",
        .args = "",
        .what = "Measure a forward pass (--model, --size) or a training step (--train): time and peak memory.",
        .opts = opts,
    };
    int rc = srv_opts_parse(&spec, argc, argv, NULL, NULL);
    if (rc != SRV_OPTS_GO) return rc;
    if (!train && !model) return srv_opts_usage("bench", "--model is missing (or --train)");
    if (!train && !size[0]) return srv_opts_usage("bench", "--size is missing");
    if (train && (model || size[0]))
        return srv_opts_usage("bench", "--train goes with --crop, not with --model and --size");
    if (train && precision && strcmp(precision, "f32") && strcmp(precision, "bf16"))
        return srv_opts_usage("bench", "--train computes in f32 or bf16, not in %s", precision);
    const dr_engine_opts eo = {
        .backend = backend, .threads = threads, .precision = precision, .plan_cache = t.plan_cache};
    dr_error err = {0};
    t.backend = backend;
    t.precision = precision;
    t.threads = threads;
    dr_status s = train ? bench_train(&t, runs, json, &err)
                        : bench_forward(model, &eo, size, t.batch > 0 ? t.batch : 1, runs, json, &err);
    return s ? srv_cmd_fail("bench", &err) : SRV_EXIT_OK;
}
