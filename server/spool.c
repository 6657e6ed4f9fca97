/* spool.c - see spool.h. The thread exists because fsync and unlink of large files take milliseconds, which neither an
 * HTTP thread nor the store's writer may lose. Its queue is as long as there are requests, which http.c limits. */
#include "server/spool.h"
#include "core/base/alloc.h"
#include "core/base/fs.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { KEEP, ERASE };

#define REPORT      ".json"
#define REPORT_NAME (DB_ID + sizeof REPORT)

typedef struct task {
    struct task *next;
    int what;
    srv_upload *up;
    char id[DB_ID];
    srv_spool_done done;
    void *arg;
} task;

struct srv_spool {
    char *in, *out; /* folders */
    pthread_t thread;
    bool started;
    pthread_mutex_t mu; /* guards the queue */
    pthread_cond_t cond;
    task *head, **tail;
    bool stop;
};

/* The header is looked at when this many bytes are there, and at the end. */
static const uint64_t looks[] = {64, 4096, 65536, 1 << 20};
enum { N_LOOKS = sizeof looks / sizeof looks[0] };

struct srv_upload {
    srv_spool *sp;
    task keep; /* for srv_spool_keep: cannot fail for want of memory */
    int fd;
    char name[DB_ID + 8];
    const dr_limits *lim;
    uint64_t bytes, expected;
    dr_sha256 sha;
    int look;
    bool probed;
};

static void report_name(const char *id, char ret[REPORT_NAME]) {
    snprintf(ret, REPORT_NAME, "%s" REPORT, id);
}

static void path_of(const char *dir, const char *name, char ret[SRV_PATH]) {
    snprintf(ret, SRV_PATH, "%s/%s", dir, name);
}

/* --- the thread --- */

static dr_status make_durable(srv_spool *sp, srv_upload *up, const char *id, dr_error *err) {
    char from[SRV_PATH], to[SRV_PATH];
    path_of(sp->in, up->name, from);
    path_of(sp->in, id, to);
    if (fsync(up->fd)) return dr_fail_errno(err, errno, "sync", from);
    if (rename(from, to)) return dr_fail_errno(err, errno, "rename", from);
    dr_status s = dr_fs_sync_dir(sp->in, err);
    if (s) unlink(to);
    return s;
}

static void unlink_in(const char *dir, const char *id) {
    char path[SRV_PATH];
    path_of(dir, id, path);
    unlink(path);
}

static void work(srv_spool *sp, task *t) {
    if (t->what == KEEP) { /* the task lives in the upload */
        dr_error err = {0};
        srv_spool_done done = t->done;
        void *arg = t->arg;
        dr_status s = make_durable(sp, t->up, t->id, &err);
        srv_upload_discard(t->up); /* after the rename there is no tmp file any more */
        done(arg, s, &err);
        return;
    }
    char report[REPORT_NAME];
    report_name(t->id, report);
    unlink_in(sp->in, t->id);
    unlink_in(sp->out, t->id);
    unlink_in(sp->out, report);
    dr_free(t);
}

static void *run(void *arg) {
    srv_spool *sp = arg;
    for (;;) {
        pthread_mutex_lock(&sp->mu);
        while (!sp->head && !sp->stop) pthread_cond_wait(&sp->cond, &sp->mu);
        task *t = sp->head;
        if (t && !(sp->head = t->next)) sp->tail = &sp->head;
        pthread_mutex_unlock(&sp->mu);
        if (!t) return NULL;
        work(sp, t);
    }
}

static void push(srv_spool *sp, task *t) {
    t->next = NULL;
    pthread_mutex_lock(&sp->mu);
    *sp->tail = t;
    sp->tail = &t->next;
    pthread_cond_signal(&sp->cond);
    pthread_mutex_unlock(&sp->mu);
}

/* --- open, close --- */

/* Of a job's file: its id. */
static bool id_of(const char *name, char ret[DB_ID]) {
    const size_t n = strcspn(name, ".");
    if (n >= DB_ID || (name[n] && strcmp(name + n, REPORT))) return false;
    memcpy(ret, name, n);
    ret[n] = 0;
    return db_id_valid("job_", ret);
}

/* Leftovers of uploads and of results that were being written. */
static dr_status clean(const char *dir, dr_error *err) {
    char **names = NULL, id[DB_ID];
    size_t n = 0;
    dr_status s = dr_fs_list(dir, &names, &n, err);
    if (s) return s;
    for (size_t i = 0; i < n; i++)
        if (!id_of(names[i], id)) unlink_in(dir, names[i]);
    dr_fs_list_free(names, n);
    return DR_OK;
}

