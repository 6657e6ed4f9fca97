/* names.h - where results go: STEM.derained.png beside the input, never over a file that exists unless told so. */
#ifndef CLI_NAMES_H
#define CLI_NAMES_H

#include "core/base/status.h"
#include <stdbool.h>
#include <stddef.h>

bool cli_is_picture_name(const char *name);                /* ends in .png, .jpg or .jpeg, any case */
bool cli_is_result_name(const char *name);                 /* STEM.derained.EXT: made by us, not an input */
bool cli_looks_like_picture(const void *data, size_t len); /* PNG or JPEG signature */
const char *cli_base_name(const char *path);               /* behind the last slash, borrowed */

/* "png" or "jpeg", from --format, else from the ending of the output's name, else png. */
const char *cli_result_format(const char *format, const char *out);

/* "photo.jpg" -> "photo.derained.png" (or .jpg for jpeg); whole: "photo.jpg.derained.png", for when two files of a
 * folder share the stem. Caller frees; NULL without memory. */
char *cli_result_name(const char *name, const char *format, bool whole);

typedef struct cli_item {
    char *in, *out; /* owned paths; out NULL = not written to a file */
    bool exists;    /* out is there already */
} cli_item;

/* The pictures of a folder in byte order, results of earlier runs left out; results go to out_dir (NULL = the same
 * folder). */
DR_MUSTUSE dr_status cli_folder_items(const char *dir, const char *out_dir, const char *format, cli_item **ret,
                                      size_t *ret_n, dr_error *err);
void cli_items_free(cli_item *items, size_t n);

#endif
