/* validate.c - see validate.h. In this order:
 *
 * Facts: each picture that has none yet is read, its digest compared with its name, decoded and fingerprinted. They are
 * stored every BATCH pictures or SAVE_MS, whichever comes first. What depends on settings or on luck (limits, memory, a
 * file that is not there) is told in this report but not stored.
 *
 * Findings: findings.c. Contact sheet: some of each part, and some of what was found fault with. Verdict: report and
 * sheet are on disk before the row says that they are.
 *
 * While a picture is decoded, a small file names it and says how often that was begun. A picture during which the
 * service has ended job_attempts_max times in a row is held to be the cause: it is bad, and left alone. The file is not
 * synced: it must survive the process, not the machine. */
#include "server/validate.h"
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/fs.h"
#include "core/base/log.h"
#include "core/base/parse.h"
#include "core/pictures.h"
#include "server/blobs.h"
#include "server/findings.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum {
    BATCH = 32,
    SAVE_MS = 500,
    RETRY_MS = 5000,
    SHEET_PART = 12,
    SHEET_FOUND = 24,
    SHEET_COLUMNS = 6,
    SHEET_SIDE = 160
};

struct srv_validator {
    srv_app *app;
    pthread_t thread;
    pthread_mutex_t mu; /* guards rings and id; a leaf */
    pthread_cond_t cond;
    uint64_t rings;
    char id[DB_ID]; /* at work on this one */
    atomic_bool stop;
    _Atomic double progress;
};

static bool stopping(void *arg) {
    srv_validator *v = arg;
    return atomic_load(&v->stop);
}

/* --- facts --- */

typedef struct batch {
    db_facts f[BATCH];
    size_t n;
    int64_t due_ns;
} batch;

static dr_status save(srv_validator *v, batch *b, bool now, dr_error *err) {
    if (!b->n || (!now && b->n < BATCH && dr_clock_ns() < b->due_ns)) return DR_OK;
    dr_status s = db_facts_put(v->app->db, b->f, b->n, err);
    b->n = 0;
    return s;
}

static void bad(db_facts *f, const char *code, const char *detail) {
    snprintf(f->code, sizeof f->code, "%s", code);
    snprintf(f->detail, sizeof f->detail, "%.*s", (int)sizeof f->detail - 1, detail);
}

/* Facts of one blob. False: they hold for this report only. NOMEM and a disk that fails are for another time. */
static dr_status inspect(srv_validator *v, const char *sha256, db_facts *f, bool *ret_lasting, dr_error *err) {
    const srv_app *app = v->app;
    char path[SRV_PATH], sha[DB_SHA], *data = NULL;
    size_t len = 0;
    dr_picture_facts p;
    dr_error why = {0};
    *f = (db_facts){.rain = -1};
    *ret_lasting = true;
    snprintf(f->sha256, sizeof f->sha256, "%s", sha256);
    srv_blobs_path(app->blobs, sha256, path);
    dr_status s = dr_fs_read(path, (size_t)app->cfg->body_max_bytes, &data, &len, &why);
    if (s == DR_NOT_FOUND || s == DR_TOO_LARGE) {
        bad(f, s == DR_NOT_FOUND ? "blob_damaged" : "image_too_large",
            s == DR_NOT_FOUND ? "its file is gone" : "the file has more bytes than body_max_bytes");
        *ret_lasting = false;
        return DR_OK;
    }
    if (s) return dr_fail(err, s, "%s", why.text);
    dr_sha256_hex(data, len, sha);
    if (strcmp(sha, sha256)) {
        bad(f, "blob_damaged", "its stored bytes have changed");
        *ret_lasting = false;
    } else if (!(s = dr_picture_check(data, len, &app->limits, &p, &why))) {
        snprintf(f->format, sizeof f->format, "%s", dr_format_name(p.info.format));
        f->width = p.info.width;
        f->height = p.info.height;
        f->bit_depth = p.info.bit_depth;
        f->channels = p.info.channels;
        f->grey = p.grey;
        memcpy(f->pixels, p.pixels_sha256, sizeof f->pixels);
        if (p.has_look) dr_look_format(&p.look, f->look);
        if (p.has_rain) f->rain = p.rain;
    } else if (s != DR_NOMEM) {
        bad(f, *why.what ? why.what : "image_corrupt", why.text);
        *ret_lasting = s != DR_TOO_LARGE && strcmp(why.what, "image_too_small") != 0;
        s = DR_OK;
    } else {
        s = dr_fail(err, s, "%s", why.text);
    }
    dr_free(data);
    return s;
}

/* --- trial --- */

typedef struct trial {
    int fd; /* -1: cannot be written, so nothing is known */
    char sha256[DB_SHA];
    int count;
} trial;

