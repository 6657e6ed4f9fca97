/* compare.h - public door 4 of the engine: one picture through several versions of a network, measured side by side,
 * and the sheet that shows what came out.
 *
 * Columns are counted from 0 = the input as it is (doing nothing) to n = the last version. All is measured at 8 bits:
 *
 *   rain    rain score of the column's picture, 0..100, lower is better (core/image/rainscore.h, docs/rain-score.md)
 *   change  PSNR and SSIM of an output against the input: how much the network did
 *   truth   PSNR and SSIM of a column against the clean picture of the same place, where there is one
 *           (core/image/metrics.h: luma as MATLAB's rgb2ycbcr, RGB over all channels; PSNR capped at 100 dB)
 *   spread  mean over pixels and channels of (largest - smallest value among the versions), in grey levels of 255; of
 * two versions A and B this is the mean of |A - B| */
#ifndef DR_COMPARE_H
#define DR_COMPARE_H

#include "core/derain.h"

#define DR_COMPARE_MAX 6 /* versions */

/* dB or points: what is closer than this reads the same with two decimals, and is equal. */
#define DR_COMPARE_TIE 0.005

typedef struct dr_compare_opts {
    const dr_limits *limits;   /* NULL = defaults; mem_budget holds for the run and all pictures kept beside it */
    int side;                  /* the sheet's pictures are at most so wide and high; 0 = no strip is made */
    atomic_bool *cancel;       /* looked at between layers; NULL = never */
    bool (*before)(void *arg); /* asked before each run of a network and each measurement; false = CANCELLED */
    void (*after)(void *arg);  /* called after each that was asked for; both or neither */
    void *arg;
} dr_compare_opts;

typedef struct dr_compare_column {
    double rain;
    dr_score truth;  /* zeros without a clean picture */
    dr_score change; /* versions only */
    bool finite;     /* versions only: every value of the output is a number */
} dr_compare_column;

typedef struct dr_compare_row {
    int width, height, n; /* n versions */
    bool has_truth;
    dr_compare_column col[1 + DR_COMPARE_MAX];
    double spread;
    struct dr_strip *strip; /* what the sheet shows of it; NULL = none */
} dr_compare_row;
void dr_compare_row_done(dr_compare_row *row); /* zeroed and done ones too */

/* All models are of one engine. clean NULL = none. Errors: those of dr_probe and decoding; TOO_LARGE memory; INVALID
 * size_differs (the clean picture has another size) or image_too_small; CANCELLED; what the backend says. */
DR_MUSTUSE dr_status dr_compare_picture(dr_model *const *models, int n, const void *data, size_t len, const void *clean,
                                        size_t clean_len, const dr_compare_opts *opts, dr_compare_row *ret,
                                        dr_error *err);

/* Is column a of the row better (1), worse (-1) or as good as b (0)? By PSNR of the luma where there is a clean
 * picture, else by the rain score; within DR_COMPARE_TIE they are equal. An output that holds a value which is no
 * number is worse than any other. */
int dr_compare_better(const dr_compare_row *row, int a, int b);

typedef struct dr_compare_item {
    const char *name; /* of the picture; ASCII is shown */
    const dr_compare_row *row;
} dr_compare_item;
typedef struct dr_compare_heads {
    const char *const *versions; /* names of the columns, as many as the rows have versions */
    const char *note;            /* shown above all, wrapped; NULL = none */
} dr_compare_heads;
/* A PNG with a row a picture: input, versions, their difference enlarged (by how much is written below it), clean
 * picture where any has one; scores below each, the best of a row in green. Items without a strip are left out. The
 * caller frees *ret_png with dr_free. INVALID (nothing to show), TOO_LARGE, NOMEM. */
DR_MUSTUSE dr_status dr_compare_sheet(const dr_compare_item *items, int n, const dr_compare_heads *heads,
                                      void **ret_png, size_t *ret_len, dr_error *err);

#endif
