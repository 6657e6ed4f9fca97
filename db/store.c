/* store.c - the data folder, the lock against a second daemon, migrations, readers; the writer's thread is writer.c.
 *
 * derain.db is made with mode 0600 (its WAL inherits that), derain.lock is held by flock for as long as the store is
 * open: only one process may ever write. */
#include "core/base/alloc.h"
#include "core/base/fs.h"
#include "core/base/hash.h"
#include "db/internal.h"
#include "db/writer.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { IDLE_READERS_MAX = 16 };

struct db_store {
    db_options opt;
    char *dir, *path, *wal_path;
    int lock_fd;
    char boot[33];
    db_recovered recovered;
    db_writer *writer;
    pthread_mutex_t mu; /* leaf: guards the idle readers */
    db_conn *idle;
    int n_idle, n_readers;
    bool has_mu;
};

static bool is_network_fs(const char *dir) {
    static const unsigned long magic[] = {
        0x6969 /* nfs */,     0x517b /* smb */,        0xff534d42 /* cifs */, 0xfe534d42 /* smb2 */,
        0x5346414f /* afs */, 0x00c36400 /* ceph */,   0x01021997 /* 9p */,   0x73757245 /* coda */,
        0x564c /* ncp */,     0x0bd00bd0 /* lustre */, 0x47504653 /* gpfs */, 0x7461636f /* ocfs2 */,
    };
    struct statfs fs;
    if (statfs(dir, &fs) != 0) return false;
    for (size_t i = 0; i < sizeof magic / sizeof *magic; i++)
        if (((unsigned long)fs.f_type & 0xffffffff) == magic[i]) return true;
    return false;
}

