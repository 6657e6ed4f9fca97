/* test_headers.c - Accept, Prefer, Range, ETag lists, Content-Digest, traceparent, hosts, media types. */
#include "core/base/hash.h"
#include "server/headers.h"
#include "tests/t.h"

TEST(accept_quality_takes_the_most_specific_range) {
    CHECK(srv_accept_quality(NULL, "image/png") == 1000);
    CHECK(srv_accept_quality("", "image/png") == 1000);
    CHECK(srv_accept_quality("*/*", "image/png") == 1000);
    CHECK(srv_accept_quality("image/*;q=0.5, */*;q=0.1", "image/png") == 500);
    CHECK(srv_accept_quality("image/*;q=0.5, image/png;q=0", "image/png") == 0);
    CHECK(srv_accept_quality("image/png ; q=0.25 ; x=y", "image/png") == 250);
    CHECK(srv_accept_quality("text/html", "image/png") == 0);
    CHECK(srv_accept_quality("IMAGE/PNG;Q=0.3", "image/png") == 300);
    CHECK(srv_accept_quality("image/png;q=2", "image/png") == 0);
    CHECK(srv_accept_quality("image/png;q=0.1234", "image/png") == 0);
    CHECK(srv_accept_quality("image/png;a=\"x,y;q=0\";q=0.7", "image/png") == 700);
    CHECK(srv_accept_quality("imagex/*", "image/png") == 0);
    CHECK(srv_accept_quality(",,image/png;q=1.000,", "image/png") == 1000);
}

TEST(accept_best_breaks_ties_by_our_order) {
    static const char *const t[] = {"image/png", "image/jpeg", "application/json"};
    CHECK(srv_accept_best("*/*", t, 3) == 0);
    CHECK(srv_accept_best("application/json", t, 3) == 2);
    CHECK(srv_accept_best("application/json, image/jpeg;q=0.9", t, 3) == 2);
    CHECK(srv_accept_best("application/json;q=0.2, image/jpeg;q=0.9", t, 3) == 1);
    CHECK(srv_accept_best("image/*", t, 3) == 0);
    CHECK(srv_accept_best("image/webp", t, 3) == -1);
    CHECK(srv_accept_best("*/*;q=0", t, 3) == -1);
}

static srv_prefer prefer(const char *v) {
    srv_prefer p = {0};
    srv_prefer_parse(v, &p);
    return p;
}

TEST(preferences) {
    srv_prefer p = prefer("respond-async, wait=10");
    CHECK(p.respond_async && p.has_wait && p.wait_s == 10 && !p.minimal);
    p = prefer("return=minimal;foo=bar, WAIT=\"7\"; x");
    CHECK(p.minimal && p.has_wait && p.wait_s == 7);
    p = prefer("wait=-1, wait=5");
    CHECK(p.has_wait && p.wait_s == 5);
    CHECK(!prefer("wait=99999999999999999999").has_wait && !prefer("wait").has_wait && !prefer("wait=1.5").has_wait);
    p = (srv_prefer){0};
    srv_prefer_parse("wait=1", &p);
    srv_prefer_parse("wait=2, respond-async", &p);
    CHECK(p.wait_s == 1 && p.respond_async);
    p = prefer("");
    CHECK(!p.has_wait && !p.respond_async);
}

TEST(range) {
    static const struct {
        const char *text;
        uint64_t total;
        srv_range r;
        uint64_t first, len;
    } c[] = {
        {"bytes=0-9", 100, SRV_RANGE_OK, 0, 10},
        {"bytes=90-", 100, SRV_RANGE_OK, 90, 10},
        {"bytes=-5", 100, SRV_RANGE_OK, 95, 5},
        {"bytes=-500", 100, SRV_RANGE_OK, 0, 100},
        {"bytes=99-1000", 100, SRV_RANGE_OK, 99, 1},
        {"Bytes = 1-1", 100, SRV_RANGE_OK, 1, 1},
        {"bytes=100-", 100, SRV_RANGE_UNSATISFIABLE, 0, 0},
        {"bytes=100-200", 100, SRV_RANGE_UNSATISFIABLE, 0, 0},
        {"bytes=-0", 100, SRV_RANGE_UNSATISFIABLE, 0, 0},
        {"bytes=0-", 0, SRV_RANGE_UNSATISFIABLE, 0, 0},
        {"bytes=5-4", 100, SRV_RANGE_NONE, 0, 0},
        {"bytes=0-1,3-4", 100, SRV_RANGE_NONE, 0, 0},
        {"bytes=", 100, SRV_RANGE_NONE, 0, 0},
        {"bytes=-", 100, SRV_RANGE_NONE, 0, 0},
        {"bytes=a-b", 100, SRV_RANGE_NONE, 0, 0},
        {"lines=1-2", 100, SRV_RANGE_NONE, 0, 0},
        {"bytes=99999999999999999999-", 100, SRV_RANGE_NONE, 0, 0},
        {NULL, 100, SRV_RANGE_NONE, 0, 0},
    };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        uint64_t first = 0, len = 0;
        srv_range r = srv_range_parse(c[i].text, c[i].total, &first, &len);
        CHECK_MSG(r == c[i].r, "%s", c[i].text);
        if (r == SRV_RANGE_OK) CHECK_MSG(first == c[i].first && len == c[i].len, "%s", c[i].text);
    }
}

TEST(etag_lists_compare_weakly) {
    CHECK(srv_etag_listed("\"a\", \"b\"", "\"b\""));
    CHECK(srv_etag_listed("W/\"b\"", "\"b\"") && srv_etag_listed("\"b\"", "W/\"b\""));
    CHECK(srv_etag_listed("*", "\"x\"") && srv_etag_listed("\"a,b\",\"c\"", "\"a,b\""));
    CHECK(!srv_etag_listed("\"ab\"", "\"a\"") && !srv_etag_listed("", "\"a\"") && !srv_etag_listed(NULL, "\"a\""));
}

