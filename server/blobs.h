/* blobs.h - the pictures of data sets on disk, by content: blobs/ab/abcd… is the file whose SHA-256 begins so;
 * blobs/tmp/ holds what is being written; datasets/<id>.json and .png are what a validation found.
 *
 * A file gets its name (sync, rename, sync of the folder) before the row that names it is made, and loses it after the
 * row has gone. Both happen on one thread of this file, the keeper: so no erasure comes between a new file and its row.
 * A second one, the unpacker, is for work that takes long. Work for either is a call that may block; HTTP threads hand
 * it over with srv_blobs_run() and suspend their request. Files without a row are swept at start. */
#ifndef SRV_BLOBS_H
#define SRV_BLOBS_H

#include "db/datasets.h"
#include "server/spool.h"

typedef struct srv_blobs srv_blobs;

/* Makes the folders (0700), removes what an earlier life left half-done, erases what no row names; starts the threads.
 */
DR_MUSTUSE dr_status srv_blobs_open(const char *data_dir, db_store *db, srv_blobs **ret, dr_error *err);
void srv_blobs_stop(srv_blobs *b);  /* srv_blobs_stopping() is true from now on: long work should end */
void srv_blobs_close(srv_blobs *b); /* does what is queued; NULL is fine */
bool srv_blobs_stopping(const srv_blobs *b);

/* --- work --- */

typedef struct srv_task { /* caller's memory, untouched until fn is called; fn may reuse or free it */
    struct srv_task *next;
    void (*fn)(struct srv_task *t);
} srv_task;
typedef enum srv_lane { SRV_KEEPER, SRV_UNPACKER, SRV_N_LANES } srv_lane;
void srv_blobs_run(srv_blobs *b, srv_lane lane_of, srv_task *t, void (*fn)(srv_task *t));

/* --- files in the making; any thread, one owner at a time --- */

typedef struct srv_draft srv_draft;
DR_MUSTUSE dr_status srv_draft_begin(srv_blobs *b, srv_draft **ret, dr_error *err);
DR_MUSTUSE dr_status srv_draft_write(srv_draft *d, const void *data, size_t len, dr_error *err); /* NOSPACE, IO */
uint64_t srv_draft_bytes(const srv_draft *d);
int srv_draft_fd(const srv_draft *d);                       /* borrowed; -1 once it is done */
void srv_draft_digest(const srv_draft *d, uint8_t ret[32]); /* of what was written so far */
/* No more comes: its digest; synced, and its descriptor closed. */
DR_MUSTUSE dr_status srv_draft_done(srv_draft *d, char ret_sha256[DB_SHA], dr_error *err);
void srv_draft_discard(srv_draft *d); /* NULL is fine */

/* --- on the keeper --- */

/* Make an upload a blob, with its row. The upload stays the caller's to discard. */
DR_MUSTUSE dr_status srv_blobs_keep(srv_blobs *b, srv_upload *up, const char *sha256, bool *ret_new, dr_error *err);
/* Give n drafts their names; rows are the caller's next step. Drafts of blobs that are there twice are fine. */
DR_MUSTUSE dr_status srv_blobs_name(srv_blobs *b, srv_draft *const *drafts, const char (*sha256)[DB_SHA], size_t n,
                                    dr_error *err);
/* Erase the file unless there is a row. */
void srv_blobs_erase(srv_blobs *b, const char *sha256);

/* Forget and erase what no set has named for ttl_s; on the keeper, later. At most one such round is queued. */
void srv_blobs_prune(srv_blobs *b, int64_t ttl_s);

/* --- reading; any thread --- */

void srv_blobs_path(const srv_blobs *b, const char *sha256, char ret[SRV_PATH]);
/* An open descriptor (caller closes) and its size. NOT_FOUND. */
DR_MUSTUSE dr_status srv_blobs_open_file(const srv_blobs *b, const char *sha256, int *ret_fd, uint64_t *ret_len,
                                         dr_error *err);

/* --- what a validation left; kind is "json" or "png", or "trying": the picture that it is decoding --- */

DR_MUSTUSE dr_status srv_report_write(srv_blobs *b, const char *id, const char *kind, const void *data, size_t len,
                                      dr_error *err);
DR_MUSTUSE dr_status srv_report_open(const srv_blobs *b, const char *id, const char *kind, int *ret_fd,
                                     uint64_t *ret_len, dr_error *err);
void srv_report_path(const srv_blobs *b, const char *id, const char *kind, char ret[SRV_PATH]);
void srv_report_erase(srv_blobs *b, const char *id); /* all kinds */

#endif
