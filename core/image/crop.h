/* crop.h - part of a picture. */
#ifndef DR_IMAGE_CROP_H
#define DR_IMAGE_CROP_H

#include "core/image/image.h"

/* The middle w x h pixels, without metadata, where that is less than there is; sides above the picture's count as its
 * own. On NOMEM the picture stays as it was. */
DR_MUSTUSE dr_status dr_image_crop_middle(dr_image *img, int w, int h, dr_error *err);

#endif
