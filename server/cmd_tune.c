/* cmd_tune.c - deraind tune: the fastest convolution plans of this GPU into a file that serve, run, train and bench
 * read.
 *
 * Forward passes of a model at some sizes (--model), or training steps (--train). What was found for one size is in the
 * file before the next begins, so a tuning that is broken off is not lost. */
#include "core/base/log.h"
#include "core/base/parse.h"
#include "core/tune.h"
#include "server/commands.h"
#include "server/opts.h"
#include <stdio.h>
#include <string.h>

enum { LIST_MAX = 16, SIDE_MIN = 16, SIDE_MAX = 32768, BATCH_MAX = 64 };

/* Pieces between commas, each for `take`; false if one is not taken. */
static bool parse_list(const char *text, bool (*take)(const char *one, int i, void *to), void *to, int *ret_n) {
    char one[32];
    int n = 0;
    for (const char *p = text;;) {
        const size_t len = strcspn(p, ",");
        if (n == LIST_MAX || len >= sizeof one) return false;
        memcpy(one, p, len);
        one[len] = 0;
        if (!take(one, n++, to)) return false;
        if (!p[len]) break;
        p += len + 1;
    }
    *ret_n = n;
    return true;
}

static bool take_batch(const char *one, int i, void *to) {
    return dr_parse_int(one, 1, BATCH_MAX, (int *)to + i);
}

static bool take_size(const char *one, int i, void *to) {
    dr_tune_size *s = (dr_tune_size *)to + i;
    return dr_parse_size(one, SIDE_MIN, SIDE_MAX, &s->width, &s->height);
}

static void say(const char *what, const dr_tuned *t) {
    printf("%s: %d plans tuned, %.2f ms before, %.2f ms after\n", what, t->plans, t->before_ms, t->after_ms);
    fflush(stdout);
}

static void on_size(const dr_tune_size *size, const dr_tuned *found, void *arg) {
    char what[64];
    (void)arg;
    if (size->batch == 1)
        snprintf(what, sizeof what, "%dx%d", size->width, size->height);
    else
        snprintf(what, sizeof what, "%dx%d, %d at a time", size->width, size->height, size->batch);
    say(what, found);
}

static dr_status tune_model(const dr_tune_opts *o, const char *model, const dr_tune_size *sizes, int n_sizes,
                            const int *batch, int n_batches, dr_error *err) {
    dr_tune_size all[LIST_MAX * LIST_MAX];
    int n = 0;
    for (int i = 0; i < n_sizes; i++)
        for (int b = 0; b < n_batches; b++) all[n++] = (dr_tune_size){sizes[i].width, sizes[i].height, batch[b]};
    return dr_tune_model(o, model, all, n, err);
}

static dr_status tune_training(dr_train_opts *t, const int *batch, int n_batches, dr_error *err) {
    for (int i = 0; i < n_batches; i++) {
        dr_tuned found;
        char what[64];
        t->batch = batch[i];
        dr_status s = dr_tune_training(t, &found, err);
        if (s) return s;
        snprintf(what, sizeof what, "training step, crop %d, batch %d", t->crop, t->batch);
        say(what, &found);
    }
    return DR_OK;
}

