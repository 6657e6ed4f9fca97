/* feed.h - everything a training reads, opened from its options: both data sets, the rain layers and the loader. */
#ifndef DR_TRAIN_FEED_H
#define DR_TRAIN_FEED_H

#include "core/train/loader.h"
#include "core/trainer.h"

typedef struct dr_feed dr_feed;

/* o with every preset value filled in (crop, batch, streaks_share set; preset "released" gives METHOD.md section 10's
 * pictures, squeezed from batch steps/2 on; every other preset native crops). start: the first batch. */
DR_MUSTUSE dr_status dr_feed_open(const dr_train_opts *o, int64_t start, dr_feed **ret, dr_error *err);
void dr_feed_close(dr_feed *f);
DR_MUSTUSE dr_status dr_feed_next(dr_feed *f, dr_batch *ret, dr_error *err); /* borrowed until the next call */
const char *dr_feed_fingerprint(const dr_feed *f); /* 64 hex digits over all sets and layers, for the checkpoint */
const char *dr_feed_describe(const dr_feed *f);    /* one line: pictures found, skipped, small, layers */

#endif
