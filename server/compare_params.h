/* compare_params.h - what a comparison was asked for: the JSON object of POST /v1/jobs with type "compare", checked
 * member by member; and what its row keeps,
 * {"versions":[{"name","version","sha256"}...],"pictures":N,"dataset":ID|null}. Versions are pinned when the job is
 * made: a run reads only the row. */
#ifndef SRV_COMPARE_PARAMS_H
#define SRV_COMPARE_PARAMS_H

#include "core/compare.h"
#include "db/compare.h"
#include "server/problem.h"
#include "server/registry.h"
#include <jansson.h>

enum { SRV_COMPARE_MIN = 2, SRV_COMPARE_FROM_SET = 60 /* pictures taken from a data set, evenly spread */ };

typedef struct srv_compare_params {
    struct srv_version_wish {
        char name[64];
        int64_t version; /* 0 = the name's default */
    } wish[DR_COMPARE_MAX];
    int n_wishes;        /* 0 = the version in use and the one before it */
    char dataset[DB_ID]; /* "" = pictures are given */
    db_picture *pictures;
    size_t n_pictures;
} srv_compare_params;

/* False: *ret_problem says which member is wrong. Members of the job itself (type, labels) are passed over. */
bool srv_compare_params_read(const json_t *o, int64_t pictures_max, srv_compare_params *ret, srv_problem *ret_problem);
void srv_compare_params_done(srv_compare_params *p);

/* The pictures of a data set: its pairs, then its rainy pictures, at most `most` of them evenly spread. *ret is the
 * caller's to free; *ret_n 0: there is none of either kind. NOMEM. */
DR_MUSTUSE dr_status srv_compare_from_set(const db_entry_list *set, size_t most, db_picture **ret, size_t *ret_n,
                                          dr_error *err);

/* The row's object (new reference, NULL without memory), and back: how many versions, 0 when it is none of ours. */
json_t *srv_compare_row_json(const srv_model_id *versions, int n, size_t n_pictures, const char *dataset);
int srv_compare_row_read(const char *params_json, srv_model_id ret[DR_COMPARE_MAX]);

void srv_version_text(const srv_model_id *v, char ret[96]); /* "derain/3" */

#endif
