/* clients: who asked, how often, and who asks too often. One table per server thread, of fixed size.
 *
 * A client is an IPv4 address, an IPv6 /64 (what a user has; RFC 6177), or a whole address where a /64 is a LAN (link-local and unique
 * local). The table is sets of 16 clients, chosen by a keyed SipHash-1-3 that nobody outside can aim at, 68 bytes a client. In a set the
 * least recently heard is replaced, but newcomers fight for the lower half only: a million addresses that are heard once do not push
 * out those that come back. Only its own thread writes; anybody may copy it meanwhile (a sequence number for each client).
 *
 * The limiter is a token bucket for each client in its virtual-scheduling form (GCRA, ITU-T I.371): `owed` is the instant at which the
 * bucket will be full again.
 */
#ifndef CLIENTS_H
#define CLIENTS_H
#include <stddef.h>
#include <stdint.h>

#include "access.h"

enum { CLI_KEY_BYTES = 16, CLI_BYTES = 68 /* of memory per client */ };
enum cli_flag {
    CLI_IPV6 = 1,      /* network is the upper half of an address, a /64 */
    CLI_WHOLE = 2,     /* IPv6, and network its lower half */
    CLI_MAC = 4,       /* the last accepted request was authenticated */
    CLI_INTERLEAVED = 8 /* asks in interleaved mode */
};

/* One client; 64 bytes. All times on CLOCK_MONOTONIC_RAW. */
struct cli_client {
    uint64_t network;    /* see cli_flag; IPv4: 0x0000ffff.a.b.c.d */
    int64_t last_ns;     /* last request; 0: an empty place */
    int64_t owed_ns;
    uint64_t receive;    /* of the last reply, as NTP timestamps, for interleaved mode (RFC 9769); 0: none */
    uint64_t transmit;
    uint32_t packets;    /* requests, dropped ones too; stays at its maximum */
    uint32_t drops;      /* of them over the rate */
    uint32_t first_s;
    uint32_t interval_ms; /* between requests, averaged over some eight */
    uint32_t sequence;   /* even: at rest */
    uint8_t flags;       /* enum cli_flag */
    uint8_t version;     /* NTP version of the last request */
    uint8_t spare[2];
};

struct cli_limits {
    int64_t interval_ns; /* one request is earned each; 0: no limit */
    int64_t burst_ns;    /* that many intervals may be saved up, in ns */
    uint32_t leak;       /* one of so many excess requests is answered all the same; 0: none */
};

struct cli;

/* A table of at most `bytes`, at least one set. 0 or -ENOMEM, -EINVAL. Memory is touched as clients come. */
int cli_create(size_t bytes, const uint8_t key[CLI_KEY_BYTES], struct cli **out);
void cli_destroy(struct cli *t);
/* How many clients there is room for. */
size_t cli_room(const struct cli *t);

/* The keyed hash of an address's client; fetches its set into the cache. */
uint64_t cli_hash(const struct cli *t, struct acl_address address);
/* The client of address, made when it is new, with this request counted; a place for cli_keep. *client is the caller's copy. */
size_t cli_meet(struct cli *t, struct acl_address address, uint64_t hash, int64_t raw_ns, struct cli_client *client);
/* Pay for one request: 1 within the limit (or leaked), 0 over it, and then counted as a drop. */
int cli_pay(struct cli *t, const struct cli_limits *limits, int64_t raw_ns, struct cli_client *client);
/* Put the copy back. */
void cli_keep(struct cli *t, size_t place, const struct cli_client *client);

/* For any thread: a copy of the client at place 0 .. cli_room - 1. 1; 0: empty. */
int cli_copy(const struct cli *t, size_t place, struct cli_client *out);
#endif
