/* headers.h - small parsers for the request headers we understand. All take a NUL-terminated value that MHD already
 * limited in size, allocate nothing, and never fail hard: what is not well-formed is either "false" or ignored, as the
 * RFC in the comment says. */
#ifndef SRV_HEADERS_H
#define SRV_HEADERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Quality 0..1000 that an Accept value (RFC 9110 12.5.1; NULL = anything) gives to `type` "image/png". The most
 * specific range wins, as the RFC says. */
int srv_accept_quality(const char *accept, const char *type);

/* Index of the best of `types` (earlier ones win ties), -1 when none is acceptable. */
int srv_accept_best(const char *accept, const char *const *types, int n);

typedef struct srv_prefer { /* RFC 7240 */
    bool has_wait, respond_async, minimal;
    int64_t wait_s; /* 0..86400 */
} srv_prefer;
/* All Prefer fields joined with ", " or one after the other: later calls add. The first of a preference counts. */
void srv_prefer_parse(const char *value, srv_prefer *p);

typedef enum srv_range { SRV_RANGE_NONE, SRV_RANGE_OK, SRV_RANGE_UNSATISFIABLE } srv_range;
/* A single byte range over `total` bytes (RFC 9110 14.1). Several ranges, other units and bad syntax are NONE: the
 * whole is sent. */
srv_range srv_range_parse(const char *value, uint64_t total, uint64_t *ret_first, uint64_t *ret_len);

/* Does an If-None-Match / If-Match list hold this tag (weak comparison)? etag as sent, with quotes. "*" matches. */
bool srv_etag_listed(const char *list, const char *etag);

typedef enum srv_digest { SRV_DIGEST_NONE, SRV_DIGEST_SHA256, SRV_DIGEST_BAD } srv_digest;
/* Content-Digest (RFC 9530): `sha-256=:base64:` among others. Unknown algorithms are ignored. */
srv_digest srv_digest_parse(const char *value, uint8_t ret[32]);
#define SRV_DIGEST_TEXT 64 /* "sha-256=:" 44 ":" */
void srv_digest_format(const uint8_t sha[32], char ret[SRV_DIGEST_TEXT]);

bool srv_request_id_ok(const char *s);      /* 1..64 of letters, digits and -_.:+/= */
bool srv_idempotency_key_ok(const char *s); /* 1..255 printable ASCII; the draft's quotes are part of it */

#define SRV_TRACE 56
/* W3C traceparent, version 00: keep the trace, put our own span. False when malformed; ret is untouched. */
bool srv_traceparent_next(const char *value, uint64_t span, char ret[SRV_TRACE]);
void srv_traceparent_new(uint64_t hi, uint64_t lo, uint64_t span, char ret[SRV_TRACE]);

/* "Bearer TOKEN", scheme in any case: the token, or NULL. */
const char *srv_bearer(const char *authorization);

/* The host of a Host value or of an Origin/URL ("http://h:1" -> "h", "[::1]:80" -> "::1"), lower case. False when it
 * is malformed or longer than cap-1. */
bool srv_host_name(const char *value, char *ret, size_t cap);
bool srv_host_is_loopback(const char *host); /* localhost, *.localhost, 127.x.y.z, ::1 */

/* Is the media type of a Content-Type this one (parameters ignored, any case)? */
bool srv_media_is(const char *content_type, const char *type);
/* A parameter of a Content-Type, unquoted. False when absent, empty or too long. */
bool srv_media_param(const char *content_type, const char *name, char *ret, size_t cap);

#endif
