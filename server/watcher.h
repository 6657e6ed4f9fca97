/* watcher.h - one thread that looks after what an HTTP thread cannot wait for: clients that leave while their request
 * is suspended, deadlines, and headers and bodies that come too slowly.
 *
 * Two kinds of things are watched:
 *   a peer (srv_peer) is an open connection; the HTTP thread says which phase it is in and counts bytes, the watcher
 * cuts it off (shutdown of the socket) when a phase lasts too long. libmicrohttpd's own time-out starts anew at each
 * byte. a park (srv_park) is a suspended request. Exactly one of many possible wakers resumes it: an event by key (the
 * job changed), a call-back, its deadline, its client leaving, or the stop of the daemon.
 *
 * Protocol of a park, in the HTTP thread: srv_park_arm(), then look whether the awaited thing is there already; if so
 * srv_park_disarm(); else suspend the connection and srv_park_wait(). A wake between arm and wait is not lost: wait
 * then resumes at once. Resuming is a call-back so that this file knows no libmicrohttpd. It is made without a lock
 * held. */
#ifndef SRV_WATCHER_H
#define SRV_WATCHER_H

#include "core/base/status.h"
#include "db/ulid.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct srv_watch srv_watch;

typedef struct srv_watch_opts {
    int64_t header_ms, idle_ms; /* most time for a header; for a kept-alive connection between requests */
    int64_t body_grace_ms, body_max_ms;
    int64_t body_rate_min; /* bytes a second after the grace; 0 = any */
    void (*resume)(void *conn);
    /* The body was too slow; the socket may still be written to. Called with the connection's fd before it is cut. */
    void (*too_slow)(void *arg, int fd);
    void *arg;
} srv_watch_opts;

DR_MUSTUSE dr_status srv_watch_open(const srv_watch_opts *opts, srv_watch **ret, dr_error *err);
void srv_watch_close(srv_watch *w); /* no peer and no park may be left */

/* --- peers --- */

typedef enum srv_phase {
    SRV_PHASE_IDLE,   /* kept alive, no request line yet */
    SRV_PHASE_HEADER, /* request begun */
    SRV_PHASE_BODY,   /* body awaited or coming in */
    SRV_PHASE_BUSY,   /* all read: ours to work on or to answer */
    SRV_PHASE_LINGER, /* refused in mid-body: soak up the rest for a moment */
    SRV_PHASE_CUT     /* the watcher has given up on it */
} srv_phase;

typedef struct srv_peer { /* caller's memory, stable between open and close */
    struct srv_peer *prev, *next;
    int fd;
    _Atomic int phase;
    _Atomic int64_t since_ns; /* when the phase began */
    _Atomic uint64_t bytes;   /* body bytes of this request */
} srv_peer;

void srv_peer_open(srv_watch *w, srv_peer *p, int fd); /* phase HEADER */
void srv_peer_close(srv_watch *w, srv_peer *p);        /* before the descriptor is closed */
/* False when the watcher has cut it off: answer nothing any more. */
bool srv_peer_phase(srv_peer *p, srv_phase phase);

/* --- parks --- */

typedef enum srv_wake { SRV_WAKE_EVENT, SRV_WAKE_TIMEOUT, SRV_WAKE_GONE, SRV_WAKE_STOP } srv_wake;

typedef struct srv_park { /* caller's memory, zeroed before first use */
    struct srv_park *prev, *next, *chain;
    int state;
    bool fired, interruptible;
    bool owner;    /* this request made the job; set after arming */
    bool looks_on; /* it only watches: no work is done for it; set after arming */
    srv_wake why;
    char key[DB_ID];
    void *conn;
    int fd;
    int64_t deadline_ns;
    uint64_t serial;
} srv_park;

/* key "" = woken by srv_park_wake() only: no deadline, no stop, no look at the client. */
void srv_park_arm(srv_watch *w, srv_park *p, const char *key);
/* True when it had been woken meanwhile. */
bool srv_park_disarm(srv_watch *w, srv_park *p);
/* The connection has been suspended. deadline_ns 0 = none. fd -1 = do not watch the client. */
void srv_park_wait(srv_watch *w, srv_park *p, void *conn, int fd, int64_t deadline_ns);
srv_wake srv_park_why(srv_watch *w, const srv_park *p); /* after it was resumed */

void srv_park_wake(srv_watch *w, srv_park *p);         /* this one; from a call-back */
void srv_park_wake_key(srv_watch *w, const char *key); /* all that wait for it */
size_t srv_park_waiting(srv_watch *w);                 /* suspended ones with a key that do not only look on */
bool srv_park_owned(srv_watch *w, const srv_park *but, const char *key); /* does another owner wait for this key? */
void srv_park_own(srv_watch *w, srv_park *p);
void srv_park_looks_on(srv_watch *w, srv_park *p);
/* From now on every park with a key is woken with SRV_WAKE_STOP, those that come later too. */
void srv_watch_stop_waiting(srv_watch *w);

#endif
