/* mkpng.c - pictures for the end-to-end tests, made of nothing: mkpng WIDTH HEIGHT SEED [CHANNELS [claim]] writes an
 * 8-bit PNG (1 grey, 3 RGB, 4 RGBA) with a pattern and noise to stdout. With "claim" the header says WIDTH x HEIGHT but
 * there are no more than a few pixels behind it; with "scene" each SEED gives large shapes of its own, with "deep"
 * those in 16 bits, with "rain" those behind thin bright streaks, with "turned"
 * those behind level ones. Needs no library, so that a test script can compile it anywhere. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t table[256];

static uint32_t crc(uint32_t c, const uint8_t *p, size_t n) {
    if (!table[1])
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t k = i;
            for (int j = 0; j < 8; j++) k = k & 1 ? 0xEDB88320u ^ (k >> 1) : k >> 1;
            table[i] = k;
        }
    for (c = ~c; n; n--) c = table[(c ^ *p++) & 255] ^ (c >> 8);
    return ~c;
}

static void put32(uint8_t *p, uint32_t v) {
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static int chunk(const char *type, const uint8_t *data, size_t n) {
    uint8_t head[8], tail[4];
    put32(head, (uint32_t)n);
    memcpy(head + 4, type, 4);
    put32(tail, crc(crc(0, head + 4, 4), data, n));
    return fwrite(head, 1, 8, stdout) == 8 && fwrite(data, 1, n, stdout) == n && fwrite(tail, 1, 4, stdout) == 4;
}

/* zlib stream of stored blocks */
static size_t store(const uint8_t *raw, size_t n, uint8_t *out) {
    uint32_t a = 1, b = 0;
    size_t len = 2;
    out[0] = 0x78, out[1] = 1;
    for (size_t i = 0; i < n;) {
        size_t k = n - i < 65535 ? n - i : 65535;
        out[len++] = i + k == n;
        out[len++] = (uint8_t)k, out[len++] = (uint8_t)(k >> 8);
        out[len++] = (uint8_t)~k, out[len++] = (uint8_t)(~k >> 8);
        memcpy(out + len, raw + i, k);
        len += k;
        i += k;
    }
    for (size_t i = 0; i < n; i++) a = (a + raw[i]) % 65521, b = (b + a) % 65521;
    put32(out + len, b << 16 | a);
    return len + 4;
}

/* Six triangle waves across the picture, 0..255. */
static unsigned wave(const uint32_t *k, uint32_t x, uint32_t y, uint32_t w, uint32_t h) {
    uint32_t sum = 0;
    for (int i = 0; i < 6; i++) {
        uint32_t at = ((k[i] & 2047) * x / w + (k[i] >> 11 & 2047) * y / h + (k[i] >> 22)) & 1023;
        sum += at < 512 ? at : 1023 - at;
    }
    return sum / 12;
}

int main(int argc, char **argv) {
    static const uint8_t signature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
    if (argc < 4) return 2;
    uint32_t w = (uint32_t)strtoul(argv[1], NULL, 10), h = (uint32_t)strtoul(argv[2], NULL, 10);
    uint32_t x = (uint32_t)strtoul(argv[3], NULL, 10) * 2654435761u + 12345;
    unsigned ch = argc > 4 ? (unsigned)strtoul(argv[4], NULL, 10) : 3;
    const int scene = argc > 5 && strcmp(argv[5], "claim") != 0, deep = argc > 5 && !strcmp(argv[5], "deep"),
              rain = argc > 5 && !strcmp(argv[5], "rain"), turned = argc > 5 && !strcmp(argv[5], "turned");
    uint32_t waves[6], k = x;
    for (int i = 0; i < 6; i++) {
        k = k * 1664525u + 1013904223u;
        waves[i] = k ^ k >> 15;
    }
    uint8_t head[13] = {[8] = deep ? 16 : 8, [9] = ch == 1 ? 0 : ch == 4 ? 6 : 2};
    put32(head, w);
    put32(head + 4, h);
    if (argc > 5 && !scene) w = 4, h = 4;
    size_t row = 1 + (size_t)w * ch * (deep ? 2 : 1), n = row * h;
    uint8_t *raw = calloc(1, n), *z = malloc(n + n / 65535 * 5 + 64);
    if (!raw || !z) return 1;
    for (uint32_t i = 0; i < h; i++)
        for (uint32_t j = 0; j < w * ch; j++) {
            x = x * 1664525u + 1013904223u;
            uint8_t v = (uint8_t)(scene ? wave(waves, j / ch, i, w, h) : ((i * 3 + j * 2) & 127) + 40 + (x >> 27));
            if (rain && (j / ch * 2654435761u >> 16) % 6 == 0 && (i + j / ch * 7) % 24 < 15) v = v > 235 ? 255 : v + 20;
            if (turned && (i * 2654435761u >> 16) % 6 == 0 && (j / ch + i * 7) % 24 < 15) v = v > 235 ? 255 : v + 20;
            if (deep)
                raw[i * row + 1 + 2 * j] = v, raw[i * row + 2 + 2 * j] = (uint8_t)(x >> 24);
            else
                raw[i * row + 1 + j] = scene ? (uint8_t)(v ^ (j % ch == 1)) : v;
        }
    size_t len = store(raw, n, z);
    int ok =
        fwrite(signature, 1, 8, stdout) == 8 && chunk("IHDR", head, 13) && chunk("IDAT", z, len) && chunk("IEND", z, 0);
    free(raw);
    free(z);
    return ok ? 0 : 1;
}
