/* daemon.h - for tests: a real daemon (with the engine double) in a child process, and a client made of plain sockets,
 * so that a test decides about every byte on the wire. */
#ifndef TESTS_SERVER_DAEMON_H
#define TESTS_SERVER_DAEMON_H

#include "core/base/clock.h"
#include "core/base/hash.h"
#include "server/commands.h"
#include "tests/db/util.h"
#include "tests/server/engine_double.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

typedef struct daemon_child {
    char dir[256], log[300];
    pid_t pid;
    int port;
} daemon_child;

static inline char *daemon_log(const daemon_child *d) { /* caller frees */
    char *text = calloc(1, 1 << 20);
    FILE *f = fopen(d->log, "r");
    if (f && text) text[fread(text, 1, (1 << 20) - 1, f)] = 0;
    if (f) fclose(f);
    return text;
}

/* Starts it on a free port with further "--flag=value" arguments, the list ended by NULL. False when it ends instead.
 */
static inline bool daemon_start(daemon_child *d, const char *const *flags) {
    char data[300], dir_flag[320], *argv[32] = {"serve",
                                                "--listen=127.0.0.1:0",
                                                dir_flag,
                                                "--model=/dev/null",
                                                "--free-min-bytes=0",
                                                "--free-min-percent=0"};
    int argc = 6;
    snprintf(data, sizeof data, "%s/data", d->dir);
    snprintf(d->log, sizeof d->log, "%s/log", d->dir);
    snprintf(dir_flag, sizeof dir_flag, "--data=%s", data);
    for (; flags && *flags; flags++) argv[argc++] = (char *)(uintptr_t)*flags;
    unlink(d->log);
    fflush(stdout);
    d->pid = fork();
    if (!d->pid) {
        int fd = open(d->log, O_CREAT | O_WRONLY | O_APPEND, 0600);
        dup2(fd, 2);
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a case that fails half-way leaves no daemon behind */
        exit(srv_cmd_serve(argc, argv));
    }
    for (int i = 0; i < 1500; i++) {
        char *text = daemon_log(d), *at = strstr(text, "listening on http://127.0.0.1:");
        if (at && strchr(at, '\n')) d->port = (int)strtol(at + 30, NULL, 10);
        free(text);
        if (at && d->port) return true;
        if (waitpid(d->pid, NULL, WNOHANG) == d->pid) return false;
        poll(NULL, 0, 20);
    }
    return false;
}

static inline void daemon_dir(daemon_child *d) {
    *d = (daemon_child){0};
    scratch_make(d->dir, sizeof d->dir);
}

/* Sends the signal and gives the exit code, -1 when a signal ended it (sanitizers end it with a code of their own). */
static inline int daemon_stop(daemon_child *d, int sig) {
    int st = 0;
    kill(d->pid, sig);
    if (waitpid(d->pid, &st, 0) != d->pid) return -2;
    if (WIFEXITED(st) && WEXITSTATUS(st)) {
        char *text = daemon_log(d);
        printf("# log of the daemon:\n%s\n", text);
        free(text);
    }
    return WIFEXITED(st) ? WEXITSTATUS(st) : -1;
}

/* --- pictures --- */

static inline size_t put_chunk(uint8_t *p, const char *type, const uint8_t *data, size_t n) {
    uint32_t crc;
    p[0] = (uint8_t)(n >> 24), p[1] = (uint8_t)(n >> 16), p[2] = (uint8_t)(n >> 8), p[3] = (uint8_t)n;
    memcpy(p + 4, type, 4);
    if (n) memcpy(p + 8, data, n);
    crc = dr_crc32(0, p + 4, n + 4);
    p[8 + n] = (uint8_t)(crc >> 24), p[9 + n] = (uint8_t)(crc >> 16), p[10 + n] = (uint8_t)(crc >> 8),
          p[11 + n] = (uint8_t)crc;
    return n + 12;
}

/* A PNG with this header; the pixel data is `idat` bytes of anything, which is enough for whoever only looks at chunks.
 */
