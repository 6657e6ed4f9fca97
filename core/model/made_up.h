/* made_up.h - made-up pictures of one size, decoded, for runs that are measured (bench.c) or tuned (tune.c). */
#ifndef DR_MODEL_MADE_UP_H
#define DR_MODEL_MADE_UP_H

#include "core/model/picture.h"

typedef struct dr_made_up {
    dr_model *m;
    dr_picture *p;
    int n;
} dr_made_up;

/* n pictures of 8-bit RGB that m takes at once. INVALID (n, a side), TOO_LARGE memory (mem_budget), NOMEM: no room for
 * so many at a time. Where it fails there is nothing to be done away with. */
DR_MUSTUSE dr_status dr_made_up_init(dr_made_up *s, dr_model *m, int width, int height, int n, dr_error *err);
void dr_made_up_done(dr_made_up *s);

void dr_made_up_fill(dr_made_up *s);                               /* before each run, which overwrites them */
DR_MUSTUSE dr_status dr_made_up_run(dr_made_up *s, dr_error *err); /* all of them at once */

#endif
