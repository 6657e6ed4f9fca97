/* train_run.c - one training of `deraind train`: steps a trainer and writes what a person wants to see and keep.
 *
 * OUT holds, all but the two CSV files written to a temporary file and renamed, so that a full disk or a kill leaves
 * the last good ones:
 *   checkpoint.safetensors   everything, for --resume         train.safetensors   all nets in F16, for --init
 *   latest.safetensors       the generator to serve, F16      best.safetensors    the best of them by PSNR-Y on the
 *                                                             evaluation folders, else the same as latest
 *   metrics.csv, eval.csv    a row every --log-every steps; a row an evaluation
 *   samples/step_NNNNNNN.png contact sheets
 *
 * SIGINT and SIGTERM end the training after the step at hand, with a checkpoint; a second one ends it at once. */
#include "server/train_run.h"
#include "core/base/alloc.h"
#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/fs.h"
#include "core/base/parse.h"
#include "core/derain.h"
#include "core/trainer.h"
#include "server/commands.h"
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define CSV_MAX      (1u << 30) /* bytes of an earlier metrics.csv */
#define TALK_EVERY_S 10.0       /* seconds between lines where stderr is no terminal */

typedef struct run {
    dr_train_opts o;
    srv_train_wishes w;
    char *checkpoint, *latest, *best, *all, *candidate, *metrics, *evals, *samples;
    dr_trainer *t;
    dr_engine *engine; /* for evaluation, opened when needed */
    FILE *csv;
    dr_train_metrics sum; /* since the last row of metrics.csv */
    int64_t n_sum, steps; /* steps: planned, known from the first step on */
    double pace;          /* seconds a step, smoothed */
    double best_psnr, best_gain;
    int64_t best_step;     /* -1 = no evaluation yet */
    bool tty, csv_skipped; /* csv_skipped: metrics.csv has that column */
    int64_t talked_ns;
} run;

static volatile sig_atomic_t stop_signal;

static void on_signal(int sig) {
    stop_signal = sig;
}

static void watch_signals(void) {
    struct sigaction a = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    sigemptyset(&a.sa_mask);
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
}

/* ---- talk ------------------------------------------------------------------------------------------------------ */

static void clear_line(const run *r) {
    if (r->tty) fprintf(stderr, "\r\033[K");
}

static void duration(double s, char ret[24]) {
    if (!(s >= 0) || s > 1e8) s = 0;
    int64_t t = (int64_t)(s + 0.5);
    if (t >= 3600)
        snprintf(ret, 24, "%" PRId64 "h%02dm", t / 3600, (int)(t / 60 % 60));
    else
        snprintf(ret, 24, "%dm%02ds", (int)(t / 60), (int)(t % 60));
}

static void talk_progress(run *r, const dr_train_metrics *m) {
    int64_t now = dr_clock_ns();
    double since = (double)(now - r->talked_ns) * 1e-9;
    bool last = m->step >= m->steps;
    if (r->talked_ns && !last && since < (r->tty ? 0.1 : TALK_EVERY_S)) return;
    r->talked_ns = now;
    char left[24], line[1024];
    duration((double)(m->steps - m->step) * r->pace, left);
    int n = snprintf(line, sizeof line, "step %" PRId64 "/%" PRId64 "  %.2f steps/s  left %s  lr x%.3f", m->step,
                     m->steps, r->pace > 0 ? 1 / r->pace : 0, left, m->lr_factor);
    for (int i = 0; i < m->n && n > 0 && (size_t)n < sizeof line; i++)
        n += snprintf(line + n, sizeof line - (size_t)n, "  %s %.4g", m->name[i], m->value[i]);
    if (r->tty) {
        struct winsize w;
        int cols = ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 1 ? w.ws_col - 1 : 79;
        fprintf(stderr, "\r%.*s\033[K%s", cols, line, last ? "\n" : "");
    } else {
        fprintf(stderr, "%s\n", line);
    }
}

