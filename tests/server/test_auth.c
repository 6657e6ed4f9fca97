/* test_auth.c - token files and the loopback rule. */
#include "server/auth.h"
#include "tests/t.h"
#include <sys/stat.h>
#include <unistd.h>

static dr_status open_with(const char *text, mode_t mode, srv_auth **ret, dr_error *err) {
    char path[] = "/tmp/derain-token-XXXXXX";
    int fd = mkstemp(path);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text) || fchmod(fd, mode)) return DR_IO;
    close(fd);
    *err = (dr_error){0};
    dr_status s = srv_auth_open(path, "", false, ret, err);
    unlink(path);
    return s;
}

TEST(tokens) {
    srv_auth *a = NULL;
    dr_error err;
    CHECK(!open_with("# keys\n\n0123456789abcdef\r\nanother-long-token-here  \n", 0600, &a, &err));
    CHECK(srv_auth_needed(a));
    CHECK(srv_auth_token_ok(a, "Bearer 0123456789abcdef") && srv_auth_token_ok(a, "bearer another-long-token-here"));
    CHECK(!srv_auth_token_ok(a, NULL) && !srv_auth_token_ok(a, "Bearer") &&
          !srv_auth_token_ok(a, "Bearer 0123456789abcde"));
    CHECK(!srv_auth_token_ok(a, "Bearer 0123456789abcdef0") && !srv_auth_token_ok(a, "Basic 0123456789abcdef"));
    CHECK(!srv_auth_token_ok(a, "Bearer # keys"));
    srv_auth_close(a);
}

TEST(bad_token_files) {
    srv_auth *a = NULL;
    dr_error err;
    CHECK(open_with("short\n", 0600, &a, &err) == DR_INVALID && strstr(err.text, "line 1"));
    CHECK(open_with("# only words\n", 0600, &a, &err) == DR_INVALID);
    CHECK(open_with("", 0600, &a, &err) == DR_INVALID);
    CHECK(open_with("0123456789abcdef\n", 0644, &a, &err) == DR_INVALID && strstr(err.text, "chmod"));
    err = (dr_error){0};
    CHECK(srv_auth_open("/nonexistent/tokens", "", false, &a, &err) == DR_NOT_FOUND);
}

TEST(on_loopback_a_foreign_host_or_origin_is_refused) {
    srv_auth *a = NULL;
    dr_error err = {0};
    CHECK(!srv_auth_open("", "My.Host, other", true, &a, &err));
    CHECK(!srv_auth_needed(a) && srv_auth_token_ok(a, NULL));
    CHECK(!srv_auth_origin_problem(a, "127.0.0.1:8650", NULL) &&
          !srv_auth_origin_problem(a, "localhost", "http://localhost:3000"));
    CHECK(!srv_auth_origin_problem(a, "my.host:1", NULL) && !srv_auth_origin_problem(a, "other", "http://my.host"));
    CHECK(!strcmp(srv_auth_origin_problem(a, "evil.example", NULL), "foreign_host"));
    CHECK(!strcmp(srv_auth_origin_problem(a, "host", NULL), "foreign_host"));
    CHECK(!strcmp(srv_auth_origin_problem(a, NULL, NULL), "foreign_host"));
    CHECK(!strcmp(srv_auth_origin_problem(a, "localhost", "http://evil.example"), "foreign_origin"));
    CHECK(!strcmp(srv_auth_origin_problem(a, "localhost", "null"), "foreign_origin"));
    srv_auth_close(a);
    CHECK(!srv_auth_open("", "", false, &a, &err));
    CHECK(!srv_auth_origin_problem(a, "anything.example", "http://else.example"));
    srv_auth_close(a);
}
