/* probe.c - what the first bytes of a picture say. The file is walked chunk by chunk (PNG) or segment by segment
 * (JPEG); each step checks that the next length lies inside the data before it looks there. */
#include "core/image/probe.h"
#include "core/base/hash.h"
#include "core/image/meta.h"
#include <string.h>

const char *dr_format_name(dr_format f) {
    return f == DR_FORMAT_PNG ? "png" : f == DR_FORMAT_JPEG ? "jpeg" : "none";
}

const char *dr_format_mime(dr_format f) {
    return f == DR_FORMAT_PNG ? "image/png" : f == DR_FORMAT_JPEG ? "image/jpeg" : "application/octet-stream";
}

static dr_status corrupt(dr_error *err, const char *what) {
    return dr_fail_as(err, DR_CORRUPT, "image_corrupt", "the picture is damaged: %s", what);
}

/* The data ended early: damaged where it was all there is, else the caller has to come back with more. */
static dr_status ended(bool all, dr_error *err, const char *what) {
    if (all) return corrupt(err, what);
    return dr_fail_as(err, DR_UNAVAILABLE, "header_incomplete", "the picture's header goes on behind the given bytes");
}

/* ---- PNG -------------------------------------------------------------------------------------------------------- */

static dr_status parse_ihdr(const uint8_t *p, dr_head *h, int *ret_type, dr_error *err) {
    if (dr_be32(p) != 13 || memcmp(p + 4, "IHDR", 4) != 0) return corrupt(err, "PNG without a header chunk");
    if (dr_crc32(0, p + 4, 17) != dr_be32(p + 21)) return corrupt(err, "wrong checksum in the PNG header");
    const uint32_t w = dr_be32(p + 8), hgt = dr_be32(p + 12);
    const int depth = p[16], type = p[17];
    if (w == 0 || hgt == 0 || w > INT32_MAX || hgt > INT32_MAX) return corrupt(err, "impossible PNG size");
    static const struct {
        uint8_t channels, depths; /* depths: bit n set = 1 << n bits allowed */
    } types[7] = {[0] = {1, 0x1F}, [2] = {3, 0x18}, [3] = {3, 0x0F}, [4] = {2, 0x18}, [6] = {4, 0x18}};
    const bool known = type < 7 && (depth == 1 || depth == 2 || depth == 4 || depth == 8 || depth == 16) &&
                       (types[type].depths & depth);
    if (!known || p[18] != 0 || p[19] != 0 || p[20] > 1) return corrupt(err, "impossible PNG header");
    h->width = (int)w;
    h->height = (int)hgt;
    h->channels = types[type].channels;
    h->bit_depth = depth == 16 ? 16 : 8;
    h->interlaced = p[20] == 1;
    *ret_type = type;
    return DR_OK;
}

/* Metadata counts once, before the pixels (eXIf anywhere); of two equal chunks the first. */
static void note_png_chunk(dr_head *h, const uint8_t *name, const uint8_t *data, uint32_t n, bool before_pixels) {
    if (!memcmp(name, "eXIf", 4) && !h->exif && n >= 8) {
        h->exif = data;
        h->exif_len = n;
    }
    if (!before_pixels) return;
    if (!memcmp(name, "pHYs", 4) && !h->phys && n == 9 && data[8] <= 1 && dr_be32(data) && dr_be32(data + 4))
        h->phys = data;
    if (!memcmp(name, "gAMA", 4) && !h->gama && n == 4 && dr_be32(data)) h->gama = data;
    if (!memcmp(name, "cHRM", 4) && !h->chrm && n == 32) h->chrm = data;
    if (!memcmp(name, "sRGB", 4) && !h->srgb && n == 1 && data[0] <= 3) h->srgb = data;
}

static dr_status parse_png(const uint8_t *p, size_t len, bool all, dr_head *h, dr_error *err) {
    static const uint8_t signature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
    int type = 0;
    if (memcmp(p, signature, len < 8 ? len : 8) != 0) return corrupt(err, "PNG signature changed on the way");
    if (len < 33) return ended(all, err, "PNG header cut off");
    dr_status s = parse_ihdr(p + 8, h, &type, err);
    if (s) return s;

    uint32_t n_palette = 0;
    bool has_trns = false, has_pixels = false, has_end = false;
    for (size_t at = 33; !has_end;) {
        if (len - at < 12) {
            if (!all && has_pixels) break;
            return ended(all, err, "PNG cut off");
        }
        const uint32_t n = dr_be32(p + at);
        const uint8_t *name = p + at + 4, *data = p + at + 8;
        if (n > INT32_MAX) return corrupt(err, "impossible PNG chunk length");
        if (!memcmp(name, "IDAT", 4)) has_pixels = true;
        if (len - at - 12 < n) {
            if (!all && has_pixels) break;
            return ended(all, err, "PNG cut off");
        }
        if (!memcmp(name, "PLTE", 4) && !has_pixels && !n_palette) n_palette = n / 3;
        if (!memcmp(name, "tRNS", 4) && !has_pixels)
            has_trns |= (type == 0 && n == 2) || (type == 2 && n == 6) || (type == 3 && n >= 1 && n <= n_palette);
        note_png_chunk(h, name, data, n, !has_pixels);
        has_end = !memcmp(name, "IEND", 4);
        at += 12 + (size_t)n;
    }
    if (!has_pixels) return corrupt(err, "PNG without pixels");
    if (has_trns) h->channels++;
    return DR_OK;
}

