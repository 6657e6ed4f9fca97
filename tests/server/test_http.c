/* test_http.c - the HTTP daemon over real sockets: the seven framing attacks, early refusals, slow and leaving clients,
 * waiting and stopping. The engine is a double; everything else is what ships. */
#include "tests/server/daemon.h"
#include "tests/t.h"

static uint8_t png[300000];
static const char *const none[] = {NULL};

/* One daemon for the cases that do not mind; started by the first. */
static daemon_child shared;
static bool up(void) {
    if (shared.pid) return true;
    daemon_dir(&shared);
    setenv("DERAIN_DOUBLE_MS", "20", 1);
    return daemon_start(&shared, none);
}

/* --- framing --- */

/* Sends the bytes, which end with a smuggled "GET /smuggled", and expects one 400 and the end. */
static bool refused_whole(const char *bytes) {
    int fd = dial(shared.port);
    send_all(fd, bytes, strlen(bytes));
    answer a = receive(fd);
    bool ok =
        a.status == 400 && strstr(a.body, "bad_framing") && strstr(a.head, "Connection: close") && closed_by_peer(fd);
    if (!ok) printf("# %d %s\n", a.status, a.head);
    answer_done(&a);
    close(fd);
    return ok;
}

#define NEXT "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
#define POST "POST /v1/derain HTTP/1.1\r\nHost: localhost\r\n"

