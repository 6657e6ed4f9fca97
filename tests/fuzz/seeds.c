/* seeds.c - `seeds DIR` writes the seed corpus into an existing folder. */
#include "tests/fuzz/seeds.h"
#include "tests/golden/pth.inc"

static int save(const char *dir, const char *kind, int i, bytes *b) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s-%02d", dir, kind, i);
    FILE *f = fopen(path, "wb");
    const int ok = f && fwrite(b->p, 1, b->n, f) == b->n;
    bytes_done(b);
    return f && fclose(f) == 0 && ok;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: seeds DIR\n");
        return 2;
    }
    int ok = 1;
    for (int i = 0; i < SEEDS_PNG; i++) {
        bytes b = seed_png(i);
        ok &= save(argv[1], "png", i, &b);
    }
    for (int i = 0; i < SEEDS_JPEG; i++) {
        bytes b = seed_jpeg(i);
        ok &= save(argv[1], "jpeg", i, &b);
    }
    const struct {
        const unsigned char *p;
        size_t n;
    } pth[] = {{pth_zip, sizeof pth_zip},
               {pth_old, sizeof pth_old},
               {pth_wrapped, sizeof pth_wrapped},
               {pth_evil, sizeof pth_evil},
               {pth_evil_old, sizeof pth_evil_old}};
    for (int i = 0; i < (int)(sizeof pth / sizeof pth[0]); i++) {
        bytes b = bytes_of(pth[i].p, pth[i].n);
        ok &= save(argv[1], "pth", i, &b);
    }
    return !ok;
}