/* ---- JPEG ------------------------------------------------------------------------------------------------------- */

static dr_status parse_sof(int marker, const uint8_t *p, size_t n, dr_head *h, dr_error *err) {
    if (n < 6 || n < 6 + 3 * (size_t)p[5]) return corrupt(err, "JPEG frame header too short");
    if (h->width) return corrupt(err, "two JPEG frame headers");
    const int width = p[3] << 8 | p[4], height = p[1] << 8 | p[2];
    if (marker != 0xC0 && marker != 0xC1 && marker != 0xC2 && marker != 0xC9 && marker != 0xCA)
        return dr_fail_as(
            err, DR_UNSUPPORTED, "unsupported_format",
            "lossless and hierarchical JPEG are not supported (supported: PNG; baseline and progressive JPEG)");
    if (p[0] != 8)
        return dr_fail_as(err, DR_UNSUPPORTED, "unsupported_color",
                          "JPEG of %d bits a sample is not supported (supported: 8)", p[0]);
    if (!width || !height || !p[5]) return corrupt(err, "impossible JPEG size");
    if (p[5] != 1 && p[5] != 3)
        return dr_fail_as(err, DR_UNSUPPORTED, "unsupported_color",
                          "JPEG with %d colour components (CMYK) is not supported (supported: grey, RGB)", p[5]);
    h->width = width;
    h->height = height;
    h->channels = p[5];
    h->bit_depth = 8;
    h->interlaced = marker == 0xC2 || marker == 0xCA;
    return DR_OK;
}

static void note_jpeg_app(dr_head *h, int marker, const uint8_t *p, size_t n, int *icc_count) {
    if (marker == 0xE1 && !h->exif && n >= 6 + 8 && !memcmp(p, "Exif\0", 5)) {
        h->exif = p + 6;
        h->exif_len = n - 6;
    }
    if (marker == 0xE2 && n > 14 && !memcmp(p, "ICC_PROFILE", 12)) {
        const int i = p[12], count = p[13];
        if (i < 1 || i > count || (*icc_count && *icc_count != count) || h->icc[i - 1]) {
            *icc_count = -1; /* contradicts itself: no profile */
            return;
        }
        *icc_count = count;
        h->icc[i - 1] = p + 14;
        h->icc_len[i - 1] = (uint16_t)(n - 14);
        h->n_icc++;
    }
}

static dr_status parse_jpeg(const uint8_t *p, size_t len, bool all, dr_head *h, dr_error *err) {
    int icc_count = 0;
    for (size_t at = 2;;) {
        if (len - at < 2) {
            if (!all && h->width) break;
            return ended(all, err, "JPEG cut off");
        }
        if (p[at] != 0xFF) return corrupt(err, "JPEG marker missing");
        const int marker = p[at + 1];
        if (marker == 0xFF) { /* fill byte */
            at++;
            continue;
        }
        at += 2;
        if (marker == 0x01 || (marker >= 0xD0 && marker <= 0xD7)) continue;
        if (marker == 0xD8 || marker == 0xD9 || marker == 0) return corrupt(err, "JPEG marker out of place");
        if (marker == 0xDA) break;
        if (len - at < 2) continue; /* falls into the check above */
        const size_t n = (size_t)p[at] << 8 | p[at + 1];
        if (n < 2) return corrupt(err, "impossible JPEG segment length");
        if (len - at < n) {
            if (!all && h->width) break;
            return ended(all, err, "JPEG cut off");
        }
        if (marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC) {
            dr_status s = parse_sof(marker, p + at + 2, n - 2, h, err);
            if (s) return s;
        }
        if (icc_count >= 0) note_jpeg_app(h, marker, p + at + 2, n - 2, &icc_count);
        at += n;
    }
    if (!h->width) return corrupt(err, "JPEG without a frame header");
    if (h->n_icc != icc_count) h->n_icc = 0;
    return DR_OK;
}

/* ---- which kind ------------------------------------------------------------------------------------------------- */

/* Names of what people send and we do not read, for the message only. */
static const char *known_stranger(const uint8_t *p, size_t len) {
    if (len >= 12 && !memcmp(p, "RIFF", 4) && !memcmp(p + 8, "WEBP", 4)) return "WebP";
    if (len >= 12 && !memcmp(p + 4, "ftyp", 4)) return "HEIF, AVIF or video";
    if (len >= 4 && !memcmp(p, "GIF8", 4)) return "GIF";
    if (len >= 4 && (!memcmp(p, "II*\0", 4) || !memcmp(p, "MM\0*", 4))) return "TIFF";
    if (len >= 4 && !memcmp(p, "%PDF", 4)) return "PDF";
    if (len >= 2 && !memcmp(p, "BM", 2)) return "BMP";
    return NULL;
}