TEST(framing_attacks_get_one_400_and_the_smuggled_request_is_not_run) {
    CHECK(up());
    CHECK(refused_whole(POST "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" NEXT));
    CHECK(refused_whole(POST "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n" NEXT));
    CHECK(refused_whole(POST "Content-Length: 0\r\nContent-Length: 46\r\n\r\n" NEXT));
    CHECK(refused_whole(POST "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc" NEXT));
    CHECK(refused_whole(POST "Content-Length : 46\r\n\r\n" NEXT));
    CHECK(refused_whole(POST "Transfer-Encoding: gzip\r\n\r\n" NEXT));
    CHECK(refused_whole(POST "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" NEXT));
    CHECK(refused_whole(POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" NEXT));
    char *log = daemon_log(&shared);
    bool run = strstr(log, "smuggled") != NULL;
    free(log);
    CHECK(!run);
}

TEST(a_post_without_length_is_411_and_the_connection_ends) {
    CHECK(up());
    int fd = dial(shared.port);
    CHECK(send_all(fd, POST "\r\n", strlen(POST) + 2));
    answer a = receive(fd);
    CHECK(a.status == 411 && has(&a, "length_required"));
    answer_done(&a);
    CHECK(closed_by_peer(fd));
    close(fd);
}

TEST(paths_with_nul_dots_or_hidden_slashes_are_refused) {
    static const char *const bad[] = {"/v1/jobs%00/x", "/v1/../metrics", "/v1%2Fjobs", "/v1/jobs/%2e%2e",
                                      "/v1/jobs?limit=%00"};
    CHECK(up());
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        answer a = get(shared.port, bad[i]);
        CHECK_MSG(a.status == 400 && has(&a, "bad_path"), "%s: %d", bad[i], a.status);
        answer_done(&a);
    }
}

TEST(no_host_is_400_a_foreign_one_403) {
    CHECK(up());
    int fd = dial(shared.port);
    CHECK(send_all(fd, "GET / HTTP/1.1\r\n\r\n", 18));
    answer a = receive(fd);
    CHECK(a.status == 400);
    answer_done(&a);
    close(fd);
    fd = dial(shared.port);
    CHECK(send_all(fd, "GET /v1/version HTTP/1.1\r\nHost: evil.example\r\n\r\n", 49));
    a = receive(fd);
    CHECK(a.status == 403 && has(&a, "foreign_host"));
    answer_done(&a);
    close(fd);
    a = ask(shared.port, "GET", "/v1/version", "Origin: http://evil.example\r\n", NULL, 0);
    CHECK(a.status == 403 && has(&a, "foreign_origin"));
    answer_done(&a);
    a = ask(shared.port, "GET", "/v1/version", "Origin: http://localhost:3000\r\n", NULL, 0);
    CHECK(a.status == 200);
    answer_done(&a);
}

/* --- ordinary life --- */

TEST(a_picture_goes_in_and_comes_out) {
    CHECK(up());
    size_t n = make_png(png, 64, 48, 2, 5000, NULL);
    answer a = ask(shared.port, "POST", "/v1/derain", NULL, png, n);
    CHECK_MSG(a.status == 200, "%d %s", a.status, a.body);
    CHECK(a.len == n + 9 && !memcmp(a.body, png, n));
    CHECK(!strcmp(header_of(&a, "Content-Type"), "image/png") && *header_of(&a, "Server-Timing"));
    CHECK(!strcmp(header_of(&a, "X-Derain-Model"), "derain/1") && *header_of(&a, "ETag") == '"');
    CHECK(!strncmp(header_of(&a, "Content-Digest"), "sha-256=:", 9));
    answer_done(&a);
}

TEST(chunked_and_form_bodies_work_too) {
    CHECK(up());
    char head[400], form[9000];
    size_t n = make_png(png, 64, 48, 2, 5000, NULL);
    int fd = dial(shared.port);
    CHECK(send_all(fd, POST "Transfer-Encoding: chunked\r\n\r\n", strlen(POST) + 30));
    for (size_t i = 0; i < n; i += 777) {
        size_t k = n - i < 777 ? n - i : 777;
        int h = snprintf(head, sizeof head, "%zx\r\n", k);
        CHECK(send_all(fd, head, (size_t)h) && send_all(fd, png + i, k) && send_all(fd, "\r\n", 2));
    }
    CHECK(send_all(fd, "0\r\n\r\n", 5));
    answer a = receive(fd);
    CHECK_MSG(a.status == 200 && a.len == n + 9, "%d %s", a.status, a.body);
    answer_done(&a);
    close(fd);
    int f = snprintf(form, sizeof form, "--XX\r\nContent-Disposition: form-data; name=\"image\"\r\n\r\n");
    memcpy(form + f, png, n);
    f += (int)n;
    f += snprintf(form + f, sizeof form - (size_t)f, "\r\n--XX--\r\n");
    a = ask(shared.port, "POST", "/v1/derain", "Content-Type: multipart/form-data; boundary=XX\r\n", form, (size_t)f);
    CHECK_MSG(a.status == 200 && a.len == n + 9, "%d %s", a.status, a.body);
    answer_done(&a);
}

TEST(many_requests_on_one_connection) {
    CHECK(up());
    char head[200];
    int fd = dial(shared.port);
    size_t n = make_png(png, 32, 32, 0, 100, NULL);
    for (int i = 0; i < 5; i++) {
        int h = snprintf(head, sizeof head, POST "X-Request-Id: mine-%d\r\nContent-Length: %zu\r\n\r\n", i, n);
        CHECK(send_all(fd, head, (size_t)h) && send_all(fd, png, n));
        answer a = receive(fd);
        snprintf(head, sizeof head, "mine-%d", i);
        CHECK(a.status == 200 && !strcmp(header_of(&a, "X-Request-Id"), head));
        answer_done(&a);
        CHECK(send_all(fd, "GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n", 46));
        a = receive(fd);
        CHECK(a.status == 200);
        answer_done(&a);
    }
    close(fd);
}

TEST(a_trace_goes_on_with_a_new_span) {
    CHECK(up());
    answer a = ask(shared.port, "GET", "/v1/version",
                   "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n", NULL, 0);
    const char *t = header_of(&a, "traceparent");
    CHECK(!strncmp(t, "00-4bf92f3577b34da6a3ce929d0e0e4736-", 36) && !strstr(t, "00f067aa0ba902b7"));
    answer_done(&a);
}

TEST(accept_decides_the_answer) {
    CHECK(up());
    size_t n = make_png(png, 32, 32, 2, 100, NULL), rgba = 0;
    answer a = ask(shared.port, "POST", "/v1/derain", "Accept: application/json\r\n", png, n);
    CHECK(a.status == 200 && has(&a, "\"state\":\"succeeded\"") && *header_of(&a, "Location"));
    answer_done(&a);
    a = ask(shared.port, "POST", "/v1/derain", "Accept: image/webp\r\n", png, n);
    CHECK(a.status == 406 && has(&a, "not_acceptable") && has(&a, "image/png"));
    answer_done(&a);
    a = ask(shared.port, "POST", "/v1/derain", "Accept: image/webp, image/jpeg;q=0.1\r\n", png, n);
    CHECK(a.status == 200 && !strcmp(header_of(&a, "Content-Type"), "image/jpeg"));
    answer_done(&a);
    a = ask(shared.port, "POST", "/v1/derain?format=jpeg", "Accept: image/png\r\n", png, n);
    CHECK(a.status == 406);
    answer_done(&a);
    rgba = make_png(png, 32, 32, 6, 100, NULL);
    a = ask(shared.port, "POST", "/v1/derain?format=jpeg", NULL, png, rgba);
    CHECK(a.status == 406 && has(&a, "alpha_jpeg"));
    answer_done(&a);
}

TEST(parameters_must_be_known_once_and_right) {
    static const struct {
        const char *query, *code;
    } c[] = {{"?fromat=png", "unknown_parameter"},          {"?depth=12", "invalid_parameter"},
             {"?depth=8&depth=16", "invalid_parameter"},    {"?format=gif", "invalid_parameter"},
             {"?metadata=", "invalid_parameter"},           {"?exact=0", "invalid_parameter"},
             {"?format=jpeg&depth=16", "invalid_parameter"}};
    CHECK(up());
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        char path[320];
        snprintf(path, sizeof path, "/v1/derain%s", c[i].query);
        answer a = ask(shared.port, "POST", path, NULL, "x", 1);
        CHECK_MSG(a.status == 422 && has(&a, c[i].code) && has(&a, "\"pointer\":\"/query/"), "%s: %d %s", path,
                  a.status, a.body);
        answer_done(&a);
    }
    answer a = ask(shared.port, "POST", "/v1/derain?model=other", NULL, "x", 1);
    CHECK(a.status == 404 && has(&a, "model_not_found"));
    answer_done(&a);
    a = get(shared.port, "/v1/jobs?limit=0");
    CHECK(a.status == 422);
    answer_done(&a);
}