/* The first, and whenever there are twice as many. */
static void tell_skipped(const run *r, const dr_train_metrics *m) {
    if (m->n_skipped & (m->n_skipped - 1)) return;
    clear_line(r);
    fprintf(stderr,
            "deraind train: step %" PRId64 " was left out: %s is not finite there; %" PRId64 " of %" PRId64
            " so far; training goes on\n",
            m->step, m->not_finite, m->n_skipped, m->step);
}

static void warn(const run *r, const char *doing, const dr_error *err) {
    clear_line(r);
    fprintf(stderr, "deraind train: %s: %s; training goes on\n", doing,
            err->text[0] ? err->text : dr_status_text(err->code));
}

/* ---- metrics.csv and eval.csv ----------------------------------------------------------------------------------- */

/* Keeps the rows of an earlier run up to `step`, so that a resumed one appends without doubles; a last line that was
 * cut off goes too. An absent file is an empty one. line() sees every row that stays. */
static dr_status keep_rows(const char *path, int64_t step, void (*line)(const char *row, void *arg), void *arg,
                           dr_error *err) {
    char *text = NULL;
    size_t len = 0;
    if (!dr_fs_exists(path)) return DR_OK;
    dr_status s = dr_fs_read(path, CSV_MAX, &text, &len, err);
    if (s) return s;
    size_t out = 0;
    for (char *p = text, *end = text + len, *nl; p < end && (nl = memchr(p, '\n', (size_t)(end - p))); p = nl + 1) {
        size_t n = (size_t)(nl - p) + 1;
        char *comma = memchr(p, ',', n);
        int64_t at = 0;
        bool header = p == text;
        if (!header) {
            if (!comma) continue;
            *comma = 0;
            bool ok = dr_parse_i64(p, 0, INT64_MAX, &at);
            *comma = ',';
            if (!ok || at > step) continue;
            if (line) {
                *nl = 0;
                line(p, arg);
                *nl = '\n';
            }
        }
        memmove(text + out, p, n);
        out += n;
    }
    if (out < len) s = dr_fs_write_atomic(path, text, out, err);
    dr_free(text);
    return s;
}

/* Does the first line of a file that is there end in this column? Files of earlier versions have fewer. */
static bool has_column(const char *path, const char *last) {
    char head[2048];
    FILE *f = fopen(path, "r");
    const char *comma = f && fgets(head, sizeof head, f) ? strrchr(head, ',') : NULL;
    const size_t n = strlen(last);
    const bool there = comma && !strncmp(comma + 1, last, n) && comma[1 + n] == '\n';
    if (f) fclose(f);
    return there;
}

/* eval.csv: step,input,output,gain,... */
static void note_eval_row(const char *row, void *arg) {
    run *r = arg;
    char field[64];
    double v[4] = {0};
    const char *p = row;
    for (int i = 0; i < 4; i++) {
        size_t n = strcspn(p, ",");
        if (n >= sizeof field) return;
        memcpy(field, p, n);
        field[n] = 0;
        if (!dr_parse_double(field, -1e18, 1e18, &v[i])) return;
        if (p[n] != ',' && i < 3) return;
        p += n + 1;
    }
    if (r->best_step < 0 || v[2] > r->best_psnr) {
        r->best_step = (int64_t)v[0];
        r->best_psnr = v[2];
        r->best_gain = v[3];
    }
}

static dr_status open_csv(run *r, dr_error *err) {
    if (r->o.resume) {
        int64_t at = dr_trainer_at(r->t);
        dr_status s = keep_rows(r->metrics, at, NULL, NULL, err);
        if (!s) s = keep_rows(r->evals, at, note_eval_row, r, err);
        if (s) return s;
        if (!dr_fs_exists(r->best)) r->best_step = -1;
    } else if ((unlink(r->metrics) && errno != ENOENT) || (unlink(r->evals) && errno != ENOENT)) {
        return dr_fail_errno(err, errno, "remove", r->metrics);
    }
    r->csv_skipped = has_column(r->metrics, "skipped");
    r->csv = fopen(r->metrics, "a");
    if (!r->csv || fseeko(r->csv, 0, SEEK_END)) return dr_fail_errno(err, errno, "open", r->metrics);
    return DR_OK;
}

