/* http.h - the libmicrohttpd daemon: connections, the life of a request, and an end without suspended connections
 * (which libmicrohttpd answers with abort()). */
#ifndef SRV_HTTP_H
#define SRV_HTTP_H

#include "server/request.h"

typedef struct srv_http srv_http;

/* Sets app->http. Takes listen_fd, also on failure. table: the routes; borrowed. app->watch must have been opened with
 * srv_http_resume and srv_http_too_slow. */
DR_MUSTUSE dr_status srv_http_open(srv_app *app, int listen_fd, const srv_route *table, size_t n_routes, dr_error *err);
/* Stop accepting; wake all that wait; wait until nothing is suspended and, for at most grace_ms, until every answer is
 * out; then stop. NULL is fine. */
void srv_http_close(srv_http *h, int64_t grace_ms);

void srv_http_suspend(srv_req *r);         /* used by srv_wait, srv_call_park and srv_stream_wait only */
void srv_http_resumed(srv_req *r);         /* what was suspended in a stream goes on: used by reply.c only */
bool srv_http_closing(srv_http *h);        /* nothing may be suspended any more */
void srv_http_resume(void *conn);          /* for srv_watch_opts */
void srv_http_too_slow(void *arg, int fd); /* likewise: writes a 408 */

#endif
