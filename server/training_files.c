/* training_files.c - see training_files.h. */
#include "server/training_files.h"
#include "core/base/alloc.h"
#include "core/base/buf.h"
#include "core/base/fs.h"
#include "core/base/log.h"
#include "db/datasets.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void srv_training_path(const srv_app *app, const char *id, const char *file, char ret[SRV_PATH]) {
    int n = snprintf(ret, SRV_PATH, "%s/training/%s%s%s", app->cfg->data, id, *file ? "/" : "", file);
    if (n < 0 || n >= SRV_PATH) *ret = 0; /* no file opens under an empty name */
}

void srv_training_checkpoint_path(const srv_app *app, const char *id, int64_t step, char ret[SRV_PATH]) {
    char name[48];
    snprintf(name, sizeof name, "step_%09lld.safetensors", (long long)step);
    srv_training_path(app, id, name, ret);
}

void srv_training_best_path(const srv_app *app, const char *id, int64_t step, char ret[SRV_PATH]) {
    char name[48];
    snprintf(name, sizeof name, "best_%09lld.safetensors", (long long)step);
    srv_training_path(app, id, name, ret);
}

void srv_training_sample_path(const srv_app *app, const char *id, int64_t step, char ret[SRV_PATH]) {
    char name[48];
    snprintf(name, sizeof name, "samples/%09lld.png", (long long)step);
    srv_training_path(app, id, name, ret);
}

void srv_erase_tree(const char *path) {
    DIR *d = opendir(path);
    struct dirent *e;
    while (d && (e = readdir(d))) {
        struct stat st;
        char *sub = strcmp(e->d_name, ".") && strcmp(e->d_name, "..") ? dr_fs_join(path, e->d_name) : NULL;
        if (sub && !lstat(sub, &st) && S_ISDIR(st.st_mode))
            srv_erase_tree(sub);
        else if (sub)
            (void)unlink(sub);
        dr_free(sub);
    }
    if (d) closedir(d);
    (void)rmdir(path);
}

/* --- the data set --- */

enum { HELD_FROM = 20, HELD_MAX = 24 };

/* Every how manieth picture of a side is kept for the gate: a tenth of them, at most HELD_MAX; 0 = none, since a side
 * of few pictures needs them all. */
static size_t held_every(const db_entry_list *all, db_part part) {
    size_t n = 0;
    for (size_t i = 0; i < all->n; i++) n += all->e[i].part == part;
    if (n < HELD_FROM) return 0;
    return n / 10 > HELD_MAX ? n / HELD_MAX : 10;
}

/* Relative to the list, so that equal data sets give equal lists wherever the data folder is. held: those that the gate
 * keeps, else the others. */
static dr_status write_list(const srv_app *app, const char *id, const db_entry_list *all, db_part part, bool held,
                            const char *file, dr_error *err) {
    char path[SRV_PATH];
    size_t every = held_every(all, part), k = 0;
    dr_buf b;
    dr_buf_init(&b, (size_t)256 << 20);
    for (size_t i = 0; i < all->n; i++) {
        if (all->e[i].part != part) continue;
        bool kept = every && k++ % every == every - 1;
        if (kept == held) dr_buf_printf(&b, "../../blobs/%.2s/%s\n", all->e[i].sha256, all->e[i].sha256);
    }
    dr_status s = b.status ? dr_fail(err, b.status, "no memory for a list of pictures") : DR_OK;
    if (!s && !b.len && !held)
        s = dr_fail_as(err, DR_INVALID, "dataset_unusable", "the data set has no usable %s pictures",
                       db_part_name(part));
    srv_training_path(app, id, file, path);
    if (!s) s = dr_fs_write_atomic(path, b.data ? b.data : "", b.len, err);
    dr_buf_done(&b);
    return s;
}

/* Length of a name without its extension. */
static size_t stem(const char *name) {
    const char *dot = strrchr(name, '.');
    return dot && dot > name ? (size_t)(dot - name) : strlen(name);
}

static const db_entry *partner(const db_entry_list *all, const db_entry *of) {
    const db_entry *near = NULL;
    for (size_t i = 0; i < all->n; i++) {
        const db_entry *e = &all->e[i];
        if (e->part != DB_PAIRED_CLEAN) continue;
        if (!strcmp(e->name, of->name)) return e;
        if (stem(e->name) == stem(of->name) && !memcmp(e->name, of->name, stem(of->name))) near = e;
    }
    return near;
}

static dr_status link_blob(const srv_app *app, const char *id, const char *side, size_t i, const db_entry *e,
                           dr_error *err) {
    char from[SRV_PATH], to[SRV_PATH], name[48];
    snprintf(name, sizeof name, "pairs/%s/%06zu", side, i);
    srv_training_path(app, id, name, to);
    int n = snprintf(from, sizeof from, "%s/blobs/%.2s/%s", app->cfg->data, e->sha256, e->sha256);
    if (n < 0 || (size_t)n >= sizeof from) return dr_fail(err, DR_INVALID, "path too long");
    if (link(from, to) && symlink(from, to)) return dr_fail_errno(err, errno, "link", to);
    return DR_OK;
}

