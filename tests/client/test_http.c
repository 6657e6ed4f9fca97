/* test_http.c - retries, time limits, checksums and the words of errors, against a responder in this process. */
#include "client/cli.h"
#include "client/http.h"
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/hash.h"
#include "tests/client/responder.h"
#include "tests/t.h"

static cli_answer a;
static dr_error err;
static cli_http *h;

static bool begin(responder *r, void (*answer)(responder *, int, const seen *, int)) {
    r->answer = answer;
    err = (dr_error){0};
    return responder_start(r) == 0 && cli_http_open(r->url, "secret", &h, NULL) == DR_OK;
}
static void end(responder *r) {
    cli_answer_clear(&a);
    cli_http_close(h);
    responder_stop(r);
}

static void busy_twice(responder *r, int fd, const seen *q, int i) {
    (void)r, (void)q;
    if (i < 2)
        reply_json(fd, i ? 429 : 503, "Retry-After: 0\r\n", "{\"code\":\"queue_full\",\"detail\":\"full\"}");
    else
        reply_json(fd, 200, "X-Derain-Model: derain/1\r\nServer-Timing: infer;dur=3\r\n", "{\"x\":1}");
}

TEST(retries_keep_the_idempotency_key) {
    responder r = {0};
    CHECK(begin(&r, busy_twice));
    CHECK(cli_http_do(h,
                      &(cli_call){.method = "POST",
                                  .path = "/v1/derain?x=1",
                                  .idem_key = "k1",
                                  .prefer = "wait=3",
                                  .accept = "image/*",
                                  .content_type = "image/png",
                                  .body = "abc",
                                  .body_len = 3},
                      &a, &err) == DR_OK);
    CHECK(a.status == 200 && a.tries == 3 && strcmp(a.body, "{\"x\":1}") == 0 && strcmp(a.model, "derain/1") == 0 &&
          strcmp(a.timing, "infer;dur=3") == 0);
    CHECK(r.n == 3);
    for (int i = 0; i < 3; i++) {
        CHECK(strcmp(r.log[i].idem, "k1") == 0 && strcmp(r.log[i].method, "POST") == 0 &&
              strcmp(r.log[i].path, "/v1/derain?x=1") == 0);
        CHECK(r.log[i].len == 3 && memcmp(r.log[i].body, "abc", 3) == 0 && strcmp(r.log[i].auth, "Bearer secret") == 0);
        CHECK(strcmp(r.log[i].prefer, "wait=3") == 0 && strcmp(r.log[i].accept, "image/*") == 0 &&
              strcmp(r.log[i].type, "image/png") == 0);
    }
    end(&r);
}

TEST(a_post_without_key_is_never_repeated) {
    responder r = {0};
    CHECK(begin(&r, busy_twice));
    CHECK(cli_http_do(h, &(cli_call){.method = "POST", .path = "/x", .body = "", .body_len = 0}, &a, &err) ==
          DR_UNAVAILABLE);
    CHECK(r.n == 1 && a.status == 503 && a.tries == 1);
    end(&r);
}

static void after_a_second(responder *r, int fd, const seen *q, int i) {
    (void)r, (void)q;
    if (i == 0)
        reply_json(fd, 503, "Retry-After: 1\r\n", "{}");
    else
        reply_json(fd, 200, "", "{}");
}
TEST(retry_after_is_honoured) {
    responder r = {0};
    CHECK(begin(&r, after_a_second));
    int64_t t = dr_clock_ns();
    CHECK(cli_http_do(h, &(cli_call){.path = "/x"}, &a, &err) == DR_OK && a.tries == 2);
    CHECK(dr_clock_ns() - t >= 990000000);
    cli_answer_clear(&a);
    r.n = 0; /* and it is not waited for beyond the deadline */
    t = dr_clock_ns();
    CHECK(cli_http_do(h, &(cli_call){.path = "/x", .deadline_ns = t + 500000000}, &a, &err) == DR_UNAVAILABLE &&
          a.tries == 1);
    CHECK(dr_clock_ns() - t < 800000000);
    end(&r);
}