/* Means over the steps since the last row that were not left out; no row where all were. A full disk costs rows, not
 * the training. */
static void log_step(run *r, const dr_train_metrics *m) {
    if (!m->skipped) {
        if (r->n_sum == 0 || r->sum.n != m->n) {
            r->sum = *m;
            r->sum.seconds = 0;
            for (int i = 0; i < m->n; i++) r->sum.value[i] = 0;
            r->n_sum = 0;
        }
        r->sum.seconds += m->seconds;
        for (int i = 0; i < m->n; i++) r->sum.value[i] += m->value[i];
        r->n_sum++;
    }
    if ((m->step % r->w.log_every && m->step < m->steps) || !r->n_sum) return;
    if (ftello(r->csv) == 0) {
        fprintf(r->csv, "step,lr_factor,seconds_per_step");
        for (int i = 0; i < r->sum.n; i++) fprintf(r->csv, ",%s", r->sum.name[i]);
        fprintf(r->csv, ",skipped\n");
        r->csv_skipped = true;
    }
    double n = (double)r->n_sum;
    fprintf(r->csv, "%" PRId64 ",%.6g,%.6g", m->step, m->lr_factor, r->sum.seconds / n);
    for (int i = 0; i < r->sum.n; i++) fprintf(r->csv, ",%.9g", r->sum.value[i] / n);
    if (r->csv_skipped) fprintf(r->csv, ",%" PRId64, m->n_skipped);
    fprintf(r->csv, "\n");
    if (fflush(r->csv)) clearerr(r->csv);
    r->n_sum = 0;
}

static dr_status log_eval(const run *r, int64_t step, const dr_eval *e, dr_error *err) {
    FILE *f = fopen(r->evals, "a");
    if (!f) return dr_fail_errno(err, errno, "open", r->evals);
    const dr_score *i = &e->mean_input, *o = &e->mean_output;
    if (fseeko(f, 0, SEEK_END) == 0 && ftello(f) == 0)
        fprintf(f, "step,input_psnr_y,output_psnr_y,gain_psnr_y,input_ssim_y,output_ssim_y,gain_ssim_y,input_psnr_rgb,"
                   "output_psnr_rgb,gain_psnr_rgb,input_ssim_rgb,output_ssim_rgb,gain_ssim_rgb\n");
    fprintf(f, "%" PRId64 ",%.6f,%.6f,%.6f,%.7f,%.7f,%.7f,%.6f,%.6f,%.6f,%.7f,%.7f,%.7f\n", step, i->psnr_y, o->psnr_y,
            o->psnr_y - i->psnr_y, i->ssim_y, o->ssim_y, o->ssim_y - i->ssim_y, i->psnr_rgb, o->psnr_rgb,
            o->psnr_rgb - i->psnr_rgb, i->ssim_rgb, o->ssim_rgb, o->ssim_rgb - i->ssim_rgb);
    bool bad = ferror(f);
    return fclose(f) || bad ? dr_fail_errno(err, errno ? errno : EIO, "write", r->evals) : DR_OK;
}

/* ---- evaluating and saving ------------------------------------------------------------------------------------- */

static void show_eval_row(const dr_eval_row *row, size_t i, size_t n, void *arg) {
    const run *r = arg;
    if (r->tty) fprintf(stderr, "\revaluating %zu/%zu  %.40s\033[K", i + 1, n, row->name);
}

