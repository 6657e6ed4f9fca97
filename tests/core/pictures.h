/* pictures.h - encoded pictures made by code, for the tests and fuzz seeds of core/image: every PNG kind through
 * libpng, JPEG through libjpeg, and knives for cutting them up: chunks and segments put in, checksums repaired. */
#ifndef TESTS_PICTURES_H
#define TESTS_PICTURES_H

#include "core/base/hash.h"
#include <png.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* libjpeg needs stdio.h */
#include <jpeglib.h>

/* Kept whole: inlined, gcc guesses at lengths and warns. */
#define PIC_FN __attribute__((noinline, unused)) static

typedef struct bytes {
    uint8_t *p;
    size_t n;
} bytes;

PIC_FN void bytes_add(bytes *b, const void *p, size_t n) {
    b->p = realloc(b->p, b->n + n + 1);
    if (n) memcpy(b->p + b->n, p, n);
    b->n += n;
}

PIC_FN bytes bytes_of(const void *p, size_t n) {
    bytes b = {0};
    bytes_add(&b, p, n);
    return b;
}

PIC_FN void bytes_done(bytes *b) {
    free(b->p);
    *b = (bytes){0};
}

/* Put n bytes in at `at`. */
PIC_FN void bytes_insert(bytes *b, size_t at, const void *p, size_t n) {
    bytes_add(b, p, n);
    memmove(b->p + at + n, b->p + at, b->n - n - at);
    memcpy(b->p + at, p, n);
}

PIC_FN void pic_put32(uint8_t *p, uint32_t v) {
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> (24 - 8 * i));
}

/* ---- PNG -------------------------------------------------------------------------------------------------------- */

typedef struct png_spec {
    int w, h, type, depth; /* type: PNG_COLOR_TYPE_* */
    bool interlaced;
    int n_palette;     /* type PALETTE: colour i is (i*7, i*5+1, 255-i) */
    int n_trns;        /* PALETTE: alpha of colour i is i*31; others: 1 = `trns` is transparent */
    png_color_16 trns; /* grey or RGB key */
} png_spec;

/* Raw sample (index, grey, or channel) i of row y, within the depth. */
PIC_FN unsigned png_sample(const png_spec *s, int y, int i) {
    const unsigned v = ((unsigned)y * 7919u + (unsigned)i * 104729u + 12345u) * 2654435761u >> 8;
    const unsigned top = s->type == PNG_COLOR_TYPE_PALETTE ? (unsigned)s->n_palette : 1u << s->depth;
    return v % top;
}

PIC_FN int png_spec_channels(const png_spec *s) {
    return s->type == PNG_COLOR_TYPE_GRAY_ALPHA  ? 2
           : s->type == PNG_COLOR_TYPE_RGB       ? 3
           : s->type == PNG_COLOR_TYPE_RGB_ALPHA ? 4
                                                 : 1;
}

PIC_FN void pic_png_write(png_structp png, png_bytep p, size_t n) {
    bytes_add(png_get_io_ptr(png), p, n);
}
PIC_FN void pic_png_flush(png_structp png) {
    (void)png;
}

PIC_FN bytes make_png(const png_spec *s) {
    bytes out = {0};
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    png_set_write_fn(png, &out, pic_png_write, pic_png_flush);
    png_set_IHDR(png, info, (png_uint_32)s->w, (png_uint_32)s->h, s->depth, s->type,
                 s->interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE, 0, 0);
    png_color palette[256];
    png_byte alpha[256];
    for (int i = 0; i < 256; i++) {
        palette[i] = (png_color){(png_byte)(i * 7), (png_byte)(i * 5 + 1), (png_byte)(255 - i)};
        alpha[i] = (png_byte)(i * 31);
    }
    if (s->type == PNG_COLOR_TYPE_PALETTE) png_set_PLTE(png, info, palette, s->n_palette);
    if (s->n_trns) png_set_tRNS(png, info, alpha, s->n_trns, &s->trns);
    png_write_info(png, info);
    const int samples = s->w * png_spec_channels(s);
    const size_t row_bytes = ((size_t)samples * (size_t)s->depth + 7) / 8;
    uint8_t *row = malloc(row_bytes);
    const int passes = png_set_interlace_handling(png);
    for (int pass = 0; pass < passes; pass++)
        for (int y = 0; y < s->h; y++) {
            memset(row, 0, row_bytes);
            for (int i = 0; i < samples; i++) {
                const unsigned v = png_sample(s, y, i);
                if (s->depth == 16) {
                    row[2 * i] = (uint8_t)(v >> 8);
                    row[2 * i + 1] = (uint8_t)v;
                } else {
                    const int bit = i * s->depth;
                    row[bit / 8] |= (uint8_t)(v << (8 - s->depth - bit % 8));
                }
            }
            png_write_row(png, row);
        }
    png_write_end(png, info);
    png_destroy_write_struct(&png, &info);
    free(row);
    return out;
}

