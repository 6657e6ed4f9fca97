/* archive.h - reading a data set's archive (tar, tar.gz, zip) that a stranger sent.
 *
 * The archive lies whole in a file, so that a zip is read by its directory, which alone tells links from files. Only
 * folders and plain files in rainy/, clean/, paired/rainy/ and paired/clean/ are taken; everything else is an error
 * that names the entry, and so is what passes a limit. Nothing is written here: bytes go to the caller's sink. */
#ifndef SRV_ARCHIVE_H
#define SRV_ARCHIVE_H

#include "core/base/status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct srv_archive_limits {
    int64_t files_max; /* files; setting dataset_files_max. Entries of any kind: three times that and 1000 */
    int64_t bytes_max; /* of all files together; dataset_bytes_max */
    int64_t file_max;  /* of one file; body_max_bytes */
    int64_t ratio_max; /* unpacked over packed bytes, above 16 MiB; archive_ratio_max */
} srv_archive_limits;

typedef struct srv_archive_sink { /* an error of any of them ends the reading with it */
    void *arg;
    dr_status (*begin)(void *arg, int part, const char *name, dr_error *err); /* part as db_part; name borrowed */
    dr_status (*data)(void *arg, const void *data, size_t len, dr_error *err);
    dr_status (*end)(void *arg, dr_error *err); /* the file is whole */
} srv_archive_sink;

/* From a file (read from its start; the position is moved). Errors by err->what: unsupported_archive (UNSUPPORTED);
 * archive_corrupt (CORRUPT); archive_entry (INVALID): path, kind or name not allowed; archive_too_large (TOO_LARGE)
 * with setting, limit and actual; those of the sink; NOMEM. */
DR_MUSTUSE dr_status srv_archive_read(int fd, const srv_archive_limits *lim, const srv_archive_sink *sink,
                                      dr_error *err);

/* rainy/x.png -> part 0 and "x.png". ret_name points into path. A leading "./" does not matter. */
bool srv_entry_path(const char *path, int *ret_part, const char **ret_name);

/* 1 to 128 characters of valid UTF-8, no slash or backslash, no control character, no dot in front. */
bool srv_entry_name_ok(const char *name);

#endif
