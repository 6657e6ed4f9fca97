/* status.h - how every call in this project says that it failed.
 *
 * A function returns a dr_status, a cause that the caller can act on. The words for a person go into a dr_error
 * that the caller owns (usually on its stack, may be NULL). The first error wins: dr_fail() on a dr_error that
 * already holds one changes nothing, so the root cause survives a clean-up that fails as well. */
#ifndef DR_BASE_STATUS_H
#define DR_BASE_STATUS_H

#include <stdarg.h>
#include <stdint.h>

#define DR_MUSTUSE      __attribute__((warn_unused_result))
#define DR_PRINTF(f, a) __attribute__((format(printf, f, a)))

#define DR_STATUS_MAP(X)                                                                                               \
    X(OK, "ok")                                                                                                        \
    X(INVALID, "invalid argument")                                                                                     \
    X(UNSUPPORTED, "not supported")                                                                                    \
    X(TOO_LARGE, "over a limit")                                                                                       \
    X(NOT_FOUND, "not found")                                                                                          \
    X(CONFLICT, "conflict")                                                                                            \
    X(BUSY, "busy")                                                                                                    \
    X(CANCELLED, "cancelled")                                                                                          \
    X(NOMEM, "out of memory")                                                                                          \
    X(IO, "input/output error")                                                                                        \
    X(NOSPACE, "no space left")                                                                                        \
    X(CORRUPT, "corrupt data")                                                                                         \
    X(BACKEND, "backend failure")                                                                                      \
    X(UNAVAILABLE, "unavailable")                                                                                      \
    X(INTERNAL, "internal error")

typedef enum dr_status {
#define X(name, text) DR_##name,
    DR_STATUS_MAP(X)
#undef X
} dr_status;

/* What went wrong, for people and for machines. `what` is a stable snake_case identifier such as
 * "image_too_large" ("" when the status alone says it). Where a limit was passed, `setting` names the option that
 * moves it and limit/actual hold the two numbers. */
typedef struct dr_error {
    dr_status code;
    char what[40];
    char text[320];
    char setting[32];
    int64_t limit, actual;
} dr_error;

/* Short default text of a status; never NULL. */
const char *dr_status_text(dr_status s);

/* Record an error (first one wins) and return `code`, so that callers write: return dr_fail(err, DR_NOMEM, ...). */
dr_status dr_fail(dr_error *err, dr_status code, const char *fmt, ...) DR_PRINTF(3, 4);

/* The same with a stable identifier. */
dr_status dr_fail_as(dr_error *err, dr_status code, const char *what, const char *fmt, ...) DR_PRINTF(4, 5);

/* A limit was passed: DR_TOO_LARGE with limit, actual value and the setting's name. */
dr_status dr_fail_limit(dr_error *err, const char *what, const char *setting, int64_t limit, int64_t actual,
                        const char *fmt, ...) DR_PRINTF(6, 7);

/* Put context in front of the recorded text ("job x: ..."); keeps everything else; returns `code`. */
dr_status dr_wrap(dr_error *err, dr_status code, const char *fmt, ...) DR_PRINTF(3, 4);

/* errno of a failed system call on `path`, as IO, NOSPACE (ENOSPC, EDQUOT) or NOT_FOUND. */
dr_status dr_fail_errno(dr_error *err, int errnum, const char *doing, const char *path);

/* Static analysers see one file at a time: tell them that a failure is never DR_OK. */
#if defined(__clang_analyzer__) && !defined(DR_STATUS_C)
static inline dr_status dr_failed_with(dr_status recorded, dr_status code) {
    (void)recorded;
    return code;
}
#define dr_fail(err, code, ...)      dr_failed_with(dr_fail(err, code, __VA_ARGS__), code)
#define dr_fail_as(err, code, ...)   dr_failed_with(dr_fail_as(err, code, __VA_ARGS__), code)
#define dr_fail_limit(err, ...)      dr_failed_with(dr_fail_limit(err, __VA_ARGS__), DR_TOO_LARGE)
#define dr_fail_errno(err, num, ...) dr_failed_with(dr_fail_errno(err, num, __VA_ARGS__), DR_IO)
#endif

#endif
