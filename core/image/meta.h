/* meta.h - the few things in an EXIF block that have to change when a picture is turned upright.
 *
 * An EXIF block is a TIFF file without pixels: a byte order, then folders (IFDs) of 12-byte entries. Nothing in it can
 * be trusted: every offset is checked against the length. */
#ifndef DR_IMAGE_META_H
#define DR_IMAGE_META_H

#include <stddef.h>
#include <stdint.h>

/* Orientation 1..8 of a TIFF block; 1 where there is none or it makes no sense. */
int dr_exif_orientation(const uint8_t *exif, size_t len);

/* Make the block fit a picture that was turned upright and repainted: orientation 1, the pixel sides swapped where the
 * orientation was 5..8, and the link to the thumbnail cut (it shows the old picture). Everything else stays. */
void dr_exif_upright(uint8_t *exif, size_t len);

#endif
