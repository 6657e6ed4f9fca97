#define DR_STATUS_C /* the functions themselves, not what analysers are told of them */
#include "core/base/status.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

const char *dr_status_text(dr_status s) {
    static const char *const text[] = {
#define X(name, t) t,
        DR_STATUS_MAP(X)
#undef X
    };
    return (unsigned)s < sizeof text / sizeof *text ? text[s] : "unknown status";
}

static dr_status record(dr_error *err, dr_status code, const char *what, const char *fmt, va_list ap) {
    if (!err || err->code != DR_OK) return code;
    err->code = code;
    snprintf(err->what, sizeof err->what, "%s", what);
    vsnprintf(err->text, sizeof err->text, fmt, ap);
    return code;
}

dr_status dr_fail(dr_error *err, dr_status code, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    record(err, code, "", fmt, ap);
    va_end(ap);
    return code;
}

dr_status dr_fail_as(dr_error *err, dr_status code, const char *what, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    record(err, code, what, fmt, ap);
    va_end(ap);
    return code;
}

dr_status dr_fail_limit(dr_error *err, const char *what, const char *setting, int64_t limit, int64_t actual,
                        const char *fmt, ...) {
    if (!err || err->code != DR_OK) return DR_TOO_LARGE;
    va_list ap;
    va_start(ap, fmt);
    record(err, DR_TOO_LARGE, what, fmt, ap);
    va_end(ap);
    snprintf(err->setting, sizeof err->setting, "%s", setting);
    err->limit = limit;
    err->actual = actual;
    return DR_TOO_LARGE;
}

dr_status dr_wrap(dr_error *err, dr_status code, const char *fmt, ...) {
    if (!err) return code;
    if (err->code == DR_OK) { /* the callee had no words of its own */
        err->code = code;
        snprintf(err->text, sizeof err->text, "%s", dr_status_text(code));
    }
    char old[sizeof err->text], head[sizeof err->text];
    memcpy(old, err->text, sizeof old);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(head, sizeof head, fmt, ap);
    va_end(ap);
    size_t n = strlen(head);
    if (n > sizeof err->text / 2) n = sizeof err->text / 2; /* the cause must stay readable */
    snprintf(err->text, sizeof err->text, "%.*s: %s", (int)n, head, old);
    return code;
}

dr_status dr_fail_errno(dr_error *err, int errnum, const char *doing, const char *path) {
    dr_status s = errnum == ENOSPC || errnum == EDQUOT    ? DR_NOSPACE
                  : errnum == ENOENT || errnum == ENOTDIR ? DR_NOT_FOUND
                  : errnum == ENOMEM                      ? DR_NOMEM
                                                          : DR_IO;
    char why[96];
    const char *text = strerror_r(errnum, why, sizeof why); /* GNU form: the text may be static */
    return dr_fail(err, s, "cannot %s '%s': %s", doing, path, text);
}
