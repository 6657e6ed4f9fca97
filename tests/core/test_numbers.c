/* test_numbers.c - strict numbers from text, random numbers, times. */
#include "core/base/clock.h"
#include "core/base/parse.h"
#include "core/base/rng.h"
#include "tests/t.h"

TEST(integers_are_whole_or_nothing) {
    static const char *const bad[] = {"", " 1", "1 ", "+1", "0x10", "1.5", "--1", "-", "abc", "99999999999999999999"};
    int64_t v = 42;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_MSG(!dr_parse_i64(bad[i], INT64_MIN, INT64_MAX, &v) && v == 42, "'%s'", bad[i]);
    CHECK(!dr_parse_i64(NULL, 0, 1, &v));
    CHECK(dr_parse_i64("-12", -12, 12, &v) && v == -12 && !dr_parse_i64("-13", -12, 12, &v));
    uint64_t u;
    CHECK(!dr_parse_u64("-1", 0, UINT64_MAX, &u) && dr_parse_u64("18446744073709551615", 0, UINT64_MAX, &u));
    int n;
    CHECK(dr_parse_int("7", 1, 7, &n) && n == 7 && !dr_parse_int("8", 1, 7, &n));
}

TEST(sizes_and_durations) {
    uint64_t b;
    CHECK(dr_parse_bytes("4096", UINT64_MAX, &b) && b == 4096);
    CHECK(dr_parse_bytes("256M", UINT64_MAX, &b) && b == 256u << 20);
    CHECK(dr_parse_bytes("2 GiB", UINT64_MAX, &b) && b == 2ull << 30);
    CHECK(dr_parse_bytes("3kB", UINT64_MAX, &b) && b == 3072);
    CHECK(!dr_parse_bytes("3X", UINT64_MAX, &b) && !dr_parse_bytes("M", UINT64_MAX, &b) &&
          !dr_parse_bytes("1G", 1 << 20, &b) && !dr_parse_bytes("18446744073709551615T", UINT64_MAX, &b) &&
          !dr_parse_bytes("1MM", UINT64_MAX, &b));
    int64_t s;
    CHECK(dr_parse_seconds("90", 1000, &s) && s == 90 && dr_parse_seconds("15m", 1000, &s) && s == 900);
    CHECK(dr_parse_seconds("24h", 1 << 20, &s) && s == 86400 && !dr_parse_seconds("1w", 1 << 20, &s) &&
          !dr_parse_seconds("2d", 86400, &s) && !dr_parse_seconds("5ms", 1000, &s));
    int w, h;
    CHECK(dr_parse_size("1920x1080", 16, 32768, &w, &h) && w == 1920 && h == 1080);
    CHECK(!dr_parse_size("1920X1080", 16, 32768, &w, &h) && !dr_parse_size("8x64", 16, 99, &w, &h) &&
          !dr_parse_size("64x", 16, 99, &w, &h) && !dr_parse_size("64x64x", 16, 99, &w, &h));
}

TEST(reals_and_switches) {
    double d;
    CHECK(dr_parse_double("1e-4", 0, 1, &d) && fabs(d - 1e-4) < 1e-12 && dr_parse_double(".5", 0, 1, &d));
    CHECK(!dr_parse_double("nan", -9, 9, &d) && !dr_parse_double("inf", -9, 9, &d) &&
          !dr_parse_double("1,5", 0, 9, &d) && !dr_parse_double("1e999", 0, 9, &d) && !dr_parse_double("2", 0, 1, &d));
    bool b;
    CHECK(dr_parse_bool("Yes", &b) && b && dr_parse_bool("off", &b) && !b && !dr_parse_bool("maybe", &b));
}

TEST(random_numbers_repeat_and_spread) {
    dr_rng a, b, c;
    dr_rng_seed(&a, 5, 1);
    dr_rng_seed(&b, 5, 1);
    dr_rng_seed(&c, 5, 2);
    int differ = 0;
    for (int i = 0; i < 100; i++) {
        uint64_t x = dr_rng_u64(&a);
        CHECK(x == dr_rng_u64(&b));
        differ += x != dr_rng_u64(&c);
    }
    CHECK(differ == 100);
    int hist[7] = {0};
    double sum = 0, sq = 0;
    for (int i = 0; i < 70000; i++) {
        hist[dr_rng_below(&a, 7)]++;
        double n = dr_rng_normal(&a);
        sum += n, sq += n * n;
        double u = dr_rng_range(&a, -2, 3);
        CHECK(u >= -2 && u < 3);
    }
    for (int i = 0; i < 7; i++) CHECK_MSG(abs(hist[i] - 10000) < 500, "%d", hist[i]);
    CHECK(fabs(sum / 70000) < 0.02 && fabs(sq / 70000 - 1) < 0.03);
    CHECK(dr_rng_below(&a, 1) == 0);
}

TEST(times) {
    char t[DR_RFC3339];
    dr_clock_rfc3339(0, t);
    CHECK(!strcmp(t, "1970-01-01T00:00:00.000Z"));
    dr_clock_rfc3339(1769903999123, t);
    CHECK(!strcmp(t, "2026-01-31T23:59:59.123Z"));
    dr_clock_rfc3339(-1, t);
    CHECK(!strcmp(t, "1969-12-31T23:59:59.999Z"));
    int64_t a = dr_clock_ns(), b = dr_clock_ns();
    CHECK(b >= a && dr_clock_wall_ms() > 1700000000000);
}