static void breaks_off(responder *r, int fd, const seen *q, int i) {
    (void)r, (void)q;
    if (i == 0)
        say(fd, "HTTP/1.1 200 X\r\nContent-Type: image/png\r\nContent-Length: 100\r\n\r\nonly this");
    else if (i == 1)
        return; /* closed without a word */
    else
        reply(fd, 200, "image/png", "", "whole", 5);
}
TEST(a_broken_connection_is_tried_again) {
    responder r = {0};
    CHECK(begin(&r, breaks_off));
    CHECK(cli_http_do(h, &(cli_call){.path = "/x"}, &a, &err) == DR_OK);
    CHECK(a.tries == 3 && a.len == 5 && strcmp(a.body, "whole") == 0);
    end(&r);
}

static void always_breaks(responder *r, int fd, const seen *q, int i) {
    (void)r, (void)fd, (void)q, (void)i;
}
TEST(tries_come_to_an_end) {
    responder r = {0};
    CHECK(begin(&r, always_breaks));
    CHECK(cli_http_do(h, &(cli_call){.path = "/x", .tries_max = 2}, &a, &err) == DR_UNAVAILABLE &&
          strcmp(err.what, "cannot_reach") == 0);
    CHECK(r.n == 2 && cli_exit_code(err.code, &err, a.status) == CLI_UNREACHABLE);
    end(&r);
}

TEST(no_server_is_not_waited_for) {
    responder r = {0};
    CHECK(responder_start(&r) == 0);
    responder_stop(&r); /* its port is free now */
    err = (dr_error){0};
    CHECK(cli_http_open(r.url, NULL, &h, NULL) == DR_OK);
    int64_t t = dr_clock_ns();
    CHECK(cli_http_do(h, &(cli_call){.path = "/x"}, &a, &err) == DR_UNAVAILABLE &&
          strcmp(err.what, "cannot_reach") == 0 && a.tries == 1);
    CHECK(dr_clock_ns() - t < 2000000000);
    cli_answer_clear(&a);
    cli_http_close(h);
}

static void in_progress(responder *r, int fd, const seen *q, int i) {
    (void)r, (void)q;
    if (i < 2)
        reply_json(fd, 409, "Retry-After: 0\r\n",
                   "{\"code\":\"idempotency_in_progress\",\"retryable\":true,\"detail\":\"first one runs\"}");
    else
        reply(fd, 200, "image/png", "", "done", 4);
}
TEST(our_own_first_try_still_running_is_waited_for) {
    responder r = {0};
    CHECK(begin(&r, in_progress));
    CHECK(cli_http_do(h,
                      &(cli_call){.method = "POST", .path = "/v1/derain", .idem_key = "k", .body = "x", .body_len = 1},
                      &a, &err) == DR_OK &&
          a.tries == 3);
    end(&r);
}

static void digests(responder *r, int fd, const seen *q, int i) {
    (void)r, (void)i;
    char line[128], b64[64];
    uint8_t sha[32];
    dr_sha256 s;
    dr_sha256_init(&s);
    dr_sha256_add(&s, "picture", 7);
    dr_sha256_end(&s, sha);
    if (strstr(q->path, "bad")) sha[5] ^= 1;
    dr_base64(sha, 32, b64);
    snprintf(line, sizeof line, "Content-Digest: sha-256=:%s:\r\n", strstr(q->path, "junk") ? "????" : b64);
    reply(fd, 200, "image/png", line, "picture", 7);
}
TEST(damaged_answers_are_noticed) {
    responder r = {0};
    CHECK(begin(&r, digests));
    CHECK(cli_http_do(h, &(cli_call){.path = "/good"}, &a, &err) == DR_OK);
    cli_answer_clear(&a);
    CHECK(cli_http_do(h, &(cli_call){.method = "HEAD", .path = "/good"}, &a, &err) == DR_OK &&
          !a.len); /* of GET's body */
    cli_answer_clear(&a);
    CHECK(cli_http_do(h, &(cli_call){.path = "/bad", .tries_max = 2}, &a, &err) == DR_CORRUPT &&
          strcmp(err.what, "digest_mismatch") == 0 && a.tries == 2);
    cli_answer_clear(&a);
    CHECK(cli_http_do(h, &(cli_call){.path = "/junk", .tries_max = 1}, &a, NULL) == DR_CORRUPT);
    end(&r);
}

