/* blobs.c - see blobs.h. */
#include "server/blobs.h"
#include "core/base/alloc.h"
#include "core/base/fs.h"
#include "core/base/log.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct lane {
    srv_blobs *owner;
    pthread_t thread;
    bool started;
    srv_task *head, **tail;
} lane;

struct srv_blobs {
    db_store *db;
    char *dir, *tmp, *reports;
    pthread_mutex_t mu; /* guards the queues; a leaf */
    pthread_cond_t cond;
    lane lanes[SRV_N_LANES];
    bool closing;
    atomic_bool stopping, pruning;
    srv_task prune;
    int64_t ttl_ms;
};

struct srv_draft {
    srv_blobs *b;
    int fd;
    uint64_t bytes;
    dr_sha256 sha;
    char name[DB_ID + 8];
};

static const char hex[] = "0123456789abcdef";

/* --- paths --- */

void srv_blobs_path(const srv_blobs *b, const char *sha256, char ret[SRV_PATH]) {
    snprintf(ret, SRV_PATH, "%s/%.2s/%.64s", b->dir, sha256, sha256);
}

static void shard_path(const srv_blobs *b, const char *sha256, char ret[SRV_PATH]) {
    snprintf(ret, SRV_PATH, "%s/%.2s", b->dir, sha256);
}

static void draft_path(const srv_draft *d, char ret[SRV_PATH]) {
    snprintf(ret, SRV_PATH, "%s/%s", d->b->tmp, d->name);
}

void srv_report_path(const srv_blobs *b, const char *id, const char *kind, char ret[SRV_PATH]) {
    snprintf(ret, SRV_PATH, "%s/%s.%s", b->reports, id, kind);
}

/* --- threads --- */

static void *run(void *arg) {
    lane *l = arg;
    srv_blobs *b = l->owner;
    for (;;) {
        pthread_mutex_lock(&b->mu);
        while (!l->head && !b->closing) pthread_cond_wait(&b->cond, &b->mu);
        srv_task *t = l->head;
        if (t && !(l->head = t->next)) l->tail = &l->head;
        pthread_mutex_unlock(&b->mu);
        if (!t) return NULL;
        t->fn(t);
    }
}

void srv_blobs_run(srv_blobs *b, srv_lane lane_of, srv_task *t, void (*fn)(srv_task *t)) {
    lane *l = &b->lanes[lane_of];
    t->next = NULL;
    t->fn = fn;
    pthread_mutex_lock(&b->mu);
    *l->tail = t;
    l->tail = &t->next;
    pthread_cond_broadcast(&b->cond);
    pthread_mutex_unlock(&b->mu);
}

void srv_blobs_stop(srv_blobs *b) {
    if (b) atomic_store(&b->stopping, true);
}

bool srv_blobs_stopping(const srv_blobs *b) {
    return atomic_load(&b->stopping);
}

/* --- start: files and rows made to agree --- */

static dr_status clean(const char *dir, dr_error *err) {
    char **names = NULL, path[SRV_PATH];
    size_t n = 0;
    dr_status s = dr_fs_list(dir, &names, &n, err);
    for (size_t i = 0; i < n && !s; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        unlink(path);
    }
    dr_fs_list_free(names, n);
    return s;
}

/* Every file of one folder that no row names. In doubt it stays. */
static dr_status sweep_shard(srv_blobs *b, const char *dir, size_t *n_erased, dr_error *err) {
    char **names = NULL, path[SRV_PATH];
    size_t n = 0;
    db_blob blob;
    dr_status s = dr_fs_list(dir, &names, &n, err);
    for (size_t i = 0; i < n && !s; i++) {
        if (db_sha_valid(names[i]) && db_blob_get(b->db, names[i], &blob, NULL) != DR_NOT_FOUND) continue;
        int used = snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        if (used > 0 && used < SRV_PATH) unlink(path);
        ++*n_erased;
    }
    dr_fs_list_free(names, n);
    return s;
}

static dr_status sweep_reports(srv_blobs *b, size_t *n_erased, dr_error *err) {
    char **names = NULL, path[SRV_PATH], id[DB_ID];
    size_t n = 0;
    dr_status s = dr_fs_list(b->reports, &names, &n, err);
    for (size_t i = 0; i < n && !s; i++) {
        db_dataset d = {0};
        snprintf(id, sizeof id, "%.*s", (int)strcspn(names[i], "."), names[i]);
        const char *kind = strchr(names[i], '.'); /* not so: left half-written */
        bool known = kind && (!strcmp(kind, ".json") || !strcmp(kind, ".png") || !strcmp(kind, ".trying")) &&
                     db_id_valid("ds_", id) && db_dataset_get(b->db, id, &d, NULL) != DR_NOT_FOUND;
        db_dataset_clear(&d);
        if (known) continue;
        snprintf(path, sizeof path, "%s/%s", b->reports, names[i]);
        unlink(path);
        ++*n_erased;
    }
    dr_fs_list_free(names, n);
    return s;
}