int srv_cmd_tune(int argc, char **argv) {
    const char *model = NULL, *size_list = NULL, *batch_list = NULL;
    bool train = false, quiet = false;
    int batches[LIST_MAX], n_sizes = 0, n_batches = 0;
    dr_tune_size sizes[LIST_MAX];
    dr_train_opts t;
    dr_train_opts_init(&t);
    t.preset = "released";
    t.crop = 128;
    t.ngf = 64;
    t.blocks = 9;
    const srv_opt opts[] = {
        {.name = "plan-cache",
         .kind = SRV_OPT_TEXT,
         .to = &t.plan_cache,
         .arg = "FILE",
         .help = "what is found goes into it; what it knows is not tried again",
         .required = true},
        {.name = "model", .kind = SRV_OPT_TEXT, .to = &model, .arg = "FILE", .help = "generator (safetensors)"},
        {.name = "sizes",
         .kind = SRV_OPT_TEXT,
         .to = &size_list,
         .arg = "LIST",
         .help = "of its pictures [256x256,512x512,1920x1080]"},
        {.name = "batch",
         .kind = SRV_OPT_TEXT,
         .to = &batch_list,
         .arg = "LIST",
         .help = "pictures at a time, as a daemon or a training has them [1]"},
        {.name = "train", .kind = SRV_OPT_FLAG, .to = &train, .help = "tune a training step instead of a model"},
        {.name = "preset",
         .kind = SRV_OPT_TEXT,
         .to = &t.preset,
         .arg = "NAME",
         .choices = "released|full|product",
         .help = "with --train: objective [released]"},
        SRV_OPTS_STEP(&t),
        {.name = "precision",
         .kind = SRV_OPT_TEXT,
         .to = &t.precision,
         .arg = "NAME",
         .choices = SRV_PRECISIONS,
         .help = "arithmetic of the convolutions [auto: f16 on a GPU]; with --train f32 or bf16 [bf16]"},
        {.name = "quiet", .kind = SRV_OPT_FLAG, .to = &quiet, .help = "no line for each plan on stderr"},
        SRV_OPTS_ENGINE(&t.backend, &t.threads),
        {0},
    };
    const srv_opts_spec spec = {
        .command = "tune",
        .args = "",
        .what = "Time the convolution plans of this GPU for a model's sizes, or for training, and keep the fastest.",
        .more = "The file is named to serve, run, train and bench by plan_cache or --plan-cache. Needs the GPU for "
                "itself;\n"
                "takes seconds a size. On the CPU there is nothing to tune.\n",
        .opts = opts,
    };
    int rc = srv_opts_parse(&spec, argc, argv, NULL, NULL);
    if (rc != SRV_OPTS_GO) return rc;
    if (!train && !model) return srv_opts_usage("tune", "--model is missing (or --train)");
    if (train && (model || size_list))
        return srv_opts_usage("tune", "--train goes with --crop, not with --model and --sizes");
    if (train && t.precision && strcmp(t.precision, "f32") && strcmp(t.precision, "bf16"))
        return srv_opts_usage("tune", "--train computes in f32 or bf16, not in %s", t.precision);
    if (train && t.crop % 4) return srv_opts_usage("tune", "--crop is not a multiple of 4");
    if (train && t.ngf % 16) return srv_opts_usage("tune", "--ngf is not a multiple of 16");
    if (!parse_list(size_list ? size_list : "256x256,512x512,1920x1080", take_size, sizes, &n_sizes))
        return srv_opts_usage("tune", "--sizes '%.60s' is no list of at most %d sizes as 256x256, with commas between",
                              size_list, LIST_MAX);
    if (!parse_list(batch_list ? batch_list : "1", take_batch, batches, &n_batches))
        return srv_opts_usage("tune", "--batch '%.60s' is no list of at most %d numbers from 1 to %d", batch_list,
                              LIST_MAX, BATCH_MAX);
    if (!quiet) dr_log_setup(DR_LOG_DEBUG, false);
    dr_error err = {0};
    const dr_tune_opts o = {.backend = t.backend,
                            .precision = t.precision,
                            .threads = t.threads,
                            .plan_cache = t.plan_cache,
                            .on_size = on_size};
    dr_status s = train ? tune_training(&t, batches, n_batches, &err)
                        : tune_model(&o, model, sizes, n_sizes, batches, n_batches, &err);
    if (s == DR_UNSUPPORTED && !strcmp(err.what, "nothing_to_tune")) {
        printf("%s\n", err.text);
        return SRV_EXIT_OK;
    }
    return s ? srv_cmd_fail("tune", &err) : SRV_EXIT_OK;
}
