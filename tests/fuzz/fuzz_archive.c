/* fuzz_archive.c - any bytes as a data set's archive: whatever they are, no name that the reader hands on leaves the
 * four folders, no limit is passed, and each file that was begun and not refused is ended. */
#include "server/archive.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct tally {
    int64_t files, bytes, file;
    bool open;
} tally;

static const srv_archive_limits fuzz_limits = {
    .files_max = 8, .bytes_max = 1 << 20, .file_max = 1 << 18, .ratio_max = 100};

static dr_status fuzz_begin(void *arg, int part, const char *name, dr_error *err) {
    tally *t = arg;
    (void)err;
    if (t->open || part < 0 || part > 3 || !srv_entry_name_ok(name) || strchr(name, '/') || name[0] == '.') abort();
    if (++t->files > fuzz_limits.files_max) abort();
    t->open = true;
    t->file = 0;
    return DR_OK;
}
static dr_status fuzz_data(void *arg, const void *data, size_t len, dr_error *err) {
    tally *t = arg;
    volatile uint8_t sum = 0; /* touches every byte, for the sanitizer */
    (void)err;
    for (size_t i = 0; i < len; i++) sum = (uint8_t)(sum + ((const uint8_t *)data)[i]);
    t->file += (int64_t)len;
    t->bytes += (int64_t)len;
    if (!t->open || t->file > fuzz_limits.file_max || t->bytes > fuzz_limits.bytes_max) abort();
    return DR_OK;
}
static dr_status fuzz_end(void *arg, dr_error *err) {
    tally *t = arg;
    (void)err;
    if (!t->open || !t->file) abort();
    t->open = false;
    return DR_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tally t = {0};
    dr_error err = {0};
    const srv_archive_sink sink = {&t, fuzz_begin, fuzz_data, fuzz_end};
    int fd = memfd_create("archive", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size) abort();
    dr_status s = srv_archive_read(fd, &fuzz_limits, &sink, &err);
    close(fd);
    if (!s && (t.open || !t.files)) abort();
    if (s && err.code != s) abort();
    return 0;
}
