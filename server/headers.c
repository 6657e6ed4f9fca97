/* headers.c - see headers.h. One cursor-style scanner for comma-separated lists with ;parameters serves Accept, Prefer
 * and Content-Digest. */
#include "server/headers.h"
#include "core/base/hash.h"
#include "core/base/parse.h"
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static bool is_blank(char c) {
    return c == ' ' || c == '\t';
}
static bool is_alnum(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static const char *skip(const char *p) {
    while (is_blank(*p)) p++;
    return p;
}

typedef struct span {
    const char *p;
    size_t n;
} span;

static bool span_is(span s, const char *word) {
    return s.n == strlen(word) && !strncasecmp(s.p, word, s.n);
}

/* Next piece up to an unquoted `stop` (or ';' inside an element), trimmed. Returns what follows, NULL at the end. */
static const char *piece(const char *p, const char *stops, span *ret) {
    bool quoted = false;
    p = skip(p);
    const char *start = p;
    for (; *p; p++) {
        if (quoted && *p == '\\' && p[1])
            p++;
        else if (*p == '"')
            quoted = !quoted;
        else if (!quoted && strchr(stops, *p))
            break;
    }
    const char *end = p;
    while (end > start && is_blank(end[-1])) end--;
    *ret = (span){start, (size_t)(end - start)};
    return *p ? p : NULL;
}

/* name[=value] of a piece; value without its quotes (escapes are left, none of ours needs them). */
static void split(span s, span *ret_name, span *ret_value) {
    const char *eq = memchr(s.p, '=', s.n);
    *ret_value = (span){NULL, 0};
    if (!eq) {
        *ret_name = s;
        return;
    }
    size_t n = (size_t)(eq - s.p);
    while (n && is_blank(s.p[n - 1])) n--;
    *ret_name = (span){s.p, n};
    const char *v = eq + 1, *end = s.p + s.n;
    while (v < end && is_blank(*v)) v++;
    if (end - v >= 2 && *v == '"' && end[-1] == '"') v++, end--;
    *ret_value = (span){v, (size_t)(end - v)};
}

/* "0.75" as 750; -1 when malformed. */
static int quality(span s) {
    if (!s.n || s.n > 5 || (s.p[0] != '0' && s.p[0] != '1')) return -1;
    int q = (s.p[0] - '0') * 1000, unit = 100;
    if (s.n > 1 && s.p[1] != '.') return -1;
    for (size_t i = 2; i < s.n; i++, unit /= 10) {
        if (s.p[i] < '0' || s.p[i] > '9') return -1;
        q += (s.p[i] - '0') * unit;
    }
    return q > 1000 ? -1 : q;
}

int srv_accept_quality(const char *accept, const char *type) {
    const char *slash = strchr(type, '/');
    size_t major = slash ? (size_t)(slash - type) : strlen(type);
    int best = 0, best_rank = 0;
    bool any = false;
    if (!accept) return 1000;
    for (const char *p = accept; p;) {
        span range, param;
        int q = 1000, rank = 0;
        p = piece(p, ",;", &range);
        while (p && *p == ';') {
            span name, value;
            p = piece(p + 1, ",;", &param);
            split(param, &name, &value);
            if (span_is(name, "q")) q = quality(value);
        }
        if (p) p++;
        if (!range.n) continue;
        any = true;
        if (q < 0) continue; /* a malformed weight makes that range unusable, not the header */
        if (span_is(range, type))
            rank = 3;
        else if (range.n == major + 2 && !strncasecmp(range.p, type, major + 1) && range.p[range.n - 1] == '*')
            rank = 2;
        else if (span_is(range, "*/*"))
            rank = 1;
        if (rank > best_rank || (rank && rank == best_rank && q > best)) best = q, best_rank = rank;
    }
    return any ? best : 1000; /* an empty Accept says nothing */
}

int srv_accept_best(const char *accept, const char *const *types, int n) {
    int best = -1, best_q = 0;
    for (int i = 0; i < n; i++) {
        int q = srv_accept_quality(accept, types[i]);
        if (q > best_q) best = i, best_q = q;
    }
    return best;
}

void srv_prefer_parse(const char *value, srv_prefer *p) {
    char num[16];
    while (value) {
        span item, name, arg;
        value = piece(value, ",;", &item);
        split(item, &name, &arg);
        if (span_is(name, "respond-async"))
            p->respond_async = true;
        else if (span_is(name, "return") && span_is(arg, "minimal"))
            p->minimal = true;
        else if (span_is(name, "wait") && !p->has_wait && arg.n && arg.n < sizeof num) {
            memcpy(num, arg.p, arg.n);
            num[arg.n] = 0;
            p->has_wait = dr_parse_i64(num, 0, 86400, &p->wait_s);
        }
        while (value && *value == ';') value = piece(value + 1, ",;", &item); /* parameters of a preference */
        if (value) value++;
    }
}

/* Decimal digits only; false on none or overflow. */
static bool digits(const char **p, uint64_t *ret) {
    uint64_t n = 0;
    const char *s = *p;
    if (*s < '0' || *s > '9') return false;
    for (; *s >= '0' && *s <= '9'; s++) {
        uint64_t d = (uint64_t)(*s - '0');
        if (n > (UINT64_MAX - d) / 10) return false;
        n = n * 10 + d;
    }
    *p = s;
    *ret = n;
    return true;
}

srv_range srv_range_parse(const char *value, uint64_t total, uint64_t *ret_first, uint64_t *ret_len) {
    uint64_t first = 0, last = 0;
    if (!value || strncasecmp(value, "bytes", 5)) return SRV_RANGE_NONE;
    const char *p = skip(value + 5);
    if (*p++ != '=') return SRV_RANGE_NONE;
    p = skip(p);
    if (*p == '-') { /* the last n bytes */
        p++;
        if (!digits(&p, &last) || *skip(p)) return SRV_RANGE_NONE;
        if (!last || !total) return SRV_RANGE_UNSATISFIABLE;
        *ret_len = last < total ? last : total;
        *ret_first = total - *ret_len;
        return SRV_RANGE_OK;
    }
    if (!digits(&p, &first) || *p++ != '-') return SRV_RANGE_NONE;
    bool open = !*skip(p);
    if (!open && (!digits(&p, &last) || *skip(p) || last < first)) return SRV_RANGE_NONE;
    if (first >= total) return SRV_RANGE_UNSATISFIABLE;
    if (open || last >= total) last = total - 1;
    *ret_first = first;
    *ret_len = last - first + 1;
    return SRV_RANGE_OK;
}

bool srv_etag_listed(const char *list, const char *etag) {
    if (!list) return false;
    if (!strncmp(etag, "W/", 2)) etag += 2;
    while (list) {
        span tag;
        list = piece(list, ",", &tag);
        if (list) list++;
        if (tag.n == 1 && *tag.p == '*') return true;
        if (tag.n > 2 && tag.p[0] == 'W' && tag.p[1] == '/') tag.p += 2, tag.n -= 2;
        if (tag.n == strlen(etag) && !memcmp(tag.p, etag, tag.n)) return true;
    }
    return false;
}

srv_digest srv_digest_parse(const char *value, uint8_t ret[32]) {
    while (value) {
        span item, name, arg;
        uint8_t sum[33];
        size_t len = 0;
        value = piece(value, ",", &item);
        if (value) value++;
        split(item, &name, &arg);
        if (!span_is(name, "sha-256")) continue;
        if (arg.n < 2 || arg.p[0] != ':' || arg.p[arg.n - 1] != ':') return SRV_DIGEST_BAD;
        if (!dr_unbase64(arg.p + 1, arg.n - 2, sum, sizeof sum, &len) || len != 32) return SRV_DIGEST_BAD;
        memcpy(ret, sum, 32);
        return SRV_DIGEST_SHA256;
    }
    return SRV_DIGEST_NONE;
}

void srv_digest_format(const uint8_t sha[32], char ret[SRV_DIGEST_TEXT]) {
    char b64[48];
    dr_base64(sha, 32, b64);
    snprintf(ret, SRV_DIGEST_TEXT, "sha-256=:%s:", b64);
}

bool srv_request_id_ok(const char *s) {
    size_t n = s ? strlen(s) : 0;
    if (!n || n > 64) return false;
    for (; *s; s++)
        if (!is_alnum(*s) && !strchr("-_.:+/=", *s)) return false;
    return true;
}

bool srv_idempotency_key_ok(const char *s) {
    size_t n = s ? strlen(s) : 0;
    if (!n || n > 255) return false;
    for (; *s; s++)
        if (*s < 0x20 || *s > 0x7e) return false;
    return true;
}

static bool lower_hex(const char *s, size_t n, bool *ret_nonzero) {
    *ret_nonzero = false;
    for (size_t i = 0; i < n; i++) {
        if (!((s[i] >= '0' && s[i] <= '9') || (s[i] >= 'a' && s[i] <= 'f'))) return false;
        if (s[i] != '0') *ret_nonzero = true;
    }
    return true;
}

bool srv_traceparent_next(const char *v, uint64_t span_id, char ret[SRV_TRACE]) {
    bool trace = false, parent = false, flags = false;
    if (!v || strlen(v) != 55 || strncmp(v, "00-", 3) || v[35] != '-' || v[52] != '-') return false;
    if (!lower_hex(v + 3, 32, &trace) || !trace || !lower_hex(v + 36, 16, &parent) || !parent) return false;
    if (!lower_hex(v + 53, 2, &flags)) return false;
    snprintf(ret, SRV_TRACE, "00-%.32s-%016llx-%.2s", v + 3, (unsigned long long)(span_id ? span_id : 1), v + 53);
    return true;
}

void srv_traceparent_new(uint64_t hi, uint64_t lo, uint64_t span_id, char ret[SRV_TRACE]) {
    snprintf(ret, SRV_TRACE, "00-%016llx%016llx-%016llx-00", (unsigned long long)hi, (unsigned long long)(lo ? lo : 1),
             (unsigned long long)(span_id ? span_id : 1));
}

const char *srv_bearer(const char *authorization) {
    if (!authorization || strncasecmp(authorization, "Bearer ", 7)) return NULL;
    const char *p = skip(authorization + 7);
    return *p ? p : NULL;
}

bool srv_host_name(const char *value, char *ret, size_t cap) {
    const char *p = strstr(value, "://");
    size_t n = 0;
    p = p ? p + 3 : value;
    if (*p == '[') {
        p++;
        n = strcspn(p, "]");
        if (p[n] != ']') return false;
    } else
        n = strcspn(p, ":/");
    const char *rest = p[n] == ']' ? p + n + 1 : p + n;
    if (*rest == ':')
        for (rest++; *rest >= '0' && *rest <= '9'; rest++) {
        }
    if ((*rest && *rest != '/') || !n || n >= cap) return false;
    for (size_t i = 0; i < n; i++) ret[i] = (char)(p[i] >= 'A' && p[i] <= 'Z' ? p[i] - 'A' + 'a' : p[i]);
    ret[n] = 0;
    return true;
}

bool srv_host_is_loopback(const char *host) {
    struct in_addr v4;
    struct in6_addr v6;
    size_t n = strlen(host);
    if (!strcmp(host, "localhost") || (n > 10 && !strcmp(host + n - 10, ".localhost"))) return true;
    if (inet_pton(AF_INET, host, &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
    return inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

bool srv_media_is(const char *content_type, const char *type) {
    span s;
    if (!content_type) return false;
    piece(content_type, ";", &s);
    return span_is(s, type);
}

bool srv_media_param(const char *content_type, const char *name, char *ret, size_t cap) {
    span s;
    const char *p = content_type ? piece(content_type, ";", &s) : NULL;
    while (p) {
        span key, value;
        p = piece(p + 1, ";", &s);
        split(s, &key, &value);
        if (!span_is(key, name)) continue;
        if (!value.n || value.n >= cap) return false;
        memcpy(ret, value.p, value.n);
        ret[value.n] = 0;
        return true;
    }
    return false;
}