static void problems(responder *r, int fd, const seen *q, int i) {
    (void)r, (void)i;
    if (strstr(q->path, "large"))
        reply_json(fd, 413, "",
                   "{\"title\":\"Too large\",\"detail\":\"the picture has 60000x60000 "
                   "pixels\",\"code\":\"image_too_large\",\"limit\":100000000,\"actual\":3600000000,\"setting\":"
                   "\"pixels_max\"}");
    else if (strstr(q->path, "title"))
        reply_json(fd, 401, "", "{\"title\":\"Key needed\",\"code\":\"unauthorized\"}");
    else if (strstr(q->path, "html"))
        reply(fd, 404, "text/html", "", "<h1>nginx</h1>", 14);
    else if (strstr(q->path, "array"))
        reply_json(fd, 500, "", "[1,2]");
    else
        reply_json(fd, 504, "", "{\"detail\":\"not yet\",\"code\":\"deadline_exceeded\"}");
}
/* A body from a file, and a picture into one: each try from the start. */
static void damaged_then_whole(responder *r, int fd, const seen *q, int i) {
    static const char digest[] =
        "Content-Digest: sha-256=:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=:\r\n"; /* of abc */
    (void)r, (void)q;
    if (i == 0)
        reply_json(fd, 503, "Retry-After: 0\r\n", "{\"code\":\"draining\",\"detail\":\"a word\"}");
    else if (i == 1)
        reply(fd, 200, "image/png", digest, "a longer and damaged one", 24);
    else if (i == 2)
        reply(fd, 200, "image/png", digest, "abc", 3);
    else
        reply_json(fd, 200, "", "{\"no\":\"picture\"}");
}

TEST(files_go_out_and_come_in_anew_at_each_try) {
    responder r = {0};
    char in_name[] = "/tmp/derain-http-XXXXXX", out_name[] = "/tmp/derain-http-XXXXXX", got[64] = "";
    cli_file in = {mkstemp(in_name), 6}, out = {mkstemp(out_name), 99};
    CHECK(in.fd >= 0 && out.fd >= 0 && write(in.fd, "sender", 6) == 6 && begin(&r, damaged_then_whole));
    cli_call c = {.method = "POST", .path = "/x", .idem_key = "k", .send = &in, .keep = &out};
    CHECK_MSG(cli_http_do(h, &c, &a, &err) == DR_OK, "%s", err.text);
    CHECK(a.tries == 3 && a.kept && a.len == 0 && !*a.body && out.len == 3);
    CHECK(pread(out.fd, got, sizeof got, 0) == 3 && !memcmp(got, "abc", 3)); /* nothing of the longer one is left */
    for (int i = 0; i < 3; i++) CHECK(r.log[i].len == 6 && !memcmp(r.log[i].body, "sender", 6));
    cli_answer_clear(&a);
    CHECK(cli_http_do(h, &c, &a, &err) == DR_OK && !a.kept && a.len == 16 && out.len == 0); /* no picture: to memory */
    in.len = 9; /* it was longer when it was opened */
    err = (dr_error){0};
    c.tries_max = 1;
    cli_answer_clear(&a);
    CHECK(cli_http_do(h, &c, &a, &err) == DR_CONFLICT && strstr(err.text, "shorter"));
    close(in.fd);
    close(out.fd);
    unlink(in_name);
    unlink(out_name);
    end(&r);
}