dr_status srv_spool_open(const char *data_dir, srv_spool **ret, dr_error *err) {
    srv_spool *sp = dr_calloc(1, sizeof *sp);
    dr_status s = DR_OK;
    if (!sp) return dr_fail(err, DR_NOMEM, "out of memory");
    sp->tail = &sp->head;
    pthread_mutex_init(&sp->mu, NULL);
    pthread_cond_init(&sp->cond, NULL);
    sp->in = dr_fs_join(data_dir, "spool");
    sp->out = dr_fs_join(data_dir, "results");
    if (!sp->in || !sp->out)
        s = dr_fail(err, DR_NOMEM, "out of memory");
    else if (strlen(sp->in) + DB_ID + 16 > SRV_PATH)
        s = dr_fail(err, DR_INVALID, "the path of the data folder is too long");
    if (!s) s = dr_fs_mkdirs(sp->in, 0700, err);
    if (!s) s = dr_fs_mkdirs(sp->out, 0700, err);
    if (!s) s = clean(sp->in, err);
    if (!s) s = clean(sp->out, err);
    if (!s && pthread_create(&sp->thread, NULL, run, sp)) s = dr_fail(err, DR_NOMEM, "cannot start a thread");
    if (s) {
        srv_spool_close(sp);
        return s;
    }
    sp->started = true;
    *ret = sp;
    return DR_OK;
}

void srv_spool_close(srv_spool *sp) {
    if (!sp) return;
    if (sp->started) {
        pthread_mutex_lock(&sp->mu);
        sp->stop = true;
        pthread_cond_signal(&sp->cond);
        pthread_mutex_unlock(&sp->mu);
        pthread_join(sp->thread, NULL);
    }
    pthread_cond_destroy(&sp->cond);
    pthread_mutex_destroy(&sp->mu);
    dr_free(sp->in);
    dr_free(sp->out);
    dr_free(sp);
}

/* --- uploads --- */

static dr_status too_large(const srv_upload *up, uint64_t bytes, dr_error *err) {
    return dr_fail_limit(err, "body_too_large", "body_max_bytes", (int64_t)up->lim->body_max_bytes, (int64_t)bytes,
                         "the picture file has more than %llu bytes", (unsigned long long)up->lim->body_max_bytes);
}

dr_status srv_upload_begin(srv_spool *sp, uint64_t expected, const dr_limits *lim, srv_upload **ret, dr_error *err) {
    char path[SRV_PATH], id[DB_ID];
    srv_upload *up = dr_calloc(1, sizeof *up);
    if (!up) return dr_fail(err, DR_NOMEM, "out of memory");
    db_id_new("up_", id);
    *up = (srv_upload){.sp = sp, .fd = -1, .lim = lim, .expected = expected};
    snprintf(up->name, sizeof up->name, "tmp.%s", id);
    dr_sha256_init(&up->sha);
    dr_status s = DR_OK;
    path_of(sp->in, up->name, path);
    if (expected > lim->body_max_bytes)
        s = too_large(up, expected, err);
    else if ((up->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600)) < 0)
        s = dr_fail_errno(err, errno, "create", "upload");
    else if (expected && fallocate(up->fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)expected) &&
             (errno == ENOSPC || errno == EDQUOT))
        s = dr_fail_errno(err, errno, "reserve", "upload");
    if (s) {
        srv_upload_discard(up);
        return s;
    }
    *ret = up;
    return DR_OK;
}

/* dr_probe over the first `n` bytes of the file; `total` 0 while the length is not known. */
static dr_status probe(srv_upload *up, uint64_t n, uint64_t total, dr_picture_info *ret, dr_error *err) {
    void *map = mmap(NULL, (size_t)n, PROT_READ, MAP_SHARED, up->fd, 0);
    if (map == MAP_FAILED) return dr_fail_errno(err, errno, "map", "upload");
    dr_status s = dr_probe(map, (size_t)n, total, up->lim, ret, err);
    munmap(map, (size_t)n);
    return s;
}

/* Judge the beginning; UNAVAILABLE means that the header goes on behind it. */
static dr_status look(srv_upload *up, dr_error *err) {
    dr_picture_info info;
    dr_error e = {0};
    while (up->look < N_LOOKS && up->bytes >= looks[up->look]) up->look++;
    /* Without Content-Length the ratio of sizes cannot be judged yet: take the most that may come. */
    uint64_t total = up->expected ? up->expected : up->lim->body_max_bytes;
    dr_status s = probe(up, up->bytes, total > up->bytes ? total : up->bytes, &info, &e);
    if (!s) up->probed = true;
    if (!s || s == DR_UNAVAILABLE) return DR_OK;
    if (err) *err = e;
    return s;
}

dr_status srv_upload_write(srv_upload *up, const void *data, size_t len, dr_error *err) {
    if (len > up->lim->body_max_bytes - up->bytes) return too_large(up, up->bytes + len, err);
    dr_sha256_add(&up->sha, data, len);
    dr_status s = dr_fs_write_all(up->fd, data, len, err);
    if (s) return s;
    up->bytes += len;
    if (!up->probed && up->look < N_LOOKS && up->bytes >= looks[up->look]) return look(up, err);
    return DR_OK;
}