/* Folder, lock and an empty file with the right mode. */
static dr_status prepare_dir(db_store *db, dr_error *err) {
    if (!dr_fs_is_dir(db->dir)) {
        dr_status s = dr_fs_mkdirs(db->dir, 0700, err);
        if (s) return dr_wrap(err, s, "data folder");
    }
    if (!db->opt.allow_network_fs && is_network_fs(db->dir))
        return dr_fail_as(err, DR_UNSUPPORTED, "data_network_fs",
                          "the data folder '%s' is on a network file system; the database needs a local disk", db->dir);
    char *lock = dr_fs_join(db->dir, "derain.lock");
    if (!lock) return dr_fail(err, DR_NOMEM, "no memory");
    db->lock_fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    int e = errno;
    dr_free(lock);
    if (db->lock_fd < 0 && (e == ENOSPC || e == EDQUOT))
        return dr_fail_as(err, DR_NOSPACE, "disk_full", "the disk of the data folder '%s' is full", db->dir);
    if (db->lock_fd < 0)
        return dr_fail_as(err, DR_IO, "data_not_writable", "the data folder '%s' is not writable: %s", db->dir,
                          strerror(e));
    if (flock(db->lock_fd, LOCK_EX | LOCK_NB) != 0)
        return dr_fail_as(err, DR_BUSY, "data_in_use", "the data folder '%s' is in use by another deraind", db->dir);
    int fd = open(db->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return dr_fail_as(err, errno == ENOSPC || errno == EDQUOT ? DR_NOSPACE : DR_IO,
                          errno == ENOSPC || errno == EDQUOT ? "disk_full" : "data_not_writable",
                          "the database '%s' cannot be opened for writing: %s", db->path, strerror(errno));
    close(fd);
    return DR_OK;
}

static dr_status pragma_i64(db_conn *c, const char *sql, int64_t *ret, dr_error *err) {
    db_stmt q = db_sql(c, sql, err);
    int64_t v = 0;
    if (db_row(&q)) v = db_i64(&q, 0);
    dr_status s = db_end(&q);
    if (!s) *ret = v;
    return s;
}

static dr_status vacuum_into(db_conn *c, const char *path, dr_error *err) {
    db_stmt q = db_sql(c, "VACUUM INTO ?1", err);
    db_bind_text(&q, 1, path);
    return db_run(&q);
}

/* Forward only, one transaction a step; a database that holds something is copied before it is changed. */
static dr_status migrate(db_store *db, db_conn *c, dr_error *err) {
    int64_t version;
    dr_status s = pragma_i64(c, "PRAGMA user_version", &version, err);
    if (s) return s;
    if (version > db_n_migrations)
        return dr_fail_as(err, DR_UNSUPPORTED, "db_newer",
                          "the database '%s' was made by a newer deraind (schema %lld, this one knows %d)", db->path,
                          (long long)version, db_n_migrations);
    if (version > 0 && version < db_n_migrations) {
        char copy[4096];
        snprintf(copy, sizeof copy, "%s.schema-%lld", db->path, (long long)version);
        (void)unlink(copy);
        if ((s = vacuum_into(c, copy, err))) return dr_wrap(err, s, "copy before the migration");
    }
    for (int64_t v = version; v < db_n_migrations; v++) {
        char set[64];
        snprintf(set, sizeof set, "PRAGMA user_version = %lld", (long long)v + 1);
        s = db_exec(c, "BEGIN IMMEDIATE", err);
        if (!s) s = db_exec(c, db_migrations[v], err);
        if (!s) s = db_exec(c, set, err);
        if (!s) s = db_exec(c, "COMMIT", err);
        if (s) {
            if (!sqlite3_get_autocommit(c->h)) db_try(c, "ROLLBACK");
            return dr_wrap(err, s, "schema %lld", (long long)v + 1);
        }
    }
    return DR_OK;
}

static dr_status quick_check(db_store *db, db_conn *c, dr_error *err) {
    char text[160] = "";
    db_stmt q = db_sql(c, "PRAGMA quick_check(1)", err);
    if (db_row(&q)) db_text(&q, 0, text, sizeof text);
    dr_status s = db_end(&q);
    if (!s && strcmp(text, "ok") != 0)
        s = dr_fail_as(err, DR_CORRUPT, "db_corrupt", "the database '%s' is damaged: %s", db->path, text);
    return s;
}

static dr_status make_boot(db_store *db, dr_error *err) {
    uint8_t raw[16];
    if (getrandom(raw, sizeof raw, 0) != (ssize_t)sizeof raw) return dr_fail(err, DR_IO, "no random numbers");
    dr_hex(raw, sizeof raw, db->boot);
    return DR_OK;
}

dr_status db_open(const char *data_dir, const db_options *opt, db_store **ret, dr_error *err) {
    dr_error own = {0};
    if (!err) err = &own;
    db_conn *c = NULL;
    dr_status s = DR_OK;
    db_store *db = dr_calloc(1, sizeof *db);
    if (!db) return dr_fail(err, DR_NOMEM, "no memory for the store");
    db->lock_fd = -1;
    if (opt) db->opt = *opt;
    if (!db->opt.job_attempts_max) db->opt.job_attempts_max = 5;
    if (!db->opt.idempotency_ms) db->opt.idempotency_ms = INT64_C(24) * 3600 * 1000;
    if (!db->opt.tombstone_ms) db->opt.tombstone_ms = INT64_C(30) * 24 * 3600 * 1000;
    if (!db->opt.class_age_ms) db->opt.class_age_ms = 60 * 1000;
    db->dir = dr_strdup(data_dir);
    db->path = dr_fs_join(data_dir, "derain.db");
    db->wal_path = dr_fs_join(data_dir, "derain.db-wal");
    pthread_mutex_init(&db->mu, NULL);
    db->has_mu = true;
    if (db->dir && db->path && db->wal_path)
        s = make_boot(db, err);
    else
        s = dr_fail(err, DR_NOMEM, "no memory for the store");
    if (!s && db->dir && db->path) s = prepare_dir(db, err);
    if (!s) s = db_conn_open(db->path, true, &c, err);
    if (!s) s = quick_check(db, c, err);
    if (!s) s = migrate(db, c, err);
    if (!s) s = db_recover(c, db->opt.job_attempts_max, &db->recovered, err);
    if (!s) s = db_writer_start(db, c, &db->writer, err);
    if (s) {
        db_conn_close(c);
        db_close(db);
        return s;
    }
    *ret = db;
    return DR_OK;
}

void db_close(db_store *db) {
    if (!db) return;
    for (db_conn *c = db->idle, *next; c; c = next) {
        next = c->next;
        db_conn_close(c);
    }
    db->idle = NULL;
    db_writer_stop(db->writer); /* after the readers, so that its checkpoint reaches the end of the WAL */
    if (db->lock_fd >= 0) close(db->lock_fd);
    if (db->has_mu) pthread_mutex_destroy(&db->mu);
    dr_free(db->dir);
    dr_free(db->path);
    dr_free(db->wal_path);
    dr_free(db);
}

const db_options *db_opts(const db_store *db) {
    return &db->opt;
}
const char *db_boot(const db_store *db) {
    return db->boot;
}
void db_recovery(const db_store *db, db_recovered *ret) {
    *ret = db->recovered;
}

/* --- writes
 * -------------------------------------------------------------------------------------------------------------- */

dr_status db_call(db_store *db, db_req *r, dr_error *err) {
    r->done = NULL;
    if (sem_init(&r->sem, 0, 0) != 0) return dr_fail(err, DR_INTERNAL, "no semaphore");
    db_writer_submit(db->writer, r);
    while (sem_wait(&r->sem) != 0 && errno == EINTR) {
    }
    sem_destroy(&r->sem);
    if (r->status && err && !err->code) *err = r->err;
    return r->status;
}

void db_submit(db_store *db, db_req *r) {
    db_writer_submit(db->writer, r);
}

void db_job_progress(db_store *db, const char *id, int64_t epoch, double progress) {
    db_writer_progress(db->writer, id, epoch, progress);
}

/* --- readers
 * ------------------------------------------------------------------------------------------------------------- */

dr_status db_reader_take(db_store *db, db_conn **ret, dr_error *err) {
    pthread_mutex_lock(&db->mu);
    db_conn *c = db->idle;
    if (c) {
        db->idle = c->next;
        db->n_idle--;
    }
    pthread_mutex_unlock(&db->mu);
    if (!c) {
        dr_status s = db_conn_open(db->path, false, &c, err);
        if (s) return s;
        pthread_mutex_lock(&db->mu);
        db->n_readers++;
        pthread_mutex_unlock(&db->mu);
    }
    c->next = NULL;
    *ret = c;
    return DR_OK;
}

void db_reader_give(db_store *db, db_conn *c) {
    pthread_mutex_lock(&db->mu);
    bool keep = db->n_idle < IDLE_READERS_MAX;
    if (keep) {
        c->next = db->idle;
        db->idle = c;
        db->n_idle++;
    } else {
        db->n_readers--;
    }
    pthread_mutex_unlock(&db->mu);
    if (!keep) db_conn_close(c);
}

/* --- state of the store
 * --------------------------------------------------------------------------------------------------- */

static int64_t file_bytes(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 ? (int64_t)st.st_size : 0;
}

void db_stats_get(db_store *db, db_stats *ret) {
    *ret = (db_stats){.db_bytes = file_bytes(db->path), .wal_bytes = file_bytes(db->wal_path)};
    db_writer_stats(db->writer, ret);
    pthread_mutex_lock(&db->mu);
    ret->readers = db->n_readers;
    pthread_mutex_unlock(&db->mu);
}

dr_status db_now(db_store *db, int64_t *ret_ms, dr_error *err) {
    db_conn *c;
    dr_status s = db_reader_take(db, &c, err);
    if (s) return s;
    s = pragma_i64(c, "SELECT " DB_NOW, ret_ms, err);
    db_reader_give(db, c);
    return s;
}

dr_status db_backup(db_store *db, const char *path, dr_error *err) {
    /* A connection of its own: query_only, as the pooled readers have it, refuses VACUUM INTO. */
    db_conn *c = NULL;
    char *tmp = dr_malloc(strlen(path) + 5);
    if (!tmp) return dr_fail(err, DR_NOMEM, "no memory");
    snprintf(tmp, strlen(path) + 5, "%s.tmp", path);
    (void)unlink(tmp);
    dr_status s = db_conn_open(db->path, false, &c, err);
    if (!s) s = db_exec(c, "PRAGMA query_only=OFF", err);
    if (!s) s = vacuum_into(c, tmp, err);
    db_conn_close(c);
    if (!s) {
        int fd = open(tmp, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || fchmod(fd, 0600) != 0 || fsync(fd) != 0) s = dr_fail_errno(err, errno, "sync", path);
        if (fd >= 0) close(fd);
    }
    if (!s && rename(tmp, path) != 0) s = dr_fail_errno(err, errno, "rename", path);
    if (s) (void)unlink(tmp);
    dr_free(tmp);
    return s;
}

typedef struct probe_req {
    db_req base;
} probe_req;

static dr_status probe_run(db_store *db, db_conn *c, db_req *r, dr_error *err) {
    (void)db, (void)r;
    return db_exec(c, "UPDATE meta SET value = value + 1 WHERE key = 'probe'", err);
}
static void probe_done(db_req *r) {
    dr_free(r);
}

dr_status db_ping(db_store *db, dr_error *err) {
    int64_t now;
    dr_status s = db_now(db, &now, err);
    if (s) return s;
    dr_error last;
    s = db_writer_health(db->writer, &last);
    if (!s) return DR_OK;
    if (err && !err->code) *err = last;
    /* Nobody else may be writing, so find out whether it works again: for the next ping. */
    db_stats st;
    db_writer_stats(db->writer, &st);
    probe_req *p = st.fifo ? NULL : dr_calloc(1, sizeof *p);
    if (p) {
        p->base.run = probe_run;
        p->base.done = probe_done;
        db_submit(db, &p->base);
    }
    return s;
}