/* --- refusals --- */

TEST(bad_pictures) {
    CHECK(up());
    size_t n = make_png(png, 64, 48, 2, 5000, NULL);
    answer a = ask(shared.port, "POST", "/v1/derain", NULL, "", 0);
    CHECK(a.status == 400 && has(&a, "empty_body"));
    answer_done(&a);
    a = ask(shared.port, "POST", "/v1/derain", "Content-Type: image/png\r\n", "this is no picture at all", 25);
    CHECK(a.status == 415 && has(&a, "unsupported_format"));
    answer_done(&a);
    a = ask(shared.port, "POST", "/v1/derain", NULL, png, n / 2);
    CHECK(a.status == 422 && has(&a, "image_corrupt"));
    answer_done(&a);
    n = make_png(png, 60000, 60000, 2, 5000, NULL);
    a = ask(shared.port, "POST", "/v1/derain", NULL, png, n);
    CHECK_MSG(a.status == 413 && has(&a, "image_too_large") && has(&a, "\"limit\":") && has(&a, "\"setting\":\""), "%s",
              a.body);
    answer_done(&a);
    n = make_png(png, 8, 64, 2, 100, NULL);
    a = ask(shared.port, "POST", "/v1/derain", NULL, png, n);
    CHECK(a.status == 422 && has(&a, "image_too_small"));
    answer_done(&a);
    n = make_png(png, 64, 64, 2, 100, "x\0fail-me");
    a = ask(shared.port, "POST", "/v1/derain", "Content-Encoding: gzip\r\n", png, n);
    CHECK(a.status == 415 && has(&a, "unsupported_encoding"));
    answer_done(&a);
}

