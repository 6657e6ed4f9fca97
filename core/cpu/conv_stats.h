/* conv_stats.h - instance-norm statistics of a convolution's output from sums over the blocks in which it was made.
 *
 * A block leaves, for 16 channels, (first, sum, sum of squares)[16], both sums of x - first: no cancellation where the
 * mean is far from zero. Blocks are combined in double in their order, so the result is the same for any threads. */
#ifndef DR_CPU_CONV_STATS_H
#define DR_CPU_CONV_STATS_H

#include <stddef.h>

enum { DR_SUMS = 48 }; /* floats that a block leaves for 16 channels */

/* part is (n, blocks, oc/16, 48); counts[b] is the number of pixels in block b; stats receives n*oc pairs (mean, rstd).
 */
void dr_conv_stats(int n, int oc, int blocks, const int *counts, const float *part, float eps, float *stats);

#endif
