/* picture.h - an encoded picture on its way through the engine, as picture.c (decode, encode) and batch.c (run) share
 * it. Nobody outside core/model sees it. */
#ifndef DR_MODEL_PICTURE_H
#define DR_MODEL_PICTURE_H

#include "core/model/engine.h"

typedef enum dr_picture_state { DR_PICTURE_OPEN, DR_PICTURE_DECODED, DR_PICTURE_RUN } dr_picture_state;

struct dr_picture {
    const void *data; /* encoded, borrowed */
    size_t len;
    dr_run_opts opts; /* format and limits are filled in */
    dr_limits limits;
    dr_picture_state state;
    dr_image img;     /* DECODED: the input; RUN: the output */
    bool spoiled;     /* a run that failed may have left parts of its output in img */
    dr_status status; /* RUN: how it went */
    dr_error err;
    dr_run_stats stats;
};

/* Decodes anew where the picture is spoiled. */
DR_MUSTUSE dr_status dr_picture_restore(dr_picture *p, dr_error *err);
bool dr_picture_cancelled(const dr_picture *p);

#endif