TEST(a_failed_job_and_a_failed_request_tell_the_same) {
    CHECK(up());
    size_t n = make_png(png, 64, 64, 2, 100, "fail-me");
    answer a = ask(shared.port, "POST", "/v1/derain", NULL, png, n);
    CHECK_MSG(a.status == 422 && has(&a, "image_corrupt") && has(&a, "\"job\":\"job_"), "%s", a.body);
    char path[320];
    snprintf(path, sizeof path, "/v1/jobs/%s", member(&a, "job"));
    answer_done(&a);
    a = get(shared.port, path);
    CHECK(a.status == 200 && has(&a, "\"state\":\"failed\"") && has(&a, "\"code\":\"image_corrupt\"") &&
          has(&a, "\"status\":422"));
    answer_done(&a);
}

TEST(pictures_that_were_computed_again_are_counted) {
    CHECK(up());
    answer a = get(shared.port, "/metrics");
    CHECK(has(&a, "derain_range_reruns_total 0\n"));
    answer_done(&a);
    for (int i = 0; i < 3; i++) {
        size_t n = make_png(png, 64, 64, 2, 100, i == 1 ? "run-me-once" : "run-me-twice");
        a = ask(shared.port, "POST", "/v1/derain", NULL, png, n);
        CHECK(a.status == 200);
        answer_done(&a);
    }
    a = get(shared.port, "/metrics");
    CHECK(has(&a, "derain_range_reruns_total 2\n"));
    answer_done(&a);
}

TEST(a_body_is_refused_before_it_has_been_sent) {
    CHECK(up());
    int fd = dial(shared.port);
    char text[400];
    int n = snprintf(text, sizeof text, POST "Content-Length: 268435457\r\n\r\n");
    CHECK(send_all(fd, text, (size_t)n)); /* over the limit by its length: refused with the header alone */
    answer a = receive(fd);
    CHECK(a.status == 413 && has(&a, "body_too_large") && has(&a, "body_max_bytes"));
    answer_done(&a);
    close(fd);
    fd = dial(shared.port);
    n = snprintf(text, sizeof text, POST "Content-Length: 100000000\r\nExpect: 100-continue\r\n\r\n");
    CHECK(send_all(fd, text, (size_t)n));
    a = receive(fd);
    CHECK(a.status == 100);
    answer_done(&a);
    memset(text, 'x', 200); /* 200 bytes of 100 MB are enough to see that this is no picture */
    CHECK(send_all(fd, text, 200));
    a = receive(fd);
    CHECK_MSG(a.status == 415 && has(&a, "unsupported_format") && strstr(a.head, "Connection: close"), "%d", a.status);
    answer_done(&a);
    close(fd);
}

TEST(digests_are_checked) {
    CHECK(up());
    size_t n = make_png(png, 32, 32, 2, 100, NULL);
    uint8_t sha[32];
    char b64[48], line[120];
    dr_sha256 h;
    dr_sha256_init(&h);
    dr_sha256_add(&h, png, n);
    dr_sha256_end(&h, sha);
    dr_base64(sha, 32, b64);
    snprintf(line, sizeof line, "Content-Digest: sha-256=:%s:\r\n", b64);
    answer a = ask(shared.port, "POST", "/v1/derain", line, png, n);
    CHECK(a.status == 200);
    answer_done(&a);
    sha[0] ^= 1;
    dr_base64(sha, 32, b64);
    snprintf(line, sizeof line, "Content-Digest: sha-256=:%s:\r\n", b64);
    a = ask(shared.port, "POST", "/v1/derain", line, png, n);
    CHECK(a.status == 422 && has(&a, "digest_mismatch"));
    answer_done(&a);
    a = ask(shared.port, "POST", "/v1/derain", "Content-Digest: sha-256=:xx:\r\n", png, n);
    CHECK(a.status == 400 && has(&a, "bad_digest"));
    answer_done(&a);
}

