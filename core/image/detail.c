/* detail.c - see detail.h. Sums row by row in one order, so that a picture has one value everywhere. */
#include "core/image/detail.h"
#include <math.h>

static double luma_at(const dr_image *img, int x, int y) {
    const size_t i = (size_t)x * (size_t)img->channels;
    if (img->depth == 16) {
        const uint16_t *p = dr_image_row16(img, y) + i;
        return (img->channels < 3 ? (double)p[0] : 0.299 * p[0] + 0.587 * p[1] + 0.114 * p[2]) / 257;
    }
    const uint8_t *p = dr_image_row8(img, y) + i;
    return img->channels < 3 ? (double)p[0] : 0.299 * p[0] + 0.587 * p[1] + 0.114 * p[2];
}

double dr_detail_image(const dr_image *img) {
    double sum = 0;
    if (img->height < 3 || img->width < 1) return 0;
    for (int y = 1; y + 1 < img->height; y++) {
        double row = 0;
        for (int x = 0; x < img->width; x++)
            row += fabs(luma_at(img, x, y - 1) - 2 * luma_at(img, x, y) + luma_at(img, x, y + 1));
        sum += row;
    }
    return sum / ((double)(img->height - 2) * (double)img->width);
}
