/* multipart.c - see multipart.h.
 *
 * States: PREAMBLE (looking for the first delimiter), AFTER (behind a delimiter: "--" ends, CRLF opens a part), HEADER
 * (lines up to an empty one), BODY (bytes until the next delimiter), EPILOGUE. The first delimiter may stand at the
 * very start without its CRLF: `held` begins as if a CRLF had been read. */
#include "server/multipart.h"
#include <string.h>
#include <strings.h>

enum { PREAMBLE, AFTER, HEADER, BODY, EPILOGUE };

static dr_status broken(dr_error *err, const char *why) {
    return dr_fail_as(err, DR_INVALID, "bad_multipart", "the form is broken: %s", why);
}

dr_status srv_multipart_init(srv_multipart *m, const char *boundary, srv_multipart_sink sink, void *arg,
                             dr_error *err) {
    size_t n = strlen(boundary);
    if (!n || n > SRV_BOUNDARY_MAX || boundary[n - 1] == ' ') return broken(err, "no usable boundary in Content-Type");
    for (size_t i = 0; i < n; i++)
        if (boundary[i] < 0x20 || boundary[i] > 0x7e) return broken(err, "no usable boundary in Content-Type");
    *m = (srv_multipart){.sink = sink, .arg = arg, .delim = "\r\n--", .delim_len = n + 4, .state = PREAMBLE};
    memcpy(m->delim + 4, boundary, n);
    memcpy(m->held, "\r\n", 2);
    m->n_held = 2;
    return DR_OK;
}

static dr_status pass(srv_multipart *m, const char *data, size_t len, dr_error *err) {
    return m->state == BODY && len ? m->sink(m->arg, data, len, err) : DR_OK;
}

/* Bytes of preamble or body until the delimiter is complete; what may be its beginning is held back. */
static dr_status scan(srv_multipart *m, const char *data, size_t len, size_t *ret_used, dr_error *err) {
    size_t i = 0, from = 0;
    dr_status s = DR_OK;
    while (i < len && !s) {
        if (m->n_held) {
            if (data[i] == m->delim[m->n_held]) {
                m->held[m->n_held++] = data[i++];
                from = i;
                if (m->n_held < m->delim_len) continue;
                m->n_held = 0;
                m->state = AFTER;
                break;
            }
            /* CR occurs in the delimiter at its start only, so nothing but this byte can begin it anew. */
            s = pass(m, m->held, m->n_held, err);
            m->n_held = 0;
            continue;
        }
        const char *cr = memchr(data + i, '\r', len - i);
        size_t end = cr ? (size_t)(cr - data) : len;
        s = pass(m, data + from, end - from, err);
        i = from = end;
        if (cr) m->held[m->n_held++] = data[i++], from = i;
    }
    *ret_used = i;
    return s;
}

/* The value of a parameter in `form-data; name="image"; filename="x"`. */
static bool param(const char *line, const char *name, char *ret, size_t cap) {
    size_t n = strlen(name);
    for (const char *p = strchr(line, ';'); p;) {
        p++;
        while (*p == ' ' || *p == '\t') p++;
        bool hit = !strncasecmp(p, name, n) && p[n] == '=';
        size_t out = 0;
        bool quoted = false;
        if (hit) p += n + 1;
        for (; *p && (quoted || *p != ';'); p++) {
            if (quoted && *p == '\\' && p[1])
                p++;
            else if (*p == '"') {
                quoted = !quoted;
                continue;
            }
            if (!hit) continue;
            if (out + 1 >= cap) return false;
            ret[out++] = *p;
        }
        if (hit) {
            ret[out] = 0;
            return true;
        }
        if (!*p) p = NULL;
    }
    return false;
}

/* One header line of a part, without its CRLF. */
static dr_status header_line(srv_multipart *m, char *line, dr_error *err) {
    static const char disposition[] = "Content-Disposition:", encoding[] = "Content-Transfer-Encoding:";
    char name[64];
    if (!strncasecmp(line, encoding, sizeof encoding - 1)) {
        const char *v = line + sizeof encoding - 1;
        while (*v == ' ') v++;
        if (strcasecmp(v, "binary") && strcasecmp(v, "8bit") && strcasecmp(v, "7bit"))
            return broken(err, "a part has a Content-Transfer-Encoding");
    }
    if (strncasecmp(line, disposition, sizeof disposition - 1)) return DR_OK;
    if (m->named) return broken(err, "a part has two Content-Disposition lines");
    if (!param(line, "name", name, sizeof name)) return broken(err, "a part has no name");
    if (strcmp(name, "image"))
        return dr_fail_as(err, DR_INVALID, "unknown_field",
                          "unknown field '%.40s' in the form; the picture goes in 'image'", name);
    if (m->seen) return broken(err, "more than one 'image'");
    m->named = true;
    return DR_OK;
}

static dr_status header_byte(srv_multipart *m, char c, dr_error *err) {
    if (++m->header_bytes >= SRV_PART_HEADER_MAX || m->n_held + 1 >= sizeof m->held)
        return broken(err, "the header of a part is too long");
    if (!c) return broken(err, "a NUL byte in the header of a part");
    if (c != '\n') {
        m->held[m->n_held++] = c;
        return DR_OK;
    }
    if (m->n_held && m->held[m->n_held - 1] == '\r') m->n_held--;
    m->held[m->n_held] = 0;
    size_t n = m->n_held;
    m->n_held = 0;
    if (n) return header_line(m, m->held, err);
    if (!m->named) return broken(err, "a part has no Content-Disposition");
    m->seen = true;
    m->state = BODY;
    return DR_OK;
}

static dr_status after_byte(srv_multipart *m, char c, dr_error *err) {
    if (m->n_held == 0 && (c == ' ' || c == '\t')) return DR_OK; /* transport padding */
    if (m->n_held == 0 && (c == '-' || c == '\r')) {
        m->held[m->n_held++] = c;
        return DR_OK;
    }
    if (m->n_held == 1 && m->held[0] == '-' && c == '-')
        m->done = true, m->state = EPILOGUE;
    else if (m->n_held == 1 && m->held[0] == '\r' && c == '\n')
        m->state = HEADER, m->named = false, m->header_bytes = 0;
    else
        return broken(err, "garbage behind a boundary");
    m->n_held = 0;
    return DR_OK;
}

dr_status srv_multipart_feed(srv_multipart *m, const char *data, size_t len, dr_error *err) {
    dr_status s = DR_OK;
    for (size_t i = 0, used = 0; i < len && !s; i += used) {
        used = 1;
        switch (m->state) {
        case PREAMBLE:
        case BODY:
            s = scan(m, data + i, len - i, &used, err);
            break;
        case AFTER:
            s = after_byte(m, data[i], err);
            break;
        case HEADER:
            s = header_byte(m, data[i], err);
            break;
        default:
            return DR_OK;
        }
    }
    return s;
}

dr_status srv_multipart_end(const srv_multipart *m, dr_error *err) {
    if (!m->done) return broken(err, "it ends before its last boundary");
    if (!m->seen) return dr_fail_as(err, DR_INVALID, "bad_multipart", "the form has no field 'image'");
    return DR_OK;
}