TEST(small_bodies_are_limited_and_strict) {
    CHECK(up());
    static char big[70000];
    memset(big, ' ', sizeof big);
    const char *path = "/v1/jobs/job_01ARZ3NDEKTSV4RRFFQ69G5FAV/cancel";
    answer a = ask(shared.port, "POST", path, NULL, big, sizeof big);
    CHECK(a.status == 413 && has(&a, "body_too_large"));
    answer_done(&a);
    a = ask(shared.port, "POST", path, NULL, "{\"reson\":\"x\"}", 13);
    CHECK(a.status == 422 && has(&a, "unknown_member"));
    answer_done(&a);
    a = ask(shared.port, "POST", path, NULL, "{\"reason\":5}", 12);
    CHECK(a.status == 422 && has(&a, "invalid_member"));
    answer_done(&a);
    a = ask(shared.port, "POST", path, NULL, "[1]", 3);
    CHECK(a.status == 400 && has(&a, "bad_json"));
    answer_done(&a);
    a = ask(shared.port, "POST", path, NULL, "{}", 2);
    CHECK(a.status == 404 && has(&a, "job_not_found"));
    answer_done(&a);
}

TEST(methods_and_paths) {
    CHECK(up());
    answer a = ask(shared.port, "PUT", "/v1/derain", NULL, "x", 1);
    CHECK(a.status == 405 && !strcmp(header_of(&a, "Allow"), "POST"));
    answer_done(&a);
    a = get(shared.port, "/v1/nothing");
    CHECK(a.status == 404 && has(&a, "\"code\":\"not_found\""));
    answer_done(&a);
    a = get(shared.port, "/v1/jobs/job_01ARZ3NDEKTSV4RRFFQ69G5FAV");
    CHECK(a.status == 404 && has(&a, "job_not_found"));
    answer_done(&a);
    a = get(shared.port, "/v1/jobs/xyz");
    CHECK(a.status == 404);
    answer_done(&a);
    int fd = dial(shared.port);
    CHECK(send_all(
        fd, "HEAD /v1/limits HTTP/1.1\r\nHost: localhost\r\n\r\nGET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n",
        91));
    char head[4000] = "";
    size_t n = 0;
    while (n + 1 < sizeof head && !strstr(head, "\r\n\r\n") && recv(fd, head + n, 1, 0) == 1) head[++n] = 0;
    CHECK(strstr(head, "200") && strstr(head, "Content-Length: "));
    a = receive(fd); /* no body in between */
    CHECK(a.status == 200 && has(&a, "live"));
    answer_done(&a);
    close(fd);
}

TEST(every_document_is_there) {
    static const char *const paths[] = {"/",
                                        "/openapi.json",
                                        "/metrics",
                                        "/v1/models",
                                        "/v1/models/derain",
                                        "/v1/models/derain/versions/1",
                                        "/v1/limits",
                                        "/v1/version",
                                        "/v1/jobs",
                                        "/health/live",
                                        "/health/ready?verbose=1",
                                        "/v2/health/live",
                                        "/v2/health/ready",
                                        "/v2/models/derain/ready",
                                        "/errors/queue-full"};
    CHECK(up());
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        answer a = get(shared.port, paths[i]);
        CHECK_MSG(a.status == 200 && a.len > 10, "%s: %d", paths[i], a.status);
        answer_done(&a);
    }
    answer a = get(shared.port, "/v1/models/derain/versions/1/card");
    CHECK(a.status == 404);
    answer_done(&a);
    a = get(shared.port, "/errors/nonsense");
    CHECK(a.status == 404);
    answer_done(&a);
}

/* --- time --- */

TEST(the_shared_daemon_stops_in_order) {
    CHECK(up());
    CHECK(daemon_stop(&shared, SIGTERM) == 0);
    scratch_rm(shared.dir);
}

