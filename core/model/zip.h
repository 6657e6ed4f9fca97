/* zip.h - the table of contents of a ZIP archive whose entries are stored, not compressed: what PyTorch writes.
 *
 * Nothing is unpacked: an entry is a piece of the archive's own bytes, so an archive cannot grow in memory. Lengths are
 * checked before looking; the checksum of each entry is checked when it is asked for. */
#ifndef DR_MODEL_ZIP_H
#define DR_MODEL_ZIP_H

#include "core/base/status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DR_ZIP_ENTRIES_MAX 65536

typedef struct dr_zip_entry {
    const char *name; /* not NUL-terminated */
    size_t name_len;
    const uint8_t *data;
    size_t len;
    uint32_t crc;
} dr_zip_entry;

typedef struct dr_zip {
    dr_zip_entry *e;
    size_t n;
} dr_zip;

bool dr_zip_looks(const void *data, size_t len); /* by the first bytes */

/* data is borrowed until dr_zip_done. CORRUPT bad_zip; UNSUPPORTED (compressed, encrypted, several volumes). */
DR_MUSTUSE dr_status dr_zip_parse(const void *data, size_t len, dr_zip *ret, dr_error *err);
void dr_zip_done(dr_zip *z);

/* NULL: not there. */
const dr_zip_entry *dr_zip_find(const dr_zip *z, const char *name, size_t name_len);
/* CORRUPT bad_zip when the entry's bytes are not those of its checksum. */
DR_MUSTUSE dr_status dr_zip_check(const dr_zip_entry *e, dr_error *err);

#endif
