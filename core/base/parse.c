#include "core/base/parse.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

bool dr_parse_i64(const char *s, int64_t min, int64_t max, int64_t *ret) {
    if (!s || !(isdigit((unsigned char)*s) || (*s == '-' && isdigit((unsigned char)s[1])))) return false;
    char *end;
    errno = 0;
    long long v = strtoll(s, &end, 10);
    if (errno || *end || v < min || v > max) return false;
    *ret = v;
    return true;
}

/* Digits at the start of s; *end points behind them. */
static bool digits(const char *s, const char **end, uint64_t *ret) {
    if (!s || !isdigit((unsigned char)*s)) return false;
    char *e;
    errno = 0;
    unsigned long long v = strtoull(s, &e, 10);
    if (errno) return false;
    *end = e;
    *ret = v;
    return true;
}

bool dr_parse_u64(const char *s, uint64_t min, uint64_t max, uint64_t *ret) {
    const char *end;
    uint64_t v;
    if (!digits(s, &end, &v) || *end || v < min || v > max) return false;
    *ret = v;
    return true;
}

bool dr_parse_int(const char *s, int min, int max, int *ret) {
    int64_t v;
    if (!dr_parse_i64(s, min, max, &v)) return false;
    *ret = (int)v;
    return true;
}

bool dr_parse_double(const char *s, double min, double max, double *ret) {
    static locale_t c_locale;
    locale_t loc = __atomic_load_n(&c_locale, __ATOMIC_ACQUIRE);
    if (!loc) {
        loc = newlocale(LC_ALL_MASK, "C", (locale_t)0);
        if (!loc) return false;
        locale_t none = (locale_t)0;
        if (!__atomic_compare_exchange_n(&c_locale, &none, loc, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
            freelocale(loc);
            loc = none;
        }
    }
    if (!s || !(isdigit((unsigned char)*s) || *s == '-' || *s == '.')) return false;
    char *end;
    errno = 0;
    double v = strtod_l(s, &end, loc);
    if (end == s || *end || !isfinite(v) || v < min || v > max) return false;
    *ret = v;
    return true;
}

bool dr_parse_bool(const char *s, bool *ret) {
    static const char *const yes[] = {"1", "true", "yes", "on"}, *const no[] = {"0", "false", "no", "off"};
    for (int i = 0; s && i < 4; i++) {
        if (!strcasecmp(s, yes[i])) return *ret = true, true;
        if (!strcasecmp(s, no[i])) return *ret = false, true;
    }
    return false;
}

bool dr_parse_bytes(const char *s, uint64_t max, uint64_t *ret) {
    const char *u;
    uint64_t v, mul = 1;
    if (!digits(s, &u, &v)) return false;
    if (*u == ' ') u++;
    const char *const units = "KMGT", *k = *u ? strchr(units, toupper((unsigned char)*u)) : NULL;
    if (k) {
        mul = (uint64_t)1 << (10 * (int)(k - units + 1));
        u++;
        if (*u == 'i' && u[1]) u++;
    }
    if (toupper((unsigned char)*u) == 'B') u++;
    uint64_t r;
    if (*u || __builtin_mul_overflow(v, mul, &r) || r > max) return false;
    *ret = r;
    return true;
}

bool dr_parse_seconds(const char *s, int64_t max, int64_t *ret) {
    const char *u;
    uint64_t v, mul = 1, r;
    if (!digits(s, &u, &v)) return false;
    if (*u) {
        mul = *u == 's' ? 1 : *u == 'm' ? 60 : *u == 'h' ? 3600 : *u == 'd' ? 86400 : 0;
        if (!mul || u[1]) return false;
    }
    if (__builtin_mul_overflow(v, mul, &r) || max < 0 || r > (uint64_t)max) return false;
    *ret = (int64_t)r;
    return true;
}

bool dr_parse_size(const char *s, int min, int max, int *ret_w, int *ret_h) {
    const char *u, *end;
    uint64_t w, h;
    if (min < 0 || max < 0 || !digits(s, &u, &w) || *u != 'x' || !digits(u + 1, &end, &h) || *end) return false;
    if (w < (uint64_t)min || w > (uint64_t)max || h < (uint64_t)min || h > (uint64_t)max) return false;
    *ret_w = (int)w;
    *ret_h = (int)h;
    return true;
}
