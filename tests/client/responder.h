/* responder.h - a tiny HTTP server inside a test: one request a connection, answers by a function of the test. */
#ifndef TESTS_CLIENT_RESPONDER_H
#define TESTS_CLIENT_RESPONDER_H
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct seen {
    char method[16], path[512], idem[80], prefer[64], accept[128], auth[128], type[64];
    char *body;
    size_t len;
} seen;

typedef struct responder {
    int fd, port;
    char url[64];
    pthread_t thread;
    atomic_int stop, n;                                                /* requests so far */
    void (*answer)(struct responder *r, int fd, const seen *q, int i); /* i counts from 0; on the responder's thread */
    void *arg;
    seen log[64];
} responder;

static inline void say(int fd, const char *fmt, ...) {
    char buf[8192];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(buf, sizeof buf, fmt, ap);
    va_end(ap);
    for (int done = 0; done < n;) {
        ssize_t w = send(fd, buf + done, (size_t)(n - done), MSG_NOSIGNAL);
        if (w <= 0) return;
        done += (int)w;
    }
}
/* A whole answer with extra header lines (each ending in \r\n). */
static inline void reply(int fd, int status, const char *type, const char *headers, const void *body, size_t len) {
    say(fd, "HTTP/1.1 %d X\r\nConnection: close\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%s\r\n", status, type,
        len, headers);
    if (len && send(fd, body, len, MSG_NOSIGNAL) < 0) return;
}
static inline void reply_json(int fd, int status, const char *headers, const char *json) {
    reply(fd, status, status >= 400 ? "application/problem+json" : "application/json", headers, json, strlen(json));
}

static inline void header_of(const char *head, const char *name, char *ret, size_t cap) {
    ret[0] = 0;
    const char *p = head;
    size_t n = strlen(name);
    while ((p = strstr(p, "\r\n"))) {
        p += 2;
        if (strncasecmp(p, name, n) != 0 || p[n] != ':') continue;
        p += n + 1;
        while (*p == ' ') p++;
        snprintf(ret, cap, "%.*s", (int)strcspn(p, "\r\n"), p);
        return;
    }
}

static inline void serve_one(responder *r, int fd) {
    size_t cap = 1 << 20, len = 0, want = 0;
    char *buf = calloc(1, cap + 1), *end = NULL, num[32];
    while (buf && len < cap && (!end || len < want)) {
        ssize_t n = recv(fd, buf + len, cap - len, 0);
        if (n <= 0) break;
        len += (size_t)n;
        buf[len] = 0;
        if (!end && (end = strstr(buf, "\r\n\r\n"))) {
            header_of(buf, "Content-Length", num, sizeof num);
            want = (size_t)(end - buf) + 4 + strtoul(num, NULL, 10);
            header_of(buf, "Expect", num, sizeof num);
            if (*num) say(fd, "HTTP/1.1 100 Continue\r\n\r\n");
        }
    }
    if (end) {
        int i = atomic_load(&r->n);
        seen *q = &r->log[i % 64];
        free(q->body);
        *q = (seen){0};
        sscanf(buf, "%15s %511s", q->method, q->path);
        header_of(buf, "Idempotency-Key", q->idem, sizeof q->idem);
        header_of(buf, "Prefer", q->prefer, sizeof q->prefer);
        header_of(buf, "Accept", q->accept, sizeof q->accept);
        header_of(buf, "Authorization", q->auth, sizeof q->auth);
        header_of(buf, "Content-Type", q->type, sizeof q->type);
        q->len = len - (size_t)(end + 4 - buf);
        q->body = malloc(q->len + 1);
        if (q->body) memcpy(q->body, end + 4, q->len), q->body[q->len] = 0;
        atomic_fetch_add(&r->n, 1);
        r->answer(r, fd, q, i);
    }
    free(buf);
    shutdown(fd, SHUT_RDWR);
    close(fd);
}

static inline void *responder_main(void *arg) {
    responder *r = arg;
    while (!atomic_load(&r->stop)) {
        struct pollfd p = {.fd = r->fd, .events = POLLIN};
        if (poll(&p, 1, 20) <= 0) continue;
        int fd = accept(r->fd, NULL, NULL);
        if (fd >= 0) serve_one(r, fd);
    }
    return NULL;
}

static inline int responder_start(responder *r) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    r->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (r->fd < 0 || bind(r->fd, (struct sockaddr *)&a, sizeof a) != 0 || listen(r->fd, 64) != 0 ||
        getsockname(r->fd, (struct sockaddr *)&a, &n) != 0)
        return -1;
    r->port = ntohs(a.sin_port);
    snprintf(r->url, sizeof r->url, "http://127.0.0.1:%d", r->port);
    return pthread_create(&r->thread, NULL, responder_main, r);
}
static inline void responder_stop(responder *r) {
    atomic_store(&r->stop, 1);
    pthread_join(r->thread, NULL);
    close(r->fd);
    for (int i = 0; i < 64; i++) free(r->log[i].body);
}
#endif
