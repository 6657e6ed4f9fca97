/* conv_stats.c - see conv_stats.h. */
#include "core/cpu/conv_stats.h"
#include <math.h>

void dr_conv_stats(int n, int oc, int blocks, const int *counts, const float *part, float eps, float *stats) {
    int n_ob = oc / 16;
#pragma omp parallel for schedule(static)
    for (int i = 0; i < n * n_ob; i++) {
        double count = 0, mean[16] = {0}, m2[16] = {0};
        for (int b = 0; b < blocks; b++) {
            const float *p =
                part +
                (((size_t)(i / n_ob) * (size_t)blocks + (size_t)b) * (size_t)n_ob + (size_t)(i % n_ob)) * DR_SUMS;
            double m = counts[b], total = count + m;
            for (int l = 0; l < 16; l++) {
                double s = (double)p[16 + l], d = (double)p[l] + s / m - mean[l], b2 = (double)p[32 + l] - s * s / m;
                mean[l] += d * m / total;
                m2[l] += (b2 > 0 ? b2 : 0) + d * d * count * m / total;
            }
            count = total;
        }
        float *to = stats + (size_t)i * 32;
        for (int l = 0; l < 16; l++) {
            to[2 * l] = (float)mean[l];
            to[2 * l + 1] = (float)(1 / sqrt(m2[l] / count + (double)eps));
        }
    }
}
