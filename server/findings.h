/* findings.h - what can be said about a data set once the facts of each picture are known: which pictures are no good,
 * which are the same, which stand where they must not. Pure computation, no files and no store.
 *
 * A finding is an error (the set is rejected, or the picture set aside where that was asked for), a warning (worth a
 * look, and where the trainer would only see the same picture twice, set aside), or a note.
 *
 * Two pictures are the same when their pixels are (whatever the files are), and near when their fingerprints are within
 * DR_LOOK_SAME. For each picture only the nearest other one of a kind is told, so a camera that never moves gives at
 * most three findings a picture. */
#ifndef SRV_FINDINGS_H
#define SRV_FINDINGS_H

#include "db/datasets.h"
#include <jansson.h>

typedef enum srv_grade { SRV_NOTE, SRV_WARNING, SRV_ERROR } srv_grade;

typedef struct srv_finding {
    const char *code; /* static, or the facts' own */
    srv_grade grade;
    size_t entry, other; /* indexes of the list; SRV_NO_OTHER: of the whole set, and where there is no other */
    int distance;        /* of fingerprints; negative = does not apply */
    bool has_score;      /* of rain */
    double score, threshold;
    const char *detail; /* borrowed from the facts, NULL = the code says it all */
} srv_finding;
#define SRV_NO_OTHER ((size_t)-1)

typedef struct srv_findings {
    srv_finding *f;
    size_t n, cap;
    const char **aside; /* of each entry: why it is left out, NULL = it is not */
    size_t n_entries;
} srv_findings;

/* entries: as db_dataset_entries() gives them, each with facts; borrowed until clear. `stop` is asked now and then.
 * CANCELLED, NOMEM. */
DR_MUSTUSE dr_status srv_findings_make(const db_entry_list *entries, bool (*stop)(void *arg), void *arg,
                                       srv_findings *ret, dr_error *err);
void srv_findings_clear(srv_findings *f);
DR_MUSTUSE dr_status srv_findings_add(srv_findings *f, srv_finding one, dr_error *err); /* for findings_rain.c */

/* Why the set cannot be used, as an array of strings; empty = it can. */
json_t *srv_findings_reasons(const srv_findings *f, const db_entry_list *l, bool leave_out);

/* The report; borrows nothing. */
json_t *srv_findings_report(const srv_findings *f, const db_entry_list *l, const db_dataset *set,
                            const json_t *reasons);

#endif