TEST(slow_headers_and_slow_bodies_are_cut_off) {
    static const char *const flags[] = {"--header-timeout-s=1", "--body-grace-s=1", "--body-rate-min=8K", NULL};
    daemon_child d;
    daemon_dir(&d);
    CHECK(daemon_start(&d, flags));
    int64_t t0 = dr_clock_ns();
    int fd = dial(d.port), body = dial(d.port);
    CHECK(send_all(body, POST "Content-Length: 100000\r\n\r\n", strlen(POST) + 26));
    bool cut = false; /* a byte every 100 ms would keep libmicrohttpd's own time-out away for ever */
    for (int i = 0; i < 60 && !cut; i++) {
        char c;
        cut = !send_all(fd, "G", 1) || recv(fd, &c, 1, MSG_DONTWAIT) == 0;
        if (i < 15) send_all(body, "x", 1);
        poll(NULL, 0, 100);
    }
    double s = (double)(dr_clock_ns() - t0) / 1e9;
    CHECK_MSG(cut && s < 5, "%.1f s", s);
    close(fd);
    answer a = receive(body);
    CHECK_MSG(a.status == 408 && has(&a, "body_too_slow"), "%d", a.status);
    answer_done(&a);
    CHECK(closed_by_peer(body));
    close(body);
    CHECK(daemon_stop(&d, SIGTERM) == 0);
    scratch_rm(d.dir);
}

static char *only_job(int port, char ret[256]) {
    answer a = get(port, "/v1/jobs");
    snprintf(ret, 256, "%s", member(&a, "id"));
    answer_done(&a);
    return ret;
}

TEST(a_client_that_leaves_takes_its_job_with_it) {
    daemon_child d;
    char head[200], id[256], path[320];
    setenv("DERAIN_DOUBLE_MS", "10000", 1);
    daemon_dir(&d);
    CHECK(daemon_start(&d, none));
    size_t n = make_png(png, 64, 48, 2, 500, NULL);
    int fd = dial(d.port);
    int h = snprintf(head, sizeof head, POST "Content-Length: %zu\r\n\r\n", n);
    CHECK(send_all(fd, head, (size_t)h) && send_all(fd, png, n));
    for (int i = 0; i < 200 && !*only_job(d.port, id); i++) poll(NULL, 0, 10);
    snprintf(path, sizeof path, "/v1/jobs/%s?wait=5&if_state_not=queued", id);
    answer a = get(d.port, path);
    CHECK_MSG(has(&a, "\"state\":\"running\""), "%s", a.body);
    answer_done(&a);
    close(fd);
    snprintf(path, sizeof path, "/v1/jobs/%s?wait=5", id);
    int64_t t0 = dr_clock_ns();
    a = get(d.port, path);
    CHECK_MSG(has(&a, "\"state\":\"cancelled\""), "%s", a.body);
    CHECK((double)(dr_clock_ns() - t0) / 1e9 < 4);
    answer_done(&a);
    a = get(d.port, "/metrics");
    CHECK(has(&a, "derain_clients_left_total 1\n"));
    answer_done(&a);
    CHECK(daemon_stop(&d, SIGTERM) == 0);
    scratch_rm(d.dir);
}

TEST(waiting_is_bounded_and_a_cancel_is_quick) {
    static const char *const flags[] = {"--sync-wait-max-s=1", NULL};
    daemon_child d;
    char path[320];
    setenv("DERAIN_DOUBLE_MS", "10000", 1);
    daemon_dir(&d);
    CHECK(daemon_start(&d, flags));
    size_t n = make_png(png, 64, 48, 2, 500, NULL);
    answer a = ask(d.port, "POST", "/v1/derain", NULL, png, n);
    CHECK_MSG(a.status == 504 && has(&a, "deadline_exceeded") && has(&a, "\"job\":\"job_"), "%d %s", a.status, a.body);
    snprintf(path, sizeof path, "/v1/jobs/%s/cancel", member(&a, "job"));
    answer_done(&a);
    a = ask(d.port, "POST", "/v1/derain", "Prefer: wait=0\r\n", png, n);
    CHECK(a.status == 202 && *header_of(&a, "Location") && *header_of(&a, "Retry-After") &&
          !strcmp(header_of(&a, "Preference-Applied"), "wait=0"));
    answer_done(&a);
    a = ask(d.port, "POST", "/v1/derain", "Prefer: respond-async, return=minimal\r\n", png, n);
    CHECK(a.status == 202 && a.len == 0 && *header_of(&a, "Location"));
    answer_done(&a);
    int64_t t0 = dr_clock_ns();
    a = ask(d.port, "POST", path, NULL, "{\"reason\":\"no longer wanted\"}", 29);
    CHECK_MSG((a.status == 202 || a.status == 200) && has(&a, "\"cancelled\":true"), "%d %s", a.status, a.body);
    answer_done(&a);
    size_t end = strlen(path) - 7;
    snprintf(path + end, sizeof path - end, "?wait=3");
    a = get(d.port, path);
    CHECK(has(&a, "\"state\":\"cancelled\"") && (double)(dr_clock_ns() - t0) / 1e9 < 2);
    answer_done(&a);
    CHECK(daemon_stop(&d, SIGTERM) == 0);
    scratch_rm(d.dir);
}

