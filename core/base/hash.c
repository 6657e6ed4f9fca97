#include "core/base/hash.h"

#include <nettle/base64.h>
#include <nettle/hmac.h>
#include <string.h>

void dr_sha256_init(dr_sha256 *h) {
    sha256_init(&h->ctx);
}
void dr_sha256_add(dr_sha256 *h, const void *data, size_t len) {
    sha256_update(&h->ctx, len, data);
}
void dr_sha256_end(dr_sha256 *h, uint8_t ret[32]) {
    sha256_digest(&h->ctx, 32, ret);
}

void dr_hex(const uint8_t *in, size_t n, char *ret) {
    static const char digit[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        ret[2 * i] = digit[in[i] >> 4];
        ret[2 * i + 1] = digit[in[i] & 15];
    }
    ret[2 * n] = 0;
}

void dr_sha256_hex(const void *data, size_t len, char ret[DR_SHA256_HEX]) {
    uint8_t d[32];
    dr_sha256 h;
    dr_sha256_init(&h);
    dr_sha256_add(&h, data, len);
    dr_sha256_end(&h, d);
    dr_hex(d, 32, ret);
}

static int digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

bool dr_unhex(const char *s, size_t n, uint8_t *ret) {
    for (size_t i = 0; i < n; i++) {
        int hi = digit(s[2 * i]), lo = hi < 0 ? -1 : digit(s[2 * i + 1]);
        if (lo < 0) return false;
        ret[i] = (uint8_t)(hi << 4 | lo);
    }
    return s[2 * n] == 0;
}

void dr_base64(const uint8_t *in, size_t n, char *ret) {
    base64_encode_raw(ret, n, in);
    ret[BASE64_ENCODE_RAW_LENGTH(n)] = 0;
}

bool dr_unbase64(const char *s, size_t len, uint8_t *ret, size_t cap, size_t *ret_len) {
    struct base64_decode_ctx c;
    base64_decode_init(&c);
    size_t n = cap;
    if (BASE64_DECODE_LENGTH(len) > cap || !base64_decode_update(&c, &n, ret, len, s) || !base64_decode_final(&c))
        return false;
    *ret_len = n;
    return true;
}

void dr_hmac_sha256(const void *key, size_t key_len, const void *data, size_t len, uint8_t ret[32]) {
    struct hmac_sha256_ctx c;
    hmac_sha256_set_key(&c, key_len, key);
    hmac_sha256_update(&c, len, data);
    hmac_sha256_digest(&c, 32, ret);
}

uint32_t dr_crc32(uint32_t crc, const void *data, size_t len) {
    static uint32_t table[256];
    static bool made;
    if (!__atomic_load_n(&made, __ATOMIC_ACQUIRE)) {
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t c = i;
            for (int k = 0; k < 8; k++) c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
            __atomic_store_n(&table[i], c, __ATOMIC_RELAXED); /* every thread writes the same values */
        }
        __atomic_store_n(&made, true, __ATOMIC_RELEASE);
    }
    const uint8_t *p = data;
    crc = ~crc;
    while (len--) crc = table[(crc ^ *p++) & 255] ^ (crc >> 8);
    return ~crc;
}

bool dr_equal_ct(const void *a, const void *b, size_t n) {
    const volatile uint8_t *x = a, *y = b;
    uint8_t d = 0;
    for (size_t i = 0; i < n; i++) d |= x[i] ^ y[i];
    return d == 0;
}