/* What would be served now, on the evaluation folders; becomes best.safetensors where it is. */
static dr_status evaluate(run *r, dr_error *err) {
    dr_model *m = NULL;
    dr_eval e = {0};
    int64_t step = dr_trainer_at(r->t);
    dr_status s = DR_OK;
    if (!r->engine) {
        dr_engine_opts eo = {.backend = r->o.backend, .threads = r->o.threads, .plan_cache = r->o.plan_cache};
        s = dr_engine_open(&eo, &r->engine, err);
    }
    if (!s) s = dr_trainer_export(r->t, r->candidate, "F16", err);
    if (!s) s = dr_model_open(r->engine, r->candidate, &m, err);
    if (!s) s = dr_evaluate(m, r->o.eval_rainy, r->o.eval_clean, show_eval_row, r, &e, err);
    dr_model_close(m);
    if (!s) {
        double psnr = e.mean_output.psnr_y, gain = psnr - e.mean_input.psnr_y;
        bool better = r->best_step < 0 || psnr > r->best_psnr;
        clear_line(r);
        fprintf(stderr, "step %" PRId64 "  evaluation of %zu pictures: PSNR-Y %.3f dB (%+.3f), SSIM-Y %.4f (%+.4f)%s\n",
                step, e.n, psnr, gain, e.mean_output.ssim_y, e.mean_output.ssim_y - e.mean_input.ssim_y,
                better ? ", the best so far" : "");
        s = log_eval(r, step, &e, err);
        if (!s && better) {
            if (rename(r->candidate, r->best)) {
                s = dr_fail_errno(err, errno, "write", r->best);
            } else {
                r->best_step = step;
                r->best_psnr = psnr;
                r->best_gain = gain;
            }
        }
        dr_eval_done(&e);
    }
    unlink(r->candidate); /* gone already where it became the best */
    return s;
}

static dr_status save(run *r, dr_error *err) {
    dr_status s = dr_trainer_save(r->t, r->checkpoint, err);
    if (!s) s = dr_trainer_export(r->t, r->latest, "F16", err);
    if (!s && r->best_step < 0) s = dr_trainer_export(r->t, r->best, "F16", err);
    if (!s) s = dr_trainer_export_all(r->t, r->all, err);
    return s;
}

static dr_status sheet(run *r, dr_error *err) {
    char name[40];
    snprintf(name, sizeof name, "step_%07" PRId64 ".png", dr_trainer_at(r->t));
    char *path = dr_fs_join(r->samples, name);
    if (!path) return dr_fail(err, DR_NOMEM, "no memory for a path");
    dr_status s = dr_trainer_sheet(r->t, path, err);
    dr_free(path);
    return s;
}

/* ---- the run --------------------------------------------------------------------------------------------------- */

static dr_status prepare(run *r, dr_error *err) {
    struct {
        char **to;
        const char *name;
    } paths[] = {{&r->checkpoint, "checkpoint.safetensors"},
                 {&r->latest, "latest.safetensors"},
                 {&r->best, "best.safetensors"},
                 {&r->all, "train.safetensors"},
                 {&r->candidate, ".candidate.safetensors"},
                 {&r->metrics, "metrics.csv"},
                 {&r->evals, "eval.csv"},
                 {&r->samples, "samples"}};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        if (!(*paths[i].to = dr_fs_join(r->o.out, paths[i].name)))
            return dr_fail(err, DR_NOMEM, "no memory for a path");
    if (!r->o.resume && !r->w.overwrite && dr_fs_exists(r->checkpoint))
        return dr_fail(err, DR_CONFLICT,
                       "'%s' exists: go on with --resume '%s', or choose another --out, or start anew with --overwrite",
                       r->checkpoint, r->checkpoint);
    dr_status s = dr_fs_mkdirs(r->samples, 0777, err);
    if (!s) s = dr_trainer_open(&r->o, &r->t, err);
    if (!s) s = open_csv(r, err);
    return s;
}

static void finish(run *r) {
    if (r->csv) fclose(r->csv);
    dr_trainer_close(r->t);
    dr_engine_close(r->engine);
    char *paths[] = {r->checkpoint, r->latest, r->best, r->all, r->candidate, r->metrics, r->evals, r->samples};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) dr_free(paths[i]);
}