TEST(a_full_queue_is_429) {
    static const char *const flags[] = {"--queue-max=2", NULL};
    daemon_child d;
    setenv("DERAIN_DOUBLE_MS", "5000", 1);
    daemon_dir(&d);
    CHECK(daemon_start(&d, flags));
    size_t n = make_png(png, 64, 48, 2, 500, NULL);
    int accepted = 0, full = 0;
    for (int i = 0; i < 6; i++) {
        answer a = ask(d.port, "POST", "/v1/derain", "Prefer: respond-async\r\n", png, n);
        accepted += a.status == 202;
        if (a.status == 429) {
            full++;
            CHECK(has(&a, "queue_full") && has(&a, "queue_max") && *header_of(&a, "Retry-After"));
        }
        answer_done(&a);
        poll(NULL, 0, 50); /* the first leaves the queue for the worker */
    }
    CHECK_MSG(accepted == 3 && full == 3, "%d accepted, %d refused", accepted, full);
    CHECK(daemon_stop(&d, SIGTERM) == 0);
    scratch_rm(d.dir);
}

TEST(idempotency_keys) {
    daemon_child d;
    char head[300], first[1024];
    setenv("DERAIN_DOUBLE_MS", "700", 1);
    daemon_dir(&d);
    CHECK(daemon_start(&d, none));
    size_t n = make_png(png, 64, 48, 2, 500, NULL);
    int fd = dial(d.port);
    int h = snprintf(head, sizeof head, POST "Idempotency-Key: k1\r\nContent-Length: %zu\r\n\r\n", n);
    CHECK(send_all(fd, head, (size_t)h) && send_all(fd, png, n));
    poll(NULL, 0, 250);
    answer a = ask(d.port, "POST", "/v1/derain", "Idempotency-Key: k1\r\n", png, n);
    CHECK_MSG(a.status == 409 && has(&a, "idempotency_in_progress"), "%d %s", a.status, a.body);
    answer_done(&a);
    a = receive(fd);
    CHECK(a.status == 200);
    snprintf(first, sizeof first, "%s", header_of(&a, "Content-Disposition") + 22);
    answer_done(&a);
    close(fd);
    a = ask(d.port, "POST", "/v1/derain", "Idempotency-Key: k1\r\n", png, n);
    CHECK(a.status == 200 && !strcmp(header_of(&a, "Idempotent-Replayed"), "true"));
    CHECK(!strcmp(header_of(&a, "Content-Disposition") + 22, first));
    answer_done(&a);
    a = ask(d.port, "POST", "/v1/derain?depth=8", "Idempotency-Key: k1\r\n", png, n);
    CHECK(a.status == 422 && has(&a, "idempotency_key_reused"));
    answer_done(&a);
    n = make_png(png, 64, 48, 2, 501, NULL);
    a = ask(d.port, "POST", "/v1/derain", "Idempotency-Key: k1\r\n", png, n);
    CHECK(a.status == 422 && has(&a, "idempotency_key_reused"));
    answer_done(&a);
    a = get(d.port, "/metrics");
    CHECK(has(&a, "derain_jobs_accepted_total 1\n"));
    answer_done(&a);
    CHECK(daemon_stop(&d, SIGTERM) == 0);
    scratch_rm(d.dir);
}

