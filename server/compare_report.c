/* compare_report.c - see compare_report.h. */
#include "server/compare_report.h"
#include "core/base/alloc.h"
#include "core/base/buf.h"
#include "server/compare_params.h"
#include "server/sign_test.h"
#include <stdio.h>
#include <string.h>

static const double CHANGED_MUCH = 20; /* dB; rain that is taken away leaves 25 and more */

size_t srv_compare_good(const srv_compare_rows *all, size_t *ret_with_clean) {
    size_t n = 0, clean = 0;
    for (size_t i = 0; i < all->n; i++) {
        n += !all->rows[i].problem;
        clean += !all->rows[i].problem && all->rows[i].row.has_truth;
    }
    if (ret_with_clean) *ret_with_clean = clean;
    return n;
}

srv_compare_pair srv_compare_pair_of(const srv_compare_rows *all, int a, int b) {
    srv_compare_pair r = {0};
    size_t clean = 0, n = srv_compare_good(all, &clean);
    for (size_t i = 0; i < all->n; i++) {
        const dr_compare_row *row = &all->rows[i].row;
        if (all->rows[i].problem) continue;
        int better = dr_compare_better(row, a, b);
        r.wins += better > 0;
        r.losses += better < 0;
        r.ties += !better;
        r.gain_rain += (row->col[a].rain - row->col[b].rain) / (double)n;
        if (row->has_truth) r.gain_psnr += (row->col[a].truth.psnr_y - row->col[b].truth.psnr_y) / (double)clean;
    }
    r.p = srv_sign_test(r.wins, r.losses);
    return r;
}

static void column_name(const srv_compare_rows *all, int column, char ret[96]) {
    if (column)
        srv_version_text(&all->versions[column - 1], ret);
    else
        snprintf(ret, 96, "input");
}

/* --- the conclusion --- */

static bool all_alike(const srv_compare_rows *all, int a, int b) {
    for (size_t i = 0; i < all->n; i++) {
        const dr_compare_row *row = &all->rows[i].row;
        if (all->rows[i].problem) continue;
        if (all->n_versions == 2 ? row->spread > 0 : row->col[a].rain != row->col[b].rain) return false;
        if (row->col[a].change.psnr_rgb != row->col[b].change.psnr_rgb) return false;
    }
    return true;
}

static const char *s_of(int n) {
    return n == 1 ? "" : "s";
}

/* a and b are versions; a is not the one that loses more often. */
static void say_pair(const srv_compare_rows *all, int a, int b, dr_buf *out) {
    const srv_compare_pair p = srv_compare_pair_of(all, a, b);
    const int n = p.wins + p.losses + p.ties;
    size_t clean;
    char x[96], y[96];
    column_name(all, a, x);
    column_name(all, b, y);
    srv_compare_good(all, &clean);
    if (all_alike(all, a, b)) {
        dr_buf_printf(out, "%s and %s give the same pictures.", x, y);
    } else if (p.ties == n) {
        dr_buf_printf(out, "%s and %s score the same on all %d picture%s.", x, y, n, s_of(n));
    } else if (p.p < SRV_COMPARE_P) {
        dr_buf_printf(out, "%s is better than %s: on %d of %d picture%s, worse on %d, equal on %d (p = %.2g)", x, y,
                      p.wins, n, s_of(n), p.losses, p.ties, p.p);
        if (clean)
            dr_buf_printf(out, ", by %.2f dB in the mean.", p.gain_psnr);
        else
            dr_buf_printf(out, ", by %.2f points of rain in the mean.", -p.gain_rain);
    } else {
        dr_buf_printf(out,
                      "Between %s and %s no difference can be told from %d picture%s: better on %d, worse on %d, "
                      "equal on %d (p = %.2f).",
                      x, y, n, s_of(n), p.wins, p.losses, p.ties, p.p);
    }
}

/* The two versions that lead, by wins less losses against all others. */
static void leaders(const srv_compare_rows *all, int *ret_first, int *ret_second) {
    int first = 0, second = 0, lead[1 + DR_COMPARE_MAX] = {0};
    for (int a = 1; a <= all->n_versions; a++)
        for (int b = 1; b <= all->n_versions; b++) {
            const srv_compare_pair p = srv_compare_pair_of(all, a, b);
            lead[a] += p.wins - p.losses;
        }
    for (int a = 1; a <= all->n_versions; a++)
        if (!first || lead[a] > lead[first]) first = a;
    for (int a = 1; a <= all->n_versions; a++)
        if (a != first && (!second || lead[a] > lead[second])) second = a;
    *ret_first = first;
    *ret_second = second;
}

