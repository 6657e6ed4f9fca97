/* conv_file.h - the file of tuned plans: what of it counts on this device, and how new lines get into it.
 *
 * The file comes from outside. One that is not a plain file, too large or not readable is as none; lines of another
 * form are ignored; lines of other devices or another cuDNN are left alone. Saving reads the file anew and puts the new
 * lines over it, so that two programs that tuned different shapes both keep theirs. */
#ifndef DR_CUDA_CONV_FILE_H
#define DR_CUDA_CONV_FILE_H

#include "cuda/conv.h"
#include "cuda/conv_cache.h"

/* Zeroed at first; device, cc, sms and cudnn name the lines that count and are set by the owner before cv_file_open. */
typedef struct cv_file {
    const dr_host_api *host;
    char device[128];
    int cc, sms, cudnn;
    char *path;           /* NULL: no file; lines are kept in memory all the same */
    cv_cache_line *lines; /* of this device */
    int n, cap;
    int n_old; /* of them, the first so many were in the file; the others are new */
} cv_file;

/* path NULL: none. NOMEM only: what is wrong with the file is said at debug. */
dr_status cv_file_open(cv_file *f, const char *path, dr_error *err);
void cv_file_done(cv_file *f);
/* What the line for a shape says; NULL: there is none. Valid until the next put. kind: as cv_cache_line's. */
const cv_plan_id *cv_file_find(const cv_file *f, int kind, cv_shape s);
dr_status cv_file_put(cv_file *f, int kind, cv_shape s, const cv_plan_id *id, dr_error *err);
/* Writes the file with the new lines in it (temporary file, rename); nothing if there are none. IO, NOMEM: then the
 * file is as it was, and the lines are new still. */
dr_status cv_file_save(cv_file *f, dr_error *err);

#endif
