/* crop.c - see crop.h. */
#include "core/image/crop.h"
#include <string.h>

dr_status dr_image_crop_middle(dr_image *img, int w, int h, dr_error *err) {
    dr_image cut = {0};
    if (w > img->width) w = img->width;
    if (h > img->height) h = img->height;
    if (w == img->width && h == img->height) return DR_OK;
    dr_status s = dr_image_init(&cut, w, h, img->channels, img->depth, err);
    if (s) return s;
    size_t pixel = (size_t)img->channels * (size_t)img->depth / 8;
    for (int y = 0; y < h; y++)
        memcpy((char *)cut.pixels + (size_t)y * cut.stride,
               (char *)img->pixels + (size_t)(y + (img->height - h) / 2) * img->stride +
                   (size_t)((img->width - w) / 2) * pixel,
               cut.stride);
    dr_image_done(img);
    *img = cut;
    return DR_OK;
}