/* No pixel of any picture changes. */
static bool leaves_all(const srv_compare_rows *all, int a) {
    for (size_t i = 0; i < all->n; i++)
        if (!all->rows[i].problem && all->rows[i].row.col[a].change.psnr_rgb < 100) return false;
    return true;
}

/* Each version against doing nothing. */
static void say_nothing_done(const srv_compare_rows *all, dr_buf *out) {
    int better = 0;
    for (int a = 1; a <= all->n_versions; a++) {
        const srv_compare_pair p = srv_compare_pair_of(all, a, 0);
        better += p.p < SRV_COMPARE_P && p.wins > p.losses;
    }
    if (better == all->n_versions) {
        dr_buf_printf(out, " %s are better than doing nothing.", better == 2 ? "Both" : "All");
        return;
    }
    for (int a = 1; a <= all->n_versions; a++) {
        const srv_compare_pair p = srv_compare_pair_of(all, a, 0);
        char x[96];
        column_name(all, a, x);
        if (leaves_all(all, a))
            dr_buf_printf(out, " %s leaves all pictures as they are.", x);
        else if (p.p >= SRV_COMPARE_P)
            dr_buf_printf(out, " %s cannot be told from doing nothing (p = %.2f).", x, p.p);
        else
            dr_buf_printf(out, " %s is %s than doing nothing (on %d of %d, p = %.2g).", x,
                          p.wins > p.losses ? "better" : "worse", p.wins > p.losses ? p.wins : p.losses,
                          p.wins + p.losses + p.ties, p.p);
    }
}

/* Where only the rain score speaks: a network that wipes pictures out has a good one. */
static void say_changed(const srv_compare_rows *all, size_t n, dr_buf *out) {
    for (int a = 1; a <= all->n_versions; a++) {
        double change = 0;
        char x[96];
        for (size_t i = 0; i < all->n; i++)
            if (!all->rows[i].problem) change += all->rows[i].row.col[a].change.psnr_rgb / (double)n;
        column_name(all, a, x);
        if (change < CHANGED_MUCH)
            dr_buf_printf(
                out, " %s changes the pictures very much (%.1f dB against the input): its rain score means little.", x,
                change);
    }
}

char *srv_compare_conclusion(const srv_compare_rows *all) {
    size_t clean, n = srv_compare_good(all, &clean);
    dr_buf b;
    int first, second;
    dr_buf_init(&b, 8192);
    if (n) {
        leaders(all, &first, &second);
        if (all->n_versions > 2) dr_buf_printf(&b, "Of %d versions: ", all->n_versions);
        say_pair(all, first, second, &b);
        say_nothing_done(all, &b);
        if (!clean) say_changed(all, n, &b);
        if (!clean)
            dr_buf_puts(&b, " Without clean pictures this rests on the rain score, which also falls where detail is "
                            "lost: look at the sheet.");
        else if (clean < n)
            dr_buf_printf(&b, " %zu of the %zu pictures have no clean one and were judged by the rain score.",
                          n - clean, n);
        if (n < 6) dr_buf_puts(&b, " From fewer than six pictures nothing can be told for sure.");
    } else {
        dr_buf_puts(&b, "No picture could be compared.");
    }
    if (all->n > n && n)
        dr_buf_printf(&b, " %zu picture%s could not be compared.", all->n - n, s_of((int)(all->n - n)));
    char *text = dr_buf_detach(&b, NULL);
    dr_buf_done(&b);
    return text;
}

/* --- the object --- */

/* Takes v. */
static void set(json_t *o, const char *key, json_t *v, bool *ok) {
    *ok = !json_object_set_new(o, key, v) && *ok;
}

static json_t *score_json(const dr_score *s, bool there) {
    return there ? json_pack("{s:f, s:f, s:f, s:f}", "psnr_y", s->psnr_y, "ssim_y", s->ssim_y, "psnr_rgb", s->psnr_rgb,
                             "ssim_rgb", s->ssim_rgb)
                 : json_null();
}

/* change NULL: the input. */
static json_t *column_json(const dr_compare_column *c, bool truth, bool output) {
    json_t *o = json_object();
    bool ok = o != NULL;
    set(o, "rain", json_real(c->rain), &ok);
    set(o, "truth", score_json(&c->truth, truth), &ok);
    if (output) set(o, "change", score_json(&c->change, true), &ok);
    if (output) set(o, "finite", json_boolean(c->finite), &ok);
    if (ok) return o;
    json_decref(o);
    return NULL;
}

