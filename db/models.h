/* models.h - model versions the daemon has served, so that a job's provenance outlives the file it came from. */
#ifndef DB_MODELS_H
#define DB_MODELS_H

#include "db/store.h"

typedef struct db_model {
    char name[64];
    int64_t version;
    char sha256[65];
    int64_t bytes, created_ms; /* created_ms: when this version was first registered */
    bool is_default;
    char *arch_json; /* {"kind","ngf","blocks","residual"} */
    char *card;      /* path or URL of the model card, NULL = none */
} db_model;
void db_model_clear(db_model *m);

/* Insert or refresh (name, version); with is_default set it becomes the default of its name. A version whose bytes
 * changed (other sha256) is CONFLICT "model_version_changed" unless `replace`. Blocking; for start-up. */
DR_MUSTUSE dr_status db_model_put(db_store *db, const db_model *in, bool replace, dr_error *err);
DR_MUSTUSE dr_status db_model_get(db_store *db, const char *name, int64_t version /* 0 = default */, db_model *ret,
                                  dr_error *err);
DR_MUSTUSE dr_status db_model_list(db_store *db, db_model **ret, size_t *ret_n, dr_error *err);
void db_model_list_clear(db_model *list, size_t n);

#endif
