/* listen.h - "HOST:PORT" as a listening socket. */
#ifndef SRV_LISTEN_H
#define SRV_LISTEN_H

#include "core/base/status.h"
#include <stdbool.h>

typedef struct srv_address {
    char host[256], port[8];
    bool loopback; /* every address the host stands for */
} srv_address;

/* "127.0.0.1:8650", "[::1]:8650", "localhost:0", "*:80". INVALID. */
DR_MUSTUSE dr_status srv_address_parse(const char *text, srv_address *ret, dr_error *err);
/* A non-blocking listening socket; ret_url gets "http://127.0.0.1:8650" with the real port. UNAVAILABLE "port_in_use"
 * and friends say which address. */
DR_MUSTUSE dr_status srv_listen(const srv_address *a, int *ret_fd, char ret_url[320], dr_error *err);

#endif
