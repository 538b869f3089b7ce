/* server: threads that answer NTP on UDP sockets.
 *
 * Each thread owns its sockets, counters and buffers and shares nothing but the timescale record, which it reads once per batch. The
 * arrival is the kernel's receive stamp (CLOCK_REALTIME), carried over to CLOCK_MONOTONIC_RAW by a paired reading right after the batch;
 * the departure is read right before each send. Nothing that a packet or the network does ends a thread. Functions: 0 or -errno.
 */
#ifndef SERVER_H
#define SERVER_H
#include <stddef.h>
#include <stdint.h>

#include "packet.h"

enum {
    SRV_THREADS_MAX = 64,
    SRV_SOCKETS_MAX = 32, /* per thread */
    SRV_HOST_MAX = 64     /* numeric host with scope, NUL included */
};

/* Since srv_create. */
struct srv_counts {
    uint64_t packets[PKT_ACTIONS][PKT_REASONS]; /* each received packet in exactly one */
    uint64_t unstamped;      /* no kernel stamp: arrival taken as the end of the batch's receive call */
    uint64_t stepped;        /* the same, because CLOCK_REALTIME was stepped while they waited */
    uint64_t receive_errors; /* receive calls that failed */
};

struct srv;

/* A server with this many threads for the record at record_path. The record need not exist yet, and may be replaced: it is looked for
 * once a second; meanwhile replies say LI 3. */
int srv_create(const char *record_path, int threads, struct srv **out);
/* Listen at a numeric host and a port (0: any free one); IPv6 hosts take no IPv4. -EADDRINUSE also when another server of ours has it. */
int srv_listen(struct srv *s, const char *host, uint16_t port);
/* Serve a bound UDP socket (socket activation); the caller keeps fd. One thread serves it. */
int srv_adopt(struct srv *s, int fd);
/* Where the i-th of them is bound. -ENOENT past the last one. host: SRV_HOST_MAX bytes. */
int srv_bound(const struct srv *s, int i, char *host, uint16_t *port);
/* Start the threads; no more srv_listen and srv_adopt. -EALREADY. */
int srv_start(struct srv *s);
/* End them, after the batch in hand. The sockets stay bound. */
void srv_stop(struct srv *s);
/* Stop, close, free. */
void srv_destroy(struct srv *s);
/* The sum over all threads. */
void srv_count(const struct srv *s, struct srv_counts *out);
#endif
