/* compare_report.h - from the rows of a comparison to its report: means of the columns, the sign test of each pair of
 * them, and a conclusion in words. docs/compare.md describes the object. */
#ifndef SRV_COMPARE_REPORT_H
#define SRV_COMPARE_REPORT_H

#include "core/compare.h"
#include "db/compare.h"
#include "server/registry.h"
#include <jansson.h>

typedef struct srv_compare_row {
    const db_picture *picture;
    json_t *problem; /* why it could not be compared (owned); NULL: row holds its numbers */
    dr_compare_row row;
} srv_compare_row;

typedef struct srv_compare_rows {
    const srv_model_id *versions;
    int n_versions;
    srv_compare_row *rows;
    size_t n;
} srv_compare_rows;

#define SRV_COMPARE_P 0.05 /* below it a difference is held to be one */

typedef struct srv_compare_pair {
    int wins, losses, ties; /* of the first column against the second */
    double p;
    double gain_psnr, gain_rain; /* mean of first - second; of PSNR over the pictures that have a clean one */
} srv_compare_pair;
srv_compare_pair srv_compare_pair_of(const srv_compare_rows *all, int a, int b); /* columns as in core/compare.h */

size_t srv_compare_good(const srv_compare_rows *all, size_t *ret_with_clean); /* rows without a problem */

/* For people; caller frees with dr_free, NULL without memory. */
char *srv_compare_conclusion(const srv_compare_rows *all);

/* New reference, NULL without memory. */
json_t *srv_compare_report(const srv_compare_rows *all, const char *job, const char *conclusion);

#endif
