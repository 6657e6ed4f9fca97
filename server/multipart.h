/* multipart.h - a streaming reader of multipart/form-data (RFC 7578): fed in pieces of any size, it hands on the bytes
 * of the one field that carries the picture and keeps nothing but a window as long as the boundary.
 *
 * Exactly one part named "image" is allowed, and no other part; preamble and epilogue are skipped. */
#ifndef SRV_MULTIPART_H
#define SRV_MULTIPART_H

#include "core/base/status.h"
#include <stdbool.h>
#include <stddef.h>

#define SRV_BOUNDARY_MAX    70   /* RFC 2046 */
#define SRV_PART_HEADER_MAX 8192 /* header bytes of a part */

typedef dr_status (*srv_multipart_sink)(void *arg, const void *data, size_t len, dr_error *err);

typedef struct srv_multipart {
    srv_multipart_sink sink;
    void *arg;
    char delim[SRV_BOUNDARY_MAX + 8]; /* "\r\n--boundary" */
    size_t delim_len;
    int state;
    char held[SRV_PART_HEADER_MAX]; /* a possible delimiter, or the header lines of a part */
    size_t n_held, header_bytes;
    bool named, done, seen; /* this part is "image"; final delimiter read; an image part was there */
} srv_multipart;

/* INVALID "bad_multipart" for a boundary that cannot be one. */
DR_MUSTUSE dr_status srv_multipart_init(srv_multipart *m, const char *boundary, srv_multipart_sink sink, void *arg,
                                        dr_error *err);
/* INVALID "bad_multipart" (broken framing) or "unknown_field"; errors of the sink pass through. */
DR_MUSTUSE dr_status srv_multipart_feed(srv_multipart *m, const char *data, size_t len, dr_error *err);
/* After the last byte: the form must be complete and must have held an image. */
DR_MUSTUSE dr_status srv_multipart_end(const srv_multipart *m, dr_error *err);

#endif