static dr_status sweep(srv_blobs *b, dr_error *err) {
    char path[SRV_PATH];
    size_t n = 0;
    dr_status s = clean(b->tmp, err);
    for (int i = 0; i < 256 && !s; i++) {
        const char shard[3] = {hex[i >> 4], hex[i & 15], 0};
        shard_path(b, shard, path);
        if (dr_fs_is_dir(path)) s = sweep_shard(b, path, &n, err);
    }
    if (!s) s = sweep_reports(b, &n, err);
    if (!s && n) dr_log(DR_LOG_INFO, NULL, "erased %zu files that no data set names", n);
    return s;
}

dr_status srv_blobs_open(const char *data_dir, db_store *db, srv_blobs **ret, dr_error *err) {
    srv_blobs *b = dr_calloc(1, sizeof *b);
    dr_status s = DR_OK;
    if (!b) return dr_fail(err, DR_NOMEM, "out of memory");
    b->db = db;
    pthread_mutex_init(&b->mu, NULL);
    pthread_cond_init(&b->cond, NULL);
    b->dir = dr_fs_join(data_dir, "blobs");
    b->tmp = b->dir ? dr_fs_join(b->dir, "tmp") : NULL;
    b->reports = dr_fs_join(data_dir, "datasets");
    if (!b->dir || !b->tmp || !b->reports)
        s = dr_fail(err, DR_NOMEM, "out of memory");
    else if (strlen(b->reports) + DB_SHA + 16 > SRV_PATH)
        s = dr_fail(err, DR_INVALID, "the path of the data folder is too long");
    if (!s) s = dr_fs_mkdirs(b->tmp, 0700, err);
    if (!s) s = dr_fs_mkdirs(b->reports, 0700, err);
    if (!s) s = sweep(b, err);
    for (int i = 0; i < SRV_N_LANES && !s; i++) {
        lane *l = &b->lanes[i];
        l->owner = b;
        l->tail = &l->head;
        l->started = pthread_create(&l->thread, NULL, run, l) == 0;
        if (!l->started) s = dr_fail(err, DR_NOMEM, "cannot start a thread");
    }
    if (s) {
        srv_blobs_close(b);
        return s;
    }
    *ret = b;
    return DR_OK;
}

void srv_blobs_close(srv_blobs *b) {
    if (!b) return;
    pthread_mutex_lock(&b->mu);
    b->closing = true;
    pthread_cond_broadcast(&b->cond);
    pthread_mutex_unlock(&b->mu);
    for (int i = SRV_N_LANES - 1; i >= 0; i--) /* the unpacker hands over to the keeper */
        if (b->lanes[i].started) pthread_join(b->lanes[i].thread, NULL);
    pthread_cond_destroy(&b->cond);
    pthread_mutex_destroy(&b->mu);
    dr_free(b->dir);
    dr_free(b->tmp);
    dr_free(b->reports);
    dr_free(b);
}

/* --- drafts --- */

dr_status srv_draft_begin(srv_blobs *b, srv_draft **ret, dr_error *err) {
    char path[SRV_PATH], id[DB_ID];
    srv_draft *d = dr_calloc(1, sizeof *d);
    if (!d) return dr_fail(err, DR_NOMEM, "out of memory");
    db_id_new("up_", id);
    d->b = b;
    snprintf(d->name, sizeof d->name, "tmp.%s", id);
    dr_sha256_init(&d->sha);
    draft_path(d, path);
    if ((d->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600)) < 0) {
        dr_free(d);
        return dr_fail_errno(err, errno, "create", "upload");
    }
    *ret = d;
    return DR_OK;
}

dr_status srv_draft_write(srv_draft *d, const void *data, size_t len, dr_error *err) {
    dr_sha256_add(&d->sha, data, len);
    dr_status s = dr_fs_write_all(d->fd, data, len, err);
    if (!s) d->bytes += len;
    return s;
}

uint64_t srv_draft_bytes(const srv_draft *d) {
    return d->bytes;
}
int srv_draft_fd(const srv_draft *d) {
    return d->fd;
}

void srv_draft_digest(const srv_draft *d, uint8_t ret[32]) {
    dr_sha256 copy = d->sha;
    dr_sha256_end(&copy, ret);
}

dr_status srv_draft_done(srv_draft *d, char ret_sha256[DB_SHA], dr_error *err) {
    uint8_t sum[32];
    int rc = fsync(d->fd), why = errno;
    close(d->fd);
    d->fd = -1;
    if (rc) return dr_fail_errno(err, why, "sync", "upload");
    dr_sha256_end(&d->sha, sum);
    dr_hex(sum, sizeof sum, ret_sha256);
    return DR_OK;
}

void srv_draft_discard(srv_draft *d) {
    char path[SRV_PATH];
    if (!d) return;
    if (d->fd >= 0) close(d->fd);
    draft_path(d, path);
    unlink(path);
    dr_free(d);
}

/* --- the keeper's work --- */

