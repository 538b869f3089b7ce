/* server: threads that answer NTP on UDP sockets.
 *
 * Each thread owns its sockets, client table, counters and buffers and shares only what it reads: the timescale record, once per batch, and
 * the rules, which are replaced as a whole while it serves. A source always meets the same thread. The arrival is the kernel's receive
 * stamp (CLOCK_REALTIME), carried over to CLOCK_MONOTONIC_RAW by a paired reading right after the batch; the departure is foretold for each
 * reply of a group from the clock and what sending took lately, and for interleaved clients is the kernel's stamp. Nothing that a packet
 * or the network does ends a thread. Functions: 0 or -errno.
 */
#ifndef SERVER_H
#define SERVER_H
#include <stddef.h>
#include <stdint.h>

#include "clients.h"
#include "packet.h"

enum {
    SRV_THREADS_MAX = 64,
    SRV_SOCKETS_MAX = 32, /* per thread */
    SRV_HOST_MAX = 64     /* numeric host with scope, NUL included */
};

/* Who is answered, and how. */
struct srv_rules {
    const struct acl_range *ranges; /* copied; none: everybody is denied */
    size_t range_count;
    struct mac_keys *keys;          /* the server's from then on, also when srv_configure fails; NULL: none */
    double rate;                    /* requests/s that a client may go on with; 0: no limit */
    uint32_t burst;                 /* requests that it may send at once */
    uint32_t leak;                  /* struct cli_limits */
    double kod_rate;                /* kisses-o'-death/s, in all */
    double cpu_limit;               /* share of a core, per thread (flood.h) */
    uint8_t tell_denied;            /* 1: KoD DENY; 0: silence */
    uint8_t symmetric, smear;       /* struct pkt_context */
};

/* Since srv_create. */
struct srv_counts {
    uint64_t packets[PKT_ACTIONS][PKT_REASONS]; /* each received packet in exactly one */
    uint64_t unstamped;      /* no kernel stamp: arrival taken as the end of the batch's receive call */
    uint64_t stepped;        /* the same, because CLOCK_REALTIME was stepped while they waited */
    uint64_t receive_errors; /* receive calls that failed */
    uint64_t departures;     /* kernel stamps of departures that were used (interleaved mode) */
    uint64_t filters;        /* times that a socket filter was changed */
    uint64_t blocked;        /* now: sources that the kernel drops (flood.h) */
    uint64_t let_through;    /* now: share of unknown sources let through, in 1/1000; the smallest of all threads */
    uint64_t kernel_drops;   /* dropped before they reached us: by filter, or for want of room */
    uint64_t receive_buffer; /* now: bytes of the smallest receive buffer */
};

struct srv;

/* A server with this many threads for the record at record_path, with table_bytes for the clients of all threads, serving one interface
 * only or all (""). The record need not exist yet, and may be replaced: it is looked for once a second; meanwhile replies say LI 3. Until
 * srv_configure everybody is denied. */
int srv_create(const char *record_path, int threads, size_t table_bytes, const char *interface, struct srv **out);
/* Put rules in force, also while serving: returns when the old ones are no longer looked at. -EINVAL: they make no sense. */
int srv_configure(struct srv *s, const struct srv_rules *rules);
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
/* The server's own clock, which struct cli_client's times are on. */
int64_t srv_now(void);
/* Up to `room` clients from place *place on, which moves; 0: that was all. While serving, too. */
size_t srv_clients(const struct srv *s, size_t *place, struct cli_client *out, size_t room);
/* Send one broadcast (or multicast) authenticated with that key. -ENOKEY; -EAGAIN: unsynchronised, so nothing was sent. */
int srv_broadcast(struct srv *s, const char *host, uint16_t port, uint32_t key, int poll);
#endif
