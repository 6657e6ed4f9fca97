/* lattice.h - grids, fences, bars and stripes drawn over clean pictures: lines that are not rain.
 *
 * Straight bright lines at a regular distance are what a derainer mistakes for streaks most easily, and photographs of
 * scenery hold few of them. So some clean pictures, and some backgrounds of rendered rain, get one: both sides of the
 * training hold them alike, and only the rain between them differs. */
#ifndef DR_TRAIN_LATTICE_H
#define DR_TRAIN_LATTICE_H

#include "core/base/rng.h"

/* Draw one over rgb, (3,size,size) planar in [0,1], in place: bars or a grid in any direction, period 5..28 pixels,
 * over a random half-plane or all of the picture, see-through or with its own ground. */
void dr_lattice_draw(dr_rng *rng, int size, float *rgb);

#endif
