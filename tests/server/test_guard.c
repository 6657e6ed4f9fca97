/* test_guard.c - the framing guard by itself; test_http.c sends the same over sockets. */
#include "server/guard.h"
#include "tests/t.h"

/* Header lines "Name: value|Name: value"; the verdict or "ok". */
static const char *judge(const char *method, const char *uri, const char *lines) {
    srv_guard g;
    const char *why = "";
    srv_guard_init(&g);
    while (*lines) {
        size_t n = strcspn(lines, "|");
        const char *colon = memchr(lines, ':', n);
        char value[200] = "";
        size_t vlen = (size_t)(lines + n - colon) - 1;
        const char *v = colon + 1;
        if (vlen && *v == ' ') v++, vlen--;
        memcpy(value, v, vlen);
        value[vlen] = 0;
        srv_guard_header(&g, lines, (size_t)(colon - lines), value, vlen);
        lines += n + (lines[n] == '|');
    }
    const char *code = srv_guard_verdict(&g, method, "HTTP/1.1", uri, &why);
    return code ? code : "ok";
}

TEST(framing) {
    static const struct {
        const char *method, *lines, *expect;
    } c[] = {
        {"POST", "Host: a|Content-Length: 3", "ok"},
        {"POST", "Host: a|Transfer-Encoding: chunked", "ok"},
        {"GET", "Host: a", "ok"},
        {"DELETE", "Host: a", "ok"},
        {"POST", "Host: a", "length_required"},
        {"PUT", "Host: a", "length_required"},
        {"POST", "Content-Length: 3|Content-Length: 3", "bad_framing"},
        {"POST", "Content-Length: 3|content-length: 4", "bad_framing"},
        {"POST", "Content-Length: 3|Transfer-Encoding: chunked", "bad_framing"},
        {"GET", "Content-Length: 3|Transfer-Encoding: chunked", "bad_framing"},
        {"POST", "Transfer-Encoding: gzip", "bad_framing"},
        {"POST", "Transfer-Encoding: gzip, chunked", "bad_framing"},
        {"POST", "Transfer-Encoding: chunked|Transfer-Encoding: chunked", "bad_framing"},
        {"POST", "Transfer-Encoding: xchunked", "bad_framing"},
        {"POST", "Content-Length : 3", "bad_framing"},
        {"GET", "Foo Bar: 3", "bad_framing"},
        {"GET", "Foo\t: 3", "bad_framing"},
        {"POST", "Content-Length: 3, 3", "bad_framing"},
        {"POST", "Content-Length: +3", "bad_framing"},
        {"POST", "Content-Length: -3", "bad_framing"},
        {"POST", "Content-Length: 0x3", "bad_framing"},
        {"POST", "Content-Length: ", "bad_framing"},
        {"POST", "Content-Length: 99999999999999999999", "bad_framing"},
        {"GET", "Host: a|Host: b", "bad_framing"},
    };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++)
        CHECK_MSG(!strcmp(judge(c[i].method, "/", c[i].lines), c[i].expect), "%s %s: %s", c[i].method, c[i].lines,
                  judge(c[i].method, "/", c[i].lines));
}

TEST(chunked_needs_http_1_1_and_values_hold_no_nul) {
    srv_guard g;
    const char *why;
    srv_guard_init(&g);
    srv_guard_header(&g, "Transfer-Encoding", 17, "chunked", 7);
    CHECK(!strcmp(srv_guard_verdict(&g, "POST", "HTTP/1.0", "/", &why), "bad_framing"));
    srv_guard_init(&g);
    srv_guard_header(&g, "X", 1, "a\0b", 3);
    CHECK(!strcmp(srv_guard_verdict(&g, "GET", "HTTP/1.1", "/", &why), "bad_framing"));
    srv_guard_init(&g);
    srv_guard_header(&g, "", 0, "a", 1);
    CHECK(!strcmp(srv_guard_verdict(&g, "GET", "HTTP/1.1", "/", &why), "bad_framing"));
}

TEST(paths) {
    static const char *const good[] = {"/",  "/v1/jobs", "/v1/jobs?x=../..", "/a..b", "/...", "/a%20b", "/v1/x?a=%2F",
                                       "/.", "/a.b"};
    static const char *const bad[] = {"/%00",        "/v1/jobs?x=%00", "/a%2Fb", "/a%2fb", "/..", "/../x", "/a/..",
                                      "/a/%2e%2E/b", "/a/.%2e",        "/a%5cb", "/%",     "/%4", "/%zz",  "/x?%0"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        CHECK_MSG(!strcmp(judge("GET", good[i], ""), "ok"), "%s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_MSG(!strcmp(judge("GET", bad[i], ""), "bad_path"), "%s", bad[i]);
}