/* The folder of a blob; a new one is synced into its parent. */
static dr_status make_shard(srv_blobs *b, const char *sha256, char ret[SRV_PATH], dr_error *err) {
    shard_path(b, sha256, ret);
    if (!mkdir(ret, 0700)) return dr_fs_sync_dir(b->dir, err);
    return errno == EEXIST ? DR_OK : dr_fail_errno(err, errno, "create", "folder of blobs");
}

dr_status srv_blobs_keep(srv_blobs *b, srv_upload *up, const char *sha256, bool *ret_new, dr_error *err) {
    char dir[SRV_PATH], path[SRV_PATH];
    dr_status s = make_shard(b, sha256, dir, err);
    if (s) return s;
    srv_blobs_path(b, sha256, path);
    s = srv_upload_move(up, path, err);
    if (s) return s;
    s = dr_fs_sync_dir(dir, err);
    if (!s) s = db_blob_put(b->db, sha256, (int64_t)srv_upload_bytes(up), ret_new, err);
    if (s) srv_blobs_erase(b, sha256);
    return s;
}

dr_status srv_blobs_name(srv_blobs *b, srv_draft *const *drafts, const char (*sha256)[DB_SHA], size_t n,
                         dr_error *err) {
    char dir[SRV_PATH], from[SRV_PATH], to[SRV_PATH];
    bool used[256] = {false};
    dr_status s = DR_OK;
    for (size_t i = 0; i < n && !s; i++) {
        uint8_t first = 0;
        if ((s = make_shard(b, sha256[i], dir, err))) break;
        draft_path(drafts[i], from);
        srv_blobs_path(b, sha256[i], to);
        if (rename(from, to)) s = dr_fail_errno(err, errno, "rename", "upload");
        if (!s && dr_unhex(sha256[i], 1, &first)) used[first] = true;
    }
    for (int i = 0; i < 256 && !s; i++) {
        const char shard[3] = {hex[i >> 4], hex[i & 15], 0};
        shard_path(b, shard, dir);
        if (used[i]) s = dr_fs_sync_dir(dir, err);
    }
    return s;
}

void srv_blobs_erase(srv_blobs *b, const char *sha256) {
    char path[SRV_PATH];
    db_blob blob;
    if (db_blob_get(b->db, sha256, &blob, NULL) != DR_NOT_FOUND) return; /* in doubt it stays: the sweep finds it */
    srv_blobs_path(b, sha256, path);
    unlink(path);
}

static void prune(srv_task *t) {
    srv_blobs *b = (srv_blobs *)(void *)((char *)t - offsetof(srv_blobs, prune));
    char(*list)[DB_SHA] = dr_calloc(DB_BLOBS_MAX, DB_SHA);
    size_t n = DB_BLOBS_MAX;
    dr_error err = {0};
    while (list && n == DB_BLOBS_MAX && !srv_blobs_stopping(b)) {
        if (db_blobs_take_free(b->db, b->ttl_ms, list, &n, &err)) {
            dr_log(DR_LOG_ERROR, NULL, "retention of blobs: %s", err.text);
            break;
        }
        for (size_t i = 0; i < n; i++) srv_blobs_erase(b, list[i]);
    }
    dr_free(list);
    atomic_store(&b->pruning, false);
}

void srv_blobs_prune(srv_blobs *b, int64_t ttl_s) {
    if (atomic_exchange(&b->pruning, true)) return;
    b->ttl_ms = ttl_s * 1000;
    srv_blobs_run(b, SRV_KEEPER, &b->prune, prune);
}

/* --- reading --- */

static dr_status open_path(const char *path, const char *what, int *ret_fd, uint64_t *ret_len, dr_error *err) {
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st)) {
        dr_status s = dr_fail_errno(err, errno, "open", what);
        if (fd >= 0) close(fd);
        return s;
    }
    *ret_fd = fd;
    *ret_len = (uint64_t)st.st_size;
    return DR_OK;
}

dr_status srv_blobs_open_file(const srv_blobs *b, const char *sha256, int *ret_fd, uint64_t *ret_len, dr_error *err) {
    char path[SRV_PATH];
    srv_blobs_path(b, sha256, path);
    return open_path(path, "blob", ret_fd, ret_len, err);
}

dr_status srv_report_write(srv_blobs *b, const char *id, const char *kind, const void *data, size_t len,
                           dr_error *err) {
    char path[SRV_PATH];
    srv_report_path(b, id, kind, path);
    return dr_fs_write_atomic(path, data, len, err);
}

dr_status srv_report_open(const srv_blobs *b, const char *id, const char *kind, int *ret_fd, uint64_t *ret_len,
                          dr_error *err) {
    char path[SRV_PATH];
    srv_report_path(b, id, kind, path);
    return open_path(path, "report", ret_fd, ret_len, err);
}

void srv_report_erase(srv_blobs *b, const char *id) {
    static const char *const kinds[] = {"json", "png", "trying"};
    char path[SRV_PATH];
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        srv_report_path(b, id, kinds[i], path);
        unlink(path);
    }
}