static void trial_write(const trial *t) {
    char line[80];
    int n = snprintf(line, sizeof line, "%-64s %06d\n", t->sha256, t->count);
    if (t->fd >= 0) (void)!pwrite(t->fd, line, (size_t)n, 0);
}

static void trial_open(srv_validator *v, const char *id, trial *t) {
    char path[SRV_PATH], line[80] = "";
    *t = (trial){0};
    srv_report_path(v->app->blobs, id, "trying", path);
    t->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (t->fd < 0 || pread(t->fd, line, sizeof line - 1, 0) < 72) return;
    line[64] = line[71] = 0;
    if (db_sha_valid(line) && dr_parse_int(line + 65 + strspn(line + 65, "0"), 1, 999999, &t->count))
        memcpy(t->sha256, line, sizeof t->sha256);
}

static void trial_close(srv_validator *v, const char *id, const trial *t) {
    char path[SRV_PATH];
    if (t->fd < 0) return;
    close(t->fd);
    srv_report_path(v->app->blobs, id, "trying", path);
    unlink(path);
}

/* inspect(), unless that has ended the service too often. */
static dr_status try_one(srv_validator *v, trial *t, const char *sha256, db_facts *f, bool *ret_lasting,
                         dr_error *err) {
    if (strcmp(t->sha256, sha256)) t->count = 0;
    memcpy(t->sha256, sha256, sizeof t->sha256);
    if (t->count >= v->app->cfg->job_attempts_max) {
        *f = (db_facts){.rain = -1};
        *ret_lasting = true;
        memcpy(f->sha256, sha256, sizeof f->sha256);
        bad(f, "image_corrupt", "the service ended again and again while it decoded this picture");
        return DR_OK;
    }
    t->count++;
    trial_write(t);
    dr_status s = inspect(v, sha256, f, ret_lasting, err);
    t->count = 0;
    trial_write(t);
    return s;
}

static int by_sha(const void *a, const void *b) {
    return strcmp((*(db_entry *const *)a)->sha256, (*(db_entry *const *)b)->sha256);
}

/* The suspect before all others, so that its count is not lost on their account. */
static int suspect_first(const void *a, const void *b, void *suspect) {
    const bool x = !strcmp((*(db_entry *const *)a)->sha256, suspect);
    const bool y = !strcmp((*(db_entry *const *)b)->sha256, suspect);
    return x != y ? y - x : by_sha(a, b);
}

/* Each blob once, however many entries name it. */
static dr_status gather(srv_validator *v, const char *id, db_entry_list *l, dr_error *err) {
    trial t;
    db_entry **order = dr_calloc(l->n + 1, sizeof(void *));
    batch *b = dr_calloc(1, sizeof *b);
    dr_status s = order && b ? DR_OK : dr_fail(err, DR_NOMEM, "no memory to validate a data set");
    trial_open(v, id, &t);
    for (size_t i = 0; i < l->n && !s; i++) order[i] = &l->e[i];
    if (!s) qsort_r(order, l->n, sizeof(void *), suspect_first, t.sha256);
    for (size_t i = 0, end; i < l->n && !s; i = end) {
        db_facts f;
        bool lasting = true;
        for (end = i + 1; end < l->n && !by_sha(&order[i], &order[end]);) end++;
        if (atomic_load(&v->stop)) s = dr_fail(err, DR_CANCELLED, "stopped");
        atomic_store(&v->progress, 0.9 * (double)i / (double)l->n);
        if (s || order[i]->has_facts) continue;
        s = try_one(v, &t, order[i]->sha256, &f, &lasting, err);
        for (size_t k = i; k < end && !s; k++) {
            order[k]->facts = f;
            order[k]->has_facts = true;
        }
        if (s || !lasting) continue;
        if (!b->n) b->due_ns = dr_clock_ns() + SAVE_MS * INT64_C(1000000);
        b->f[b->n++] = f;
        s = save(v, b, *f.code != 0, err);
    }
    if (!s || s == DR_CANCELLED) {
        dr_error e = {0};
        dr_status saved = save(v, b, true, &e);
        if (saved && !s) s = dr_fail(err, saved, "%s", e.text);
    }
    trial_close(v, id, &t);
    dr_free(order);
    dr_free(b);
    return s;
}

/* --- contact sheet --- */

typedef struct sheet {
    srv_validator *v;
    const db_entry_list *l;
    size_t at[DB_N_PARTS * SHEET_PART + SHEET_FOUND];
    dr_contact_item items[DB_N_PARTS * SHEET_PART + SHEET_FOUND];
    char labels[DB_N_PARTS * SHEET_PART + SHEET_FOUND][48];
    int n;
} sheet;

