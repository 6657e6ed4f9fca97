/* test_fuzz_server.c - the fuzz targets of this room as plain tests: their seeds, each seed with bytes changed, cut and
 * doubled. The long runs are `make fuzz T=config`, T=multipart and T=headers. */
#include "core/base/rng.h"
#include "tests/t.h"
#include <stdint.h>

#define LLVMFuzzerTestOneInput fuzz_config
#include "tests/fuzz/fuzz_config.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_multipart
#include "tests/fuzz/fuzz_multipart.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_headers
#include "tests/fuzz/fuzz_headers.c"
#undef LLVMFuzzerTestOneInput

#define ROUNDS 3000

/* Changes that a parser finds hard: a byte, a length, a piece twice, a piece gone. */
static size_t mutate(dr_rng *r, uint8_t *p, size_t n, size_t cap) {
    for (uint32_t k = dr_rng_below(r, 4) + 1; k; k--) {
        size_t at = n ? dr_rng_below(r, (uint32_t)n) : 0, len = n - at < 20 ? n - at : 20;
        switch (dr_rng_below(r, 4)) {
        case 0:
            if (n) p[at] = (uint8_t)dr_rng_u64(r);
            break;
        case 1:
            n = at;
            break;
        case 2:
            if (n + len <= cap) {
                memmove(p + at + len, p + at, n - at);
                n += len;
            }
            break;
        default:
            memmove(p + at, p + at + len, n - at - len);
            n -= len;
        }
    }
    return n;
}

static void replay(int (*target)(const uint8_t *, size_t), const char *const *seeds, size_t n_seeds) {
    dr_rng r;
    uint8_t buf[4096];
    dr_rng_seed(&r, 20, 1);
    for (size_t i = 0; i < n_seeds; i++) {
        target((const uint8_t *)seeds[i], strlen(seeds[i]));
        for (int k = 0; k < ROUNDS; k++) {
            size_t n = strlen(seeds[i]);
            memcpy(buf, seeds[i], n);
            n = mutate(&r, buf, n, sizeof buf);
            target(buf, n);
        }
    }
}

TEST(settings) {
    static const char *const seeds[] = {"queue_max = 7\nlisten=[::1]:1\n# x\n\nlog_json = yes",
                                        "result_ttl=2h\r\nmem_budget = 512M\r\n",
                                        "backend=cpu\nallowed_hosts = a, b\ninsecure=on\n"};
    replay(fuzz_config, seeds, 3);
    CHECK(seeds[0]);
}

TEST(forms) {
    static const char *const seeds[] = {
        "--B\r\nContent-Disposition: form-data; name=\"image\"\r\n\r\nabc\r\n--\r\n\r\n--B--\r\n",
        "pre\r\n--B\r\nContent-Disposition: form-data; filename=\"a\\\"b;c\"; name=image\r\nContent-Type: "
        "image/png\r\n\r\n\r\n--x\r\n--B--\r\nend",
    };
    replay(fuzz_multipart, seeds, 2);
    CHECK(seeds[0]);
}

TEST(headers_and_paths) {
    static const char *const seeds[] = {"image/*;q=0.5, image/png;q=0.25 ;x=\"a,b\", */*",
                                        "respond-async, wait=10; x=y, return=minimal",
                                        "bytes=10-20",
                                        "W/\"a\", \"b\", *",
                                        "md5=:aa:, sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:",
                                        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                                        "Bearer abc",
                                        "http://[::1]:80/",
                                        "multipart/form-data; boundary=\"a;b\"",
                                        "/v1/jobs/%2e%2e/a%00?x=%2F",
                                        "12345"};
    replay(fuzz_headers, seeds, sizeof seeds / sizeof *seeds);
    CHECK(seeds[0]);
}
