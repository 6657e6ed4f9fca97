/* fuzz_conv_cache.c - any bytes as a line of the file of tuned plans, and as the file. What is taken must be what would
 * be written; a file is opened, added to and saved, whatever is in it. */
#include "cuda/conv_file.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static dr_status fail(dr_error *err, dr_status code, const char *fmt, ...) {
    (void)err, (void)fmt;
    return code;
}
static const dr_host_api host = {.fail = fail};

/* In memory; it cannot be saved under the name that /proc has for it, which is an error like others. */
static void as_file(const uint8_t *data, size_t size) {
    char path[64];
    const cv_shape shape = {1, 24, 70, 64, 64, 7, 0, DK_BF16, 1};
    cv_file f = {.host = &host, .device = "cusim", .cc = 90, .sms = 132, .cudnn = 90000};
    const int fd = memfd_create("plans", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size) abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (cv_file_open(&f, path, NULL) || f.n != f.n_old) abort();
    if (cv_file_put(&f, CV_FORWARD, shape, &(cv_plan_id){.engine = 7}, NULL)) abort();
    const cv_plan_id *l = cv_file_find(&f, CV_FORWARD, shape);
    if (!l || l->engine != 7 || l->n_knobs) abort();
    if (cv_file_save(&f, NULL) == DR_OK) abort();
    cv_file_done(&f);
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cv_cache_line c;
    char text[CV_CACHE_MAX_LINE + 1];
    as_file(data, size);
    if (!cv_cache_parse_line((const char *)data, size, &c)) return 0;
    size_t n = cv_cache_format_line(&c, text, sizeof text);
    if (n != size + 1 || memcmp(text, data, size) != 0) abort();
    return 0;
}
