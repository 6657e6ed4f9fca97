/* test_http_memory.c - each allocation that a request causes fails once: the answer may be an error, the daemon must go
 * on, and under a leak checker nothing may be lost. The daemon runs in a thread here, since the countdown is the
 * process's. */
#include "tests/server/daemon.h"
#include "tests/t.h"
#include <pthread.h>

static char dir[256], data_flag[320];
static pthread_t thread;
static int exit_code = -1, real_stderr;

static void *serve(void *arg) {
    char *argv[] = {"serve",
                    "--listen=127.0.0.1:0",
                    data_flag,
                    "--model=/dev/null",
                    "--free-min-bytes=0",
                    "--free-min-percent=0",
                    "--log-level=info"};
    (void)arg;
    exit_code = srv_cmd_serve(7, argv);
    return NULL;
}

/* The port stands in the log, which goes to stderr: a file for as long as the daemon runs. */
static int start(void) {
    char path[300], *text;
    sigset_t set;
    daemon_child log = {0};
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &set, NULL); /* it is sent to the daemon's thread */
    scratch_make(dir, sizeof dir);
    snprintf(path, sizeof path, "%s/log", dir);
    snprintf(data_flag, sizeof data_flag, "--data=%s/data", dir);
    int fd = open(path, O_CREAT | O_WRONLY | O_APPEND, 0600);
    real_stderr = dup(2);
    dup2(fd, 2);
    close(fd);
    setenv("DERAIN_DOUBLE_MS", "0", 1);
    if (pthread_create(&thread, NULL, serve, NULL)) return 0;
    snprintf(log.log, sizeof log.log, "%s", path);
    for (int i = 0; i < 1000; i++, poll(NULL, 0, 20)) {
        text = daemon_log(&log);
        char *at = strstr(text, "listening on http://127.0.0.1:");
        int port = at && strchr(at, '\n') ? (int)strtol(at + 30, NULL, 10) : 0;
        free(text);
        if (port) return port;
    }
    return 0;
}

static bool is_error(int status) {
    return status == 0 || status == 500 || status == 503 || status == 507;
}

static uint8_t png[9000];

/* The n-th allocation of the process from here on fails, for each n until one gets by without. Others allocate too
 * (worker, janitor), so a failure may hit them as well: then the job fails, or ends a little later. */
static bool every_allocation(int port, const char *method, const char *path, const char *headers, const void *body,
                             size_t len) {
    for (long n = 1; n < 2000; n++) {
        dr_alloc_fail_after(n, false);
        answer a = ask(port, method, path, headers, body, len);
        bool reached = dr_alloc_count() >= n;
        dr_alloc_fail_after(0, false);
        bool good = a.status == 200 || a.status == 202;
        if (!good && !is_error(a.status)) printf("# allocation %ld: %d %s\n", n, a.status, a.body ? a.body : "");
        if (!good && (!reached || !is_error(a.status))) return answer_done(&a), false;
        answer_done(&a);
        if (!reached) return n > 3;
    }
    return false;
}

TEST(requests_survive_every_failed_allocation) {
    int port = start();
    CHECK(port);
    size_t n = make_png(png, 32, 32, 2, 2000, NULL);
    CHECK(every_allocation(port, "GET", "/v1/version", NULL, NULL, 0));
    CHECK(every_allocation(port, "POST", "/v1/derain", "Prefer: respond-async\r\n", png, n));
    CHECK(every_allocation(port, "POST", "/v1/derain", NULL, png, n));
    CHECK(every_allocation(port, "GET", "/v1/jobs?limit=3", NULL, NULL, 0));
    CHECK(every_allocation(port, "GET", "/metrics", NULL, NULL, 0));
    answer a = ask(port, "POST", "/v1/derain", NULL, png, n);
    CHECK_MSG(a.status == 200 && a.len == n + 9, "%d", a.status);
    answer_done(&a);
    for (int i = 0; i < 100; i++) { /* no job is left over in a state that does not end */
        a = get(port, "/v1/jobs?state=queued,running");
        bool empty = has(&a, "\"items\":[]");
        answer_done(&a);
        if (empty) break;
        CHECK(i < 99);
        poll(NULL, 0, 100);
    }
    pthread_kill(thread, SIGTERM); // NOLINT(bugprone-bad-signal-to-kill-thread): the daemon's loop takes it
    pthread_join(thread, NULL);
    dup2(real_stderr, 2); /* a sanitizer's report must be seen */
    CHECK_MSG(exit_code == 0, "%d", exit_code);
    scratch_rm(dir);
}
