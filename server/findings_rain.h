/* findings_rain.h - what the rain scores of a data set say (docs/rain-score.md): the few clean pictures that look most
 * like rain, the few rainy ones that look least like it, and whether the two sets as a whole are the wrong way round.
 *
 * A single score says little about one picture (a birch wood reads as rain, drizzle as none), so single pictures are
 * notes, SRV_RAIN_TOLD of a kind at most; the means over a dozen pictures say much, so the sets get a warning. Of
 * small pictures (a side below SRV_RAIN_SIDE) nothing is said: a few lines decide their score. The
 * thresholds are measured: docs/internals/datasets.md. Pure computation. */
#ifndef SRV_FINDINGS_RAIN_H
#define SRV_FINDINGS_RAIN_H

#include "server/findings.h"

#define SRV_RAIN_LIKE 68.0 /* a clean picture from this score on: "looks_rainy" */
#define SRV_RAIN_DRY  38.0 /* a rainy picture below this one: "looks_dry" */
enum { SRV_RAIN_SIDE = 128, SRV_RAIN_TOLD = 5, SRV_RAIN_SET = 10 /* scores a side that a word about the sets needs */ };

typedef struct srv_rain_mean {
    size_t n;
    double mean, median; /* of the scores; nothing where n is 0 */
} srv_rain_mean;
/* Of the pictures of a part that have a score and no side below side_min. NOMEM. */
DR_MUSTUSE dr_status srv_rain_mean_of(const db_entry_list *l, db_part part, int side_min, srv_rain_mean *ret,
                                      dr_error *err);

/* Adds looks_rainy, looks_dry and sets_look_swapped. */
DR_MUSTUSE dr_status srv_findings_rain(srv_findings *f, const db_entry_list *l, dr_error *err);

#endif
