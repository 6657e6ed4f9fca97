/* fallback.h - what a model does when its device fails: the same weights on the CPU.
 *
 * A device that broke is not asked again (its context cannot be repaired in the process); one that only had no memory
 * for this picture is asked again for the next. The CPU's engine and model are made when they are first needed, from
 * the file that the model was opened from, which must still hold the same bytes. */
#ifndef DR_MODEL_FALLBACK_H
#define DR_MODEL_FALLBACK_H

#include "core/model/engine.h"

/* Is the device given up, so that dr_fallback_model() is to be used at once? */
bool dr_fallback_wanted(const dr_model *m);

/* After a run failed with s: true if the CPU is to try. Notes a lost device and its reason. */
bool dr_fallback_after(dr_model *m, dr_status s, const dr_error *err);

/* The CPU's twin of m, owned by m. NOT_FOUND, CORRUPT: the file is gone or another one now; NOMEM. */
DR_MUSTUSE dr_status dr_fallback_model(dr_model *m, dr_model **ret, dr_error *err);

/* m's weights on another engine; the caller closes *ret. Errors as above. */
DR_MUSTUSE dr_status dr_fallback_open(const dr_model *m, dr_engine *e, dr_model **ret, dr_error *err);

void dr_fallback_done(dr_model *m);

#endif