static dr_status link_pairs(const srv_app *app, const char *id, const db_entry_list *all, int64_t max, size_t *ret_n,
                            dr_error *err) {
    char dir[SRV_PATH];
    const char *const sides[] = {"pairs/rainy", "pairs/clean"};
    dr_status s = DR_OK;
    size_t n = 0, k = 0, made = 0;
    srv_training_path(app, id, "pairs", dir);
    srv_erase_tree(dir);
    for (size_t i = 0; i < all->n; i++) n += all->e[i].part == DB_PAIRED_RAINY && partner(all, &all->e[i]) != NULL;
    *ret_n = 0;
    if (!n) return DR_OK;
    for (int i = 0; i < 2 && !s; i++) {
        srv_training_path(app, id, sides[i], dir);
        s = dr_fs_mkdirs(dir, 0700, err);
    }
    size_t want = max > 0 && (size_t)max < n ? (size_t)max : n;
    for (size_t i = 0; i < all->n && !s; i++) {
        const db_entry *clean = all->e[i].part == DB_PAIRED_RAINY ? partner(all, &all->e[i]) : NULL;
        if (!clean) continue;
        bool take = (k + 1) * want / n > k * want / n; /* every n/want-th */
        k++;
        if (!take) continue;
        s = link_blob(app, id, "rainy", made, &all->e[i], err);
        if (!s) s = link_blob(app, id, "clean", made, clean, err);
        made++;
    }
    if (!s) *ret_n = made;
    return s;
}

dr_status srv_training_prepare(const srv_app *app, const char *id, const char *dataset, int64_t pairs_max,
                               size_t *ret_pairs, dr_error *err) {
    char dir[SRV_PATH];
    db_entry_list all = {0};
    srv_training_path(app, id, "samples", dir);
    dr_status s = dr_fs_mkdirs(dir, 0700, err);
    if (!s) s = db_dataset_entries(app->db, dataset, true, &all, err);
    if (!s) s = write_list(app, id, &all, DB_RAINY, false, "rainy.txt", err);
    if (!s) s = write_list(app, id, &all, DB_CLEAN, false, "clean.txt", err);
    if (!s) s = write_list(app, id, &all, DB_RAINY, true, SRV_HELD_RAINY, err);
    if (!s) s = write_list(app, id, &all, DB_CLEAN, true, SRV_HELD_CLEAN, err);
    if (!s) s = link_pairs(app, id, &all, pairs_max, ret_pairs, err);
    db_entry_list_clear(&all);
    return s;
}

/* --- tidying --- */

/* Files of a folder that writing left half-done, and where n_rows >= 0 those named for a step that no row has. */
static void tidy(const char *dir, const db_checkpoint *rows, int n_rows, int64_t best) {
    DIR *d = opendir(dir);
    struct dirent *e;
    while (d && (e = readdir(d))) {
        char name[48];
        bool known = !strstr(e->d_name, ".tmp-");
        if (n_rows >= 0 && !strncmp(e->d_name, "step_", 5)) {
            known = false;
            for (int i = 0; i < n_rows && !known; i++) {
                snprintf(name, sizeof name, "step_%09lld.safetensors", (long long)rows[i].step);
                known = !strcmp(e->d_name, name);
            }
        }
        snprintf(name, sizeof name, "best_%09lld.safetensors", (long long)best);
        if (n_rows >= 0 && !strncmp(e->d_name, "best_", 5)) known = !strcmp(e->d_name, name);
        char *path = known ? NULL : dr_fs_join(dir, e->d_name);
        if (path) (void)unlink(path);
        dr_free(path);
    }
    if (d) closedir(d);
}

void srv_training_tidy(const srv_app *app, const char *id) {
    char dir[SRV_PATH];
    db_checkpoint rows[64];
    db_training t;
    size_t n = 0;
    srv_training_path(app, id, "samples", dir);
    tidy(dir, NULL, -1, 0);
    if (db_training_checkpoints(app->db, id, rows, 64, &n, NULL)) return; /* when in doubt, keep */
    if (db_training_get(app->db, id, &t, NULL)) return;
    srv_training_path(app, id, "", dir);
    tidy(dir, rows, (int)n, t.best_step);
}

void srv_training_sweep(const srv_app *app) {
    char dir[SRV_PATH];
    srv_training_path(app, "", "", dir);
    DIR *d = opendir(dir);
    struct dirent *e;
    while (d && (e = readdir(d))) {
        db_job job = {0};
        if (!db_id_valid("job_", e->d_name)) continue;
        bool gone = db_job_get(app->db, e->d_name, &job, NULL) == DR_NOT_FOUND;
        db_job_clear(&job);
        if (!gone) continue;
        srv_training_path(app, e->d_name, "", dir);
        srv_erase_tree(dir);
        dr_log(DR_LOG_INFO, NULL, "erased the files of training %s", e->d_name);
    }
    if (d) closedir(d);
}
