/* guard.h - refuses what libmicrohttpd 0.9.75 would take two ways: message framing that a proxy in front may read
 * differently (request smuggling), and paths that change when they are decoded.
 *
 * Feed every header line, then ask. Knows no libmicrohttpd types. */
#ifndef SRV_GUARD_H
#define SRV_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct srv_guard {
    int n_length, n_coding, n_host;
    bool bad_name, bad_length, bad_coding, bad_value;
    int64_t length; /* Content-Length, -1 = none */
} srv_guard;

void srv_guard_init(srv_guard *g);
/* Lengths as received: a NUL inside a value makes strlen() shorter than value_len. value may be NULL. */
void srv_guard_header(srv_guard *g, const char *name, size_t name_len, const char *value, size_t value_len);
/* NULL = fine; else a code of problem.h (bad_framing, bad_path, length_required), the reason in *ret_why. */
const char *srv_guard_verdict(const srv_guard *g, const char *method, const char *version, const char *raw_uri,
                              const char **ret_why);

#endif
