/* models.h - model versions: what each is, where it came from, what the gate said, and which one is the default of its
 * name, with the way back. Rows only: the files are the caller's, on disk before the row that names them. All writes
 * block until they are durable. */
#ifndef DB_MODELS_H
#define DB_MODELS_H

#include "db/store.h"
#include "db/ulid.h"

typedef enum db_origin { DB_CONFIGURED, DB_TRAINED, DB_IMPORTED } db_origin;
const char *db_origin_name(db_origin o); /* "configured", "trained", "imported" */
typedef enum db_verdict { DB_NOT_JUDGED, DB_ACCEPTED, DB_REJECTED } db_verdict;
const char *db_verdict_name(db_verdict v); /* NULL for NOT_JUDGED, "accepted", "rejected" */

typedef struct db_model {
    char name[64];
    int64_t version;
    char sha256[65];
    int64_t bytes, created_ms;   /* created_ms: when this version was first registered */
    bool is_default, configured; /* configured: the settings named it at the last start */
    db_origin origin;
    db_verdict verdict;
    int64_t parent;                  /* version of the same name, 0 = none */
    char dataset[DB_ID], job[DB_ID]; /* what it was trained from and by; "" = none */
    int64_t step;                    /* of the job's checkpoint that it was made from; 0 = none */
    char *arch_json;                 /* {"kind","ngf","blocks","residual"} */
    char *about_json;                /* {"dtype","params","metadata"} of the file */
    char *card;                      /* path or URL of the model card, NULL = none */
    char *measures_json, *gate_json; /* objects, NULL = none */
    char *path;                      /* configured: its file; else "" or NULL */
} db_model;
void db_model_clear(db_model *m);

/* Insert or refresh (name, version) of the configured model, which is the only one from then on; with is_default set it
 * becomes the default of its name. A version whose bytes changed (other sha256) is CONFLICT "model_version_changed"
 * unless `replace`. */
DR_MUSTUSE dr_status db_model_put(db_store *db, const db_model *in, bool replace, dr_error *err);

/* A new version; its is_default is not looked at. CONFLICT "model_version_exists"; a second one from the same
 * checkpoint of a job is refused too. */
DR_MUSTUSE dr_status db_model_add(db_store *db, const db_model *in, dr_error *err);

/* What the gate said; the texts may be NULL (then what is there stays). NOT_FOUND model_not_found. */
DR_MUSTUSE dr_status db_model_judge(db_store *db, const char *name, int64_t version, db_verdict verdict,
                                    const char *gate_json, const char *measures_json, dr_error *err);

/* Make a version the default. revision > 0: only if the name still has it, else CONFLICT "revision_changed" (actual
 * set). roll_back: everything above the version's topmost place on the stack is taken off; otherwise it goes on top
 * (unless it is there already). */
DR_MUSTUSE dr_status db_model_set_default(db_store *db, const char *name, int64_t version, int64_t revision,
                                          bool roll_back, int64_t *ret_revision, dr_error *err);

/* The version that a roll-back leads to: the nearest below the top that is another one and not rejected. CONFLICT
 * "no_previous_version"; NOT_FOUND model_not_found. */
DR_MUSTUSE dr_status db_model_previous(db_store *db, const char *name, int64_t *ret_version, dr_error *err);

/* Number of changes of a name's versions and default; NOT_FOUND model_not_found. */
DR_MUSTUSE dr_status db_model_revision(db_store *db, const char *name, int64_t *ret, dr_error *err);

DR_MUSTUSE dr_status db_model_get(db_store *db, const char *name, int64_t version /* 0 = default */, db_model *ret,
                                  dr_error *err);
/* The version of `name` that was made from this job's checkpoint of `step` (0: at its end). NOT_FOUND model_not_found.
 */
DR_MUSTUSE dr_status db_model_of_job(db_store *db, const char *name, const char *job, int64_t step,
                                     int64_t *ret_version, dr_error *err);
/* By name, newest version first; name NULL = all. At most 500 rows whose version is below `before` (0 = any). */
DR_MUSTUSE dr_status db_model_list(db_store *db, const char *name, int64_t before, db_model **ret, size_t *ret_n,
                                   dr_error *err);
void db_model_list_clear(db_model *list, size_t n);

#endif
