/* listen.c - see listen.h. */
#include "server/listen.h"
#include "core/base/parse.h"
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static bool is_loopback(const struct sockaddr *sa) {
    if (sa->sa_family == AF_INET)
        return (ntohl(((const struct sockaddr_in *)(const void *)sa)->sin_addr.s_addr) >> 24) == 127;
    return sa->sa_family == AF_INET6 &&
           IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr);
}

static dr_status look_up(const srv_address *a, struct addrinfo **ret, dr_error *err) {
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    int rc = getaddrinfo(*a->host ? a->host : NULL, a->port, &hints, ret);
    if (rc) return dr_fail(err, DR_INVALID, "listen: '%.100s': %s", a->host, gai_strerror(rc));
    return DR_OK;
}

dr_status srv_address_parse(const char *text, srv_address *ret, dr_error *err) {
    srv_address a = {0};
    struct addrinfo *list = NULL;
    int port = 0;
    const char *colon = strrchr(text, ':');
    size_t n = colon ? (size_t)(colon - text) : 0;
    const char *host = text;
    if (n >= 2 && host[0] == '[' && host[n - 1] == ']')
        host++, n -= 2;
    else if (colon && memchr(text, ':', n))
        colon = NULL; /* an IPv6 address without brackets */
    if (!colon || n >= sizeof a.host || !dr_parse_int(colon + 1, 0, 65535, &port))
        return dr_fail(err, DR_INVALID, "listen must be HOST:PORT, not '%.100s'", text);
    memcpy(a.host, host, n);
    if (!strcmp(a.host, "*")) a.host[0] = 0;
    snprintf(a.port, sizeof a.port, "%d", port);
    dr_status s = look_up(&a, &list, err);
    if (s) return s;
    a.loopback = *a.host != 0;
    for (const struct addrinfo *p = list; p; p = p->ai_next) a.loopback = a.loopback && is_loopback(p->ai_addr);
    freeaddrinfo(list);
    *ret = a;
    return DR_OK;
}

static dr_status name_of(int fd, char ret[320], dr_error *err) {
    struct sockaddr_storage sa = {0};
    socklen_t len = sizeof sa;
    char host[256], port[16];
    if (getsockname(fd, (struct sockaddr *)&sa, &len)) return dr_fail_errno(err, errno, "listen", "socket");
    if (getnameinfo((struct sockaddr *)&sa, len, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV))
        return dr_fail(err, DR_IO, "cannot name the address that we listen on");
    snprintf(ret, 320, sa.ss_family == AF_INET6 ? "http://[%s]:%s" : "http://%s:%s", host, port);
    return DR_OK;
}

dr_status srv_listen(const srv_address *a, int *ret_fd, char ret_url[320], dr_error *err) {
    struct addrinfo *list = NULL;
    int one = 1, fd = -1;
    dr_status s = look_up(a, &list, err);
    if (s) return s;
    const struct addrinfo *p = list;
    fd = socket(p->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) || bind(fd, p->ai_addr, p->ai_addrlen) ||
        listen(fd, 256))
        s = dr_fail_as(err, DR_UNAVAILABLE, errno == EADDRINUSE ? "port_in_use" : "cannot_listen",
                       "cannot listen on %s:%s: %s", *a->host ? a->host : "*", a->port, strerror(errno));
    freeaddrinfo(list);
    if (!s) s = name_of(fd, ret_url, err);
    if (s) {
        if (fd >= 0) close(fd);
        return s;
    }
    *ret_fd = fd;
    return DR_OK;
}