static json_t *picture_json(const srv_compare_row *r, bool *ok) {
    const dr_compare_row *row = &r->row;
    json_t *o = json_object(), *outputs = json_array();
    set(o, "name", json_string(r->picture->name), ok);
    set(o, "sha256", json_string(r->picture->sha256), ok);
    set(o, "clean", *r->picture->clean ? json_string(r->picture->clean) : json_null(), ok);
    set(o, "problem", r->problem ? json_incref(r->problem) : json_null(), ok);
    set(o, "width", r->problem ? json_null() : json_integer(row->width), ok);
    set(o, "height", r->problem ? json_null() : json_integer(row->height), ok);
    set(o, "input", r->problem ? json_null() : column_json(&row->col[0], row->has_truth, false), ok);
    for (int a = 1; a <= row->n && !r->problem; a++)
        *ok = !json_array_append_new(outputs, column_json(&row->col[a], row->has_truth, true)) && *ok;
    set(o, "outputs", outputs, ok);
    set(o, "spread", r->problem ? json_null() : json_real(row->spread), ok);
    return o;
}

static void add_score(dr_score *sum, const dr_score *s, size_t n) {
    sum->psnr_y += s->psnr_y / (double)n;
    sum->ssim_y += s->ssim_y / (double)n;
    sum->psnr_rgb += s->psnr_rgb / (double)n;
    sum->ssim_rgb += s->ssim_rgb / (double)n;
}

static json_t *mean_json(const srv_compare_rows *all, int column, bool *ok) {
    dr_compare_column sum = {0};
    size_t clean, n = srv_compare_good(all, &clean), broken = 0;
    char name[96];
    for (size_t i = 0; i < all->n; i++) {
        const dr_compare_column *c = &all->rows[i].row.col[column];
        if (all->rows[i].problem) continue;
        sum.rain += c->rain / (double)n;
        add_score(&sum.change, &c->change, n);
        if (all->rows[i].row.has_truth) add_score(&sum.truth, &c->truth, clean);
        broken += column && !c->finite;
    }
    column_name(all, column, name);
    json_t *o = json_object();
    set(o, "column", json_string(name), ok);
    set(o, "rain", n ? json_real(sum.rain) : json_null(), ok);
    set(o, "truth", score_json(&sum.truth, clean > 0), ok);
    set(o, "change", score_json(&sum.change, column && n), ok);
    set(o, "not_finite", json_integer((json_int_t)broken), ok);
    return o;
}

static json_t *pairs_json(const srv_compare_rows *all, bool *ok) {
    json_t *list = json_array();
    size_t clean, n = srv_compare_good(all, &clean);
    for (int a = 1; a <= all->n_versions; a++)
        for (int b = 0; b < a; b++) { /* the later column against the earlier one */
            const srv_compare_pair p = srv_compare_pair_of(all, a, b);
            char x[96], y[96];
            column_name(all, a, x);
            column_name(all, b, y);
            json_t *o = json_pack("{s:s, s:s, s:i, s:i, s:i, s:f, s:o, s:o}", "a", x, "b", y, "wins", p.wins, "losses",
                                  p.losses, "ties", p.ties, "p", p.p, "psnr_y_gain",
                                  clean ? json_real(p.gain_psnr) : json_null(), "rain_change",
                                  n ? json_real(p.gain_rain) : json_null());
            *ok = !json_array_append_new(list, o) && *ok;
        }
    return list;
}

json_t *srv_compare_report(const srv_compare_rows *all, const char *job, const char *conclusion) {
    json_t *o = json_object(), *versions = json_array(), *pictures = json_array(), *means = json_array();
    size_t clean, n = srv_compare_good(all, &clean);
    bool ok = o && versions && pictures && means;
    for (int i = 0; i < all->n_versions; i++) {
        const srv_model_id *v = &all->versions[i];
        ok = !json_array_append_new(versions, json_pack("{s:s, s:I, s:s}", "name", v->name, "version",
                                                        (json_int_t)v->version, "sha256", v->sha256)) &&
             ok;
    }
    for (int c = 0; c <= all->n_versions; c++) ok = !json_array_append_new(means, mean_json(all, c, &ok)) && ok;
    for (size_t i = 0; i < all->n; i++) ok = !json_array_append_new(pictures, picture_json(&all->rows[i], &ok)) && ok;
    set(o, "job", json_string(job), &ok);
    set(o, "conclusion", json_string(conclusion), &ok);
    set(o, "measure", json_string(!clean ? "rain" : clean < n ? "mixed" : "psnr_y"), &ok);
    set(o, "compared", json_integer((json_int_t)n), &ok);
    set(o, "with_clean", json_integer((json_int_t)clean), &ok);
    set(o, "failed", json_integer((json_int_t)(all->n - n)), &ok);
    set(o, "versions", versions, &ok);
    set(o, "means", means, &ok);
    set(o, "pairs", pairs_json(all, &ok), &ok);
    set(o, "pictures", pictures, &ok);
    if (ok) return o;
    json_decref(o);
    return NULL;
}
