/* hash.h - SHA-256 and HMAC (nettle), CRC-32, hex, constant-time compare. */
#ifndef DR_BASE_HASH_H
#define DR_BASE_HASH_H

#include <nettle/sha2.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DR_SHA256_HEX 65 /* bytes for the hex form with its NUL */

typedef struct dr_sha256 {
    struct sha256_ctx ctx;
} dr_sha256;

void dr_sha256_init(dr_sha256 *h);
void dr_sha256_add(dr_sha256 *h, const void *data, size_t len);
void dr_sha256_end(dr_sha256 *h, uint8_t ret[32]);
void dr_sha256_hex(const void *data, size_t len, char ret[DR_SHA256_HEX]);
void dr_hex(const uint8_t *in, size_t n, char *ret);    /* 2n digits and NUL */
bool dr_unhex(const char *s, size_t n, uint8_t *ret);   /* exactly 2n hex digits */
void dr_base64(const uint8_t *in, size_t n, char *ret); /* 4*ceil(n/3) characters and NUL */
bool dr_unbase64(const char *s, size_t len, uint8_t *ret, size_t cap, size_t *ret_len);
void dr_hmac_sha256(const void *key, size_t key_len, const void *data, size_t len, uint8_t ret[32]);
uint32_t dr_crc32(uint32_t crc, const void *data, size_t len); /* start with 0; zlib's polynomial */
bool dr_equal_ct(const void *a, const void *b, size_t n);      /* time does not depend on the bytes */

#endif
