/* pictures.h - public door 3 of the engine: what a data set's owner wants to know of a picture without any network:
 * does it decode, what is it, which other one is it the same as, and how do many of them look on one sheet.
 *
 * Bytes and plain structs only; no state. Every call may be made from any thread and takes no more memory than the
 * decoded picture and its small copies. */
#ifndef DR_PICTURES_H
#define DR_PICTURES_H

#include "core/derain.h"

/* A fingerprint of how a picture looks: the signs of 255 coefficients (all but the mean of the lowest 16 x 16) of the
 * cosine transform of its brightness, averaged to 32 x 32. Recompression, scaling, brightness, light rain and the loss
 * of a narrow margin move few of them. */
typedef struct dr_look {
    uint64_t bits[4]; /* bit 0 of bits[0], the mean, is always 0 */
} dr_look;
#define DR_LOOK_HEX 65
void dr_look_format(const dr_look *look, char ret[DR_LOOK_HEX]);
bool dr_look_parse(const char *hex, dr_look *ret); /* 64 hex digits */

/* Number of coefficients (0..255) with another sign. Unrelated pictures: 127 on average. */
int dr_look_distance(const dr_look *a, const dr_look *b);

/* At most this distance apart, two pictures show the same. Measured on 938 photographs (439 thousand pairs): pictures
 * that merely resemble each other are 85 or more apart; the same one after JPEG at quality 20 is at most 11 away, at a
 * third of its size 17, with gamma 1.4 16, under synthetic rain 38, with 2 % cut off each side 55. */
#define DR_LOOK_SAME 60

typedef struct dr_picture_facts {
    dr_picture_info info;
    bool grey;              /* one channel, or three that are equal everywhere */
    bool has_look;          /* false: too little contrast for a fingerprint (standard deviation below 2 of 255) */
    char pixels_sha256[65]; /* of size, kind and samples: equal for lossless copies in another file */
    dr_look look;
    bool has_rain; /* false: too small for a rain score */
    double rain;   /* 0..100 (docs/rain-score.md) */
} dr_picture_facts;

/* Decode all of it and look. lim NULL = defaults. Errors: those of dr_derain() for reading a picture. */
DR_MUSTUSE dr_status dr_picture_check(const void *data, size_t len, const dr_limits *lim, dr_picture_facts *ret,
                                      dr_error *err);

/* One place of a contact sheet. */
typedef struct dr_contact_item {
    const char *label; /* ASCII is shown; NULL = none */
    bool marked;       /* framed in red */
} dr_contact_item;

/* The encoded bytes of item i; the callee allocates with dr_malloc, the sheet frees. An error leaves a crossed-out
 * place; so does a picture that does not decode. */
typedef dr_status (*dr_contact_read)(void *arg, int i, char **ret_data, size_t *ret_len, dr_error *err);

/* A PNG with n pictures in rows of `columns`, each at most side x side pixels (32..512), its label above. One picture
 * is held at a time. The caller frees *ret_png with dr_free. INVALID (n, columns, side), TOO_LARGE, NOMEM. */
DR_MUSTUSE dr_status dr_contact_sheet(const dr_contact_item *items, int n, int columns, int side, const dr_limits *lim,
                                      dr_contact_read read, void *arg, void **ret_png, size_t *ret_len, dr_error *err);

#endif