/* Offset of the first chunk of this name, 0 = none. */
PIC_FN size_t png_find(const bytes *b, const char *name) {
    for (size_t at = 8; at + 12 <= b->n;) {
        const uint32_t n =
            (uint32_t)b->p[at] << 24 | (uint32_t)b->p[at + 1] << 16 | (uint32_t)b->p[at + 2] << 8 | b->p[at + 3];
        if (!memcmp(b->p + at + 4, name, 4)) return at;
        if (n > b->n - at - 12) return 0;
        at += 12 + (size_t)n;
    }
    return 0;
}

/* Put a chunk in at an offset. */
PIC_FN void png_insert(bytes *b, size_t at, const char *name, const void *data, size_t n) {
    bytes c = {0};
    uint8_t four[4];
    pic_put32(four, (uint32_t)n);
    bytes_add(&c, four, 4);
    bytes_add(&c, name, 4);
    bytes_add(&c, data, n);
    pic_put32(four, dr_crc32(0, c.p + 4, n + 4));
    bytes_add(&c, four, 4);
    bytes_insert(b, at, c.p, c.n);
    bytes_done(&c);
}

/* Make the checksum of every whole chunk right. */
PIC_FN void png_repair(uint8_t *p, size_t len) {
    for (size_t at = 8; len >= 20 && at <= len - 12;) {
        const uint32_t n = (uint32_t)p[at] << 24 | (uint32_t)p[at + 1] << 16 | (uint32_t)p[at + 2] << 8 | p[at + 3];
        if (n > len - at - 12) return;
        pic_put32(p + at + 8 + n, dr_crc32(0, p + at + 4, (size_t)n + 4));
        at += 12 + (size_t)n;
    }
}

/* ---- JPEG ------------------------------------------------------------------------------------------------------- */

typedef struct jpeg_spec {
    int w, h, components; /* 1 grey, 3 YCbCr, 4 CMYK */
    bool progressive, subsampled, arithmetic, adobe_rgb;
    int restart; /* interval in MCUs */
    int density_unit, density_x, density_y;
} jpeg_spec;

/* Smooth, so that what comes back is near: sample of channel c. */
PIC_FN int jpeg_sample(int x, int y, int c) {
    return (x * (3 + c) + y * (5 - c) + 40 * c) % 512 < 256 ? (x * (3 + c) + y * (5 - c) + 40 * c) % 256
                                                            : 255 - (x * (3 + c) + y * (5 - c) + 40 * c) % 256;
}

PIC_FN bytes make_jpeg(const jpeg_spec *s) {
    struct jpeg_compress_struct j;
    struct jpeg_error_mgr e;
    unsigned char *mem = NULL;
    unsigned long n = 0;
    j.err = jpeg_std_error(&e);
    jpeg_create_compress(&j);
    jpeg_mem_dest(&j, &mem, &n);
    j.image_width = (JDIMENSION)s->w;
    j.image_height = (JDIMENSION)s->h;
    j.input_components = s->components;
    j.in_color_space = s->components == 1 ? JCS_GRAYSCALE : s->components == 3 ? JCS_RGB : JCS_CMYK;
    jpeg_set_defaults(&j);
    jpeg_set_quality(&j, 97, TRUE);
    if (s->adobe_rgb) jpeg_set_colorspace(&j, JCS_RGB);
    if (!s->subsampled) j.comp_info[0].h_samp_factor = j.comp_info[0].v_samp_factor = 1;
    if (s->progressive) jpeg_simple_progression(&j);
    j.arith_code = s->arithmetic;
    j.restart_interval = (unsigned)s->restart;
    if (s->density_x) {
        j.density_unit = (UINT8)s->density_unit;
        j.X_density = (UINT16)s->density_x;
        j.Y_density = (UINT16)s->density_y;
    }
    jpeg_start_compress(&j, TRUE);
    JSAMPLE *row = malloc((size_t)s->w * (size_t)s->components);
    for (int y = 0; y < s->h; y++) {
        for (int x = 0; x < s->w; x++)
            for (int c = 0; c < s->components; c++) row[x * s->components + c] = (JSAMPLE)jpeg_sample(x, y, c);
        JSAMPROW rows[1] = {row};
        jpeg_write_scanlines(&j, rows, 1);
    }
    jpeg_finish_compress(&j);
    jpeg_destroy_compress(&j);
    free(row);
    bytes out = bytes_of(mem, n);
    free(mem);
    return out;
}

