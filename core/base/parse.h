/* parse.h - strict numbers from text: the whole string or nothing, with bounds. No atoi anywhere else. */
#ifndef DR_BASE_PARSE_H
#define DR_BASE_PARSE_H

#include <stdbool.h>
#include <stdint.h>

bool dr_parse_i64(const char *s, int64_t min, int64_t max, int64_t *ret);
bool dr_parse_u64(const char *s, uint64_t min, uint64_t max, uint64_t *ret);
bool dr_parse_int(const char *s, int min, int max, int *ret);
bool dr_parse_double(const char *s, double min, double max, double *ret); /* finite, "C" locale */
bool dr_parse_bool(const char *s, bool *ret);                             /* 1 0 true false yes no on off */
bool dr_parse_bytes(const char *s, uint64_t max,
                    uint64_t *ret); /* 4096, 64K, 256M, 10G (1024-based, also KB MB GB KiB MiB GiB) */
bool dr_parse_seconds(const char *s, int64_t max, int64_t *ret);             /* 90, 90s, 15m, 24h, 30d */
bool dr_parse_size(const char *s, int min, int max, int *ret_w, int *ret_h); /* 1920x1080 */

#endif
