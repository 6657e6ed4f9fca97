/* evaluate.c - scores on pairs: the rainy picture and the derained one, each against the clean one.
 *
 * The output is scored as the 8-bit picture that a user would get, METHOD.md section 11. */
#include "core/base/alloc.h"
#include "core/base/fs.h"
#include "core/image/codec.h"
#include "core/image/metrics.h"
#include "core/model/engine.h"
#include <string.h>

void dr_eval_done(dr_eval *e) {
    if (!e) return;
    for (size_t i = 0; i < e->n; i++) dr_free(e->rows[i].name);
    dr_free(e->rows);
    *e = (dr_eval){0};
}

static dr_status load(const char *dir, const char *name, const dr_limits *lim, dr_image *ret, dr_error *err) {
    char *path = dr_fs_join(dir, name), *data;
    size_t len;
    if (!path) return dr_fail(err, DR_NOMEM, "no memory for a path");
    dr_status s = dr_fs_read(path, (size_t)lim->body_max_bytes, &data, &len, err);
    if (!s) {
        s = dr_image_decode(data, len, lim, ret, err);
        if (s) dr_wrap(err, s, "%s", path);
        dr_free(data);
    }
    dr_free(path);
    return s;
}

static dr_status one_pair(dr_model *m, const char *rainy_dir, const char *clean_dir, const char *name,
                          const dr_limits *lim, dr_eval_row *ret, dr_error *err) {
    dr_image rainy = {0}, clean = {0};
    dr_eval_row row = {0};
    dr_status s = load(rainy_dir, name, lim, &rainy, err);
    if (!s) s = load(clean_dir, name, lim, &clean, err);
    if (!s && (rainy.width != clean.width || rainy.height != clean.height))
        s = dr_fail(err, DR_INVALID, "'%s': the rainy picture is %d x %d, the clean one %d x %d", name, rainy.width,
                    rainy.height, clean.width, clean.height);
    if (!s) s = dr_score_images(&rainy, &clean, &row.input, err);
    if (!s) s = dr_model_run_image(m, &rainy, 8, lim->mem_budget, NULL, err);
    if (!s) s = dr_score_images(&rainy, &clean, &row.output, err);
    row.width = clean.width;
    row.height = clean.height;
    if (!s && !(row.name = dr_strdup(name))) s = dr_fail(err, DR_NOMEM, "no memory for a name");
    dr_image_done(&rainy);
    dr_image_done(&clean);
    if (!s) *ret = row;
    return s;
}

static void add_score(dr_score *sum, const dr_score *x, double f) {
    sum->psnr_y += f * x->psnr_y;
    sum->ssim_y += f * x->ssim_y;
    sum->psnr_rgb += f * x->psnr_rgb;
    sum->ssim_rgb += f * x->ssim_rgb;
}

/* Both sorted lists hold the same names. */
static dr_status check_names(char **a, size_t na, const char *dir_a, char **b, size_t nb, const char *dir_b,
                             dr_error *err) {
    for (size_t i = 0, k = 0; i < na || k < nb;) {
        int order = i == na ? 1 : k == nb ? -1 : strcmp(a[i], b[k]);
        if (order < 0) return dr_fail(err, DR_INVALID, "'%s' in %s has no partner in %s", a[i], dir_a, dir_b);
        if (order > 0) return dr_fail(err, DR_INVALID, "'%s' in %s has no partner in %s", b[k], dir_b, dir_a);
        i++, k++;
    }
    return na ? DR_OK : dr_fail(err, DR_INVALID, "%s: no pictures", dir_a);
}

dr_status dr_evaluate(dr_model *m, const char *rainy_dir, const char *clean_dir,
                      void (*on_row)(const dr_eval_row *row, size_t i, size_t n, void *arg), void *arg, dr_eval *ret,
                      dr_error *err) {
    char **rainy = NULL, **clean = NULL;
    size_t n_rainy = 0, n_clean = 0;
    dr_eval e = {0};
    dr_limits lim = {0};
    dr_limits_fill(&lim);
    dr_status s = dr_fs_list(rainy_dir, &rainy, &n_rainy, err);
    if (!s) s = dr_fs_list(clean_dir, &clean, &n_clean, err);
    if (!s) s = check_names(rainy, n_rainy, rainy_dir, clean, n_clean, clean_dir, err);
    if (!s && !(e.rows = dr_calloc(n_rainy, sizeof *e.rows)))
        s = dr_fail(err, DR_NOMEM, "no memory for %zu rows", n_rainy);
    for (size_t i = 0; i < n_rainy && !s; i++) {
        if ((s = one_pair(m, rainy_dir, clean_dir, rainy[i], &lim, &e.rows[i], err))) break;
        e.n++;
        add_score(&e.mean_input, &e.rows[i].input, 1.0 / (double)n_rainy);
        add_score(&e.mean_output, &e.rows[i].output, 1.0 / (double)n_rainy);
        if (on_row) on_row(&e.rows[i], i, n_rainy, arg);
    }
    dr_fs_list_free(rainy, n_rainy);
    dr_fs_list_free(clean, n_clean);
    if (s)
        dr_eval_done(&e);
    else
        *ret = e;
    return s;
}