/* Put a segment in behind the start marker (at = 2) or wherever a marker may stand. */
PIC_FN void jpeg_insert(bytes *b, size_t at, int marker, const void *data, size_t n) {
    bytes c = {0};
    const uint8_t head[4] = {0xFF, (uint8_t)marker, (uint8_t)((n + 2) >> 8), (uint8_t)(n + 2)};
    bytes_add(&c, head, 4);
    bytes_add(&c, data, n);
    bytes_insert(b, at, c.p, c.n);
    bytes_done(&c);
}

/* Offset of the first segment with this marker, 0 = none before the pixels. */
PIC_FN size_t jpeg_find(const bytes *b, int marker) {
    for (size_t at = 2; at + 4 <= b->n && b->p[at] == 0xFF;) {
        if (b->p[at + 1] == marker) return at;
        if (b->p[at + 1] == 0xDA) return 0;
        at += 2 + ((size_t)b->p[at + 2] << 8 | b->p[at + 3]);
    }
    return 0;
}

/* ---- EXIF ------------------------------------------------------------------------------------------------------- */

PIC_FN void pic_put(uint8_t *p, bool big, int n, uint32_t v) {
    for (int i = 0; i < n; i++) p[i] = (uint8_t)(v >> 8 * (big ? n - 1 - i : i));
}

#define EXIF_LEN 84
/* IFD0: Orientation, link to the EXIF folder with PixelXDimension and PixelYDimension; a link to a thumbnail folder. */
PIC_FN void make_exif(uint8_t p[EXIF_LEN], bool big, int orientation, int w, int h) {
    memset(p, 0, EXIF_LEN);
    memcpy(p, big ? "MM" : "II", 2);
    pic_put(p + 2, big, 2, 42);
    pic_put(p + 4, big, 4, 8);
    pic_put(p + 8, big, 2, 2);
    const struct {
        int at;
        unsigned tag, type, value;
    } e[4] = {{10, 0x0112, 3, (unsigned)orientation},
              {22, 0x8769, 4, 38},
              {40, 0xA002, 3, (unsigned)w},
              {52, 0xA003, 4, (unsigned)h}};
    for (int i = 0; i < 4; i++) {
        pic_put(p + e[i].at, big, 2, e[i].tag);
        pic_put(p + e[i].at + 2, big, 2, e[i].type);
        pic_put(p + e[i].at + 4, big, 4, 1);
        pic_put(p + e[i].at + 8, big, e[i].type == 3 ? 2 : 4, e[i].value);
    }
    pic_put(p + 34, big, 4, 68); /* IFD1 */
    pic_put(p + 38, big, 2, 2);
    pic_put(p + 68, big, 2, 0);
}

/* ---- ICC -------------------------------------------------------------------------------------------------------- */

/* The smallest profile that libpng takes: a header and an empty tag table, grown to n bytes (multiple of 4, >= 132). */
PIC_FN bytes make_icc(size_t n, bool grey) {
    bytes b = {0};
    uint8_t head[132] = {0};
    pic_put32(head, (uint32_t)n);
    pic_put32(head + 8, 0x02400000);
    memcpy(head + 12, "mntr", 4);
    memcpy(head + 16, grey ? "GRAY" : "RGB ", 4);
    memcpy(head + 20, "XYZ ", 4);
    memcpy(head + 36, "acsp", 4);
    pic_put32(head + 68, 0x0000F6D6);
    pic_put32(head + 72, 0x00010000);
    pic_put32(head + 76, 0x0000D32D);
    bytes_add(&b, head, sizeof head);
    uint32_t v = 1;
    while (b.n < n) {
        v = v * 1664525u + 1013904223u;
        const uint8_t one = (uint8_t)(v >> 24);
        bytes_add(&b, &one, 1);
    }
    return b;
}

#endif
