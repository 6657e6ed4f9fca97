/* blob.c - immutable bytes as an answer (RFC 9110 sections 13 and 14, RFC 9530): results of jobs, weights. */
#include "core/base/hash.h"
#include "server/request.h"
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void describe(srv_req *r, const char *sha256, const char *etag, const char *cache, bool whole) {
    char digest[SRV_DIGEST_TEXT];
    uint8_t sha[32];
    srv_reply_header(r, "ETag", "%s", etag);
    srv_reply_header(r, "Cache-Control", "%s", cache);
    srv_reply_header(r, "Accept-Ranges", "bytes");
    if (!dr_unhex(sha256, 32, sha)) return;
    srv_digest_format(sha, digest);
    srv_reply_header(r, whole ? "Content-Digest" : "Repr-Digest", "%s", digest); /* of these bytes or of all */
}

srv_next srv_reply_blob(srv_req *r, const char *type, const char *sha256, const char *cache, int fd, uint64_t total) {
    char etag[72];
    uint64_t first = 0, len = 0;
    snprintf(etag, sizeof etag, "\"%s\"", sha256);
    bool get = strcmp(r->method, "POST") != 0; /* ranges and 304 belong to the bytes' own address */
    if (get && srv_etag_listed(srv_header(r, "If-None-Match"), etag)) {
        close(fd);
        srv_reply_header(r, "ETag", "%s", etag);
        srv_reply_header(r, "Cache-Control", "%s", cache);
        return srv_reply_empty(r, 304);
    }
    const char *if_range = get ? srv_header(r, "If-Range") : NULL;
    bool same = !if_range || !strcmp(if_range, etag);
    switch (get && same ? srv_range_parse(srv_header(r, "Range"), total, &first, &len) : SRV_RANGE_NONE) {
    case SRV_RANGE_OK:
        describe(r, sha256, etag, cache, false);
        srv_reply_header(r, "Content-Range", "bytes %llu-%llu/%llu", (unsigned long long)first,
                         (unsigned long long)(first + len - 1), (unsigned long long)total);
        return srv_reply_file(r, 206, type, fd, first, len);
    case SRV_RANGE_UNSATISFIABLE:
        close(fd);
        srv_reply_header(r, "Content-Range", "bytes */%llu", (unsigned long long)total);
        return srv_reply_error(r, "range_not_satisfiable", "there are %llu bytes", (unsigned long long)total);
    default:
        describe(r, sha256, etag, cache, true);
        return srv_reply_file(r, 200, type, fd, 0, total);
    }
}
