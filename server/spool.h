/* spool.h - the pictures on disk: spool/<job id> is what a client sent, results/<job id> what a worker made, and
 * results/<job id>.json the report of a job that makes one.
 *
 * A body is streamed into spool/tmp.<id> while its SHA-256 runs along and its header is looked at as soon as enough of
 * it is there, so that a refusal comes before the rest of the body. srv_spool_keep() then makes the file durable under
 * its final name (fsync, rename, fsync of the folder) on the spool's own thread: only after that may a row name it.
 * Files without a row are swept at start. All calls are thread-safe; an upload has one owner at a time. */
#ifndef SRV_SPOOL_H
#define SRV_SPOOL_H

#include "core/base/hash.h"
#include "core/derain.h"
#include "db/ulid.h"

typedef struct srv_spool srv_spool;
typedef struct srv_upload srv_upload;

#define SRV_PATH 4096

/* Makes the folders (0700), removes what uploads of an earlier life left, starts the thread. */
DR_MUSTUSE dr_status srv_spool_open(const char *data_dir, srv_spool **ret, dr_error *err);
void srv_spool_close(srv_spool *sp); /* finishes what is queued; NULL is fine */

/* --- uploads --- */

/* lim is borrowed until the upload ends. expected 0 = length unknown. NOSPACE, TOO_LARGE (body_too_large). */
DR_MUSTUSE dr_status srv_upload_begin(srv_spool *sp, uint64_t expected, const dr_limits *lim, srv_upload **ret,
                                      dr_error *err);
/* TOO_LARGE body_too_large, NOSPACE, and what dr_probe() finds in the beginning. */
DR_MUSTUSE dr_status srv_upload_write(srv_upload *up, const void *data, size_t len, dr_error *err);
/* After the last byte: INVALID empty_body, and dr_probe() over the whole file. ret_sha is set in any case. */
DR_MUSTUSE dr_status srv_upload_end(srv_upload *up, dr_picture_info *ret, uint8_t ret_sha[32], dr_error *err);
uint64_t srv_upload_bytes(const srv_upload *up);
/* Sync it and give it another name on the same disk; the caller syncs that folder and discards the upload. Waits for
 * the disk: not for HTTP threads. */
DR_MUSTUSE dr_status srv_upload_move(srv_upload *up, const char *path, dr_error *err);
void srv_upload_discard(srv_upload *up); /* NULL is fine */

typedef void (*srv_spool_done)(void *arg, dr_status s,
                               const dr_error *err); /* on the spool's thread; err is borrowed */
/* Takes the upload. On failure nothing is left on disk. */
void srv_spool_keep(srv_spool *sp, srv_upload *up, const char *id, srv_spool_done done, void *arg);

/* --- files of jobs --- */

DR_MUSTUSE dr_status srv_spool_read_input(srv_spool *sp, const char *id, size_t max, char **ret, size_t *ret_len,
                                          dr_error *err); /* caller frees with dr_free */
DR_MUSTUSE dr_status srv_spool_write_result(srv_spool *sp, const char *id, const void *data, size_t len, dr_error *err);
/* An open descriptor of a result (caller closes) and its size. NOT_FOUND. */
DR_MUSTUSE dr_status srv_spool_open_result(srv_spool *sp, const char *id, int *ret_fd, uint64_t *ret_len,
                                           dr_error *err);
/* The same for reports. */
DR_MUSTUSE dr_status srv_spool_write_report(srv_spool *sp, const char *id, const void *data, size_t len, dr_error *err);
DR_MUSTUSE dr_status srv_spool_open_report(srv_spool *sp, const char *id, int *ret_fd, uint64_t *ret_len,
                                           dr_error *err);
void srv_spool_erase(srv_spool *sp, const char *id); /* all its files, later, on the spool's thread */

/* Erase every file whose id `known` denies. For start-up. */
DR_MUSTUSE dr_status srv_spool_sweep(srv_spool *sp, bool (*known)(void *arg, const char *id), void *arg, size_t *ret_n,
                                     dr_error *err);
/* NOSPACE disk_full when less than min_bytes or min_percent of the disk is free. */
DR_MUSTUSE dr_status srv_spool_room(srv_spool *sp, uint64_t min_bytes, int min_percent, dr_error *err);

#endif