static void choose(sheet *t, size_t i, bool marked) {
    for (int k = 0; k < t->n; k++)
        if (t->at[k] == i) {
            t->items[k].marked |= marked;
            return;
        }
    const db_entry *e = &t->l->e[i];
    static const char *const initial[DB_N_PARTS] = {"R", "C", "PR", "PC"};
    t->at[t->n] = i;
    if (!*e->facts.code && e->facts.rain >= 0) /* part, rain score, name */
        snprintf(t->labels[t->n], sizeof t->labels[0], "%s %.0f %.36s", initial[e->part], e->facts.rain, e->name);
    else
        snprintf(t->labels[t->n], sizeof t->labels[0], "%s %.40s", initial[e->part], e->name);
    t->items[t->n] = (dr_contact_item){t->labels[t->n], marked};
    t->n++;
}

/* Of each part some that lie evenly in the list; then what is wrong, worst first. */
static void choose_all(sheet *t, const srv_findings *f) {
    for (int p = 0; p < DB_N_PARTS; p++) {
        size_t from = 0, n = 0;
        while (from < t->l->n && (int)t->l->e[from].part < p) from++;
        while (from + n < t->l->n && (int)t->l->e[from + n].part == p) n++;
        const size_t want = n < SHEET_PART ? n : SHEET_PART;
        for (size_t k = 0; k < want; k++) choose(t, from + k * n / want, false);
    }
    const int room = t->n + SHEET_FOUND;
    for (int grade = SRV_ERROR; grade >= SRV_WARNING; grade--)
        for (size_t i = 0; i < f->n && t->n < room; i++)
            if ((int)f->f[i].grade == grade && f->f[i].entry != SRV_NO_OTHER) choose(t, f->f[i].entry, true);
}

static dr_status read_item(void *arg, int i, char **ret, size_t *ret_len, dr_error *err) {
    const sheet *t = arg;
    const srv_app *app = t->v->app;
    char path[SRV_PATH];
    if (atomic_load(&t->v->stop)) return dr_fail(err, DR_CANCELLED, "stopped"); /* the rest goes fast */
    srv_blobs_path(app->blobs, t->l->e[t->at[i]].sha256, path);
    return dr_fs_read(path, (size_t)app->cfg->body_max_bytes, ret, ret_len, err);
}

static dr_status write_sheet(srv_validator *v, const db_entry_list *l, const srv_findings *f, const char *id,
                             dr_error *err) {
    sheet *t = dr_calloc(1, sizeof *t);
    void *png = NULL;
    size_t len = 0;
    if (!t) return dr_fail(err, DR_NOMEM, "no memory for a contact sheet");
    t->v = v;
    t->l = l;
    choose_all(t, f);
    dr_status s =
        dr_contact_sheet(t->items, t->n, SHEET_COLUMNS, SHEET_SIDE, &v->app->limits, read_item, t, &png, &len, err);
    if (!s && atomic_load(&v->stop)) s = dr_fail(err, DR_CANCELLED, "stopped");
    if (!s) s = srv_report_write(v->app->blobs, id, "png", png, len, err);
    dr_free(png);
    dr_free(t);
    return s;
}

/* --- verdict --- */

static dr_status write_json(srv_blobs *b, const char *id, json_t *report, dr_error *err) {
    char *text = report ? json_dumps(report, JSON_COMPACT) : NULL;
    dr_status s = text ? srv_report_write(b, id, "json", text, strlen(text), err)
                       : dr_fail(err, DR_NOMEM, "no memory for a report");
    free(text);
    json_decref(report);
    return s;
}

static dr_status finish(srv_validator *v, const db_dataset *set, const db_entry_list *l, const srv_findings *f,
                        const json_t *reasons, dr_error *err) {
    db_aside *aside = dr_calloc(l->n + 1, sizeof *aside);
    char *text = json_dumps(reasons, JSON_COMPACT);
    size_t n = 0;
    dr_status s = aside && text ? DR_OK : dr_fail(err, DR_NOMEM, "no memory for a verdict");
    for (size_t i = 0; i < l->n && !s; i++)
        if (f->aside[i]) aside[n++] = (db_aside){l->e[i].part, l->e[i].name, f->aside[i]};
    const bool ready = json_array_size(reasons) == 0;
    if (!s) s = db_dataset_finish(v->app->db, set->id, ready, text, aside, n, err);
    if (!s)
        dr_log(DR_LOG_INFO, NULL, "data set %s is %s: %zu pictures, %zu findings, %zu set aside", set->id,
               ready ? "ready" : "rejected", l->n, f->n, n);
    free(text);
    dr_free(aside);
    return s;
}

