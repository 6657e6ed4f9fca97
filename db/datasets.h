/* datasets.h - data sets: named blobs in four parts, gathered while open, then sealed, validated, and used.
 *
 * open -> validating -> ready | rejected. Only an open set takes or loses entries. A set that is sealed is worked on
 * until db_dataset_finish(), across restarts: db_dataset_next() finds it. NOT_FOUND says in err->what
 * "dataset_not_found" (404) or "dataset_gone" (deleted, 410). Writes block until the commit. */
#ifndef DB_DATASETS_H
#define DB_DATASETS_H

#include "db/blobs.h"
#include "db/ulid.h"

typedef enum db_part { DB_RAINY, DB_CLEAN, DB_PAIRED_RAINY, DB_PAIRED_CLEAN, DB_N_PARTS } db_part;
const char *db_part_name(db_part p); /* "rainy", "clean", "paired/rainy", "paired/clean" */

typedef enum db_ds_state { DB_DS_OPEN, DB_DS_VALIDATING, DB_DS_READY, DB_DS_REJECTED, DB_DS_N_STATES } db_ds_state;
const char *db_ds_state_name(db_ds_state s);
bool db_ds_state_parse(const char *name, db_ds_state *ret);

#define DB_DS_NAME  513 /* bytes of a set's or an entry's name with its NUL: 128 characters of UTF-8 */
#define DB_NAME_MAX 128 /* characters */

typedef struct db_dataset {
    char id[DB_ID], name[DB_DS_NAME]; /* name "" = none */
    db_ds_state state;
    bool set_aside; /* bad pictures are left out instead of rejecting the set */
    int64_t created_ms, sealed_ms, validated_ms, revision;
    int64_t files[DB_N_PARTS], aside[DB_N_PARTS]; /* aside: of these, left out by the validation */
    int64_t bytes;
    char *labels_json, *reasons_json; /* an object of strings; an array of strings: why it was rejected. Never NULL */
} db_dataset;
void db_dataset_clear(db_dataset *d);

typedef struct db_entry_new {
    db_part part;
    char name[DB_DS_NAME], sha256[DB_SHA];
    int64_t bytes;
} db_entry_new;

typedef struct db_dataset_new {
    char id[DB_ID];          /* "" = made here */
    const char *name;        /* NULL or "" = none */
    const char *labels_json; /* NULL = {} */
    const char *idem_key, *idem_hash;
    const db_entry_new *entries; /* an archive's: set, blobs and entries are one transaction */
    size_t n_entries;
} db_dataset_new;

/* The set, and with it rows for blobs that have none. `replayed`: the key made *ret before. CONFLICT
 * "idempotency_key_reused"; NOT_FOUND "dataset_gone": the key's set was deleted. */
DR_MUSTUSE dr_status db_dataset_create(db_store *db, const db_dataset_new *in, db_dataset *ret, bool *ret_replayed,
                                       dr_error *err);

/* Put a blob in under a name; the same name again replaces. *ret_new: the name was not there. files_max, bytes_max are
 * the limits of the whole set. NOT_FOUND (set; "blob_not_found"), CONFLICT "dataset_sealed", TOO_LARGE
 * "dataset_too_large" with setting, limit and actual. */
DR_MUSTUSE dr_status db_dataset_put(db_store *db, const char *id, db_part part, const char *name, const char *sha256,
                                    int64_t files_max, int64_t bytes_max, bool *ret_new, dr_error *err);
/* NOT_FOUND (set; "entry_not_found"), CONFLICT "dataset_sealed". */
DR_MUSTUSE dr_status db_dataset_drop(db_store *db, const char *id, db_part part, const char *name, dr_error *err);
/* open -> validating. A set that is sealed already stays as it is. INVALID "dataset_empty". */
DR_MUSTUSE dr_status db_dataset_seal(db_store *db, const char *id, bool set_aside, db_dataset *ret, dr_error *err);
/* CONFLICT "dataset_in_use" while a training that has not ended has it as its member "dataset" (a comparison holds its
 * pictures itself). A tombstone stays. */
DR_MUSTUSE dr_status db_dataset_delete(db_store *db, const char *id, dr_error *err);

DR_MUSTUSE dr_status db_dataset_get(db_store *db, const char *id, db_dataset *ret, dr_error *err);

typedef struct db_dataset_filter {
    unsigned states;    /* bit set of 1u << db_ds_state; 0 = all */
    int limit;          /* 1..500; 0 = 50 */
    const char *cursor; /* NULL or "" = newest. INVALID "bad_cursor" */
} db_dataset_filter;
typedef struct db_dataset_page {
    db_dataset *sets; /* newest first */
    size_t n;
    char next_cursor[40];
} db_dataset_page;
DR_MUSTUSE dr_status db_dataset_list(db_store *db, const db_dataset_filter *in, db_dataset_page *ret, dr_error *err);
void db_dataset_page_clear(db_dataset_page *page);

/* --- entries --- */

typedef struct db_entry {
    db_part part;
    char *name;
    char sha256[DB_SHA];
    char aside[40]; /* why it is left out; "" = it is not */
    int64_t bytes;
    bool has_facts; /* of this edition */
    db_facts facts;
} db_entry;
typedef struct db_entry_list {
    db_entry *e; /* by part, then by the bytes of the name */
    size_t n;
} db_entry_list;
/* used: only those a training takes (not set aside). */
DR_MUSTUSE dr_status db_dataset_entries(db_store *db, const char *id, bool used, db_entry_list *ret, dr_error *err);
void db_entry_list_clear(db_entry_list *list);

/* --- validation --- */

/* The set that has been waiting longest. NOT_FOUND "" = none. */
DR_MUSTUSE dr_status db_dataset_next(db_store *db, char ret_id[DB_ID], dr_error *err);

typedef struct db_aside {
    db_part part;
    const char *name, *code;
} db_aside;
/* validating -> ready or rejected. reasons_json: array of strings. CONFLICT where it is not validating (any more). */
DR_MUSTUSE dr_status db_dataset_finish(db_store *db, const char *id, bool ready, const char *reasons_json,
                                       const db_aside *aside, size_t n_aside, dr_error *err);

/* Pixels of the pictures that training uses, by what validation has found (0 where it has not looked yet): of both
 * sides in all, and of the largest held-out picture. */
typedef struct db_set_pixels {
    int64_t rainy, clean, pair_max;
} db_set_pixels;
DR_MUSTUSE dr_status db_dataset_pixels(db_store *db, const char *id, db_set_pixels *ret, dr_error *err);

#endif
