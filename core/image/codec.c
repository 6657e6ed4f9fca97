/* codec.c - limits first, then the codec, then upright; metadata that both formats know is read from the header here.
 */
#include "core/image/codec.h"
#include "core/base/alloc.h"
#include "core/image/formats.h"
#include "core/image/meta.h"
#include <string.h>

/* PNG chunks and EXIF, borrowed from the encoded data, into the picture's own metadata. */
static dr_status take_meta(const dr_head *h, dr_image_meta *m, dr_error *err) {
    if (h->phys) {
        m->has_phys = true;
        m->phys_x = dr_be32(h->phys);
        m->phys_y = dr_be32(h->phys + 4);
        m->phys_unit = h->phys[8];
    }
    if (h->gama) {
        m->has_gama = true;
        m->gama = dr_be32(h->gama);
    }
    if (h->chrm) {
        m->has_chrm = true;
        for (int i = 0; i < 8; i++) m->chrm[i] = dr_be32(h->chrm + 4 * (size_t)i);
    }
    if (h->srgb) {
        m->has_srgb = true;
        m->srgb = h->srgb[0];
    }
    if (h->exif) {
        m->exif = dr_malloc(h->exif_len);
        if (!m->exif) return dr_fail(err, DR_NOMEM, "no memory for a picture's EXIF block");
        memcpy(m->exif, h->exif, h->exif_len);
        m->exif_len = h->exif_len;
    }
    return DR_OK;
}

/* Turn the pixels, and let the metadata say so. */
static dr_status make_upright(dr_image *img, int orientation, dr_error *err) {
    dr_status s = dr_image_orient(img, orientation, err);
    if (s) return s;
    dr_image_meta *m = &img->meta;
    if (m->exif) dr_exif_upright(m->exif, m->exif_len);
    if (dr_exif_orientation(m->exif, m->exif_len) != 1) { /* folders that overlap: it would be turned twice */
        dr_free(m->exif);
        m->exif = NULL;
        m->exif_len = 0;
    }
    if (orientation >= 5) {
        const uint32_t x = m->phys_x;
        m->phys_x = m->phys_y;
        m->phys_y = x;
    }
    return DR_OK;
}

dr_status dr_image_decode(const void *data, size_t len, const dr_limits *lim, dr_image *ret, dr_error *err) {
    dr_limits l = lim ? *lim : (dr_limits){0};
    dr_limits_fill(&l);
    dr_picture_info info;
    dr_status s = dr_probe(data, len, len, &l, &info, err);
    if (s) return s;
    dr_head h;
    if ((s = dr_head_parse(data, len, len, &h, err))) return s;

    size_t bytes;
    if (!dr_image_bytes(h.width, h.height, h.channels, h.bit_depth, &bytes) || bytes > l.mem_budget)
        return dr_fail_limit(err, "memory", "mem_budget", (int64_t)l.mem_budget,
                             (int64_t)h.width * h.height * h.channels * (h.bit_depth / 8),
                             "the pixels of a %d x %d picture alone pass the memory budget", h.width, h.height);

    dr_image img = {0};
    s = h.format == DR_FORMAT_PNG ? dr_png_decode(data, len, &h, &l, &img, err)
                                  : dr_jpeg_decode(data, len, &h, &l, &img, err);
    if (!s) s = take_meta(&h, &img.meta, err);
    if (!s) s = make_upright(&img, h.orientation, err);
    if (s) {
        dr_image_done(&img);
        return s;
    }
    *ret = img;
    return DR_OK;
}

dr_status dr_image_encode(const dr_image *img, dr_format format, int quality, bool strip_metadata, void **ret_data,
                          size_t *ret_len, dr_error *err) {
    if (quality < 0 || quality > 100) return dr_fail(err, DR_INVALID, "JPEG quality %d is not within 1..100", quality);
    if (format == DR_FORMAT_JPEG && img->channels % 2 == 0)
        return dr_fail_as(err, DR_UNSUPPORTED, "alpha_jpeg", "the picture is transparent, which JPEG cannot hold");

    dr_buf out;
    dr_buf_init(&out, SIZE_MAX / 4);
    const dr_image_meta *meta = strip_metadata ? NULL : &img->meta;
    dr_status s = format == DR_FORMAT_JPEG ? dr_jpeg_encode(img, quality ? quality : 95, meta, &out, err)
                                           : dr_png_encode(img, meta, &out, err);
    size_t len = 0;
    void *data = s ? NULL : dr_buf_detach(&out, &len);
    dr_buf_done(&out);
    if (s) return s;
    *ret_data = data;
    *ret_len = len;
    return DR_OK;
}