TEST(content_digest_round_trip_and_bad_ones) {
    uint8_t sum[32], back[32];
    char text[SRV_DIGEST_TEXT], list[200];
    for (int i = 0; i < 32; i++) sum[i] = (uint8_t)(i * 37);
    srv_digest_format(sum, text);
    CHECK(srv_digest_parse(text, back) == SRV_DIGEST_SHA256 && !memcmp(sum, back, 32));
    snprintf(list, sizeof list, "md5=:abcd:, %s", text);
    memset(back, 0, sizeof back);
    CHECK(srv_digest_parse(list, back) == SRV_DIGEST_SHA256 && !memcmp(sum, back, 32));
    CHECK(srv_digest_parse("md5=:abcd:", back) == SRV_DIGEST_NONE && srv_digest_parse(NULL, back) == SRV_DIGEST_NONE);
    CHECK(srv_digest_parse("sha-256=:AAAA:", back) == SRV_DIGEST_BAD);
    CHECK(srv_digest_parse("sha-256=AAAA", back) == SRV_DIGEST_BAD);
    CHECK(srv_digest_parse("sha-256=", back) == SRV_DIGEST_BAD &&
          srv_digest_parse("sha-256=:", back) == SRV_DIGEST_BAD);
}

TEST(traceparent) {
    static const char good[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    char out[SRV_TRACE] = "x", bad[80];
    CHECK(srv_traceparent_next(good, 0xabc, out));
    CHECK(!strcmp(out, "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000abc-01"));
    CHECK(!srv_traceparent_next(NULL, 1, out) && !srv_traceparent_next("", 1, out));
    for (size_t i = 0; i < sizeof good - 1; i++) { /* any one character out of place */
        memcpy(bad, good, sizeof good);
        bad[i] = 'G';
        CHECK_MSG(!srv_traceparent_next(bad, 1, out), "%s", bad);
    }
    CHECK(!srv_traceparent_next("00-00000000000000000000000000000000-00f067aa0ba902b7-01", 1, out));
    srv_traceparent_new(0, 0, 0, out);
    CHECK(srv_traceparent_next(out, 5, bad) && strlen(out) == 55);
}

TEST(ids_and_keys) {
    char longer[300];
    memset(longer, 'a', sizeof longer);
    longer[65] = 0;
    CHECK(srv_request_id_ok("req-1.2:3/4+5=6_7") && !srv_request_id_ok("") && !srv_request_id_ok(NULL));
    CHECK(!srv_request_id_ok("a b") && !srv_request_id_ok("a\"b") && !srv_request_id_ok(longer));
    CHECK(srv_idempotency_key_ok("\"8e03978e-40d5\"") && !srv_idempotency_key_ok("") &&
          !srv_idempotency_key_ok("a\tb"));
    memset(longer, 'a', sizeof longer);
    longer[256] = 0;
    CHECK(!srv_idempotency_key_ok(longer));
    longer[255] = 0;
    CHECK(srv_idempotency_key_ok(longer));
}

TEST(bearer) {
    CHECK(!strcmp(srv_bearer("Bearer abc"), "abc") && !strcmp(srv_bearer("bearer   x"), "x"));
    CHECK(!srv_bearer("Basic abc") && !srv_bearer("Bearer ") && !srv_bearer(NULL) && !srv_bearer("Bearerabc"));
}

TEST(host_names) {
    char h[64];
    CHECK(srv_host_name("Example.COM:80", h, sizeof h) && !strcmp(h, "example.com"));
    CHECK(srv_host_name("[::1]:8650", h, sizeof h) && !strcmp(h, "::1"));
    CHECK(srv_host_name("http://localhost:3000", h, sizeof h) && !strcmp(h, "localhost"));
    CHECK(srv_host_name("https://a.b/", h, sizeof h) && !strcmp(h, "a.b"));
    CHECK(!srv_host_name("", h, sizeof h) && !srv_host_name("null:x", h, sizeof h) &&
          !srv_host_name("[::1", h, sizeof h));
    CHECK(!srv_host_name("abc", h, 3));
    CHECK(srv_host_is_loopback("localhost") && srv_host_is_loopback("127.1.2.3") && srv_host_is_loopback("::1"));
    CHECK(srv_host_is_loopback("a.localhost"));
    CHECK(!srv_host_is_loopback("127.0.0.1.evil.example") && !srv_host_is_loopback("localhost.evil.example"));
    CHECK(!srv_host_is_loopback("10.0.0.1") && !srv_host_is_loopback("null") && !srv_host_is_loopback(".localhost"));
}

TEST(media_types) {
    char b[20];
    CHECK(srv_media_is("Multipart/Form-Data; boundary=x", "multipart/form-data") && !srv_media_is(NULL, "a/b"));
    CHECK(!srv_media_is("multipart/form-datax", "multipart/form-data"));
    CHECK(srv_media_param("a/b; charset=utf-8; Boundary=\"a;b\"", "boundary", b, sizeof b) && !strcmp(b, "a;b"));
    CHECK(srv_media_param("a/b;boundary=xyz", "boundary", b, sizeof b) && !strcmp(b, "xyz"));
    CHECK(!srv_media_param("a/b; boundary=", "boundary", b, sizeof b) &&
          !srv_media_param("a/b", "boundary", b, sizeof b));
    CHECK(!srv_media_param("a/b; boundary=aaaaaaaaaaaaaaaaaaaaaaaaaaaa", "boundary", b, sizeof b));
}
