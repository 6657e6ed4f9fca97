/* conv_cache.c - reads and writes one line of the cache of tuned plans. Numbers have one spelling (no sign but a minus
 * before a knob's value, no leading zeros, no spaces), so that a line read and written again is the same line. */
#include "cuda/conv_cache.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char *const kind_names[] = {"forward", "data", "weights", "columns"}; /* cv_kind, CV_CACHE_COLUMNS */
static const char *const type_names[] = {"f32", "bf16", "f16"};                    /* dk_type */
enum { N_KINDS = sizeof kind_names / sizeof *kind_names, N_TYPES = sizeof type_names / sizeof *type_names };

typedef struct cursor {
    const char *p, *end;
    bool bad;
} cursor;

/* The text up to the next tab or the end, past which the cursor moves. */
static const char *field(cursor *c, size_t *ret_len) {
    if (c->bad || !c->p) {
        c->bad = true;
        *ret_len = 0;
        return "";
    }
    const char *from = c->p, *tab = memchr(from, '\t', (size_t)(c->end - from));
    *ret_len = (size_t)((tab ? tab : c->end) - from);
    c->p = tab ? tab + 1 : NULL;
    return from;
}

static bool number(const char *s, size_t len, int64_t min, int64_t max, int64_t *ret) {
    bool neg = len && s[0] == '-';
    if (neg) s++, len--;
    if (!len || len > 18 || (s[0] == '0' && (len > 1 || neg))) return false;
    int64_t v = 0;
    for (size_t i = 0; i < len; i++) {
        if (s[i] < '0' || s[i] > '9') return false;
        v = v * 10 + (s[i] - '0');
    }
    if (neg) v = -v;
    if (v < min || v > max) return false;
    *ret = v;
    return true;
}

static int int_field(cursor *c, int min, int max) {
    size_t len;
    int64_t v = min;
    const char *s = field(c, &len);
    if (!number(s, len, min, max, &v)) c->bad = true;
    return (int)v;
}

static int name_field(cursor *c, const char *const *names, int n) {
    size_t len;
    const char *s = field(c, &len);
    for (int i = 0; i < n; i++)
        if (strlen(names[i]) == len && !memcmp(names[i], s, len)) return i;
    c->bad = true;
    return 0;
}

static bool is_name(const char *s, size_t len, size_t cap) {
    if (!len || len >= cap) return false;
    for (size_t i = 0; i < len; i++)
        if (s[i] < 32 || s[i] > 126) return false;
    return true;
}

static bool knobs(const char *s, size_t len, cv_plan_id *ret) {
    ret->n_knobs = 0;
    if (len == 1 && *s == '-') return true;
    for (const char *end = s + len;;) {
        const char *comma = memchr(s, ',', (size_t)(end - s)), *stop = comma ? comma : end;
        const char *colon = memchr(s, ':', (size_t)(stop - s));
        int64_t type, value;
        if (!colon || ret->n_knobs == CV_MAX_KNOBS) return false;
        if (!number(s, (size_t)(colon - s), 0, 1000, &type)) return false;
        if (!number(colon + 1, (size_t)(stop - colon - 1), INT32_MIN, INT32_MAX, &value)) return false;
        ret->knob[ret->n_knobs].type = (int)type;
        ret->knob[ret->n_knobs++].value = value;
        if (!comma) return true;
        s = comma + 1;
    }
}

bool cv_cache_parse_line(const char *text, size_t len, cv_cache_line *ret) {
    if (len >= CV_CACHE_MAX_LINE) return false;
    cursor c = {.p = text, .end = text + len};
    cv_cache_line l = {0};
    size_t n;
    const char *s = field(&c, &n);
    if (n != 2 || memcmp(s, "v2", 2)) return false;
    l.cudnn = int_field(&c, 1, 100000000);
    s = field(&c, &n);
    if (!is_name(s, n, sizeof l.device)) return false;
    memcpy(l.device, s, n);
    l.cc = int_field(&c, 1, 10000);
    l.sms = int_field(&c, 1, 100000);
    l.kind = name_field(&c, kind_names, N_KINDS);
    l.type = name_field(&c, type_names, N_TYPES);
    int *const dims[] = {&l.n, &l.i, &l.h, &l.w, &l.o, &l.k, &l.kw};
    for (size_t d = 0; d < sizeof dims / sizeof *dims; d++) *dims[d] = int_field(&c, 1, INT32_MAX);
    l.pad = int_field(&c, 0, INT32_MAX);
    l.plan.engine = int_field(&c, 0, 100000);
    s = field(&c, &n);
    if (c.bad || c.p || !knobs(s, n, &l.plan)) return false;
    if (l.kind == CV_CACHE_COLUMNS && (l.plan.engine > 1 || l.plan.n_knobs)) return false;
    *ret = l;
    return true;
}

size_t cv_cache_format_line(const cv_cache_line *c, char *ret, size_t cap) {
    if (c->kind < 0 || c->kind >= N_KINDS || c->type < 0 || c->type >= N_TYPES) return 0;
    if (c->plan.n_knobs < 0 || c->plan.n_knobs > CV_MAX_KNOBS) return 0;
    int at = snprintf(ret, cap, "v2\t%d\t%.127s\t%d\t%d\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t", c->cudnn,
                      c->device, c->cc, c->sms, kind_names[c->kind], type_names[c->type], c->n, c->i, c->h, c->w, c->o,
                      c->k, c->kw, c->pad, c->plan.engine);
    if (at < 0 || (size_t)at >= cap) return 0;
    size_t len = (size_t)at;
    for (int k = 0; k < c->plan.n_knobs; k++) {
        at = snprintf(ret + len, cap - len, "%s%d:%" PRId64, k ? "," : "", c->plan.knob[k].type, c->plan.knob[k].value);
        if (at < 0 || (size_t)at >= cap - len) return 0;
        len += (size_t)at;
    }
    at = snprintf(ret + len, cap - len, "%s\n", c->plan.n_knobs ? "" : "-");
    if (at < 0 || (size_t)at >= cap - len) return 0;
    len += (size_t)at;
    /* what would not be read back is not written */
    cv_cache_line back;
    return cv_cache_parse_line(ret, len - 1, &back) ? len : 0;
}