TEST(problems_are_put_into_words) {
    responder r = {0};
    CHECK(begin(&r, problems));
    CHECK(cli_http_do(h, &(cli_call){.path = "/large"}, &a, &err) == DR_TOO_LARGE &&
          strcmp(err.what, "image_too_large") == 0);
    CHECK(strstr(err.text, "60000x60000") && strstr(err.text, "limit 100000000") &&
          strstr(err.text, "actual 3600000000") && strstr(err.text, "pixels_max"));
    CHECK(cli_exit_code(err.code, &err, a.status) == CLI_REFUSED);
    cli_answer_clear(&a);
    err = (dr_error){0};
    CHECK(cli_http_do(h, &(cli_call){.path = "/title"}, &a, &err) != DR_OK && strstr(err.text, "Key needed") &&
          cli_exit_code(err.code, &err, 401) == CLI_REFUSED);
    cli_answer_clear(&a);
    err = (dr_error){0};
    CHECK(cli_http_do(h, &(cli_call){.path = "/html"}, &a, &err) == DR_NOT_FOUND && strstr(err.text, "404"));
    cli_answer_clear(&a);
    err = (dr_error){0};
    CHECK(cli_http_do(h, &(cli_call){.path = "/array"}, &a, &err) == DR_INTERNAL &&
          cli_exit_code(err.code, &err, 500) == CLI_FAILED);
    cli_answer_clear(&a);
    err = (dr_error){0};
    CHECK(cli_http_do(h, &(cli_call){.path = "/late"}, &a, &err) == DR_BUSY &&
          cli_exit_code(err.code, &err, 504) == CLI_TIMED_OUT);
    end(&r);
}

static void slow(responder *r, int fd, const seen *q, int i) {
    (void)q, (void)i;
    for (int k = 0; k < 60 && !atomic_load(&r->stop); k++) poll(NULL, 0, 50);
    reply_json(fd, 200, "", "{}");
}
TEST(the_deadline_ends_a_call) {
    responder r = {0};
    CHECK(begin(&r, slow));
    int64_t t = dr_clock_ns();
    CHECK(cli_http_do(h, &(cli_call){.path = "/x", .deadline_ns = t + 300000000}, &a, &err) == DR_BUSY &&
          strcmp(err.what, "timed_out") == 0);
    CHECK(dr_clock_ns() - t < 2000000000 && cli_exit_code(err.code, &err, a.status) == CLI_TIMED_OUT);
    end(&r);
}

static void *stop_soon(void *arg) {
    (void)arg;
    poll(NULL, 0, 200);
    atomic_store(&cli_stop, 1);
    return NULL;
}
TEST(an_interrupt_ends_a_call) {
    responder r = {0};
    pthread_t t;
    CHECK(begin(&r, slow) && pthread_create(&t, NULL, stop_soon, NULL) == 0);
    int64_t start = dr_clock_ns();
    dr_status s = cli_http_do(h, &(cli_call){.path = "/x"}, &a, &err);
    pthread_join(t, NULL);
    atomic_store(&cli_stop, 0);
    CHECK(s == DR_CANCELLED && strcmp(err.what, "interrupted") == 0 && dr_clock_ns() - start < 2500000000);
    end(&r);
}

static void huge(responder *r, int fd, const seen *q, int i) {
    (void)r, (void)q, (void)i;
    char block[4096];
    memset(block, 'x', sizeof block);
    say(fd, "HTTP/1.1 200 X\r\nContent-Type: image/png\r\n\r\n");
    for (int k = 0; k < 64; k++)
        if (send(fd, block, sizeof block, MSG_NOSIGNAL) <= 0) return;
}
TEST(answers_have_a_limit) {
    responder r = {0};
    CHECK(begin(&r, huge));
    CHECK(cli_http_do(h, &(cli_call){.path = "/x", .answer_max = 10000}, &a, &err) == DR_TOO_LARGE && a.tries == 1);
    end(&r);
}

TEST(addresses_and_keys_are_checked) {
    const char *bad[] = {"", "host:80", "ftp://x", "http://", "http://a b", "file:///etc/passwd", "http:///x"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        dr_error e = {0};
        CHECK_MSG(cli_http_open(bad[i], NULL, &h, &e) == DR_INVALID && cli_exit_code(e.code, &e, 0) == CLI_USAGE, "%s",
                  bad[i]);
    }
    CHECK(cli_http_open("http://h", "a\r\nX: y", &h, NULL) == DR_INVALID &&
          cli_http_open("http://h", "", &h, NULL) == DR_INVALID);
    CHECK(cli_http_open("HTTPS://[::1]:8/", NULL, &h, NULL) == DR_OK &&
          strcmp(cli_http_url(h), "HTTPS://[::1]:8") == 0);
    cli_http_close(h);
    char *e = cli_escape("a b/ü&=~");
    CHECK(e && strcmp(e, "a%20b%2F%C3%BC%26%3D~") == 0);
    dr_free(e);
}
