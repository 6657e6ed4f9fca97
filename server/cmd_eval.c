/* cmd_eval.c - deraind eval: scores of a model on folders of rainy and clean pictures, as a table or as JSON. */
#include "core/derain.h"
#include "server/commands.h"
#include "server/opts.h"
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static json_t *score_json(const dr_score *a) {
    return json_pack("{s:f, s:f, s:f, s:f}", "psnr_y", a->psnr_y, "ssim_y", a->ssim_y, "psnr_rgb", a->psnr_rgb,
                     "ssim_rgb", a->ssim_rgb);
}

static dr_score minus(const dr_score *a, const dr_score *b) {
    return (dr_score){a->psnr_y - b->psnr_y, a->ssim_y - b->ssim_y, a->psnr_rgb - b->psnr_rgb,
                      a->ssim_rgb - b->ssim_rgb};
}

/* {"input": ..., "output": ..., "gain": ...}; NULL without memory. */
static json_t *scores_json(const dr_score *in, const dr_score *out) {
    dr_score gain = minus(out, in);
    return json_pack("{s:o, s:o, s:o}", "input", score_json(in), "output", score_json(out), "gain", score_json(&gain));
}

static bool print_json(const dr_model_info *model, const dr_eval *e) {
    json_t *rows = json_array(), *root;
    bool ok = rows != NULL;
    for (size_t i = 0; i < e->n && ok; i++) {
        json_t *row = scores_json(&e->rows[i].input, &e->rows[i].output);
        ok = row && !json_object_set_new(row, "name", json_string(e->rows[i].name)) &&
             !json_object_set_new(row, "width", json_integer(e->rows[i].width)) &&
             !json_object_set_new(row, "height", json_integer(e->rows[i].height));
        ok = row && !json_array_append_new(rows, row) && ok;
    }
    root = json_pack("{s:{s:s, s:i, s:s}, s:o, s:o}", "model", "name", model->name, "version", model->version, "sha256",
                     model->sha256, "pictures", rows, "mean", scores_json(&e->mean_input, &e->mean_output));
    ok = ok && root && !json_dumpf(root, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(8));
    if (ok) putchar('\n');
    json_decref(root);
    return ok;
}

/* What on_row needs: whether to print lines as they come, and whether to show progress instead. */
typedef struct talk {
    bool table, progress;
} talk;

static void print_line(const char *name, const dr_score *in, const dr_score *out) {
    printf("%-24s %7.3f %7.3f %+7.3f  %6.4f %6.4f %+7.4f  %7.3f %7.3f %+7.3f  %6.4f %6.4f %+7.4f\n", name, in->psnr_y,
           out->psnr_y, out->psnr_y - in->psnr_y, in->ssim_y, out->ssim_y, out->ssim_y - in->ssim_y, in->psnr_rgb,
           out->psnr_rgb, out->psnr_rgb - in->psnr_rgb, in->ssim_rgb, out->ssim_rgb, out->ssim_rgb - in->ssim_rgb);
}

static void on_row(const dr_eval_row *row, size_t i, size_t n, void *arg) {
    const talk *t = arg;
    if (t->table && i == 0)
        printf("%-24s %23s  %21s  %23s  %21s\n%-24s %7s %7s %7s  %6s %6s %7s  %7s %7s %7s  %6s %6s %7s\n", "",
               "PSNR-Y, dB", "SSIM-Y", "PSNR-RGB, dB", "SSIM-RGB", "picture", "input", "output", "gain", "input",
               "output", "gain", "input", "output", "gain", "input", "output", "gain");
    if (t->table) {
        print_line(row->name, &row->input, &row->output);
        fflush(stdout);
    }
    if (t->progress) fprintf(stderr, "\r%zu of %zu%s", i + 1, n, i + 1 == n ? "\n" : "");
}

int srv_cmd_eval(int argc, char **argv) {
    const char *model = NULL, *backend = NULL, *precision = NULL, *rainy = NULL, *clean = NULL;
    int threads = 0;
    bool json = false;
    const srv_opt opts[] = {
        {.name = "model",
         .kind = SRV_OPT_TEXT,
         .to = &model,
         .arg = "FILE",
         .help = "generator (safetensors)",
         .required = true},
        {.name = "rainy", .kind = SRV_OPT_TEXT, .to = &rainy, .arg = "DIR", .help = "rainy pictures", .required = true},
        {.name = "clean",
         .kind = SRV_OPT_TEXT,
         .to = &clean,
         .arg = "DIR",
         .help = "the same without rain, same names",
         .required = true},
        {.name = "json", .kind = SRV_OPT_FLAG, .to = &json, .help = "one JSON object instead of a table"},
        SRV_OPT_PRECISION(&precision),
        SRV_OPTS_ENGINE(&backend, &threads),
        {0},
    };
    const srv_opts_spec spec = {
        .command = "eval",
        .args = "",
        .what = "Score a model: PSNR and SSIM of the rainy and of the derained pictures against the clean ones.",
        .more =
            "Pictures are paired by file name; one without a partner, or of another size, is an error. Luma is BT.601\n"
            "(16..235); PSNR is capped at 100 dB; outputs are rounded to 8 bits.\n",
        .opts = opts,
    };
    int rc = srv_opts_parse(&spec, argc, argv, NULL, NULL);
    if (rc != SRV_OPTS_GO) return rc;

    dr_error err = {0};
    dr_engine *engine = NULL;
    dr_model *m = NULL;
    dr_eval e = {0};
    talk t = {.table = !json, .progress = isatty(STDERR_FILENO) && (json || !isatty(STDOUT_FILENO))};
    const dr_engine_opts eo = {.backend = backend, .threads = threads, .precision = precision};
    dr_status s = dr_engine_open(&eo, &engine, &err);
    if (!s) s = dr_model_open(engine, model, &m, &err);
    if (!s && *dr_model_note(m)) fprintf(stderr, "%s: %s\n", model, dr_model_note(m));
    if (!s) s = dr_evaluate(m, rainy, clean, on_row, &t, &e, &err);
    if (!s && json && !print_json(dr_model_get_info(m), &e)) s = dr_fail(&err, DR_IO, "could not write the result");
    if (!s && !json) {
        char name[40];
        snprintf(name, sizeof name, "mean of %zu", e.n);
        print_line(name, &e.mean_input, &e.mean_output);
    }
    dr_eval_done(&e);
    dr_model_close(m);
    dr_engine_close(engine);
    return s ? srv_cmd_fail("eval", &err) : SRV_EXIT_OK;
}
