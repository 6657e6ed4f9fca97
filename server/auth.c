/* auth.c - see auth.h. Only SHA-256 sums of the tokens are kept; a request's token is hashed and compared with all of
 * them without leaving early, so the time says nothing about which bytes were right. */
#include "server/auth.h"
#include "core/base/alloc.h"
#include "core/base/fs.h"
#include "core/base/hash.h"
#include "server/headers.h"
#include <string.h>
#include <sys/stat.h>

#define TOKEN_MIN  16
#define TOKENS_MAX 1000

struct srv_auth {
    bool needed, check_host;
    size_t n;
    uint8_t (*sum)[32];
    char *hosts; /* ",a,b," in lower case */
};

static void sha(const char *p, size_t n, uint8_t ret[32]) {
    dr_sha256 h;
    dr_sha256_init(&h);
    dr_sha256_add(&h, p, n);
    dr_sha256_end(&h, ret);
}

static dr_status parse(srv_auth *a, const char *text, size_t len, dr_error *err) {
    int line = 0;
    for (size_t i = 0; i < len;) {
        const char *p = text + i, *end = memchr(p, '\n', len - i);
        size_t n = end ? (size_t)(end - p) : len - i;
        i += n + 1;
        line++;
        while (n && (p[n - 1] == '\r' || p[n - 1] == ' ' || p[n - 1] == '\t')) n--;
        if (!n || *p == '#') continue;
        if (n < TOKEN_MIN)
            return dr_fail(err, DR_INVALID, "token_file, line %d: a token needs at least %d characters", line,
                           TOKEN_MIN);
        if (a->n == TOKENS_MAX) return dr_fail(err, DR_INVALID, "token_file: more than %d tokens", TOKENS_MAX);
        sha(p, n, a->sum[a->n++]);
    }
    return a->n ? DR_OK : dr_fail(err, DR_INVALID, "token_file holds no token");
}

static dr_status load(srv_auth *a, const char *path, dr_error *err) {
    struct stat st;
    char *text = NULL;
    size_t len = 0;
    dr_status s = dr_fs_read(path, 1 << 20, &text, &len, err);
    if (s) return dr_wrap(err, s, "token_file");
    if (!stat(path, &st) && (st.st_mode & (S_IROTH | S_IWOTH)))
        s = dr_fail(err, DR_INVALID, "token_file '%.200s' may be read or written by anybody: chmod 600 it", path);
    else if (!(a->sum = dr_calloc(TOKENS_MAX, sizeof *a->sum)))
        s = dr_fail(err, DR_NOMEM, "out of memory");
    else
        s = parse(a, text, len, err);
    explicit_bzero(text, len);
    dr_free(text);
    return s;
}

dr_status srv_auth_open(const char *token_file, const char *allowed_hosts, bool check_host, srv_auth **ret,
                        dr_error *err) {
    srv_auth *a = dr_calloc(1, sizeof *a);
    dr_status s = DR_OK;
    size_t n = strlen(allowed_hosts);
    if (!a) return dr_fail(err, DR_NOMEM, "out of memory");
    a->check_host = check_host;
    a->needed = *token_file != 0;
    if (!(a->hosts = dr_malloc(n + 3)))
        s = dr_fail(err, DR_NOMEM, "out of memory");
    else {
        size_t out = 0;
        a->hosts[out++] = ',';
        for (size_t i = 0; i < n; i++) {
            char c = allowed_hosts[i];
            if (c != ' ') a->hosts[out++] = (char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
        }
        a->hosts[out++] = ',';
        a->hosts[out] = 0;
    }
    if (!s && a->needed) s = load(a, token_file, err);
    if (s) {
        srv_auth_close(a);
        return s;
    }
    *ret = a;
    return DR_OK;
}

void srv_auth_close(srv_auth *a) {
    if (!a) return;
    dr_free(a->sum);
    dr_free(a->hosts);
    dr_free(a);
}

bool srv_auth_needed(const srv_auth *a) {
    return a->needed;
}

bool srv_auth_token_ok(const srv_auth *a, const char *authorization) {
    uint8_t sum[32];
    bool ok = false;
    const char *token = srv_bearer(authorization);
    if (!a->needed) return true;
    if (!token) return false;
    sha(token, strlen(token), sum);
    for (size_t i = 0; i < a->n; i++) ok |= dr_equal_ct(sum, a->sum[i], 32);
    return ok;
}

static bool host_ok(const srv_auth *a, const char *value) {
    char name[256 + 2], *hit = a->hosts;
    if (!srv_host_name(value, name, 256)) return false;
    if (srv_host_is_loopback(name)) return true;
    size_t n = strlen(name);
    while ((hit = strstr(hit, name))) {
        if (hit[-1] == ',' && hit[n] == ',') return true;
        hit++;
    }
    return false;
}

const char *srv_auth_origin_problem(const srv_auth *a, const char *host, const char *origin) {
    if (!a->check_host) return NULL;
    if (!host || !host_ok(a, host)) return "foreign_host";
    if (origin && !host_ok(a, origin)) return "foreign_origin";
    return NULL;
}
