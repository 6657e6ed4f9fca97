/* config.c - see config.h. The table below is the only place that knows a setting by name.
 *
 * A row's offset points into srv_config: TEXT rows are char *, BOOL rows bool, all others int64_t. */
#include "server/config.h"
#include "core/base/alloc.h"
#include "core/base/fs.h"
#include "core/base/parse.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY(k, type, init, min, max, choices, arg, help)                                                               \
    { #k, SRV_CONF_##type, init, min, max, choices, offsetof(srv_config, k), arg, help }
#define GB (INT64_C(1) << 30)

const srv_config_row srv_config_rows[] = {
    KEY(listen, TEXT, "127.0.0.1:8650", 0, 0, NULL, "HOST:PORT",
        "address to listen on; port 0 takes a free one and logs it. Anything but loopback needs token_file or "
        "insecure"),
    KEY(data, TEXT, "", 0, 0, NULL, "DIR",
        "folder for the database, uploads and results. Empty: $STATE_DIRECTORY, else $XDG_STATE_HOME/derain, else "
        "~/.local/state/derain"),
    KEY(model, TEXT, "", 0, 0, NULL, "FILE",
        "weights to serve (safetensors). Empty: the installed or the repository's"),
    KEY(backend, TEXT, "auto", 0, 0, "auto|cpu|cuda", "NAME", "device that runs the network"),
    KEY(precision, TEXT, "auto", 0, 0, "auto|f32|f16|bf16", "NAME",
        "what pictures are computed in; auto: f16 on a GPU, f32 on the CPU"),
    KEY(plan_cache, TEXT, "", 0, 0, NULL, "FILE",
        "convolution plans tuned for this GPU, as 'deraind tune' wrote them; only ever read. Empty: plans.tsv in the "
        "data folder, if it is there"),
    KEY(workers, INT, "0", 0, 64, NULL, "N",
        "jobs that run at the same time: on the CPU each with its own copy of the model, on a GPU to decode and encode "
        "beside it. 0 = one on the CPU, one a core on a GPU, at most 8"),
    KEY(threads, INT, "0", 0, 1024, NULL, "N", "CPU threads of a worker; 0 = all cores"),
    KEY(batch, INT, "8", 1, 64, NULL, "N", "on a GPU, pictures of one size that run at once; 1 = one by one"),
    KEY(batch_window_ms, INT, "2", 0, 1000, NULL, "MS",
        "on an idle GPU, how long a picture waits for others of its size that are being decoded; 0 = not at all. One "
        "alone never waits"),
    KEY(queue_max, INT, "256", 1, 1000000, NULL, "N", "jobs that may wait; more are answered 429"),
    KEY(mem_budget, BYTES, "0", 0, INT64_MAX, NULL, "BYTES",
        "memory that a running job may take; larger pictures are answered 413. 0 = half of the machine's or cgroup's"),
    KEY(body_max_bytes, BYTES, "256M", 1024, 64 * GB, NULL, "BYTES", "largest picture file"),
    KEY(pixels_max, INT, "100000000", 256, INT64_C(1) << 32, NULL, "N", "most pixels of a picture"),
    KEY(side_max, INT, "32768", 16, 1000000, NULL, "N", "longest side of a picture in pixels"),
    KEY(sync_wait_max_s, SECONDS, "300s", 1, 3600, NULL, "TIME",
        "how long a request may wait for its picture before it is answered 504"),
    KEY(job_attempts_max, INT, "5", 1, 100, NULL, "N",
        "a job that was running in so many crashed lives of the daemon fails"),
    KEY(result_ttl, SECONDS, "24h", 0, INT64_C(10) * 365 * 86400, NULL, "TIME",
        "how long finished jobs are kept; 0 = for ever"),
    KEY(spool_max_bytes, BYTES, "10G", 0, INT64_MAX, NULL, "BYTES",
        "space for uploads and results; the oldest finished jobs go first, unfinished ones never. 0 = no limit"),
    KEY(dataset_files_max, INT, "20000", 1, 1000000, NULL, "N", "most pictures of a data set"),
    KEY(dataset_bytes_max, BYTES, "20G", 1024, INT64_MAX / 4, NULL, "BYTES",
        "most bytes of a data set's pictures together; an archive may be a little longer for its headers"),
    KEY(archive_ratio_max, INT, "100", 1, 100000, NULL, "N",
        "an archive that unpacks to more than 16 MiB may unpack to at most so many times its own size"),
    KEY(blob_ttl, SECONDS, "24h", 1, INT64_C(10) * 365 * 86400, NULL, "TIME",
        "how long uploaded pictures are kept that no data set and no comparison holds"),
    KEY(compare_pictures_max, INT, "200", 1, 1000, NULL, "N", "most pictures of a comparison"),
    KEY(free_min_bytes, BYTES, "1G", 0, INT64_MAX, NULL, "BYTES",
        "below this much free disk space new work is answered 507"),
    KEY(free_min_percent, INT, "5", 0, 99, NULL, "N", "the same, as a share of the disk in percent"),
    KEY(token_file, TEXT, "", 0, 0, NULL, "FILE",
        "one secret a line (16 characters or more); requests must carry one as Authorization: Bearer"),
    KEY(insecure, BOOL, "no", 0, 0, NULL, NULL, "allow listening beyond loopback without token_file"),
    KEY(allowed_hosts, TEXT, "", 0, 0, NULL, "NAMES",
        "further host names, with commas, that requests to a loopback address may carry in Host and Origin"),
    KEY(drain_s, SECONDS, "30s", 0, 3600, NULL, "TIME",
        "after SIGTERM, how long running work may take before it is put back"),
    KEY(http_threads, INT, "0", 0, 64, NULL, "N", "threads that speak HTTP; 0 = one a core, 2 to 4"),
    KEY(connections_max, INT, "1024", 8, 60000, NULL, "N", "open connections, waiting ones included"),
    KEY(connections_per_ip, INT, "64", 0, 60000, NULL, "N",
        "open connections of one address; 0 = no limit (behind a proxy)"),
    KEY(header_timeout_s, SECONDS, "10s", 1, 600, NULL, "TIME",
        "how long a client may take to send the request's header"),
    KEY(body_rate_min, BYTES, "8K", 0, GB, NULL, "BYTES",
        "bytes a second a body must keep up after its grace; 0 = any"),
    KEY(body_grace_s, SECONDS, "5s", 1, 600, NULL, "TIME", "how long a body may be slower than that at its start"),
    KEY(body_time_max_s, SECONDS, "15m", 1, 86400, NULL, "TIME", "how long a body may take in all"),
    KEY(gate_promote, TEXT, "manual", 0, 0, "auto|manual", "POLICY",
        "auto: a trained version that the gate accepts becomes the default"),
    KEY(log_level, TEXT, "info", 0, 0, "debug|info|warn|error|off", "LEVEL", "least important lines to log"),
    KEY(log_json, BOOL, "no", 0, 0, NULL, NULL, "log lines as JSON objects"),
};
const size_t srv_config_n_rows = sizeof srv_config_rows / sizeof srv_config_rows[0];

static void *field(const srv_config *c, const srv_config_row *row) {
    return (char *)(uintptr_t)c + row->offset;
}

static const srv_config_row *find(const char *key, size_t len) {
    for (size_t i = 0; i < srv_config_n_rows; i++)
        if (strlen(srv_config_rows[i].key) == len && !memcmp(srv_config_rows[i].key, key, len))
            return &srv_config_rows[i];
    return NULL;
}

/* A flag's or environment name in the spelling of the table. False when it is too long to be one. */
static bool spell(const char *in, size_t len, char from, bool lower, char *ret, size_t cap) {
    if (len >= cap) return false;
    for (size_t i = 0; i < len; i++) {
        char ch = in[i];
        if (from && ch == '_') return false; /* flags are written with '-' only */
        if (from && ch == from)
            ch = '_';
        else if (lower && ch >= 'A' && ch <= 'Z')
            ch = (char)(ch - 'A' + 'a');
        ret[i] = ch;
    }
    ret[len] = 0;
    return true;
}

static bool is_choice(const char *choices, const char *value) {
    size_t n = strlen(value);
    for (const char *p = choices; p; p = strchr(p, '|') ? strchr(p, '|') + 1 : NULL) {
        size_t len = strcspn(p, "|");
        if (len == n && !memcmp(p, value, n)) return true;
    }
    return false;
}

static dr_status set_row(srv_config *c, const srv_config_row *row, const char *value, dr_error *err) {
    int64_t n = 0;
    uint64_t u = 0;
    bool ok = true, flag = false;
    switch (row->type) {
    case SRV_CONF_TEXT: {
        if (row->choices && !is_choice(row->choices, value))
            return dr_fail(err, DR_INVALID, "%s must be one of %s, not '%.60s'", row->key, row->choices, value);
        char *copy = dr_strdup(value);
        if (!copy) return dr_fail(err, DR_NOMEM, "out of memory");
        char **p = field(c, row);
        dr_free(*p);
        *p = copy;
        return DR_OK;
    }
    case SRV_CONF_BOOL:
        if (!dr_parse_bool(value, &flag))
            return dr_fail(err, DR_INVALID, "%s must be yes or no, not '%.60s'", row->key, value);
        *(bool *)field(c, row) = flag;
        return DR_OK;
    case SRV_CONF_INT:
        ok = dr_parse_i64(value, row->min, row->max, &n);
        break;
    case SRV_CONF_BYTES:
        ok = dr_parse_bytes(value, (uint64_t)row->max, &u) && (int64_t)u >= row->min;
        n = (int64_t)u;
        break;
    case SRV_CONF_SECONDS:
        ok = dr_parse_seconds(value, row->max, &n) && n >= row->min;
        break;
    }
    if (!ok) {
        const char *unit = row->type == SRV_CONF_BYTES     ? " bytes (such as 512M)"
                           : row->type == SRV_CONF_SECONDS ? " seconds (such as 90, 15m, 24h)"
                                                           : "";
        if (row->max == INT64_MAX)
            return dr_fail(err, DR_INVALID, "%s must be at least %lld%s, not '%.60s'", row->key, (long long)row->min,
                           unit, value);
        return dr_fail(err, DR_INVALID, "%s must be %lld to %lld%s, not '%.60s'", row->key, (long long)row->min,
                       (long long)row->max, unit, value);
    }
    *(int64_t *)field(c, row) = n;
    return DR_OK;
}

void srv_config_init(srv_config *c) {
    *c = (srv_config){0};
}

void srv_config_done(srv_config *c) {
    for (size_t i = 0; i < srv_config_n_rows; i++) {
        if (srv_config_rows[i].type != SRV_CONF_TEXT) continue;
        char **p = field(c, &srv_config_rows[i]);
        dr_free(*p);
        *p = NULL;
    }
}

dr_status srv_config_defaults(srv_config *c, dr_error *err) {
    for (size_t i = 0; i < srv_config_n_rows; i++) {
        dr_status s = set_row(c, &srv_config_rows[i], srv_config_rows[i].init, err);
        if (s) return s;
    }
    return DR_OK;
}

dr_status srv_config_set(srv_config *c, const char *key, const char *value, dr_error *err) {
    const srv_config_row *row = find(key, strlen(key));
    if (!row) return dr_fail_as(err, DR_INVALID, "unknown_setting", "unknown setting '%.60s'", key);
    return set_row(c, row, value, err);
}

static bool is_space(char ch) {
    return ch == ' ' || ch == '\t' || ch == '\r';
}

static dr_status parse_line(srv_config *c, const char *p, size_t len, dr_error *err) {
    char value[4096];
    while (len && is_space(*p)) p++, len--;
    while (len && is_space(p[len - 1])) len--;
    if (!len || *p == '#') return DR_OK;
    if (memchr(p, 0, len)) return dr_fail(err, DR_INVALID, "a NUL byte");
    const char *eq = memchr(p, '=', len);
    if (!eq) return dr_fail(err, DR_INVALID, "expected 'key = value', got '%.*s'", (int)(len < 60 ? len : 60), p);
    size_t klen = (size_t)(eq - p), vlen = len - klen - 1;
    const char *v = eq + 1;
    while (klen && is_space(p[klen - 1])) klen--;
    while (vlen && is_space(*v)) v++, vlen--;
    const srv_config_row *row = find(p, klen);
    if (!row)
        return dr_fail_as(err, DR_INVALID, "unknown_setting", "unknown setting '%.*s'", (int)(klen < 60 ? klen : 60),
                          p);
    if (vlen >= sizeof value) return dr_fail(err, DR_INVALID, "%s is too long", row->key);
    memcpy(value, v, vlen);
    value[vlen] = 0;
    return set_row(c, row, value, err);
}

dr_status srv_config_parse(srv_config *c, const char *name, const char *text, size_t len, dr_error *err) {
    int line = 1;
    for (size_t i = 0; i < len; line++) {
        const char *end = memchr(text + i, '\n', len - i);
        size_t n = end ? (size_t)(end - text) - i : len - i;
        dr_status s = parse_line(c, text + i, n, err);
        if (s) return dr_wrap(err, s, "%s:%d", name, line);
        i += n + 1;
    }
    return DR_OK;
}

static dr_status load_file(srv_config *c, const char *path, dr_error *err) {
    char *text = NULL;
    size_t len = 0;
    dr_status s = dr_fs_read(path, 1 << 20, &text, &len, err);
    if (s) return s;
    s = srv_config_parse(c, path, text, len, err);
    dr_free(text);
    return s;
}

static dr_status load_env(srv_config *c, char **env, dr_error *err) {
    static const char prefix[] = "DERAIND_";
    char key[64];
    for (; env && *env; env++) {
        if (strncmp(*env, prefix, sizeof prefix - 1)) continue;
        const char *name = *env + sizeof prefix - 1, *eq = strchr(name, '=');
        if (!eq) continue;
        if (!spell(name, (size_t)(eq - name), 0, true, key, sizeof key) || !find(key, strlen(key)))
            return dr_fail_as(err, DR_INVALID, "unknown_setting", "environment: unknown setting '%.*s'",
                              (int)(eq - *env < 80 ? eq - *env : 80), *env);
        dr_status s = srv_config_set(c, key, eq + 1, err);
        if (s) return dr_wrap(err, s, "environment DERAIND_%.*s", (int)(eq - name), name);
    }
    return DR_OK;
}

/* One argument; *i moves past a value that stands in the next one. */
static dr_status load_flag(srv_config *c, int argc, char **argv, int *i, srv_config_ask *ask, const char **file,
                           bool files_only, dr_error *err) {
    const char *arg = argv[*i], *value = NULL;
    char key[64];
    if (!strcmp(arg, "--help") || !strcmp(arg, "-h")) return *ask = SRV_ASK_HELP, DR_OK;
    if (!strcmp(arg, "--dump-config")) {
        if (*ask == SRV_ASK_RUN) *ask = SRV_ASK_DUMP;
        return DR_OK;
    }
    if (strncmp(arg, "--", 2)) return dr_fail(err, DR_INVALID, "unexpected argument '%.60s'", arg);
    const char *eq = strchr(arg, '=');
    size_t len = eq ? (size_t)(eq - arg) - 2 : strlen(arg) - 2;
    bool known = spell(arg + 2, len, '-', false, key, sizeof key);
    const srv_config_row *row = known ? find(key, strlen(key)) : NULL;
    bool is_file = known && !strcmp(key, "config");
    if (!row && !is_file) return dr_fail_as(err, DR_INVALID, "unknown_setting", "unknown option '%.60s'", arg);
    if (eq)
        value = eq + 1;
    else if (row && row->type == SRV_CONF_BOOL)
        value = "yes";
    else if (*i + 1 < argc)
        value = argv[++*i];
    else
        return dr_fail(err, DR_INVALID, "option '%.60s' needs a value", arg);
    if (is_file) *file = value;
    if (is_file || files_only) return DR_OK;
    dr_status s = set_row(c, row, value, err);
    return s ? dr_wrap(err, s, "option --%.*s", (int)len, arg + 2) : DR_OK;
}

dr_status srv_config_load(srv_config *c, int argc, char **argv, char **env, const char *default_file,
                          srv_config_ask *ret_ask, dr_error *err) {
    srv_config_ask ask = SRV_ASK_RUN;
    const char *file = NULL;
    dr_status s = srv_config_defaults(c, err);
    for (int i = 1; !s && i < argc; i++) s = load_flag(c, argc, argv, &i, &ask, &file, true, err);
    if (!s && ask == SRV_ASK_HELP) return *ret_ask = ask, DR_OK;
    if (!s && !file && default_file && dr_fs_exists(default_file)) file = default_file;
    if (!s && file) s = load_file(c, file, err);
    if (!s) s = load_env(c, env, err);
    for (int i = 1; !s && i < argc; i++) s = load_flag(c, argc, argv, &i, &ask, &file, false, err);
    if (!s) *ret_ask = ask;
    return s;
}

/* Words of `text` in lines of at most `width`, each after `indent` blanks. */
static void fold(dr_buf *out, const char *text, int indent, int width) {
    int col = 0;
    while (*text) {
        int n = (int)strcspn(text, " ");
        if (col && col + 1 + n > width) {
            dr_buf_puts(out, "\n");
            col = 0;
        }
        if (!col)
            dr_buf_printf(out, "%*s", indent, "");
        else
            dr_buf_puts(out, " ");
        dr_buf_add(out, text, (size_t)n);
        col += n + (col ? 1 : 0);
        text += n;
        while (*text == ' ') text++;
    }
    dr_buf_puts(out, "\n");
}

void srv_config_help(dr_buf *out) {
    dr_buf_puts(
        out,
        "usage: deraind serve [--config FILE] [--OPTION VALUE]...\n"
        "Run the HTTP service until SIGTERM or SIGINT.\n\n"
        "  --config FILE\n      settings, `key = value` lines (default /etc/derain/deraind.conf if it exists)\n"
        "  --dump-config\n      print all settings as they would be used, in that form, and stop\n"
        "  --help\n      this text\n\n"
        "Every setting is a flag, a line of the file (with _ for -), and a variable DERAIND_<KEY>; flags win over\n"
        "the environment, which wins over the file.\n\n");
    for (size_t i = 0; i < srv_config_n_rows; i++) {
        const srv_config_row *row = &srv_config_rows[i];
        dr_buf_puts(out, "  --");
        for (const char *p = row->key; *p; p++) dr_buf_add(out, *p == '_' ? "-" : p, 1);
        dr_buf_printf(out, "%s%s", row->arg ? " " : "", row->choices ? row->choices : row->arg ? row->arg : "");
        if (*row->init) dr_buf_printf(out, "  [%s]", row->init);
        dr_buf_puts(out, "\n");
        fold(out, row->help, 6, 100);
    }
    dr_buf_puts(out, "\nExit codes: 0 stopped in order, 1 could not start or failed, 2 usage or configuration.\n");
}

void srv_config_dump(const srv_config *c, dr_buf *out) {
    for (size_t i = 0; i < srv_config_n_rows; i++) {
        const srv_config_row *row = &srv_config_rows[i];
        const void *p = field(c, row);
        if (row->type == SRV_CONF_TEXT)
            dr_buf_printf(out, "%s = %s\n", row->key, *(char *const *)p ? *(char *const *)p : "");
        else if (row->type == SRV_CONF_BOOL)
            dr_buf_printf(out, "%s = %s\n", row->key, *(const bool *)p ? "yes" : "no");
        else
            dr_buf_printf(out, "%s = %lld\n", row->key, (long long)*(const int64_t *)p);
    }
}
