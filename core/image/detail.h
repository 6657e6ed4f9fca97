/* detail.h - how much fine structure a picture holds, looked at where rain hardly adds any: down the columns. A network
 * that blurs loses it, one that takes rain off does not.
 *
 *   detail = mean |Y(x,y-1) - 2 Y(x,y) + Y(x,y+1)|,  Y = 0.299 R + 0.587 G + 0.114 B, 0..255
 *
 * A streak changes fast across its width and slowly along its length, which is near the vertical; so the second
 * difference down a column sees little of it, but all of a scene's own edges. docs/rain-score.md has what it measures.
 */
#ifndef DR_IMAGE_DETAIL_H
#define DR_IMAGE_DETAIL_H

#include "core/image/image.h"

/* Any channels (alpha left out) and depth; 0 for pictures less than three rows high. */
double dr_detail_image(const dr_image *img);

#endif
