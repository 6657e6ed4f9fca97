/* archives.h - for tests: tar archives made byte by byte, so that a test can write what no honest program would. */
#ifndef TESTS_SERVER_ARCHIVES_H
#define TESTS_SERVER_ARCHIVES_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct tar_file {
    uint8_t *p;
    size_t n;
} tar_file;

/* One entry; type '0' file, '5' folder, '1' hard link, '2' symbolic link. claim < 0: the true size in the header. */
static inline void tar_add(tar_file *t, const char *name, char type, const char *link, const void *data, size_t len,
                           long long claim) {
    size_t pad = (512 - len % 512) % 512;
    t->p = realloc(t->p, t->n + 512 + len + pad);
    uint8_t *h = t->p + t->n;
    memset(h, 0, 512);
    memcpy(h, name, strlen(name) < 100 ? strlen(name) : 100);
    memcpy(h + 100,
           "0000644\0"
           "0000000\0"
           "0000000",
           23);
    char size[24];
    snprintf(size, sizeof size, "%011llo", claim < 0 ? (long long)len : claim);
    memcpy(h + 124, size, 11);
    memcpy(h + 136, "00000000000", 11);
    memset(h + 148, ' ', 8);
    h[156] = (uint8_t)type;
    if (link) memcpy(h + 157, link, strlen(link));
    memcpy(h + 257,
           "ustar\0"
           "00",
           8);
    unsigned sum = 0;
    for (int i = 0; i < 512; i++) sum += h[i];
    snprintf(size, sizeof size, "%06o", sum);
    memcpy(h + 148, size, 7);
    if (len) memcpy(h + 512, data, len);
    memset(h + 512 + len, 0, pad);
    t->n += 512 + len + pad;
}
static inline void tar_end(tar_file *t) {
    t->p = realloc(t->p, t->n + 1024);
    memset(t->p + t->n, 0, 1024);
    t->n += 1024;
}
static inline void tar_done(tar_file *t) {
    free(t->p);
    *t = (tar_file){0};
}

#endif
