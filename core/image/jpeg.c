/* jpeg.c - JPEG through libjpeg-turbo, from memory to memory.
 *
 * libjpeg turns broken data into grey blocks and a warning; here every warning about data is fatal, so that a
 * half-loaded upload is not derained as if it were whole. A progressive file may say the same block thousands of times:
 * the number of scans is bounded. */
#include "core/base/alloc.h"
#include "core/image/formats.h"
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
/* libjpeg's headers need stdio.h first */
#include <jerror.h>
#include <jpeglib.h>

#define SCANS_MAX   100
#define SIDE_MAX    65500
#define APP_MAX     65533 /* bytes of one segment without its length */
#define EXIF_PREFIX 6
#define ICC_PREFIX  14

typedef struct codec {
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    struct jpeg_source_mgr source;
    struct jpeg_destination_mgr dest;
    jmp_buf jump;
    dr_buf *out;
    JOCTET piece[16384]; /* output on its way to `out` */
    char message[JMSG_LENGTH_MAX];
} codec;

__attribute__((noreturn)) static void on_error(j_common_ptr j) {
    codec *c = j->client_data;
    if (c->message[0] == 0) j->err->format_message(j, c->message);
    longjmp(c->jump, 1);
}

static void on_message(j_common_ptr j, int level) {
    if (level >= 0) return; /* a trace */
    j->err->num_warnings++;
    /* About the header's words, not about the data. */
    if (j->err->msg_code == JWRN_JFIF_MAJOR || j->err->msg_code == JWRN_ADOBE_XFORM) return;
    j->err->error_exit(j);
}

static void on_output(j_common_ptr j) {
    (void)j;
}

static void set_up(codec *c) {
    jpeg_std_error(&c->errors);
    c->errors.error_exit = on_error;
    c->errors.emit_message = on_message;
    c->errors.output_message = on_output;
}

static dr_status failed(const codec *c, dr_error *err) {
    const int code = c->errors.msg_code;
    if (code == JERR_OUT_OF_MEMORY || code == JERR_NO_BACKING_STORE || (c->out && c->out->status == DR_NOMEM))
        return dr_fail(err, DR_NOMEM, "no memory for a JPEG picture");
    if (code == JERR_ARITH_NOTIMPL || code == JERR_SOF_UNSUPPORTED || code == JERR_NOT_COMPILED)
        return dr_fail_as(err, DR_UNSUPPORTED, "unsupported_format", "this kind of JPEG is not supported: %s",
                          c->message);
    if (c->out) return dr_fail(err, DR_INTERNAL, "JPEG: %s", c->message);
    return dr_fail_as(err, DR_CORRUPT, "image_corrupt", "the JPEG picture is damaged: %s", c->message);
}

/* ---- decode ----------------------------------------------------------------------------------------------------- */

static void source_nothing(j_decompress_ptr j) {
    (void)j;
}

/* All data was there from the start: being asked for more means that the file is cut off. */
static boolean source_more(j_decompress_ptr j) {
    ERREXIT(j, JERR_INPUT_EOF);
    return FALSE;
}

static void source_skip(j_decompress_ptr j, long n) {
    if (n <= 0) return;
    if ((size_t)n > j->src->bytes_in_buffer) ERREXIT(j, JERR_INPUT_EOF);
    j->src->next_input_byte += n;
    j->src->bytes_in_buffer -= (size_t)n;
}

static void count_scans(j_common_ptr j) {
    codec *c = j->client_data;
    if (((j_decompress_ptr)j)->input_scan_number <= SCANS_MAX) return;
    static const char text[] = "too many scans";
    memcpy(c->message, text, sizeof text);
    c->errors.msg_code = 0;
    longjmp(c->jump, 1);
}

static bool start_reading(codec *c, struct jpeg_decompress_struct *j, const uint8_t *data, size_t len,
                          const dr_limits *lim) {
    if (setjmp(c->jump)) return false;
    jpeg_create_decompress(j);
    j->progress = &c->progress;
    c->progress.progress_monitor = count_scans;
    j->mem->max_memory_to_use = lim->mem_budget < (uint64_t)INT64_MAX ? (long)lim->mem_budget : INT64_MAX;
    c->source = (struct jpeg_source_mgr){.next_input_byte = data,
                                         .bytes_in_buffer = len,
                                         .init_source = source_nothing,
                                         .fill_input_buffer = source_more,
                                         .skip_input_data = source_skip,
                                         .resync_to_restart = jpeg_resync_to_restart,
                                         .term_source = source_nothing};
    j->src = &c->source;
    (void)jpeg_read_header(j, TRUE);
    j->out_color_space = j->num_components == 1 ? JCS_GRAYSCALE : JCS_RGB;
    return jpeg_start_decompress(j);
}