static dr_status train(run *r, dr_error *err) {
    const srv_train_wishes *w = &r->w;
    bool has_eval = r->o.eval_rainy != NULL;
    int64_t evaluated = -1, saved = -1, drawn = -1;
    while (!dr_trainer_finished(r->t) && !stop_signal && !(w->stop_after > 0 && dr_trainer_at(r->t) >= w->stop_after)) {
        dr_train_metrics m = {0};
        dr_error later = {0}; /* of what a training can do without for now */
        int64_t t0 = dr_clock_ns();
        int at_once = dr_trainer_at_once(r->t);
        dr_status s = dr_trainer_step(r->t, &m, err);
        if (s) return s;
        if (dr_trainer_at_once(r->t) < at_once) {
            clear_line(r);
            fprintf(stderr, "deraind train: the GPU's memory is short: from here on %d of a batch at a time, not %d\n",
                    dr_trainer_at_once(r->t), at_once);
        }
        double took = (double)(dr_clock_ns() - t0) * 1e-9;
        r->pace = r->pace > 0 ? 0.95 * r->pace + 0.05 * took : took;
        if (m.skipped) tell_skipped(r, &m);
        log_step(r, &m);
        talk_progress(r, &m);
        r->steps = m.steps;
        int64_t sheet_every = w->sheet_every ? w->sheet_every : m.steps >= 20 ? m.steps / 20 : 1;
        if (m.step % sheet_every == 0) {
            drawn = m.step;
            if (sheet(r, &later)) warn(r, "sample sheet", &later);
        }
        if (has_eval && m.step % w->eval_every == 0) {
            s = evaluate(r, err);
            if (s) return s;
            evaluated = m.step;
        }
        later = (dr_error){0};
        if (m.step % w->save_every == 0) {
            if (save(r, &later))
                warn(r, "saving", &later);
            else
                saved = m.step;
        }
    }
    int64_t at = dr_trainer_at(r->t);
    bool finished = dr_trainer_finished(r->t);
    clear_line(r);
    /* the checkpoint first: an evaluation may take long and the next signal ends the process */
    if (saved != at) {
        dr_status s = save(r, err);
        if (s) return s;
    }
    if (finished) {
        dr_error later = {0};
        if (drawn != at && sheet(r, &later)) warn(r, "sample sheet", &later);
        if (has_eval && evaluated != at) {
            dr_status s = evaluate(r, err);
            if (s) return s;
        }
    }
    return DR_OK;
}

static void sum_up(const run *r) {
    int64_t at = dr_trainer_at(r->t);
    printf("%s: %" PRId64 " steps done", r->o.out, at);
    if (r->steps > at) printf(" of %" PRId64, r->steps);
    if (dr_trainer_skipped(r->t) > 0) printf(", %" PRId64 " left out as not finite", dr_trainer_skipped(r->t));
    if (r->best_step >= 0)
        printf("; best at step %" PRId64 ": PSNR-Y %.3f dB (%+.3f)", r->best_step, r->best_psnr, r->best_gain);
    printf("\n");
    if (!dr_trainer_finished(r->t))
        printf("stopped%s; go on with the same options and --resume %s\n", stop_signal ? " by a signal" : "",
               r->checkpoint);
    fflush(stdout);
}

int srv_train_run(const dr_train_opts *o, const srv_train_wishes *w) {
    run r = {.o = *o, .w = *w, .best_step = -1, .tty = isatty(STDERR_FILENO) == 1};
    dr_error err = {0};
    watch_signals();
    dr_status s = prepare(&r, &err);
    if (!s) {
        fprintf(stderr, "%s\n", dr_trainer_describe(r.t));
        s = train(&r, &err);
        if (!s) sum_up(&r);
    }
    int rc = s ? srv_cmd_fail("train", &err) : SRV_EXIT_OK;
    if (s && r.t && dr_fs_exists(r.checkpoint))
        fprintf(stderr, "deraind train: the files of the last save are kept: --resume %s\n", r.checkpoint);
    finish(&r);
    return rc;
}
