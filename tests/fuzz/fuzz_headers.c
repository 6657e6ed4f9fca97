/* fuzz_headers.c - any text as each of the headers that are parsed, and as a path for the guard. */
#include "server/guard.h"
#include "server/headers.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const types[] = {"image/png", "image/jpeg", "application/json"};
    char *s = malloc(size + 1), text[128];
    uint8_t sum[32];
    uint64_t first = 0, len = 0;
    srv_prefer p = {0};
    srv_guard g;
    const char *why = "";
    if (!s) return 0;
    memcpy(s, data, size);
    s[size] = 0;
    int q = srv_accept_quality(s, "image/png"), best = srv_accept_best(s, types, 3);
    if (q < 0 || q > 1000 || best < -1 || best > 2) abort();
    srv_prefer_parse(s, &p);
    if (p.has_wait && (p.wait_s < 0 || p.wait_s > 86400)) abort();
    if (srv_range_parse(s, 1000, &first, &len) == SRV_RANGE_OK && (!len || first + len > 1000 || first >= 1000))
        abort();
    srv_etag_listed(s, "\"x\"");
    srv_digest_parse(s, sum);
    srv_request_id_ok(s);
    srv_idempotency_key_ok(s);
    if (srv_traceparent_next(s, 1, text) && strlen(text) != 55) abort();
    srv_bearer(s);
    if (srv_host_name(s, text, sizeof text)) srv_host_is_loopback(text);
    srv_media_is(s, "multipart/form-data");
    srv_media_param(s, "boundary", text, sizeof text);
    srv_guard_init(&g);
    srv_guard_header(&g, "Content-Length", 14, (const char *)data, size);
    srv_guard_header(&g, s, strlen(s), s, strlen(s));
    if (!srv_guard_verdict(&g, "GET", "HTTP/1.1", s, &why) && strstr(s, "%00")) abort();
    free(s);
    return 0;
}