static bool read_pixels(codec *c, struct jpeg_decompress_struct *j, dr_image *img) {
    if (setjmp(c->jump)) return false;
    while (j->output_scanline < j->output_height) {
        JSAMPROW rows[16];
        JDIMENSION n = 0;
        for (; n < 16 && j->output_scanline + n < j->output_height; n++)
            rows[n] = dr_image_row8(img, (int)(j->output_scanline + n));
        (void)jpeg_read_scanlines(j, rows, n);
    }
    return jpeg_finish_decompress(j);
}

static dr_status take_icc(const dr_head *h, dr_image_meta *m, dr_error *err) {
    size_t n = 0, at = 0;
    for (int i = 0; i < h->n_icc; i++) n += h->icc_len[i];
    if (n == 0) return DR_OK;
    m->icc = dr_malloc(n);
    if (!m->icc) return dr_fail(err, DR_NOMEM, "no memory for a picture's ICC profile");
    for (int i = 0; i < h->n_icc; at += h->icc_len[i++]) memcpy(m->icc + at, h->icc[i], h->icc_len[i]);
    m->icc_len = n;
    return DR_OK;
}

/* JFIF density (1 = per inch, 2 = per cm) as pixels per metre; a ratio only where it says something. */
static void take_density(const struct jpeg_decompress_struct *j, dr_image_meta *m) {
    const uint32_t x = j->X_density, y = j->Y_density;
    if (!j->saw_JFIF_marker || !x || !y || j->density_unit > 2 || (j->density_unit == 0 && x == y)) return;
    m->has_phys = true;
    m->phys_unit = j->density_unit != 0;
    if (j->density_unit == 1) {
        m->phys_x = (x * 10000 + 127) / 254;
        m->phys_y = (y * 10000 + 127) / 254;
    } else {
        m->phys_x = j->density_unit == 2 ? x * 100 : x;
        m->phys_y = j->density_unit == 2 ? y * 100 : y;
    }
}

dr_status dr_jpeg_decode(const uint8_t *data, size_t len, const dr_head *h, const dr_limits *lim, dr_image *ret,
                         dr_error *err) {
    codec c = {0};
    set_up(&c);
    struct jpeg_decompress_struct j = {.err = &c.errors, .client_data = &c};
    dr_image img = {0};
    dr_status s = DR_OK;
    if (!start_reading(&c, &j, data, len, lim)) {
        s = failed(&c, err);
        goto out;
    }
    if (j.output_width != (JDIMENSION)h->width || j.output_height != (JDIMENSION)h->height ||
        j.output_components != h->channels) {
        s = dr_fail_as(err, DR_CORRUPT, "image_corrupt", "the JPEG picture is damaged: headers disagree");
        goto out;
    }
    if ((s = dr_image_init(&img, h->width, h->height, h->channels, 8, err))) goto out;
    if (!read_pixels(&c, &j, &img)) s = failed(&c, err);
    if (!s) take_density(&j, &img.meta);
    if (!s) s = take_icc(h, &img.meta, err);
out:
    jpeg_destroy_decompress(&j);
    if (s) {
        dr_image_done(&img);
        return s;
    }
    *ret = img;
    return DR_OK;
}

/* ---- encode ----------------------------------------------------------------------------------------------------- */

static void dest_start(j_compress_ptr j) {
    codec *c = j->client_data;
    c->dest.next_output_byte = c->piece;
    c->dest.free_in_buffer = sizeof c->piece;
}

static void dest_put(j_compress_ptr j, size_t n) {
    codec *c = j->client_data;
    dr_buf_add(c->out, c->piece, n);
    if (c->out->status) ERREXIT(j, JERR_FILE_WRITE);
    dest_start(j);
}

static boolean dest_full(j_compress_ptr j) {
    dest_put(j, sizeof((codec *)0)->piece);
    return TRUE;
}

static void dest_end(j_compress_ptr j) {
    dest_put(j, sizeof((codec *)0)->piece - ((codec *)j->client_data)->dest.free_in_buffer);
}