static inline size_t make_png(uint8_t *p, unsigned w, unsigned h, int color, size_t idat, const char *comment) {
    static const uint8_t signature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
    uint8_t head[13] = {(uint8_t)(w >> 24),
                        (uint8_t)(w >> 16),
                        (uint8_t)(w >> 8),
                        (uint8_t)w,
                        (uint8_t)(h >> 24),
                        (uint8_t)(h >> 16),
                        (uint8_t)(h >> 8),
                        (uint8_t)h,
                        8,
                        (uint8_t)color,
                        0,
                        0,
                        0};
    uint8_t *data = malloc(idat ? idat : 1);
    size_t n = 8;
    for (size_t i = 0; i < idat; i++) data[i] = (uint8_t)(i * 31);
    memcpy(p, signature, 8);
    n += put_chunk(p + n, "IHDR", head, 13);
    if (comment) n += put_chunk(p + n, "tEXt", (const uint8_t *)comment, strlen(comment));
    n += put_chunk(p + n, "IDAT", data, idat);
    n += put_chunk(p + n, "IEND", NULL, 0);
    free(data);
    return n;
}

/* --- client --- */

static inline int dial(int port) {
    struct sockaddr_in sa = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const struct timeval tv = {.tv_sec = 20};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
    if (connect(fd, (struct sockaddr *)&sa, sizeof sa)) {
        close(fd);
        return -1;
    }
    return fd;
}

static inline bool send_all(int fd, const void *data, size_t n) {
    const char *p = data;
    while (n) {
        ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
        if (k <= 0) return false;
        p += k;
        n -= (size_t)k;
    }
    return true;
}

typedef struct answer {
    int status; /* 0 = the connection ended without one */
    char head[8192];
    char *body;
    size_t len;
} answer;

static inline void answer_done(answer *a) {
    free(a->body);
    *a = (answer){0};
}

/* Reads one answer; the connection stays usable. */
static inline answer receive(int fd) {
    answer a = {0};
    size_t n = 0;
    while (n + 1 < sizeof a.head && !strstr(a.head, "\r\n\r\n")) {
        if (recv(fd, a.head + n, 1, 0) != 1) return a;
        a.head[++n] = 0;
    }
    const char *cl = strcasestr(a.head, "\r\nContent-Length:");
    size_t len = cl ? strtoul(cl + 17, NULL, 10) : 0;
    a.status = (int)strtol(a.head + 9, NULL, 10);
    a.body = calloc(1, len + 1);
    if (a.status == 304 || a.status == 204 || a.status == 100) return a;
    while (a.len < len) {
        ssize_t k = recv(fd, a.body + a.len, len - a.len, 0);
        if (k <= 0) break;
        a.len += (size_t)k;
    }
    return a;
}

static inline bool closed_by_peer(int fd) {
    char c;
    return recv(fd, &c, 1, 0) == 0;
}

/* The value of a header in the answer's head, in a static buffer; "" when absent. */
static inline const char *header_of(const answer *a, const char *name) {
    static char value[1024];
    char key[128];
    snprintf(key, sizeof key, "\r\n%s:", name);
    const char *p = strcasestr(a->head, key);
    *value = 0;
    if (!p) return value;
    p += strlen(key);
    while (*p == ' ') p++;
    snprintf(value, sizeof value, "%.*s", (int)strcspn(p, "\r"), p);
    return value;
}

/* One request on a connection of its own. headers: further lines, each with \r\n. body may be NULL for none. */
static inline answer ask(int port, const char *method, const char *path, const char *headers, const void *body,
                         size_t len) {
    char head[4096];
    answer a = {0};
    int fd = dial(port);
    if (fd < 0) return a;
    int n =
        snprintf(head, sizeof head, "%s %s HTTP/1.1\r\nHost: localhost\r\n%s", method, path, headers ? headers : "");
    if (body || !strcmp(method, "POST"))
        n += snprintf(head + n, sizeof head - (size_t)n, "Content-Length: %zu\r\n", len);
    n += snprintf(head + n, sizeof head - (size_t)n, "\r\n");
    if (send_all(fd, head, (size_t)n) && (!len || send_all(fd, body, len) || errno == EPIPE || errno == ECONNRESET))
        a = receive(fd);
    close(fd);
    return a;
}

static inline answer get(int port, const char *path) {
    return ask(port, "GET", path, NULL, NULL, 0);
}

/* A string member of a JSON answer by its first occurrence, in a static buffer. */
static inline const char *member(const answer *a, const char *name) {
    static char value[256];
    char key[64];
    snprintf(key, sizeof key, "\"%s\":\"", name);
    const char *p = a->body ? strstr(a->body, key) : NULL;
    snprintf(value, sizeof value, "%.*s", p ? (int)strcspn(p + strlen(key), "\"") : 0, p ? p + strlen(key) : "");
    return value;
}

static inline bool has(const answer *a, const char *text) {
    return a->body && strstr(a->body, text);
}

#endif
