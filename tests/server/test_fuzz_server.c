/* test_fuzz_server.c - the fuzz targets of this room as plain tests: their seeds, each seed with bytes changed, cut and
 * doubled. The long runs are `make fuzz T=config`, T=multipart, T=headers, T=compare and T=archive. */
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

#define LLVMFuzzerTestOneInput fuzz_archive
#include "tests/fuzz/fuzz_archive.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_compare
#include "tests/fuzz/fuzz_compare.c"
#undef LLVMFuzzerTestOneInput
#include "tests/server/archives.h"
#include <archive.h>
#include <archive_entry.h>

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

TEST(comparisons) {
#define SHA "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
    static const char *const seeds[] = {
        "{\"type\":\"compare\",\"versions\":[\"derain/1\",\"other\"],\"labels\":{\"a\":\"b\"},\"pictures\":["
        "{\"name\":\"a.jpg\",\"blob\":\"" SHA "\",\"clean\":\"" SHA "\"},{\"name\":\"b\",\"blob\":\"" SHA
        "\",\"clean\":null}]}",
        "{\"dataset\":\"ds_00000000000000000000000000\",\"versions\":null}",
        "{\"versions\":[{\"name\":\"derain\",\"version\":3,\"sha256\":\"" SHA "\"}],\"pictures\":7,\"dataset\":null}"};
    replay(fuzz_compare, seeds, 3);
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

/* --- archives: binary seeds --- */

static size_t packed_seed(bool zip, uint8_t *ret, size_t cap) {
    struct archive *a = archive_write_new();
    size_t used = 0;
    if (zip) {
        archive_write_set_format_zip(a);
    } else {
        archive_write_set_format_pax(a);
        archive_write_add_filter_gzip(a);
    }
    archive_write_open_memory(a, ret, cap, &used);
    for (int i = 0; i < 3; i++) {
        static const char *const names[] = {"rainy/a.png", "paired/clean/b.png", "clean/c.png"};
        struct archive_entry *e = archive_entry_new();
        archive_entry_set_pathname(e, names[i]);
        archive_entry_set_filetype(e, AE_IFREG);
        archive_entry_set_perm(e, 0644);
        archive_entry_set_size(e, 300);
        archive_write_header(a, e);
        for (int k = 0; k < 100; k++) archive_write_data(a, "abc", 3);
        archive_entry_free(e);
    }
    archive_write_close(a);
    archive_write_free(a);
    return used;
}

static void replay_archive(const uint8_t *seed, size_t n) {
    dr_rng r;
    uint8_t buf[20000];
    dr_rng_seed(&r, 21, 1);
    fuzz_archive(seed, n);
    for (int k = 0; k < ROUNDS / 2; k++) {
        memcpy(buf, seed, n);
        fuzz_archive(buf, mutate(&r, buf, n, sizeof buf));
    }
}

TEST(archives) {
    static uint8_t zip[16384], gz[16384];
    tar_file t = {0};
    tar_add(&t, "rainy/", '5', NULL, NULL, 0, -1);
    tar_add(&t, "rainy/a.png", '0', NULL, "abc", 3, -1);
    tar_add(&t, "clean/b.png", '0', NULL, "abcdef", 6, -1);
    tar_add(&t, "clean/l.png", '2', "rainy/a.png", NULL, 0, -1);
    tar_end(&t);
    CHECK(t.n < 16384);
    replay_archive(t.p, t.n);
    tar_done(&t);
    size_t n = packed_seed(true, zip, sizeof zip);
    CHECK(n > 100);
    replay_archive(zip, n);
    n = packed_seed(false, gz, sizeof gz);
    CHECK(n > 100);
    replay_archive(gz, n);
}