static dr_status unsupported(const uint8_t *p, size_t len, dr_error *err) {
    const char *name = known_stranger(p, len);
    if (name)
        return dr_fail_as(err, DR_UNSUPPORTED, "unsupported_format", "%s is not supported (supported: PNG, JPEG)",
                          name);
    return dr_fail_as(err, DR_UNSUPPORTED, "unsupported_format",
                      "the bytes are no picture known here (supported: PNG, JPEG)");
}

dr_status dr_head_parse(const void *data, size_t len, uint64_t total, dr_head *ret, dr_error *err) {
    const uint8_t *p = data;
    const bool all = total <= len;
    if (len == 0 && all) return dr_fail_as(err, DR_INVALID, "empty_body", "there is no picture: 0 bytes");
    dr_head h = {.orientation = 1};
    dr_status s;
    if (len >= 4 && !memcmp(p, "\x89PNG", 4)) {
        h.format = DR_FORMAT_PNG;
        s = parse_png(p, len, all, &h, err);
    } else if (len >= 3 && !memcmp(p, "\xFF\xD8\xFF", 3)) {
        h.format = DR_FORMAT_JPEG;
        s = parse_jpeg(p, len, all, &h, err);
    } else if (len < 4 && !all) {
        s = ended(all, err, "");
    } else {
        s = unsupported(p, len, err);
    }
    if (s) return s;
    h.orientation = dr_exif_orientation(h.exif, h.exif_len);
    *ret = h;
    return DR_OK;
}

/* ---- limits ----------------------------------------------------------------------------------------------------- */

dr_status dr_head_check(const dr_head *h, uint64_t total, const dr_limits *lim, dr_error *err) {
    const int64_t w = h->width, hgt = h->height, longer = w > hgt ? w : hgt, shorter = w > hgt ? hgt : w;
    if (shorter < lim->side_min) {
        const bool first = err && err->code == DR_OK;
        dr_fail_as(err, DR_INVALID, "image_too_small", "the picture is %lld x %lld; each side must be at least %d",
                   (long long)w, (long long)hgt, lim->side_min);
        if (first) {
            err->limit = lim->side_min;
            err->actual = shorter;
        }
        return DR_INVALID;
    }
    if (longer > lim->side_max)
        return dr_fail_limit(err, "image_too_large", "side_max", lim->side_max, longer,
                             "the picture is %lld x %lld; a side may have at most %d pixels", (long long)w,
                             (long long)hgt, lim->side_max);
    if ((uint64_t)w * (uint64_t)hgt > lim->pixels_max)
        return dr_fail_limit(err, "image_too_large", "pixels_max", (int64_t)lim->pixels_max, w * hgt,
                             "the picture has %lld pixels; at most %llu are allowed", (long long)w * (long long)hgt,
                             (unsigned long long)lim->pixels_max);
    if (longer > shorter * lim->aspect_max)
        return dr_fail_limit(err, "image_too_large", "aspect_max", lim->aspect_max, (longer + shorter - 1) / shorter,
                             "the picture is %lld x %lld; a side may be at most %d times the other", (long long)w,
                             (long long)hgt, lim->aspect_max);
    const uint64_t decoded = (uint64_t)w * (uint64_t)hgt * (uint64_t)h->channels * (uint64_t)(h->bit_depth / 8);
    const uint64_t bytes = total ? total : 1, growth = (decoded + bytes - 1) / bytes;
    if (decoded > (uint64_t)64 << 20 && growth > (uint64_t)lim->ratio_max)
        return dr_fail_limit(err, "image_too_large", "ratio_max", lim->ratio_max, (int64_t)growth,
                             "the picture grows %llu-fold when it is decoded; at most %d-fold is allowed",
                             (unsigned long long)growth, lim->ratio_max);
    return DR_OK;
}

dr_status dr_probe(const void *data, size_t len, uint64_t total, const dr_limits *lim, dr_picture_info *ret,
                   dr_error *err) {
    dr_limits l = lim ? *lim : (dr_limits){0};
    dr_limits_fill(&l);
    if (total < len) total = len;
    if (total > l.body_max_bytes)
        return dr_fail_limit(err, "image_too_large", "body_max_bytes", (int64_t)l.body_max_bytes, (int64_t)total,
                             "the picture has %llu bytes; at most %llu are allowed", (unsigned long long)total,
                             (unsigned long long)l.body_max_bytes);
    dr_head h;
    dr_status s = dr_head_parse(data, len, total, &h, err);
    if (!s) s = dr_head_check(&h, total, &l, err);
    if (s) return s;
    const bool swap = h.orientation >= 5;
    *ret = (dr_picture_info){.format = h.format,
                             .width = swap ? h.height : h.width,
                             .height = swap ? h.width : h.height,
                             .bit_depth = h.bit_depth,
                             .channels = h.channels};
    return DR_OK;
}
