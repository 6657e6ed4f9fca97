/* guard.c - see guard.h. The cases are the measured ones of the interface document; each has a test over a real socket.
 */
#include "server/guard.h"
#include "core/base/parse.h"
#include <string.h>
#include <strings.h>

void srv_guard_init(srv_guard *g) {
    *g = (srv_guard){.length = -1};
}

void srv_guard_header(srv_guard *g, const char *name, size_t name_len, const char *value, size_t value_len) {
    if (!name_len) g->bad_name = true;
    for (size_t i = 0; i < name_len; i++)
        if ((unsigned char)name[i] <= ' ' || name[i] == 0x7f) g->bad_name = true;
    if (value && memchr(value, 0, value_len)) g->bad_value = true;
    if (!value) value = "";
    if (name_len == 14 && !strncasecmp(name, "Content-Length", 14)) {
        g->n_length++;
        for (const char *p = value; *p; p++)
            if (*p < '0' || *p > '9') g->bad_length = true; /* also "5, 5" and "+5" */
        if (!dr_parse_i64(value, 0, INT64_MAX, &g->length)) g->bad_length = true;
    } else if (name_len == 17 && !strncasecmp(name, "Transfer-Encoding", 17)) {
        g->n_coding++;
        if (strcmp(value, "chunked")) g->bad_coding = true;
    } else if (name_len == 4 && !strncasecmp(name, "Host", 4))
        g->n_host++;
}

static int hex(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* NUL anywhere; in the path also an encoded slash or backslash and segments that are ".." once decoded. */
static const char *bad_path(const char *uri) {
    bool in_path = true;
    size_t dots = 0, other = 0; /* in this segment */
    for (const char *p = uri;; p++) {
        int c = (unsigned char)*p;
        bool end = !c, encoded = false;
        if (c == '%') {
            int hi = hex(p[1]), lo = hi < 0 ? -1 : hex(p[2]);
            if (lo < 0) return "a broken %-escape";
            c = hi * 16 + lo;
            p += 2;
            encoded = true;
            if (!c) return "%00";
        }
        if (!in_path) {
            if (end) return NULL;
            continue;
        }
        bool stop = end || (!encoded && (c == '?' || c == '/'));
        if (encoded && (c == '/' || c == '\\')) return "%2F";
        if (stop && dots == 2 && !other) return "a '..' segment";
        if (stop)
            dots = other = 0;
        else if (c == '.')
            dots++;
        else
            other++;
        if (end) return NULL;
        if (!encoded && c == '?') in_path = false;
    }
}

const char *srv_guard_verdict(const srv_guard *g, const char *method, const char *version, const char *raw_uri,
                              const char **ret_why) {
    const char *why = NULL;
    if (g->bad_name)
        why = "white space in the name of a header";
    else if (g->bad_value)
        why = "a NUL byte in a header";
    else if (g->n_length > 1)
        why = "more than one Content-Length";
    else if (g->bad_length)
        why = "Content-Length is no number";
    else if (g->n_length && g->n_coding)
        why = "both Content-Length and Transfer-Encoding";
    else if (g->n_coding > 1 || g->bad_coding)
        why = "Transfer-Encoding is not exactly 'chunked'";
    else if (g->n_coding && strcmp(version, "HTTP/1.1"))
        why = "Transfer-Encoding needs HTTP/1.1";
    else if (g->n_host > 1)
        why = "more than one Host";
    if (why) {
        *ret_why = why;
        return "bad_framing";
    }
    if ((why = bad_path(raw_uri))) {
        *ret_why = why;
        return "bad_path";
    }
    if ((!strcmp(method, "POST") || !strcmp(method, "PUT") || !strcmp(method, "PATCH")) && !g->n_length &&
        !g->n_coding) {
        *ret_why = "send Content-Length (0 for an empty body; curl: -d '')";
        return "length_required";
    }
    return NULL;
}
