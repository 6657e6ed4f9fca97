/* blobs.h - rows of the content-addressed files: how long, since when unused, and what decoding showed.
 *
 * The files are the caller's. The order that keeps files and rows honest: the file is synced under its name before
 * db_blob_put(); it is erased after db_blob_delete() or db_blobs_take_free() has returned, by the thread that also
 * puts, so that none comes in between. All calls that write block until the commit. */
#ifndef DB_BLOBS_H
#define DB_BLOBS_H

#include "db/store.h"

#define DB_SHA 65 /* bytes for a SHA-256 in hex with its NUL */

typedef struct db_blob {
    char sha256[DB_SHA];
    int64_t bytes, created_ms;
    int64_t free_since_ms; /* 0 = a data set or a comparison names it */
} db_blob;

/* 64 digits in lower case. */
bool db_sha_valid(const char *sha256);

/* Make the row, or begin its time of grace anew where nobody names it. *ret_new may be NULL. */
DR_MUSTUSE dr_status db_blob_put(db_store *db, const char *sha256, int64_t bytes, bool *ret_new, dr_error *err);
/* NOT_FOUND "blob_not_found". */
DR_MUSTUSE dr_status db_blob_get(db_store *db, const char *sha256, db_blob *ret, dr_error *err);
/* CONFLICT "blob_in_use" while a set or a comparison names it; NOT_FOUND. */
DR_MUSTUSE dr_status db_blob_delete(db_store *db, const char *sha256, dr_error *err);

enum { DB_BLOBS_MAX = 500 };
/* Forget blobs that nobody has named for ttl_ms: their names, at most DB_BLOBS_MAX a call. */
DR_MUSTUSE dr_status db_blobs_take_free(db_store *db, int64_t ttl_ms, char (*ret)[DB_SHA], size_t *ret_n,
                                        dr_error *err);
/* All of them. */
DR_MUSTUSE dr_status db_blob_totals(db_store *db, int64_t *ret_n, int64_t *ret_bytes, dr_error *err);

/* --- facts --- */

#define DB_FACTS_EDITION 2 /* raise it when the rules of decoding, fingerprinting or scoring change */

typedef struct db_facts {
    char sha256[DB_SHA];
    char code[40], detail[200]; /* why it is no good; "" = it is good */
    char format[16];
    int64_t width, height;
    int bit_depth, channels;
    bool grey;
    char pixels[DB_SHA], look[DB_SHA]; /* look "" = none */
    double rain;                       /* score 0..100; negative = none */
} db_facts;

/* Replaces what is there. Blobs that are gone meanwhile are left out. */
DR_MUSTUSE dr_status db_facts_put(db_store *db, const db_facts *list, size_t n, dr_error *err);

#endif
