/* rainscore.h - how much of a picture looks like rain, without knowing the picture without it: 0 to 100, about 50 where
 * nothing points to rain. docs/rain-score.md has the reasons and what it measures on real sets.
 *
 * Rain streaks are thin, brighter than what is beside them, and near the vertical; the thin bright lines of a scene
 * (edges, grass, wires) run both ways in about equal parts. On luma Y = 0.299 R + 0.587 G + 0.114 B, 0..255:
 *
 *   ridge    r_d(x,y) = min(40, max(0, Y(x,y) - max(Y(x-d,y), Y(x+d,y)))), d = 1, 2: brighter than both sides
 *   streak   s_d(x,y) = max over slants -1/2, -1/4, 0, 1/4, 1/2 of the mean of r_d along 9 rows in that slant
 *   V        = mean of s_1 + mean of s_2; H = the same of the picture turned by 90 degrees
 *   score    = 50 + 50 (V - H) / (V + H + 0.1)
 *
 * Of pictures larger than DR_RAIN_SIDE_MAX a side the middle is looked at. */
#ifndef DR_IMAGE_RAINSCORE_H
#define DR_IMAGE_RAINSCORE_H

#include "core/image/image.h"

#define DR_RAIN_SIDE_MAX 1536

/* Any channels (alpha left out) and depth. INVALID (a side below 16), NOMEM. */
DR_MUSTUSE dr_status dr_rain_score_image(const dr_image *img, double *ret, dr_error *err);

#endif
