/* conv_file.c - see conv_file.h. */
#include "cuda/conv_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void debug(const cv_file *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void debug(const cv_file *f, const char *fmt, ...) {
    char text[512];
    va_list ap;
    if (!f->host->log_debug) return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    f->host->log_debug(text);
}

static dr_status no_memory(const cv_file *f, dr_error *err) {
    f->host->fail(err, DR_NOMEM, "cuda: out of memory for the tuned plans");
    return DR_NOMEM;
}

/* ---- lines --------------------------------------------------------------------------------------------------------
 */

static bool is_for(const cv_cache_line *l, int kind, cv_shape s) {
    return l->kind == kind && l->type == (int)s.type && l->n == s.n && l->i == s.i && l->h == s.h && l->w == s.w &&
           l->o == s.o && l->k == s.k && l->kw == cv_kw(s) && l->pad == s.pad;
}

static bool is_ours(const cv_file *f, const cv_cache_line *l) {
    return l->cc == f->cc && l->sms == f->sms && l->cudnn == f->cudnn && !strcmp(l->device, f->device);
}

static bool same_place(const cv_cache_line *a, const cv_cache_line *b) {
    const cv_shape s = {a->n, a->i, a->h, a->w, a->o, a->k, a->pad, (dk_type)a->type, a->kw};
    return is_for(b, a->kind, s) && a->cc == b->cc && a->sms == b->sms && a->cudnn == b->cudnn &&
           !strcmp(a->device, b->device);
}

static dr_status add(const cv_file *f, cv_cache_line **lines, int *n, int *cap, const cv_cache_line *l, dr_error *err) {
    if (*n == *cap) {
        const int more = *cap ? 2 * *cap : 64;
        cv_cache_line *p = realloc(*lines, (size_t)more * sizeof *p);
        if (!p) return no_memory(f, err);
        *lines = p;
        *cap = more;
    }
    (*lines)[(*n)++] = *l;
    return DR_OK;
}

static cv_cache_line *find(const cv_file *f, int kind, cv_shape s) {
    for (int i = f->n - 1; i >= 0; i--) /* new ones first */
        if (is_for(&f->lines[i], kind, s)) return &f->lines[i];
    return NULL;
}

const cv_plan_id *cv_file_find(const cv_file *f, int kind, cv_shape s) {
    const cv_cache_line *l = find(f, kind, s);
    return l ? &l->plan : NULL;
}

dr_status cv_file_put(cv_file *f, int kind, cv_shape s, const cv_plan_id *id, dr_error *err) {
    cv_cache_line l = {.cudnn = f->cudnn,
                       .cc = f->cc,
                       .sms = f->sms,
                       .kind = kind,
                       .type = (int)s.type,
                       .n = s.n,
                       .i = s.i,
                       .h = s.h,
                       .w = s.w,
                       .o = s.o,
                       .k = s.k,
                       .kw = cv_kw(s),
                       .pad = s.pad,
                       .plan = *id};
    memcpy(l.device, f->device, sizeof l.device);
    cv_cache_line *old = find(f, kind, s);
    if (!old || old < f->lines + f->n_old) return add(f, &f->lines, &f->n, &f->cap, &l, err);
    *old = l;
    return DR_OK;
}

/* ---- reading ------------------------------------------------------------------------------------------------------
 */

/* The bytes of the file; *ret NULL where there is none to use. */
static dr_status read_all(const cv_file *f, char **ret, size_t *ret_len, dr_error *err) {
    *ret = NULL;
    *ret_len = 0;
    struct stat st;
    int fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not hold us up */
    if (fd < 0) {
        if (errno != ENOENT) debug(f, "tuned plans, %s: %s", f->path, strerror(errno));
        return DR_OK; /* tuning is a speed-up: without it everything works */
    }
    char *text = NULL;
    size_t len = 0;
    dr_status s = DR_OK;
    if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
        debug(f, "tuned plans, %s: not a plain file", f->path);
    } else if (!(text = malloc(CV_CACHE_MAX_BYTES + 1))) {
        s = no_memory(f, err);
    } else {
        for (ssize_t n = 1; n > 0 && len <= CV_CACHE_MAX_BYTES; len += n > 0 ? (size_t)n : 0) do
                n = read(fd, text + len, CV_CACHE_MAX_BYTES + 1 - len);
            while (n < 0 && errno == EINTR);
        if (len > CV_CACHE_MAX_BYTES) {
            debug(f, "tuned plans, %s: over %d bytes, not read", f->path, CV_CACHE_MAX_BYTES);
            free(text);
            text = NULL;
            len = 0;
        }
    }
    close(fd);
    *ret = text;
    *ret_len = len;
    return s;
}