/* Per inch where that is nearer (300 dpi), per cm where it is exact (100 dots a cm). */
static void put_density(struct jpeg_compress_struct *j, const dr_image_meta *m) {
    if (!m->has_phys) return;
    uint64_t x = m->phys_x, y = m->phys_y;
    UINT8 unit = 0;
    if (m->phys_unit == 1 && x % 100 == 0 && y % 100 == 0) {
        unit = 2;
        x /= 100;
        y /= 100;
    } else if (m->phys_unit == 1) {
        unit = 1;
        x = (x * 254 + 5000) / 10000;
        y = (y * 254 + 5000) / 10000;
    }
    if (!x || !y || x > 0xFFFF || y > 0xFFFF) return;
    j->density_unit = unit;
    j->X_density = (UINT16)x;
    j->Y_density = (UINT16)y;
}

static void put_marker(struct jpeg_compress_struct *j, int marker, const void *prefix, size_t n_prefix,
                       const void *data, size_t n) {
    jpeg_write_m_header(j, marker, (unsigned)(n_prefix + n));
    for (size_t i = 0; i < n_prefix; i++) jpeg_write_m_byte(j, ((const uint8_t *)prefix)[i]);
    for (size_t i = 0; i < n; i++) jpeg_write_m_byte(j, ((const uint8_t *)data)[i]);
}

/* What does not fit a JPEG is left out whole: half a profile is worse than none. */
static void put_meta(struct jpeg_compress_struct *j, const dr_image_meta *m) {
    if (m->exif && m->exif_len <= APP_MAX - EXIF_PREFIX)
        put_marker(j, JPEG_APP0 + 1, "Exif\0", EXIF_PREFIX, m->exif, m->exif_len);
    const size_t room = APP_MAX - ICC_PREFIX, n = (m->icc_len + room - 1) / room;
    if (!m->icc || n > DR_ICC_SEGMENTS_MAX) return;
    for (size_t i = 0; i < n; i++) {
        const uint8_t prefix[ICC_PREFIX] = {
            'I', 'C', 'C', '_', 'P', 'R', 'O', 'F', 'I', 'L', 'E', 0, (uint8_t)(i + 1), (uint8_t)n};
        const size_t left = m->icc_len - i * room;
        put_marker(j, JPEG_APP0 + 2, prefix, ICC_PREFIX, m->icc + i * room, left < room ? left : room);
    }
}

/* row8 is one row of 8-bit samples, used where the picture has 16. */
static bool write_all(codec *c, struct jpeg_compress_struct *j, const dr_image *img, int quality,
                      const dr_image_meta *m, uint8_t *row8) {
    if (setjmp(c->jump)) return false;
    jpeg_create_compress(j);
    c->dest = (struct jpeg_destination_mgr){
        .init_destination = dest_start, .empty_output_buffer = dest_full, .term_destination = dest_end};
    j->dest = &c->dest;
    j->image_width = (JDIMENSION)img->width;
    j->image_height = (JDIMENSION)img->height;
    j->input_components = img->channels;
    j->in_color_space = img->channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
    jpeg_set_defaults(j);
    jpeg_set_quality(j, quality, TRUE);
    j->comp_info[0].h_samp_factor = j->comp_info[0].v_samp_factor = 1; /* 4:4:4 */
    if (m) put_density(j, m);
    jpeg_start_compress(j, TRUE);
    if (m) put_meta(j, m);
    for (int y = 0; y < img->height; y++) {
        JSAMPROW row = row8;
        if (img->depth == 8) {
            row = dr_image_row8(img, y);
        } else {
            const uint16_t *from = dr_image_row16(img, y);
            for (size_t i = 0; i < img->stride / 2; i++) row8[i] = dr_image_to8(from[i]);
        }
        (void)jpeg_write_scanlines(j, &row, 1);
    }
    jpeg_finish_compress(j);
    return true;
}

dr_status dr_jpeg_encode(const dr_image *img, int quality, const dr_image_meta *meta, dr_buf *out, dr_error *err) {
    if (img->width > SIDE_MAX || img->height > SIDE_MAX)
        return dr_fail_limit(err, "image_too_large", "side_max", SIDE_MAX,
                             img->width > img->height ? img->width : img->height,
                             "a JPEG picture has at most %d pixels a side", SIDE_MAX);
    uint8_t *row8 = dr_malloc(img->depth == 16 ? img->stride / 2 : 0);
    if (!row8) return dr_fail(err, DR_NOMEM, "no memory for a JPEG picture");
    codec c = {.out = out};
    set_up(&c);
    struct jpeg_compress_struct j = {.err = &c.errors, .client_data = &c};
    dr_status s = write_all(&c, &j, img, quality, meta, row8) ? DR_OK : failed(&c, err);
    jpeg_destroy_compress(&j);
    dr_free(row8);
    return s;
}