TEST(a_stop_answers_who_waits_and_the_next_life_goes_on) {
    static const char *const flags[] = {"--drain-s=1", NULL};
    daemon_child d;
    char head[200], path[320];
    setenv("DERAIN_DOUBLE_MS", "4000", 1);
    daemon_dir(&d);
    CHECK(daemon_start(&d, flags));
    size_t n = make_png(png, 64, 48, 2, 500, NULL);
    int fd = dial(d.port), poller = dial(d.port);
    int h = snprintf(head, sizeof head, POST "Content-Length: %zu\r\n\r\n", n);
    CHECK(send_all(fd, head, (size_t)h) && send_all(fd, png, n));
    poll(NULL, 0, 400);
    kill(d.pid, SIGTERM);
    poll(NULL, 0, 200);
    CHECK(send_all(poller, "GET /health/ready HTTP/1.1\r\nHost: localhost\r\n\r\n", 47));
    answer a = receive(poller); /* questions are answered while it drains */
    CHECK_MSG(a.status == 503 && has(&a, "draining"), "%d", a.status);
    answer_done(&a);
    a = ask(d.port, "POST", "/v1/derain", NULL, png, n);
    CHECK_MSG(a.status == 503 && has(&a, "draining") && *header_of(&a, "Retry-After"), "%d", a.status);
    answer_done(&a);
    a = receive(fd);
    CHECK_MSG(a.status == 503 && has(&a, "\"job\":\"job_"), "%d %s", a.status, a.body);
    snprintf(path, sizeof path, "/v1/jobs/%s?wait=20", member(&a, "job"));
    answer_done(&a);
    close(fd);
    close(poller);
    int st = 0;
    CHECK(waitpid(d.pid, &st, 0) == d.pid && WIFEXITED(st) && WEXITSTATUS(st) == 0);
    setenv("DERAIN_DOUBLE_MS", "10", 1);
    CHECK(daemon_start(&d, flags));
    a = get(d.port, path);
    CHECK_MSG(has(&a, "\"state\":\"succeeded\"") && has(&a, "\"attempt\":1"), "%s", a.body);
    answer_done(&a);
    CHECK(daemon_stop(&d, SIGTERM) == 0);
    scratch_rm(d.dir);
}

TEST(tokens_guard_everything_but_health) {
    daemon_child d;
    char path[320], flag[340];
    daemon_dir(&d);
    snprintf(path, sizeof path, "%s/tokens", d.dir);
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    CHECK(fd >= 0 && write(fd, "0123456789abcdef\n", 17) == 17);
    close(fd);
    snprintf(flag, sizeof flag, "--token-file=%s", path);
    const char *flags[] = {flag, NULL};
    setenv("DERAIN_DOUBLE_MS", "1", 1);
    CHECK(daemon_start(&d, flags));
    size_t n = make_png(png, 64, 48, 2, 500, NULL);
    answer a = ask(d.port, "POST", "/v1/derain", NULL, png, n);
    CHECK(a.status == 401 && !strcmp(header_of(&a, "WWW-Authenticate"), "Bearer"));
    answer_done(&a);
    a = ask(d.port, "POST", "/v1/derain", "Authorization: Bearer 0123456789abcdeX\r\n", png, n);
    CHECK(a.status == 401);
    answer_done(&a);
    a = ask(d.port, "POST", "/v1/derain", "Authorization: Bearer 0123456789abcdef\r\n", png, n);
    CHECK(a.status == 200);
    answer_done(&a);
    a = get(d.port, "/health/ready");
    CHECK(a.status == 200);
    answer_done(&a);
    a = get(d.port, "/v1/jobs");
    CHECK(a.status == 401);
    answer_done(&a);
    CHECK(daemon_stop(&d, SIGTERM) == 0);
    scratch_rm(d.dir);
}