/* Adds the lines of the file; all, or those of this device. */
static dr_status load(const cv_file *f, bool all, cv_cache_line **lines, int *n, int *cap, dr_error *err) {
    char *text;
    size_t len;
    int n_bad = 0;
    dr_status s = read_all(f, &text, &len, err);
    for (size_t at = 0; at < len && !s;) {
        const char *newline = memchr(text + at, '\n', len - at);
        const size_t size = newline ? (size_t)(newline - text) - at : len - at;
        cv_cache_line l;
        if (!newline || !cv_cache_parse_line(text + at, size, &l))
            n_bad++;
        else if (all || is_ours(f, &l))
            s = add(f, lines, n, cap, &l, err);
        at += size + 1;
    }
    free(text);
    if (n_bad) debug(f, "tuned plans, %s: %d lines ignored", f->path, n_bad);
    return s;
}

dr_status cv_file_open(cv_file *f, const char *path, dr_error *err) {
    if (!path) return DR_OK;
    f->path = strdup(path);
    dr_status s = f->path ? load(f, false, &f->lines, &f->n, &f->cap, err) : no_memory(f, err);
    f->n_old = f->n;
    return s;
}

void cv_file_done(cv_file *f) {
    free(f->path);
    free(f->lines);
    f->path = NULL;
    f->lines = NULL;
    f->n = f->cap = f->n_old = 0;
}

/* ---- writing ------------------------------------------------------------------------------------------------------
 */

/* New lines first, then what the file has beside them, as far as it may be read again. */
static dr_status write_lines(const cv_file *f, const cv_cache_line *old, int n_old, FILE *to) {
    size_t sum = 0;
    char text[CV_CACHE_MAX_LINE];
    for (int i = f->n_old; i < f->n; i++) {
        const size_t len = cv_cache_format_line(&f->lines[i], text, sizeof text);
        if (!len || sum + len > CV_CACHE_MAX_BYTES) continue; /* a device's name that has no form in here */
        if (fwrite(text, 1, len, to) != len) return DR_IO;
        sum += len;
    }
    for (int i = 0; i < n_old; i++) {
        bool replaced = false;
        for (int k = f->n_old; k < f->n && !replaced; k++) replaced = same_place(&f->lines[k], &old[i]);
        const size_t len = replaced ? 0 : cv_cache_format_line(&old[i], text, sizeof text);
        if (!len || sum + len > CV_CACHE_MAX_BYTES) continue;
        if (fwrite(text, 1, len, to) != len) return DR_IO;
        sum += len;
    }
    return fflush(to) || fsync(fileno(to)) ? DR_IO : DR_OK;
}

dr_status cv_file_save(cv_file *f, dr_error *err) {
    char path[PATH_MAX];
    cv_cache_line *old = NULL;
    int n_old = 0, cap = 0;
    if (!f->path || f->n == f->n_old) return DR_OK;
    int n = snprintf(path, sizeof path, "%s.XXXXXX", f->path);
    if (n < 0 || (size_t)n >= sizeof path) {
        f->host->fail(err, DR_IO, "cuda: the path of the tuned plans is too long");
        return DR_IO;
    }
    dr_status s = load(f, true, &old, &n_old, &cap, err);
    if (s) {
        free(old);
        return s;
    }
    int fd = mkostemp(path, O_CLOEXEC), why = 0;
    if (fd >= 0) (void)fchmod(fd, 0644); /* the service may run as somebody else */
    FILE *to = fd < 0 ? NULL : fdopen(fd, "wb");
    s = to ? write_lines(f, old, n_old, to) : DR_IO;
    if (s) why = errno;
    free(old);
    if (to ? fclose(to) != 0 : fd >= 0 && close(fd) != 0) {
        if (!s) why = errno;
        s = DR_IO;
    }
    if (!s && rename(path, f->path)) {
        why = errno;
        s = DR_IO;
    }
    if (!s) {
        f->n_old = f->n;
        return DR_OK;
    }
    if (fd >= 0) (void)unlink(path);
    f->host->fail(err, DR_IO, "cuda: tuned plans, %s: %s", f->path, strerror(why));
    return DR_IO;
}
