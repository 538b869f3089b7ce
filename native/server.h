/* server: threads that answer NTP on UDP sockets. Set-up, rules and counters; worker.h is one thread.
 *
 * Each thread has its own sockets, clients, counters and buffers, and a source always meets the same thread. Threads share what they only
 * read: the record, once per batch of requests, and the rules, which are replaced as a whole while the server runs. The arrival is the
 * kernel's receive stamp (CLOCK_REALTIME), carried over to CLOCK_MONOTONIC_RAW by a paired reading right after the batch was received. The
 * departure is foretold, and for interleaved clients it is stamped by the kernel (departure.h). Nothing that a packet or the network does
 * ends a thread. Functions that return int: 0 or -errno.
 */
#ifndef SERVER_H
#define SERVER_H
#include <stddef.h>
#include <stdint.h>

#include "clients.h"
#include "packet.h"

enum {
    SRV_THREADS_MAX = 64,
    SRV_SOCKETS_MAX = 32, /* addresses, and sockets per thread */
    SRV_HOST_MAX = 64,    /* bytes of a numeric host with scope and NUL */
    SRV_RETURN = 96       /* bytes that say where the reply to a control packet goes */
};

/* Who is answered, and how. */
struct srv_rules {
    const struct acl_range *ranges; /* copied; none: everybody is denied */
    size_t range_count;
    struct mac_keys *keys;          /* srv_configure takes them over, also when it fails; NULL: none */
    struct nts_keys *nts;           /* likewise; NULL: no NTS */
    double rate;                    /* requests/s that a client may send in the long run, 0..1e9; 0: no limit */
    uint32_t burst;                 /* requests that it may send at once; not 0 with a rate */
    uint32_t leak;                  /* struct cli_limits */
    double kod_rate;                /* kisses-o'-death/s of all threads together, 0..1e6 */
    double cpu_limit;               /* share of a core that a thread may use, > 0; 1: no limit (flood.h) */
    uint8_t tell_denied;            /* 1: those denied get KoD DENY; 0: silence */
    uint8_t symmetric, smear;       /* struct pkt_context */
    int8_t dscp;                    /* of replies, 0..63 (RFC 2474); -1: that of the request */
};

/* Counters since srv_create, but for those that say now. */
struct srv_counts {
    uint64_t packets[PKT_ACTIONS][PKT_REASONS]; /* each received packet is in exactly one */
    uint64_t authenticated;  /* requests with a right MAC of a key that is accepted from there, or with NTS */
    uint64_t nts;            /* requests answered with NTS */
    uint64_t unstamped;      /* requests without a kernel stamp: arrival = end of the receive call */
    uint64_t stepped;        /* requests of which the stamp is void, for CLOCK_REALTIME was stepped */
    uint64_t receive_errors; /* receive calls that failed */
    uint64_t departures;     /* kernel stamps of departures that were used (interleaved mode) */
    uint64_t filters;        /* times that a socket filter was changed */
    uint64_t blocked;        /* now: sources that the filters block (flood.h) */
    uint64_t let_through;    /* now: share of requests of unknown sources let through, 1/1000; the least of all threads */
    uint64_t kernel_drops;   /* requests that a filter dropped or that found no room */
    uint64_t receive_buffer; /* now: bytes of the smallest receive buffer; 0: no socket */
};

struct srv; /* a server */

/* Create a server of 1..SRV_THREADS_MAX threads, which do not run yet. table_bytes: for the clients of all threads. The record file at
 * record_path need not exist yet and may be replaced, for it is looked for once a second; without a record replies say LI 3. Until
 * srv_configure everybody is denied. */
int srv_create(const char *record_path, int threads, size_t table_bytes, struct srv **out);
/* Put rules in force, also while serving. It returns when no thread uses the old ones any more. -EINVAL: they make no sense. */
int srv_configure(struct srv *s, const struct srv_rules *rules);
/* Listen at a numeric host and a port (0: any free one): its place, 0..SRV_SOCKETS_MAX - 1. An IPv6 host takes no IPv4. interface: the only
 * one that is served there; "": all. While serving, the threads pause for some 0.1 ms, in which requests wait. -EADDRINUSE: also when
 * another of these servers has the address. */
int srv_listen(struct srv *s, const char *host, uint16_t port, const char *interface);
/* Serve a copy of a bound UDP socket (socket activation), by one thread: its place. The caller keeps fd. */
int srv_adopt(struct srv *s, int fd);
/* Close the sockets of a place, also while serving. Requests that wait in them are lost. -ENOENT: there are none. */
int srv_leave(struct srv *s, int place);
/* The address served at a place; host: SRV_HOST_MAX bytes. -ENOENT: none. */
int srv_bound(const struct srv *s, int place, char *host, uint16_t *port);
/* Start the threads. -EALREADY. */
int srv_start(struct srv *s);
/* End the threads after the batches in hand. The sockets stay bound. */
void srv_stop(struct srv *s);
/* Stop, close, free. */
void srv_destroy(struct srv *s);
/* The sum over all threads. */
void srv_count(const struct srv *s, struct srv_counts *out);
/* Now, on the clock of struct cli_client (CLOCK_MONOTONIC_RAW). */
int64_t srv_now(void);
/* Copy up to `room` clients, from *place on, which moves on; begin with 0. Their number; 0: that was all. Also while serving. */
size_t srv_clients(const struct srv *s, size_t *place, struct cli_client *out, size_t room);
/* Hand control packets (mode 6) from this machine itself to the program around the server: each is written to fd, a datagram socket, as
 * SRV_RETURN bytes and then the packet, and counted as a reply. One that does not fit, and all of them with fd < 0, is dropped. The server
 * does not run. */
void srv_hand_over(struct srv *s, int fd);
/* Send the reply to such a packet, or a part of it, from the address that was asked. -ENOENT: that address is not served any more. */
int srv_control_reply(struct srv *s, const uint8_t *where, const uint8_t *packet, size_t length);
/* Send one broadcast or multicast with the MAC of that key. poll: log2 s. -ENOKEY; -EAGAIN: unsynchronised, so nothing was sent. */
int srv_broadcast(struct srv *s, const char *host, uint16_t port, uint32_t key, int poll);
#endif