static dr_status validate(srv_validator *v, const char *id, dr_error *err) {
    db_dataset set = {0};
    db_entry_list l = {0};
    srv_findings f = {0};
    dr_status s = db_dataset_get(v->app->db, id, &set, err);
    if (!s) s = db_dataset_entries(v->app->db, id, false, &l, err);
    if (!s) s = gather(v, id, &l, err);
    if (!s) s = srv_findings_make(&l, stopping, v, &f, err);
    if (!s) {
        atomic_store(&v->progress, 0.95);
        json_t *reasons = srv_findings_reasons(&f, &l, set.set_aside);
        s = write_sheet(v, &l, &f, id, err);
        if (!s) s = write_json(v->app->blobs, id, srv_findings_report(&f, &l, &set, reasons), err);
        if (!s) s = finish(v, &set, &l, &f, reasons, err);
        json_decref(reasons);
    }
    if (s == DR_NOT_FOUND || s == DR_CONFLICT) { /* deleted meanwhile */
        srv_report_erase(v->app->blobs, id);
        s = DR_OK;
    }
    srv_findings_clear(&f);
    db_entry_list_clear(&l);
    db_dataset_clear(&set);
    return s;
}

/* --- the thread --- */

static void at_work_on(srv_validator *v, const char *id) {
    pthread_mutex_lock(&v->mu);
    atomic_store(&v->progress, 0);
    snprintf(v->id, sizeof v->id, "%s", id);
    pthread_mutex_unlock(&v->mu);
}

/* Until it rang since, at most `ms` (0 = for ever), or stop. */
static void wait_ring(srv_validator *v, uint64_t seen, int64_t ms) {
    int64_t end = dr_clock_ns() + ms * INT64_C(1000000);
    const struct timespec ts = {.tv_sec = end / 1000000000, .tv_nsec = end % 1000000000};
    pthread_mutex_lock(&v->mu);
    while (v->rings == seen && !atomic_load(&v->stop)) {
        if (!ms)
            pthread_cond_wait(&v->cond, &v->mu);
        else if (pthread_cond_timedwait(&v->cond, &v->mu, &ts) == ETIMEDOUT)
            break;
    }
    pthread_mutex_unlock(&v->mu);
}

static uint64_t rings(srv_validator *v) {
    pthread_mutex_lock(&v->mu);
    uint64_t n = v->rings;
    pthread_mutex_unlock(&v->mu);
    return n;
}

static void *run(void *arg) {
    srv_validator *v = arg;
    char id[DB_ID];
    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), 5); /* of this thread: inference goes first */
    while (!atomic_load(&v->stop)) {
        dr_error err = {0};
        uint64_t seen = rings(v);
        dr_status s = db_dataset_next(v->app->db, id, &err);
        if (s == DR_NOT_FOUND) {
            wait_ring(v, seen, 0);
            continue;
        }
        if (!s) {
            at_work_on(v, id);
            s = validate(v, id, &err);
            at_work_on(v, "");
        }
        if (!s) srv_park_wake_key(v->app->watch, id);
        if (!s || s == DR_CANCELLED) continue;
        dr_log(DR_LOG_ERROR, NULL, "validation: %s; trying again", err.text);
        wait_ring(v, rings(v), RETRY_MS);
    }
    return NULL;
}

dr_status srv_validator_start(srv_app *app, srv_validator **ret, dr_error *err) {
    srv_validator *v = dr_calloc(1, sizeof *v);
    pthread_condattr_t attr;
    if (!v) return dr_fail(err, DR_NOMEM, "out of memory");
    v->app = app;
    pthread_mutex_init(&v->mu, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&v->cond, &attr);
    pthread_condattr_destroy(&attr);
    if (pthread_create(&v->thread, NULL, run, v)) {
        pthread_cond_destroy(&v->cond);
        pthread_mutex_destroy(&v->mu);
        dr_free(v);
        return dr_fail(err, DR_NOMEM, "cannot start the validator");
    }
    *ret = v;
    return DR_OK;
}

void srv_validator_ring(srv_validator *v) {
    pthread_mutex_lock(&v->mu);
    v->rings++;
    pthread_cond_signal(&v->cond);
    pthread_mutex_unlock(&v->mu);
}

void srv_validator_stop(srv_validator *v) {
    if (!v) return;
    pthread_mutex_lock(&v->mu);
    atomic_store(&v->stop, true);
    pthread_cond_signal(&v->cond);
    pthread_mutex_unlock(&v->mu);
    pthread_join(v->thread, NULL);
    pthread_cond_destroy(&v->cond);
    pthread_mutex_destroy(&v->mu);
    dr_free(v);
}

double srv_validator_progress(srv_validator *v, const char *id) {
    if (!v) return -1;
    pthread_mutex_lock(&v->mu);
    bool here = !strcmp(v->id, id);
    pthread_mutex_unlock(&v->mu);
    return here ? atomic_load(&v->progress) : -1;
}