dr_status srv_upload_end(srv_upload *up, dr_picture_info *ret, uint8_t ret_sha[32], dr_error *err) {
    dr_sha256_end(&up->sha, ret_sha);
    if (!up->bytes) return dr_fail_as(err, DR_INVALID, "empty_body", "the body is empty; a picture was expected");
    dr_status s = probe(up, up->bytes, up->bytes, ret, err);
    if (s) return s;
    if (up->expected > up->bytes && ftruncate(up->fd, (off_t)up->bytes)) /* gives back what was reserved too much */
        return dr_fail_errno(err, errno, "truncate", "upload");
    return DR_OK;
}

uint64_t srv_upload_bytes(const srv_upload *up) {
    return up->bytes;
}

dr_status srv_upload_move(srv_upload *up, const char *path, dr_error *err) {
    char from[SRV_PATH];
    path_of(up->sp->in, up->name, from);
    if (fsync(up->fd)) return dr_fail_errno(err, errno, "sync", "upload");
    if (rename(from, path)) return dr_fail_errno(err, errno, "rename", "upload");
    return DR_OK;
}

void srv_upload_discard(srv_upload *up) {
    if (!up) return;
    if (up->fd >= 0) {
        close(up->fd);
        unlink_in(up->sp->in, up->name);
    }
    dr_free(up);
}

void srv_spool_keep(srv_spool *sp, srv_upload *up, const char *id, srv_spool_done done, void *arg) {
    up->keep = (task){.what = KEEP, .up = up, .done = done, .arg = arg};
    snprintf(up->keep.id, sizeof up->keep.id, "%s", id);
    push(sp, &up->keep);
}

/* --- files of jobs --- */

dr_status srv_spool_read_input(srv_spool *sp, const char *id, size_t max, char **ret, size_t *ret_len, dr_error *err) {
    char path[SRV_PATH];
    path_of(sp->in, id, path);
    return dr_fs_read(path, max, ret, ret_len, err);
}

dr_status srv_spool_write_result(srv_spool *sp, const char *id, const void *data, size_t len, dr_error *err) {
    char path[SRV_PATH];
    path_of(sp->out, id, path);
    return dr_fs_write_atomic(path, data, len, err);
}

dr_status srv_spool_write_report(srv_spool *sp, const char *id, const void *data, size_t len, dr_error *err) {
    char name[REPORT_NAME];
    report_name(id, name);
    return srv_spool_write_result(sp, name, data, len, err);
}

dr_status srv_spool_open_report(srv_spool *sp, const char *id, int *ret_fd, uint64_t *ret_len, dr_error *err) {
    char name[REPORT_NAME];
    report_name(id, name);
    return srv_spool_open_result(sp, name, ret_fd, ret_len, err);
}

dr_status srv_spool_open_result(srv_spool *sp, const char *id, int *ret_fd, uint64_t *ret_len, dr_error *err) {
    char path[SRV_PATH];
    struct stat st;
    path_of(sp->out, id, path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st)) {
        dr_status s = dr_fail_errno(err, errno, "open", "result");
        if (fd >= 0) close(fd);
        return s;
    }
    *ret_fd = fd;
    *ret_len = (uint64_t)st.st_size;
    return DR_OK;
}

void srv_spool_erase(srv_spool *sp, const char *id) {
    task *t = dr_calloc(1, sizeof *t);
    if (!t) return; /* the sweep of the next start finds it */
    t->what = ERASE;
    snprintf(t->id, sizeof t->id, "%s", id);
    push(sp, t);
}

static dr_status sweep(const char *dir, bool (*known)(void *, const char *), void *arg, size_t *n_erased,
                       dr_error *err) {
    char **names = NULL, id[DB_ID];
    size_t n = 0;
    dr_status s = dr_fs_list(dir, &names, &n, err);
    if (s) return s;
    for (size_t i = 0; i < n; i++) {
        if (!id_of(names[i], id) || known(arg, id)) continue;
        unlink_in(dir, names[i]);
        ++*n_erased;
    }
    dr_fs_list_free(names, n);
    return DR_OK;
}

dr_status srv_spool_sweep(srv_spool *sp, bool (*known)(void *arg, const char *id), void *arg, size_t *ret_n,
                          dr_error *err) {
    size_t n = 0;
    dr_status s = sweep(sp->in, known, arg, &n, err);
    if (!s) s = sweep(sp->out, known, arg, &n, err);
    if (!s) *ret_n = n;
    return s;
}

dr_status srv_spool_room(srv_spool *sp, uint64_t min_bytes, int min_percent, dr_error *err) {
    uint64_t free_bytes = 0, total = 0;
    dr_status s = dr_fs_space(sp->in, &free_bytes, &total, err);
    if (s) return s;
    if (free_bytes >= min_bytes && (double)free_bytes * 100 >= (double)total * min_percent) return DR_OK;
    return dr_fail_as(err, DR_NOSPACE, "disk_full", "only %llu MB of disk space are free",
                      (unsigned long long)(free_bytes >> 20));
}
